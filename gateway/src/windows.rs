//! Times of the day: when background seeding may go on.
//!
//! A window is a part of each day by the clock of one place, and may pass midnight. Where that clock is set forward or
//! back, the window goes with it: what matters is what the clock shows.
//!
//! Knows nothing of: what the time is now, what waits for a window.

use std::str::FromStr;
use std::time::SystemTime;

use jiff::Timestamp;
use jiff::civil::Time;
use jiff::tz::TimeZone;

/// Part of each day; the end is not in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    from: Time,
    until: Time,
}

impl FromStr for Window {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let time = |text: &str| Time::strptime("%H:%M", text.trim()).ok();
        let times = text.split_once('-').and_then(|(from, until)| Some((time(from)?, time(until)?)));
        match times {
            Some((from, until)) if from == until => {
                Err("begins when it ends: name no window for the whole day".to_owned())
            }
            Some((from, until)) => Ok(Self { from, until }),
            None => Err("is not of the form 22:00-06:00".to_owned()),
        }
    }
}

impl Window {
    fn includes(self, time: Time) -> bool {
        if self.from < self.until {
            self.from <= time && time < self.until
        } else {
            self.from <= time || time < self.until
        }
    }
}

/// Some windows; without any it is always time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Windows {
    windows: Vec<Window>,
    zone: TimeZone,
}

impl Windows {
    /// By the clocks of this zone.
    pub const fn new(windows: Vec<Window>, zone: TimeZone) -> Self {
        Self { windows, zone }
    }

    /// Whether one is open at this time.
    pub(crate) fn is_open(&self, now: SystemTime) -> bool {
        // A clock that shows no time that is known is no reason to wait for ever.
        let Ok(now) = Timestamp::try_from(now) else { return true };
        let shown = self.zone.to_datetime(now).time();
        self.windows.is_empty() || self.windows.iter().any(|it| it.includes(shown))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(windows: &[&str], zone: &str, open: &[&str], shut: &[&str]) {
        let zone = TimeZone::get(zone).unwrap();
        let windows = Windows::new(windows.iter().map(|it| it.parse().unwrap()).collect(), zone);
        for (times, expected) in [(open, true), (shut, false)] {
            for time in times {
                let now = time.parse::<Timestamp>().unwrap();
                assert_eq!(windows.is_open(now.try_into().unwrap()), expected, "{windows:?} at {time}");
            }
        }
    }

    #[test]
    fn a_window_is_open_from_its_beginning_to_before_its_end() {
        let open = ["2026-03-02T09:00:00Z", "2026-03-02T16:59:59.9Z"];
        check(&["09:00-17:00"], "UTC", &open, &["2026-03-02T08:59:59Z", "2026-03-02T17:00:00Z"]);
        check(&[], "UTC", &open, &[]);
    }

    #[test]
    fn a_window_may_pass_midnight_and_there_may_be_several() {
        check(
            &["22:00-06:00", "12:00-13:00"],
            "UTC",
            &["2026-03-02T22:00:00Z", "2026-03-02T00:00:00Z", "2026-03-02T05:59:00Z", "2026-03-02T12:30:00Z"],
            &["2026-03-02T06:00:00Z", "2026-03-02T21:59:00Z", "2026-03-02T13:00:00Z"],
        );
    }

    #[test]
    fn what_the_clock_of_the_place_shows_counts_summer_and_winter() {
        check(
            &["22:00-06:00"],
            "Europe/Berlin",
            &["2026-01-10T21:00:00Z", "2026-07-10T20:00:00Z", "2026-07-10T03:59:00Z"],
            &["2026-01-10T20:59:00Z", "2026-07-10T19:59:00Z", "2026-07-10T04:00:00Z"],
        );
        // In the night of 29 March 2026 it shows 03:00 after 01:59, and so never a time of this window; in that of
        // 25 October it shows those times twice.
        check(
            &["02:00-03:00"],
            "Europe/Berlin",
            &["2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z"],
            &["2026-03-29T00:59:59Z", "2026-03-29T01:00:00Z", "2026-10-25T02:00:00Z"],
        );
    }

    #[test]
    fn what_is_no_window_is_told() {
        for wrong in ["", "22:00", "22-6", "24:00-06:00", "22:00-06:60", "a-b"] {
            assert!(wrong.parse::<Window>().unwrap_err().contains("is not of the form"), "{wrong}");
        }
        assert!("06:00-06:00".parse::<Window>().unwrap_err().contains("begins when it ends"));
    }
}
