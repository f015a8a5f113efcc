//! The sidecar: the runtime's registry mirror on a node, and the node's part in the swarm.
//!
//! A request comes in at the [`mirror`]. Blobs become [`pull`]s, which the gateway opens and the swarm
//! serves; everything else passes straight through. What the node holds it shares on its peer port and
//! [`announce`]s to the schedulers. Nothing here may make a pull slower or less available than no sidecar
//! at all: with gateway and scheduler dead, requests go to the registry with the caller's own header.
//!
//! Knows nothing of: the registries' credentials, who may pull what, how neighbours are chosen.

// Outside input gets here, and none may make a process panic.
#![cfg_attr(
    not(test),
    warn(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::string_slice)
)]

mod announce;
mod metrics;
mod mirror;
mod pull;
mod recent;
mod registries;
pub mod settings;
mod stats;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use shoal_blobstore::{Store, Upkeep};
use shoal_identity::enrol::{Applicant, enrol};
use shoal_identity::{Clients, Dialer, Reception, Role};
use shoal_model::{Node, Rng};
use shoal_ops::serve::{Limits, Listener};
use shoal_ops::{Context, open_files};
use shoal_peer::RegionKeys;
use shoal_peer::client::PeerClient;
use shoal_peer::region::Region;
use shoal_peer::report::Reporter;
use shoal_peer::schedulers::Schedulers;
use shoal_peer::service::{PeerLimits, PeerService, STALL};
use shoal_peer::ticket::Verifier;

use announce::Everything;
use metrics::SidecarMetrics;
use mirror::Mirror;
use pull::{Opener, Pulls, Rates, Room, Slots, Tools};
use recent::Recent;
use registries::Registries;
use settings::Settings;
use stats::Stats;

/// The most connections of runtimes, and as many of other nodes.
const MAX_CLIENTS: usize = 4096;
/// Watches of other nodes.
const MAX_WATCHES: usize = 4096;
/// How long readiness waits for the region; a sidecar without one serves all the same.
const REGION_PATIENCE: Duration = Duration::from_secs(1);

/// Starts the service; it lives until the process's tasks are stopped.
///
/// # Errors
/// Where its directory cannot be used or its addresses not be listened on.
pub async fn start(settings: Settings, ctx: Context) -> anyhow::Result<()> {
    let ready = ctx.readiness.condition("mirror");
    let Settings { security, gateways, node, .. } = settings.clone();
    let applicant = Applicant {
        role: Role::Sidecar,
        unproven: node.id.clone(),
        address: node.address.parse().ok().map(|it: SocketAddr| it.ip()),
        gateways: gateways.clone(),
    };
    let enrolment = enrol(&ctx, security, applicant)?;
    let node = Node { id: enrolment.node.clone(), ..node };
    let keychain = enrolment.keychain.as_ref();
    let dialer = Dialer::new(keychain);
    let storage = settings.storage.clone();
    let store = tokio::task::spawn_blocking(|| Store::open(storage)).await?.context("open the store")?;
    let mirror = Listener::bind("mirror", settings.proxy.listen).await.context("start the mirror")?;
    let peers = Listener::bind("peers", settings.peer_listen).await.context("start the peer port")?;
    let peers = peers.with(Reception::new(keychain, Clients::WithCertificate));

    let verifier = Arc::new(Verifier::new(RegionKeys::default()));
    let (region, keeper) = Region::new(gateways, dialer.clone(), verifier.clone());
    let stopping = ctx.tasks.stopping();
    ctx.tasks.spawn_infallible("region", async move {
        // Without a certificate no gateway would answer.
        stopping.run_until_cancelled(enrolment.complete()).await;
        keeper.run(stopping).await;
    });
    let reporter = Reporter::new(store.clone());
    let everything = Everything::new(reporter.clone());
    let (schedulers, mut orders, driver) = Schedulers::new(
        node.clone(),
        &dialer,
        region.schedulers(),
        everything.clone(),
        Rng::new(rand::random()),
    );
    let metrics = SidecarMetrics::register(&ctx);
    let id = node.id.clone();
    let tools = Tools {
        store: store.clone(),
        peers: PeerClient::new(dialer.clone()),
        registries: Registries::new(&settings.proxy),
        opener: Opener::new(region.clone(), node.clone()),
        node,
        region: region.clone(),
        schedulers: schedulers.clone(),
        rates: Rates::new(settings.total_rate, settings.per_peer_rate),
        metrics: metrics.clone(),
        reporter: reporter.clone(),
        slots: Slots::new(settings.download_slots),
        room: Room::new(),
    };
    let pulls = Pulls::new(ctx.clone(), tools);
    everything.wishes_of(pulls.clone());

    let hearing = pulls.clone();
    ctx.metrics.register(|registry| schedulers.register(registry));
    ctx.tasks.spawn_infallible("schedulers", driver.run(ctx.tasks.stopping()));
    ctx.tasks.spawn_infallible("reports", reporter.run(schedulers, ctx.tasks.stopping()));
    ctx.tasks.spawn_infallible("orders", async move {
        while let Some(order) = orders.recv().await {
            hearing.hear(order);
        }
    });
    let upkeep = ctx.metrics.register(|registry| Upkeep::new(store.clone(), registry));
    let totals = upkeep.totals();
    ctx.tasks.spawn("upkeep", upkeep.run(ctx.tasks.stopping()));

    let limits = PeerLimits { upload_slots: settings.upload_slots, watches: MAX_WATCHES };
    let service = PeerService::new(Arc::new(store), verifier, limits, ctx.tasks.stopping());
    let service = service.obeying(Arc::new(pulls.clone()));
    ctx.metrics.register(|registry| service.register(registry));
    let recent = Recent::default();
    recent.show(&ctx);
    let stats = Stats { node: id, totals, metrics, uploaded: service.uploaded().clone() };
    stats.tell(&settings.storage.dir, &ctx);
    let clients = Limits::new(MAX_CLIENTS.min(open_files::for_clients() / 2));
    ctx.serve(peers, service, Limits { stall: STALL, ..clients.clone() });
    // Runtimes speak HTTP/1.1 to a mirror. Whoever does not is to get no more by that.
    let serving = Mirror::new(&settings.proxy, pulls, &dialer, recent);
    ctx.serve(mirror, serving, Limits { streams: 1, ..clients });
    region.first_answer(REGION_PATIENCE).await;
    ready.set(true);
    Ok(())
}
