//! The regular upkeep of a store: what has expired or must make room goes, and what is left is shown.
//!
//! A piece that finds no room on the disk costs a pull its speed, so room is made every few seconds and not
//! when it is missed. All this asks the file system about each blob, hence it runs where it may block.

use std::time::{Duration, SystemTime};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::task::{JoinError, spawn_blocking};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::{Collected, Store, Usage};

/// How often the store is looked over.
const TURN: Duration = Duration::from_secs(5);

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

/// What a store was when it was last looked over; clones are of the same.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// Bytes that blobs take on disk.
    pub bytes: Gauge,
    /// The number of blobs, empty ones included.
    pub blobs: Gauge,
    /// Pieces found damaged and dropped since the start.
    pub damaged: Counter,
}

/// Looks a store over as long as its service lives.
pub struct Upkeep {
    store: Store,
    totals: Totals,
    removed: Family<ReasonLabel, Counter>,
    freed: Counter,
}

impl Upkeep {
    /// For one store, whose metrics are added: `store_bytes`, `store_blobs`, `store_removed_blobs`,
    /// `store_freed_bytes`, `store_damaged_pieces`, `store_damaged_journals`, `store_unstored_pieces`.
    pub fn new(store: Store, registry: &mut Registry) -> Self {
        let totals = Totals { damaged: store.common().n_damaged.clone(), ..Totals::default() };
        registry.register("store_bytes", "Bytes that blobs take on disk", totals.bytes.clone());
        registry.register("store_blobs", "Blobs on disk, empty ones included", totals.blobs.clone());
        let (removed, freed) = (Family::default(), Counter::default());
        let help = "Blobs removed: not used for too long (expired), or to make room (evicted)";
        registry.register("store_removed_blobs", help, removed.clone());
        registry.register(
            "store_freed_bytes",
            "Bytes that expired and evicted blobs took on disk",
            freed.clone(),
        );
        let help = "Pieces that were found damaged and dropped";
        registry.register("store_damaged_pieces", help, totals.damaged.clone());
        let journals = store.common().n_damaged_journals.clone();
        let help = "Journals that could not be read to their end at the start";
        registry.register("store_damaged_journals", help, journals);
        let unstored = store.common().disk.n_unstored.clone();
        let help = "Pieces that the disk did not take, or not in time, and that passed through memory";
        registry.register("store_unstored_pieces", help, unstored);
        Self { store, totals, removed, freed }
    }

    /// What is found.
    pub fn totals(&self) -> Totals {
        self.totals.clone()
    }

    /// Looks the store over at once and then regularly, until `stopping`.
    ///
    /// # Errors
    /// When it panicked over the store.
    pub async fn run(self, stopping: CancellationToken) -> Result<(), JoinError> {
        let mut turns = interval(TURN);
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while stopping.run_until_cancelled(turns.tick()).await.is_some() {
            let store = self.store.clone();
            let turn = move || (store.collect(SystemTime::now()), store.usage());
            let (collected, usage) = spawn_blocking(turn).await?;
            self.tell(&collected, &usage);
        }
        Ok(())
    }

    fn tell(&self, collected: &Collected, usage: &Usage) {
        let Collected { n_expired, n_evicted, freed } = collected;
        if n_expired + n_evicted > 0 {
            tracing::info!(n_expired, n_evicted, %freed, "blobs removed");
        }
        for (reason, n_removed) in [("expired", *n_expired), ("evicted", *n_evicted)] {
            self.removed.get_or_create(&ReasonLabel { reason }).inc_by(n_removed as u64);
        }
        self.freed.inc_by(freed.0);
        self.totals.bytes.set(i64::try_from(usage.bytes.0).unwrap_or(i64::MAX));
        self.totals.blobs.set(i64::try_from(usage.n_blobs).unwrap_or(i64::MAX));
    }
}
