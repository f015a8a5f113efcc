//! Which headers cross the gateway.
//!
//! A registry's answer must reach the runtime as the registry gave it, and its request the other way, so
//! what is not about one connection alone passes. Three things are kept back from the registry: cookies,
//! which no runtime needs; `Accept-Encoding`, because a manifest or a layer that was compressed on the way
//! is not the bytes that its digest names; and, in a mode where the gateway's own right is used, the
//! caller's credential.

use http::HeaderMap;
use http::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONNECTION, CONTENT_LENGTH, COOKIE, HOST, HeaderName, PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION, SET_COOKIE, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};

use crate::mode::Asker;

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

/// Makes a runtime's request headers fit for the registry.
pub(crate) fn to_registry(headers: &mut HeaderMap, asker: Asker) {
    remove_hop_by_hop(headers);
    for name in [HOST, CONTENT_LENGTH, COOKIE, ACCEPT_ENCODING] {
        headers.remove(name);
    }
    if asker == Asker::Gateway {
        headers.remove(AUTHORIZATION);
    }
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

    const ALL: [(&str, &str); 9] = [
        ("accept", "application/vnd.oci.image.index.v1+json"),
        ("accept-encoding", "gzip"),
        ("authorization", "Bearer x"),
        ("connection", "close, X-Hop"),
        ("cookie", "sid=1"),
        ("host", "127.0.0.1:65001"),
        ("range", "bytes=5-"),
        ("te", "trailers"),
        ("x-hop", "1"),
    ];

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
    fn a_request_keeps_what_the_registry_must_see() {
        let mut caller = headers(&ALL);
        to_registry(&mut caller, Asker::Caller);
        check(&caller, &["accept", "authorization", "range"]);
        let mut gateway = headers(&ALL);
        to_registry(&mut gateway, Asker::Gateway);
        check(&gateway, &["accept", "range"]);
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
