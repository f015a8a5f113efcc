//! A region of Shoal in the lab: a registry, the gateway before it, schedulers, and a sidecar on each node.
//!
//! Every part runs on a machine of its own with its default settings, but for what a default cannot know:
//! addresses, directories, names, registries and credentials. A registry whose credentials no node is told is
//! pulled from by the gateway's word (`credentials.mode: gateway`), any other by the caller's own.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use futures_util::future::try_join_all;
use http::Request;
use http::request::Builder;
use serde_json::{Value, json};
use shoal_model::ByteSize;

use crate::disk::Disk;
use crate::harm::Victim;
use crate::host::Host;
use crate::image::{Blob, Image, ImageSpec};
use crate::lab::Lab;
use crate::redis::{Access, Redis};
use crate::registry::{Registry, RegistrySpec};
use crate::runtime::MIRROR;
use crate::runtime::containerd::Containerd;
use crate::runtime::docker::HUB;
use crate::shoal::{Part, Service};
use crate::wait;

/// The ports of the default settings.
const GATEWAY_PORT: u16 = 65003;
const SCHEDULER_PORT: u16 = 65005;
const PEER_PORT: u16 = 65002;
/// How long all may take to find each other.
const JOINING: Duration = Duration::from_secs(30);

/// What a fleet is to be.
#[derive(Clone, Debug)]
pub struct FleetSpec {
    /// Its registry.
    pub registry: RegistrySpec,
    /// Settings of the gateway that differ from the fleet's own.
    pub gateway: Value,
    /// Settings of every sidecar that differ from [`sidecar_settings`].
    pub sidecar: Value,
    /// In how many racks of one zone the sidecars stand, in turn; 0 where that is not said.
    pub n_racks: usize,
    /// How many schedulers there are, at least one.
    pub n_schedulers: usize,
    /// How many gateways there are, at least one.
    pub n_gateways: usize,
    /// How they reach their Redis, if they have one.
    pub redis: Option<Access>,
    /// How large the disks are that the nodes' and the first gateway's stores lie on, if they are of their own.
    pub disks: Option<ByteSize>,
    /// What the registry may be asked for, as the gateways' settings say it.
    pub limits: Value,
    /// Whether other machines reach the parts' metrics.
    pub is_watched: bool,
    /// Where all parts send their traces, if anywhere.
    pub collector: Option<String>,
}

impl FleetSpec {
    /// A fleet before this registry.
    pub fn before(registry: RegistrySpec) -> Self {
        let (gateway, sidecar, limits) = (json!({}), json!({}), json!({}));
        Self {
            registry,
            gateway,
            sidecar,
            n_racks: 0,
            n_schedulers: 1,
            n_gateways: 1,
            redis: None,
            disks: None,
            limits,
            is_watched: false,
            collector: None,
        }
    }

    /// A fleet before a registry that everybody may read.
    pub fn open() -> Self {
        Self::before(RegistrySpec::plain())
    }

    /// A fleet before a registry whose credentials only the gateway has.
    pub fn private() -> Self {
        Self::before(RegistrySpec::plain().for_user("robot", "s3cret").unknown_to_nodes())
    }

    /// The same with other settings of the gateway.
    pub fn with_gateway(self, gateway: Value) -> Self {
        Self { gateway, ..self }
    }

    /// The same with other settings of the sidecars.
    pub fn with_sidecar(self, sidecar: Value) -> Self {
        Self { sidecar, ..self }
    }

    /// The same in so many racks.
    pub fn in_racks(self, n_racks: usize) -> Self {
        Self { n_racks, ..self }
    }

    /// The same with so many schedulers.
    pub fn with_schedulers(self, n_schedulers: usize) -> Self {
        Self { n_schedulers, ..self }
    }

    /// The same with so many gateways. A sidecar's first is one of them, in turn, and the others come after it.
    pub fn with_gateways(self, n_gateways: usize) -> Self {
        Self { n_gateways, ..self }
    }

    /// The same with a Redis for the gateways, which anybody may use.
    pub fn with_redis(self) -> Self {
        self.with_redis_as(Access::Open)
    }

    /// The same with a Redis of this kind.
    pub fn with_redis_as(self, access: Access) -> Self {
        Self { redis: Some(access), ..self }
    }

    /// The same with limits of what the registry may be asked for.
    pub fn with_limits(self, limits: Value) -> Self {
        Self { limits, ..self }
    }

    /// The same with the store of each node and of the first gateway on a disk of its own, of this size.
    pub fn with_disks(self, size: ByteSize) -> Self {
        Self { disks: Some(size), ..self }
    }

    /// The same whose metrics can be read from other machines.
    pub fn watched(self) -> Self {
        Self { is_watched: true, ..self }
    }

    /// The same whose traces go to the collector at this address.
    pub fn traced_at(self, collector: &str) -> Self {
        Self { collector: Some(collector.to_owned()), ..self }
    }

    /// Where a part's metrics are, and its traces go.
    fn seen(&self, part: Part) -> Value {
        let metrics = match self.is_watched {
            true => json!({ "admin": { "listen": format!("0.0.0.0:{}", admin(part).port()) } }),
            false => json!({}),
        };
        changed(metrics, &json!({ "traces": { "endpoint": self.collector.as_deref().unwrap_or_default() } }))
    }

    /// Where the sidecar of this number stands.
    fn place(&self, number: usize) -> Value {
        match number.checked_rem(self.n_racks) {
            Some(rack) => json!({ "node": { "zone": "zone", "rack": format!("rack-{rack}") } }),
            None => json!({}),
        }
    }
}

/// A running fleet.
#[derive(Debug)]
pub struct Fleet {
    /// Its registry.
    pub registry: Registry,
    /// Its scheduler.
    pub scheduler: Service,
    /// Those that it has besides.
    pub more_schedulers: Vec<Service>,
    /// Its gateway.
    pub gateway: Service,
    /// Those that it has besides.
    pub more_gateways: Vec<Service>,
    /// The gateways' Redis, if they have one.
    pub redis: Option<Redis>,
    /// Its sidecars, in the order of the lab's nodes.
    pub sidecars: Vec<Service>,
    /// The disks of their own that its stores lie on.
    pub disks: BTreeMap<Victim, Disk>,
}

impl Fleet {
    /// Starts a fleet with a sidecar on each node of the lab, and waits until every part is ready.
    pub async fn start(lab: &mut Lab, spec: FleetSpec) -> Result<Self> {
        let disks = disks(lab, spec.disks).await?;
        let registry = lab.registry(spec.registry.clone()).await?;
        let (at_scheduler, at_gateway) = (lab.host("scheduler").await?, lab.host("gateway").await?);
        let redis = match spec.redis {
            Some(access) => Some(Redis::start(lab, access).await?),
            None => None,
        };
        let (mut at_schedulers, mut at_gateways) = (vec![at_scheduler], vec![at_gateway.clone()]);
        for number in 2..=spec.n_schedulers {
            at_schedulers.push(lab.host(&format!("scheduler{number}")).await?);
        }
        for number in 2..=spec.n_gateways {
            at_gateways.push(lab.host(&format!("gateway{number}")).await?);
        }
        let mut more_gateways = Vec::new();
        // The first makes what the others share.
        for host in &at_gateways {
            let settings = gateway_settings(host, &at_schedulers, &registry, &spec.limits);
            let settings = changed(settings, &shared_settings(host, &at_gateway, redis.as_ref()));
            let settings = changed(changed(settings, &spec.seen(Part::Gateway)), &spec.gateway);
            more_gateways.push(Service::start(host, Part::Gateway, &settings, admin(Part::Gateway)).await?);
        }
        let gateway = more_gateways.remove(0);
        let urls = |first: usize| {
            let in_turn = at_gateways.iter().cycle().skip(first % at_gateways.len()).take(at_gateways.len());
            json!({ "gateways": in_turn.map(gateway_url).collect::<Vec<_>>() })
        };
        let schedulers = at_schedulers.iter().map(async |it| {
            let settings = changed(scheduler_settings(it, &at_gateway), &urls(0));
            let settings = changed(settings, &spec.seen(Part::Scheduler));
            Service::start(it, Part::Scheduler, &settings, admin(Part::Scheduler)).await
        });
        let mut more_schedulers = try_join_all(schedulers).await?;
        let scheduler = more_schedulers.remove(0);
        let sidecars = lab.nodes().iter().enumerate().map(async |(number, node)| {
            let settings = changed(sidecar_settings(node, &at_gateway, &registry), &spec.place(number));
            let settings = changed(changed(settings, &urls(number)), &spec.seen(Part::Sidecar));
            let settings = changed(settings, &spec.sidecar);
            Service::start(node, Part::Sidecar, &settings, admin(Part::Sidecar)).await
        });
        let sidecars = try_join_all(sidecars).await?;
        Ok(Self { registry, scheduler, more_schedulers, gateway, more_gateways, redis, sidecars, disks })
    }

    /// Waits until the first scheduler knows of all.
    pub async fn joined(&self) -> Result<()> {
        let all = self.sidecars.len() + self.gateways().len();
        wait::until("all have joined", JOINING, async || {
            let n_joined = self.scheduler.metric("shoal_scheduler_nodes", &[]).await;
            n_joined.is_ok_and(|it| (it - all as f64).abs() < 0.1).then_some(())
        })
        .await
    }

    /// Waits until a metric of every gateway has this value.
    pub async fn gateways_say(&self, metric: &str, value: f64) -> Result<()> {
        wait::until(metric, JOINING, async || {
            let seen = try_join_all(self.gateways().into_iter().map(|it| it.metric(metric, &[]))).await;
            seen.is_ok_and(|it| it.iter().all(|it| (it - value).abs() < 0.1)).then_some(())
        })
        .await
    }

    /// All gateways, the first one first.
    pub fn gateways(&self) -> Vec<&Service> {
        [&self.gateway].into_iter().chain(&self.more_gateways).collect()
    }

    /// The machines of all its parts.
    pub fn hosts(&self) -> Vec<Host> {
        let nodes = self.sidecars.iter().map(|it| &it.host);
        let gateways = self.gateways().into_iter().map(|it| &it.host);
        let schedulers = [&self.scheduler].into_iter().chain(&self.more_schedulers).map(|it| &it.host);
        let others = [&self.registry.host].into_iter().chain(self.redis.as_ref().map(|it| &it.host));
        nodes.chain(gateways).chain(schedulers).chain(others).cloned().collect()
    }

    /// The gateway of this number, counted from 0.
    pub fn gateway_mut(&mut self, number: usize) -> &mut Service {
        match number.checked_sub(1) {
            None => &mut self.gateway,
            Some(number) => &mut self.more_gateways[number],
        }
    }

    /// Makes an image of these layers, in bytes, and pushes it as `team/app:v1`.
    pub async fn publish(&self, layers: &[usize]) -> Result<Image> {
        let spec = ImageSpec { layers: layers.into(), ..ImageSpec::new("team/app", 0) };
        let image = Image::build(&spec)?;
        self.registry.push(&image).await?;
        Ok(image)
    }

    /// Starts containerd on every node, to pull through the node's sidecar.
    pub async fn containerds(&self) -> Result<Vec<Containerd>> {
        let containerds = try_join_all(self.sidecars.iter().map(|it| Containerd::start(&it.host))).await?;
        for containerd in &containerds {
            containerd.go_through(&self.registry, MIRROR)?;
        }
        Ok(containerds)
    }

    /// A request as containerd sends it to a sidecar, for a path below `/v2/`.
    pub fn ask(&self, path: &str) -> Builder {
        let ns = self.registry.authority().replace(':', "%3A");
        Request::get(format!("{MIRROR}/v2/{path}?ns={ns}"))
    }

    /// The request for a blob of an image.
    pub fn ask_blob(&self, image: &Image, blob: &Blob) -> Builder {
        self.ask(&format!("{}/blobs/{}", image.repository, blob.digest))
    }

    /// A metric, summed over all sidecars.
    pub async fn metric(&self, name: &str, labels: &[(&str, &str)]) -> Result<f64> {
        Ok(try_join_all(self.sidecars.iter().map(|it| it.metric(name, labels))).await?.into_iter().sum())
    }
}

/// Disks for the nodes' and the first gateway's stores, which have to be there before whoever uses them.
async fn disks(lab: &Lab, size: Option<ByteSize>) -> Result<BTreeMap<Victim, Disk>> {
    let mut disks = BTreeMap::new();
    let Some(size) = size else { return Ok(disks) };
    let of_nodes = lab.nodes().iter().enumerate();
    let of_nodes = of_nodes.map(|(number, it)| (Victim::NodeDisk(number), it.dir().join("sidecar")));
    for (whose, dir) in of_nodes.chain([(Victim::GatewayDisk, lab.dir().join("gateway/gateway"))]) {
        disks.insert(whose, Disk::on_file(dir, size).await?);
    }
    Ok(disks)
}

/// A part's admin listener.
pub const fn admin(part: Part) -> SocketAddr {
    let port = match part {
        Part::Gateway => 65013,
        Part::Scheduler => 65015,
        Part::Sidecar => 65011,
    };
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

/// A scheduler's settings.
pub(crate) fn scheduler_settings(host: &Host, gateway: &Host) -> Value {
    json!({
        "listen": at(host, SCHEDULER_PORT),
        "gateways": [gateway_url(gateway)],
        "security": security(gateway, host, Part::Scheduler),
        "admin": { "listen": admin(Part::Scheduler) },
    })
}

/// How a part joins the gateway's region: by the token that the gateway has written.
fn security(gateway: &Host, host: &Host, part: Part) -> Value {
    json!({
        "joinToken": format!("file:{}", join_token(gateway, part).display()),
        "dir": host.dir().join(part.program()).join("identity"),
    })
}

/// The file of the token that lets a part into the gateway's region.
pub fn join_token(gateway: &Host, part: Part) -> PathBuf {
    let name = part.program().trim_start_matches("shoal-");
    gateway.dir().join("gateway/join").join(format!("{name}.token"))
}

/// The settings of a gateway on `host`.
pub(crate) fn gateway_settings(
    host: &Host,
    schedulers: &[Host],
    registry: &Registry,
    limits: &Value,
) -> Value {
    let mut entry = registry_settings(registry);
    entry["kind"] = json!("distribution");
    entry["limits"] = limits.clone();
    if let Some(credentials) = registry.credentials() {
        entry["credentials"] = json!({
            "mode": if registry.nodes_credentials().is_some() { "client" } else { "gateway" },
            "username": credentials.user,
            "password": credentials.password,
            "repositories": ["**"],
        });
    }
    json!({
        "listen": at(host, GATEWAY_PORT),
        "admin": { "listen": admin(Part::Gateway) },
        "node": { "id": host.name() },
        "storage": { "dir": host.dir().join("gateway") },
        "schedulers": schedulers.iter().map(|it| format!("https://{}", at(it, SCHEDULER_PORT))).collect::<Vec<_>>(),
        "registries": [entry],
    })
}

/// What all gateways of a region have in common: the authority and the tokens that `first` has made, and Redis.
fn shared_settings(host: &Host, first: &Host, redis: Option<&Redis>) -> Value {
    let mut settings = json!({});
    if let Some(redis) = redis {
        settings["redis"] = redis.settings();
    }
    if host.name() != first.name() {
        let ca = first.dir().join("gateway/ca");
        let token = |part| format!("file:{}", join_token(first, part).display());
        settings["security"] = json!({
            "ca": { "certFile": ca.join("ca.pem"), "keyFile": ca.join("ca.key") },
            "joinTokens": { "sidecar": token(Part::Sidecar), "scheduler": token(Part::Scheduler) },
        });
    }
    settings
}

/// The settings of a sidecar on `host`.
pub fn sidecar_settings(host: &Host, gateway: &Host, registry: &Registry) -> Value {
    json!({
        "gateways": [gateway_url(gateway)],
        "security": security(gateway, host, Part::Sidecar),
        "peer": { "listen": at(host, PEER_PORT) },
        "admin": { "listen": admin(Part::Sidecar) },
        "storage": { "dir": host.dir().join("sidecar") },
        "proxy": { "registries": [registry_settings(registry)] },
    })
}

/// A registry as gateways and sidecars are told of it; one that plays Docker Hub goes by Docker Hub's name.
fn registry_settings(registry: &Registry) -> Value {
    let name = if registry.answers_to(HUB) { "docker.io" } else { registry.authority() };
    let mut settings = json!({ "name": name, "url": registry.url() });
    match registry.ca() {
        Some(ca) => settings["ca"] = json!(ca),
        None => settings["insecure"] = json!(true),
    }
    settings
}

pub(crate) fn gateway_url(host: &Host) -> String {
    format!("https://{}", at(host, GATEWAY_PORT))
}

fn at(host: &Host, port: u16) -> String {
    format!("{}:{port}", host.address())
}

/// `settings` with every key that `changes` has taken from there.
pub fn changed(mut settings: Value, changes: &Value) -> Value {
    match (settings.as_object_mut(), changes.as_object()) {
        (Some(of), Some(changes)) => {
            for (key, change) in changes {
                let old = of.remove(key).unwrap_or_default();
                of.insert(key.clone(), changed(old, change));
            }
            settings
        }
        _ => changes.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_replace_single_keys() {
        let settings = json!({ "a": { "b": 1, "c": 2 }, "d": 3 });
        let changes = json!({ "a": { "c": { "e": 4 } }, "f": [5] });
        let expected = json!({ "a": { "b": 1, "c": { "e": 4 } }, "d": 3, "f": [5] });
        assert_eq!(changed(settings, &changes), expected);
    }
}
