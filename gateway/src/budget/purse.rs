//! What a gateway may spend of a budget at this moment.
//!
//! A budget is spent in *lots*: parts of it that are there from one instant on. A gateway has one lot at a time, as
//! large as what it lately spent in one [`PERIOD`], so that one that is busy asks for a lot once per period, and one that
//! is not takes hardly more than it needs. What it has not spent soon after is void: otherwise gateways could save up
//! lots and spend them all at once.
//!
//! Knows nothing of: clocks, who gives lots, what is counted.

use std::time::Duration;

use tokio::time::Instant;

/// How long a lot lasts a gateway that is busy. Where gateways that borrow turn to their shares, and back, what they have
/// ahead comes to some nine of these, which is to be less than a twentieth of five seconds.
pub(super) const PERIOD: Duration = Duration::from_millis(24);
/// For how long it may be spent.
const LIFE: Duration = Duration::from_millis(48);

/// A part of a budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lot {
    pub(super) n_units: u64,
    /// When it may be spent.
    pub(super) from: Instant,
}

/// The lot that a gateway has, and what it spends.
#[derive(Debug)]
pub(super) struct Purse {
    /// The most that a lot holds: what the whole budget gives in one period.
    most: u64,
    lot: Option<Lot>,
    n_spent: u64,
}

/// What becomes of a wish to spend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spending {
    /// So much is spent; at least one unit, perhaps less than was wished for.
    Spent(u64),
    /// There is something from then on.
    NotBefore(Instant),
    /// A lot of this size is to be got first.
    TakesLot(u64),
}

impl Purse {
    /// An empty one, of a budget of so many units per second.
    pub(super) fn new(rate: u64) -> Self {
        Self { most: per_period(rate), lot: None, n_spent: 0 }
    }

    /// Spends up to `n_wanted` units, which are not none.
    pub(super) fn spend(&mut self, now: Instant, n_wanted: u64) -> Spending {
        match self.lot {
            Some(lot) if now < lot.from => Spending::NotBefore(lot.from),
            Some(lot) if now < lot.from + LIFE && self.n_spent < lot.n_units => {
                let n = n_wanted.min(lot.n_units - self.n_spent);
                self.n_spent += n;
                Spending::Spent(n)
            }
            _ => Spending::TakesLot(self.wish(now, n_wanted)),
        }
    }

    /// Takes a lot, in place of what is left of the last.
    pub(super) fn take(&mut self, lot: Lot) {
        (self.lot, self.n_spent) = (Some(lot), 0);
    }

    /// How large the next lot should be.
    fn wish(&self, now: Instant, n_wanted: u64) -> u64 {
        let by_use = self.lot.map_or(0, |lot| {
            let lasted = now.saturating_duration_since(lot.from).max(Duration::from_millis(1));
            let by_use = u128::from(self.n_spent) * PERIOD.as_micros() / lasted.as_micros();
            // One that was spent at once says little about what is to come.
            u64::try_from(by_use).unwrap_or(u64::MAX).min(lot.n_units.saturating_mul(2))
        });
        by_use.max(n_wanted).min(self.most)
    }
}

/// What so many units per second are in one period, and at least one.
pub(super) fn per_period(rate: u64) -> u64 {
    let n_units = u128::from(rate) * PERIOD.as_micros() / 1_000_000;
    u64::try_from(n_units).unwrap_or(u64::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A budget of 1000 units per millisecond.
    const RATE: u64 = 1_000_000;
    const MOST: u64 = 24_000;

    const fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    /// A purse with one lot, and when that is there.
    fn purse(n_units: u64) -> (Purse, Instant) {
        let (mut purse, from) = (Purse::new(RATE), Instant::now() + ms(5));
        purse.take(Lot { n_units, from });
        (purse, from)
    }

    #[test]
    fn a_lot_is_spent_from_its_time_on_and_void_soon_after() {
        let (mut purse, from) = purse(100);
        assert_eq!(purse.spend(from - ms(1), 10), Spending::NotBefore(from));
        assert_eq!(purse.spend(from, 70), Spending::Spent(70));
        assert_eq!(purse.spend(from + LIFE - ms(1), 10), Spending::Spent(10));
        assert!(matches!(purse.spend(from + LIFE, 10), Spending::TakesLot(_)), "20 are void");
    }

    #[test]
    fn whoever_wants_more_than_there_is_gets_what_there_is() {
        let (mut purse, from) = purse(100);
        assert_eq!(purse.spend(from, 150), Spending::Spent(100));
        assert!(matches!(purse.spend(from, 50), Spending::TakesLot(_)));
    }

    #[test]
    fn the_first_lot_is_what_is_needed_and_none_is_more_than_a_period_gives() {
        assert_eq!(Purse::new(RATE).spend(Instant::now(), 7), Spending::TakesLot(7));
        assert_eq!(Purse::new(RATE).spend(Instant::now(), MOST * 9), Spending::TakesLot(MOST));
        assert_eq!(Purse::new(1).spend(Instant::now(), 7), Spending::TakesLot(1));
        assert_eq!(Purse::new(u64::MAX).spend(Instant::now(), 7), Spending::TakesLot(7));
    }

    #[test]
    fn the_next_lot_is_what_was_spent_in_a_period() {
        // What was spent of how much, in how many ms, makes a lot of how much.
        for (n_spent, n_units, after, expected) in [
            (1000, 1000, 24, 1000),
            (1000, 1000, 50, 480),
            (1000, 1000, 0, 2000),
            (1000, 1000, 10, 2000),
            (400, 1000, 48, 200),
            (1000, 1000, 400_000, 1),
            (MOST, MOST, 0, MOST),
        ] {
            let (mut purse, from) = purse(n_units);
            assert_eq!(purse.spend(from, n_spent), Spending::Spent(n_spent));
            let now = from + ms(after);
            assert_eq!(purse.spend(now, 1), Spending::TakesLot(expected), "{n_spent} in {after} ms");
        }
    }
}
