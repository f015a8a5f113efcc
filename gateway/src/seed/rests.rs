//! What is left alone after a seed failed.
//!
//! Nodes ask for a blob again at once when its seed fails, and each seed is a request to the registry, so a
//! blob rests for longer with every failure in a row. Where the registry refused the gateway, no other blob
//! of that repository would fare better: the repository is not seeded for a while, and whoever may read it
//! goes to the registry with the right of its own.
//!
//! Knows nothing of: registries' answers, clocks, the store.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use lru::LruCache;
use shoal_model::BlobKey;
use shoal_oci::{RegistryName, Repository};
use tokio::time::Instant;

/// How long a blob rests after its first failure.
const FIRST_REST: Duration = Duration::from_secs(5);
const LONGEST_REST: Duration = Duration::from_secs(5 * 60);
/// How long a repository is not seeded.
const BARRED: Duration = Duration::from_secs(5 * 60);
/// How many blobs, and how many repositories, are remembered.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(1024).expect("not zero");

/// What rests at present.
pub(super) struct Rests {
    blobs: LruCache<BlobKey, Rest>,
    /// Until when a repository is not seeded.
    repositories: LruCache<(RegistryName, Repository), Instant>,
}

struct Rest {
    lasts: Duration,
    until: Instant,
    /// What was published of it could not be believed.
    is_poisoned: bool,
    /// What failed.
    why: Arc<str>,
}

impl Rests {
    pub(super) fn new() -> Self {
        Self { blobs: LruCache::new(REMEMBERED), repositories: LruCache::new(REMEMBERED) }
    }

    /// The blob's seed has failed.
    pub(super) fn failed(&mut self, now: Instant, key: &BlobKey, is_poisoned: bool, why: &str) {
        let lasts = self.blobs.peek(key).map_or(FIRST_REST, |it| (it.lasts * 2).min(LONGEST_REST));
        self.blobs.put(key.clone(), Rest { lasts, until: now + lasts, is_poisoned, why: why.into() });
    }

    /// Why the blob's last seed failed, if it did.
    pub(super) fn why(&self, key: &BlobKey) -> Option<Arc<str>> {
        self.blobs.peek(key).map(|it| it.why.clone())
    }

    /// Whether what others hold of the blob is better not taken: the last that was published was poisoned, and some may
    /// not have heard of that.
    pub(super) fn is_doubted(&self, key: &BlobKey) -> bool {
        self.blobs.peek(key).is_some_and(|it| it.is_poisoned)
    }

    /// The blob's seed has brought it.
    pub(super) fn succeeded(&mut self, key: &BlobKey) {
        self.blobs.pop(key);
    }

    /// The registry has refused the gateway in a repository.
    pub(super) fn refused(&mut self, now: Instant, registry: &RegistryName, repository: &Repository) {
        self.repositories.put((registry.clone(), repository.clone()), now + BARRED);
    }

    /// Whether the blob rests.
    pub(super) fn rests(&self, now: Instant, key: &BlobKey) -> bool {
        self.blobs.peek(key).is_some_and(|it| now < it.until)
    }

    /// Whether the repository is not seeded.
    pub(super) fn is_barred(&self, now: Instant, registry: &RegistryName, repository: &Repository) -> bool {
        let until = self.repositories.peek(&(registry.clone(), repository.clone()));
        until.is_some_and(|it| now < *it)
    }
}

#[cfg(test)]
mod tests {
    use shoal_model::{Digest, TrustGroup};

    use super::*;

    fn key(n: u8) -> BlobKey {
        BlobKey { group: TrustGroup::new("a.example"), digest: Digest::from_sha256([n; 32]) }
    }

    #[test]
    fn a_blob_rests_for_longer_with_each_failure_in_a_row() {
        let mut rests = Rests::new();
        let mut now = Instant::now();
        for seconds in [5, 10, 20, 40, 80, 160, 300, 300] {
            assert!(!rests.rests(now, &key(1)));
            rests.failed(now, &key(1), false, "x");
            let lasts = Duration::from_secs(seconds);
            assert!(rests.rests(now + lasts - Duration::from_micros(1), &key(1)), "{seconds}");
            assert!(!rests.rests(now, &key(2)));
            now += lasts;
        }
        rests.succeeded(&key(1));
        rests.failed(now, &key(1), false, "x");
        assert!(!rests.rests(now + FIRST_REST, &key(1)), "a success ends the row");
    }

    #[test]
    fn what_was_poisoned_is_doubted_until_a_seed_ends_otherwise() {
        let (mut rests, now) = (Rests::new(), Instant::now());
        rests.failed(now, &key(1), true, "x");
        assert!(rests.is_doubted(&key(1)) && !rests.is_doubted(&key(2)));
        rests.failed(now, &key(1), false, "x");
        assert!(!rests.is_doubted(&key(1)));
        rests.failed(now, &key(1), true, "x");
        rests.succeeded(&key(1));
        assert!(!rests.is_doubted(&key(1)));
    }

    #[test]
    fn a_repository_that_refused_the_gateway_is_not_seeded_for_a_while_and_no_other_is_meant() {
        let (a, b): (RegistryName, RegistryName) =
            ("a.example".parse().unwrap(), "b.example".parse().unwrap());
        let (ours, other): (Repository, Repository) =
            ("prod/app".parse().unwrap(), "prod/x".parse().unwrap());
        let mut rests = Rests::new();
        let now = Instant::now();
        rests.refused(now, &a, &ours);
        assert!(rests.is_barred(now, &a, &ours));
        assert!(!rests.is_barred(now, &a, &other));
        assert!(!rests.is_barred(now, &b, &ours));
        assert!(!rests.is_barred(now + BARRED, &a, &ours));
    }
}
