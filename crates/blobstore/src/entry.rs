//! One blob as the store keeps it: its state, its files, and who is told of changes.
//!
//! Two locks, always taken in this order and never across an await. `files` is held over work on the disk, which may
//! take any time, hence only where a thread may block. `state` is held for memory work only. A change is made to the
//! state, which collects what the journal is to be told of it; whoever holds `files` next writes that down. Hashing
//! and content reads and writes happen outside both, and are then judged by the state as it has become.
//!
//! A lease keeps the blob from eviction. When the last one goes, the files are closed and the time is
//! noted as the blob's last use.

use std::fs::File;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::SystemTime;

use parking_lot::{Mutex, MutexGuard};
use prometheus_client::metrics::counter::Counter;
use shoal_model::BlobKey;
use shoal_swarm::{Geometry, PieceIndex};
use tokio::sync::{broadcast, watch};

use crate::chores::Chores;
use crate::content::Content;
use crate::disk::Disk;
use crate::files::{Files, Stamp, occupied};
use crate::layout::Paths;
use crate::memory::Memory;
use crate::record::{DigestList, Header, Record};
use crate::state::State;
use crate::{Blob, Learned, StoreError};

/// What the blobs of one store have in common.
#[derive(Debug)]
pub(crate) struct Common {
    /// The keys of blobs whose content changed.
    pub(crate) changes: broadcast::Sender<BlobKey>,
    /// How many pieces were found damaged and dropped.
    pub(crate) n_damaged: Counter,
    /// How many journals could not be read to their end when the store was opened.
    pub(crate) n_damaged_journals: Counter,
    /// What the disk does.
    pub(crate) disk: Disk,
    /// What it is to do when it comes to that.
    pub(crate) chores: Chores,
    /// Where pieces go that the disk does not take.
    pub(crate) memory: Memory,
    /// Keeps other processes out of the directory as long as it is open; nothing where it could not be had.
    pub(crate) _lock: Option<File>,
}

#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) key: BlobKey,
    pub(crate) paths: Paths,
    pub(crate) files: Mutex<Files>,
    pub(crate) state: Mutex<State>,
    /// The content file while it is open, and the generation that it belongs to.
    pub(crate) opened: Mutex<Option<(u64, Arc<Content>)>>,
    /// How the content file of a generation was left when it was last written here.
    stamp: Mutex<Option<(u64, Stamp)>>,
    /// How often somebody else was found to have changed it.
    n_changes: AtomicU64,
    /// Somebody is about to write down what the journal has yet to be told.
    is_journaling: AtomicBool,
    /// Somebody is about to close the files.
    is_closing: AtomicBool,
    /// Counts the changes.
    pub(crate) version: watch::Sender<u64>,
    pub(crate) common: Arc<Common>,
    lease: Mutex<Weak<Lease>>,
    last_used: Mutex<SystemTime>,
}

impl Entry {
    /// A blob of which nothing is known yet.
    pub(crate) fn fresh(key: BlobKey, paths: Paths, geometry: Geometry, common: Arc<Common>) -> Self {
        let files = Files::fresh(paths.clone());
        Self::new(key, paths, files, State::new(geometry), SystemTime::now(), common)
    }

    /// A blob with the state that its files have.
    pub(crate) fn new(
        key: BlobKey,
        paths: Paths,
        files: Files,
        state: State,
        last_used: SystemTime,
        common: Arc<Common>,
    ) -> Self {
        Self {
            key,
            paths,
            files: Mutex::new(files),
            state: Mutex::new(state),
            opened: Mutex::default(),
            stamp: Mutex::default(),
            n_changes: AtomicU64::new(0),
            is_journaling: AtomicBool::new(false),
            is_closing: AtomicBool::new(false),
            version: watch::Sender::new(0),
            common,
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

    /// What the blob takes on disk, in bytes.
    pub(crate) fn occupied(&self) -> u64 {
        occupied(&self.paths)
    }

    /// The content file of this generation, if it is open.
    pub(crate) fn opened(&self, generation: u64) -> Option<Arc<Content>> {
        self.opened.lock().as_ref().filter(|(of, _)| *of == generation).map(|(_, data)| Arc::clone(data))
    }

    /// The content file, and the generation that it belongs to. Blocks.
    pub(crate) fn data(&self) -> Result<(Arc<Content>, u64), StoreError> {
        let generation = self.state.lock().generation;
        if let Some(data) = self.opened(generation) {
            return Ok((data, generation));
        }
        let mut files = self.files.lock();
        loop {
            self.write_journal(&mut files);
            let generation = self.state.lock().generation;
            if let Some(data) = self.opened(generation) {
                return Ok((data, generation));
            }
            let data = files.open_data().map_err(StoreError::io(&self.paths.data))?;
            let state = self.state.lock();
            let data = Arc::new(Content::new(data, state.geometry.size()));
            // Otherwise all was dropped just now, and this is the file of what was.
            if !state.unwritten.cleared {
                *self.opened.lock() = Some((state.generation, Arc::clone(&data)));
                return Ok((data, state.generation));
            }
        }
    }

    /// Notes how the content file is left, by a writer who has not given up its claim yet. Blocks.
    pub(crate) fn stamp(&self, data: &File, generation: u64) {
        let mut stamp = self.stamp.lock();
        *stamp = Stamp::of(data).ok().map(|it| (generation, it));
    }

    /// Has all pieces verified again where somebody else has changed the content file, or put another in its place.
    /// Whatever happens to it while a piece is being written here cannot be told from that.
    pub(crate) fn look_for_changes(&self, data: &File, generation: u64) {
        let before = *self.stamp.lock();
        let Some(now) = Stamp::of(data).ok().map(|it| (generation, it)).filter(|it| before != Some(*it))
        else {
            return;
        };
        let mut stamp = self.stamp.lock();
        let mut state = self.state.lock();
        if *stamp != before || state.generation != generation || state.is_being_written() {
            return;
        }
        if before.is_some_and(|(of, _)| of == generation) {
            tracing::warn!(blob = %self.key, "content changed by somebody else, verified again");
            state.mark_all_suspect();
            self.n_changes.fetch_add(1, Ordering::AcqRel);
        }
        *stamp = Some(now);
    }

    /// How often somebody else was found to have changed the content.
    pub(crate) fn n_changes(&self) -> u64 {
        self.n_changes.load(Ordering::Acquire)
    }

    // === changes ===

    /// Takes a signed list, and holds the provisional pieces that it vouches for.
    pub(crate) fn learn(self: &Arc<Self>, list: DigestList) -> Learned {
        let mut state = self.state.lock();
        let res = state.compare(&list);
        if res == Learned::Fresh {
            state.learn(list);
            self.changed(state);
            self.write_journal_soon();
        }
        res
    }

    /// Makes the blob have this cut, dropping what was held under another. A sealed blob keeps its own cut
    /// as long as the size agrees.
    pub(crate) fn agree(self: &Arc<Self>, geometry: Geometry) -> Result<(), StoreError> {
        let state = self.state.lock();
        let (has, sealed) = (state.geometry, state.is_sealed());
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
        self.reset(state, geometry, "another geometry was stated");
        self.write_journal_soon();
        Ok(())
    }

    /// Drops everything held and learned.
    pub(crate) fn clear(self: &Arc<Self>, why: &str) {
        let state = self.state.lock();
        let geometry = state.geometry;
        self.reset(state, geometry, why);
        self.write_journal_soon();
    }

    /// Drops everything held and learned, from the disk as well. Blocks.
    pub(crate) fn erase(&self, why: &str) -> Result<(), StoreError> {
        let mut files = self.files.lock();
        let state = self.state.lock();
        let geometry = state.geometry;
        self.reset(state, geometry, why);
        files.clear().map_err(StoreError::io(&self.paths.journal))?;
        // The journal need not be told of it once more.
        self.state.lock().unwritten.cleared = false;
        Ok(())
    }

    /// Drops everything held and learned and starts a new generation with this cut.
    pub(crate) fn reset(&self, mut state: MutexGuard<'_, State>, geometry: Geometry, why: &str) {
        tracing::warn!(blob = %self.key, why, "blob cleared");
        state.reset(geometry);
        self.changed(state);
    }

    /// Drops a piece from memory.
    pub(crate) fn forget(&self, piece: PieceIndex) {
        let mut state = self.state.lock();
        if state.forget(piece) {
            self.changed(state);
        }
    }

    /// Counts a piece that was dropped because its bytes are not what was vouched for.
    pub(crate) fn damaged(&self, state: MutexGuard<'_, State>, piece: PieceIndex) {
        tracing::warn!(blob = %self.key, piece, "damaged piece dropped");
        self.common.n_damaged.inc();
        self.changed(state);
    }

    /// Tells those who watch this blob and those who watch all.
    pub(crate) fn changed(&self, state: MutexGuard<'_, State>) {
        drop(state);
        self.version.send_modify(|it| *it += 1);
        // Nobody may be listening.
        let _ = self.common.changes.send(self.key.clone());
    }

    // === the journal ===

    /// Has the journal told of what has changed, where that may block. Returns at once.
    fn write_journal_soon(self: &Arc<Self>) {
        if !self.is_journaling.swap(true, Ordering::AcqRel) {
            let it = Arc::clone(self);
            self.common.chores.add(move || {
                it.is_journaling.store(false, Ordering::Release);
                it.write_journal(&mut it.files.lock());
            });
        }
    }

    /// Tells the journal what has changed. What it does not take is true until the process ends. Blocks.
    pub(crate) fn write_journal(&self, files: &mut Files) {
        loop {
            let (unwritten, geometry) = {
                let mut state = self.state.lock();
                (std::mem::take(&mut state.unwritten), state.geometry)
            };
            if unwritten.is_empty() {
                return;
            }
            if unwritten.cleared
                && let Err(error) = files.clear()
            {
                tracing::warn!(blob = %self.key, %error, "what was cleared may come back after a restart");
            }
            if unwritten.records.is_empty() {
                continue;
            }
            let header = Header { key: self.key.clone(), geometry }.encode();
            let records: Vec<u8> = unwritten.records.iter().flat_map(Record::encode).collect();
            if let Err(error) = files.append(&header, &records) {
                self.common.disk.failed(&StoreError::io(&self.paths.journal)(error));
            }
        }
    }

    fn close(&self) {
        let mut files = self.files.lock();
        self.write_journal(&mut files);
        // A new lease may have been taken meanwhile: it opens the files again when it needs them.
        *self.opened.lock() = None;
        files.close(self.last_used());
    }
}

/// Keeps a blob from eviction and its files open.
#[derive(Debug)]
pub(crate) struct Lease(pub(crate) Arc<Entry>);

impl Drop for Lease {
    fn drop(&mut self) {
        let (entry, now) = (Arc::clone(&self.0), SystemTime::now());
        *entry.last_used.lock() = now;
        let mut state = entry.state.lock();
        if state.forget_all() {
            entry.changed(state);
        } else {
            drop(state);
        }
        if !entry.is_closing.swap(true, Ordering::AcqRel) {
            let chores = entry.common.chores.clone();
            chores.add(move || {
                entry.is_closing.store(false, Ordering::Release);
                entry.close();
            });
        }
    }
}
