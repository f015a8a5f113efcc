//! Limits on what a program may use, by the kernel's control groups of either version: memory, and what a disk takes of it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use shoal_model::{ByteRate, ByteSize};

use crate::disk::Disk;
use crate::host::Host;
use crate::process::Process;

/// Where groups of version 2 are, and those of version 1 for memory and for disks.
const SECOND: &str = "/sys/fs/cgroup";
const MEMORY: &str = "/sys/fs/cgroup/memory";
const DISKS: &str = "/sys/fs/cgroup/blkio";

/// A group of programs with limits. It goes with its lab.
#[derive(Debug)]
pub struct Limits {
    memory: PathBuf,
    disks: PathBuf,
    is_first_version: bool,
}

impl Limits {
    /// None yet, for programs of a host; one for each host.
    pub fn new(host: &Host) -> Result<Self> {
        let is_first_version = !has_memory(Path::new(SECOND));
        let roots = if is_first_version { [MEMORY, DISKS] } else { [SECOND, SECOND] };
        if !is_first_version {
            fs::write(Path::new(SECOND).join("cgroup.subtree_control"), "+memory +io")?;
        }
        let [memory, disks] = roots.map(|it| Path::new(it).join(host.namespace()));
        for dir in [&memory, &disks] {
            fs::create_dir_all(dir).with_context(|| format!("{}: no control group", dir.display()))?;
        }
        Ok(Self { memory, disks, is_first_version })
    }

    /// Whoever is held has no more memory than this in all.
    pub fn memory(self, limit: ByteSize) -> Result<Self> {
        let key = if self.is_first_version { "memory.limit_in_bytes" } else { "memory.max" };
        fs::write(self.memory.join(key), limit.0.to_string())?;
        Ok(self)
    }

    /// A disk takes no more than this of whoever is held. What waits in memory to be written does not count: the disk has to
    /// [write through](Disk::write_through).
    pub fn writes(self, disk: &Disk, rate: ByteRate) -> Result<Self> {
        let device = disk.device()?;
        let (key, limit) = match self.is_first_version {
            true => ("blkio.throttle.write_bps_device", format!("{device} {}", rate.0)),
            false => ("io.max", format!("{device} wbps={}", rate.0)),
        };
        fs::write(self.disks.join(key), limit)?;
        Ok(self)
    }

    /// Puts a running program under the limits; what it takes from now on counts.
    pub fn hold(&self, process: &Process) -> Result<()> {
        let pid = process.pid()?.to_string();
        [&self.memory, &self.disks]
            .into_iter()
            .try_for_each(|it| Ok(fs::write(it.join("cgroup.procs"), &pid)?))
    }

    /// How often the kernel has killed a program for the limit on memory.
    pub fn n_killed(&self) -> Result<u64> {
        let key = if self.is_first_version { "memory.oom_control" } else { "memory.events" };
        let text = fs::read_to_string(self.memory.join(key))?;
        let killed = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        Ok(killed.with_context(|| format!("no kills in {text:?}"))?.parse()?)
    }

    /// The most memory that was in use at a time.
    pub fn highest(&self) -> Result<ByteSize> {
        let key = if self.is_first_version { "memory.max_usage_in_bytes" } else { "memory.peak" };
        Ok(ByteSize(fs::read_to_string(self.memory.join(key))?.trim().parse()?))
    }
}

fn has_memory(root: &Path) -> bool {
    let controllers = fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default();
    controllers.split_whitespace().any(|it| it == "memory")
}

/// Removes the groups whose names are meant, once no program is in them any more.
pub(crate) fn remove(is_meant: impl Fn(&str) -> bool) {
    for entry in [SECOND, MEMORY, DISKS].into_iter().flat_map(fs::read_dir).flatten().flatten() {
        if entry.file_name().to_str().is_some_and(&is_meant) {
            let _left_to_the_next_sweep = fs::remove_dir(entry.path());
        }
    }
}
