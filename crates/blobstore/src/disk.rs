//! What the disk under a store does, as far as it does not do what it should.
//!
//! A disk that does not answer is like one that refuses, or has nothing: what takes too long is given up for the moment,
//! and nothing else is begun until it has come to its end, because each one holds a thread and a piece. How much is written
//! at a time is limited for the same reason. What fails is told once for all of a time of trouble, and counted.

use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

use crate::StoreError;

/// How long it may take to read or write a piece, and whoever waits for that with it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);

/// A disk that has done its work for so long is well again.
const WELL_AFTER: Duration = Duration::from_secs(10);

/// How many bytes are written at the same time. A single piece that is longer may be as well.
const AT_ONCE: u32 = 8 << 20;

#[derive(Debug)]
pub(crate) struct Disk {
    /// The bytes that may be written at the same time.
    room: Arc<Semaphore>,
    /// Pieces that it did not take.
    pub(crate) n_unstored: Counter,
    /// Reads and writes that are late.
    n_late: AtomicUsize,
    /// When it last failed, while there is trouble.
    failed_at: Mutex<Option<Instant>>,
}

impl Disk {
    pub(crate) fn new() -> Self {
        Self {
            room: Arc::new(Semaphore::new(AT_ONCE as usize)),
            n_unstored: Counter::default(),
            n_late: AtomicUsize::new(0),
            failed_at: Mutex::default(),
        }
    }

    /// Waits until so many bytes may be written, which they may until what comes back is dropped. Nothing where what is
    /// written already takes too long for that.
    pub(crate) async fn room(&self, n_bytes: usize) -> Option<OwnedSemaphorePermit> {
        if self.is_stuck() {
            return None;
        }
        let n_bytes = u32::try_from(n_bytes).unwrap_or(AT_ONCE).min(AT_ONCE);
        // The semaphore is never closed.
        timeout(PATIENCE, self.room.clone().acquire_many_owned(n_bytes)).await.ok()?.ok()
    }

    /// Whether it has not answered for a while.
    pub(crate) fn is_stuck(&self) -> bool {
        self.n_late.load(Ordering::Relaxed) > 0
    }

    /// A read of a file, or a write to it, is late.
    pub(crate) fn late(&self, path: &Path) {
        self.n_late.fetch_add(1, Ordering::Relaxed);
        let message = format!("no answer for {PATIENCE:?}");
        self.failed(&StoreError::io(path)(io::Error::new(ErrorKind::TimedOut, message)));
    }

    /// One that was late has come to its end.
    pub(crate) fn late_ended(&self) {
        self.n_late.fetch_sub(1, Ordering::Relaxed);
    }

    /// The disk did not do what it should.
    pub(crate) fn failed(&self, error: &StoreError) {
        let is_news = self.failed_at.lock().replace(Instant::now()).is_none();
        if is_news {
            tracing::warn!(
                %error,
                "the disk fails: pulls go on from memory, more slowly, and are not kept; make room on the volume of \
                 storage.dir, or mend it"
            );
        }
    }

    /// A piece was written.
    pub(crate) fn took(&self) {
        let mut failed_at = self.failed_at.lock();
        if failed_at.is_some_and(|it| it.elapsed() >= WELL_AFTER) {
            *failed_at = None;
            tracing::info!("the disk takes pieces again");
        }
    }
}
