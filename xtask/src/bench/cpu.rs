//! What processes have used of the processors.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
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

/// The processors that this process may use.
pub(super) fn processors() -> Result<CpuSet> {
    Ok(sched_getaffinity(Pid::from_raw(0))?)
}

/// The first two of them, each alone; the same one twice where there is but one.
pub(super) fn two_of(all: &CpuSet) -> Result<[CpuSet; 2]> {
    let mut numbers = (0..CpuSet::count()).filter(|it| all.is_set(*it).unwrap_or_default());
    let first = numbers.next().context("no processor")?;
    let alone = |number| {
        let mut set = CpuSet::new();
        set.set(number).map(|()| set)
    };
    Ok([alone(first)?, alone(numbers.next().unwrap_or(first))?])
}

/// Has all threads of processes run on these processors only.
pub(super) fn confine(processes: &[u32], to: &CpuSet) -> Result<()> {
    for process in processes {
        for thread in fs::read_dir(format!("/proc/{process}/task"))? {
            let thread = thread?.file_name().to_string_lossy().parse()?;
            sched_setaffinity(Pid::from_raw(thread), to)?;
        }
    }
    Ok(())
}

/// Has this thread run on these processors only.
pub(super) fn stay_on(processors: &CpuSet) -> Result<()> {
    Ok(sched_setaffinity(Pid::from_raw(0), processors)?)
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
