//! A front that stands before a real server, notes every request, and breaks answers when told to.
//!
//! It ends TLS where that is wanted, so the server behind it stays plain and everything is seen. Answers
//! stream through; only what a fault says is changed. A server that knows users but no rights of theirs gets
//! those here too.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::StreamExt;
use http::header::{AUTHORIZATION, LOCATION, RANGE, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Incoming;
use rustls::ServerConfig;
use socket2::Socket;

use crate::fault::{Effect, Faults, pass};
use crate::host::Host;
use crate::http::Client;
use crate::push::user_of;
use crate::rights::Rights;
use crate::sent::{Sent, SentLog};
use crate::server::{Answer, Body, Server, full};

/// A request that the front saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The method.
    pub method: String,
    /// The path, without the query.
    pub path: String,
    /// The query.
    pub query: Option<String>,
    /// The `Range` header.
    pub range: Option<String>,
    /// The scheme of the `Authorization` header, such as `Basic`. The front keeps no secret.
    pub authorization: Option<String>,
    /// The status of the answer; 0 while there is none.
    pub status: u16,
    /// Bytes of the answer's body handed to the client's connection so far.
    pub sent: u64,
}

impl Seen {
    fn new<B>(request: &Request<B>) -> Self {
        let uri = request.uri();
        let authorization = text(request.headers(), AUTHORIZATION);
        Self {
            method: request.method().to_string(),
            path: uri.path().into(),
            query: uri.query().map(Into::into),
            range: text(request.headers(), RANGE),
            authorization: authorization.and_then(|it| Some(it.split_once(' ')?.0.into())),
            status: 0,
            sent: 0,
        }
    }

    /// Whether this asks for a blob's content.
    pub fn is_blob_read(&self) -> bool {
        self.method == "GET" && self.path.contains("/blobs/")
    }
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<String> {
    Some(headers.get(name)?.to_str().ok()?.into())
}

/// A running front. Dropping it closes its connections.
#[derive(Debug)]
pub struct Front {
    shared: Arc<Shared>,
    sent: SentLog,
    _server: Server,
}

#[derive(Debug)]
struct Shared {
    client: Client<Incoming>,
    server: SocketAddr,
    notes: Mutex<Notes>,
    faults: Faults,
    rights: Option<Rights>,
    quota: Mutex<Option<Quota>>,
}

/// How many pulls there may be in six hours, and how many are left.
#[derive(Clone, Copy, Debug)]
struct Quota {
    limit: u32,
    remaining: u32,
}

/// What is noted of each request, by a number that is never given again: what becomes of a request that has
/// been forgotten must not be noted of another.
#[derive(Debug, Default)]
struct Notes {
    n_requests: u64,
    seen: BTreeMap<u64, Seen>,
}

impl Notes {
    fn add(&mut self, seen: Seen) -> u64 {
        self.n_requests += 1;
        self.seen.insert(self.n_requests, seen);
        self.n_requests
    }

    /// Changes what is noted of a request, unless that has been forgotten meanwhile.
    fn change(&mut self, number: u64, change: impl FnOnce(&mut Seen)) {
        self.seen.get_mut(&number).map(change);
    }
}

impl Front {
    /// Puts a front at `port` of a host, before a plain HTTP server reached from there at `server`. A user who
    /// lacks one of the `rights`, where there are such, is answered 403.
    pub fn start(
        host: &Host,
        port: u16,
        server: SocketAddr,
        tls: Option<Arc<ServerConfig>>,
        rights: Option<Rights>,
    ) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            client: host.client(),
            server,
            notes: Mutex::default(),
            faults: Faults::default(),
            rights,
            quota: Mutex::default(),
        });
        let sent = SentLog::default();
        let server = Server::start_noting(host, port, tls, Arc::clone(&shared), sent.clone())?;
        Ok(Self { shared, sent, _server: server })
    }

    /// All requests so far, in the order of their arrival.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.notes().seen.values().cloned().collect()
    }

    /// Forgets the requests so far, and what was sent.
    pub fn forget(&self) {
        self.shared.notes().seen.clear();
        self.sent.forget();
    }

    /// What connections took so far, of any kind, in the order in which they did.
    pub fn sent(&self) -> Vec<Sent> {
        self.sent.all()
    }

    /// Body bytes handed out for blobs so far.
    pub fn blob_bytes_sent(&self) -> u64 {
        self.shared.notes().seen.values().filter(|it| it.is_blob_read()).map(|it| it.sent).sum()
    }

    /// Hurts the answers to the next `times` requests (`u32::MAX`: to all) whose path contains `path_part`.
    pub fn hurt(&self, path_part: &str, times: u32, effect: Effect) {
        self.shared.faults.add(path_part, times, effect);
    }

    /// Says with each manifest from now on how many pulls are allowed and left, as Docker Hub does.
    pub fn state_quota(&self, limit: u32, remaining: u32) {
        let mut quota = self.shared.quota.lock().unwrap_or_else(PoisonError::into_inner);
        *quota = Some(Quota { limit, remaining });
    }

    /// Hurts nothing any more, but for the answers that are under way.
    pub fn heal(&self) {
        self.shared.faults.clear();
    }
}

impl Shared {
    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn quota(&self) -> Option<Quota> {
        *self.quota.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the user who asks, if that is one, may have what is asked for.
    fn admits(&self, request: &Request<Incoming>) -> bool {
        let Some(rights) = &self.rights else { return true };
        match (user_of(request.headers()), repository_of(request.uri().path())) {
            (Some(user), Some(repository)) => rights.allow(Some(&user.user), repository),
            _ => true,
        }
    }

    async fn forward(
        self: Arc<Self>,
        mut request: Request<Incoming>,
        number: u64,
        effect: Option<Effect>,
        socket: Arc<Socket>,
    ) -> Response<Body> {
        let path = request.uri().path_and_query().map_or("/", |it| it.as_str());
        let uri = format!("http://{}{path}", self.server);
        *request.uri_mut() = match uri.parse::<Uri>() {
            Ok(uri) => uri,
            Err(_) => return refusal(400, None),
        };
        match self.client.request(request).await {
            Ok(response) => response.map(|body| {
                let on_sent = move |n_bytes: usize| {
                    self.notes().change(number, |seen| seen.sent += n_bytes as u64);
                };
                StreamBody::new(pass(body, effect, socket, on_sent).boxed()).boxed_unsync()
            }),
            Err(_) => refusal(502, None),
        }
    }
}

impl Answer for Shared {
    async fn answer(self: Arc<Self>, request: Request<Incoming>, socket: Arc<Socket>) -> Response<Body> {
        let noted = Seen::new(&request);
        let effect = self.faults.take(&noted.path);
        let quota = noted.path.contains("/manifests/").then(|| self.quota()).flatten();
        let number = self.notes().add(noted);
        let mut response = match effect {
            Some(Effect::Hang) => std::future::pending().await,
            Some(Effect::Status { code, retry_after }) => refusal(code, retry_after),
            Some(Effect::Redirect(to)) => redirect(&to, request.uri()),
            _ if !self.admits(&request) => refusal(403, None),
            _ => self.clone().forward(request, number, effect, socket).await,
        };
        if let Some(Quota { limit, remaining }) = quota {
            for (name, n_pulls) in [("ratelimit-limit", limit), ("ratelimit-remaining", remaining)] {
                let value = HeaderValue::try_from(format!("{n_pulls};w=21600"));
                response.headers_mut().extend(value.map(|it| (HeaderName::from_static(name), it)));
            }
        }
        self.notes().change(number, |seen| seen.status = response.status().as_u16());
        response
    }
}

/// The repository that a path below `/v2/` is about.
fn repository_of(path: &str) -> Option<&str> {
    let (repository, _) = path.strip_prefix("/v2/")?.rsplit_once('/')?;
    ["/manifests", "/blobs", "/tags"].into_iter().find_map(|it| repository.strip_suffix(it))
}

fn redirect(to: &str, asked: &Uri) -> Response<Body> {
    let mut response = refusal(307, None);
    let path = asked.path_and_query().map_or("/", |it| it.as_str());
    match format!("{to}{path}").parse() {
        Ok(location) => {
            response.headers_mut().insert(LOCATION, location);
            response
        }
        Err(_) => refusal(500, None),
    }
}

fn refusal(code: u16, retry_after: Option<u32>) -> Response<Body> {
    let mut response = Response::new(full(""));
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if let Some(seconds) = retry_after {
        response.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_tells_its_repository() {
        assert_eq!(repository_of("/v2/team/app/manifests/v1"), Some("team/app"));
        assert_eq!(repository_of("/v2/app/blobs/sha256:0"), Some("app"));
        assert_eq!(repository_of("/v2/app/tags/list"), Some("app"));
        assert_eq!(repository_of("/v2/"), None);
    }

    #[test]
    fn what_becomes_of_a_forgotten_request_is_not_noted_of_another() {
        let mut notes = Notes::default();
        let seen = Seen::new(&Request::get("/v2/app/blobs/x").body(()).unwrap());
        let forgotten = notes.add(seen.clone());
        notes.seen.clear();
        notes.add(seen.clone());
        notes.change(forgotten, |it| it.sent = 7);
        assert_eq!(notes.seen.into_values().collect::<Vec<_>>(), [seen]);
    }
}
