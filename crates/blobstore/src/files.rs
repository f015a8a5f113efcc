//! The two files of one blob: opened when first needed, closed when nobody uses the blob.
//!
//! The journal is best effort. After a failed append its tail may be torn, and a record behind a torn one
//! would never be found again, so nothing more is appended until the journal is opened anew, which cuts it
//! back to its good length.
//!
//! Dropping the content means a new data file, never a shorter one: whoever still reads or maps the old
//! file sees the old bytes, and a write that was under way cannot land among the new ones.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use crate::layout::Paths;

/// Content may come from private repositories, so nobody but the owner gets at it.
const FILE_MODE: u32 = 0o600;
const DIR_MODE: u32 = 0o700;

#[derive(Debug)]
pub(crate) struct Files {
    paths: Paths,
    data: Option<Arc<File>>,
    journal: Option<File>,
    /// The journal's good length in bytes.
    len: u64,
    /// An append failed since the journal was opened.
    failed: bool,
}

impl Files {
    /// The files of a blob that was found on disk with a journal good for `len` bytes.
    pub(crate) fn found(paths: Paths, len: u64) -> Self {
        Self { paths, data: None, journal: None, len, failed: false }
    }

    /// The files of a blob that starts empty, whatever lay there before.
    pub(crate) fn create(paths: Paths, header: &[u8]) -> io::Result<Self> {
        if let Some(dir) = paths.journal.parent() {
            create_dir(dir)?;
        }
        let mut it = Self::found(paths, 0);
        it.reset(header)?;
        Ok(it)
    }

    /// Where the content lies.
    pub(crate) fn data_path(&self) -> &Path {
        &self.paths.data
    }

    /// The content file of this generation.
    pub(crate) fn data(&mut self) -> io::Result<Arc<File>> {
        if let Some(data) = &self.data {
            return Ok(Arc::clone(data));
        }
        // On a volume that has turned read-only, what is held can still be served.
        let file = open(&self.paths.data).or_else(|err| File::open(&self.paths.data).map_err(|_| err))?;
        Ok(Arc::clone(self.data.insert(Arc::new(file))))
    }

    /// The same if it is open by now.
    pub(crate) fn opened(&self) -> Option<Arc<File>> {
        self.data.clone()
    }

    /// Appends a record, or nothing where an earlier append failed: only the first failure is an error.
    pub(crate) fn append(&mut self, record: &[u8]) -> io::Result<()> {
        if self.failed {
            return Ok(());
        }
        let at = self.len;
        let res = self.journal().and_then(|it| it.write_all_at(record, at));
        match res {
            Ok(()) => self.len += record.len() as u64,
            Err(_) => self.failed = true,
        }
        res
    }

    fn journal(&mut self) -> io::Result<&File> {
        if self.journal.is_none() {
            let file = open(&self.paths.journal)?;
            file.set_len(self.len)?;
            self.journal = Some(file);
        }
        self.journal.as_ref().ok_or_else(|| ErrorKind::NotFound.into())
    }

    /// Drops the content and all records. The journal goes first: a crash in between leaves a blob that
    /// holds nothing. Where one of the two cannot be dropped, the other is all the same.
    pub(crate) fn reset(&mut self, header: &[u8]) -> io::Result<()> {
        self.journal = None;
        self.len = 0;
        self.failed = false;
        let journal = self.append(header);
        self.data = None;
        remove(&self.paths.data).and(journal)
    }

    /// Closes the files and notes when the blob was last used, as the journal's time of change.
    pub(crate) fn close(&mut self, last_used: SystemTime) {
        self.data = None;
        self.failed = false;
        let journal = self.journal.take().map_or_else(|| File::open(&self.paths.journal), Ok);
        // Without the stamp the blob merely looks older after a restart.
        let _ = journal.and_then(|it| it.set_modified(last_used));
    }

    /// What the blob takes on disk, in bytes.
    pub(crate) fn occupied(&self) -> u64 {
        // The unit of `blocks` is 512 bytes on every file system.
        let occupied = |path: &Path| fs::metadata(path).map_or(0, |it| it.blocks() * 512);
        occupied(&self.paths.data) + occupied(&self.paths.journal)
    }

    /// Makes the blob absent, at once and also after a crash. Freeing the blocks of a large file takes
    /// long, so its content is only moved to `trash`, for the caller to remove.
    pub(crate) fn discard(&mut self, trash: &Path) -> io::Result<()> {
        self.data = None;
        self.journal = None;
        remove(&self.paths.journal)?;
        match fs::rename(&self.paths.data, trash) {
            Err(err) if err.kind() != ErrorKind::NotFound => Err(err),
            _ => Ok(()),
        }
    }
}

/// Makes a directory and its parents.
pub(crate) fn create_dir(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(DIR_MODE).create(dir)
}

/// Opens a file for reading and writing and makes it if need be; keeps what is in it.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(FILE_MODE).open(path)
}

/// Removes a file; one that is not there is fine.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(err) if err.kind() != ErrorKind::NotFound => Err(err),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn files(dir: &tempfile::TempDir) -> Files {
        let paths = Paths { data: dir.path().join("it.data"), journal: dir.path().join("it.pieces") };
        Files::create(paths, b"header").unwrap()
    }

    fn journal(files: &Files) -> Vec<u8> {
        fs::read(&files.paths.journal).unwrap()
    }

    #[test]
    fn reopening_cuts_a_torn_tail() {
        let dir = tempfile::tempdir().unwrap();
        let mut it = files(&dir);
        it.append(b"+one").unwrap();
        fs::write(&it.paths.journal, b"header+one+torn tail").unwrap();
        it.close(SystemTime::now());
        it.append(b"+two").unwrap();
        assert_eq!(journal(&it), b"header+one+two");
    }

    #[test]
    fn after_a_failed_append_nothing_more_is_appended_until_reopened() {
        let dir = tempfile::tempdir().unwrap();
        let mut it = files(&dir);
        // A file that is open for reading only refuses to be written.
        it.journal = Some(File::open(&it.paths.journal).unwrap());
        assert!(it.append(b"+lost").is_err());
        assert!(it.append(b"+silent").is_ok());
        assert_eq!(journal(&it), b"header");
        it.close(SystemTime::now());
        it.append(b"+kept").unwrap();
        assert_eq!(journal(&it), b"header+kept");
    }

    #[test]
    fn a_reset_leaves_the_old_content_to_those_who_have_it_open() {
        let dir = tempfile::tempdir().unwrap();
        let mut it = files(&dir);
        let old = it.data().unwrap();
        old.write_all_at(b"old", 0).unwrap();
        it.append(b"+one").unwrap();
        it.reset(b"HEADER").unwrap();
        let new = it.data().unwrap();
        old.write_all_at(b"late", 0).unwrap();
        assert_eq!(new.metadata().unwrap().len(), 0);
        assert_eq!(journal(&it), b"HEADER");
    }

    #[test]
    fn the_last_use_is_the_journals_time() {
        let dir = tempfile::tempdir().unwrap();
        let mut it = files(&dir);
        let then = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        it.close(then);
        assert_eq!(fs::metadata(&it.paths.journal).unwrap().modified().unwrap(), then);
    }

    #[test]
    fn a_discarded_blob_leaves_only_trash() {
        let dir = tempfile::tempdir().unwrap();
        let mut it = files(&dir);
        let trash = dir.path().join("trash");
        it.data().unwrap().write_all_at(b"bytes", 0).unwrap();
        assert!(it.occupied() > 0);
        it.discard(&trash).unwrap();
        assert_eq!(it.occupied(), 0);
        assert_eq!(fs::read(trash).unwrap(), b"bytes");
    }
}
