//! Sends reads to one registry.
//!
//! Only GET and HEAD exist here, so every request can be repeated at a redirect's target. Every wait
//! has an end: connecting, the answer's headers, each silence within the body ([`RegistryBody`]). Besides
//! the registry itself only its token service is asked, once [`realm`] trusts it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, HOST, LOCATION};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use shoal_oci::RegistryName;
use tokio::time::timeout;
use url::Url;

use crate::body::RegistryBody;
use crate::error::{ErrorKind, RegistryError, diagnose};
use crate::redirect::{MAX_HOPS, NamedHosts, Refused, next_hop, reachable, shed_credentials};
use crate::resolve::JudgingResolver;
use crate::{Endpoint, EndpointError, realm, tls};

const CONNECT: Duration = Duration::from_secs(5);
/// From sending a request to its answer's headers, connecting and redirects included.
const ANSWER: Duration = Duration::from_secs(30);
const IDLE: Duration = Duration::from_secs(60);
const MAX_IDLE_PER_HOST: usize = 32;

/// A registry that can be asked; cheap to clone. Connections are kept and shared by the clones.
#[derive(Clone, Debug)]
pub struct RegistryClient {
    endpoint: Arc<Endpoint>,
    origin: Arc<str>,
    named: NamedHosts,
    http: Client<HttpsConnector<HttpConnector<JudgingResolver>>, Empty<Bytes>>,
}

impl RegistryClient {
    /// Prepares to ask `endpoint`. Reads certificates, connects nowhere.
    pub fn new(endpoint: &Endpoint) -> Result<Self, EndpointError> {
        let origin = endpoint.origin()?;
        let mut named = endpoint.redirect_hosts.clone();
        named.extend(endpoint.token_hosts.iter().cloned());
        named.extend(endpoint.url.host_str().map(str::to_owned));
        let named = NamedHosts(named);

        let mut tcp = HttpConnector::new_with_resolver(JudgingResolver::new(named.clone()));
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(CONNECT));
        tcp.set_nodelay(true);
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(tls::client_config(endpoint)?)
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        let http = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(MAX_IDLE_PER_HOST)
            .build(connector);
        Ok(Self { endpoint: Arc::new(endpoint.clone()), origin: origin.into(), named, http })
    }

    /// The registry's configured name.
    pub fn name(&self) -> &RegistryName {
        &self.endpoint.name
    }

    /// Sends a GET or HEAD; of the URI only path and query count. Redirects are followed, so the
    /// answer is never one that could be followed. `Host` is set here.
    ///
    /// Any status is an answer; an error means that there was none.
    pub async fn send(&self, request: Request<()>) -> Result<Response<RegistryBody>, RegistryError> {
        let told = format!("{} {}", request.method(), request.uri().path());
        let path = request.uri().path_and_query().map_or("/", PathAndQuery::as_str);
        let target = format!("{}{path}", self.origin);
        self.deliver(&told, target, request).await
    }

    /// Sends a GET to the token service that this registry's challenge names as `realm`, with `query` added
    /// to its own. `authorization` is shown to that server only. As for [`send`](Self::send), any status is
    /// an answer; a token service that the credential may not go to is not asked.
    pub async fn ask_token_service(
        &self,
        realm: &str,
        query: &[(&str, &str)],
        authorization: Option<HeaderValue>,
    ) -> Result<Response<RegistryBody>, RegistryError> {
        const TOLD: &str = "GET a token";
        let mut target = self.token_service(realm).map_err(|it| self.error(TOLD, it))?;
        target.query_pairs_mut().extend_pairs(query);
        let mut request = Request::new(());
        request.headers_mut().extend(authorization.map(|it| (AUTHORIZATION, it)));
        self.deliver(TOLD, target.into(), request).await
    }

    fn token_service(&self, realm: &str) -> Result<Url, (ErrorKind, String)> {
        let url = realm::judge(&self.endpoint, realm).map_err(|it| (ErrorKind::Redirect, it.to_string()))?;
        reachable(&self.named, url).map_err(refused)
    }

    /// Sends `request` to `target`, whatever its own URI is; a fault is told as one of `told`.
    async fn deliver(
        &self,
        told: &str,
        target: String,
        request: Request<()>,
    ) -> Result<Response<RegistryBody>, RegistryError> {
        let slow = |_| (ErrorKind::Timeout, format!("no answer within {} s", ANSWER.as_secs()));
        let answer = timeout(ANSWER, self.follow(target, request)).await.map_err(slow).flatten();
        let answer = answer.map_err(|it| self.error(told, it))?;
        Ok(answer.map(|it| RegistryBody::new(it, self.name().clone(), told.into())))
    }

    fn error(&self, told: &str, (kind, fault): (ErrorKind, String)) -> RegistryError {
        RegistryError { registry: self.name().clone(), what: format!("{told}: {fault}"), kind }
    }

    async fn follow(
        &self,
        mut target: String,
        request: Request<()>,
    ) -> Result<Response<Incoming>, (ErrorKind, String)> {
        let method = request.method().clone();
        if method != Method::GET && method != Method::HEAD {
            return Err((ErrorKind::Protocol, "only GET and HEAD are sent".to_owned()));
        }
        let mut headers = request.into_parts().0.headers;
        headers.remove(HOST);
        for _ in 0..=MAX_HOPS {
            let answer = self.ask(&method, &target, &headers).await?;
            if !is_redirect(answer.status()) {
                return Ok(answer);
            }
            target = self.redirected(&target, &answer, &mut headers).map_err(refused)?;
        }
        Err(refused(Refused::TooMany))
    }

    async fn ask(
        &self,
        method: &Method,
        target: &str,
        headers: &HeaderMap,
    ) -> Result<Response<Incoming>, (ErrorKind, String)> {
        let uri: Uri = target.parse().map_err(|_| refused(Refused::Location))?;
        let mut request = Request::new(Empty::new());
        *request.method_mut() = method.clone();
        *request.uri_mut() = uri;
        *request.headers_mut() = headers.clone();
        self.http.request(request).await.map_err(|error| {
            let otherwise = if error.is_connect() { ErrorKind::Connect } else { ErrorKind::Protocol };
            diagnose(&error, otherwise)
        })
    }

    fn redirected(
        &self,
        from: &str,
        answer: &Response<Incoming>,
        headers: &mut HeaderMap,
    ) -> Result<String, Refused> {
        let location = answer.headers().get(LOCATION).and_then(|it| it.to_str().ok());
        let location = location.ok_or(Refused::Location)?;
        let from = Url::parse(from).map_err(|_| Refused::Location)?;
        let to = next_hop(&self.named, &from, location)?;
        shed_credentials(headers, &from, &to);
        Ok(to.into())
    }
}

fn refused(it: Refused) -> (ErrorKind, String) {
    (ErrorKind::Redirect, it.to_string())
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}
