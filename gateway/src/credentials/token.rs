//! Reads what a token service answers.
//!
//! The token stands in `token`, in `access_token`, or in both; some services send the one they do not use
//! as an empty text. A service that does not say how long a token lives means 60 seconds.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

const UNKNOWN: Duration = Duration::from_secs(60);
/// A token is not used for its last seconds: it must still be good when the registry looks at it.
const MARGIN: Duration = Duration::from_secs(10);
/// No token is used for longer: a right that was withdrawn has to show some time.
const LONGEST: Duration = Duration::from_secs(60 * 60);

/// A token, and how long it may be used from when it was given.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) text: String,
    pub(super) usable: Duration,
}

#[derive(Deserialize)]
struct Answer {
    token: Option<String>,
    access_token: Option<String>,
    /// In seconds. A service that states it as anything but a whole number has not said it.
    #[serde(default)]
    expires_in: Value,
}

/// The token in a token service's answer; `None` where there is none.
pub(super) fn read(answer: &[u8]) -> Option<Token> {
    let Answer { token, access_token, expires_in } = serde_json::from_slice(answer).ok()?;
    let text = [token, access_token].into_iter().flatten().find(|it| !it.is_empty())?;
    let lives = expires_in.as_u64().map_or(UNKNOWN, Duration::from_secs);
    Some(Token { text, usable: lives.saturating_sub(MARGIN.min(lives / 2)).min(LONGEST) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(answer: &str, expected: Option<(&str, u64)>) {
        let got = read(answer.as_bytes());
        let got = got.as_ref().map(|it| (it.text.as_str(), it.usable.as_secs()));
        assert_eq!(got, expected, "{answer}");
    }

    #[test]
    fn the_token_is_whichever_is_not_empty() {
        check(r#"{"token":"a"}"#, Some(("a", 50)));
        check(r#"{"access_token":"b"}"#, Some(("b", 50)));
        check(r#"{"token":"a","access_token":"b"}"#, Some(("a", 50)));
        check(r#"{"token":"","access_token":"b"}"#, Some(("b", 50)));
        check(r#"{"token":null,"access_token":"b"}"#, Some(("b", 50)));
        for none in [r#"{"token":"","access_token":""}"#, "{}", r#"{"token":7}"#, "[]", "no", ""] {
            check(none, None);
        }
    }

    #[test]
    fn it_is_used_until_shortly_before_its_end() {
        check(r#"{"token":"a","expires_in":1800,"issued_at":"2026-01-01T00:00:00Z"}"#, Some(("a", 1790)));
        check(r#"{"token":"a","expires_in":12}"#, Some(("a", 6)));
        check(r#"{"token":"a","expires_in":0}"#, Some(("a", 0)));
        check(r#"{"token":"a","expires_in":18446744073709551615}"#, Some(("a", 3600)));
        for unsaid in ["-1", "null", "\"300\"", "1.5"] {
            check(&format!(r#"{{"token":"a","expires_in":{unsaid}}}"#), Some(("a", 50)));
        }
    }
}
