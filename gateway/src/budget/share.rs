//! A gateway's own part of a budget, where it borrows nothing: the same for each, whether it has work or not.

use std::num::NonZeroU32;
use std::ops::Add;
use std::time::Duration;

use governor::clock::{Clock, Reference};
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use tokio::time::{Instant, sleep};

use super::purse::{Lot, per_period};

/// How many lots may come at once after a time without: what a waiter that wakes late would else lose.
const AT_ONCE: NonZeroU32 = NonZeroU32::new(2).expect("not zero");

/// Gives lots at a gateway's own rate.
pub(super) struct Share {
    n_units: u64,
    limiter: RateLimiter<NotKeyed, InMemoryState, Ticking, NoOpMiddleware<Moment>>,
}

impl Share {
    /// One of `n_sharing` parts of so many units per second, which are not none.
    pub(super) fn new(rate: u64, n_sharing: u32) -> Self {
        let (rate, n_sharing) = (rate.max(1), n_sharing.max(1));
        let n_units = (per_period(rate) / u64::from(n_sharing)).max(1);
        // A governor counts single units in whole nanoseconds, which is wrong by tenths at hundreds of millions per second;
        // of lots there are few.
        let apart = u128::from(n_units) * u128::from(n_sharing) * 1_000_000_000 / u128::from(rate);
        let apart = Duration::from_nanos(u64::try_from(apart).unwrap_or(u64::MAX).max(1));
        // There is a quota for whatever is not zero.
        let quota = Quota::with_period(apart).unwrap_or(Quota::per_second(NonZeroU32::MIN));
        Self { n_units, limiter: RateLimiter::direct_with_clock(quota.allow_burst(AT_ONCE), Ticking) }
    }

    /// Waits for the next lot.
    pub(super) async fn lot(&self) -> Lot {
        while let Err(not_yet) = self.limiter.check() {
            sleep(not_yet.wait_time_from(Ticking.now())).await;
        }
        Lot { n_units: self.n_units, from: Instant::now() }
    }
}

/// The runtime's own clock, which tests stop.
#[derive(Clone, Debug)]
struct Ticking;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Moment(Instant);

impl Clock for Ticking {
    type Instant = Moment;

    fn now(&self) -> Moment {
        Moment(Instant::now())
    }
}

impl Reference for Moment {
    fn duration_since(&self, earlier: Self) -> Nanos {
        self.0.saturating_duration_since(earlier.0).into()
    }

    fn saturating_sub(&self, duration: Nanos) -> Self {
        Self(self.0.checked_sub(duration.into()).unwrap_or(self.0))
    }
}

impl Add<Nanos> for Moment {
    type Output = Self;

    fn add(self, other: Nanos) -> Self {
        Self(self.0 + Duration::from(other))
    }
}
