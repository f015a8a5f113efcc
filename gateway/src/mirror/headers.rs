//! Which headers cross the gateway.
//!
//! An answer of the registry counts later on for whoever shows the same `Authorization` ([`Gate::right`]). So
//! nothing else that a caller sends may decide what the answer is: registries and the proxies before them look
//! for credentials in other places as well (cookies, headers of their own), and for names of users whom they
//! take the word for. What selects a form of the content or a part of it passes, and what says which program
//! asks. In a mode where the gateway's own right is used, the caller's credential does not.
//!
//! `Accept-Encoding` is among those that do not pass: a manifest or a layer that was compressed on the way is
//! not the bytes that its digest names.
//!
//! The answer reaches the runtime as the registry gave it, but for what is about one connection alone.
//!
//! [`Gate::right`]: crate::gate::Gate::right

use http::HeaderMap;
use http::header::{
    ACCEPT, AUTHORIZATION, CONNECTION, HeaderName, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE,
    PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, RANGE, SET_COOKIE, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
    USER_AGENT,
};

use crate::mode::Asker;

/// What passes to the registry besides the caller's credential.
const PASSED: [HeaderName; 7] =
    [ACCEPT, RANGE, IF_MATCH, IF_NONE_MATCH, IF_MODIFIED_SINCE, IF_RANGE, USER_AGENT];

/// About one connection only, whatever `Connection` says (RFC 9110 section 7.6.1).
const HOP_BY_HOP: [HeaderName; 8] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// What of a runtime's request headers the registry gets.
pub(crate) fn to_registry(headers: &HeaderMap, asker: Asker) -> HeaderMap {
    let passes =
        |name: &HeaderName| PASSED.contains(name) || (asker == Asker::Caller && *name == AUTHORIZATION);
    let passing = headers.iter().filter(|(name, _)| passes(name));
    passing.map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// Makes a registry's answer headers fit for the runtime.
pub(crate) fn to_runtime(headers: &mut HeaderMap) {
    remove_hop_by_hop(headers);
    headers.remove(SET_COOKIE);
}

fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|it| it.to_str().ok())
        .flat_map(|it| it.split(','))
        .filter_map(|it| it.trim().parse().ok())
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [(&str, &str); 18] = [
        ("accept", "application/vnd.oci.image.index.v1+json"),
        ("accept-encoding", "gzip"),
        ("authorization", "Bearer x"),
        ("connection", "close, X-Hop"),
        ("cookie", "sid=1"),
        ("host", "127.0.0.1:65001"),
        ("if-match", "\"a\""),
        ("if-modified-since", "Thu, 01 Jan 2026 00:00:00 GMT"),
        ("if-none-match", "\"a\""),
        ("if-range", "\"a\""),
        ("proxy-authorization", "Basic YTpi"),
        ("range", "bytes=5-"),
        ("te", "trailers"),
        ("user-agent", "containerd/2.0"),
        ("x-auth-token", "t"),
        ("x-forwarded-for", "10.0.0.1"),
        ("x-hop", "1"),
        ("x-remote-user", "ann"),
    ];
    const PASSING: [&str; 7] =
        ["accept", "if-match", "if-modified-since", "if-none-match", "if-range", "range", "user-agent"];

    fn headers(list: &[(&'static str, &'static str)]) -> HeaderMap {
        list.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    #[track_caller]
    fn check(got: &HeaderMap, expected: &[&str]) {
        let mut names: Vec<_> = got.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, expected);
    }

    #[test]
    fn the_registry_sees_what_is_wanted_and_one_credential() {
        let mut expected = PASSING.to_vec();
        check(&to_registry(&headers(&ALL), Asker::Gateway), &expected);
        expected.insert(1, "authorization");
        check(&to_registry(&headers(&ALL), Asker::Caller), &expected);
    }

    #[test]
    fn every_value_of_a_header_passes() {
        let asked =
            headers(&[("accept", "a"), ("accept", "b"), ("authorization", "c"), ("authorization", "d")]);
        assert_eq!(to_registry(&asked, Asker::Caller), asked);
    }

    #[test]
    fn an_answer_keeps_challenges_length_and_digest() {
        let mut answer = headers(&[
            ("content-length", "5"),
            ("docker-content-digest", "sha256:0"),
            ("set-cookie", "sid=1"),
            ("transfer-encoding", "chunked"),
            ("www-authenticate", "Basic realm=\"a\""),
        ]);
        to_runtime(&mut answer);
        check(&answer, &["content-length", "docker-content-digest", "www-authenticate"]);
    }
}
