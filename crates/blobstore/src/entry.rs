//! One blob as the store keeps it: its state, its files, and who is told of changes.
//!
//! Two locks, always taken in this order and never across an await: `files`, which makes a change of the
//! state and its record in the journal one step, and `state`, held for memory work only. Hashing and
//! content reads and writes happen outside both, and are then judged by the state as it has become.
//!
//! A lease keeps the blob from eviction. When the last one goes, the files are closed and the time is
//! noted as the blob's last use.

use std::fs::File;
use std::sync::{Arc, Weak};
use std::time::SystemTime;

use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use shoal_model::BlobKey;
use shoal_swarm::{Geometry, PieceIndex};
use tokio::sync::{broadcast, watch};

use crate::files::Files;
use crate::layout::Paths;
use crate::record::{DigestList, Header, Record};
use crate::state::State;
use crate::{Blob, Learned, StoreError};

/// What the blobs of one store report to it.
#[derive(Debug)]
pub(crate) struct Signals {
    /// The keys of blobs whose content changed.
    pub(crate) changes: broadcast::Sender<BlobKey>,
    /// How many pieces were found damaged and dropped.
    pub(crate) n_damaged: Counter,
}

#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) key: BlobKey,
    pub(crate) files: Mutex<Files>,
    pub(crate) state: Mutex<State>,
    /// Counts the changes.
    pub(crate) version: watch::Sender<u64>,
    signals: Arc<Signals>,
    lease: Mutex<Weak<Lease>>,
    last_used: Mutex<SystemTime>,
}

impl Entry {
    /// A blob that starts empty on disk.
    pub(crate) fn create(paths: Paths, header: &Header, signals: Arc<Signals>) -> Result<Self, StoreError> {
        let path = paths.journal.clone();
        let files = Files::create(paths, &header.encode()).map_err(StoreError::io(&path))?;
        let state = State::new(header.geometry);
        Ok(Self::new(header.key.clone(), files, state, SystemTime::now(), signals))
    }

    /// A blob with the state that its files have.
    pub(crate) fn new(
        key: BlobKey,
        files: Files,
        state: State,
        last_used: SystemTime,
        signals: Arc<Signals>,
    ) -> Self {
        Self {
            key,
            files: Mutex::new(files),
            state: Mutex::new(state),
            version: watch::Sender::new(0),
            signals,
            lease: Mutex::new(Weak::new()),
            last_used: Mutex::new(last_used),
        }
    }

    // === use ===

    /// A handle on the blob.
    pub(crate) fn lease(self: &Arc<Self>) -> Blob {
        let mut lease = self.lease.lock();
        let live = lease.upgrade().unwrap_or_else(|| {
            let fresh = Arc::new(Lease(Arc::clone(self)));
            *lease = Arc::downgrade(&fresh);
            fresh
        });
        Blob::new(live)
    }

    /// Whether a handle lives. A `false` stays true only while the store's table is locked.
    pub(crate) fn in_use(&self) -> bool {
        self.lease.lock().strong_count() > 0
    }

    /// When the last handle went; the time of creation or recovery before that.
    pub(crate) fn last_used(&self) -> SystemTime {
        *self.last_used.lock()
    }

    /// The content file, and the generation that it belongs to.
    pub(crate) fn data(&self) -> Result<(Arc<File>, u64), StoreError> {
        let mut files = self.files.lock();
        let data = files.data().map_err(StoreError::io(files.data_path()))?;
        Ok((data, self.state.lock().generation))
    }

    // === changes ===

    /// Takes a signed list, and holds the provisional pieces that it vouches for.
    pub(crate) fn learn(&self, list: DigestList) -> Learned {
        let mut files = self.files.lock();
        let mut state = self.state.lock();
        let res = state.compare(&list);
        if res != Learned::Fresh {
            return res;
        }
        let promoted = state.learn(list.clone());
        drop(state);
        self.record(&mut files, &Record::Listed(list));
        for held in promoted {
            self.record(&mut files, &held);
        }
        drop(files);
        self.changed();
        res
    }

    /// Makes the blob have this cut, dropping what was held under another. A sealed blob keeps its own cut
    /// as long as the size agrees.
    pub(crate) fn agree(&self, geometry: Geometry) -> Result<(), StoreError> {
        let mut files = self.files.lock();
        let (has, sealed) = {
            let state = self.state.lock();
            (state.geometry, state.is_sealed())
        };
        if has == geometry || (sealed && has.size() == geometry.size()) {
            return Ok(());
        }
        if sealed {
            return Err(StoreError::Size {
                key: self.key.clone(),
                stated: geometry.size(),
                sealed: has.size(),
            });
        }
        self.reset(&mut files, geometry, "another geometry was stated");
        Ok(())
    }

    /// Drops everything held and learned.
    pub(crate) fn clear(&self, why: &str) {
        let mut files = self.files.lock();
        let geometry = self.state.lock().geometry;
        self.reset(&mut files, geometry, why);
    }

    /// Drops everything held and learned and starts a new generation with this cut.
    pub(crate) fn reset(&self, files: &mut Files, geometry: Geometry, why: &str) {
        tracing::warn!(blob = %self.key, why, "blob cleared");
        let header = Header { key: self.key.clone(), geometry };
        if let Err(error) = files.reset(&header.encode()) {
            tracing::warn!(blob = %self.key, %error, "what was cleared may come back after a restart");
        }
        self.state.lock().reset(geometry);
        self.changed();
    }

    /// Counts a piece that was dropped because its bytes are not what was vouched for.
    pub(crate) fn damaged(&self, piece: PieceIndex) {
        tracing::warn!(blob = %self.key, piece, "damaged piece dropped");
        self.signals.n_damaged.inc();
        self.changed();
    }

    /// Appends to the journal. What cannot be recorded is true until the process ends.
    pub(crate) fn record(&self, files: &mut Files, record: &Record) {
        if let Err(error) = files.append(&record.encode()) {
            tracing::warn!(blob = %self.key, %error, "journal not written, a restart will forget pieces");
        }
    }

    /// Tells those who watch this blob and those who watch all.
    pub(crate) fn changed(&self) {
        self.version.send_modify(|it| *it += 1);
        // Nobody may be listening.
        let _ = self.signals.changes.send(self.key.clone());
    }
}

/// Keeps a blob from eviction and its files open.
#[derive(Debug)]
pub(crate) struct Lease(pub(crate) Arc<Entry>);

impl Drop for Lease {
    fn drop(&mut self) {
        let now = SystemTime::now();
        *self.0.last_used.lock() = now;
        // A new lease may have been taken meanwhile: it opens the files again when it needs them.
        self.0.files.lock().close(now);
    }
}
