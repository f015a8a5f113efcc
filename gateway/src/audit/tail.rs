//! The newest lines of an audit file and its predecessors, backwards.
//!
//! Files may be large and what is looked for rare, so one look reads a bounded part and says where to go on: by the file's
//! inode, which it keeps when it is put aside, and the place in it.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::PathBuf;
use std::str::FromStr;

use serde_json::Value;

use super::file::kept;

/// How much is read at a time. A line that is longer is passed over.
const CHUNK: u64 = 64 << 10;
/// How much one look reads, in bytes.
const MOST: u64 = 8 << 20;

/// A place in a file, which later lines come after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cursor {
    inode: u64,
    offset: u64,
}

/// Some lines.
#[derive(Debug, Default)]
pub(super) struct Page {
    /// The newest first.
    pub(super) lines: Vec<Value>,
    /// Where older lines are, if there are any.
    pub(super) next: Option<Cursor>,
}

/// An audit file and its predecessors.
#[derive(Clone, Debug)]
pub(super) struct Tail {
    pub(super) path: PathBuf,
    pub(super) n_kept: u32,
}

/// What is looked for.
#[derive(Clone, Debug, Default)]
pub(super) struct Wanted {
    /// Lines before this one.
    pub(super) before: Option<Cursor>,
    /// Lines that have this in them, in capitals or not.
    pub(super) text: String,
    pub(super) at_most: usize,
}

impl Tail {
    /// Blocks.
    pub(super) fn look(&self, wanted: &Wanted) -> io::Result<Page> {
        self.look_with(wanted, MOST)
    }

    fn look_with(&self, wanted: &Wanted, most: u64) -> io::Result<Page> {
        let files = self.files()?;
        let first = match wanted.before {
            None => 0,
            // One that has fallen away had the oldest lines.
            Some(before) => files.iter().position(|it| it.inode == before.inode).unwrap_or(files.len()),
        };
        let text = wanted.text.to_lowercase();
        let (mut page, mut left) = (Page::default(), most);
        for (at, file) in files.iter().enumerate().skip(first) {
            let mut end =
                wanted.before.filter(|_| at == first).map_or(file.len, |it| it.offset.min(file.len));
            while end > 0 {
                if left == 0 {
                    page.next = Some(Cursor { inode: file.inode, offset: end });
                    return Ok(page);
                }
                let chunk = file.before(end)?;
                left = left.saturating_sub(end - chunk.begin);
                for (offset, line) in chunk.lines() {
                    if page.lines.len() == wanted.at_most {
                        page.next =
                            Some(Cursor { inode: file.inode, offset: offset + line.len() as u64 + 1 });
                        return Ok(page);
                    }
                    let line = String::from_utf8_lossy(line);
                    if text.is_empty() || line.to_lowercase().contains(&text) {
                        page.lines.extend(serde_json::from_str(&line).ok().filter(Value::is_object));
                    }
                }
                end = chunk.begin;
            }
        }
        Ok(page)
    }

    /// Those that are there, the newest first.
    fn files(&self) -> io::Result<Vec<Opened>> {
        let paths =
            std::iter::once(self.path.clone()).chain((1..=self.n_kept).map(|it| kept(&self.path, it)));
        let opened = paths
            .map(Opened::at)
            .filter(|it| !it.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::NotFound));
        opened.collect()
    }
}

struct Opened {
    file: File,
    inode: u64,
    len: u64,
}

/// Whole lines of a file.
struct Chunk {
    begin: u64,
    bytes: Vec<u8>,
}

impl Opened {
    fn at(path: PathBuf) -> io::Result<Self> {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        Ok(Self { inode: metadata.ino(), len: metadata.len(), file })
    }

    /// The lines that end before this place.
    fn before(&self, end: u64) -> io::Result<Chunk> {
        let begin = end.saturating_sub(CHUNK);
        let mut bytes = vec![0; (end - begin) as usize];
        self.file.read_exact_at(&mut bytes, begin)?;
        if begin > 0
            && let Some(at) = bytes.iter().position(|it| *it == b'\n').filter(|it| it + 1 < bytes.len())
        {
            // The first line may have begun before.
            let bytes = bytes.split_off(at + 1);
            return Ok(Chunk { begin: begin + at as u64 + 1, bytes });
        }
        Ok(Chunk { begin, bytes })
    }
}

impl Chunk {
    /// Each line with where it begins, the last one first.
    fn lines(&self) -> impl Iterator<Item = (u64, &[u8])> {
        let mut end = self.bytes.len();
        std::iter::from_fn(move || {
            // What has no line break at its end is being written.
            let line_end = self.bytes.get(..end)?.iter().rposition(|it| *it == b'\n')?;
            let line = self.bytes.get(..line_end)?;
            let begin = line.iter().rposition(|it| *it == b'\n').map_or(0, |it| it + 1);
            end = begin;
            Some((self.begin + begin as u64, line.get(begin..)?))
        })
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.inode, self.offset)
    }
}

impl FromStr for Cursor {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers = text
            .split_once('.')
            .and_then(|(inode, offset)| Some((inode.parse().ok()?, offset.parse().ok()?)));
        let (inode, offset) = numbers.ok_or("before is not the next of an earlier answer")?;
        Ok(Self { inode, offset })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of its own for each of these numbers of lines, the oldest first; lines are numbered through.
    fn tail(dir: &tempfile::TempDir, counts: &[u32], width: usize) -> Tail {
        let it = Tail { path: dir.path().join("audit.jsonl"), n_kept: 5 };
        let mut number = 0;
        for (age, count) in (0..counts.len() as u32).rev().zip(counts) {
            let lines = (0..*count).map(|_| {
                number += 1;
                format!("{{\"number\":{number},\"pad\":\"{}\"}}\n", "x".repeat(width))
            });
            let path = if age == 0 { it.path.clone() } else { kept(&it.path, age) };
            std::fs::write(path, lines.collect::<String>()).unwrap();
        }
        it
    }

    /// All numbers that are found, page by page.
    fn read_all(tail: &Tail, text: &str, at_most: usize, most: u64) -> Vec<u64> {
        let mut wanted = Wanted { text: text.to_owned(), at_most, ..Wanted::default() };
        let mut numbers = Vec::new();
        loop {
            let page = tail.look_with(&wanted, most).unwrap();
            assert!(page.lines.len() <= at_most);
            numbers.extend(page.lines.iter().filter_map(|it| it["number"].as_u64()));
            match page.next {
                Some(next) => wanted.before = Some(next.to_string().parse().unwrap()),
                None => return numbers,
            }
        }
    }

    #[test]
    fn lines_come_backwards_through_all_files_whatever_a_look_takes() {
        let dir = tempfile::tempdir().unwrap();
        for (counts, width) in [(&[3, 0, 4][..], 1), (&[7], 1), (&[200, 300], 700), (&[0], 1)] {
            let tail = tail(&dir, counts, width);
            let expected: Vec<u64> = (1..=u64::from(counts.iter().sum::<u32>())).rev().collect();
            for at_most in [1, 3, 1000] {
                for most in [1, CHUNK + 1, MOST] {
                    assert_eq!(read_all(&tail, "", at_most, most), expected, "{counts:?} {at_most} {most}");
                }
            }
            for age in 1..5 {
                let _ = std::fs::remove_file(kept(&tail.path, age));
            }
        }
    }

    #[test]
    fn only_lines_with_the_text_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let tail = tail(&dir, &[5, 15], 1);
        assert_eq!(read_all(&tail, "NUMBER\":1", 2, MOST), [19, 18, 17, 16, 15, 14, 13, 12, 11, 10, 1]);
        assert_eq!(read_all(&tail, "nothing", 2, MOST), [0; 0]);
    }

    #[test]
    fn a_page_goes_on_where_it_was_after_the_file_was_put_aside() {
        let dir = tempfile::tempdir().unwrap();
        let tail = tail(&dir, &[4], 1);
        let page = tail.look(&Wanted { at_most: 2, ..Wanted::default() }).unwrap();
        std::fs::rename(&tail.path, kept(&tail.path, 1)).unwrap();
        std::fs::write(&tail.path, "{\"number\":5}\n").unwrap();
        let page = tail.look(&Wanted { before: page.next, at_most: 9, ..Wanted::default() }).unwrap();
        let numbers: Vec<_> = page.lines.iter().map(|it| it["number"].as_u64().unwrap()).collect();
        assert_eq!((numbers, page.next), (vec![2, 1], None));
    }

    #[test]
    fn what_is_no_line_is_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let tail = Tail { path: dir.path().join("audit.jsonl"), n_kept: 1 };
        assert!(tail.look(&Wanted { at_most: 9, ..Wanted::default() }).unwrap().lines.is_empty());
        let long = "y".repeat(3 * CHUNK as usize);
        std::fs::write(&tail.path, format!("{{\"cut\n{long}\n7\n{{\"number\":1}}\n{{\"number\":2")).unwrap();
        assert_eq!(read_all(&tail, "", 9, MOST), [1]);
    }
}
