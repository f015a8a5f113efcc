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

/// What the machine's processors have done so far, for whomever.
pub(super) struct Machine {
    /// In clock ticks, of all processors together.
    worked: u64,
    passed: u64,
}

impl Machine {
    /// Up to this moment.
    pub(super) fn now() -> Result<Self> {
        let stat = fs::read_to_string("/proc/stat")?;
        // cpu user nice system idle iowait irq softirq steal ...
        let line =
            stat.lines().next().and_then(|it| it.strip_prefix("cpu ")).context("/proc/stat: no cpu")?;
        let ticks =
            line.split_whitespace().take(8).map(|it| Ok(it.parse()?)).collect::<Result<Vec<u64>>>()?;
        let passed = ticks.iter().sum();
        let idle: u64 = ticks.iter().skip(3).take(2).sum();
        Ok(Self { worked: passed - idle, passed })
    }

    /// The part of the processors' time since `before` in which they worked.
    pub(super) fn busy_since(&self, before: &Self) -> f64 {
        (self.worked - before.worked) as f64 / (self.passed - before.passed).max(1) as f64
    }
}
