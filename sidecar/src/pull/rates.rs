//! How fast this node takes bytes in: in all, and from any one node.
//!
//! Bytes are accounted for when they have arrived; what is over the limit is not read on, and the
//! sender's window closes.

use std::num::NonZeroU32;
use std::sync::Arc;

use governor::clock::DefaultClock;
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::DefaultKeyedStateStore;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use shoal_model::{ByteRate, NodeId};

type Total = RateLimiter<NotKeyed, InMemoryState, DefaultClock, NoOpMiddleware>;
type PerPeer = RateLimiter<NodeId, DefaultKeyedStateStore<NodeId>, DefaultClock, NoOpMiddleware>;

/// The limits; clones share them.
#[derive(Clone, Default)]
pub(crate) struct Rates {
    total: Option<Arc<Total>>,
    per_peer: Option<Arc<PerPeer>>,
}

impl Rates {
    /// `None` is no limit.
    pub(crate) fn new(total: Option<ByteRate>, per_peer: Option<ByteRate>) -> Self {
        Self {
            total: total.map(|it| Arc::new(RateLimiter::direct(quota(it)))),
            per_peer: per_peer.map(|it| Arc::new(RateLimiter::keyed(quota(it)))),
        }
    }

    /// Waits until `bytes` that have arrived are within the limits; `None` is not a node but a registry.
    pub(crate) async fn admit(&self, from: Option<&NodeId>, bytes: usize) {
        for cells in cells(bytes) {
            if let Some(total) = &self.total {
                // More cells than the burst are split by `cells`, so this never fails.
                let _ = total.until_n_ready(cells).await;
            }
            if let (Some(per_peer), Some(from)) = (&self.per_peer, from) {
                let _ = per_peer.until_key_n_ready(from, cells).await;
            }
        }
    }
}

/// Limits count in KiB, so that every rate fits the limiter's 32 bits.
const CELL: u64 = 1 << 10;
/// Cells asked for at once: within the burst of the slowest limit.
const STEP: usize = 64;

fn quota(rate: ByteRate) -> Quota {
    let cells = u32::try_from(rate.0 / CELL).unwrap_or(u32::MAX);
    let per_second = NonZeroU32::new(cells).unwrap_or(NonZeroU32::MIN);
    Quota::per_second(per_second).allow_burst(per_second.max(NonZeroU32::MIN.saturating_add(STEP as u32 - 1)))
}

fn cells(bytes: usize) -> impl Iterator<Item = NonZeroU32> {
    let cells = bytes.div_ceil(CELL as usize);
    (0..cells).step_by(STEP).filter_map(move |at| NonZeroU32::new((cells - at).min(STEP) as u32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_counted_once_and_in_steps_that_every_limit_allows() {
        for bytes in [0, 1, 1024, 1025, 1 << 20, 4 << 20] {
            let steps: Vec<_> = cells(bytes).map(NonZeroU32::get).collect();
            assert_eq!(steps.iter().sum::<u32>() as usize, bytes.div_ceil(1024));
            assert!(steps.iter().all(|it| *it as usize <= STEP));
        }
        assert!(quota(ByteRate(1)).burst_size().get() as usize >= STEP);
    }
}
