//! Content that a client may just have failed on.
//!
//! Bytes that rot on disk after they were verified would be served again and again: the runtime checks the
//! digest, fails, and asks once more. So a blob that is asked for again from its beginning, right after it
//! was served to its end, is verified anew before it is served. That happens to good content as well, when
//! two pods of one node start one after the other; so it is done at most once in a while.

use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use lru::LruCache;
use shoal_model::BlobKey;
use tokio::time::Instant;

/// A runtime that failed comes back within this time.
const RIGHT_AFTER: Duration = Duration::from_secs(60);
/// Content that was verified is not doubted for this long.
const TRUSTED: Duration = Duration::from_secs(600);
const MAX_BLOBS: NonZeroUsize = NonZeroUsize::new(1024).expect("not zero");

/// What was served whole lately.
pub(super) struct Doubts(Mutex<LruCache<BlobKey, Served>>);

struct Served {
    at: Instant,
    doubted: Option<Instant>,
}

impl Default for Doubts {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(MAX_BLOBS)))
    }
}

impl Doubts {
    /// A client was given the blob to its last byte.
    pub(super) fn served(&self, key: &BlobKey, now: Instant) {
        let mut served = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let doubted = served.peek(key).and_then(|it| it.doubted);
        served.put(key.clone(), Served { at: now, doubted });
    }

    /// Whether content asked for from byte `start` on is to be verified before it is served.
    pub(super) fn arise(&self, key: &BlobKey, start: u64, now: Instant) -> bool {
        let mut served = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(last) = served.get_mut(key).filter(|_| start == 0) else { return false };
        let is_trusted = last.doubted.is_some_and(|at| now.duration_since(at) < TRUSTED);
        let arise = now.duration_since(last.at) < RIGHT_AFTER && !is_trusted;
        if arise {
            last.doubted = Some(now);
        }
        arise
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shoal_model::{Digest, TrustGroup};

    #[test]
    fn what_is_asked_again_right_after_it_was_served_is_doubted_once_in_a_while() {
        let key = BlobKey { group: TrustGroup::new("g"), digest: Digest::from_sha256([1; 32]) };
        let (doubts, now) = (Doubts::default(), Instant::now());
        let second = Duration::from_secs(1);
        assert!(!doubts.arise(&key, 0, now), "never served");
        doubts.served(&key, now);
        assert!(
            !doubts.arise(&key, 4096, now + second),
            "a range in the middle resumes, it does not start anew"
        );
        assert!(!doubts.arise(&key, 0, now + RIGHT_AFTER), "long after");
        assert!(doubts.arise(&key, 0, now + second));
        doubts.served(&key, now + second * 2);
        assert!(!doubts.arise(&key, 0, now + second * 3), "verified a moment ago");
        doubts.served(&key, now + TRUSTED);
        assert!(doubts.arise(&key, 0, now + TRUSTED + second * 2));
    }
}
