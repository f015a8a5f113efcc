//! The gateway: the registry side of a region.
//!
//! It alone holds registry credentials, and it reads each blob from its registry once for all nodes
//! ([`seed`]). Nodes ask it whether a caller may have a blob ([`open`]) and pass everything else through it
//! ([`mirror`]); what it hands out is a ticket, a cut and the first bytes, never a credential. Who may read
//! what is decided by what the registry itself answered ([`authority`]).
//!
//! Knows nothing of: runtimes, neighbours, which node fetches which piece from where.

mod authority;
pub mod credentials;
mod cuts;
mod fingerprint;
mod gate;
mod grpc;
pub mod limits;
mod metrics;
mod mirror;
pub mod mode;
mod open;
mod orders;
mod port;
mod queue;
mod seed;
pub mod settings;
mod shelf;
mod signing;
mod single_flight;
pub mod upstream;

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use shoal_blobstore::{Store, Upkeep};
use shoal_model::{Node, NodeId, Rng, Role};
use shoal_ops::Context;
use shoal_ops::serve::{Limits, Listener};
use shoal_peer::RegionKeys;
use shoal_peer::attest::Signer;
use shoal_peer::report::Reporter;
use shoal_peer::scheduler_link::SchedulerLink;
use shoal_peer::service::{PeerService, STALL};
use shoal_peer::ticket::{Issuer, Verifier};
use shoal_proto::RegionState;
use shoal_proto::gateway_server::GatewayServer;
use tokio::sync::watch;

use cuts::Cuts;
use fingerprint::Fingerprints;
use gate::Gate;
use grpc::GatewayService;
use metrics::RegistryMetrics;
use mirror::Mirror;
use open::Opener;
use orders::obey;
use port::NodePort;
use seed::Seeder;
use settings::{RegistrySettings, Settings};
use shelf::SeedingShelf;
use upstream::Upstream;

/// The most connections of nodes: each keeps one for gRPC and a few for pieces.
const MAX_CONNECTIONS: usize = 40_000;

/// Starts the service, which lives until the process's tasks are stopped, and returns the address that
/// nodes reach it at.
///
/// # Errors
/// Where its directory, key, certificates or address cannot be used.
pub async fn start(settings: Settings, ctx: Context) -> anyhow::Result<SocketAddr> {
    let ready = ctx.readiness.condition("listener");
    let store = open_store(&settings).await?;
    let seed = signing::load_or_create(&settings.key_file)?;
    let listener = Listener::bind("nodes", settings.listen).await?;
    let address = SocketAddr::new(settings.advertise, listener.addr().port());
    let gateway = node(&settings, address)?;

    let signer = Arc::new(Signer::new(&seed));
    let keys = [signer.verifying_key()];
    let verifier = Arc::new(Verifier::new(RegionKeys::parse(&keys)?));
    let gate = Arc::new(Gate::new(
        upstreams(settings.registries, &RegistryMetrics::register(&ctx.metrics))?,
        Fingerprints::new(rand::random()),
    ));
    let cuts = Arc::new(Cuts::new(store.clone(), settings.piece_length));
    let seeder = Seeder::new(store.clone(), cuts.clone(), signer, ctx.tasks.clone());
    let shelf = Arc::new(SeedingShelf {
        gate: gate.clone(),
        cuts: cuts.clone(),
        store: store.clone(),
        seeder: seeder.clone(),
    });
    let region = RegionState {
        schedulers: settings.schedulers.clone(),
        trust_groups: gate.trust_groups(),
        verifying_keys: keys.to_vec(),
    };
    let stopping = ctx.tasks.stopping();
    let peers = PeerService::new(shelf.clone(), verifier.clone(), settings.upload, stopping.clone());
    register_uploads(&ctx, &peers);
    let opener = Opener::new(gate.clone(), cuts, seeder, Issuer::new(&seed), gateway.clone());
    let port = NodePort {
        gateway: GatewayServer::new(GatewayService::new(opener, region, stopping)),
        peers,
        mirror: Mirror::new(gate),
    };
    ctx.serve(listener, port, Limits { stall: STALL, ..Limits::new(MAX_CONNECTIONS) });
    join_scheduler(&ctx, settings.schedulers, gateway, shelf, verifier);
    let upkeep = ctx.metrics.register(|registry| Upkeep::new(store, registry));
    ctx.tasks.spawn("upkeep", upkeep.run(ctx.tasks.stopping()));
    ready.set(true);
    Ok(address)
}

async fn open_store(settings: &Settings) -> anyhow::Result<Store> {
    let store = settings.store.clone();
    let opened = tokio::task::spawn_blocking(move || Store::open(store)).await?;
    opened.context("open the store")
}

fn node(settings: &Settings, address: SocketAddr) -> anyhow::Result<Node> {
    let id = match &settings.node_id {
        Some(id) => id.clone(),
        None => std::fs::read_to_string("/proc/sys/kernel/hostname").context("find the host's name")?,
    };
    Ok(Node {
        id: NodeId::new(id.trim()),
        address: address.to_string().into(),
        role: Role::Gateway,
        place: settings.place.clone(),
    })
}

fn upstreams(
    registries: Vec<RegistrySettings>,
    metrics: &RegistryMetrics,
) -> anyhow::Result<Vec<Arc<Upstream>>> {
    let upstreams = registries.into_iter().map(|it| Upstream::new(it, metrics));
    Ok(upstreams.collect::<Result<_, _>>()?)
}

fn register_uploads(ctx: &Context, peers: &PeerService) {
    ctx.metrics.register(|registry| {
        registry.register(
            "peer_upload_bytes",
            "Bytes of pieces sent to nodes",
            peers.uploaded_bytes().clone(),
        );
    });
}

fn join_scheduler(
    ctx: &Context,
    schedulers: Vec<String>,
    gateway: Node,
    shelf: Arc<SeedingShelf>,
    verifier: Arc<Verifier>,
) {
    let reporter = Reporter::new(shelf.store.clone());
    let rng = Rng::new(rand::random());
    // The addresses do not change while the process lives; the link keeps what was sent last.
    let (_, addresses) = watch::channel(schedulers);
    let (link, orders, driver) = SchedulerLink::new(gateway, addresses, reporter.clone(), rng);
    let stopping = ctx.tasks.stopping();
    ctx.tasks.spawn_infallible("scheduler-link", driver.run(stopping.clone()));
    ctx.tasks.spawn_infallible("reports", reporter.run(link, stopping));
    ctx.tasks.spawn_infallible("orders", obey(orders, shelf, verifier));
}
