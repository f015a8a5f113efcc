//! Which scheduler a blob belongs to, as one node sees it.
//!
//! A node keeps a stream to every scheduler of its region, and a blob belongs to one of them: its *owner*, by
//! rendezvous hashing over those that are there. All nodes see the same ones sooner or later, and so agree.
//!
//! A scheduler whose stream broke is *awaited*: it stays the owner of its blobs, though it hears nothing, until the
//! first attempt to join it anew has failed. So a stream that only broke moves no blob, and a scheduler that is gone
//! loses its blobs half a second later. One that has just been listed is awaited in the same way: a node that starts
//! does not tell everything to the first scheduler that it reaches.

use std::collections::BTreeMap;
use std::sync::Arc;

use shoal_model::BlobKey;

use crate::rendezvous;

/// The region's schedulers by their addresses, and how each stands with this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owners(BTreeMap<Arc<str>, Standing>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// There is a stream.
    Live,
    /// Its blobs wait for it.
    Awaited,
    /// Others have its blobs.
    Away,
}

impl Owners {
    /// These are the region's schedulers from now on.
    pub fn list(&mut self, addresses: impl IntoIterator<Item = Arc<str>>) {
        let standing = |it: &Arc<str>| self.0.get(it).copied().unwrap_or(Standing::Awaited);
        self.0 = addresses.into_iter().map(|it| (it.clone(), standing(&it))).collect();
    }

    /// There is a stream to this scheduler.
    pub fn joined(&mut self, address: &str) {
        self.set(address, Standing::Live);
    }

    /// The stream to this scheduler broke.
    pub fn lost(&mut self, address: &str) {
        self.set(address, Standing::Awaited);
    }

    /// This scheduler could not be joined.
    pub fn failed(&mut self, address: &str) {
        self.set(address, Standing::Away);
    }

    fn set(&mut self, address: &str, standing: Standing) {
        if let Some(it) = self.0.get_mut(address) {
            *it = standing;
        }
    }

    /// Whom the blob belongs to.
    pub fn owner(&self, key: &BlobKey) -> Option<&Arc<str>> {
        let mut candidates = self.candidates();
        match (candidates.next(), candidates.next()) {
            // Nothing is to be weighed in most regions.
            (sole, None) => sole,
            _ => rendezvous::winner(key, self.candidates()),
        }
    }

    /// The blob's owner, where it hears this node.
    pub fn listener(&self, key: &BlobKey) -> Option<&Arc<str>> {
        self.owner(key).filter(|it| self.is_live(it))
    }

    /// The region's schedulers.
    pub fn listed(&self) -> impl Iterator<Item = &Arc<str>> {
        self.0.keys()
    }

    /// Whether this is one of the region's schedulers.
    pub fn is_listed(&self, address: &str) -> bool {
        self.0.contains_key(address)
    }

    /// Whether there is a stream to this scheduler.
    pub fn is_live(&self, address: &str) -> bool {
        self.0.get(address) == Some(&Standing::Live)
    }

    /// The schedulers that there is a stream to.
    pub fn live(&self) -> impl Iterator<Item = &Arc<str>> {
        self.0.iter().filter(|(_, it)| **it == Standing::Live).map(|(address, _)| address)
    }

    /// The schedulers that own blobs.
    pub fn candidates(&self) -> impl Iterator<Item = &Arc<str>> {
        self.0.iter().filter(|(_, it)| **it != Standing::Away).map(|(address, _)| address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use shoal_model::{Digest, TrustGroup};

    fn key(byte: u8) -> BlobKey {
        BlobKey { group: TrustGroup::new("g"), digest: Digest::from_sha256([byte; 32]) }
    }

    fn listed(addresses: &[&str]) -> Owners {
        let mut it = Owners::default();
        it.list(addresses.iter().map(|it| Arc::from(*it)));
        it
    }

    /// How many of a hundred blobs belong to each, and to how many of these it listens.
    #[track_caller]
    fn check(owners: &Owners, expected: &[(&str, std::ops::Range<usize>, bool)]) {
        let mut n_owned = 0;
        for (address, n_expected, listens) in expected {
            let own = (0..100).map(key).filter(|it| owners.owner(it).is_some_and(|it| **it == **address));
            let own: Vec<_> = own.collect();
            assert!(n_expected.contains(&own.len()), "{address} owns {} in {owners:?}", own.len());
            assert!(own.iter().all(|it| owners.listener(it).is_some() == *listens), "{address}: {owners:?}");
            n_owned += own.len();
        }
        let n_orphans = (0..100).filter(|it| owners.owner(&key(*it)).is_none()).count();
        assert_eq!(n_owned + n_orphans, 100, "{owners:?}");
    }

    #[test]
    fn a_scheduler_keeps_its_blobs_until_it_fails_to_come_back() {
        let mut it = listed(&["a", "b"]);
        check(&it, &[("a", 30..70, false), ("b", 30..70, false)]);
        it.joined("a");
        check(&it, &[("a", 30..70, true), ("b", 30..70, false)]);
        it.failed("b");
        check(&it, &[("a", 100..101, true), ("b", 0..1, false)]);
        it.joined("b");
        let both = it.clone();
        check(&it, &[("a", 30..70, true), ("b", 30..70, true)]);
        it.lost("b");
        check(&it, &[("a", 30..70, true), ("b", 30..70, false)]);
        it.joined("b");
        assert_eq!(it, both);
    }

    #[test]
    fn with_no_scheduler_blobs_belong_to_nobody() {
        check(&Owners::default(), &[]);
        let mut it = listed(&["a"]);
        check(&it, &[("a", 100..101, false)]);
        it.failed("a");
        check(&it, &[("a", 0..1, false)]);
        it.joined("a");
        check(&it, &[("a", 100..101, true)]);
    }

    #[test]
    fn a_list_replaces_another_and_changes_nobody_that_stays() {
        let mut it = listed(&["a", "b"]);
        it.joined("a");
        it.failed("b");
        it.list(["b", "c", "a", "a"].map(Arc::from));
        check(&it, &[("a", 30..70, true), ("b", 0..1, false), ("c", 30..70, false)]);
        it.list(["c"].map(Arc::from));
        check(&it, &[("a", 0..1, false), ("c", 100..101, false)]);
        it.joined("a");
        assert!(!it.is_live("a"), "no longer listed");
    }

    proptest! {
        #[test]
        fn only_the_blobs_of_whoever_comes_or_goes_move(
            steps in proptest::collection::vec((0..4_usize, 0..3_usize), 1..40),
        ) {
            const ADDRESSES: [&str; 4] = ["https://a:1", "https://b:1", "https://c:1", "https://d:1"];
            let mut it = listed(&ADDRESSES);
            for (who, what) in steps {
                let before = it.clone();
                match what {
                    0 => it.joined(ADDRESSES[who]),
                    1 => it.lost(ADDRESSES[who]),
                    _ => it.failed(ADDRESSES[who]),
                }
                for key in (0..50).map(key) {
                    let (old, new) = (before.owner(&key), it.owner(&key));
                    let is_mover = |it: Option<&Arc<str>>| it.is_some_and(|it| **it == *ADDRESSES[who]);
                    prop_assert!(old == new || is_mover(old) || is_mover(new), "{old:?} {new:?}");
                    prop_assert_eq!(new.is_some(), it.candidates().next().is_some());
                    prop_assert!(it.listener(&key).is_none_or(|it| Some(it) == new));
                }
            }
        }
    }
}
