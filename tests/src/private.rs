//! A fleet before a registry of two readers, Alice and Bob, who each have a repository that the other may not
//! read.
//!
//! The gateway's own user reads everything, so whatever a caller is refused was refused for the caller's sake.

use anyhow::{Context, Result};
use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use http::{Request, Response};
use serde_json::Value;

use crate::fleet::{Fleet, FleetSpec};
use crate::image::{Blob, Image, ImageSpec};
use crate::lab::{Lab, LabSpec};
use crate::raw::Exchange;
use crate::registry::RegistrySpec;

/// One of the readers.
pub const ALICE: Option<&str> = Some("alice");
/// The other.
pub const BOB: Option<&str> = Some("bob");
/// Somebody without a name.
pub const NOBODY: Option<&str> = None;

const LAYER: usize = 3 << 20;

/// The fleet and what its registry holds.
#[derive(Debug)]
pub struct PrivateFleet {
    /// The lab it is in.
    pub lab: Lab,
    /// The fleet, of two nodes.
    pub fleet: Fleet,
    /// In `private/a`, which Alice may read.
    pub of_alice: Image,
    /// In `private/b`, which Bob may read.
    pub of_bob: Image,
}

/// How a registry, or what stands in its place, refuses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The status.
    pub status: u16,
    /// The challenge.
    pub challenge: Option<String>,
}

impl PrivateFleet {
    /// Starts the fleet. `registry` says how its users are told apart.
    pub async fn start(name: &str, registry: RegistrySpec) -> Result<Self> {
        let registry = registry.for_user("robot", "r0b0t");
        let registry = registry.with_reader("alice", "al1ce").with_reader("bob", "b0b");
        let mut lab = Lab::start(name, LabSpec::nodes(2)).await?;
        let fleet = Fleet::start(&mut lab, FleetSpec::before(registry)).await?;
        let of_alice = publish(&fleet, "private/a", 1, ALICE).await?;
        let of_bob = publish(&fleet, "private/b", 2, BOB).await?;
        Ok(Self { lab, fleet, of_alice, of_bob })
    }

    /// Changes what the gateway is told of the registry.
    pub async fn tell_gateway(&mut self, change: impl FnOnce(&mut Value)) -> Result<()> {
        self.fleet.reconfigure(|it| change(&mut it["registries"][0]), |_| {}).await
    }

    /// The header line with which a user, or somebody unknown, asks for an image's blobs.
    pub fn header(&self, user: Option<&str>, image: &Image) -> Result<Option<String>> {
        let authorization = self.fleet.registry.authorization(user, &image.repository)?;
        Ok(authorization.map(|it| format!("Authorization: {it}")))
    }

    /// Asks a node's sidecar, as a user, for a blob by way of an image's repository.
    pub async fn read(
        &self,
        node: usize,
        user: Option<&str>,
        image: &Image,
        blob: &Blob,
    ) -> Result<Exchange> {
        let header = self.header(user, image)?;
        let headers: Vec<&str> = header.as_deref().into_iter().collect();
        self.fleet.read(node, image, blob, &headers).await
    }

    /// Asks a node's sidecar, as a user, for an image's manifest.
    pub async fn read_manifest(&self, node: usize, user: Option<&str>, image: &Image) -> Result<Exchange> {
        let header = self.header(user, image)?;
        let accept = format!("Accept: {}", image.media_type());
        let headers: Vec<&str> = header.as_deref().into_iter().chain([accept.as_str()]).collect();
        let request = self.fleet.ask(&format!("{}/manifests/{}", image.repository, image.tag)).body(())?;
        let target = request.uri().path_and_query().context("the request has no path")?;
        Exchange::send(&self.fleet.sidecars[node].host, "GET", target.as_str(), &headers).await
    }

    /// How the registry itself refuses a user a blob; its status is 200 where it does not.
    pub async fn registrys_refusal(&self, user: Option<&str>, image: &Image, blob: &Blob) -> Result<Refusal> {
        let registry = &self.fleet.registry;
        let mut request =
            Request::head(format!("{}/v2/{}/blobs/{}", registry.url(), image.repository, blob.digest));
        if let Some(authorization) = registry.authorization(user, &image.repository)? {
            request = request.header(AUTHORIZATION, authorization);
        }
        let answer = self.lab.nodes()[0].send(request.body(Default::default())?).await?;
        Ok(Refusal::of(&answer))
    }
}

impl Refusal {
    fn of<B>(answer: &Response<B>) -> Self {
        let challenge = answer.headers().get(WWW_AUTHENTICATE).and_then(|it| it.to_str().ok());
        Self { status: answer.status().as_u16(), challenge: challenge.map(Into::into) }
    }
}

impl From<&Exchange> for Refusal {
    fn from(answer: &Exchange) -> Self {
        Self { status: answer.status, challenge: answer.header("www-authenticate").map(Into::into) }
    }
}

/// Pushes an image of one layer for one reader, or, without one, for everybody.
pub async fn publish(fleet: &Fleet, repository: &str, seed: u64, reader: Option<&str>) -> Result<Image> {
    let image = Image::build(&ImageSpec { seed, ..ImageSpec::new(repository, LAYER) })?;
    fleet.registry.push(&image).await?;
    fleet.registry.rights()?.grant(reader, repository);
    Ok(image)
}

impl Fleet {
    /// Changes the settings of the gateway and of all sidecars, as an operator does: with a restart.
    pub async fn reconfigure(
        &mut self,
        gateway: impl FnOnce(&mut Value),
        sidecar: impl Fn(&mut Value),
    ) -> Result<()> {
        self.gateway.change_settings(gateway).await?;
        for service in &mut self.sidecars {
            service.change_settings(&sidecar).await?;
        }
        Ok(())
    }
}
