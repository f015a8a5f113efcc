//! How often one party may come.
//!
//! Parties that have not come for a while are forgotten. Where more come within that time than are kept,
//! new ones are refused, so that memory stays bounded whoever calls.

use std::hash::Hash;
use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::HashMapStateStore;
use governor::{Quota, RateLimiter};

/// How many parties are kept.
const MAX_PARTIES: usize = 4096;

/// The rates of all parties.
pub(super) struct Rates<K: Hash + Eq + Clone, C: Clock = DefaultClock> {
    limiter: RateLimiter<K, HashMapStateStore<K>, C, NoOpMiddleware<C::Instant>>,
    clock: C,
}

/// Comes too often; may come again after this long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooMany(pub(super) Duration);

impl<K: Hash + Eq + Clone> Rates<K> {
    /// So many times per second, and twice as many at once after a rest.
    pub(super) fn per_second(n: NonZeroU32) -> Self {
        Self::new(n, DefaultClock::default())
    }
}

impl<K: Hash + Eq + Clone, C: Clock + Clone> Rates<K, C> {
    fn new(n: NonZeroU32, clock: C) -> Self {
        let quota = Quota::per_second(n).allow_burst(n.saturating_mul(NonZeroU32::MIN.saturating_add(1)));
        Self { limiter: RateLimiter::new(quota, HashMapStateStore::default(), clock.clone()), clock }
    }

    /// Lets a party come once.
    pub(super) fn take(&self, party: &K) -> Result<(), TooMany> {
        if self.limiter.len() >= MAX_PARTIES {
            self.limiter.retain_recent();
            if self.limiter.len() >= MAX_PARTIES {
                return Err(TooMany(Duration::from_secs(1)));
            }
        }
        self.limiter.check_key(party).map_err(|it| TooMany(it.wait_time_from(self.clock.now())))
    }
}

#[cfg(test)]
mod tests {
    use governor::clock::FakeRelativeClock;

    use super::*;

    const ONE: NonZeroU32 = NonZeroU32::MIN;

    #[test]
    fn each_party_has_a_rate_and_a_burst_of_its_own() {
        let clock = FakeRelativeClock::default();
        let rates = Rates::new(ONE, clock.clone());
        let second = Duration::from_secs(1);
        for _ in 0..2 {
            assert_eq!(rates.take(&"ann"), Ok(()));
        }
        assert_eq!(rates.take(&"ann"), Err(TooMany(second)));
        assert_eq!(rates.take(&"bob"), Ok(()));
        clock.advance(second);
        assert_eq!(rates.take(&"ann"), Ok(()));
        assert_eq!(rates.take(&"ann"), Err(TooMany(second)));
    }

    #[test]
    fn parties_are_bounded_and_those_that_rest_are_forgotten() {
        let clock = FakeRelativeClock::default();
        let rates = Rates::new(ONE, clock.clone());
        for party in 0..MAX_PARTIES {
            assert_eq!(rates.take(&party), Ok(()));
        }
        assert!(rates.take(&usize::MAX).is_err());
        clock.advance(Duration::from_secs(10));
        assert_eq!(rates.take(&usize::MAX), Ok(()));
        assert_eq!(rates.limiter.len(), 1);
    }
}
