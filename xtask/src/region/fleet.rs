//! A region on loopback: one scheduler, one gateway, and a sidecar for each node.

use std::iter::Sum;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::ops::Sub;
use std::time::Duration;

use anyhow::Result;
use futures_util::future::try_join_all;
use serde_json::{Value, json};
use shoal_tests::shoal::{Part, sum_of};
use shoal_tests::wait;

use super::client::Client;
use super::processes::Processes;
use super::source::Source;

/// How long the services may take to start.
const START_DEADLINE: Duration = Duration::from_secs(30);

/// How the services talk to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Security {
    /// By plain TCP, as only tests do.
    Plain,
    /// By mutual TLS.
    Mtls,
}

/// Where the services are reached.
pub(crate) struct Fleet {
    security: Security,
    pub(crate) scheduler: Service,
    pub(crate) gateway: Service,
    /// Where the gateway is managed.
    management: SocketAddr,
    pub(crate) nodes: Vec<Node>,
}

/// A service's addresses.
#[derive(Clone, Copy)]
pub(crate) struct Service {
    /// Where nodes connect.
    listen: SocketAddr,
    /// Health and metrics.
    pub(crate) admin: SocketAddr,
}

/// A node's sidecar.
pub(crate) struct Node {
    pub(crate) name: String,
    /// The registry mirror for runtimes.
    pub(crate) mirror: SocketAddr,
    pub(crate) sidecar: Service,
}

/// Bytes that a node took, by where they came from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Taken {
    /// Straight from the registry.
    pub(crate) registry: u64,
    /// From the gateway.
    pub(crate) gateway: u64,
    /// From other nodes.
    pub(crate) peers: u64,
    /// From its own store, where the blob lay complete.
    pub(crate) cache: u64,
}

impl Fleet {
    /// Chooses free addresses for everything.
    pub(crate) fn new(n_nodes: u16, security: Security) -> Result<Self> {
        // All are held until the last is chosen, so that none comes twice.
        let mut held = Vec::new();
        let mut free = || {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
            let address = listener.local_addr()?;
            held.push(listener);
            anyhow::Ok(address)
        };
        let mut service = || Ok(Service { listen: free()?, admin: free()? });
        let (scheduler, gateway) = (service()?, service()?);
        let sidecars = (0..n_nodes).map(|_| service()).collect::<Result<Vec<_>>>()?;
        let nodes = sidecars
            .into_iter()
            .zip(1..)
            .map(|(sidecar, number)| Ok(Node { name: format!("node{number}"), mirror: free()?, sidecar }));
        let nodes = nodes.collect::<Result<_>>()?;
        Ok(Self { security, scheduler, gateway, management: free()?, nodes })
    }

    /// Starts all services, for pulls of `source`: the gateway first, which lets the others into its region.
    /// Nodes need no credentials, since the gateway pulls in their name.
    pub(crate) async fn start(&self, processes: &mut Processes, source: &Source) -> Result<()> {
        let registry = registry(source);
        let mut registry_of_gateway = registry.clone();
        registry_of_gateway["credentials"] =
            json!({ "mode": "gateway", "repositories": [source.repository.as_str()] });
        let gateway = json!({
            "listen": self.gateway.listen,
            "management": { "listen": self.management },
            "node": { "id": "gateway" },
            "storage": storage(processes, "gateway"),
            "security": { "mtls": self.security == Security::Mtls },
            "schedulers": [self.security.url(self.scheduler.listen)],
            "registries": [registry_of_gateway],
        });
        processes.start("gateway", Part::Gateway, &with_common(gateway, &self.gateway))?;
        tokio::select! {
            ready = self.gateway.wait_until_ready() => ready?,
            error = processes.first_death() => return Err(error),
        }

        let gateways = [self.gateway_url()];
        let scheduler = json!({
            "listen": self.scheduler.listen,
            "gateways": gateways,
            "security": self.security.settings(processes, "scheduler", "scheduler"),
        });
        processes.start("scheduler", Part::Scheduler, &with_common(scheduler, &self.scheduler))?;

        self.nodes.iter().try_for_each(|node| {
            let sidecar = json!({
                "gateways": gateways,
                "node": { "id": node.name },
                "security": self.security.settings(processes, "sidecar", &node.name),
                "peer": { "listen": node.sidecar.listen },
                "proxy": { "listen": node.mirror, "registries": [registry] },
                "storage": storage(processes, &node.name),
            });
            processes.start(&node.name, Part::Sidecar, &with_common(sidecar, &node.sidecar))
        })
    }

    /// Waits until all services are ready and the scheduler knows everybody.
    pub(crate) async fn wait_until_ready(&self) -> Result<()> {
        let sidecars = self.nodes.iter().map(|it| &it.sidecar);
        let services = [&self.scheduler, &self.gateway].into_iter().chain(sidecars);
        try_join_all(services.map(Service::wait_until_ready)).await?;
        let n_expected = self.nodes.len() + 1;
        wait::until("gateway and nodes at the scheduler", START_DEADLINE, async || {
            let metrics = self.scheduler.metrics().await.ok()?;
            (sum_of(&metrics, "shoal_scheduler_nodes", &[]) >= n_expected as f64).then_some(())
        })
        .await
    }

    /// Where nodes reach the gateway.
    pub(crate) fn gateway_url(&self) -> String {
        self.security.url(self.gateway.listen)
    }

    /// What each node has taken so far.
    pub(crate) async fn taken(&self) -> Result<Vec<Taken>> {
        try_join_all(self.nodes.iter().map(async |it| Ok(Taken::of(&it.sidecar.metrics().await?)))).await
    }

    /// Bytes of pieces that the gateway has sent to nodes so far.
    pub(crate) async fn n_bytes_uploaded(&self) -> Result<u64> {
        Ok(sum_of(&self.gateway.metrics().await?, "shoal_peer_upload_bytes_total", &[]) as u64)
    }
}

impl Service {
    async fn wait_until_ready(&self) -> Result<()> {
        let client = Client::new(self.admin);
        let what = format!("service with its admin listener at {}: ready", self.admin);
        wait::until(&what, START_DEADLINE, async || client.text("/readyz").await.ok()).await?;
        Ok(())
    }

    async fn metrics(&self) -> Result<String> {
        Client::new(self.admin).text("/metrics").await
    }
}

impl Taken {
    fn of(metrics: &str) -> Self {
        let sum = |name, labels: &[_]| sum_of(metrics, name, labels) as u64;
        let from = |source| sum("shoal_sidecar_download_bytes_total", &[("source", source)]);
        Self {
            registry: from("registry"),
            gateway: from("gateway"),
            peers: from("peer"),
            cache: sum("shoal_sidecar_cache_bytes_total", &[]),
        }
    }
}

impl Sum for Taken {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |sum, it| Self {
            registry: sum.registry + it.registry,
            gateway: sum.gateway + it.gateway,
            peers: sum.peers + it.peers,
            cache: sum.cache + it.cache,
        })
    }
}

impl Sub for Taken {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            registry: self.registry - earlier.registry,
            gateway: self.gateway - earlier.gateway,
            peers: self.peers - earlier.peers,
            cache: self.cache - earlier.cache,
        }
    }
}

/// What all services are told.
fn with_common(mut settings: Value, service: &Service) -> Value {
    settings["admin"] = json!({ "listen": service.admin });
    settings["log"] = json!({ "format": "text" });
    settings
}

fn storage(processes: &Processes, name: &str) -> Value {
    // Temporary directories are often small: what a demo needs is room for the image.
    json!({ "dir": processes.dir().join(name), "freeSpaceFloor": "64Mi" })
}

impl Security {
    fn url(self, service: SocketAddr) -> String {
        match self {
            Self::Plain => format!("http://{service}"),
            Self::Mtls => format!("https://{service}"),
        }
    }

    /// What a process of the role is told: to join by the token that the gateway has written.
    fn settings(self, processes: &Processes, role: &str, name: &str) -> Value {
        let token = processes.dir().join("gateway/join").join(format!("{role}.token"));
        let dir = processes.dir().join(name).join("identity");
        match self {
            Self::Plain => json!({ "mtls": false }),
            Self::Mtls => json!({ "joinToken": format!("file:{}", token.display()), "dir": dir }),
        }
    }
}

fn registry(source: &Source) -> Value {
    json!({
        "name": source.registry.as_str(),
        "url": source.url.to_string(),
        "insecure": source.insecure,
    })
}
