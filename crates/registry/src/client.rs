//! Sends reads to one registry.
//!
//! Only GET and HEAD exist here, so every request can be repeated at a redirect's target. Every wait
//! has an end: connecting, the answer's headers, each silence within the body ([`RegistryBody`]). Besides
//! the registry itself only its token service is asked, once [`realm`] trusts it.
//!
//! A store that the registry redirects to knows nobody: what opens it is a signature in the address, which
//! ends after a while or was made for another method. So its refusal says nothing about the right to read.
//! The registry is asked for a fresh address once; a store that refuses that too is at fault.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::header::{AUTHORIZATION, HOST, LOCATION};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Empty;
use hyper::body::Incoming;
use shoal_oci::RegistryName;
use tokio::time::timeout;
use url::Url;

use crate::body::RegistryBody;
use crate::error::{ErrorKind, RegistryError};
use crate::redirect::{MAX_HOPS, NamedHosts, Refused, next_hop, reachable, shed_credentials};
use crate::transport::{Transport, Way};
use crate::{Endpoint, EndpointError, Network, realm};

/// From sending a request to its answer's headers, connecting and redirects included.
const ANSWER: Duration = Duration::from_secs(30);
/// Where the registry itself may be: who wrote the settings is in the private network.
const ASKED: Network = Network::Private;

/// Kind and text of a fault, of which [`RegistryClient::error`] makes an error.
type Fault = (ErrorKind, String);

/// A registry that can be asked; cheap to clone. Connections are kept and shared by the clones.
#[derive(Clone)]
pub struct RegistryClient {
    endpoint: Arc<Endpoint>,
    named: NamedHosts,
    transport: Arc<Transport>,
    is_identified: bool,
}

/// An answer at the end of all redirects.
struct Arrived {
    answer: Response<Incoming>,
    at: Url,
}

impl RegistryClient {
    /// Prepares to ask `endpoint`. Reads certificates, connects nowhere.
    ///
    /// # Errors
    /// Where its address or one of its files is of no use.
    pub fn new(endpoint: &Endpoint) -> Result<Self, EndpointError> {
        endpoint.check()?;
        let mut named = endpoint.redirect_hosts.clone();
        named.extend(endpoint.token_hosts.iter().cloned());
        if !endpoint.chosen_by_caller {
            named.extend(endpoint.url.host_str().map(str::to_owned));
        }
        let (endpoint, named) = (Arc::new(endpoint.clone()), NamedHosts(named));
        let transport = Arc::new(Transport::new(endpoint.clone(), named.clone())?);
        Ok(Self { endpoint, named, transport, is_identified: true })
    }

    /// The same registry for requests in somebody else's name: it is shown no client certificate, which it
    /// could take for the login of whoever is behind the request.
    pub fn unidentified(&self) -> Self {
        Self { is_identified: false, ..self.clone() }
    }

    /// Reads the endpoint's files again, for this client and its clones; returns whether they differ from
    /// before. Blocks for as long as the file system does.
    ///
    /// # Errors
    /// Where a file is missing or of no use, as it may be while it is replaced; what was read before stays in
    /// use.
    pub fn reload(&self) -> Result<bool, EndpointError> {
        self.transport.reload()
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
        let mut target = self.endpoint.url.clone();
        target.set_path(request.uri().path());
        target.set_query(request.uri().query());
        let target = reachable(&self.named, ASKED, target).map_err(|it| self.error(&told, refused(it)))?;
        self.in_time(&told, Box::pin(self.content(target, request))).await
    }

    /// Sends a GET to the token service that this registry's challenge names as `realm`, with `query` added
    /// to its own. `from` is where [the answer with the challenge came from](Network::behind), `authorization`
    /// is shown to that server only. As for [`send`](Self::send), any status is an answer; a token service that
    /// the credential may not go to is not asked.
    pub async fn ask_token_service(
        &self,
        (realm, from): (&str, Network),
        query: &[(&str, &str)],
        authorization: Option<HeaderValue>,
    ) -> Result<Response<RegistryBody>, RegistryError> {
        const TOLD: &str = "GET a token";
        let mut target = self.token_service(realm, from).map_err(|it| self.error(TOLD, it))?;
        target.query_pairs_mut().extend_pairs(query);
        let mut request = Request::new(());
        request.headers_mut().extend(authorization.map(|it| (AUTHORIZATION, it)));
        let arriving = self.follow(target, from, &request);
        self.in_time(TOLD, Box::pin(async { Ok(arriving.await?.answer) })).await
    }

    fn token_service(&self, realm: &str, from: Network) -> Result<Url, Fault> {
        let url = realm::judge(&self.endpoint, realm).map_err(|it| (ErrorKind::Redirect, it.to_string()))?;
        reachable(&self.named, from, url).map_err(refused)
    }

    /// Waits for an answer, but not for ever; a fault is told as one of `told`. The answer is boxed, since it
    /// is large and would make everything large that asks a registry.
    async fn in_time(
        &self,
        told: &str,
        answer: Pin<Box<impl Future<Output = Result<Response<Incoming>, Fault>>>>,
    ) -> Result<Response<RegistryBody>, RegistryError> {
        let slow = |_| (ErrorKind::Timeout, format!("no answer within {} s", ANSWER.as_secs()));
        let answer = timeout(ANSWER, answer).await.map_err(slow).flatten();
        let answer = answer.map_err(|it| self.error(told, it))?;
        Ok(answer.map(|it| RegistryBody::new(it, self.name().clone(), told.into())))
    }

    fn error(&self, told: &str, (kind, fault): Fault) -> RegistryError {
        RegistryError { registry: self.name().clone(), what: format!("{told}: {fault}"), kind }
    }

    /// Asks for what the registry has at `target`, a second time where a store refuses it.
    async fn content(&self, target: Url, request: Request<()>) -> Result<Response<Incoming>, Fault> {
        let mut is_fresh = false;
        loop {
            let Arrived { answer, at } = self.follow(target.clone(), ASKED, &request).await?;
            let (status, is_elsewhere) = (answer.status(), at.origin() != target.origin());
            if !is_elsewhere || !matches!(status.as_u16(), 400 | 401 | 403) {
                return Ok(answer);
            }
            if is_fresh {
                let host = at.host_str().unwrap_or_default();
                return Err((ErrorKind::Store, format!("redirected to {host}, which answered {status}")));
            }
            is_fresh = true;
        }
    }

    /// Sends `request` to `target`, whatever its own URI is, since somebody in the network `from` says so, and
    /// to wherever the answer leads.
    async fn follow(
        &self,
        mut target: Url,
        mut from: Network,
        request: &Request<()>,
    ) -> Result<Arrived, Fault> {
        let method = request.method();
        if method != Method::GET && method != Method::HEAD {
            return Err((ErrorKind::Protocol, "only GET and HEAD are sent".to_owned()));
        }
        let mut headers = request.headers().clone();
        headers.remove(HOST);
        // A registry might look at another one than whoever judged the request.
        if headers.get_all(AUTHORIZATION).iter().nth(1).is_some() {
            return Err((ErrorKind::Protocol, "more than one Authorization".to_owned()));
        }
        for _ in 0..=MAX_HOPS {
            let answer = self.ask(method, &target, from, &headers).await?;
            if !is_redirect(answer.status()) {
                return Ok(Arrived { answer, at: target });
            }
            from = Network::behind(&answer);
            target = self.redirected(from, &target, &answer, &mut headers).map_err(refused)?;
        }
        Err(refused(Refused::TooMany))
    }

    async fn ask(
        &self,
        method: &Method,
        target: &Url,
        from: Network,
        headers: &HeaderMap,
    ) -> Result<Response<Incoming>, Fault> {
        let mut request = Request::new(Empty::new());
        *request.method_mut() = method.clone();
        *request.uri_mut() = target.as_str().parse().map_err(|_| refused(Refused::Location))?;
        *request.headers_mut() = headers.clone();
        let is_own = target.origin() == self.endpoint.url.origin();
        let way = if is_own && self.is_identified { Way::Identified } else { Way::LedFrom(from) };
        self.transport.ask(way, request).await
    }

    fn redirected(
        &self,
        from: Network,
        asked: &Url,
        answer: &Response<Incoming>,
        headers: &mut HeaderMap,
    ) -> Result<Url, Refused> {
        let location = answer.headers().get(LOCATION).and_then(|it| it.to_str().ok());
        let to = next_hop(&self.named, from, asked, location.ok_or(Refused::Location)?)?;
        shed_credentials(headers, asked, &to);
        Ok(to)
    }
}

impl fmt::Debug for RegistryClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistryClient").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

fn refused(it: Refused) -> Fault {
    (ErrorKind::Redirect, it.to_string())
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}
