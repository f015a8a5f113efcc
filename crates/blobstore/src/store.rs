//! The table of blobs, and the directory that they lie in.
//!
//! The directory belongs to one process at a time. The table's lock is held for memory work only, because nobody who
//! looks a blob up may be kept waiting by the disk. A blob that leaves is emptied first, and leaves the table when its
//! files are gone, unless somebody has come to use it by then.
//!
//! A directory on a disk that fails is a store all the same: what can be read is there, and pieces pass through memory.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use nix::sys::statvfs::statvfs;
use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use shoal_model::{BlobKey, ByteSize};
use shoal_swarm::Geometry;
use tokio::sync::broadcast;

use crate::chores::Chores;
use crate::disk::Disk;
use crate::entry::{Common, Entry};
use crate::evict::{Candidate, Limits, choose};
use crate::files::{create_dir, open, remove};
use crate::layout::Paths;
use crate::memory::Memory;
use crate::scan::{Found, scan};
use crate::state::Unwritten;
use crate::{Blob, Status, StoreError};

/// How many changes a slow listener may be behind before it has to look at everything again.
const CHANGES: usize = 4096;

/// Where a store lies and how much it may keep.
#[derive(Clone, Debug)]
pub struct StoreSettings {
    /// The directory; made if need be.
    pub dir: PathBuf,
    /// Usage above this starts eviction.
    pub capacity: ByteSize,
    /// Eviction brings usage down to this part of the capacity, in percent; 100 where it is more.
    pub low_percent: u8,
    /// Eviction keeps this much of the volume free, whoever fills it.
    pub free_floor: ByteSize,
    /// A blob that nobody has used for this long goes; zero keeps only what is in use.
    pub expire_after: Duration,
}

/// The blobs on this node's disk. Clones share the store.
#[derive(Clone, Debug)]
pub struct Store(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    settings: StoreSettings,
    root: PathBuf,
    trash: PathBuf,
    entries: Mutex<BTreeMap<BlobKey, Arc<Entry>>>,
    common: Arc<Common>,
    /// Names files in the trash.
    n_discarded: AtomicU64,
}

/// One blob of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Which blob it is.
    pub key: BlobKey,
    /// Its state.
    pub status: Status,
    /// When its last handle went; while one lives, the time before that.
    pub last_used: SystemTime,
}

/// What a store takes and has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// The number of blobs, empty ones included.
    pub n_blobs: usize,
    /// What they take on disk.
    pub bytes: ByteSize,
    /// How many pieces were found damaged and dropped since the start.
    pub n_damaged: u64,
}

/// What a collection removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collected {
    /// How many blobs had not been used for too long.
    pub n_expired: usize,
    /// How many blobs had to make room.
    pub n_evicted: usize,
    /// What they took on disk.
    pub freed: ByteSize,
}

impl Store {
    /// Opens a directory and recovers what lies there. Blocks for as long as it takes to read all journals.
    ///
    /// Fails with `Locked` where another process has it open, with `Io` where it cannot be used for another reason than
    /// that the disk is full, read-only or broken.
    pub fn open(settings: StoreSettings) -> Result<Self, StoreError> {
        let root = settings.dir.join("v1");
        let trash = settings.dir.join("trash");
        let (disk, mut lock) = (Disk::new(), None);
        if let Err(error) = prepare(&settings.dir, &mut lock, [&root, &trash]) {
            if !error.is_fault_of_disk() {
                return Err(error);
            }
            disk.failed(&error);
        }
        let common = Arc::new(Common {
            changes: broadcast::Sender::new(CHANGES),
            n_damaged: Counter::default(),
            n_damaged_journals: Counter::default(),
            disk,
            chores: Chores::default(),
            memory: Memory::new(),
            _lock: lock,
        });
        let entries = scan(&root, &common.n_damaged_journals).into_iter().map(|found| {
            let Found { header, paths, state, files, last_used } = found;
            let entry = Entry::new(header.key.clone(), paths, files, state, last_used, Arc::clone(&common));
            (header.key, Arc::new(entry))
        });
        Ok(Self(Arc::new(Inner {
            entries: Mutex::new(entries.collect()),
            settings,
            root,
            trash,
            common,
            n_discarded: AtomicU64::new(0),
        })))
    }

    /// The blob, if anything is known of it. To have a handle is to use the blob; to look at it without, ask
    /// for its [status](Self::status).
    pub fn get(&self, key: &BlobKey) -> Option<Blob> {
        self.0.entries.lock().get(key).map(Entry::lease)
    }

    /// The blob's state, if anything is known of it. Does not count as a use of the blob.
    pub fn status(&self, key: &BlobKey) -> Option<Status> {
        let entry = self.0.entries.lock().get(key).cloned()?;
        Some(entry.state.lock().status())
    }

    /// The blob, made empty if need be. One that is cut otherwise and is not sealed is cleared and takes the
    /// new cut; a sealed one of the same size keeps its own, so ask the handle.
    ///
    /// Fails with `Size` where sealed content has another size than stated.
    pub fn create(&self, key: &BlobKey, geometry: Geometry) -> Result<Blob, StoreError> {
        let mut entries = self.0.entries.lock();
        if let Some(entry) = entries.get(key) {
            entry.agree(geometry)?;
            return Ok(entry.lease());
        }
        let paths = Paths::new(&self.0.root, key);
        let entry = Arc::new(Entry::fresh(key.clone(), paths, geometry, Arc::clone(&self.0.common)));
        entries.insert(key.clone(), Arc::clone(&entry));
        Ok(entry.lease())
    }

    /// All blobs, in the order of their keys.
    pub fn list(&self) -> Vec<Summary> {
        let summary = |entry: Arc<Entry>| Summary {
            key: entry.key.clone(),
            status: entry.state.lock().status(),
            last_used: entry.last_used(),
        };
        self.entries().into_iter().map(summary).collect()
    }

    /// The keys of blobs whose content changes from now on, a key for each change. A listener that gets
    /// `Lagged` has missed some and looks at the [list](Self::list).
    pub fn changes(&self) -> broadcast::Receiver<BlobKey> {
        self.0.common.changes.subscribe()
    }

    /// What the store takes. Asks the file system about each blob, so keep it off the async runtime.
    pub fn usage(&self) -> Usage {
        let entries = self.entries();
        Usage {
            n_blobs: entries.len(),
            bytes: ByteSize(entries.iter().map(|it| it.occupied()).sum()),
            n_damaged: self.0.common.n_damaged.get(),
        }
    }

    /// What all blobs have in common.
    pub(crate) fn common(&self) -> &Common {
        &self.0.common
    }

    /// Removes a blob whoever uses it, and says whether there was anything of it. Who reads it at this moment finds the
    /// rest missing, and never other bytes. Blocks while files are removed, so keep it off the async runtime.
    ///
    /// Fails with `Io` where the disk does not let go of it: it is not given out any more, but may come back after a
    /// restart.
    pub fn remove(&self, key: &BlobKey, why: &str) -> Result<bool, StoreError> {
        let Some(entry) = self.0.entries.lock().get(key).cloned() else { return Ok(false) };
        let is_blank = entry.state.lock().is_blank();
        if !is_blank {
            entry.erase(why)?;
        }
        // What is left of one in use is an empty blob, which goes when it expires.
        self.discard(key);
        Ok(!is_blank)
    }

    /// Removes what has expired and what has to make room. Blocks while files are removed, so keep it off
    /// the async runtime.
    pub fn collect(&self, now: SystemTime) -> Collected {
        let census: Vec<_> = self.entries().iter().map(|it| candidate(it)).collect();
        let bytes: BTreeMap<_, _> = census.iter().map(|it| (it.key.clone(), it.bytes)).collect();
        let choice = choose(now, census, &self.limits());
        let mut collected = Collected { n_expired: 0, n_evicted: 0, freed: ByteSize(0) };
        for (keys, n_removed) in
            [(&choice.expired, &mut collected.n_expired), (&choice.evicted, &mut collected.n_evicted)]
        {
            // A blob that came into use since the census stays.
            for key in keys.iter().filter(|key| self.discard(key)) {
                *n_removed += 1;
                collected.freed.0 += bytes.get(key).copied().unwrap_or_default();
            }
        }
        collected
    }

    fn entries(&self) -> Vec<Arc<Entry>> {
        self.0.entries.lock().values().cloned().collect()
    }

    fn limits(&self) -> Limits {
        let settings = &self.0.settings;
        let capacity = settings.capacity.0;
        let percent = u128::from(settings.low_percent.min(100));
        let free = match statvfs(&self.0.root) {
            Ok(it) => it.blocks_available() * it.fragment_size(),
            Err(error) => {
                tracing::warn!(path = %self.0.root.display(), %error, "free space unknown, floor not kept");
                u64::MAX
            }
        };
        Limits {
            capacity,
            // At most the capacity, so it fits.
            low_mark: (u128::from(capacity) * percent / 100) as u64,
            expire_after: settings.expire_after,
            shortfall: settings.free_floor.0.saturating_sub(free),
        }
    }

    /// Removes a blob unless it is in use or unknown, and says whether it did.
    fn discard(&self, key: &BlobKey) -> bool {
        let (entry, before) = {
            let entries = self.0.entries.lock();
            let Some(entry) = entries.get(key).filter(|it| !it.in_use()) else {
                return false;
            };
            let mut state = entry.state.lock();
            let geometry = state.geometry;
            (Arc::clone(entry), state.reset(geometry))
        };
        let number = self.0.n_discarded.fetch_add(1, Ordering::Relaxed);
        let trash = self.0.trash.join(number.to_string());
        let mut files = entry.files.lock();
        // Where that was done already, somebody uses the blob again.
        let res = if entry.state.lock().unwritten.cleared { files.discard(&trash) } else { Ok(()) };
        {
            let mut entries = self.0.entries.lock();
            let mut state = entry.state.lock();
            match (&res, entry.in_use()) {
                (Ok(()), true) => state.unwritten.cleared = false,
                (Ok(()), false) => {
                    // Whoever still wants to write anything down has no file to write it to.
                    state.unwritten = Unwritten::default();
                    entries.remove(key);
                }
                (Err(_), true) => {}
                (Err(_), false) => *state = before,
            }
            drop(entries);
            entry.changed(state);
        }
        drop(files);
        if let Err(error) = res {
            tracing::warn!(blob = %key, %error, "blob not removed");
            return false;
        }
        if let Err(error) = remove(&trash) {
            tracing::warn!(path = %trash.display(), %error, "space not given back until the next start");
        }
        true
    }
}

/// Makes the directory, locks it, and makes what is in it; what comes before an error is done.
fn prepare(dir: &Path, lock: &mut Option<File>, [root, trash]: [&Path; 2]) -> Result<(), StoreError> {
    let create = |dir: &Path| create_dir(dir).map_err(StoreError::io(dir));
    create(dir)?;
    *lock = Some(self::lock(dir)?);
    create(root)?;
    // What a crash left here is no longer a blob's.
    if trash.exists() {
        fs::remove_dir_all(trash).map_err(StoreError::io(trash))?;
    }
    create(trash)
}

fn lock(dir: &Path) -> Result<File, StoreError> {
    let path = dir.join("lock");
    // It is not written to, so that one on a disk that has turned read-only does as well.
    let file = open(&path).or_else(|error| File::open(&path).map_err(|_| error));
    let file = file.map_err(StoreError::io(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::Locked { dir: dir.to_owned() }),
        Err(TryLockError::Error(source)) => Err(StoreError::io(&path)(source)),
    }
}

fn candidate(entry: &Entry) -> Candidate {
    Candidate {
        key: entry.key.clone(),
        bytes: entry.occupied(),
        last_used: entry.last_used(),
        in_use: entry.in_use(),
    }
}
