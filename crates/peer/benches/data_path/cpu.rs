//! What a process has used of the processor.

use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;

/// The CPU time of this process and all its threads so far, in the kernel included.
pub(crate) fn used() -> nix::Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    Ok(duration(usage.user_time()) + duration(usage.system_time()))
}

fn duration(it: TimeVal) -> Duration {
    // The kernel counts up from zero, so neither part is negative.
    Duration::new(it.tv_sec().unsigned_abs(), 1_000 * it.tv_usec().unsigned_abs() as u32)
}
