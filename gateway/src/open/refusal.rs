//! Refusals, as the runtime will see them.
//!
//! The registry's own status and challenges are handed on, because the runtime decides by them what to do
//! next. A blob is asked for by HEAD, which has no body, so the body is made here from the status. What
//! says nothing about the caller's right (429, 5xx, no answer) becomes 503: a runtime then goes on to the
//! registry by itself, while 429 would make it hammer this node.

use std::time::Duration;

use http::header::WWW_AUTHENTICATE;
use http::{HeaderMap, StatusCode};
use shoal_oci::ErrorCode;
use shoal_proto::Refusal;

use crate::upstream::wait_of;

/// The registry's answer to a HEAD that granted nothing.
pub(crate) fn from_answer(status: StatusCode, headers: &HeaderMap) -> Refusal {
    let (code, text) = match status.as_u16() {
        401 => (ErrorCode::Unauthorized, "the registry asks for a login"),
        403 => (ErrorCode::Denied, "the registry refuses the caller"),
        404 => (ErrorCode::BlobUnknown, "the registry does not have the blob in this repository"),
        408 | 429 | 500..=599 => {
            let text = format!("cannot decide: the registry answered {status}");
            return cannot_decide(&text, wait_of(headers));
        }
        400..=499 => (ErrorCode::Denied, "the registry refuses the request"),
        _ => return cannot_decide(&format!("cannot decide: the registry answered {status}"), None),
    };
    let challenges = headers.get_all(WWW_AUTHENTICATE).iter();
    Refusal {
        status: status.as_u16(),
        challenges: challenges.filter_map(|it| it.to_str().ok().map(str::to_owned)).collect(),
        ..refuse(code, text)
    }
}

/// There is no answer to decide by.
pub(crate) fn cannot_decide(why: &str, retry_after: Option<Duration>) -> Refusal {
    Refusal { retry_after, ..refuse(ErrorCode::Unavailable, why) }
}

/// A refusal of the gateway itself.
pub(crate) fn refuse(code: ErrorCode, why: &str) -> Refusal {
    Refusal {
        status: code.status(),
        challenges: Vec::new(),
        content_type: "application/json".to_owned(),
        body: code.body(why, None).into(),
        retry_after: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(status: u16, expected_status: u16, code: &str) -> Refusal {
        let mut headers = HeaderMap::new();
        headers.append(WWW_AUTHENTICATE, "Bearer realm=\"https://a/token\"".parse().unwrap());
        headers.append(WWW_AUTHENTICATE, "Basic realm=\"a\"".parse().unwrap());
        headers.append("retry-after", "7".parse().unwrap());
        let refusal = from_answer(StatusCode::from_u16(status).unwrap(), &headers);
        assert_eq!(refusal.status, expected_status, "{status}");
        assert!(String::from_utf8_lossy(&refusal.body).contains(code), "{status}: {refusal:?}");
        refusal
    }

    #[test]
    fn what_speaks_of_the_callers_right_is_handed_on() {
        let login = check(401, 401, "UNAUTHORIZED");
        assert_eq!(login.challenges, ["Bearer realm=\"https://a/token\"", "Basic realm=\"a\""]);
        check(403, 403, "DENIED");
        check(404, 404, "BLOB_UNKNOWN");
        check(412, 412, "DENIED");
    }

    #[test]
    fn what_does_not_is_no_decision() {
        for status in [429, 408, 500, 502, 503, 302, 204] {
            assert!(check(status, 503, "UNAVAILABLE").challenges.is_empty());
        }
        assert_eq!(check(429, 503, "UNAVAILABLE").retry_after, Some(Duration::from_secs(7)));
    }
}
