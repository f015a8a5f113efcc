//! When a background seed may read, and how fast.
//!
//! It reads within its time windows and at a rate of its own, which is part of the registry's. Where the registry's rate
//! is limited, it waits while a live seed reads; and it gives up its place in the middle where a live one waits for one, or
//! where its window has ended. It then reads on by range later. One that reads by way of the hub gives it up wherever it
//! would wait: what has been sent to it already is in the way of the others, which come over the same connection.

use std::time::{Duration, SystemTime};

use shoal_model::ByteRate;
use shoal_oci::RegistryName;
use tokio::sync::watch;
use tokio::time::sleep;

use crate::budget::{Budget, Sharing};
use crate::limits::LimitSettings;
use crate::priority::Urgency;
use crate::queue::Queue;
use crate::windows::Windows;

/// How often it is looked what the clock shows: it may be set at any time.
const LOOK: Duration = Duration::from_secs(5);

/// How blobs are seeded that nobody waits for yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackgroundSettings {
    /// Bytes per second, of the registry's; `None` is no further limit.
    pub bytes_per_second: Option<ByteRate>,
    /// When.
    pub windows: Windows,
}

/// What a background seed sees around it.
#[derive(Clone, Copy, Debug)]
struct Seen {
    /// It is its time.
    is_open: bool,
    /// A live one waits for a place.
    live_waits: bool,
    /// A live one reads.
    live_reads: bool,
    /// What one reads, another cannot.
    is_limited: bool,
    /// What one has not read yet is in the way of others.
    is_in_the_way: bool,
}

/// What it does then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Read,
    /// It keeps its place, and reads nothing.
    Wait,
    /// It gives up its place.
    StepAside,
}

const fn next(seen: Seen) -> Next {
    match seen {
        Seen { is_open: false, .. } | Seen { live_waits: true, .. } => Next::StepAside,
        Seen { live_reads: true, is_limited: true, is_in_the_way: true, .. } => Next::StepAside,
        Seen { live_reads: true, is_limited: true, .. } => Next::Wait,
        Seen { .. } => Next::Read,
    }
}

/// The background seeds of one registry, and the live ones that they mind.
pub(crate) struct Background {
    settings: BackgroundSettings,
    rate: Option<Budget>,
    /// Whether the registry's rate is limited.
    is_limited: bool,
    /// Whether it is read by way of the hub.
    is_behind_hub: bool,
    n_live: watch::Sender<usize>,
}

/// A seed that reads, counted while it is live.
pub(crate) struct AtWork {
    n_live: watch::Sender<usize>,
    urgency: Urgency,
    is_counted: bool,
}

impl AtWork {
    /// Looks whether it has become live.
    pub(crate) fn look(&mut self) {
        if !self.is_counted && self.urgency.is_live() {
            self.is_counted = true;
            self.n_live.send_modify(|it| *it += 1);
        }
    }
}

impl Drop for AtWork {
    fn drop(&mut self) {
        if self.is_counted {
            self.n_live.send_modify(|it| *it -= 1);
        }
    }
}

impl Background {
    /// Of a registry with these limits.
    pub(crate) fn new(
        registry: &RegistryName,
        settings: BackgroundSettings,
        whole: &LimitSettings,
        is_behind_hub: bool,
    ) -> Self {
        let budget = |it: ByteRate| Budget::new(format!("{registry}:background"), it.0);
        let rate = settings.bytes_per_second.map(budget);
        let is_limited = whole.bytes_per_second.is_some();
        Self { settings, rate, is_limited, is_behind_hub, n_live: watch::Sender::new(0) }
    }

    /// Gateways share the registry like this from now on.
    pub(crate) fn share(&self, sharing: &Sharing) {
        self.rate.iter().for_each(|it| it.share(sharing));
    }

    /// Counts a seed that reads.
    pub(crate) fn at_work(&self, urgency: &Urgency) -> AtWork {
        let mut it = AtWork { n_live: self.n_live.clone(), urgency: urgency.clone(), is_counted: false };
        it.look();
        it
    }

    /// Waits until it is time to stand in `line`; at once for a live seed.
    pub(crate) async fn time(&self, urgency: &Urgency) {
        let mut n_live = self.n_live.subscribe();
        loop {
            let is_busy = self.is_limited && *n_live.borrow_and_update() > 0;
            if urgency.is_live() || (self.is_open() && !is_busy) {
                return;
            }
            tokio::select! {
                () = urgency.until_live() => {}
                // `self` keeps the sender.
                _ = n_live.changed() => {}
                () = sleep(LOOK) => {}
            }
        }
    }

    /// Waits until a seed that has a place before `line` may have read so many bytes, as far as others are minded;
    /// false where it is to give that up. At once for a live one.
    pub(crate) async fn bytes(&self, urgency: &Urgency, line: &Queue, n_bytes: usize) -> bool {
        if urgency.is_live() {
            return true;
        }
        tokio::select! {
            biased;
            () = urgency.until_live() => true,
            goes_on = self.goes_on(line) => {
                if let (true, Some(rate)) = (goes_on, &self.rate) {
                    tokio::select! {
                        () = urgency.until_live() => {}
                        () = rate.spend(n_bytes as u64) => {}
                    }
                }
                goes_on
            }
        }
    }

    async fn goes_on(&self, line: &Queue) -> bool {
        let (mut n_live, mut live_waits) = (self.n_live.subscribe(), line.live_waits());
        loop {
            let seen = Seen {
                is_open: self.is_open(),
                live_waits: line.keeps_live_waiting(),
                live_reads: *n_live.borrow_and_update() > 0,
                is_limited: self.is_limited,
                is_in_the_way: self.is_behind_hub,
            };
            match next(seen) {
                Next::Read => return true,
                Next::StepAside => return false,
                Next::Wait => {}
            }
            tokio::select! {
                // The senders live as long as `self` and the line.
                _ = n_live.changed() => {}
                _ = live_waits.changed() => {}
                () = sleep(LOOK) => {}
            }
        }
    }

    fn is_open(&self) -> bool {
        self.settings.windows.is_open(SystemTime::now())
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use jiff::tz::TimeZone;

    use super::*;
    use crate::priority::Priority;

    #[track_caller]
    fn check(text: &str, expected: Next) {
        let says = |word| text.split(' ').any(|it| it == word);
        let seen = Seen {
            is_open: says("open"),
            live_waits: says("waits"),
            live_reads: says("reads"),
            is_limited: says("limited"),
            is_in_the_way: says("in-the-way"),
        };
        assert_eq!(next(seen), expected, "{text}");
    }

    #[test]
    fn a_background_seed_reads_what_live_ones_leave_and_in_its_time() {
        check("open", Next::Read);
        check("open limited", Next::Read);
        check("open reads", Next::Read);
        check("open reads limited", Next::Wait);
        check("open reads limited in-the-way", Next::StepAside);
        check("open limited in-the-way", Next::Read);
        check("open waits", Next::StepAside);
        check("open waits reads limited", Next::StepAside);
        check("limited", Next::StepAside);
        check("reads limited", Next::StepAside);
    }

    fn background(windows: &[&str], rate: Option<u64>) -> Background {
        let windows = windows.iter().map(|it| it.parse().unwrap()).collect();
        let settings = BackgroundSettings {
            bytes_per_second: rate.map(ByteRate),
            windows: Windows::new(windows, TimeZone::UTC),
        };
        let whole = LimitSettings {
            bytes_per_second: Some(ByteRate(1 << 30)),
            requests_per_second: None,
            concurrent_blobs: 1,
        };
        Background::new(&"registry.example".parse().unwrap(), settings, &whole, false)
    }

    /// Windows that are shut now, and stay so for hours.
    fn shut() -> [String; 1] {
        let now = TimeZone::UTC.to_datetime(jiff::Timestamp::now()).time();
        let [from, until] = [3, 4].map(|it| now.wrapping_add(jiff::SignedDuration::from_hours(it)));
        [format!("{}-{}", from.strftime("%H:%M"), until.strftime("%H:%M"))]
    }

    #[tokio::test(start_paused = true)]
    async fn outside_its_windows_it_waits_until_somebody_wants_it() {
        let shut = shut();
        let background = background(&[&shut[0]], None);
        let (urgency, line) = (Urgency::new(Priority::Background), Queue::new(1));
        assert_eq!(background.bytes(&urgency, &line, 1).now_or_never(), Some(false), "it steps aside");
        let waiting = tokio::time::timeout(LOOK * 10, background.time(&urgency));
        assert!(waiting.await.is_err());
        urgency.rise(Priority::Live);
        background.time(&urgency).await;
        assert!(background.bytes(&urgency, &line, 1 << 40).await, "no rate of the background's counts");
    }

    #[tokio::test(start_paused = true)]
    async fn while_a_live_one_reads_it_waits_and_steps_aside_for_one_that_waits() {
        let background = background(&[], None);
        let (urgency, line) = (Urgency::new(Priority::Background), Queue::new(1));
        let _place = line.enter(&urgency, |_| {}).await;
        assert!(background.bytes(&urgency, &line, 1).await);
        let mut other = background.at_work(&Urgency::live());
        other.look();
        let mut waiting = Box::pin(background.bytes(&urgency, &line, 1));
        assert_eq!(futures_util::poll!(&mut waiting), std::task::Poll::Pending);
        drop(other);
        assert!(waiting.await);
        let live = Urgency::live();
        let mut wanting = Box::pin(line.enter(&live, |_| {}));
        assert!(futures_util::poll!(&mut wanting).is_pending());
        assert!(!background.bytes(&urgency, &line, 1).await);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_becomes_live_is_counted_as_such() {
        let background = background(&[], None);
        let urgency = Urgency::new(Priority::Background);
        let mut at_work = background.at_work(&urgency);
        assert_eq!(*background.n_live.borrow(), 0);
        urgency.rise(Priority::Live);
        at_work.look();
        at_work.look();
        assert_eq!(*background.n_live.borrow(), 1);
        drop(at_work);
        assert_eq!(*background.n_live.borrow(), 0);
    }
}
