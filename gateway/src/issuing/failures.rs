//! How often one party may fail to prove itself.
//!
//! Each failure costs a second, and ten of them may be owed. Who owes more is not listened to at all, so that
//! a secret cannot be guessed and Kubernetes is not asked on a stranger's behalf without end. Who succeeds
//! owes nothing: a thousand nodes behind one address may join at once. The longest unheard of are forgotten
//! first where there are too many.

use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use lru::LruCache;

use crate::party::party;

/// What a failure costs.
const COST: Duration = Duration::from_secs(1);
/// How many failures may be owed.
const OWED: u32 = 10;
/// How many parties are remembered.
const MAX_PARTIES: NonZeroUsize = NonZeroUsize::new(4096).expect("not zero");

/// The failures of all parties.
pub(super) struct Failures {
    /// When each party will owe nothing.
    paid: Mutex<LruCache<IpAddr, Instant>>,
}

impl Failures {
    pub(super) fn new() -> Self {
        Self { paid: Mutex::new(LruCache::new(MAX_PARTIES)) }
    }

    /// How long `client` has to wait before it is listened to; none where it is now.
    pub(super) fn wait(&self, now: Instant, client: IpAddr) -> Option<Duration> {
        let paid = self.paid.lock().unwrap_or_else(PoisonError::into_inner);
        let owed = paid.peek(&party(client))?.saturating_duration_since(now);
        // One more would have to find room.
        let wait = (owed + COST).saturating_sub(COST * OWED);
        (!wait.is_zero()).then_some(wait)
    }

    /// Notes that `client` failed.
    pub(super) fn add(&self, now: Instant, client: IpAddr) {
        let mut paid = self.paid.lock().unwrap_or_else(PoisonError::into_inner);
        let until = paid.get_or_insert_mut(party(client), || now);
        // Who failed many times at once owes no more than who did so one by one.
        *until = ((*until).max(now) + COST).min(now + COST * OWED);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn who_fails_too_often_waits_and_others_do_not() {
        let (failures, now) = (Failures::new(), Instant::now());
        let (one, other) = (address("10.0.0.1"), address("10.0.0.2"));
        for _ in 0..OWED {
            assert_eq!(failures.wait(now, one), None);
            failures.add(now, one);
        }
        assert_eq!(failures.wait(now, one), Some(COST));
        assert_eq!(failures.wait(now, other), None);
        assert_eq!(failures.wait(now + COST / 2, one), Some(COST / 2));
        assert_eq!(failures.wait(now + COST, one), None);
        for _ in 0..100 {
            failures.add(now + COST, one);
        }
        assert_eq!(failures.wait(now + COST, one), Some(COST));
    }

    #[test]
    fn a_host_is_one_party_under_all_its_addresses() {
        let (failures, now) = (Failures::new(), Instant::now());
        for host in 0..OWED {
            failures.add(now, address(&format!("2001:db8:1:2::{host:x}")));
        }
        assert!(failures.wait(now, address("2001:db8:1:2:3:4:5:6")).is_some());
        assert!(failures.wait(now, address("2001:db8:1:3::1")).is_none());
    }

    #[test]
    fn only_so_many_parties_are_remembered() {
        let (failures, now) = (Failures::new(), Instant::now());
        for party in 0..20_000u32 {
            failures.add(now, IpAddr::from(party.to_be_bytes()));
        }
        assert_eq!(failures.paid.lock().unwrap().len(), MAX_PARTIES.get());
    }
}
