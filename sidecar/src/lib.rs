//! The sidecar: the runtime's registry mirror on a node, and the node's part in the swarm.
//!
//! A request comes in at the [`mirror`]. Blobs become [`pull`]s, which the gateway opens and the swarm
//! serves; everything else passes straight through. What the node holds it shares on its peer port and
//! [`announce`]s to the scheduler. Nothing here may make a pull slower or less available than no sidecar
//! at all: with gateway and scheduler dead, requests go to the registry with the caller's own header.
//!
//! Knows nothing of: the registries' credentials, who may pull what, how neighbours are chosen.

mod announce;
mod metrics;
mod mirror;
mod pull;
mod region;
mod registries;
pub mod settings;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use shoal_blobstore::{Store, Upkeep};
use shoal_model::Rng;
use shoal_ops::Context;
use shoal_ops::serve::{Limits, Listener};
use shoal_peer::RegionKeys;
use shoal_peer::client::PeerClient;
use shoal_peer::report::Reporter;
use shoal_peer::scheduler_link::SchedulerLink;
use shoal_peer::service::{PeerLimits, PeerService, STALL};
use shoal_peer::ticket::Verifier;

use announce::Everything;
use metrics::SidecarMetrics;
use mirror::Mirror;
use pull::{Opener, Pulls, Rates, Tools};
use region::Region;
use registries::Registries;
use settings::Settings;

/// Connections of runtimes, and of other nodes.
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
    let storage = settings.storage.clone();
    let store = tokio::task::spawn_blocking(|| Store::open(storage)).await?.context("open the store")?;
    let mirror = Listener::bind("mirror", settings.proxy.listen).await.context("start the mirror")?;
    let peers = Listener::bind("peers", settings.peer_listen).await.context("start the peer port")?;

    let verifier = Arc::new(Verifier::new(RegionKeys::default()));
    let region = Region::start(&ctx, settings.gateways.clone(), settings.node.clone(), verifier.clone());
    let reporter = Reporter::new(store.clone());
    let everything = Everything::new(reporter.clone());
    let (link, mut orders, driver) = SchedulerLink::new(
        settings.node.clone(),
        region.schedulers(),
        everything.clone(),
        Rng::new(rand::random()),
    );
    let tools = Tools {
        node: settings.node.clone(),
        store: store.clone(),
        peers: PeerClient::default(),
        registries: Registries::new(&settings.proxy),
        opener: Opener::new(region.clone(), settings.node.clone()),
        region: region.clone(),
        link: link.clone(),
        rates: Rates::new(settings.total_rate, settings.per_peer_rate),
        metrics: SidecarMetrics::register(&ctx),
        reporter: reporter.clone(),
        slots: settings.download_slots,
    };
    let pulls = Pulls::new(ctx.clone(), tools);
    everything.wishes_of(pulls.clone());

    let hearing = pulls.clone();
    ctx.tasks.spawn_infallible("scheduler link", driver.run(ctx.tasks.stopping()));
    ctx.tasks.spawn_infallible("reports", reporter.run(link, ctx.tasks.stopping()));
    ctx.tasks.spawn_infallible("orders", async move {
        while let Some(order) = orders.recv().await {
            hearing.hear(order);
        }
    });
    let upkeep = ctx.metrics.register(|registry| Upkeep::new(store.clone(), registry));
    ctx.tasks.spawn("upkeep", upkeep.run(ctx.tasks.stopping()));

    let limits = PeerLimits { upload_slots: settings.upload_slots, watches: MAX_WATCHES };
    let service = PeerService::new(Arc::new(store), verifier, limits, ctx.tasks.stopping());
    ctx.metrics.register(|registry| {
        let uploaded = service.uploaded_bytes().clone();
        registry.register("peer_upload_bytes", "Bytes of pieces sent to other nodes", uploaded);
    });
    ctx.serve(peers, service, Limits { stall: STALL, ..Limits::new(MAX_CLIENTS) });
    ctx.serve(mirror, Mirror::new(&settings.proxy, pulls), Limits::new(MAX_CLIENTS));
    region.first_answer(REGION_PATIENCE).await;
    ready.set(true);
    Ok(())
}
