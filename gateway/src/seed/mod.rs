//! Seeds: fetching blobs from their registry, once each, and sharing them while they come.
//!
//! However many nodes ask for a blob, one seed fetches it; the others look on. A blob that is complete is
//! never fetched. A seed that was begun goes on when nobody asks any more, because whoever asks next would
//! only have it begun again. What has failed is left alone for a while ([`rests`]), so that nodes that keep
//! asking do not turn into requests to the registry.
//!
//! Where the disk does not take a blob, its pieces pass through memory: each stays until it is needed least, and the
//! seed waits for room. Nodes that still lack some after that have the blob seeded once more.

mod cutter;
mod plan;
mod pulse;
mod rests;
mod run;
mod writer;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use shoal_blobstore::{Blob, Store, StoreError};
use shoal_model::{BlobKey, Digest};
use shoal_oci::{RegistryName, Repository};
use shoal_ops::tasks::Tasks;
use shoal_peer::shelf::ShelfBlob;
use shoal_proto::SeedProgress;
use shoal_swarm::{Geometry, PieceIndex};
use tokio::sync::watch;
use tokio::task::JoinError;
use tokio::time::Instant;

use crate::cuts::Cuts;
use crate::gate::Gate;
use crate::metrics::Outcome;
use crate::signing::Keyring;
use crate::upstream::Upstream;
use plan::Fault;
use pulse::Pulse;
use rests::Rests;
use run::Seed;

/// The most seeds at once, waiting ones included; each holds some kilobytes until its turn comes.
const MAX_SEEDS: usize = 4096;

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
}

/// Seeds blobs; clones share everything.
#[derive(Clone)]
pub(crate) struct Seeder(Arc<Inner>);

struct Inner {
    gate: Arc<Gate>,
    store: Store,
    cuts: Arc<Cuts>,
    keyring: Arc<Keyring>,
    tasks: Tasks,
    state: Mutex<State>,
}

struct State {
    running: HashMap<BlobKey, Running>,
    rests: Rests,
    /// The last one.
    epoch: u64,
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
}

impl Seeder {
    pub(crate) fn new(
        gate: Arc<Gate>,
        store: Store,
        cuts: Arc<Cuts>,
        keyring: Arc<Keyring>,
        tasks: Tasks,
    ) -> Self {
        let state = State { running: HashMap::new(), rests: Rests::new(), epoch: 0 };
        Self(Arc::new(Inner { gate, store, cuts, keyring, tasks, state: Mutex::new(state) }))
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
            return Some(ShelfBlob { blob: running.blob.clone(), seed: Some(running.progress.clone()) });
        }
        if let Some(blob) = self.0.store.get(&wanted.key).filter(Blob::is_complete) {
            return Some(ShelfBlob { blob, seed: None });
        }
        if state.leaves_alone(&wanted)
            || state.running.len() >= MAX_SEEDS
            || self.0.tasks.stopping().is_cancelled()
        {
            return None;
        }
        let blob = match self.0.store.create(&wanted.key, wanted.geometry) {
            Ok(blob) => blob,
            Err(error) => {
                tracing::warn!(blob = %wanted.key, %error, "not seeded");
                return None;
            }
        };
        let (pulse, progress) = Pulse::new();
        let running = Running { blob: blob.clone(), progress: progress.clone() };
        state.running.insert(wanted.key.clone(), running);
        drop(state);
        self.start(wanted, blob.clone(), pulse);
        Some(ShelfBlob { blob, seed: Some(progress) })
    }

    /// Whether the blob is neither here nor coming, and the registry has lately refused the gateway in that
    /// repository.
    pub(crate) fn is_barred(&self, registry: &RegistryName, repository: &Repository, key: &BlobKey) -> bool {
        let state = self.0.state();
        state.rests.is_barred(Instant::now(), registry, repository)
            && !state.running.contains_key(key)
            && self.0.store.get(key).is_none_or(|it| !it.is_complete())
    }

    fn start(&self, wanted: Wanted, blob: Blob, pulse: Pulse) {
        let seed = Seed {
            gate: self.0.gate.clone(),
            upstream: wanted.upstream,
            repository: wanted.repository,
            blob,
            signer: self.0.keyring.signer(),
            epoch: self.0.epoch(),
            pulse,
        };
        let inner = self.0.clone();
        self.0.tasks.spawn_infallible("seed", async move {
            let stopping = inner.tasks.stopping();
            let res = stopping.run_until_cancelled(async {
                if seed.is_wanted().await { Some(seed.run().await) } else { None }
            });
            match res.await.unwrap_or(Some(Err(SeedError::Interrupted))) {
                Some(res) => inner.ended(&seed, res),
                None => drop(inner.state().running.remove(seed.blob.key())),
            }
        });
    }
}

impl Inner {
    fn ended(&self, seed: &Seed, res: Result<(), SeedError>) {
        let (key, registry) = (seed.blob.key(), seed.upstream.name());
        let mut state = self.state();
        let outcome = match res {
            Ok(()) => {
                tracing::info!(%registry, repository = %seed.repository, blob = %key, "blob sealed");
                state.rests.succeeded(key);
                Outcome::Sealed
            }
            Err(error) => {
                tracing::warn!(%registry, repository = %seed.repository, blob = %key, %error, "seed failed");
                let now = Instant::now();
                state.rests.failed(now, key);
                if error.is_refusal() {
                    state.rests.refused(now, registry, &seed.repository);
                }
                if error.is_other_length() {
                    self.cuts.doubt(key, seed.blob.geometry());
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

    /// Microseconds since 1970: grows from one seed to the next, over restarts as well, and where the clock is set back
    /// while the process lives.
    fn epoch(&self) -> u64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut state = self.state();
        state.epoch = next_epoch(state.epoch, u64::try_from(now.as_micros()).unwrap_or(u64::MAX));
        state.epoch
    }
}

/// The epoch that begins `now`, which has to be after the last.
const fn next_epoch(last: u64, now: u64) -> u64 {
    if now > last { now } else { last.saturating_add(1) }
}

#[cfg(test)]
mod tests {
    use super::next_epoch;

    #[test]
    fn an_epoch_is_after_the_last_whatever_the_clock_says() {
        assert_eq!(next_epoch(0, 1000), 1000);
        assert_eq!(next_epoch(1000, 1000), 1001);
        assert_eq!(next_epoch(1001, 5), 1002);
    }
}
