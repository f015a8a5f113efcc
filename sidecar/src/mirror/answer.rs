//! Answers as runtimes expect them.

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use shoal_oci::OciError;
use shoal_ops::serve::BoxError;
use shoal_proto::Refusal;

/// A response's body.
pub(super) type Body = UnsyncBoxBody<Bytes, BoxError>;

/// `OCI-Namespace`, by which a mirror confirms for which registry it answered.
pub(super) const NAMESPACE: HeaderName = HeaderName::from_static("oci-namespace");
pub(super) const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");

/// A body that is there already.
pub(super) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// A response with these headers; values that are none are left out.
pub(super) fn response(
    status: StatusCode,
    headers: impl IntoIterator<Item = (HeaderName, String)>,
    body: Body,
) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    for (name, value) in headers {
        if let Ok(value) = HeaderValue::try_from(value) {
            response.headers_mut().append(name, value);
        }
    }
    response
}

/// The mirror is alive.
pub(super) fn healthy() -> Response<Body> {
    response(StatusCode::OK, [(header::CONTENT_TYPE, "text/plain".into())], full("ok\n"))
}

/// The protocol is spoken here, and nobody has to log in for that.
pub(super) fn spoken() -> Response<Body> {
    let headers =
        [(header::CONTENT_TYPE, "application/json".to_owned()), (API_VERSION, "registry/2.0".to_owned())];
    response(StatusCode::OK, headers, full("{}"))
}

/// An error in the protocol's own form.
pub(super) fn error(request: &Request<()>, error: &OciError) -> Response<Body> {
    let status = StatusCode::from_u16(error.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    tracing::debug!(uri = %request.uri(), %status, error = %error, "refused");
    json(request, status, error.body().into())
}

/// What the registry said to a caller that it refuses, as it said it. A status that makes runtimes ask
/// again at once, or that they do not know from a mirror, becomes 503: they then go to the registry.
pub(super) fn refusal(request: &Request<()>, refusal: Refusal) -> Response<Body> {
    let status = match refusal.status {
        408 | 429 => StatusCode::SERVICE_UNAVAILABLE,
        status => StatusCode::from_u16(status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE),
    };
    let mut answer = json(request, status, refusal.body);
    let mut append = |name: HeaderName, value: String| {
        if let Ok(value) = HeaderValue::try_from(value) {
            answer.headers_mut().append(name, value);
        }
    };
    refusal.challenges.into_iter().for_each(|it| append(header::WWW_AUTHENTICATE, it));
    if let Some(retry_after) = refusal.retry_after {
        append(header::RETRY_AFTER, retry_after.as_secs().to_string());
    }
    answer
}

fn json(request: &Request<()>, status: StatusCode, body: Bytes) -> Response<Body> {
    let headers = [
        (header::CONTENT_TYPE, "application/json".to_owned()),
        (header::CONTENT_LENGTH, body.len().to_string()),
    ];
    let body = if request.method() == Method::HEAD { Bytes::new() } else { body };
    response(status, headers, full(body))
}
