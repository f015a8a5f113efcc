//! Asking whether a registry has a blob in a repository, without making it so.
//!
//! HEAD is the question for that, but Zot does more than answer: a blob that the repository lacks and another one
//! has is put there, too, for whoever may read it anywhere. The gateway may read everywhere, so that with its
//! right every digest would turn out to belong to every repository. Of a blob's first byte, Zot only sees whether
//! the repository has it; that is asked instead, and the answer made into the one that HEAD would have got.

use http::header::{
    CONTENT_LENGTH, CONTENT_RANGE, HeaderName, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, RANGE,
};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use shoal_oci::range::ContentRange;

use crate::kind::Kind;

/// What makes the answer conditional or partial; a HEAD of a blob is neither.
const CONDITIONS: [HeaderName; 4] = [IF_MATCH, IF_NONE_MATCH, IF_MODIFIED_SINCE, IF_RANGE];

/// What to ask with the gateway's right instead of `request`, where that is a question which would change the
/// answer. Its path is one that was made here, for a registry.
pub(crate) fn harmless(kind: Kind, request: &Request<()>) -> Option<Request<()>> {
    let is_of_blob = request.uri().path().rsplit('/').nth(1) == Some("blobs");
    if kind != Kind::Zot || request.method() != Method::HEAD || !is_of_blob {
        return None;
    }
    let mut first_byte = request.clone();
    *first_byte.method_mut() = Method::GET;
    first_byte.headers_mut().insert(RANGE, HeaderValue::from_static("bytes=0-0"));
    for name in CONDITIONS {
        first_byte.headers_mut().remove(name);
    }
    Some(first_byte)
}

/// The answer to HEAD that the answer to a request for the first byte stands for; its body counts for nothing.
/// One that does not say how long the blob is says that nowhere.
pub(crate) fn of_head<B>(mut answer: Response<B>) -> Response<B> {
    let size = match (answer.status(), content_range(&answer)) {
        (StatusCode::PARTIAL_CONTENT, Some(ContentRange::Part { size, .. })) => size,
        // Of an empty blob there is no first byte.
        (StatusCode::RANGE_NOT_SATISFIABLE, Some(ContentRange::Unsatisfied { size: 0 })) => Some(0),
        (StatusCode::PARTIAL_CONTENT, _) => None,
        _ => return answer,
    };
    *answer.status_mut() = StatusCode::OK;
    answer.headers_mut().remove(CONTENT_RANGE);
    answer.headers_mut().remove(CONTENT_LENGTH);
    if let Some(size) = size {
        answer.headers_mut().insert(CONTENT_LENGTH, size.into());
    }
    answer
}

fn content_range<B>(answer: &Response<B>) -> Option<ContentRange> {
    answer.headers().get(CONTENT_RANGE)?.to_str().ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_asked(kind: Kind, method: Method, path: &str, expected: bool) {
        let request = Request::builder().method(method).uri(path).header("if-none-match", "\"a\"");
        let asked = harmless(kind, &request.body(()).unwrap());
        assert_eq!(asked.is_some(), expected, "{path}");
        if let Some(asked) = asked {
            assert_eq!((asked.method(), asked.uri().path()), (&Method::GET, path));
            assert_eq!(asked.headers().keys().collect::<Vec<_>>(), [RANGE]);
        }
    }

    #[test]
    fn only_a_zot_is_asked_for_the_first_byte_of_a_blob() {
        let blob = "/v2/blobs/app/blobs/sha256:00";
        check_asked(Kind::Zot, Method::HEAD, blob, true);
        check_asked(Kind::Zot, Method::GET, blob, false);
        check_asked(Kind::Zot, Method::HEAD, "/v2/blobs/app/manifests/v1", false);
        for (_, kind) in Kind::NAMED.into_iter().filter(|(_, it)| *it != Kind::Zot) {
            check_asked(kind, Method::HEAD, blob, false);
        }
    }

    #[track_caller]
    fn check_answered(status: u16, range: &str, expected: (u16, Option<&str>)) {
        let answer =
            Response::builder().status(status).header(CONTENT_LENGTH, 1).header(CONTENT_RANGE, range);
        let answer = of_head(answer.body(()).unwrap());
        let length = answer.headers().get(CONTENT_LENGTH).map(|it| it.to_str().unwrap());
        assert_eq!((answer.status().as_u16(), length), expected, "{status} {range}");
    }

    #[test]
    fn the_answer_is_the_one_that_head_would_have_got() {
        check_answered(206, "bytes 0-0/1234", (200, Some("1234")));
        check_answered(206, "bytes 0-0/*", (200, None));
        check_answered(206, "nonsense", (200, None));
        check_answered(416, "bytes */0", (200, Some("0")));
        check_answered(416, "bytes */7", (416, Some("1")));
        // A registry that knows no ranges sends all of it.
        check_answered(200, "", (200, Some("1")));
        check_answered(404, "", (404, Some("1")));
    }
}
