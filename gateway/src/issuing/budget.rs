//! How often something may happen to one party.
//!
//! Each time has a price, and time pays it off; the price of a few may be owed. Whatever would be owed beyond
//! that does not happen. What is charged before it happens, so that many at once cannot outrun the account, is
//! refunded when it turns out not to count. The longest unheard of are forgotten first where there are too
//! many.
//!
//! Knows nothing of: clocks, what is counted.

use std::hash::Hash;
use std::num::NonZeroUsize;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use lru::LruCache;

/// How many parties are remembered.
const MAX_PARTIES: NonZeroUsize = NonZeroUsize::new(4096).expect("not zero");

/// The accounts of all parties.
pub(super) struct Budgets<K: Hash + Eq> {
    price: Duration,
    most: Duration,
    /// When each party will owe nothing.
    paid: Mutex<LruCache<K, Instant>>,
}

impl<K: Hash + Eq> Budgets<K> {
    /// So many times at once, and once in every `price` after that.
    pub(super) fn new(n_at_once: u32, price: Duration) -> Self {
        Self { price, most: price * n_at_once, paid: Mutex::new(LruCache::new(MAX_PARTIES)) }
    }

    /// Charges `party` for once.
    ///
    /// # Errors
    /// How long it has to wait before it can be charged.
    pub(super) fn charge(&self, now: Instant, party: K) -> Result<(), Duration> {
        let mut paid = self.lock();
        let until = paid.get_or_insert_mut(party, || now);
        let owed = until.saturating_duration_since(now) + self.price;
        let wait = owed.saturating_sub(self.most);
        if !wait.is_zero() {
            return Err(wait);
        }
        *until = now + owed;
        Ok(())
    }

    /// Takes back one charge of `party`.
    pub(super) fn refund(&self, now: Instant, party: &K) {
        if let Some(until) = self.lock().get_mut(party) {
            *until = now + until.saturating_duration_since(now).saturating_sub(self.price);
        }
    }

    fn lock(&self) -> MutexGuard<'_, LruCache<K, Instant>> {
        self.paid.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRICE: Duration = Duration::from_secs(1);

    /// Charges as often as it goes.
    fn spend(budgets: &Budgets<&str>, now: Instant, party: &'static str) -> u32 {
        (0..).take_while(|_| budgets.charge(now, party).is_ok()).count().try_into().unwrap()
    }

    #[test]
    fn who_has_spent_all_waits_and_others_do_not() {
        let (budgets, now) = (Budgets::new(10, PRICE), Instant::now());
        assert_eq!(spend(&budgets, now, "one"), 10);
        assert_eq!(budgets.charge(now, "one"), Err(PRICE));
        assert_eq!(budgets.charge(now + PRICE / 2, "one"), Err(PRICE / 2));
        assert_eq!(budgets.charge(now, "other"), Ok(()));
        assert_eq!(spend(&budgets, now + PRICE, "one"), 1);
        assert_eq!(spend(&budgets, now + PRICE * 100, "one"), 10);
    }

    #[test]
    fn what_does_not_count_is_given_back_and_no_more_than_that() {
        let (budgets, now) = (Budgets::new(10, PRICE), Instant::now());
        assert_eq!(spend(&budgets, now, "one"), 10);
        budgets.refund(now, &"one");
        assert_eq!(spend(&budgets, now, "one"), 1);
        for _ in 0..20 {
            budgets.refund(now, &"one");
        }
        budgets.refund(now, &"unknown");
        assert_eq!(spend(&budgets, now, "one"), 10);
    }

    #[test]
    fn only_so_many_parties_are_remembered() {
        let (budgets, now) = (Budgets::new(10, PRICE), Instant::now());
        for party in 0..20_000 {
            assert_eq!(budgets.charge(now, party), Ok(()));
        }
        assert_eq!(budgets.lock().len(), MAX_PARTIES.get());
    }
}
