//! What arrived and what was read for it, by parts of an hour.
//!
//! Knows nothing of: who counts, files, clocks.

use std::collections::BTreeMap;
use std::ops::AddAssign;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use shoal_proto::TotalReply;

use crate::timestamp::Timestamp;

/// How long a step is.
pub(super) const STEP: Duration = Duration::from_secs(10 * 60);
/// How far back steps are kept.
pub(super) const KEPT: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Bytes that were moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Moved {
    /// To nodes, from peers and gateways.
    pub(super) arrived: u64,
    /// Into the region, by its gateways.
    pub(super) read: u64,
}

impl AddAssign for Moved {
    fn add_assign(&mut self, more: Self) {
        self.arrived = self.arrived.saturating_add(more.arrived);
        self.read = self.read.saturating_add(more.read);
    }
}

/// Steps by their numbers since 1970; those in which nothing moved are left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Series {
    /// Since when something would have been noted.
    since: Timestamp,
    steps: BTreeMap<u64, Moved>,
}

impl Series {
    /// Notes what moves from now on.
    pub(super) const fn new(now: Timestamp) -> Self {
        Self { since: now, steps: BTreeMap::new() }
    }

    /// Notes what has moved, and forgets what is too old; true where there was anything.
    pub(super) fn add(&mut self, now: Timestamp, moved: Moved) -> bool {
        let first = number(now).saturating_sub(KEPT.as_secs() / STEP.as_secs());
        self.steps = self.steps.split_off(&first);
        self.since = self.since.max(begin(first));
        let is_any = moved != Moved::default();
        if is_any {
            *self.steps.entry(number(now)).or_default() += moved;
        }
        is_any
    }

    /// Since when something would have been noted.
    pub(super) const fn since(&self) -> Timestamp {
        self.since
    }

    /// The steps that end after `from`, each with its beginning.
    pub(super) fn from(&self, from: Timestamp) -> impl Iterator<Item = (Timestamp, Moved)> {
        self.steps.range(number(from)..).map(|(number, moved)| (begin(*number), *moved))
    }
}

const fn number(at: Timestamp) -> u64 {
    at.seconds() / STEP.as_secs()
}

fn begin(number: u64) -> Timestamp {
    Timestamp::of_millis(number.saturating_mul(STEP.as_millis() as u64))
}

/// Counts that only go up, and begin anew where they begin anew: each as it was seen last, and when.
#[derive(Debug, Default)]
pub(super) struct Counts(BTreeMap<String, (u64, Duration)>);

impl Counts {
    /// What has been counted there since it was last looked at, or since `now` was zero: all of it where the count has
    /// begun since then. Of one that is seen for the first time and is older nobody knows what is new.
    pub(super) fn look(&mut self, now: Duration, who: String, total: TotalReply) -> u64 {
        let last = self.0.insert(who, (total.bytes, now));
        let unseen = now.saturating_sub(last.map_or(Duration::ZERO, |(_, at)| at));
        match last {
            _ if total.counted_for <= unseen => total.bytes,
            Some((bytes, _)) => total.bytes.saturating_sub(bytes),
            None => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(steps: u64, seconds: u64) -> Timestamp {
        Timestamp::of_millis((steps * STEP.as_secs() + seconds) * 1000)
    }

    const fn moved(arrived: u64, read: u64) -> Moved {
        Moved { arrived, read }
    }

    fn all(series: &Series, from: Timestamp) -> Vec<(Timestamp, Moved)> {
        series.from(from).collect()
    }

    #[test]
    fn what_moves_within_a_step_adds_up() {
        let mut series = Series::new(at(1_000_000, 0));
        assert!(series.add(at(1_000_000, 1), moved(5, 1)));
        assert!(series.add(at(1_000_000, 599), moved(2, 1)));
        assert!(!series.add(at(1_000_001, 0), moved(0, 0)));
        assert!(series.add(at(1_000_002, 3), moved(1, 0)));
        let expected = [(at(1_000_000, 0), moved(7, 2)), (at(1_000_002, 0), moved(1, 0))];
        assert_eq!(all(&series, at(0, 0)), expected);
        assert_eq!(all(&series, at(1_000_000, 300)), expected);
        assert_eq!(all(&series, at(1_000_001, 0)), expected[1..]);
    }

    #[test]
    fn what_is_too_old_is_forgotten() {
        let kept = KEPT.as_secs() / STEP.as_secs();
        let mut series = Series::new(at(1_000_000, 7));
        series.add(at(1_000_000, 7), moved(1, 1));
        series.add(at(1_000_000 + kept, 0), moved(2, 2));
        assert_eq!((all(&series, at(0, 0)).len(), series.since()), (2, at(1_000_000, 7)));
        series.add(at(1_000_001 + kept, 0), moved(3, 3));
        assert_eq!((all(&series, at(0, 0)).len(), series.since()), (2, at(1_000_001, 0)));
    }

    #[test]
    fn only_what_is_counted_between_two_looks_counts() {
        let mut counts = Counts::default();
        let mut look = |now, who: &str, bytes, counted_for| {
            let counted_for = Duration::from_secs(counted_for);
            counts.look(Duration::from_secs(now), who.to_owned(), TotalReply { bytes, counted_for })
        };
        assert_eq!(look(5, "old", 7, 100), 0, "it has counted before");
        assert_eq!(look(10, "old", 9, 105), 2);
        assert_eq!(look(15, "new", 6, 3), 6, "it began meanwhile");
        assert_eq!(look(20, "new", 6, 8), 0);
        assert_eq!(look(25, "new", 8, 4), 8, "it has begun anew, and has come further than before");
        assert_eq!(look(60, "old", 1, 30), 1, "the same, while nobody could look");
        assert_eq!(look(65, "old", 0, 35), 0);
    }
}
