//! What a new epoch is counted by.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Tells epochs, each after the last: also after a restart, and where the clock is set back while the process lives.
#[derive(Debug, Default)]
pub(super) struct EpochClock(AtomicU64);

impl EpochClock {
    /// An epoch that begins now, in microseconds since 1970.
    pub(super) fn tell(&self) -> u64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.tell_at(u64::try_from(now.as_micros()).unwrap_or(u64::MAX))
    }

    fn tell_at(&self, now: u64) -> u64 {
        let next = |last: u64| now.max(last.saturating_add(1));
        let told = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(next(last)));
        // It is always updated.
        told.map_or(now, next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_is_after_the_last_whatever_the_clock_says() {
        let clock = EpochClock::default();
        assert_eq!([1000, 1000, 5, 2000].map(|now| clock.tell_at(now)), [1000, 1001, 1002, 2000]);
    }
}
