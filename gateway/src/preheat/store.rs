//! Jobs on disk: `preheat.redb` in the storage directory, so that a gateway that restarts knows them.
//!
//! A job is written down before whoever asked for it hears of it, and again when it has ended. Each is a JSON document
//! under its number. None holds a secret. What cannot be read any more is left out, and its number is not given again.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::{Database, ReadableDatabase as _, ReadableTable as _, TableDefinition};

use super::view::JobView;

/// The file.
const FILE: &str = "preheat.redb";
const JOBS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("jobs");
const NUMBERS: TableDefinition<'_, &str, u64> = TableDefinition::new("numbers");
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
}

/// What was kept.
pub(super) struct Kept {
    pub(super) jobs: Vec<JobView>,
    pub(super) next_id: u64,
}

impl JobStore {
    /// Opens or makes the file in `dir`.
    pub(super) fn open(dir: &Path) -> Result<Self, StoreError> {
        let path = dir.join(FILE);
        match Database::create(&path) {
            Ok(database) => Ok(Self(Arc::new(Inner { path, database }))),
            Err(fault) => Err(StoreError { path, fault: fault.into() }),
        }
    }

    /// All that is kept.
    pub(super) fn load(&self) -> Result<Kept, StoreError> {
        self.named(self.read())
    }

    /// Keeps a job as it is, and drops others.
    pub(super) fn put(&self, job: &JobView, gone: &[u64]) -> Result<(), StoreError> {
        self.named(self.write(job, gone))
    }

    fn read(&self) -> Result<Kept, redb::Error> {
        // Makes the tables, where there are none.
        let making = self.0.database.begin_write()?;
        making.open_table(JOBS)?;
        making.open_table(NUMBERS)?;
        making.commit()?;
        let reading = self.0.database.begin_read()?;
        let next_id = reading.open_table(NUMBERS)?.get(NEXT)?.map_or(1, |it| it.value());
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

    fn write(&self, job: &JobView, gone: &[u64]) -> Result<(), redb::Error> {
        let bytes = serde_json::to_vec(job).map_err(|it| redb::Error::Io(it.into()))?;
        let writing = self.0.database.begin_write()?;
        {
            let mut jobs = writing.open_table(JOBS)?;
            jobs.insert(job.id, bytes.as_slice())?;
            for id in gone {
                jobs.remove(id)?;
            }
            let mut numbers = writing.open_table(NUMBERS)?;
            let next = numbers.get(NEXT)?.map_or(1, |it| it.value());
            numbers.insert(NEXT, next.max(job.id.saturating_add(1)))?;
        }
        Ok(writing.commit()?)
    }

    fn named<T>(&self, res: Result<T, redb::Error>) -> Result<T, StoreError> {
        res.map_err(|fault| StoreError { path: self.0.path.clone(), fault })
    }
}

#[cfg(test)]
mod tests {
    use super::super::request::{Asked, Request};
    use super::*;
    use crate::timestamp::Timestamp;

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
        store.put(&job(1), &[]).unwrap();
        store.put(&second, &[1]).unwrap();
        drop(store);
        let kept = JobStore::open(dir.path()).unwrap().load().unwrap();
        assert_eq!((kept.jobs, kept.next_id), (vec![second], 3));
    }

    #[test]
    fn the_number_of_a_job_that_is_gone_is_not_given_again() {
        let dir = tempfile::tempdir().unwrap();
        let store = JobStore::open(dir.path()).unwrap();
        store.load().unwrap();
        store.put(&job(7), &[]).unwrap();
        store.put(&job(3), &[7]).unwrap();
        assert_eq!(store.load().unwrap().next_id, 8);
    }

    #[test]
    fn a_file_that_is_none_of_its_kind_is_named() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE), "x".repeat(10_000)).unwrap();
        let error = JobStore::open(dir.path()).err().unwrap().to_string();
        assert!(error.contains(FILE), "{error}");
    }
}
