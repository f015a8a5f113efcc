//! What this gateway has seen of each blob: which repositories it was opened for, and where its bytes came from and
//! went to.
//!
//! It is for people, and for those who clear up: nothing is opened by it. It is in memory, begins with the process, and
//! loses the blob that was seen the longest ago when there are too many. So a repository that it names did have the
//! blob; of one that it does not name it knows nothing.
//!
//! Knows nothing of: HTTP, storage, clocks, other gateways.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::ops::AddAssign;
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

use lru::LruCache;
use serde::Serialize;
use shoal_model::BlobKey;
use shoal_oci::{RegistryName, Repository};
use utoipa::ToSchema;

/// How many blobs are remembered, about 500 bytes each.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(1 << 15).expect("not zero");
/// How many repositories of one blob are. Whoever may push can put one blob into any number.
const MAX_USES: usize = 32;

/// A repository that has the blob.
pub(crate) type Use = (RegistryName, Repository);

/// Bytes of one blob that came or went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Traffic {
    /// Read from the registry.
    pub(crate) registry: u64,
    /// Read from the hub.
    pub(crate) hub: u64,
    /// Taken from nodes and other gateways.
    pub(crate) peers: u64,
    /// Sent to nodes, other gateways and other regions, from this gateway's own disk.
    pub(crate) sent: u64,
}

impl Traffic {
    /// What came into the region, from wherever.
    pub(crate) const fn brought_in(self) -> u64 {
        self.registry.saturating_add(self.hub)
    }
}

impl AddAssign for Traffic {
    fn add_assign(&mut self, more: Self) {
        for (sum, more) in [
            (&mut self.registry, more.registry),
            (&mut self.hub, more.hub),
            (&mut self.peers, more.peers),
            (&mut self.sent, more.sent),
        ] {
            *sum = sum.saturating_add(more);
        }
    }
}

/// What is known of one blob.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Account {
    /// In the order in which they were seen first.
    pub(crate) uses: Vec<Use>,
    /// There were more than are kept.
    pub(crate) has_more: bool,
    pub(crate) traffic: Traffic,
}

/// The blobs of one repository.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Known {
    /// Those that are known to be in no other.
    pub(crate) own: Vec<BlobKey>,
    pub(crate) shared: Vec<BlobKey>,
    /// How many come after them.
    pub(crate) n_left: usize,
    /// The last of them, where others come after it.
    pub(crate) next: Option<BlobKey>,
}

/// The blobs that were seen lately.
pub(crate) struct Ledger(Mutex<Books>);

struct Books {
    accounts: LruCache<BlobKey, Account>,
    /// The same by repository.
    blobs: BTreeMap<Use, BTreeSet<BlobKey>>,
    total: Traffic,
}

impl Ledger {
    pub(crate) fn new() -> Self {
        Self::remembering(REMEMBERED)
    }

    fn remembering(n_blobs: NonZeroUsize) -> Self {
        let (accounts, blobs) = (LruCache::new(n_blobs), BTreeMap::new());
        Self(Mutex::new(Books { accounts, blobs, total: Traffic::default() }))
    }

    /// The blob belongs to this repository, as the registry has shown.
    pub(crate) fn belongs(&self, key: &BlobKey, registry: &RegistryName, repository: &Repository) {
        self.books().belongs(key, registry, repository);
    }

    /// Bytes of the blob have come or gone.
    pub(crate) fn moved(&self, key: &BlobKey, bytes: Traffic) {
        let mut books = self.books();
        books.total += bytes;
        books.account(key).traffic += bytes;
    }

    /// What came and went of all blobs, also of those that are forgotten.
    pub(crate) fn total(&self) -> Traffic {
        self.books().total
    }

    /// What is known of a blob. To look is no use of it.
    pub(crate) fn account(&self, key: &BlobKey) -> Option<Account> {
        self.books().accounts.peek(key).cloned()
    }

    /// The blobs that are known to be in this repository, or in any of the registry.
    pub(crate) fn blobs_of(
        &self,
        registry: &RegistryName,
        repository: Option<&Repository>,
    ) -> BTreeSet<BlobKey> {
        let books = self.books();
        if let Some(repository) = repository {
            return books.blobs.get(&(registry.clone(), repository.clone())).cloned().unwrap_or_default();
        }
        let of_registry = books.blobs.iter().filter(|((it, _), _)| it == registry);
        of_registry.flat_map(|(_, blobs)| blobs).cloned().collect()
    }

    /// The blobs that are known to be in a repository, in the order of their keys: those after one, and no more than so
    /// many.
    pub(crate) fn known_of(
        &self,
        registry: &RegistryName,
        repository: &Repository,
        after: Option<&BlobKey>,
        at_most: usize,
    ) -> Known {
        let books = self.books();
        let Some(blobs) = books.blobs.get(&(registry.clone(), repository.clone())) else {
            return Known::default();
        };
        let is_alone =
            |it: &&BlobKey| books.accounts.peek(*it).is_some_and(|it| it.uses.len() == 1 && !it.has_more);
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut later = blobs.range::<BlobKey, _>((from, Bound::Unbounded));
        let these: Vec<_> = later.by_ref().take(at_most).collect();
        let (n_left, last) = (later.count(), these.last().copied());
        let next = last.filter(|_| n_left > 0).cloned();
        let (own, shared) = these.into_iter().partition::<Vec<_>, _>(is_alone);
        let owned = |it: Vec<&BlobKey>| it.into_iter().cloned().collect();
        Known { own: owned(own), shared: owned(shared), n_left, next }
    }

    /// The repository is not known to have these blobs any more.
    pub(crate) fn disown(&self, keys: &[BlobKey], registry: &RegistryName, repository: &Repository) {
        let of = (registry.clone(), repository.clone());
        let mut books = self.books();
        for key in keys {
            if let Some(account) = books.accounts.peek_mut(key) {
                account.uses.retain(|it| *it != of);
            }
            books.unlist(key, std::slice::from_ref(&of));
        }
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Books {
    fn belongs(&mut self, key: &BlobKey, registry: &RegistryName, repository: &Repository) {
        let account = self.account(key);
        if account.uses.iter().any(|(one, other)| (one, other) == (registry, repository)) {
            return;
        }
        if account.uses.len() >= MAX_USES {
            account.has_more = true;
            return;
        }
        let fresh = (registry.clone(), repository.clone());
        account.uses.push(fresh.clone());
        self.blobs.entry(fresh).or_default().insert(key.clone());
    }

    /// The blob's account, opened if need be.
    fn account(&mut self, key: &BlobKey) -> &mut Account {
        if !self.accounts.contains(key)
            && let Some((oldest, account)) = self.accounts.push(key.clone(), Account::default())
        {
            self.unlist(&oldest, &account.uses);
        }
        self.accounts.get_or_insert_mut(key.clone(), Account::default)
    }

    fn unlist(&mut self, key: &BlobKey, uses: &[Use]) {
        for of in uses {
            let Some(blobs) = self.blobs.get_mut(of) else { continue };
            blobs.remove(key);
            if blobs.is_empty() {
                self.blobs.remove(of);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shoal_model::{Digest, TrustGroup};

    fn key(byte: u8) -> BlobKey {
        BlobKey { group: TrustGroup::new("g"), digest: Digest::from_sha256([byte; 32]) }
    }

    fn of(registry: &str, repository: &str) -> Use {
        (registry.parse().unwrap(), repository.parse().unwrap())
    }

    fn belongs(ledger: &Ledger, byte: u8, (registry, repository): &Use) {
        ledger.belongs(&key(byte), registry, repository);
    }

    #[test]
    fn a_blob_is_known_by_each_of_its_repositories() {
        let (ledger, app, base, other) =
            (Ledger::new(), of("a.example", "app"), of("a.example", "base"), of("b.example", "app"));
        for (byte, of) in [(1, &app), (1, &base), (1, &app), (2, &base), (3, &other)] {
            belongs(&ledger, byte, of);
        }
        assert_eq!(ledger.account(&key(1)).unwrap().uses, [app.clone(), base.clone()]);
        let blobs = |(registry, repository): &Use, all: bool| {
            ledger.blobs_of(registry, Some(repository).filter(|_| !all))
        };
        assert_eq!(blobs(&app, false), [key(1)].into());
        assert_eq!(blobs(&base, false), [key(1), key(2)].into());
        assert_eq!(blobs(&base, true), [key(1), key(2)].into());
        assert_eq!(blobs(&other, true), [key(3)].into());
        assert_eq!(ledger.account(&key(4)), None);
    }

    #[test]
    fn a_repository_is_disowned_of_its_blobs_and_the_others_keep_theirs() {
        let (ledger, app, base) = (Ledger::new(), of("a.example", "app"), of("a.example", "base"));
        for (byte, of) in [(1, &app), (2, &app), (2, &base), (3, &app)] {
            belongs(&ledger, byte, of);
        }
        let known =
            |(registry, repository): &Use, at_most| ledger.known_of(registry, repository, None, at_most);
        let expected = Known { own: vec![key(1), key(3)], shared: vec![key(2)], ..Known::default() };
        assert_eq!(known(&app, 10), expected);
        let first = Known { own: vec![key(1)], n_left: 2, next: Some(key(1)), ..Known::default() };
        assert_eq!(known(&app, 1), first);
        let after = |it: u8, at_most| ledger.known_of(&app.0, &app.1, Some(&key(it)), at_most);
        let second = Known { shared: vec![key(2)], n_left: 1, next: Some(key(2)), ..Known::default() };
        assert_eq!(after(1, 1), second);
        assert_eq!(after(2, 1), Known { own: vec![key(3)], ..Known::default() });
        assert_eq!(after(3, 1), Known::default());
        assert_eq!(known(&of("b.example", "app"), 10), Known::default());

        ledger.disown(&[key(1), key(2)], &app.0, &app.1);
        assert_eq!(known(&app, 10), Known { own: vec![key(3)], ..Known::default() });
        assert_eq!(known(&base, 10), Known { own: vec![key(2)], ..Known::default() });
        assert_eq!(ledger.account(&key(1)).unwrap().uses, []);
        for number in 0..=MAX_USES {
            belongs(&ledger, 3, &of("a.example", &format!("app{number}")));
        }
        assert_eq!(known(&app, 10).shared, [key(3)], "there were more than are kept");
    }

    #[test]
    fn bytes_add_up_by_where_they_came_from() {
        let ledger = Ledger::new();
        ledger.moved(&key(1), Traffic { registry: 3, sent: u64::MAX, ..Traffic::default() });
        ledger.moved(&key(1), Traffic { registry: 4, hub: 1, peers: 2, sent: 5 });
        let expected = Traffic { registry: 7, hub: 1, peers: 2, sent: u64::MAX };
        assert_eq!(ledger.account(&key(1)).unwrap().traffic, expected);
        ledger.moved(&key(2), Traffic { registry: 1, ..Traffic::default() });
        assert_eq!((ledger.total().registry, ledger.total().brought_in()), (8, 9));
    }

    #[test]
    fn the_blob_that_was_seen_the_longest_ago_is_forgotten_everywhere() {
        let ledger = Ledger::remembering(NonZeroUsize::new(2).unwrap());
        let app = of("a.example", "app");
        for byte in [1, 2] {
            belongs(&ledger, byte, &app);
        }
        ledger.account(&key(1));
        ledger.moved(&key(2), Traffic::default());
        belongs(&ledger, 3, &app);
        assert_eq!(ledger.account(&key(1)), None, "to look at it was no use");
        assert_eq!(ledger.blobs_of(&app.0, Some(&app.1)), [key(2), key(3)].into());
        assert_eq!(ledger.books().accounts.len(), 2);
    }

    #[test]
    fn of_a_blob_in_very_many_repositories_some_are_kept_and_that_there_are_more() {
        let ledger = Ledger::new();
        for number in 0..=MAX_USES {
            assert!(!ledger.account(&key(1)).is_some_and(|it| it.has_more), "{number}");
            belongs(&ledger, 1, &of("a.example", &format!("app{number}")));
        }
        let account = ledger.account(&key(1)).unwrap();
        assert_eq!((account.uses.len(), account.has_more), (MAX_USES, true));
    }
}
