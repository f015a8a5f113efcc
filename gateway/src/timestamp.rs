//! A moment as people and files see it: RFC 3339 in UTC, to the millisecond.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use shoal_ops::settings::Setting;

/// A moment between 1970 and 9999, in milliseconds since the former.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(u64);

/// A text that is no moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not a time in UTC such as 2027-01-01T00:00:00Z")]
pub struct TimestampError;

impl Timestamp {
    /// The last moment that has four digits for its year.
    const LAST: Self = Self(253_402_300_799_999);

    /// A clock's time; the nearest moment where that lies outside.
    pub fn of(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).map_or(Self::LAST, Self::of_millis)
    }

    /// What the clock says.
    pub fn now() -> Self {
        Self::of(SystemTime::now())
    }

    /// Whole seconds since 1970.
    pub(crate) const fn seconds(self) -> u64 {
        self.0 / 1000
    }

    /// So many milliseconds after the beginning of 1970; the last moment where that lies beyond.
    pub fn of_millis(millis: u64) -> Self {
        Self(millis).min(Self::LAST)
    }

    /// Milliseconds since the beginning of 1970.
    pub const fn millis(self) -> u64 {
        self.0
    }

    /// Time passed since `earlier`; zero where `earlier` lies ahead.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(self.0)).fmt(f)
    }
}

impl FromStr for Timestamp {
    type Err = TimestampError;

    fn from_str(text: &str) -> Result<Self, TimestampError> {
        humantime::parse_rfc3339(text).map(Self::of).map_err(|_| TimestampError)
    }
}

impl Setting for Timestamp {
    fn read(text: &str) -> Result<Self, String> {
        text.parse().map_err(|it: TimestampError| it.to_string())
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(|it| de::Error::custom(format_args!("{text:?} {it}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(text: &str, expected: Option<&str>) {
        let shown = text.parse::<Timestamp>().ok().map(|it| it.to_string());
        assert_eq!(shown.as_deref(), expected, "{text}");
    }

    #[test]
    fn a_moment_is_written_in_utc_to_the_millisecond() {
        check("2027-01-01T00:00:00Z", Some("2027-01-01T00:00:00.000Z"));
        check("2026-11-25T01:21:49.798091399Z", Some("2026-11-25T01:21:49.798Z"));
        check("9999-12-31T23:59:59.999Z", Some("9999-12-31T23:59:59.999Z"));
        for bad in ["", "2027", "2027-01-01", "2027-01-01T00:00:00+01:00", "2027-13-01T00:00:00Z"] {
            check(bad, None);
        }
    }

    #[test]
    fn a_clock_that_is_far_off_gives_the_nearest_moment() {
        let far = Duration::from_secs(400_000_000_000);
        assert_eq!(Timestamp::of(UNIX_EPOCH - Duration::from_secs(1)), Timestamp(0));
        assert_eq!(Timestamp::of(UNIX_EPOCH + far), Timestamp::LAST);
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_back(millis in 0..=Timestamp::LAST.0) {
            prop_assert_eq!(Timestamp(millis).to_string().parse(), Ok(Timestamp(millis)));
        }

        #[test]
        fn no_text_is_too_strange(text: String) {
            let _ = text.parse::<Timestamp>();
        }
    }
}
