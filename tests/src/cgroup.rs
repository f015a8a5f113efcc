//! A limit on what memory a program may use, by the kernel's control groups of either version.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use shoal_model::ByteSize;

use crate::host::Host;
use crate::process::Process;

/// Where groups of version 2 are, as far as these have memory, and those of version 1.
const ROOTS: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/memory"];

/// A group of programs with a limit. It goes with its lab.
#[derive(Debug)]
pub struct MemoryLimit {
    dir: PathBuf,
    is_first_version: bool,
}

impl MemoryLimit {
    /// A limit for programs of a host; one for each host.
    pub fn new(host: &Host, limit: ByteSize) -> Result<Self> {
        let is_first_version = !has_memory(Path::new(ROOTS[0]));
        let root = Path::new(ROOTS[usize::from(is_first_version)]);
        if !is_first_version {
            fs::write(root.join("cgroup.subtree_control"), "+memory")?;
        }
        let dir = root.join(host.namespace());
        fs::create_dir(&dir).with_context(|| format!("{}: no control group", dir.display()))?;
        let it = Self { dir, is_first_version };
        let key = if is_first_version { "memory.limit_in_bytes" } else { "memory.max" };
        fs::write(it.dir.join(key), limit.0.to_string())?;
        Ok(it)
    }

    /// Puts a running program under the limit; what it takes from now on counts.
    pub fn hold(&self, process: &Process) -> Result<()> {
        Ok(fs::write(self.dir.join("cgroup.procs"), process.pid()?.to_string())?)
    }

    /// How often the kernel has killed a program for the limit.
    pub fn n_killed(&self) -> Result<u64> {
        let key = if self.is_first_version { "memory.oom_control" } else { "memory.events" };
        let text = fs::read_to_string(self.dir.join(key))?;
        let killed = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        Ok(killed.with_context(|| format!("no kills in {text:?}"))?.parse()?)
    }
}

fn has_memory(root: &Path) -> bool {
    let controllers = fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default();
    controllers.split_whitespace().any(|it| it == "memory")
}

/// Removes the groups whose names are meant, once no program is in them any more.
pub(crate) fn remove(is_meant: impl Fn(&str) -> bool) {
    for entry in ROOTS.into_iter().flat_map(fs::read_dir).flatten().flatten() {
        if entry.file_name().to_str().is_some_and(&is_meant) {
            let _left_to_the_next_sweep = fs::remove_dir(entry.path());
        }
    }
}
