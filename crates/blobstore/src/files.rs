//! The two files of one blob: made and opened when first needed, closed when nobody uses the blob. All of this blocks.
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
use std::time::SystemTime;

use crate::layout::Paths;

/// Content may come from private repositories, so nobody but the owner gets at it.
const FILE_MODE: u32 = 0o600;
const DIR_MODE: u32 = 0o700;

#[derive(Debug)]
pub(crate) struct Files {
    paths: Paths,
    journal: Option<File>,
    /// The journal's good length in bytes; 0 where there is none.
    len: u64,
    /// An append failed since the journal was opened.
    failed: bool,
    /// Content that lies there is no longer this blob's.
    is_stale: bool,
}

impl Files {
    /// The files of a blob that was found on disk with a journal good for `len` bytes.
    pub(crate) fn found(paths: Paths, len: u64) -> Self {
        Self { paths, journal: None, len, failed: false, is_stale: false }
    }

    /// The files of a blob that starts empty, whatever lies there.
    pub(crate) fn fresh(paths: Paths) -> Self {
        Self { is_stale: true, ..Self::found(paths, 0) }
    }

    /// Opens the content.
    pub(crate) fn open_data(&mut self) -> io::Result<File> {
        if self.is_stale {
            remove(&self.paths.data)?;
            self.is_stale = false;
        }
        // On a volume that has turned read-only, what is held can still be served.
        open(&self.paths.data).or_else(|err| File::open(&self.paths.data).map_err(|_| err))
    }

    /// Appends records, after the header where the journal begins with them. Where an earlier append failed nothing
    /// is appended: only the first failure is an error.
    pub(crate) fn append(&mut self, header: &[u8], records: &[u8]) -> io::Result<()> {
        if self.failed {
            return Ok(());
        }
        let (at, header) = (self.len, if self.len == 0 { header } else { &[] });
        let res = self.journal().and_then(|it| {
            it.write_all_at(header, at)?;
            it.write_all_at(records, at + header.len() as u64)
        });
        match res {
            Ok(()) => self.len += (header.len() + records.len()) as u64,
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
    pub(crate) fn clear(&mut self) -> io::Result<()> {
        self.journal = None;
        self.len = 0;
        self.failed = false;
        let journal = remove(&self.paths.journal);
        let data = remove(&self.paths.data);
        self.is_stale = data.is_err();
        journal.and(data)
    }

    /// Closes the journal and notes when the blob was last used, as the journal's time of change.
    pub(crate) fn close(&mut self, last_used: SystemTime) {
        self.failed = false;
        let journal = self.journal.take().map_or_else(|| File::open(&self.paths.journal), Ok);
        // Without the stamp the blob merely looks older after a restart.
        let _ = journal.and_then(|it| it.set_modified(last_used));
    }

    /// Makes the blob absent, at once and also after a crash. Freeing the blocks of a large file takes
    /// long, so its content is only moved to `trash`, for the caller to remove, where there is such a place. Where this
    /// fails, the blob is as it was.
    pub(crate) fn discard(&mut self, trash: &Path) -> io::Result<()> {
        remove(&self.paths.journal)?;
        if fs::rename(&self.paths.data, trash).is_err() {
            let _ = remove(&self.paths.data);
        }
        *self = Self::fresh(self.paths.clone());
        Ok(())
    }
}

/// By what a file shows that it was changed: which one it is, and when that happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    inode: u64,
    changed: (i64, i64),
}

impl Stamp {
    pub(crate) fn of(file: &File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        Ok(Self { inode: metadata.ino(), changed: (metadata.ctime(), metadata.ctime_nsec()) })
    }
}

/// What a blob takes on disk, in bytes.
pub(crate) fn occupied(paths: &Paths) -> u64 {
    // The unit of `blocks` is 512 bytes on every file system.
    let occupied = |path: &Path| fs::metadata(path).map_or(0, |it| it.blocks() * 512);
    occupied(&paths.data) + occupied(&paths.journal)
}

/// Makes a directory and its parents.
pub(crate) fn create_dir(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(DIR_MODE).create(dir)
}

/// Opens a file for reading and writing and makes it, and its directory, if need be; keeps what is in it.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(FILE_MODE);
    match (options.open(path), path.parent()) {
        (Err(error), Some(dir)) if error.kind() == ErrorKind::NotFound => {
            create_dir(dir)?;
            options.open(path)
        }
        (res, _) => res,
    }
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
        let dir = dir.path().join("ab");
        Files::fresh(Paths { data: dir.join("it.data"), journal: dir.join("it.pieces") })
    }

    impl Files {
        fn write(&mut self, records: &str) -> io::Result<()> {
            self.append(b"header", records.as_bytes())
        }

        fn written(&self) -> String {
            fs::read_to_string(&self.paths.journal).unwrap()
        }
    }

    #[test]
    fn a_journal_is_made_with_the_first_records() {
        let dir = tempfile::tempdir().unwrap();
        let mut it = files(&dir);
        assert!(!it.paths.journal.exists());
        it.write("+one").unwrap();
        it.write("+two").unwrap();
        assert_eq!(it.written(), "header+one+two");
    }

    #[test]
    fn reopening_cuts_a_torn_tail() {
        let dir = tempfile::tempdir().unwrap();
        let mut it = files(&dir);
        it.write("+one").unwrap();
        fs::write(&it.paths.journal, b"header+one+torn tail").unwrap();
        it.close(SystemTime::now());
        it.write("+two").unwrap();
        assert_eq!(it.written(), "header+one+two");
    }

    #[test]
    fn after_a_failed_append_nothing_more_is_appended_until_reopened() {
        let dir = tempfile::tempdir().unwrap();
        let mut it = files(&dir);
        it.write("+one").unwrap();
        // A file that is open for reading only refuses to be written.
        it.journal = Some(File::open(&it.paths.journal).unwrap());
        assert!(it.write("+lost").is_err());
        assert!(it.write("+silent").is_ok());
        assert_eq!(it.written(), "header+one");
        it.close(SystemTime::now());
        it.write("+kept").unwrap();
        assert_eq!(it.written(), "header+one+kept");
    }

    #[test]
    fn a_clearing_leaves_the_old_content_to_those_who_have_it_open() {
        let dir = tempfile::tempdir().unwrap();
        let mut it = files(&dir);
        let old = it.open_data().unwrap();
        old.write_all_at(b"old", 0).unwrap();
        it.write("+one").unwrap();
        it.clear().unwrap();
        let new = it.open_data().unwrap();
        old.write_all_at(b"late", 0).unwrap();
        assert_eq!(new.metadata().unwrap().len(), 0);
        it.append(b"HEADER", b"").unwrap();
        assert_eq!(it.written(), "HEADER");
    }

    #[test]
    fn what_lies_in_the_place_of_a_fresh_blob_is_not_its_content() {
        let dir = tempfile::tempdir().unwrap();
        files(&dir).open_data().unwrap().write_all_at(b"old", 0).unwrap();
        let mut it = files(&dir);
        let new = it.open_data().unwrap();
        assert_eq!(new.metadata().unwrap().len(), 0);
        new.write_all_at(b"new", 0).unwrap();
        assert_eq!(it.open_data().unwrap().metadata().unwrap().len(), 3, "from then on it is");
    }

    #[test]
    fn the_last_use_is_the_journals_time() {
        let dir = tempfile::tempdir().unwrap();
        let mut it = files(&dir);
        it.write("").unwrap();
        let then = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        it.close(then);
        assert_eq!(fs::metadata(&it.paths.journal).unwrap().modified().unwrap(), then);
    }

    #[test]
    fn a_discarded_blob_leaves_only_trash() {
        let dir = tempfile::tempdir().unwrap();
        let mut it = files(&dir);
        let trash = dir.path().join("trash");
        it.open_data().unwrap().write_all_at(b"bytes", 0).unwrap();
        assert!(occupied(&it.paths) > 0);
        it.discard(&trash).unwrap();
        assert_eq!(occupied(&it.paths), 0);
        assert_eq!(fs::read(trash).unwrap(), b"bytes");
    }
}
