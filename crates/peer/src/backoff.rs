//! How long to wait before the scheduler is tried again.
//!
//! A scheduler that restarts loses its thousands of nodes in one instant; the wait is drawn at random so
//! that they do not come back in one instant. Its upper end doubles with each failure. A stream that was
//! accepted and broke at once counts as one more failure, or else a scheduler that falls over whenever
//! nodes join would be held down by them.

use std::time::Duration;

use shoal_model::Rng;

/// The shortest wait.
const FIRST: Duration = Duration::from_millis(250);
/// The longest wait: all nodes of a fleet are back within five seconds after their scheduler, the dial included.
const LONGEST: Duration = Duration::from_secs(4);
/// A stream that lasted this long was in order.
const STEADY: Duration = Duration::from_secs(10);

/// Counts failures in a row.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    n_failures: u32,
}

impl Backoff {
    /// Whether nothing has failed since the last steady stream.
    pub(crate) const fn is_fresh(&self) -> bool {
        self.n_failures == 0
    }

    /// Takes note that a stream had lasted for `lived` when it broke.
    pub(crate) fn lived(&mut self, lived: Duration) {
        if lived >= STEADY {
            self.n_failures = 0;
        }
    }

    /// The wait after one more failure.
    pub(crate) fn next(&mut self, rng: &mut Rng) -> Duration {
        self.n_failures = self.n_failures.saturating_add(1);
        let ceiling = FIRST.saturating_mul(2u32.saturating_pow(self.n_failures)).min(LONGEST);
        // The span is a few million microseconds, which any usize holds.
        let jitter = rng.below((ceiling - FIRST).as_micros() as usize);
        FIRST + Duration::from_micros(jitter as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(n_failures: u32, longest: Duration) {
        let waits: Vec<_> = (0..200).map(|seed| Backoff { n_failures }.next(&mut Rng::new(seed))).collect();
        assert!(waits.iter().all(|it| (FIRST..longest).contains(it)), "{waits:?}");
        // Spread over the whole span, not only within it.
        let late = waits.iter().filter(|it| **it > (FIRST + longest) / 2).count();
        assert!((50..150).contains(&late), "{late} of 200 in the later half");
    }

    #[test]
    fn waits_are_spread_and_grow_to_four_seconds() {
        check(0, Duration::from_millis(500));
        check(1, Duration::from_secs(1));
        check(2, Duration::from_secs(2));
        check(3, LONGEST);
        check(u32::MAX, LONGEST);
    }

    #[test]
    fn only_a_steady_stream_ends_a_row_of_failures() {
        let mut backoff = Backoff { n_failures: 7 };
        backoff.lived(STEADY - Duration::from_millis(1));
        assert!(!backoff.is_fresh());
        backoff.lived(STEADY);
        assert!(backoff.is_fresh());
    }
}
