//! How much is asked of one registry at once.
//!
//! A registry serves more than this region. Bytes per second, requests per second and blobs at a time have
//! limits. Small blobs stand in a line of their own, since a pull begins with one and must not wait behind
//! large layers. Where a region has several gateways, each keeps its part of the rates, all parts alike; how many blobs
//! are read at a time is each gateway's own matter. A registry that answers the gateway itself with `Retry-After` is sent nothing more with the
//! gateway's right for that long: whatever comes next would only be told the same. Callers with credentials
//! of their own have quotas of their own and are not held up by that.

use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use shoal_model::ByteRate;
use tokio::time::{Instant, sleep_until};

use crate::queue::Queue;

/// The longest that one answer of a registry silences all requests to it.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Blobs up to this size, in bytes, are small.
pub(crate) const SMALL: u64 = 16 << 10;

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
    /// In whole, without the other gateways.
    settings: LimitSettings,
    rates: ArcSwap<Rates>,
    /// The blobs that are read, and those that wait for it.
    pub(crate) blobs: Queue,
    pub(crate) small_blobs: Queue,
    silent_until: Mutex<Instant>,
}

/// One gateway's part of the rates.
struct Rates {
    /// How many gateways there are.
    n_sharing: u32,
    bytes: Option<DefaultDirectRateLimiter>,
    requests: Option<DefaultDirectRateLimiter>,
}

impl Rates {
    fn of(settings: &LimitSettings, n_sharing: u32) -> Self {
        let part = |whole: u64| {
            // A governor counts in 32 bits; a registry that is allowed 4 GiB/s and more is as good as unlimited.
            let part = u32::try_from(whole / u64::from(n_sharing.max(1))).ok()?;
            Some(RateLimiter::direct(Quota::per_second(NonZeroU32::new(part).unwrap_or(NonZeroU32::MIN))))
        };
        Self {
            n_sharing,
            bytes: settings.bytes_per_second.filter(|it| it.0 > 0).and_then(|it| part(it.0)),
            requests: settings.requests_per_second.and_then(|it| part(it.get().into())),
        }
    }
}

impl Limits {
    pub(crate) fn new(settings: LimitSettings) -> Self {
        Self {
            settings,
            rates: ArcSwap::from_pointee(Rates::of(&settings, 1)),
            blobs: Queue::new(settings.concurrent_blobs as usize),
            small_blobs: Queue::new(settings.concurrent_blobs as usize),
            silent_until: Mutex::new(Instant::now()),
        }
    }

    /// So many gateways share the registry from now on. Whoever waits already does so at the old rate.
    pub(crate) fn share(&self, n_sharing: u32) {
        if self.rates.load().n_sharing != n_sharing {
            self.rates.store(Arc::new(Rates::of(&self.settings, n_sharing)));
        }
    }

    /// Waits until one more request may be sent.
    pub(crate) async fn request(&self) {
        let rates = self.rates.load_full();
        if let Some(requests) = &rates.requests {
            requests.until_ready().await;
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

    /// Waits until so many more bytes may be read.
    pub(crate) async fn bytes(&self, n_bytes: usize) {
        let rates = self.rates.load_full();
        let Some(bytes) = &rates.bytes else { return };
        let mut left = u32::try_from(n_bytes).unwrap_or(u32::MAX);
        // One wait covers at most what a second allows; longer ones are made of several.
        while let Some(n) = NonZeroU32::new(left) {
            let taken = match bytes.until_n_ready(n).await {
                Ok(()) => n.get(),
                Err(beyond) => {
                    let n = NonZeroU32::new(beyond.0).unwrap_or(NonZeroU32::MIN);
                    // The capacity itself is always granted.
                    let _ = bytes.until_n_ready(n).await;
                    n.get()
                }
            };
            left = left.saturating_sub(taken);
        }
    }

    /// Leaves the registry alone for a while, as it asked the gateway to.
    pub(crate) fn pause(&self, wait: Duration) {
        let until = Instant::now() + wait.min(LONGEST_PAUSE);
        let mut silent_until = self.silent_until.lock().unwrap_or_else(PoisonError::into_inner);
        *silent_until = until.max(*silent_until);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(bytes: Option<u64>) -> Limits {
        Limits::new(LimitSettings {
            bytes_per_second: bytes.map(ByteRate),
            requests_per_second: None,
            concurrent_blobs: 1,
        })
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

    #[tokio::test]
    async fn gateways_that_share_a_registry_keep_to_equal_parts_and_never_to_none() {
        let limits = limits(Some(1000));
        let at_once =
            async |n_bytes| tokio::time::timeout(Duration::ZERO, limits.bytes(n_bytes)).await.is_ok();
        for (n_sharing, part) in [(4, 250), (3, 333), (5000, 1), (1, 1000)] {
            limits.share(n_sharing);
            assert!(at_once(part).await, "{n_sharing}");
            limits.share(n_sharing);
            assert!(!at_once(part).await, "{n_sharing}: it is the same part");
        }
    }

    #[tokio::test]
    async fn more_bytes_than_a_second_allows_are_waited_for_in_parts() {
        // The first second's bytes are free, so that nothing here takes real time.
        let limits = limits(Some(1 << 20));
        limits.bytes(0).await;
        limits.bytes(1 << 20).await;
        let starved = tokio::time::timeout(Duration::ZERO, limits.bytes(3 << 20)).await;
        assert!(starved.is_err());
    }
}
