//! Searching for secrets in bytes, files and the memory of processes.
//!
//! A finding names the secret by its label and the place, never the secret.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use memchr::memmem::Finder;

use crate::process::Process;

/// Memory is read in parts of so many bytes.
const PART: usize = 4 << 20;

/// What is searched for.
#[derive(Clone, Debug, Default)]
pub struct Secrets(Vec<(String, Finder<'static>)>);

/// A secret was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The label of the secret.
    pub secret: String,
    /// Where it was.
    pub place: String,
}

impl Secrets {
    /// These and one more.
    pub fn and(mut self, label: &str, secret: &str) -> Self {
        self.0.push((label.into(), Finder::new(secret).into_owned()));
        self
    }

    /// Where they are in some bytes, of which `place` tells.
    pub fn find_in(&self, place: &str, bytes: &[u8]) -> Vec<Found> {
        let found = self.0.iter().filter(|(_, finder)| finder.find(bytes).is_some());
        found.map(|(label, _)| Found { secret: label.clone(), place: place.into() }).collect()
    }

    /// Where they are in the files below a directory, apart from some.
    pub fn find_below(&self, dir: &Path, except: &[PathBuf]) -> Result<Vec<Found>> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(dir).with_context(|| format!("{}: cannot be read", dir.display()))? {
            let (path, kind) = entry.and_then(|it| Ok((it.path(), it.file_type()?)))?;
            if kind.is_dir() {
                found.extend(self.find_below(&path, except)?);
            } else if kind.is_file() && !except.contains(&path) {
                // A running program may take a file away at any time.
                let bytes = std::fs::read(&path).unwrap_or_default();
                found.extend(self.find_in(&path.to_string_lossy(), &bytes));
            }
        }
        Ok(found)
    }

    /// Where they are in the memory of a running program.
    pub fn find_in_memory(&self, program: &str, process: &Process) -> Result<Vec<Found>> {
        let proc = Path::new("/proc").join(process.pid()?.to_string());
        let maps = std::fs::read_to_string(proc.join("maps"))?;
        let memory = File::open(proc.join("mem"))?;
        let mut found = Vec::new();
        for region in maps.lines().filter_map(Region::of_line) {
            let place = format!("memory of {program} {}", region.name);
            self.find_in_region(&memory, &region, &mut |bytes| found.extend(self.find_in(&place, bytes)));
        }
        Ok(found)
    }

    /// Shows `look` a region in parts that overlap by the length of a secret.
    fn find_in_region(&self, memory: &File, region: &Region, look: &mut impl FnMut(&[u8])) {
        let longest = self.0.iter().map(|(_, finder)| finder.needle().len()).max().unwrap_or_default();
        let mut buffer = vec![0; PART + longest];
        let mut at = region.start;
        while at < region.end {
            let len = usize::try_from(region.end - at).unwrap_or(usize::MAX).min(buffer.len());
            // What nobody can read holds nothing; neither does what went away meanwhile.
            let read = read_some(memory, &mut buffer[..len], at).unwrap_or_default();
            look(&buffer[..read]);
            at += PART as u64;
        }
    }
}

/// Reads as much as there is at an address.
fn read_some(memory: &File, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    let mut read = 0;
    while read < buffer.len() {
        match memory.read_at(&mut buffer[read..], at + read as u64) {
            Ok(0) => break,
            Ok(len) => read += len,
            Err(_) if read > 0 => break,
            Err(error) => return Err(error),
        }
    }
    Ok(read)
}

/// A part of a program's address space.
#[derive(Debug, PartialEq, Eq)]
struct Region {
    start: u64,
    end: u64,
    name: String,
}

impl Region {
    /// Reads a line of `/proc/<pid>/maps`; `None` for what cannot be read.
    fn of_line(line: &str) -> Option<Self> {
        let mut fields = line.split_ascii_whitespace();
        let (start, end) = fields.next()?.split_once('-')?;
        let is_readable = fields.next()?.starts_with('r');
        let name = fields.nth(3).unwrap_or_default();
        let is_memory = is_readable && !["[vvar]", "[vvar_vclock]", "[vsyscall]"].contains(&name);
        let [start, end] = [start, end].map(|it| u64::from_str_radix(it, 16).ok());
        is_memory.then_some(Self { start: start?, end: end?, name: name.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_named_by_their_labels() {
        let secrets = Secrets::default().and("password", "s3cret").and("token", "ey");
        let found = |secret: &str| Found { secret: secret.into(), place: "here".into() };
        assert_eq!(secrets.find_in("here", b"the s3cret"), [found("password")]);
        assert_eq!(secrets.find_in("here", b"hey, s3cret"), [found("password"), found("token")]);
        assert_eq!(secrets.find_in("here", b"S3CRET"), []);
        assert!(!format!("{found:?}", found = found("password")).contains("s3cret"));
    }

    #[track_caller]
    fn check(line: &str, expected: Option<(u64, u64, &str)>) {
        let expected = expected.map(|(start, end, name)| Region { start, end, name: name.into() });
        assert_eq!(Region::of_line(line), expected, "{line}");
    }

    #[test]
    fn only_readable_memory_is_looked_at() {
        check(
            "7f00-7f10 rw-p 00000000 00:00 0                          [heap]",
            Some((0x7f00, 0x7f10, "[heap]")),
        );
        check("7f00-7f10 rw-p 00000000 00:00 0 ", Some((0x7f00, 0x7f10, "")));
        check("7f00-7f10 r-xp 00001000 08:01 42 /usr/bin/cat", Some((0x7f00, 0x7f10, "/usr/bin/cat")));
        check("7f00-7f10 ---p 00000000 00:00 0 ", None);
        check("7f00-7f10 r--p 00000000 00:00 0                          [vvar]", None);
        check("", None);
    }
}
