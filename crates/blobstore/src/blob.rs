//! A handle on one blob.

use std::sync::Arc;

use bytes::Bytes;
use shoal_model::BlobKey;
use shoal_swarm::{Bitmap, Geometry, PieceIndex};
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;

use crate::disk::PATIENCE;
use crate::entry::{Entry, Lease};
use crate::record::DigestList;
use crate::{Learned, PieceDigest, Status, StoreError};

/// The longest signed statement that is kept, in bytes: a list of the most pieces that a geometry allows
/// takes half of it.
const MAX_ATTESTATION: u64 = 64 << 20;

/// A handle on one blob of a [`Store`](crate::Store). Clones share the blob, which stays on disk as long as
/// one lives.
#[derive(Clone, Debug)]
pub struct Blob(Arc<Lease>);

impl Blob {
    pub(crate) fn new(lease: Arc<Lease>) -> Self {
        Self(lease)
    }

    pub(crate) fn entry(&self) -> &Arc<Entry> {
        &self.0.0
    }

    /// Which blob it is.
    pub fn key(&self) -> &BlobKey {
        &self.entry().key
    }

    /// How the blob is cut. Changes only where another cut was stated for a blob that is not sealed, and
    /// the generation with it.
    pub fn geometry(&self) -> Geometry {
        self.entry().state.lock().geometry
    }

    /// Generation, cut, held pieces and seal, all of the same instant.
    pub fn status(&self) -> Status {
        self.entry().state.lock().status()
    }

    /// The pieces that may be announced and served to other nodes. After a restart some may turn out to be
    /// damaged when they are first read; they then leave the set.
    pub fn held(&self) -> Bitmap {
        self.entry().state.lock().held.clone()
    }

    /// The pieces that local readers may have: held and provisional ones, and those in memory.
    pub fn readable(&self) -> Bitmap {
        self.entry().state.lock().readable()
    }

    /// Whether a piece may be announced and served to other nodes.
    pub fn holds(&self, piece: PieceIndex) -> bool {
        self.entry().state.lock().held.contains(piece)
    }

    /// Whether the disk took the last piece. Where it did not, pieces are kept in memory: few, and for a moment.
    pub fn is_stored(&self) -> bool {
        self.entry().state.lock().is_stored
    }

    /// Whether the whole digest is vouched for: proven here, or by a gateway's complete list.
    pub fn is_sealed(&self) -> bool {
        self.entry().state.lock().is_sealed()
    }

    /// Whether the blob is sealed and every piece is held.
    pub fn is_complete(&self) -> bool {
        let state = self.entry().state.lock();
        state.is_sealed() && state.held.is_full()
    }

    /// A counter that grows with every change: pieces that come or go, digests, attestations, seal,
    /// clearing. A reader waits on it for the next piece.
    pub fn version(&self) -> watch::Receiver<u64> {
        self.entry().version.subscribe()
    }

    /// The digest that was vouched for, if any was yet.
    pub fn digest_of(&self, piece: PieceIndex) -> Option<PieceDigest> {
        self.entry().state.lock().digest_of(piece)
    }

    /// The signed lists to relay to other nodes, in the order in which they came; the complete list alone
    /// once it is known.
    pub fn attestations(&self) -> Vec<Bytes> {
        self.entry().state.lock().attestations().to_vec()
    }

    /// Whether this signed list brings nothing new, so that it need not be checked: it was taken already, or the
    /// complete one is known, against which no other counts.
    pub fn knows(&self, attestation: &[u8]) -> bool {
        self.entry().state.lock().knows(attestation)
    }

    /// Takes digests from a gateway's list, whose signature the caller has checked, from the piece `first`
    /// on. The attestation is kept to be relayed. Provisional pieces that match become held, others are
    /// dropped.
    ///
    /// Fails with `TooLong` only; where the journal cannot be written, the digests hold until the process ends.
    pub fn learn(
        &self,
        first: PieceIndex,
        digests: &[PieceDigest],
        attestation: Bytes,
    ) -> Result<Learned, StoreError> {
        self.take(DigestList { first, digests: digests.to_vec(), attestation, seals: false })
    }

    /// Takes a gateway's complete list, signed when it had seen the whole digest match; the caller has
    /// checked the signature. Fails as [`learn`](Self::learn) does.
    pub fn seal(&self, digests: &[PieceDigest], attestation: Bytes) -> Result<Learned, StoreError> {
        self.take(DigestList { first: 0, digests: digests.to_vec(), attestation, seals: true })
    }

    fn take(&self, list: DigestList) -> Result<Learned, StoreError> {
        let asked = list.attestation.len() as u64;
        if asked > MAX_ATTESTATION {
            return Err(StoreError::TooLong { key: self.key().clone(), asked, allowed: MAX_ATTESTATION });
        }
        Ok(self.entry().learn(list))
    }

    /// Drops everything held and learned, because the blob is poisoned or damaged, and says so in the log.
    /// The generation grows; the handle stays good for fetching anew.
    pub fn clear(&self, why: &str) {
        self.entry().clear(why);
    }

    /// Has every piece verified again before it is next read: a client has just failed on the content.
    pub fn mark_suspect(&self) {
        self.entry().state.lock().mark_all_suspect();
    }

    /// Runs work that needs the disk where it may block. Nothing where the disk does not answer in time, or has
    /// somebody else wait for it; the work goes on when the caller stops waiting.
    pub(crate) async fn on_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Entry) -> Result<T, StoreError> + Send + 'static,
    ) -> Option<Result<T, StoreError>> {
        let common = Arc::clone(&self.entry().common);
        if common.disk.is_stuck() {
            return None;
        }
        // That no thread is free is not the disk's fault.
        let (begin, begun) = oneshot::channel();
        let blob = self.clone();
        let working = async move {
            let work = move |it: &Entry| {
                let _ = begin.send(());
                work(it)
            };
            blob.blocking(work).await
        };
        let mut working = Box::pin(working);
        let in_time = async {
            tokio::select! {
                res = &mut working => return Ok(res),
                _ = begun => {}
            }
            timeout(PATIENCE, &mut working).await
        };
        if let Ok(res) = in_time.await {
            return Some(res);
        }
        common.disk.late(&self.entry().paths.data);
        tokio::spawn(async move {
            // The blob has what became of it.
            let _ = working.await;
            common.disk.late_ended();
        });
        None
    }

    /// Runs disk or hash work where it may block. The work goes on when the caller stops waiting.
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Entry) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let blob = self.clone();
        match tokio::task::spawn_blocking(move || work(blob.entry())).await {
            Ok(res) => res,
            Err(err) => match err.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Err(StoreError::Stopping { key: self.key().clone() }),
            },
        }
    }
}
