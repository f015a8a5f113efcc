//! Blobs whose streams had to be ended early a moment ago.
//!
//! A runtime comes back at once for the rest of such a stream, and is not to have another here in two cases.
//! While the next byte is still missing, another stream would end without a byte, and that fails a pull; the
//! registry may have it. And where the content was dropped, what the runtime has is not the beginning of what
//! is fetched now.

use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use lru::LruCache;
use shoal_model::BlobKey;
use tokio::time::Instant;

/// How long a cut is remembered: after that, a new attempt may find other sources.
const MOMENT: Duration = Duration::from_secs(5);
const MAX_CUTS: NonZeroUsize = NonZeroUsize::new(1024).expect("not zero");

/// The last cut of each blob.
pub(super) struct Cuts(Mutex<LruCache<BlobKey, Noted>>);

struct Noted {
    /// Of the content that was streamed.
    generation: u64,
    at: Instant,
}

/// Why a request gets no stream here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Cut {
    /// Nobody had the rest.
    #[error("nobody served it a moment ago")]
    Unserved,
    /// The content was dropped: what the client has of it has no end, and nothing else is here yet.
    #[error("its content was dropped a moment ago")]
    Dropped,
}

/// A request that may resume a stream.
#[derive(Clone, Copy, Debug)]
pub(super) struct Resumed {
    /// Its first byte.
    pub start: u64,
    /// Whether that byte is here.
    pub is_readable: bool,
    /// Of the present content.
    pub generation: u64,
}

impl Default for Cuts {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(MAX_CUTS)))
    }
}

impl Cuts {
    /// A stream of this generation of the blob's content was cut.
    pub(super) fn note(&self, key: &BlobKey, generation: u64, now: Instant) {
        let noted = Noted { generation, at: now };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).put(key.clone(), noted);
    }

    /// Whether a request gets a stream.
    pub(super) fn check(&self, key: &BlobKey, resumed: Resumed, now: Instant) -> Result<(), Cut> {
        let cuts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match cuts.peek(key).filter(|it| now.duration_since(it.at) < MOMENT) {
            Some(it)
                if resumed.generation != it.generation && (resumed.start > 0 || !resumed.is_readable) =>
            {
                Err(Cut::Dropped)
            }
            Some(_) if !resumed.is_readable => Err(Cut::Unserved),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shoal_model::{Digest, TrustGroup};

    fn key(of: u8) -> BlobKey {
        BlobKey { group: TrustGroup::new("g"), digest: Digest::from_sha256([of; 32]) }
    }

    /// Asks a moment after a stream of generation 3 was cut.
    #[track_caller]
    fn check(start: u64, is_readable: bool, generation: u64, expected: Result<(), Cut>) {
        let (cuts, now) = (Cuts::default(), Instant::now());
        cuts.note(&key(1), 3, now);
        let resumed = Resumed { start, is_readable, generation };
        assert_eq!(cuts.check(&key(1), resumed, now), expected, "{resumed:?}");
        assert_eq!(cuts.check(&key(2), resumed, now), Ok(()), "another blob");
        assert_eq!(cuts.check(&key(1), resumed, now + MOMENT), Ok(()), "later");
    }

    #[test]
    fn a_resumed_stream_is_sent_elsewhere_where_nothing_comes_or_other_content() {
        check(100, true, 3, Ok(()));
        check(100, false, 3, Err(Cut::Unserved));
        check(100, true, 4, Err(Cut::Dropped));
        check(100, false, 4, Err(Cut::Dropped));
        check(0, true, 4, Ok(()));
        check(0, false, 3, Err(Cut::Unserved));
        check(0, false, 4, Err(Cut::Dropped));
    }
}
