//! A budget: so many bytes, or requests, of one registry in each second.
//!
//! Whoever wants to spend waits in line. In any five seconds no more than a twentieth more is spent than five seconds'
//! worth, however long nothing was spent before. What is kept of a budget that nobody has spent is therefore little, and a
//! process that is halted for longer than some hundredths of a second loses what it could have spent.

mod purse;
mod share;

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until};

use purse::{Purse, Spending};
use share::Share;

/// A budget, shared by all that spend of it.
pub(crate) struct Budget {
    /// Units per second.
    rate: u64,
    /// By how many gateways it is divided, and this one's part.
    share: ArcSwap<(u32, Share)>,
    /// Whoever has it spends next; the others are in line.
    purse: Mutex<Purse>,
}

impl Budget {
    /// Of so many units per second, for this gateway alone.
    pub(crate) fn new(rate: u64) -> Self {
        Self {
            rate,
            share: ArcSwap::from_pointee((1, Share::new(rate, 1))),
            purse: Mutex::new(Purse::new(rate)),
        }
    }

    /// So many gateways share it from now on.
    pub(crate) fn share(&self, n_sharing: u32) {
        if self.share.load().0 != n_sharing {
            self.share.store(Arc::new((n_sharing, Share::new(self.rate, n_sharing))));
        }
    }

    /// Waits in line until so many units may be spent.
    pub(crate) async fn spend(&self, n_units: u64) {
        let mut left = n_units;
        let mut purse = self.purse.lock().await;
        while left > 0 {
            match purse.spend(Instant::now(), left) {
                Spending::Spent(n) => left -= n,
                Spending::NotBefore(then) => sleep_until(then).await,
                Spending::TakesLot(_) => purse.take(self.share.load_full().1.lot().await),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;
    use tokio::time::sleep;

    use super::*;

    /// What was spent, and when.
    type Log = Arc<std::sync::Mutex<Vec<(Instant, u64)>>>;

    const WINDOW: Duration = Duration::from_secs(5);

    /// A wish to spend so much after so many ms.
    type Wish = (u64, u64);

    /// Has wishes met in a time that passes only while all wait; returns what was spent, and in how long.
    fn spent(budgets: &[Arc<Budget>], wishes: &[Wish]) -> (Log, Duration) {
        let log = Log::default();
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let took = runtime.block_on(async {
            let start = Instant::now();
            let mut tasks = tokio::task::JoinSet::new();
            for (number, (after, n_units)) in wishes.iter().copied().enumerate() {
                let (budget, log) = (budgets[number % budgets.len()].clone(), log.clone());
                tasks.spawn(async move {
                    sleep(Duration::from_millis(after)).await;
                    budget.spend(n_units).await;
                    log.lock().unwrap().push((Instant::now(), n_units));
                });
            }
            tasks.join_all().await;
            start.elapsed()
        });
        (log, took)
    }

    /// Fails where more was spent in any five seconds than a budget of this rate allows.
    #[track_caller]
    fn check_windows(log: &Log, rate: u64) {
        let mut log = log.lock().unwrap().clone();
        log.sort();
        let largest = log.iter().map(|it| it.1).max().unwrap_or(0);
        for (number, (start, _)) in log.iter().enumerate() {
            let within = log[number..].iter().take_while(|it| it.0 < *start + WINDOW);
            let n_units: u64 = within.map(|it| it.1).sum();
            // The first of a window has waited from before it for what it spends.
            assert!(n_units <= rate * 5 * 21 / 20 + largest, "{n_units} of {rate} per second");
        }
    }

    fn alone(rate: u64) -> [Arc<Budget>; 1] {
        [Arc::new(Budget::new(rate))]
    }

    #[test]
    fn what_nobody_has_spent_for_long_comes_to_little() {
        let rate = 1_000_000;
        let [budget] = alone(rate);
        // An hour of nothing, and then as much as there is.
        let wishes: Vec<Wish> = (0..6000).map(|_| (3_600_000, 1000)).collect();
        let (log, took) = spent(&[budget], &wishes);
        check_windows(&log, rate);
        let took = took - Duration::from_secs(3600);
        assert!((Duration::from_millis(5700)..=Duration::from_secs(6)).contains(&took), "{took:?}");
    }

    #[test]
    fn rates_are_kept_that_are_no_whole_number_of_nanoseconds_apart() {
        for rate in [3, 150_000_000, 700_000_000, 5_000_000_000] {
            let wishes: Vec<Wish> = (0..100).map(|_| (0, (rate / 10).max(1))).collect();
            let (log, took) = spent(&alone(rate), &wishes);
            check_windows(&log, rate);
            let total: u64 = log.lock().unwrap().iter().map(|it| it.1).sum();
            let ideal = total as f64 / rate as f64;
            assert!((took.as_secs_f64() / ideal - 1.0).abs() < 0.05, "{rate}: {took:?} for {ideal} s");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn no_five_seconds_see_more_than_a_twentieth_too_much(
            rate in 20_000u64..50_000_000,
            wishes in prop::collection::vec((0u64..20_000, 1u64..400_000), 1..300),
        ) {
            // As much as the budget has, whatever its rate.
            let wishes: Vec<_> = wishes.iter().map(|(after, n)| (*after, n * rate / 2_000_000 + 1)).collect();
            let (log, _) = spent(&alone(rate), &wishes);
            check_windows(&log, rate);
        }
    }
}
