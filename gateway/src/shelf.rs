//! What the gateway shares: what it holds, and what it can seed.
//!
//! A ticket is the proof that this gateway, or a sister with the same key, granted a blob; so a node that
//! shows one for a blob that is not here has it seeded. That is how a node without a scheduler gets a blob,
//! and the scheduler's own order goes the same way. A sister gets what there is; only what this gateway owns is seeded
//! for her, since she can read the rest as well. Whoever has a ticket waits for the blob, and so do those whose wishes the
//! scheduler hears. What a preheat job wants here is seeded as for a node, and waits for what others wait for.

use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use shoal_blobstore::{Blob, Store};
use shoal_model::BlobKey;
use shoal_peer::remove::{Remover, remove_from};
use shoal_peer::shelf::{Shelf, ShelfBlob};
use shoal_peer::store::{Storer, Storing};
use shoal_peer::ticket::TicketClaims;
use shoal_proto::{Removal, Source, StoreBlob};
use shoal_swarm::Geometry;
use tokio::time::Instant;

use crate::cuts::Cuts;
use crate::gate::Gate;
use crate::ledger::{Ledger, Traffic};
use crate::priority::Priority;
use crate::seed::{Seeder, Wanted, Wanting};
use crate::sisters::Sisters;

/// The gateway's blobs, here or to come.
pub(crate) struct SeedingShelf {
    pub(crate) gate: Arc<Gate>,
    pub(crate) cuts: Arc<Cuts>,
    pub(crate) store: Store,
    pub(crate) seeder: Seeder,
    pub(crate) sisters: Sisters,
    pub(crate) ledger: Arc<Ledger>,
}

impl SeedingShelf {
    /// The blob, seeded from `source` if need be. `None` where that registry is not served here, or stands
    /// in another trust group, or the blob cannot be seeded at present. `stated` is the cut where this
    /// gateway has said none.
    pub(crate) fn seed(
        &self,
        key: &BlobKey,
        stated: Option<Geometry>,
        source: &Source,
        (by, priority): (Wanting, Priority),
    ) -> Option<ShelfBlob> {
        let upstream = self.gate.upstream(&source.registry.parse().ok()?)?;
        if upstream.group != key.group {
            return None;
        }
        self.seeder.seed(Wanted {
            upstream: upstream.clone(),
            repository: source.repository.parse().ok()?,
            key: key.clone(),
            geometry: self.cuts.agreed(key, stated)?,
            by,
            priority,
        })
    }
}

impl Shelf for SeedingShelf {
    fn open(&self, key: &BlobKey, claims: &TicketClaims) -> Option<ShelfBlob> {
        if self.sisters.knows(&claims.node) && !self.sisters.owns(key) {
            // Somebody may wait for it there, which her ticket does not say.
            self.seeder.is_awaited(key);
            return self.seeder.at_hand(key);
        }
        let seeded = self.seed(key, claims.geometry, &claims.source, (Wanting::Node, Priority::Live));
        // What is complete can be shared even where it cannot be fetched. A part without a seed is as good
        // as nothing, and says so at once.
        let complete = || self.store.get(key).filter(Blob::is_complete);
        seeded.or_else(|| Some(ShelfBlob { blob: complete()?, seed: None }))
    }

    fn sends(&self, key: &BlobKey, n_bytes: u64) {
        self.ledger.moved(key, Traffic { sent: n_bytes, ..Traffic::default() });
    }
}

impl Remover for SeedingShelf {
    fn remove(&self, key: BlobKey) -> BoxFuture<'static, Removal> {
        let (seeder, store) = (self.seeder.clone(), self.store.clone());
        async move {
            seeder.stop(&key).await;
            remove_from(store, key).await
        }
        .boxed()
    }
}

impl Storer for SeedingShelf {
    fn store(&self, source: &Source, wanted: &StoreBlob, _: Instant) -> Result<Storing, String> {
        let key = wanted.key.clone();
        let failure = {
            let (seeder, key) = (self.seeder.clone(), key.clone());
            move || match seeder.failure(&key) {
                Some(why) => format!("not seeded: {why}"),
                None => "not seeded".to_owned(),
            }
        };
        // For pulls to come; one that is under way makes the seed its own.
        let by = (Wanting::Node, Priority::Background);
        let opened = self.seed(&key, Some(wanted.geometry), source, by).ok_or_else(&failure)?;
        let blob = opened.blob.clone();
        let ended = async move {
            if let Some(mut seed) = opened.seed {
                while seed.changed().await.is_ok() {}
            }
            if opened.blob.is_complete() && opened.blob.is_stored() { Ok(()) } else { Err(failure()) }
        };
        Ok(Storing { blob, ended: ended.boxed() })
    }
}
