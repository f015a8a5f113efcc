//! Seeds: fetching blobs from their registry, once each, and sharing them while they come.
//!
//! However many nodes ask for a blob, one seed fetches it; the others look on. A blob that is complete is
//! never fetched. A seed that was begun goes on when nobody asks any more, because whoever asks next would
//! only have it begun again. What has failed is left alone for a while ([`rests`]), so that nodes that keep
//! asking do not turn into requests to the registry.
//!
//! Where the region has several gateways, one of them reads the registry ([`sisters`](crate::sisters)); a seed at
//! another one takes what that has. And what nodes hold is not read again ([`gather`]).
//!
//! Where the disk does not take a blob, its pieces pass through memory: each stays until it is needed least, and the
//! seed waits for room. Nodes that still lack some after that have the blob seeded once more.

mod cutter;
mod gather;
mod plan;
mod pulse;
mod rests;
mod run;
mod writer;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use shoal_blobstore::{Blob, Store, StoreError};
use shoal_model::{BlobKey, Digest, Node};
use shoal_oci::{RegistryName, Repository};
use shoal_ops::tasks::Tasks;
use shoal_ops::traces::{self, TARGET};
use shoal_peer::client::PeerClient;
use shoal_peer::shelf::ShelfBlob;
use shoal_proto::SeedProgress;
use shoal_swarm::{Geometry, PieceIndex};
use tokio::sync::watch;
use tokio::task::JoinError;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::field::{Empty, display};
use tracing::info_span;

use crate::cuts::Cuts;
use crate::gate::Gate;
use crate::ledger::Ledger;
use crate::metrics::Outcome;
use crate::priority::{Priority, Urgency};
use crate::signing::Keyring;
use crate::sisters::Sisters;
use crate::tickets::Tickets;
use crate::upstream::Upstream;
use plan::Fault;
use pulse::Pulse;
use rests::Rests;
use run::{Had, Others, Seed};

/// The most seeds at once, waiting ones included; each holds some kilobytes until its turn comes.
const MAX_SEEDS: usize = 4096;
/// With so many seeds no background one is begun: those that wait for hours leave room for what somebody waits for.
const MAX_WITH_BACKGROUND: usize = MAX_SEEDS / 2;

/// Why a seed ended without its blob.
#[derive(Debug, thiserror::Error)]
enum SeedError {
    #[error(transparent)]
    Registry(#[from] Fault),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("poisoned: the registry sent content of digest {found}")]
    Poisoned { found: Digest },
    #[error("piece {piece}: the registry's bytes contradict a digest that was signed before")]
    Contradiction { piece: PieceIndex },
    #[error("cut short: the blob was cleared, or the process stops")]
    Interrupted,
    #[error("the blob is to be removed")]
    Removed,
    #[error("another gateway has taken over")]
    Overtaken,
    #[error("the gateway whose turn it is does not serve it")]
    Unserved,
}

impl SeedError {
    /// A hashing thread that ended without an outcome.
    fn stopped(_: JoinError) -> Self {
        Self::Interrupted
    }

    /// Whether what was published can no longer be believed.
    const fn is_poison(&self) -> bool {
        matches!(self, Self::Poisoned { .. } | Self::Contradiction { .. })
    }

    /// Whether the gateway may not read the repository.
    const fn is_refusal(&self) -> bool {
        matches!(self, Self::Registry(Fault::Refused(401 | 403)))
    }

    /// Whether the blob is not as long as was thought.
    const fn is_other_length(&self) -> bool {
        matches!(self, Self::Registry(Fault::OtherLength { .. }))
    }
}

/// A blob to be seeded, and from where.
#[derive(Clone)]
pub(crate) struct Wanted {
    pub(crate) upstream: Arc<Upstream>,
    pub(crate) repository: Repository,
    pub(crate) key: BlobKey,
    pub(crate) geometry: Geometry,
    pub(crate) by: Wanting,
    pub(crate) priority: Priority,
}

/// Who wants a blob seeded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wanting {
    /// Somebody who has a ticket.
    Node,
    /// The scheduler, which has named this gateway, and some who hold pieces.
    Scheduler { holders: Vec<Node> },
}

/// Seeds blobs; clones share everything.
#[derive(Clone)]
pub(crate) struct Seeder(Arc<Inner>);

struct Inner {
    tools: Tools,
    state: Mutex<State>,
}

/// What seeds are made with.
pub(crate) struct Tools {
    pub(crate) gate: Arc<Gate>,
    pub(crate) store: Store,
    pub(crate) cuts: Arc<Cuts>,
    pub(crate) keyring: Arc<Keyring>,
    pub(crate) tickets: Arc<Tickets>,
    pub(crate) sisters: Sisters,
    pub(crate) peers: PeerClient,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) tasks: Tasks,
}

struct State {
    running: HashMap<BlobKey, Running>,
    rests: Rests,
}

impl State {
    fn leaves_alone(&self, wanted: &Wanted) -> bool {
        let now = Instant::now();
        self.rests.rests(now, &wanted.key)
            || self.rests.is_barred(now, wanted.upstream.name(), &wanted.repository)
    }
}

struct Running {
    blob: Blob,
    progress: watch::Receiver<SeedProgress>,
    urgency: Urgency,
    stop: CancellationToken,
}

impl Seeder {
    pub(crate) fn new(tools: Tools) -> Self {
        let state = State { running: HashMap::new(), rests: Rests::new() };
        Self(Arc::new(Inner { tools, state: Mutex::new(state) }))
    }

    /// The blob as it is here, with its seed if it needs one, which is begun unless it runs. `None` where it
    /// cannot be seeded at present. Returns at once.
    pub(crate) fn seed(&self, wanted: Wanted) -> Option<ShelfBlob> {
        let mut state = self.0.state();
        if let Some(running) = state.running.get(&wanted.key) {
            // Pieces of another cut would be of no use.
            if running.blob.geometry() != wanted.geometry {
                return None;
            }
            running.urgency.rise(wanted.priority);
            return Some(ShelfBlob { blob: running.blob.clone(), seed: Some(running.progress.clone()) });
        }
        let Tools { store, tasks, .. } = &self.0.tools;
        if let Some(blob) = store.get(&wanted.key).filter(Blob::is_complete) {
            return Some(ShelfBlob { blob, seed: None });
        }
        let most = match wanted.priority {
            Priority::Live => MAX_SEEDS,
            Priority::Background => MAX_WITH_BACKGROUND,
        };
        if state.leaves_alone(&wanted) || state.running.len() >= most || tasks.stopping().is_cancelled() {
            return None;
        }
        let blob = match store.create(&wanted.key, wanted.geometry) {
            Ok(blob) => blob,
            Err(error) => {
                tracing::warn!(blob = %wanted.key, %error, "not seeded");
                return None;
            }
        };
        let (pulse, progress) = Pulse::new();
        let urgency = Urgency::new(wanted.priority);
        let stop = CancellationToken::new();
        let running = Running {
            blob: blob.clone(),
            progress: progress.clone(),
            urgency: urgency.clone(),
            stop: stop.clone(),
        };
        state.running.insert(wanted.key.clone(), running);
        let is_doubted = state.rests.is_doubted(&wanted.key);
        drop(state);
        self.0.tools.ledger.belongs(&wanted.key, wanted.upstream.name(), &wanted.repository);
        self.start(wanted, blob.clone(), (pulse, urgency, stop), is_doubted);
        Some(ShelfBlob { blob, seed: Some(progress) })
    }

    /// How far the blob's seed is, where one is at work here.
    pub(crate) fn progress(&self, key: &BlobKey) -> Option<SeedProgress> {
        self.0.state().running.get(key).map(|it| *it.progress.borrow())
    }

    /// Somebody waits for the blob: its seed, where one is at work, is no background one from now on.
    pub(crate) fn is_awaited(&self, key: &BlobKey) {
        if let Some(running) = self.0.state().running.get(key) {
            running.urgency.rise(Priority::Live);
        }
    }

    /// What there is of a blob, for a gateway that may read the rest itself. No seed is begun.
    pub(crate) fn at_hand(&self, key: &BlobKey) -> Option<ShelfBlob> {
        if let Some(Running { blob, progress, .. }) = self.0.state().running.get(key) {
            return Some(ShelfBlob { blob: blob.clone(), seed: Some(progress.clone()) });
        }
        let blob = self.0.tools.store.get(key).filter(|it| !it.held().is_empty())?;
        Some(ShelfBlob { blob, seed: None })
    }

    /// Whether the blob is neither here nor coming, and the registry has lately refused the gateway in that
    /// repository.
    pub(crate) fn is_barred(&self, registry: &RegistryName, repository: &Repository, key: &BlobKey) -> bool {
        let state = self.0.state();
        state.rests.is_barred(Instant::now(), registry, repository)
            && !state.running.contains_key(key)
            && self.0.tools.store.get(key).is_none_or(|it| !it.is_complete())
    }

    /// Ends the blob's seed, where one is at work here, and waits until it is over: nothing more comes in by it.
    pub(crate) async fn stop(&self, key: &BlobKey) {
        let running = self.0.state().running.get(key).map(|it| (it.stop.clone(), it.progress.clone()));
        if let Some((stop, mut progress)) = running {
            stop.cancel();
            // The seed has the sender.
            while progress.changed().await.is_ok() {}
        }
    }

    /// Why the blob's last seed here failed, if it did.
    pub(crate) fn failure(&self, key: &BlobKey) -> Option<Arc<str>> {
        self.0.state().rests.why(key)
    }

    fn start(
        &self,
        wanted: Wanted,
        blob: Blob,
        (pulse, urgency, stop): (Pulse, Urgency, CancellationToken),
        is_doubted: bool,
    ) {
        let tools = &self.0.tools;
        let (is_named, holders) = match wanted.by {
            Wanting::Scheduler { holders } => (true, holders),
            Wanting::Node => (false, Vec::new()),
        };
        let others = Others {
            sisters: tools.sisters.clone(),
            peers: tools.peers.clone(),
            tickets: tools.tickets.clone(),
            holders,
            is_doubted,
        };
        // Within that of whoever has it begun; others who come meanwhile have a part in it unseen.
        let span = traces::from(traces::here(), || {
            info_span!(
                target: TARGET, "seed", registry = %wanted.upstream.name(), repository = %wanted.repository,
                blob = %wanted.key, had = Empty, error = Empty
            )
        });
        let seed = Seed {
            gate: tools.gate.clone(),
            upstream: wanted.upstream,
            repository: wanted.repository,
            tenure: Arc::new(tools.sisters.tenure(wanted.key, is_named)),
            others,
            blob,
            signer: tools.keyring.signer(),
            pulse,
            urgency,
            ledger: tools.ledger.clone(),
            n_read: AtomicU64::new(0),
            span,
        };
        let inner = self.0.clone();
        tools.tasks.spawn_infallible("seed", async move {
            let stopping = inner.tools.tasks.stopping();
            let began = Instant::now();
            let res = stop.run_until_cancelled(async {
                if seed.is_wanted().await { Some(Box::pin(seed.run()).await) } else { None }
            });
            let res = async { res.await.unwrap_or(Some(Err(SeedError::Removed))) };
            let res = stopping.run_until_cancelled(res);
            let res = res.await.unwrap_or(Some(Err(SeedError::Interrupted)));
            seed.upstream.metrics.seed_read(seed.n_read.load(Ordering::Relaxed));
            match res {
                Some(res) => {
                    if matches!(res, Ok(Had::FromRegistry)) {
                        seed.upstream.metrics.sealed(seed.blob.geometry().size(), began.elapsed());
                    }
                    inner.ended(&seed, res);
                }
                None => drop(inner.state().running.remove(seed.blob.key())),
            }
            seed.tenure.release().await;
        });
    }
}

impl Inner {
    fn ended(&self, seed: &Seed, res: Result<Had, SeedError>) {
        let (key, registry) = (seed.blob.key(), seed.upstream.name());
        let mut state = self.state();
        match &res {
            Ok(had) => drop(seed.span.record("had", display(had))),
            Err(error) => traces::failed(&seed.span, error),
        }
        let outcome = match res {
            Ok(had) => {
                tracing::info!(%registry, repository = %seed.repository, blob = %key, %had, "blob sealed");
                state.rests.succeeded(key);
                match had {
                    Had::FromRegistry => Outcome::Sealed,
                    Had::FromOthers => Outcome::Followed,
                }
            }
            // It was no failure of the registry's, and whoever asks again is to be served.
            Err(error @ SeedError::Overtaken) => {
                tracing::warn!(%registry, repository = %seed.repository, blob = %key, %error, "seed ended");
                Outcome::Overtaken
            }
            Err(error @ SeedError::Removed) => {
                tracing::info!(%registry, repository = %seed.repository, blob = %key, %error, "seed ended");
                Outcome::Removed
            }
            Err(error) => {
                tracing::warn!(%registry, repository = %seed.repository, blob = %key, %error, "seed failed");
                let now = Instant::now();
                state.rests.failed(now, key, error.is_poison(), &error.to_string());
                if error.is_refusal() {
                    state.rests.refused(now, registry, &seed.repository);
                }
                if error.is_other_length() {
                    self.tools.cuts.doubt(key, seed.blob.geometry());
                }
                if error.is_poison() { Outcome::Poisoned } else { Outcome::Failed }
            }
        };
        seed.upstream.metrics.seed(outcome);
        if outcome == Outcome::Poisoned {
            seed.blob.clear("poisoned");
        }
        state.running.remove(key);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
