//! The gateway: the registry side of a region.
//!
//! It alone holds registry credentials, and it reads each blob from its registry once for all nodes
//! ([`seed`]). Nodes ask it whether a caller may have a blob ([`open`]) and pass everything else through it
//! ([`mirror`]); what it hands out is a ticket, a cut and the first bytes, never a credential. Who may read
//! what is decided by what the registry itself answered ([`authority`]).
//!
//! Knows nothing of: runtimes, neighbours, which node fetches which piece from where.

// Outside input gets here, and none may make a process panic.
#![cfg_attr(
    not(test),
    warn(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::string_slice)
)]

mod about;
pub mod audit;
mod authority;
pub mod background;
mod breaker;
mod budget;
mod census;
mod console;
pub mod credentials;
mod cuts;
pub mod fields;
mod files;
mod fingerprint;
mod fleet;
mod frames;
mod gate;
mod grpc;
pub mod harbor;
mod hub;
pub mod issuing;
pub mod kind;
mod ledger;
pub mod limits;
mod live;
pub mod management;
mod metrics;
mod mirror;
pub mod mode;
mod open;
mod orders;
mod party;
mod port;
pub mod preheat;
mod presence;
mod priority;
mod queue;
pub mod regions;
mod savings;
mod seed;
pub mod settings;
mod shelf;
mod signing;
mod single_flight;
mod sisters;
mod tickets;
pub mod timestamp;
pub mod token_key;
pub mod upstream;
pub mod windows;

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use prometheus_client::metrics::counter::Counter;
use shoal_blobstore::{Store, Upkeep};
use shoal_identity::{Clients, Dialer, Reception, show_expiry};
use shoal_model::{Node, NodeId, Rng, Role};
use shoal_ops::serve::{Limits, Listener};
use shoal_ops::{Context, open_files};
use shoal_peer::RegionKeys;
use shoal_peer::client::PeerClient;
use shoal_peer::report::Reporter;
use shoal_peer::schedulers::Schedulers;
use shoal_peer::service::{PeerService, STALL};
use shoal_peer::ticket::Verifier;
use shoal_proto::RegionState;
use shoal_proto::gateway_server::GatewayServer;
use tokio::sync::{Semaphore, watch};

pub use authority::access_token;

use about::About;
use audit::Audit;
use budget::{Lend, Sharing};
use census::Census;
use cuts::Cuts;
use fingerprint::Fingerprints;
use fleet::Fleet;
use gate::Gate;
use grpc::GatewayService;
use hub::Hub;
use issuing::{Issuing, Secured};
use ledger::Ledger;
use live::Live;
use management::Offered;
use metrics::RegistryMetrics;
use mirror::{Manifests, Mirror};
use open::Opener;
use orders::obey;
use port::{MAX_JOINING, NodePort};
use preheat::{Means, Preheats, schedule};
use regions::{Desk, Regions};
use savings::Savings;
use seed::{Seeder, Tools};
use settings::{RegistrySettings, Settings};
use shelf::SeedingShelf;
use signing::Keyring;
use sisters::{Company, Sisters};
use tickets::Tickets;
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
    let dir = settings.store.dir.clone();
    let store = open_store(&settings).await?;
    let listener = Listener::bind("nodes", settings.listen).await?;
    let address = SocketAddr::new(settings.advertise, listener.addr().port());
    let gateway = node(&settings, address)?;
    let mut guarded = vec![audit::api::routes(&settings.audit)];
    let audit = Audit::start(settings.audit, &ctx);
    let named = issuing::Gateway {
        node: gateway.id.clone(),
        address: settings.advertise,
        hosts: settings.registries.iter().flat_map(|it| it.access.hosts.iter().cloned()).collect(),
    };
    let Secured { keychain, issuing } = issuing::start(settings.security, named, audit.clone(), &ctx)?;
    keychain.iter().for_each(|it| show_expiry(&ctx, it));
    let listener = listener.with(Reception::new(keychain.as_ref(), Clients::Any));

    let keyring = Arc::new(Keyring::open(&settings.key_file)?);
    let verifier = Arc::new(Verifier::new(RegionKeys::parse(&keyring.public())?));
    let dialer = Dialer::new(keychain.as_ref());
    let sisters = Sisters::start(settings.sisters, gateway.clone(), keyring.public(), dialer.clone(), &ctx);
    let hub = match settings.hub {
        Some(hub) => Some(Hub::start(hub, address.to_string(), &ctx).await?),
        None => None,
    };
    let gate = Arc::new(Gate::new(
        upstreams(settings.registries, hub.as_ref(), &ctx)?,
        Fingerprints::new(rand::random()),
        settings.allow_for,
        audit.clone(),
    ));
    let cuts = Arc::new(Cuts::new(store.clone(), settings.piece_length));
    let tickets = Arc::new(Tickets::new(keyring.clone(), verifier.clone(), settings.ticket_lives));
    let peers = PeerClient::new(dialer.clone());
    let ledger = Arc::new(Ledger::new());
    let seeder = Seeder::new(Tools {
        gate: gate.clone(),
        store: store.clone(),
        cuts: cuts.clone(),
        keyring: keyring.clone(),
        tickets: tickets.clone(),
        sisters: sisters.clone(),
        peers: peers.clone(),
        ledger: ledger.clone(),
        tasks: ctx.tasks.clone(),
    });
    let shelf = Arc::new(SeedingShelf {
        gate: gate.clone(),
        cuts: cuts.clone(),
        store: store.clone(),
        seeder: seeder.clone(),
        sisters: sisters.clone(),
        ledger: ledger.clone(),
    });
    let (region, told) = watch::channel(RegionState {
        schedulers: settings.schedulers.clone(),
        trust_groups: gate.trust_groups(),
        verifying_keys: keyring.public(),
        gateway: Some(gateway.clone()),
        own_keys: keyring.public(),
        borrows: false,
    });
    let (signing, signed_with) = watch::channel(keyring.public());
    let following = keyring.follow(settings.key_file, signing, ctx.tasks.stopping());
    ctx.tasks.spawn_infallible("signing keys", following);
    follow_company(
        &ctx,
        signed_with,
        sisters.clone(),
        Told { verifier: verifier.clone(), region, gate: gate.clone(), lender: sisters.lender() },
    );
    let stopping = ctx.tasks.stopping();
    let service = PeerService::new(shelf.clone(), verifier.clone(), settings.upload, stopping.clone());
    let service = service.obeying(shelf.clone());
    ctx.metrics.register(|registry| service.register(registry));
    let opener = Opener::new(
        gate.clone(),
        cuts.clone(),
        seeder.clone(),
        tickets.clone(),
        sisters.clone(),
        ledger.clone(),
    );
    let opener = Arc::new(opener);
    let regions =
        Regions::new(opener.clone(), seeder.clone(), ledger.clone(), cuts, verifier.clone(), &ctx.metrics);
    let desk = Desk::new(tickets.clone(), regions.roll());
    let manifests = Arc::new(Manifests::new(gate.clone()));
    let census = Arc::new(Census::new(dialer.clone(), settings.schedulers.clone()));
    let means = Means {
        gate: gate.clone(),
        manifests: manifests.clone(),
        opener: opener.clone(),
        tickets: tickets.clone(),
        sisters: sisters.clone(),
        seeder: seeder.clone(),
        shelf: shelf.clone(),
        peers: peers.clone(),
        census: census.clone(),
        dialer: dialer.clone(),
        desk: desk.clone(),
    };
    let preheats = Preheats::start(means, &dir, &ctx).await?;
    if let Some(hub) = &hub {
        hub.take_orders(&preheats, &ctx);
    }
    let roll = regions.roll();
    let mirror = Mirror::new(gate.clone(), manifests, regions);
    let means = savings::Means {
        census: census.clone(),
        ledger: ledger.clone(),
        sisters: sisters.clone(),
        dialer: dialer.clone(),
    };
    let savings = Savings::start(means, &dir, &ctx).await?;
    let fleet = Fleet::new(fleet::Means {
        census,
        gate: gate.clone(),
        ledger: ledger.clone(),
        sisters: sisters.clone(),
        seeder,
        store: store.clone(),
        shelf: shelf.clone(),
        peers,
        mirror: mirror.clone(),
        hub,
        regions: roll.clone(),
    });
    let about = About {
        settings: settings.in_force,
        keychain,
        management: settings.management.tls.as_ref().map(|it| it.certificate.clone()),
    };
    let live = Live::new(ctx.tasks.stopping());
    guarded.extend([about::api::routes(about), savings::api::routes(savings)]);
    guarded.push(preheat::api::routes(preheats.clone(), live.clone()));
    guarded.extend(fleet::api::routes(fleet, live));
    guarded.extend(harbor::api::routes(&preheats, &settings.occasions));
    let offered = Offered { guarded, open: console::router() };
    management::start(settings.management, &dir, audit, offered, &ctx).await?;
    let scheduled = schedule::run(settings.occasions.schedules, preheats.clone(), ctx.tasks.stopping());
    ctx.tasks.spawn_infallible("schedules", scheduled);
    let to_nodes = GatewayService::new(
        opener,
        tickets,
        (roll, desk),
        preheats.clone(),
        ledger.clone(),
        (told, stopping),
    );
    let port = NodePort {
        certificates: issuing.map(Issuing::service),
        gateway: GatewayServer::new(to_nodes),
        peers: service,
        mirror,
        joining: Arc::new(Semaphore::new(MAX_JOINING)),
        strangers: strangers(&ctx),
    };
    let most = MAX_CONNECTIONS.min(open_files::for_clients());
    ctx.serve(listener, port, Limits { stall: STALL, ..Limits::new(most) });
    // What this gateway signs is to be believed before anybody is sent to it.
    sisters.settle().await;
    join_schedulers(&ctx, &dialer, settings.schedulers, gateway, shelf, verifier);
    preheats.resume().await;
    let upkeep = ctx.metrics.register(|registry| Upkeep::new(store, registry));
    ctx.tasks.spawn("upkeep", upkeep.run(ctx.tasks.stopping()));
    ready.set(true);
    Ok(address)
}

/// Those who have to know of each change among the region's gateways.
struct Told {
    verifier: Arc<Verifier>,
    region: watch::Sender<RegionState>,
    gate: Arc<Gate>,
    lender: Option<Arc<dyn Lend>>,
}

impl Told {
    fn tell(&self, company: &Company) {
        match RegionKeys::parse(&company.keys) {
            Ok(keys) => {
                self.verifier.trust(keys);
                self.region.send_modify(|it| {
                    it.verifying_keys.clone_from(&company.keys);
                    it.own_keys.clone_from(&company.own_keys);
                    it.borrows = company.borrows;
                });
            }
            Err(error) => tracing::warn!(%error, "signing keys that nobody could believe"),
        }
        let Company { n_sharing, n_borrowing, .. } = *company;
        self.gate.share(&Sharing { n_sharing, n_borrowing, lender: self.lender.clone() });
    }
}

/// Has everybody believe the keys that this gateway and the others sign with, and keep to what gateways share.
fn follow_company(
    ctx: &Context,
    mut signed_with: watch::Receiver<Vec<[u8; 32]>>,
    sisters: Sisters,
    told: Told,
) {
    let stopping = ctx.tasks.stopping();
    ctx.tasks.spawn_infallible("region keys", async move {
        let mut roll = sisters.roll();
        let mut known = None;
        let following = async {
            loop {
                let company = roll.borrow_and_update().company();
                if known.as_ref() != Some(&company) {
                    told.tell(&company);
                    known = Some(company);
                }
                tokio::select! {
                    Ok(()) = signed_with.changed() => {
                        sisters.sign_with(signed_with.borrow_and_update().clone());
                    }
                    // `sisters` keeps the sender.
                    Ok(()) = roll.changed() => {}
                    else => return,
                }
            }
        };
        stopping.run_until_cancelled(following).await;
    });
}

async fn open_store(settings: &Settings) -> anyhow::Result<Store> {
    let store = settings.store.clone();
    let opened = tokio::task::spawn_blocking(move || Store::open(store)).await?;
    opened.context("open the store")
}

fn node(settings: &Settings, address: SocketAddr) -> anyhow::Result<Node> {
    let id = match &settings.node_id {
        Some(id) => id.clone(),
        None => {
            let host =
                std::fs::read_to_string("/proc/sys/kernel/hostname").context("find the host's name")?;
            // The sidecar of the same machine may be called like the machine.
            format!("gateway-{}", host.trim())
        }
    };
    Ok(Node {
        id: NodeId::new(&id),
        address: address.to_string().into(),
        role: Role::Gateway,
        place: settings.place.clone(),
    })
}

fn upstreams(
    registries: Vec<RegistrySettings>,
    hub: Option<&Hub>,
    ctx: &Context,
) -> anyhow::Result<Vec<Arc<Upstream>>> {
    let metrics = RegistryMetrics::register(&ctx.metrics);
    let upstreams = registries.into_iter().map(|it| Upstream::new(it, hub, &metrics, &ctx.tasks));
    let upstreams: Vec<_> = upstreams.collect::<Result<_, _>>()?;
    ctx.tasks.spawn_infallible("files", files::follow(upstreams.clone(), ctx.tasks.stopping()));
    Ok(upstreams)
}

fn strangers(ctx: &Context) -> Counter {
    let strangers = Counter::default();
    ctx.metrics.register(|registry| {
        let help = "Requests to the node port that came without a certificate";
        registry.register("gateway_unauthenticated_requests", help, strangers.clone());
    });
    strangers
}

fn join_schedulers(
    ctx: &Context,
    dialer: &Dialer,
    addresses: Vec<String>,
    gateway: Node,
    shelf: Arc<SeedingShelf>,
    verifier: Arc<Verifier>,
) {
    let reporter = Reporter::new(shelf.store.clone());
    let rng = Rng::new(rand::random());
    // They do not change while the process lives; the receiver keeps what was sent last.
    let (_, addresses) = watch::channel(addresses);
    let (schedulers, orders, driver) = Schedulers::new(gateway, dialer, addresses, reporter.clone(), rng);
    ctx.metrics.register(|registry| schedulers.register(registry));
    let stopping = ctx.tasks.stopping();
    ctx.tasks.spawn_infallible("schedulers", driver.run(stopping.clone()));
    ctx.tasks.spawn_infallible("reports", reporter.run(schedulers, stopping));
    ctx.tasks.spawn_infallible("orders", obey(orders, shelf, verifier));
}
