//! A budget: so many bytes, or requests, of one registry in each second.
//!
//! Whoever wants to spend waits in line. In any five seconds no more than a twentieth more is spent than five seconds'
//! worth, however long nothing was spent before. What is kept of a budget that nobody has spent is therefore little, and a
//! process that is halted for longer than some hundredths of a second loses what it could have spent.
//!
//! Gateways that share a budget *borrow* their lots from whoever lends to all of them, and so have it whole, whichever of
//! them has work. A lot may be lent ahead of its time; lots come one after the other, whoever asks. Where nobody lends, each
//! gateway keeps to its *share*, the same for all. What those have who keep to their shares, the others do not borrow.

mod purse;
mod share;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::future::BoxFuture;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until};

use purse::{Lot, PERIOD, Purse, Spending};
use share::Share;

/// How much of a budget that nobody has spent is kept, as the time that it takes to come: what a gateway that asks a little
/// late would else lose.
pub(crate) const CREDIT: Duration = PERIOD;

/// Whoever lends to all gateways that share a budget.
pub(crate) trait Lend: Send + Sync {
    /// Lends what costs `price` of the budget of this name: for so long nothing else of it is lent. Returns how long it is
    /// until that may be spent; `None` where there is nobody to lend, after a second at the most, and the other gateways know.
    fn lend<'a>(&'a self, budget: &'a str, price: Duration) -> BoxFuture<'a, Option<Duration>>;
}

/// How gateways share their budgets.
#[derive(Clone)]
pub(crate) struct Sharing {
    /// How many there are, this one among them.
    pub(crate) n_sharing: u32,
    /// How many of them do not keep to their shares. They may borrow what is left.
    pub(crate) n_borrowing: u32,
    /// From whom; nobody, where this gateway keeps to its share.
    pub(crate) lender: Option<Arc<dyn Lend>>,
}

impl Default for Sharing {
    /// Alone.
    fn default() -> Self {
        Self { n_sharing: 1, n_borrowing: 1, lender: None }
    }
}

/// A budget, shared by all that spend of it.
pub(crate) struct Budget {
    /// By which gateways know that it is the same.
    name: String,
    /// Units per second.
    rate: u64,
    terms: ArcSwap<Terms>,
    /// Whoever has it spends next; the others are in line.
    purse: Mutex<Purse>,
}

struct Terms {
    sharing: Sharing,
    share: Arc<Share>,
}

impl Budget {
    /// Of so many units per second, for this gateway alone.
    pub(crate) fn new(name: String, rate: u64) -> Self {
        let terms = Terms { sharing: Sharing::default(), share: Arc::new(Share::new(rate, 1)) };
        Self { name, rate, terms: ArcSwap::from_pointee(terms), purse: Mutex::new(Purse::new(rate)) }
    }

    /// Gateways share it like this from now on.
    pub(crate) fn share(&self, sharing: &Sharing) {
        let terms = self.terms.load();
        let share = match terms.sharing.n_sharing == sharing.n_sharing {
            // What it has given counts on.
            true => terms.share.clone(),
            false => Arc::new(Share::new(self.rate, sharing.n_sharing)),
        };
        self.terms.store(Arc::new(Terms { sharing: sharing.clone(), share }));
    }

    /// Waits in line until so many units may be spent.
    pub(crate) async fn spend(&self, n_units: u64) {
        let mut left = n_units;
        let mut purse = self.purse.lock().await;
        while left > 0 {
            match purse.spend(Instant::now(), left) {
                Spending::Spent(n) => left -= n,
                Spending::NotBefore(then) => sleep_until(then).await,
                Spending::TakesLot(n_units) => purse.take(self.lot(n_units).await),
            }
        }
    }

    /// A lot of so many units, or what is this gateway's own.
    async fn lot(&self, n_units: u64) -> Lot {
        let terms = self.terms.load_full();
        if let Some(lender) = &terms.sharing.lender {
            let asked = Instant::now();
            if let Some(wait) = lender.lend(&self.name, self.price(n_units, &terms.sharing)).await {
                return Lot { n_units, from: Instant::now().max(asked + wait) };
            }
        }
        terms.share.lot().await
    }

    /// How long those who borrow have to wait for so many units.
    fn price(&self, n_units: u64, sharing: &Sharing) -> Duration {
        let (all, borrowing) = (u128::from(sharing.n_sharing), u128::from(sharing.n_borrowing.max(1)));
        // Whole microseconds, as Redis counts; nothing is for free.
        let micros =
            (u128::from(n_units) * 1_000_000 * all).div_ceil(borrowing * u128::from(self.rate.max(1)));
        Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
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
                    // In parts that are small beside a window, since each is noted when it is had.
                    let mut left = n_units;
                    while left > 0 {
                        let part = left.min((budget.rate / 250).max(1));
                        budget.spend(part).await;
                        log.lock().unwrap().push((Instant::now(), part));
                        left -= part;
                    }
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
        [Arc::new(Budget::new("b".to_owned(), rate))]
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

    // === Several gateways ===

    /// What Redis keeps, and whether it is there.
    struct Bank {
        /// How long an answer takes.
        round_trip: Duration,
        /// When it is away.
        away: std::ops::Range<Duration>,
        origin: std::sync::OnceLock<Instant>,
        next: std::sync::Mutex<Option<Instant>>,
        n_asked: std::sync::atomic::AtomicU64,
    }

    impl Bank {
        fn new(round_trip_ms: u64, away_ms: std::ops::Range<u64>) -> Arc<Self> {
            let ms = Duration::from_millis;
            Arc::new(Self {
                round_trip: ms(round_trip_ms),
                away: ms(away_ms.start)..ms(away_ms.end),
                origin: std::sync::OnceLock::new(),
                next: std::sync::Mutex::default(),
                n_asked: std::sync::atomic::AtomicU64::default(),
            })
        }

        /// As the script does.
        fn lent(&self, price: Duration) -> Option<Duration> {
            let now = Instant::now();
            let origin = *self.origin.get_or_init(|| now);
            if self.away.contains(&(now - origin)) {
                return None;
            }
            self.n_asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let mut next = self.next.lock().unwrap();
            let from = next.filter(|it| *it + CREDIT >= now).unwrap_or(now - CREDIT);
            *next = Some(from + price);
            Some(from.saturating_duration_since(now))
        }
    }

    impl Lend for Bank {
        fn lend<'a>(&'a self, _: &'a str, price: Duration) -> BoxFuture<'a, Option<Duration>> {
            Box::pin(async move {
                sleep(self.round_trip / 2).await;
                let wait = self.lent(price);
                sleep(self.round_trip / 2).await;
                wait
            })
        }
    }

    fn gateways(n: u32, rate: u64, bank: &Arc<Bank>) -> Vec<Arc<Budget>> {
        let lender: Arc<dyn Lend> = bank.clone();
        let sharing = Sharing { n_sharing: n, n_borrowing: n, lender: Some(lender) };
        let budgets = (0..n).map(|_| Arc::new(Budget::new("b".to_owned(), rate)));
        budgets.inspect(|it| it.share(&sharing)).collect()
    }

    #[track_caller]
    fn check_time(took: Duration, ideal: f64) {
        assert!((took.as_secs_f64() / ideal - 1.0).abs() < 0.05, "{took:?} for {ideal} s");
    }

    #[test]
    fn a_gateway_with_work_has_what_the_others_do_not_need() {
        let (rate, bank) = (1_000_000, Bank::new(2, 0..0));
        let budgets = gateways(4, rate, &bank);
        // As many frames as come in ten seconds, all to one of them.
        let wishes: Vec<Wish> = (0..1000).map(|_| (0, 10_000)).collect();
        let (log, took) = spent(&budgets[..1], &wishes);
        check_windows(&log, rate);
        check_time(took, 10.0);
        let n_asked = bank.n_asked.load(std::sync::atomic::Ordering::Relaxed);
        assert!((100..=500).contains(&n_asked), "{n_asked} questions in ten seconds");
    }

    #[test]
    fn all_together_have_the_whole_budget_and_each_asks_little() {
        let (rate, bank) = (1_000_000, Bank::new(2, 0..0));
        let budgets = gateways(3, rate, &bank);
        // Small and large ones, and not the same for each gateway.
        let wishes: Vec<Wish> = (0..3000).map(|it| (0, if it % 3 == 0 { 1000 } else { 4500 })).collect();
        let (log, took) = spent(&budgets, &wishes);
        check_windows(&log, rate);
        check_time(took, 10.0);
        let n_asked = bank.n_asked.load(std::sync::atomic::Ordering::Relaxed);
        assert!(n_asked <= 3 * 500, "{n_asked} questions of three in ten seconds");
    }

    #[test]
    fn small_wishes_far_apart_leave_the_rest_to_others() {
        let (rate, bank) = (1_000_000, Bank::new(2, 0..0));
        let budgets = gateways(2, rate, &bank);
        // One reads a little every 30 ms, the other as much as it can, in ten seconds.
        let wishes = (0..333).flat_map(|it| [(it * 30, 1000), (0, 28_000)]);
        let (log, took) = spent(&budgets, &wishes.collect::<Vec<_>>());
        check_windows(&log, rate);
        check_time(took, 9.66);
    }

    #[test]
    fn without_whoever_lends_each_has_its_share_and_afterwards_all_have_it_together() {
        // Away from the third second to the tenth. One gateway has work, and half of it meanwhile.
        let (rate, bank) = (1_000_000, Bank::new(2, 3000..10_000));
        let budgets = gateways(2, rate, &bank);
        let wishes: Vec<Wish> = (0..1000).map(|_| (0, 10_000)).collect();
        let (log, took) = spent(&budgets[..1], &wishes);
        check_windows(&log, rate);
        check_time(took, 13.5);
        // Both have, and all of it the whole time.
        let (log, took) = spent(&gateways(2, rate, &Bank::new(2, 3000..10_000)), &wishes);
        check_windows(&log, rate);
        check_time(took, 10.0);
    }

    #[test]
    fn what_one_keeps_for_itself_the_other_does_not_borrow() {
        let (rate, bank) = (1_000_000, Bank::new(2, 0..0));
        let budgets = gateways(2, rate, &bank);
        let lender: Arc<dyn Lend> = bank.clone();
        budgets[0].share(&Sharing { n_sharing: 2, n_borrowing: 1, lender: Some(lender) });
        budgets[1].share(&Sharing { n_sharing: 2, n_borrowing: 1, lender: None });
        let wishes: Vec<Wish> = (0..1000).map(|_| (0, 10_000)).collect();
        let (log, took) = spent(&budgets, &wishes);
        check_windows(&log, rate);
        check_time(took, 10.0);
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

        #[test]
        fn nor_do_they_where_several_borrow_and_keep_to_shares_in_turn(
            (n, rate, round_trip) in (1u32..8, 20_000u64..50_000_000, 0u64..20),
            (away, away_for) in (0u64..20_000, 0u64..10_000),
            wishes in prop::collection::vec((0u64..20_000, 1u64..400_000), 1..300),
        ) {
            let wishes: Vec<_> = wishes.iter().map(|(after, n)| (*after, n * rate / 2_000_000 + 1)).collect();
            let budgets = gateways(n, rate, &Bank::new(round_trip, away..away + away_for));
            let (log, _) = spent(&budgets, &wishes);
            check_windows(&log, rate);
        }
    }
}
