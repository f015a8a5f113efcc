//! Tells the schedulers what a node's store holds.
//!
//! Reports are differences to what was told last, gathered over a moment, so that a pull costs a bounded
//! number of messages and never one per piece. A scheduler that knows nothing yet of a blob is told all of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use shoal_blobstore::{Status, Store};
use shoal_model::BlobKey;
use shoal_proto::{BlobProgress, NodeMessage};
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::{Notify, broadcast};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::schedulers::{Announce, Schedulers};

/// How long changes are gathered before they are told.
const GATHER: Duration = Duration::from_millis(50);
/// The same, where somebody waits for what the scheduler will say to them.
const GATHER_IN_HASTE: Duration = Duration::from_millis(10);
/// The most blobs in one message. A scheduler's buffer for a node's stream grows to the longest message and stays
/// so, for each node of a fleet.
pub(crate) const MAX_BLOBS: usize = 8;

/// What the schedulers know of a node's store, each of its own blobs.
pub struct Reporter {
    store: Store,
    told: Mutex<BTreeMap<BlobKey, Status>>,
    haste: Notify,
}

impl Reporter {
    /// Nothing is told yet.
    pub fn new(store: Store) -> Arc<Self> {
        Arc::new(Self { store, told: Mutex::default(), haste: Notify::new() })
    }

    /// Reports changes until `stopping`.
    pub async fn run(self: Arc<Self>, schedulers: Schedulers, stopping: CancellationToken) {
        let mut changes = self.store.changes();
        while let Some(Some(first)) = stopping.run_until_cancelled(next(&mut changes)).await {
            sleep(GATHER_IN_HASTE).await;
            tokio::select! {
                () = self.haste.notified() => {}
                () = sleep(GATHER - GATHER_IN_HASTE) => {}
            }
            let changed = first.into_keys(&mut changes);
            self.tell(changed.as_ref(), |it| schedulers.send(it));
        }
    }

    /// Tells at once what is new about a blob. A wish for what was lost is one only to whom that is known.
    pub fn tell_of(&self, key: &BlobKey, schedulers: &Schedulers) {
        self.tell(Some(&BTreeSet::from([key.clone()])), |it| schedulers.send(it));
    }

    /// Somebody waits for what the scheduler will say to the next report.
    pub fn hurry(&self) {
        self.haste.notify_one();
    }

    /// Tells what is new about these blobs, or about all.
    fn tell(&self, keys: Option<&BTreeSet<BlobKey>>, send: impl Fn(NodeMessage)) {
        // Until all is told, so that nothing overtakes it that is found out later.
        let mut told = self.told();
        let all;
        let keys = match keys {
            Some(keys) => keys,
            None => {
                all = self.keys().chain(told.keys().cloned()).collect();
                &all
            }
        };
        messages(keys.iter().filter_map(|key| self.news(key, &mut told))).into_iter().for_each(send);
    }

    fn news(&self, key: &BlobKey, told: &mut BTreeMap<BlobKey, Status>) -> Option<BlobProgress> {
        news(key, told, self.store.status(key))
    }

    /// Everything in the store.
    fn keys(&self) -> impl Iterator<Item = BlobKey> {
        self.store.list().into_iter().map(|it| it.key)
    }

    fn told(&self) -> MutexGuard<'_, BTreeMap<BlobKey, Status>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Announce for Reporter {
    /// What the store holds of these blobs.
    fn announce(&self, concerns: &dyn Fn(&BlobKey) -> bool) -> Vec<NodeMessage> {
        let mut told = self.told();
        told.retain(|key, _| !concerns(key));
        let concerned = self.keys().filter(|it| concerns(it));
        let held = concerned.filter_map(|key| self.news(&key, &mut told));
        messages(held.map(|it| BlobProgress { dropped: true, ..it }))
    }
}

/// Reports on blobs, a few in each message.
fn messages(blobs: impl Iterator<Item = BlobProgress>) -> Vec<NodeMessage> {
    let blobs: Vec<_> = blobs.collect();
    blobs.chunks(MAX_BLOBS).map(|it| NodeMessage::Progress(it.to_vec())).collect()
}

/// What the scheduler has to be told about a blob that is now as `status` says, or gone.
fn news(key: &BlobKey, told: &mut BTreeMap<BlobKey, Status>, status: Option<Status>) -> Option<BlobProgress> {
    let Some(status) = status else {
        let Status { geometry, .. } = told.remove(key)?;
        return Some(BlobProgress { key: key.clone(), geometry, dropped: true, gained: Vec::new() });
    };
    let geometry = status.geometry;
    let held = status.held.clone();
    let generation = status.generation;
    let before = told.insert(key.clone(), status);
    let lost = |it: &Status| it.generation != generation || !it.held.minus(&held).is_empty();
    let dropped = before.as_ref().is_some_and(lost);
    let gained = match before {
        Some(before) if !dropped => held.minus(&before.held).runs(),
        _ => held.runs(),
    };
    (dropped || !gained.is_empty()).then(|| BlobProgress { key: key.clone(), geometry, dropped, gained })
}

/// A change that was heard: of one blob, or of so many that some were missed.
enum Change {
    Of(BlobKey),
    Missed,
}

impl Change {
    /// All blobs that changed since, this one included; `None` for all there are.
    fn into_keys(self, changes: &mut broadcast::Receiver<BlobKey>) -> Option<BTreeSet<BlobKey>> {
        let Self::Of(first) = self else {
            *changes = changes.resubscribe();
            return None;
        };
        let mut keys = BTreeSet::from([first]);
        loop {
            match changes.try_recv() {
                Ok(key) => drop(keys.insert(key)),
                Err(TryRecvError::Lagged(_)) => {
                    *changes = changes.resubscribe();
                    return None;
                }
                Err(_) => return Some(keys),
            }
        }
    }
}

/// The next change; `None` when the store is gone.
async fn next(changes: &mut broadcast::Receiver<BlobKey>) -> Option<Change> {
    match changes.recv().await {
        Ok(key) => Some(Change::Of(key)),
        Err(RecvError::Lagged(_)) => Some(Change::Missed),
        Err(RecvError::Closed) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{blob, key, store};
    use shoal_swarm::{Bitmap, Geometry};
    use std::cell::RefCell;

    fn status(generation: u64, held: &[u32]) -> Option<Status> {
        let geometry = Geometry::stated(1000, 100)?;
        let mut bitmap = Bitmap::new(geometry.n_pieces());
        for piece in held {
            bitmap.insert(*piece);
        }
        Some(Status { generation, geometry, held: bitmap, sealed: false })
    }

    #[tokio::test]
    async fn a_report_is_no_use_of_the_blobs() {
        let (_dir, store) = store();
        drop(blob(&store, &key(1), &[0, 2]).await);
        let before = store.list();
        let told = Reporter::new(store.clone()).announce(&|_| true);
        assert!(matches!(&told[..], [NodeMessage::Progress(blobs)] if blobs.len() == 1));
        assert_eq!(store.list(), before);
    }

    impl Reporter {
        /// What it tells of one blob, or of all.
        fn news_of(&self, byte: Option<u8>) -> Vec<NodeMessage> {
            let keys = byte.map(|it| BTreeSet::from([key(it)]));
            let told = RefCell::new(Vec::new());
            self.tell(keys.as_ref(), |it| told.borrow_mut().push(it));
            told.into_inner()
        }
    }

    /// The blobs in messages, and whether these begin anew and say something.
    fn said(messages: Vec<NodeMessage>) -> Vec<(BlobKey, bool, bool)> {
        let blobs = messages.into_iter().flat_map(|it| match it {
            NodeMessage::Progress(blobs) => blobs,
            other => panic!("{other:?}"),
        });
        blobs.map(|it| (it.key, it.dropped, !it.gained.is_empty())).collect()
    }

    #[tokio::test]
    async fn only_the_blobs_that_are_asked_for_are_announced_and_they_from_the_beginning() {
        let (_dir, store) = store();
        for byte in [1, 2] {
            drop(blob(&store, &key(byte), &[0, 2]).await);
        }
        let it = Reporter::new(store);
        assert_eq!(said(it.announce(&|it| *it == key(2))), [(key(2), true, true)]);
        assert_eq!(said(it.news_of(None)), [(key(1), false, true)]);
        assert_eq!(said(it.announce(&|it| *it == key(1))), [(key(1), true, true)]);
        assert_eq!(said(it.news_of(None)), []);
    }

    #[tokio::test]
    async fn what_is_lost_is_told_once() {
        let (_dir, store) = store();
        let it = Reporter::new(store.clone());
        let blob = blob(&store, &key(1), &[0, 2]).await;
        assert_eq!(said(it.news_of(Some(1))), [(key(1), false, true)]);
        blob.clear("for a test");
        assert_eq!(said(it.news_of(Some(2))), []);
        assert_eq!(said(it.news_of(Some(1))), [(key(1), true, false)]);
        assert_eq!(said(it.news_of(None)), []);
    }

    #[test]
    fn only_differences_are_told() {
        let mut told = BTreeMap::new();
        let mut check = |status, expected: Option<(bool, &[u32])>| {
            let got = news(&key(1), &mut told, status);
            let got = got.map(|it| (it.dropped, it.gained.into_iter().flatten().collect::<Vec<_>>()));
            assert_eq!(got, expected.map(|(dropped, gained)| (dropped, gained.to_vec())));
        };
        check(status(0, &[]), None);
        check(status(0, &[0, 1]), Some((false, &[0, 1])));
        check(status(0, &[0, 1]), None);
        check(status(0, &[0, 1, 5]), Some((false, &[5])));
        // A damaged piece went, or everything was poisoned.
        check(status(0, &[0, 5]), Some((true, &[0, 5])));
        check(status(1, &[0, 5]), Some((true, &[0, 5])));
        check(status(2, &[]), Some((true, &[])));
        check(None, Some((true, &[])));
        check(None, None);
    }
}
