//! Reads `Retry-After`: a number of seconds, or the time of day from which to try again.

use std::time::{Duration, SystemTime};

/// The longest wait that is believed. A registry that asks for more is asked again after this; the
/// value comes from outside and must not park a queue for years.
const LONGEST: Duration = Duration::from_secs(6 * 60 * 60);

/// How long to wait, seen at `now`; `None` where the text is neither form. A time that has passed
/// means no wait.
pub fn parse(text: &str, now: SystemTime) -> Option<Duration> {
    let text = text.trim();
    let wait = if !text.is_empty() && text.bytes().all(|it| it.is_ascii_digit()) {
        // More digits than a u64 holds still mean "very long".
        text.parse().map_or(LONGEST, Duration::from_secs)
    } else {
        let until = httpdate::parse_http_date(text).ok()?;
        until.duration_since(now).unwrap_or_default()
    };
    Some(wait.min(LONGEST))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Sun, 06 Nov 1994 08:49:37 GMT.
    const NOW: Duration = Duration::from_secs(784_111_777);

    #[track_caller]
    fn check(text: &str, expected: Option<u64>) {
        assert_eq!(parse(text, SystemTime::UNIX_EPOCH + NOW), expected.map(Duration::from_secs), "{text}");
    }

    #[test]
    fn both_forms_are_read_and_bounded() {
        check("120", Some(120));
        check(" 0 ", Some(0));
        check("Sun, 06 Nov 1994 08:50:37 GMT", Some(60));
        check("Sunday, 06-Nov-94 08:50:37 GMT", Some(60));
        check("Sun, 06 Nov 1994 08:00:00 GMT", Some(0));
        check("Sat, 06 Nov 2094 08:49:37 GMT", Some(6 * 60 * 60));
        check("99999999999999999999999", Some(6 * 60 * 60));
        for bad in ["", "-1", "1.5", "soon", "1 2"] {
            check(bad, None);
        }
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in ".{0,40}") {
            prop_assert!(parse(&text, SystemTime::UNIX_EPOCH).is_none_or(|it| it <= LONGEST));
        }
    }
}
