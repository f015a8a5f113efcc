//! The lab of the bench: a region on shaped links, ready for pulls.

use std::time::Duration;

use anyhow::{Context as _, Result};
use futures_util::future::try_join_all;
use http::Request;
use http::request::Builder;
use shoal_model::ByteRate;
use shoal_tests::fleet::{Fleet, FleetSpec};
use shoal_tests::host::Host;
use shoal_tests::image::{Blob, Image, ImageSpec};
use shoal_tests::lab::{Lab, LabSpec};
use shoal_tests::link::Mbit;

use crate::bench::cpu;

/// A node's link, either way: fast enough for a swarm to have something to do, slow enough that two
/// processors carry fifty.
const NODE: Mbit = Mbit(16);
/// The gateway's link and the registry's, either way.
const SERVER: Mbit = Mbit(64);

/// The region.
pub(super) struct Stage {
    pub(super) fleet: Fleet,
    // Dropped after the processes that run in it.
    pub(super) lab: Lab,
}

impl Stage {
    /// Starts a registry, a gateway, a scheduler and sidecars whose stores are empty.
    pub(super) async fn start(n_nodes: u16) -> Result<Self> {
        let mut lab = Lab::start("bench-swarm", LabSpec::nodes(n_nodes).at(NODE).with_jumbo_frames()).await?;
        let fleet = Fleet::start(&mut lab, FleetSpec::open()).await?;
        for server in [&fleet.registry.host, &fleet.gateway.host] {
            server.shape(SERVER, SERVER).await?;
        }
        lab.introduce(&fleet.hosts()).await?;
        Ok(Self { fleet, lab })
    }

    /// Pushes an image that shares no layer with those of other seeds.
    pub(super) async fn publish(&self, layer: usize, seed: u64) -> Result<Image> {
        let image = Image::build(&ImageSpec { seed, ..ImageSpec::new("bench/blob", layer) })?;
        self.fleet.registry.push(&image).await?;
        Ok(image)
    }

    /// The request for an image's layer without Shoal.
    pub(super) fn ask_registry(&self, image: &Image, layer: &Blob) -> Builder {
        let registry = self.fleet.registry.url();
        Request::get(format!("{registry}/v2/{}/blobs/{}", image.repository, layer.digest))
    }

    /// CPU time of all services so far.
    pub(super) fn cpu_used(&self) -> Result<Duration> {
        let Fleet { scheduler, gateway, sidecars, .. } = &self.fleet;
        let services = [scheduler, gateway].into_iter().chain(sidecars);
        let ids = services.map(|it| Ok(it.process.pid()?.as_raw().cast_unsigned()));
        cpu::used(&ids.collect::<Result<Vec<_>>>()?)
    }

    /// Bytes of pieces that the gateway has sent so far.
    pub(super) async fn gateway_sent(&self) -> Result<f64> {
        self.fleet.gateway.metric("shoal_peer_upload_bytes_total", &[]).await
    }

    /// Bytes that came over all nodes' links so far.
    pub(super) async fn received(&self) -> Result<u64> {
        let links = try_join_all(self.lab.nodes().iter().map(Host::traffic)).await?;
        Ok(links.iter().map(|it| it.received).sum())
    }
}

/// An image's only layer.
pub(super) fn layer(image: &Image) -> Result<&Blob> {
    image.layers.first().context("an image without a layer")
}

/// What a link carries, headers included.
pub(super) fn bytes(rate: Mbit) -> ByteRate {
    ByteRate(u64::from(rate.0) * 125_000)
}

/// The rates of a node's and of the gateway's link.
pub(super) fn rates() -> [ByteRate; 2] {
    [bytes(NODE), bytes(SERVER)]
}
