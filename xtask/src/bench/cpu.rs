//! What processes have used of the processors.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

/// The CPU time of processes and all their threads so far, in the kernel included.
pub(super) fn used(processes: &[u32]) -> Result<Duration> {
    processes.iter().map(|it| of(*it).with_context(|| format!("process {it}: no CPU time"))).sum()
}

fn of(process: u32) -> Result<Duration> {
    let clock = clock_getcpuclockid(Pid::from_raw(process.try_into()?))?;
    Ok(clock_gettime(clock)?.into())
}

/// A process and its children.
pub(super) fn family(process: u32) -> Result<Vec<u32>> {
    let children = fs::read_to_string(format!("/proc/{process}/task/{process}/children"))?;
    let children = children.split_whitespace().map(|it| Ok(it.parse()?));
    [Ok(process)].into_iter().chain(children).collect()
}
