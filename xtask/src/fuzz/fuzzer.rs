//! The fuzzer at work on one target, and where it keeps what it finds.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result};

use super::outcome::{self, Figures, Outcome};
use crate::test::bound;

/// How long one input may take, in seconds.
const TIMEOUT: u64 = 5;
/// How much memory a target may take, in MiB.
const MEMORY: u64 = 1024;
/// The longest input, in bytes.
const MAX_LEN: u64 = 4096;

pub(super) struct Fuzzer {
    target: String,
    program: PathBuf,
    /// Inputs that are kept in the repository.
    seeds: PathBuf,
    /// Inputs that earlier runs found to reach something new.
    found: PathBuf,
    /// Inputs that break something.
    breaking: PathBuf,
    /// Files that the target makes.
    scratch: PathBuf,
    log: PathBuf,
}

impl Fuzzer {
    pub(super) fn new(target: &str, program: &Path, seeds: &Path, dir: &Path) -> Self {
        Self {
            target: target.to_owned(),
            program: program.to_owned(),
            seeds: seeds.join(target),
            found: dir.join("corpus").join(target),
            breaking: dir.join("breaking").join(target),
            scratch: dir.join("scratch").join(target),
            log: dir.join("logs").join(target),
        }
    }

    /// Runs it for so long, or until an input breaks something.
    pub(super) fn run(self, seconds: u64) -> Result<Outcome> {
        self.make_dirs().with_context(|| format!("{}: no place to work in", self.target))?;
        let log = File::create(&self.log).with_context(|| format!("{}: not written", self.log.display()))?;
        let status = bound(&self.program)
            .args([&self.found, &self.seeds])
            .arg(format!("-max_total_time={seconds}"))
            .arg(format!("-artifact_prefix={}/", self.breaking.display()))
            .args([format!("-timeout={TIMEOUT}"), format!("-rss_limit_mb={MEMORY}")])
            .args([format!("-max_len={MAX_LEN}"), "-print_final_stats=1".to_owned()])
            .env("FUZZ_TARGET", &self.target)
            .env("TMPDIR", &self.scratch)
            .stdout(Stdio::null())
            .stderr(log)
            .status()
            .with_context(|| format!("{} cannot be started", self.program.display()))?;
        let log = fs::read(&self.log).with_context(|| format!("{}: not read", self.log.display()))?;
        let log = String::from_utf8_lossy(&log).into_owned();
        Ok(Outcome {
            figures: Figures::of_log(&log),
            breaking: outcome::breaking(&log),
            last_words: (!status.success()).then(|| outcome::last_words(&log)),
            program: self.program,
            target: self.target,
        })
    }

    fn make_dirs(&self) -> io::Result<()> {
        // A run that broke off could not clean up after itself.
        match fs::remove_dir_all(&self.scratch) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let log = self.log.parent().unwrap_or(&self.log);
        [&self.scratch, &self.breaking, &self.found, log].into_iter().try_for_each(fs::create_dir_all)
    }
}
