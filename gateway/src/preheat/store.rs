//! Jobs on disk: `preheat.redb` in the storage directory, so that a gateway that restarts knows them.
//!
//! A job is written down before whoever asked for it hears of it, and again when it has ended. Each is a JSON document
//! under its number. None holds a secret. What cannot be read any more is left out, and its number is not given again.
//! A damaged file is put aside: it costs jobs, but no pull.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::backends::{FileBackend, InMemoryBackend};
use redb::{
    Database, DatabaseError, ReadableDatabase as _, ReadableTable as _, StorageError, TableDefinition,
};

use super::view::JobView;
use crate::timestamp::Timestamp;

/// The file.
const FILE: &str = "preheat.redb";
const JOBS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("jobs");
const NUMBERS: TableDefinition<'_, &str, u64> = TableDefinition::new("numbers");
/// What a disk says that cannot read or write (`errno-base.h`).
const EIO: i32 = 5;
/// The number of the next job.
const NEXT: &str = "next";

/// Why jobs cannot be kept.
#[derive(Debug, thiserror::Error)]
#[error("preheat jobs {}: {fault}", path.display())]
pub(super) struct StoreError {
    path: PathBuf,
    fault: redb::Error,
}

/// Keeps jobs; clones are of the same. All of it blocks.
#[derive(Clone)]
pub(super) struct JobStore(Arc<Inner>);

struct Inner {
    path: PathBuf,
    database: Database,
    /// No number below it is given.
    least_id: u64,
}

/// What was kept.
pub(super) struct Kept {
    pub(super) jobs: Vec<JobView>,
    pub(super) next_id: u64,
}

impl StoreError {
    /// Whether the disk is full, read-only or broken.
    fn is_fault_of_disk(&self) -> bool {
        use io::ErrorKind::{QuotaExceeded, ReadOnlyFilesystem, StorageFull};
        match &self.fault {
            redb::Error::Io(error) => {
                matches!(error.kind(), ReadOnlyFilesystem | StorageFull | QuotaExceeded)
                    || error.raw_os_error() == Some(EIO)
            }
            redb::Error::PreviousIo => true,
            _ => false,
        }
    }
}

impl JobStore {
    /// Opens or makes the file in `dir`, and reads it. On a disk that fails jobs are kept in memory only: a gateway
    /// without preheat jobs still seeds.
    pub(super) fn start(dir: &Path) -> Result<(Self, Kept), StoreError> {
        let read = |store: Self| store.load().map(|kept| (store, kept));
        match Self::open(dir).and_then(read) {
            Err(error) if error.is_fault_of_disk() => {
                tracing::error!(%error, "the disk fails: preheat jobs are forgotten when the gateway ends");
                Self::in_memory(dir).and_then(read)
            }
            started => started,
        }
    }

    fn in_memory(dir: &Path) -> Result<Self, StoreError> {
        let path = dir.join(FILE);
        let least_id = Timestamp::now().seconds();
        match Database::builder().create_with_backend(InMemoryBackend::new()) {
            Ok(database) => Ok(Self(Arc::new(Inner { path, database, least_id }))),
            Err(fault) => Err(StoreError { path, fault: fault.into() }),
        }
    }

    fn open(dir: &Path) -> Result<Self, StoreError> {
        let path = dir.join(FILE);
        let opened = match open(&path) {
            Err(error) if is_damaged(&error) => {
                let aside = path.with_extension("damaged");
                tracing::error!(%error, aside = %aside.display(), "preheat jobs cannot be read, and are put aside");
                let moved = std::fs::rename(&path, aside).map_err(|it| DatabaseError::Storage(it.into()));
                // There are fewer jobs than seconds.
                let least_id = Timestamp::now().seconds();
                moved.and_then(|()| open(&path)).map(|database| (database, least_id))
            }
            opened => opened.map(|database| (database, 1)),
        };
        match opened {
            Ok((database, least_id)) => Ok(Self(Arc::new(Inner { path, database, least_id }))),
            Err(fault) => Err(StoreError { path, fault: fault.into() }),
        }
    }

    fn load(&self) -> Result<Kept, StoreError> {
        self.named(self.read())
    }

    /// Keeps a job as it is.
    pub(super) fn put(&self, job: &JobView) -> Result<(), StoreError> {
        self.named(self.write(job))
    }

    /// Keeps these no longer.
    pub(super) fn remove(&self, ids: &[u64]) -> Result<(), StoreError> {
        self.named(self.erase(ids))
    }

    fn read(&self) -> Result<Kept, redb::Error> {
        // Makes the tables, where there are none.
        let making = self.0.database.begin_write()?;
        making.open_table(JOBS)?;
        making.open_table(NUMBERS)?;
        making.commit()?;
        let reading = self.0.database.begin_read()?;
        let next_id = reading.open_table(NUMBERS)?.get(NEXT)?.map_or(1, |it| it.value());
        let next_id = next_id.max(self.0.least_id);
        let mut jobs: Vec<JobView> = Vec::new();
        for entry in reading.open_table(JOBS)?.iter()? {
            let (id, bytes) = entry?;
            match serde_json::from_slice(bytes.value()) {
                Ok(job) => jobs.push(job),
                Err(error) => tracing::warn!(id = id.value(), %error, "preheat job cannot be read any more"),
            }
        }
        Ok(Kept { jobs, next_id })
    }

    fn write(&self, job: &JobView) -> Result<(), redb::Error> {
        let bytes = serde_json::to_vec(job).map_err(|it| redb::Error::Io(it.into()))?;
        let writing = self.0.database.begin_write()?;
        {
            writing.open_table(JOBS)?.insert(job.id, bytes.as_slice())?;
            let mut numbers = writing.open_table(NUMBERS)?;
            let next = numbers.get(NEXT)?.map_or(1, |it| it.value());
            numbers.insert(NEXT, next.max(job.id.saturating_add(1)))?;
        }
        Ok(writing.commit()?)
    }

    fn erase(&self, ids: &[u64]) -> Result<(), redb::Error> {
        let writing = self.0.database.begin_write()?;
        {
            let mut jobs = writing.open_table(JOBS)?;
            for id in ids {
                jobs.remove(id)?;
            }
        }
        Ok(writing.commit()?)
    }

    fn named<T>(&self, res: Result<T, redb::Error>) -> Result<T, StoreError> {
        res.map_err(|fault| StoreError { path: self.0.path.clone(), fault })
    }
}

fn open(path: &Path) -> Result<Database, DatabaseError> {
    let mut options = OpenOptions::new();
    let options = options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let file: File = options.open(path).map_err(|it| DatabaseError::Storage(it.into()))?;
    // There are few pages, and one that was damaged at rest is not to be trusted.
    Database::builder().set_check_integrity_on_open(true).create_with_backend(FileBackend::new(file)?)
}

fn is_damaged(error: &DatabaseError) -> bool {
    match error {
        DatabaseError::Storage(StorageError::Io(error)) => error.kind() == io::ErrorKind::InvalidData,
        DatabaseError::DatabaseAlreadyOpen => false,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::super::request::{Asked, Request};
    use super::*;

    fn job(id: u64) -> JobView {
        let asked = Asked { image: "a.example/b:1".to_owned(), ..Asked::default() };
        let request = Request::new(asked, |it| it.parse().ok()).unwrap();
        JobView::new(id, "ann".to_owned(), &request, Timestamp::now())
    }

    #[test]
    fn what_was_kept_is_there_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let store = JobStore::open(dir.path()).unwrap();
        assert_eq!(store.load().unwrap().next_id, 1);
        let second = job(2);
        store.put(&job(1)).unwrap();
        store.put(&second).unwrap();
        store.remove(&[1]).unwrap();
        drop(store);
        let kept = JobStore::open(dir.path()).unwrap().load().unwrap();
        assert_eq!((kept.jobs, kept.next_id), (vec![second], 3));
    }

    #[test]
    fn the_number_of_a_job_that_is_gone_is_not_given_again() {
        let dir = tempfile::tempdir().unwrap();
        let store = JobStore::open(dir.path()).unwrap();
        store.load().unwrap();
        store.put(&job(7)).unwrap();
        store.remove(&[7]).unwrap();
        store.put(&job(3)).unwrap();
        assert_eq!(store.load().unwrap().next_id, 8);
    }

    #[test]
    fn a_damaged_file_is_put_aside_and_no_number_given_twice() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE), "x".repeat(10_000)).unwrap();
        let store = JobStore::open(dir.path()).unwrap();
        let kept = store.load().unwrap();
        assert!(kept.jobs.is_empty() && kept.next_id > 1_000_000_000);
        assert!(dir.path().join("preheat.damaged").exists());
    }

    #[test]
    fn a_disk_that_fails_is_told_from_a_file_that_is_in_the_way() {
        let dir = tempfile::tempdir().unwrap();
        let [eisdir, enospc, erofs] = [21, 28, 30];
        let failing = |code| StoreError {
            path: dir.path().to_owned(),
            fault: redb::Error::Io(io::Error::from_raw_os_error(code)),
        };
        assert!([erofs, enospc, EIO].iter().all(|it| failing(*it).is_fault_of_disk()));
        assert!(!failing(eisdir).is_fault_of_disk());
        let (store, kept) =
            JobStore::in_memory(dir.path()).and_then(|it| it.load().map(|kept| (it, kept))).unwrap();
        assert!(kept.jobs.is_empty() && kept.next_id > 1_000_000_000);
        store.put(&job(kept.next_id)).unwrap();
        assert_eq!(store.load().unwrap().next_id, kept.next_id + 1);
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_named() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join(FILE)).unwrap();
        let error = JobStore::open(dir.path()).err().unwrap().to_string();
        assert!(error.contains(FILE), "{error}");
    }
}
