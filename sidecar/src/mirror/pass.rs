//! Straight through: to the gateway's mirror endpoint, or to the registry where no gateway answers.
//!
//! The client's own headers go out and the answer's come back, challenges included; only what belongs to
//! one connection is left out. A gateway that cannot be reached is told to the region, and later requests go
//! past it until it is well again. One that does not answer in time is not: it may be waiting for a slow
//! registry, and whether it is well itself shows when it is asked to open a blob. That registry, though, is asked
//! first for a while ([`detours`](super::detours)); where it does not serve this caller, the gateway may. A body that
//! stands still ends early, whoever it came from.

use bytes::Bytes;
use http::header::{self, HeaderName};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use shoal_identity::{Connector, Dialer, Expected, Role};
use shoal_oci::{ErrorCode, OciError};
use shoal_ops::traces;
use shoal_registry::RegistryBody;
use tokio::time::{Instant, timeout_at};

use super::answer::{self, Body, NAMESPACE};
use super::detours::Detours;
use super::route::Target;
use super::{gateways_share, half};
use crate::registries::Registries;
use shoal_peer::region::{Gateway, Region};

/// Headers that belong to one connection (RFC 9110, section 7.6.1), and `Host`, which is ours to set.
const OF_CONNECTION: [HeaderName; 8] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::HOST,
];

/// Passes requests through.
pub(super) struct Passage {
    region: Region,
    registries: Registries,
    detours: Detours,
    http: Client<Connector, Empty<Bytes>>,
}

impl Passage {
    pub(super) fn new(region: Region, registries: Registries, dialer: &Dialer) -> Self {
        let connector = dialer.connector(Expected::Any(Role::Gateway));
        let http = Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(connector);
        Self { region, registries, detours: Detours::default(), http }
    }

    /// Passes a request on and answers, with headers or an error, by `deadline`.
    pub(super) async fn pass(
        &self,
        target: &Target,
        asked: &Request<()>,
        deadline: Instant,
    ) -> Response<Body> {
        let Some(gateway) = self.region.gateway() else {
            return self.ask_registry(target, asked, deadline).await;
        };
        if self.detours.is_taken(&target.registry, Instant::now())
            && let Ok(answer) = self.try_registry(target, asked, half(deadline)).await
            && answer.status().is_success()
        {
            return answer;
        }
        let answer = self.ask_gateway(&gateway, target, asked, gateways_share(deadline)).await;
        self.detours.note(&target.registry, answer.is_some(), Instant::now());
        match answer {
            Some(answer) => named(answer, target),
            None => self.ask_registry(target, asked, deadline).await,
        }
    }

    /// Passes a request to the registry itself.
    pub(super) async fn ask_registry(
        &self,
        target: &Target,
        asked: &Request<()>,
        deadline: Instant,
    ) -> Response<Body> {
        self.try_registry(target, asked, deadline).await.unwrap_or_else(|why| {
            let message = format!("registry {}: {}: {why}", target.registry, asked.uri().path());
            answer::error(asked, &OciError { code: ErrorCode::Unavailable, message })
        })
    }

    /// The registry's answer, or why there is none.
    async fn try_registry(
        &self,
        target: &Target,
        asked: &Request<()>,
        deadline: Instant,
    ) -> Result<Response<Body>, String> {
        let client = self.registries.client(&target.registry).map_err(|it| it.to_string())?;
        let mut request = Request::new(());
        *request.method_mut() = asked.method().clone();
        *request.headers_mut() = end_to_end(asked.headers());
        // Of a pull that is traced, this is a part.
        traces::tell(traces::here(), request.headers_mut());
        *request.uri_mut() = target.path_and_query.parse().map_err(|_| "is not a path to ask for")?;
        match timeout_at(deadline, client.send(request)).await {
            Ok(Ok(answer)) => Ok(named(cleaned(answer.map(streamed)), target)),
            Ok(Err(error)) => Err(error.what),
            Err(_) => Err("no answer in time, from neither gateway nor registry".into()),
        }
    }

    /// The answer of the gateway; none where it did not give one that is worth having.
    async fn ask_gateway(
        &self,
        gateway: &Gateway,
        target: &Target,
        asked: &Request<()>,
        deadline: Instant,
    ) -> Option<Response<Body>> {
        let joint = if target.path_and_query.contains('?') { '&' } else { '?' };
        let ns = utf8_percent_encode(target.registry.as_str(), NON_ALPHANUMERIC);
        let uri = format!("{}{}{joint}ns={ns}", gateway.url, target.path_and_query);
        let mut request = Request::new(Empty::new());
        *request.method_mut() = asked.method().clone();
        *request.headers_mut() = end_to_end(asked.headers());
        *request.uri_mut() = uri.parse().ok()?;
        match timeout_at(deadline, self.http.request(request)).await {
            Ok(Ok(answer)) if !is_of_proxy(answer.status()) => {
                let request = format!("{} {} by way of the gateway", asked.method(), target.path_and_query);
                let body = |it| RegistryBody::new(it, target.registry.clone(), request.into());
                Some(cleaned(answer.map(body).map(streamed)))
            }
            Ok(Ok(answer)) => {
                tracing::warn!(registry = %target.registry, status = %answer.status(), "gateway could not answer");
                None
            }
            Ok(Err(error)) => {
                tracing::warn!(
                    gateway = &*gateway.url,
                    error = &error as &dyn std::error::Error,
                    "gateway failed"
                );
                self.region.suspect();
                None
            }
            Err(_) => {
                tracing::warn!(gateway = &*gateway.url, registry = %target.registry, "gateway did not answer in time");
                None
            }
        }
    }
}

fn streamed(body: RegistryBody) -> Body {
    body.map_err(Into::into).boxed_unsync()
}

/// Statuses by which the gateway says that it, or the registry behind it, cannot answer.
fn is_of_proxy(status: StatusCode) -> bool {
    matches!(status, StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT)
}

fn end_to_end(headers: &HeaderMap) -> HeaderMap {
    let mut headers = headers.clone();
    OF_CONNECTION.iter().for_each(|it| {
        headers.remove(it);
    });
    headers
}

/// An answer without what belongs to one connection. A status that makes runtimes ask again at once
/// becomes 503, on which they go to the registry.
fn cleaned(mut answer: Response<Body>) -> Response<Body> {
    *answer.headers_mut() = end_to_end(answer.headers());
    if matches!(answer.status(), StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT) {
        *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    answer
}

fn named(mut answer: Response<Body>, target: &Target) -> Response<Body> {
    if let Ok(value) = target.registry.as_str().try_into() {
        answer.headers_mut().insert(NAMESPACE, value);
    }
    answer
}
