//! How much is asked of one registry at once.
//!
//! A registry serves more than this region. Bytes per second, requests per second and blobs at a time have
//! limits. Small blobs stand in a line of their own, since a pull begins with one and must not wait behind
//! large layers. Where a region has several gateways, they keep to the rates together ([`budget`](crate::budget)); how many
//! blobs are read at a time is each gateway's own matter. A registry that answers the gateway itself with `Retry-After` is
//! sent nothing more with the gateway's right for that long: whatever comes next would only be told the same. Callers with
//! credentials of their own have quotas of their own and are not held up by that.

use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use shoal_model::ByteRate;
use shoal_oci::RegistryName;
use tokio::time::{Instant, sleep_until};

use crate::budget::{Budget, Sharing};
use crate::metrics::{LimitWaits, Seconds};
use crate::queue::Queue;

/// The longest that one answer of a registry silences all requests to it.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Blobs up to this size, in bytes, are small.
pub(crate) const SMALL: u64 = 16 << 10;

/// How much of an answer, in bytes, a registry may send before anything of it is read: what fills the buffers here.
const AHEAD: u64 = 128 << 10;

/// What a registry may be asked for; `None` is unlimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitSettings {
    /// Bytes of blobs per second.
    pub bytes_per_second: Option<ByteRate>,
    /// Requests per second, of any kind.
    pub requests_per_second: Option<NonZeroU32>,
    /// Blobs that are read at the same time; as many small ones besides.
    pub concurrent_blobs: u32,
}

/// The limits of one registry, shared by all that ask it.
pub(crate) struct Limits {
    bytes: Option<Budget>,
    requests: Option<Budget>,
    /// The blobs that are read, and those that wait for it.
    pub(crate) blobs: Queue,
    pub(crate) small_blobs: Queue,
    silent_until: Mutex<Instant>,
    waits: LimitWaits,
}

impl Limits {
    /// Of the registry of this name.
    pub(crate) fn new(registry: &RegistryName, settings: LimitSettings, waits: LimitWaits) -> Self {
        let budget = |of: &str, rate| Budget::new(format!("{registry}:{of}"), rate);
        Self {
            bytes: settings.bytes_per_second.map(|it| budget("bytes", it.0)),
            requests: settings.requests_per_second.map(|it| budget("requests", it.get().into())),
            blobs: Queue::new(settings.concurrent_blobs as usize),
            small_blobs: Queue::new(settings.concurrent_blobs as usize),
            silent_until: Mutex::new(Instant::now()),
            waits,
        }
    }

    /// Gateways share the registry like this from now on.
    pub(crate) fn share(&self, sharing: &Sharing) {
        self.bytes.iter().chain(&self.requests).for_each(|it| it.share(sharing));
    }

    /// Waits until one more request may be sent.
    pub(crate) async fn request(&self) {
        if let Some(requests) = &self.requests {
            spend(requests, 1, &self.waits.requests).await;
        }
    }

    /// Waits until so many more bytes may be read.
    pub(crate) async fn bytes(&self, n_bytes: usize) {
        if let Some(bytes) = &self.bytes {
            spend(bytes, n_bytes as u64, &self.waits.bytes).await;
        }
    }

    /// Waits until the registry takes requests with the gateway's right again.
    pub(crate) async fn pause_over(&self) {
        loop {
            let until = *self.silent_until.lock().unwrap_or_else(PoisonError::into_inner);
            if until <= Instant::now() {
                return;
            }
            sleep_until(until).await;
        }
    }

    /// The bytes of one answer, none of which is paid for yet.
    pub(crate) const fn advance(&self) -> Advance<'_> {
        Advance { limits: self, n_paid: 0 }
    }

    /// Leaves the registry alone for a while, as it asked the gateway to.
    pub(crate) fn pause(&self, wait: Duration) {
        let until = Instant::now() + wait.min(LONGEST_PAUSE);
        let mut silent_until = self.silent_until.lock().unwrap_or_else(PoisonError::into_inner);
        *silent_until = until.max(*silent_until);
    }
}

/// Waits until so many units may be spent, and counts for how long.
async fn spend(budget: &Budget, n_units: u64, waited: &Seconds) {
    let began = Instant::now();
    budget.spend(n_units).await;
    waited.inc_by(began.elapsed().as_secs_f64());
}

/// The bytes of one answer, paid for before the registry can send them. It sends as much as finds room, whether it is read
/// or not; of many small blobs, all at once.
pub(crate) struct Advance<'a> {
    limits: &'a Limits,
    /// Paid for, and not come yet.
    n_paid: u64,
}

impl Advance<'_> {
    /// Waits until so many bytes that have come are paid for, and some of the `n_left` that are still to come.
    pub(crate) async fn cover(&mut self, n_come: u64, n_left: u64) {
        let ahead = n_left.min(AHEAD);
        let due = (n_come + ahead).saturating_sub(self.n_paid);
        self.limits.bytes(usize::try_from(due).unwrap_or(usize::MAX)).await;
        self.n_paid = (self.n_paid + due).saturating_sub(n_come);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(bytes: Option<u64>) -> Limits {
        let settings = LimitSettings {
            bytes_per_second: bytes.map(ByteRate),
            requests_per_second: None,
            concurrent_blobs: 1,
        };
        Limits::new(&"registry.example".parse().unwrap(), settings, LimitWaits::default())
    }

    #[tokio::test(start_paused = true)]
    async fn the_longest_pause_counts_and_none_is_endless() {
        let limits = limits(None);
        let start = Instant::now();
        limits.pause_over().await;
        assert_eq!(start.elapsed(), Duration::ZERO);
        limits.pause(Duration::from_secs(5));
        limits.pause(Duration::from_secs(2));
        limits.pause_over().await;
        assert_eq!(start.elapsed().as_secs(), 5);
        limits.pause(Duration::from_secs(7 * 24 * 60 * 60));
        limits.pause_over().await;
        assert_eq!(start.elapsed().as_secs(), 65);
    }

    #[tokio::test(start_paused = true)]
    async fn gateways_that_share_a_registry_keep_to_equal_parts_and_never_to_none() {
        let limits = limits(Some(1000));
        for (n_sharing, seconds) in [(4, 8), (1, 2), (50, 100)] {
            limits.share(&Sharing { n_sharing, ..Sharing::default() });
            let start = Instant::now();
            limits.bytes(2000).await;
            let (took, expected) = (start.elapsed(), Duration::from_secs(seconds));
            assert!(took <= expected && took >= expected * 9 / 10, "{n_sharing}: {took:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_paid_for_before_it_can_come() {
        const SIZE: u64 = AHEAD * 10;
        let limits = limits(Some(AHEAD));
        let mut advance = limits.advance();
        let start = Instant::now();
        let seconds = || start.elapsed().as_secs_f64().round() as u64;
        advance.cover(0, SIZE).await;
        assert_eq!((advance.n_paid, seconds()), (AHEAD, 1));
        // In parts of any size.
        let mut n_left = SIZE;
        for part in [AHEAD / 4, AHEAD * 3, AHEAD * 6, AHEAD * 3 / 4] {
            n_left -= part;
            advance.cover(part, n_left).await;
            assert_eq!(advance.n_paid, n_left.min(AHEAD));
        }
        assert_eq!((n_left, seconds()), (0, 10), "and no more than it is");
        advance.cover(7, 0).await;
        assert_eq!(advance.n_paid, 0, "but for what comes that was not said");
    }
}
