//! When scheduled preheats are due.
//!
//! Times are those of cron, in UTC: five fields, from the minute to the day of the week. A run that was missed, because
//! the process or the whole machine stood still, is not made up for: the next one comes soon enough, and a fleet that
//! wakes up has better things to do. A clock that is set forward has the same effect. One that is set back a little
//! repeats nothing; one that is set back by more than [`BACK`] was wrong before, and what was planned by it is planned
//! anew.
//!
//! Knows nothing of: clocks, tasks, images.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use chrono::{DateTime, Utc};
use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};

use crate::timestamp::Timestamp;

/// A run this late is made still.
const LATE: Duration = Duration::from_secs(5 * 60);
/// A clock that goes back by this much was wrong before.
const BACK: Duration = Duration::from_secs(60 * 60);
/// How long is slept at most: after that a clock that was set is noticed.
const NAP: Duration = Duration::from_secs(60);

/// Times that come again and again, as cron has them.
#[derive(Clone, PartialEq, Eq)]
pub struct Times(Cron);

/// A text that is no times, or such as never come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "is not the five fields of cron, minute, hour, day, month and day of the week, of a time that comes: 0 2 * * *"
)]
pub struct TimesError;

impl Times {
    /// The first of them after `now`.
    pub fn next(&self, now: Timestamp) -> Option<Timestamp> {
        let now = DateTime::<Utc>::from_timestamp_millis(i64::try_from(now.millis()).ok()?)?;
        let next = self.0.find_next_occurrence(&now, false).ok()?;
        u64::try_from(next.timestamp_millis()).ok().map(Timestamp::of_millis)
    }
}

impl FromStr for Times {
    type Err = TimesError;

    fn from_str(text: &str) -> Result<Self, TimesError> {
        if text.split_whitespace().count() != 5 {
            return Err(TimesError);
        }
        let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
        let times = Self(parser.parse(text).map_err(|_| TimesError)?);
        // The 30th of February is well written and never comes.
        times.next(Timestamp::of_millis(0)).map(|_| times).ok_or(TimesError)
    }
}

impl fmt::Debug for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str())
    }
}

/// Several times, and what was done about them so far.
#[derive(Debug)]
pub(super) struct Timetable {
    rows: Vec<Row>,
    /// When it was last looked at.
    looked: Timestamp,
}

#[derive(Debug)]
struct Row {
    times: Times,
    due: Option<Timestamp>,
}

/// What is to be done at a moment, by the places of the times in the table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Due {
    /// To be done now.
    pub(super) now: Vec<usize>,
    /// Missed, and not to be done any more.
    pub(super) missed: Vec<usize>,
}

impl Timetable {
    pub(super) fn new(times: impl IntoIterator<Item = Times>, now: Timestamp) -> Self {
        let row = |times: Times| Row { due: times.next(now), times };
        Self { rows: times.into_iter().map(row).collect(), looked: now }
    }

    /// What is due.
    pub(super) fn look(&mut self, now: Timestamp) -> Due {
        let was_wrong = self.looked.since(now) > BACK;
        self.looked = now;
        let mut due = Due::default();
        for (at, row) in self.rows.iter_mut().enumerate() {
            match row.due {
                _ if was_wrong => {}
                Some(time) if time <= now => {
                    let list = if now.since(time) <= LATE { &mut due.now } else { &mut due.missed };
                    list.push(at);
                }
                _ => continue,
            }
            row.due = row.times.next(now);
        }
        due
    }

    /// How long there is nothing to look for; none where there never is anything.
    pub(super) fn sleep(&self, now: Timestamp) -> Option<Duration> {
        let next = self.rows.iter().filter_map(|it| it.due).min()?;
        // Not a moment early: it would be looked for in vain.
        Some((next.since(now) + Duration::from_millis(1)).min(NAP))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> Timestamp {
        format!("2026-06-{text}Z").parse().unwrap()
    }

    #[track_caller]
    fn check(times: &str, now: &str, expected: Option<&str>) {
        let next = times.parse::<Times>().unwrap().next(now.parse().unwrap());
        assert_eq!(next.map(|it| it.to_string()).as_deref(), expected, "{times} {now}");
    }

    #[test]
    fn times_are_crons_in_utc() {
        check("0 2 * * *", "2026-06-01T01:59:59Z", Some("2026-06-01T02:00:00.000Z"));
        check("0 2 * * *", "2026-06-01T02:00:00Z", Some("2026-06-02T02:00:00.000Z"));
        check("*/15 8-17 * * MON-FRI", "2026-06-05T17:46:00Z", Some("2026-06-08T08:00:00.000Z"));
        check("0 0 29 2 *", "2026-06-01T00:00:00Z", Some("2028-02-29T00:00:00.000Z"));
        // Summer time begins in Europe in that night, and not in UTC.
        check("30 2 * * *", "2027-03-28T00:00:00Z", Some("2027-03-28T02:30:00.000Z"));
    }

    #[test]
    fn what_is_no_time_or_never_comes_is_refused() {
        for text in [
            "",
            "2",
            "0 2 * *",
            "0 0 2 * * *",
            "0 2 * * * 2027",
            "60 2 * * *",
            "x 2 * * *",
            "0 0 30 2 *",
            "@daily",
        ] {
            assert_eq!(text.parse::<Times>(), Err(TimesError), "{text}");
        }
    }

    /// Looks at a table of `0 2 * * *` and `30 * * * *` at these moments.
    #[track_caller]
    fn looks(moments: &[(&str, &[usize], &[usize])]) {
        let times = ["0 2 * * *", "30 * * * *"].map(|it| it.parse().unwrap());
        let mut table = Timetable::new(times, at(moments[0].0));
        for (moment, now, missed) in &moments[1..] {
            let expected = Due { now: now.to_vec(), missed: missed.to_vec() };
            assert_eq!(table.look(at(moment)), expected, "{moment}");
        }
    }

    #[test]
    fn each_run_comes_once_when_its_time_has_come() {
        looks(&[
            ("01T01:59:00", &[], &[]),
            ("01T01:59:59", &[], &[]),
            ("01T02:00:00", &[0], &[]),
            ("01T02:00:01", &[], &[]),
            ("01T02:30:20", &[1], &[]),
            ("01T02:30:21", &[], &[]),
        ]);
    }

    #[test]
    fn what_was_missed_is_not_made_up_for() {
        looks(&[
            ("01T01:00:00", &[], &[]),
            ("03T09:40:00", &[], &[0, 1]),
            ("03T10:30:00", &[1], &[]),
            ("03T10:35:00", &[], &[]),
            ("04T02:04:00", &[0], &[1]),
        ]);
    }

    #[test]
    fn a_clock_that_is_set_back_repeats_nothing_and_stops_nothing() {
        looks(&[
            ("01T01:59:00", &[], &[]),
            ("01T02:00:00", &[0], &[]),
            ("01T01:50:00", &[], &[]),
            ("01T02:00:01", &[], &[]),
            ("01T02:30:00", &[1], &[]),
        ]);
        looks(&[
            ("20T01:59:00", &[], &[]),
            ("20T02:00:00", &[0], &[]),
            ("01T01:00:00", &[], &[]),
            ("01T01:30:00", &[1], &[]),
            ("01T02:00:00", &[0], &[]),
        ]);
    }

    #[test]
    fn one_sleeps_until_the_next_and_never_long() {
        let table = |times: &str| Timetable::new([times.parse().unwrap()], at("01T01:00:00"));
        assert_eq!(table("0 2 * * *").sleep(at("01T01:00:00")), Some(NAP));
        assert_eq!(table("0 2 * * *").sleep(at("01T01:59:59")), Some(Duration::from_millis(1_001)));
        assert_eq!(table("0 2 * * *").sleep(at("01T02:00:01")), Some(Duration::from_millis(1)));
        assert_eq!(Timetable::new([], at("01T01:00:00")).sleep(at("01T01:00:00")), None);
    }

    proptest! {
        #[test]
        fn no_text_is_too_strange(text in "[0-9*/,#LW?-]{0,8}( [0-9*/,-]{0,8}){0,6}|.*", now in 0_u64..253_402_300_799_999) {
            if let Ok(times) = text.parse::<Times>() {
                let now = Timestamp::of_millis(now);
                prop_assert!(times.next(now).is_none_or(|it| it > now));
            }
        }
    }
}
