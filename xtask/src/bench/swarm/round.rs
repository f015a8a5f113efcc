//! One round: a blob for one node, and a blob for all of them.

use std::time::Duration;

use anyhow::{Context as _, Result};
use shoal_simulator::Recording;
use shoal_swarm::Geometry;
use shoal_tests::host::Host;
use shoal_tests::image::Image;

use super::pull::{self, Pull, longest};
use super::stage::{Stage, layer, rates};
use crate::bench::cpu::Machine;

/// A replay depends on chance, as the run does: the median over these seeds counts.
const SEEDS: std::ops::RangeInclusive<u64> = 1..=5;

/// What a round found.
pub(super) struct Round {
    /// The pull on one node.
    pub(super) single: Duration,
    /// The same from the registry.
    pub(super) single_direct: Duration,
    /// The pulls on all nodes.
    pub(super) run: Recording,
    /// The slowest and the median of them over the finite-piece bound.
    pub(super) last_node_ratio: f64,
    pub(super) median_node_ratio: f64,
    /// The slowest as the simulator works it out, over the measured one.
    pub(super) replayed_over_measured: f64,
    /// Bytes that the registry sent for them, over the size of the blob.
    pub(super) registry_egress: f64,
    /// Bytes that the gateway sent for them, over the size of the blob.
    pub(super) gateway_upload: f64,
    /// CPU seconds of all services for them.
    pub(super) cpu: Duration,
    /// Which part of the machine's processors was used meanwhile, by whomever.
    pub(super) busy: f64,
}

/// Plays the round of this number.
pub(super) async fn play(stage: &Stage, number: u64, size: usize) -> Result<Round> {
    let nodes = stage.lab.nodes();
    let image = stage.publish(size, 2 * number).await?;
    let single_direct = longest(&direct(stage, &nodes[..1], &image).await?);
    let single = longest(&through_sidecars(stage, &nodes[..1], &image).await?);

    let image = stage.publish(size, 2 * number + 1).await?;
    let blob_size = layer(&image)?.bytes.len() as u64;
    let front = &stage.fleet.registry.front;
    let (cpu, machine) = (stage.cpu_used()?, Machine::now()?);
    let link_bytes = stage.received().await?;
    let (egress, upload) = (front.blob_bytes_sent(), stage.gateway_sent().await?);
    let pulls = through_sidecars(stage, nodes, &image).await?;
    let busy = Machine::now()?.busy_since(&machine);
    let cpu = stage.cpu_used()?.saturating_sub(cpu);
    let link_bytes = stage.received().await? - link_bytes;
    let run = recording(blob_size, &pulls, link_bytes);
    let bound = run.bound().context("run: no world has such links")?;
    Ok(Round {
        single,
        single_direct,
        last_node_ratio: run.last_node() as f64 / bound as f64,
        median_node_ratio: run.median_node() as f64 / bound as f64,
        replayed_over_measured: run.replayed_over_measured(SEEDS).context("run: not replayed")?,
        run,
        registry_egress: (front.blob_bytes_sent() - egress) as f64 / blob_size as f64,
        gateway_upload: (stage.gateway_sent().await? - upload) / blob_size as f64,
        cpu,
        busy,
    })
}

impl Round {
    /// CPU seconds of the services per GiB that nodes got.
    pub(super) fn cpu_per_gib(&self) -> f64 {
        self.cpu.as_secs_f64() * f64::from(1 << 30) / self.n_bytes()
    }

    /// What came over a node's link, all headers and whatever came twice included, over the size of the blob.
    pub(super) fn link_copies(&self) -> f64 {
        self.run.link_bytes as f64 / self.n_bytes()
    }

    fn n_bytes(&self) -> f64 {
        (self.run.size * self.run.pulls.len() as u64) as f64
    }
}

/// Until the last of all nodes has a blob from the registry, all of them at the same time.
pub(super) async fn all_direct(stage: &Stage, size: usize) -> Result<Duration> {
    let image = stage.publish(size, 1).await?;
    Ok(longest(&direct(stage, stage.lab.nodes(), &image).await?))
}

async fn direct(stage: &Stage, nodes: &[Host], image: &Image) -> Result<Vec<Pull>> {
    let layer = layer(image)?;
    pull::all_resumed(nodes, layer.bytes.len() as u64, || stage.ask_registry(image, layer)).await
}

async fn through_sidecars(stage: &Stage, nodes: &[Host], image: &Image) -> Result<Vec<Pull>> {
    let layer = layer(image)?;
    pull::all(nodes, layer.bytes.len() as u64, || stage.fleet.ask_blob(image, layer)).await
}

fn recording(size: u64, pulls: &[Pull], link_bytes: u64) -> Recording {
    let [node_rate, gateway_rate] = rates().map(|it| it.0);
    let micros = |it: Duration| it.as_micros() as u64;
    Recording {
        size,
        piece_length: Geometry::by_rule(size).piece_length(),
        node_rate,
        gateway_rate,
        joins: pulls.iter().map(|it| micros(it.joined)).collect(),
        pulls: pulls.iter().map(|it| micros(it.took)).collect(),
        link_bytes,
    }
}
