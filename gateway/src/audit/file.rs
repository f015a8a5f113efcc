//! Where audit lines go: a file that is replaced when it is full, or standard output.
//!
//! A full file is renamed to `.1`, the former `.1` to `.2` and so on; the oldest falls away. Renaming keeps
//! every line where it is, so that a reader that has the file open misses nothing. After an error the file
//! is opened anew, and the line that the error or a crash may have cut in the middle is closed first, so
//! that it costs no other line.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Takes lines.
pub(super) enum Sink {
    /// Standard output, which somebody else collects.
    Output,
    /// A file of ours.
    File(RotatingFile),
}

impl Sink {
    /// Hands whole lines to the system, which has them when this returns.
    pub(super) fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        match self {
            Self::Output => {
                let mut output = io::stdout().lock();
                output.write_all(lines)?;
                output.flush()
            }
            Self::File(file) => file.append(lines),
        }
    }
}

/// A file with a largest size and a number of predecessors.
pub(super) struct RotatingFile {
    path: PathBuf,
    max_size: u64,
    n_kept: u32,
    open: Option<Open>,
}

struct Open {
    file: File,
    len: u64,
}

impl RotatingFile {
    /// A file that is made when the first line comes.
    pub(super) const fn new(path: PathBuf, max_size: u64, n_kept: u32) -> Self {
        Self { path, max_size, n_kept, open: None }
    }

    fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        // What fails stays closed, so that the next lines begin with a fresh look at the disk.
        let mut open = match self.open.take() {
            Some(open) => open,
            None => Open::at(&self.path)?,
        };
        if open.len > 0 && open.len + lines.len() as u64 > self.max_size {
            self.rotate()?;
            open = Open::at(&self.path)?;
        }
        open.file.write_all(lines)?;
        open.len += lines.len() as u64;
        self.open = Some(open);
        Ok(())
    }

    fn rotate(&self) -> io::Result<()> {
        for older in (1..self.n_kept).rev() {
            match std::fs::rename(self.kept(older), self.kept(older + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        std::fs::rename(&self.path, self.kept(1))
    }

    fn kept(&self, age: u32) -> PathBuf {
        kept(&self.path, age)
    }
}

/// Where the predecessor is that so many files ago was the file at `path`.
pub(super) fn kept(path: &Path, age: u32) -> PathBuf {
    let mut path = OsString::from(path);
    path.push(format!(".{age}"));
    path.into()
}

impl Open {
    fn at(path: &Path) -> io::Result<Self> {
        let mut file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)?;
        let mut len = file.metadata()?.len();
        if len > 0 {
            let mut last = [0];
            file.seek(SeekFrom::End(-1))?;
            file.read_exact(&mut last)?;
            if last != *b"\n" {
                file.write_all(b"\n")?;
                len += 1;
            }
        }
        Ok(Self { file, len })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn text(path: &Path) -> Option<String> {
        std::fs::read_to_string(path).ok()
    }

    #[test]
    fn a_full_file_makes_room_and_the_oldest_falls_away() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = RotatingFile::new(dir.path().join("audit.jsonl"), 8, 2);
        for line in ["one\n", "two\n", "three\n", "four\n", "much longer than a file\n", "end\n"] {
            file.append(line.as_bytes()).unwrap();
        }
        assert_eq!(text(&file.path).as_deref(), Some("end\n"));
        assert_eq!(text(&file.kept(1)).as_deref(), Some("much longer than a file\n"));
        assert_eq!(text(&file.kept(2)).as_deref(), Some("four\n"));
        assert_eq!(text(&file.kept(3)), None);
        assert_eq!(file.path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_line_that_was_cut_costs_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.jsonl");
        std::fs::write(&path, "{\"cut").unwrap();
        for _ in 0..2 {
            RotatingFile::new(path.clone(), 1 << 20, 1).append(b"whole\n").unwrap();
        }
        assert_eq!(text(&path).as_deref(), Some("{\"cut\nwhole\nwhole\n"));
    }

    #[test]
    fn a_disk_that_comes_back_is_used_again() {
        let dir = tempfile::tempdir().unwrap();
        let below = dir.path().join("volume");
        let mut file = RotatingFile::new(below.join("audit.jsonl"), 1 << 20, 1);
        assert!(file.append(b"lost\n").is_err());
        std::fs::create_dir(&below).unwrap();
        file.append(b"kept\n").unwrap();
        assert_eq!(text(&file.path).as_deref(), Some("kept\n"));
    }
}
