//! Amazon on loopback: the service that gives passwords for ECR, and an object store.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hmac::{Hmac, KeyInit as _, Mac as _};
use http::header::AUTHORIZATION;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use sha2::{Digest as _, Sha256};
use tokio::net::TcpListener;

use super::support::registry::Registry;

type Answer = Response<Full<Bytes>>;

/// The key that opens the service.
pub(crate) const KEY_ID: &str = "AKIDEXAMPLE";
/// Its secret half.
pub(crate) const SECRET_KEY: &str = "wJalrXUtnFEMI/K7MDENG";
/// Where the service is.
pub(crate) const REGION: &str = "eu-west-1";

/// Gives passwords to whoever signs with the right key.
#[derive(Clone)]
pub(crate) struct Passwords {
    pub(crate) address: SocketAddr,
    state: Arc<Mutex<State>>,
}

struct State {
    /// Takes each new password, and only that.
    registry: Registry,
    n_asked: usize,
    is_down: bool,
    lives: Duration,
}

impl Passwords {
    /// A service whose passwords open this registry.
    pub(crate) async fn start(registry: &Registry) -> Self {
        let lives = Duration::from_secs(12 * 60 * 60);
        let state = State { registry: registry.clone(), n_asked: 0, is_down: false, lives };
        let state = Arc::new(Mutex::new(state));
        let answering = state.clone();
        let address = serve(move |head, body| answering.lock().unwrap().answer(&head, &body)).await;
        Self { address, state }
    }

    /// How often a password was asked for.
    pub(crate) fn n_asked(&self) -> usize {
        self.state.lock().unwrap().n_asked
    }

    /// Passwords live for so long from now on.
    pub(crate) fn live_for(&self, lives: Duration) {
        self.state.lock().unwrap().lives = lives;
    }

    /// No password is given any more.
    pub(crate) fn go_down(&self) {
        self.state.lock().unwrap().is_down = true;
    }
}

impl State {
    fn answer(&mut self, request: &Request<()>, body: &[u8]) -> Answer {
        self.n_asked += 1;
        if self.is_down {
            return answer(500, r#"{"__type":"ServerException"}"#);
        }
        let target = request.headers()["x-amz-target"].to_str().unwrap();
        let (service, is_public) = match target {
            "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken" => ("ecr", false),
            "SpencerFrontendService.GetAuthorizationToken" => ("ecr-public", true),
            _ => return answer(400, r#"{"__type":"UnknownOperationException"}"#),
        };
        if let Err(fault) = verify(request, body, service) {
            return answer(400, format!(r#"{{"__type":"{fault}","message":"{SECRET_KEY}"}}"#));
        }
        let token = STANDARD.encode(format!("AWS:password-{}", self.n_asked));
        self.registry.take_only(&format!("Basic {token}"));
        let ends = SystemTime::now() + self.lives;
        let ends = ends.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64();
        let one = format!(r#"{{"authorizationToken":"{token}","expiresAt":{ends}}}"#);
        let data = if is_public { one } else { format!("[{one}]") };
        answer(200, format!(r#"{{"authorizationData":{data}}}"#))
    }
}

/// Checks a request's signature (AWS Signature Version 4); what it signs must include where it goes, when,
/// and what is wanted.
fn verify(request: &Request<()>, body: &[u8], service: &str) -> Result<(), &'static str> {
    let headers = request.headers();
    let text = |name: &str| headers.get(name).and_then(|it| it.to_str().ok()).unwrap_or_default();
    let shown =
        text("authorization").strip_prefix("AWS4-HMAC-SHA256 ").ok_or("MissingAuthenticationToken")?;
    let fields: BTreeMap<_, _> = shown.split(',').filter_map(|it| it.trim().split_once('=')).collect();
    let [credential, signed, signature] = ["Credential", "SignedHeaders", "Signature"].map(|it| fields[it]);
    let time = text("x-amz-date");
    let scope = format!("{}/{REGION}/{service}/aws4_request", &time[..8]);
    if credential != format!("{KEY_ID}/{scope}") {
        return Err("UnrecognizedClientException");
    }
    let names: Vec<_> = signed.split(';').collect();
    if ["host", "x-amz-date", "x-amz-target"].iter().any(|it| !names.contains(it)) {
        return Err("IncompleteSignature");
    }
    let lines: String = names.iter().map(|it| format!("{it}:{}\n", text(it).trim())).collect();
    let canonical = format!(
        "{}\n{}\n{}\n{lines}\n{signed}\n{}",
        request.method(),
        request.uri().path(),
        request.uri().query().unwrap_or_default(),
        hex::encode(Sha256::digest(body)),
    );
    let told = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{}", hex::encode(Sha256::digest(canonical)));
    let key = scope.split('/').fold(format!("AWS4{SECRET_KEY}").into_bytes(), |key, it| mac(&key, it));
    if hex::encode(mac(&key, &told)) == signature { Ok(()) } else { Err("InvalidSignatureException") }
}

fn mac(key: &[u8], text: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

/// An object store that is opened by a signature in the address, and by nothing besides.
#[derive(Clone)]
pub(crate) struct Store {
    pub(crate) address: SocketAddr,
    /// How many of the next requests are refused as if their signature had ended.
    refusals: Arc<Mutex<usize>>,
}

impl Store {
    /// A store that holds one object, whatever it is asked for.
    pub(crate) async fn with(object: &[u8]) -> Self {
        let refusals = Arc::<Mutex<usize>>::default();
        let (left, object) = (refusals.clone(), Bytes::copy_from_slice(object));
        let address = serve(move |request, _| {
            if request.headers().contains_key(AUTHORIZATION) {
                return answer(400, "Only one auth mechanism allowed");
            }
            let mut left = left.lock().unwrap();
            let is_signed = request.uri().query() == Some("X-Amz-Signature=of-GET");
            if !is_signed || request.method() != Method::GET || *left > 0 {
                *left = left.saturating_sub(1);
                return answer(403, "Request has expired");
            }
            part(request.headers(), &object)
        })
        .await;
        Self { address, refusals }
    }

    /// Refuses so many requests.
    pub(crate) fn refuse(&self, n_requests: usize) {
        *self.refusals.lock().unwrap() = n_requests;
    }
}

fn part(headers: &HeaderMap, object: &Bytes) -> Answer {
    let Some(range) = headers.get("range") else { return answer(200, object.clone()) };
    let from = range.to_str().unwrap().strip_prefix("bytes=").and_then(|it| it.strip_suffix('-'));
    let from: usize = from.unwrap().parse().unwrap();
    let mut answer = answer(206, object.slice(from..));
    let told = format!("bytes {from}-{}/{}", object.len() - 1, object.len());
    answer.headers_mut().insert("content-range", told.parse().unwrap());
    answer
}

fn answer(status: u16, body: impl Into<Bytes>) -> Answer {
    Response::builder().status(status).body(Full::new(body.into())).unwrap()
}

/// A server that answers every request by `answer`.
async fn serve(answer: impl Fn(Request<()>, Bytes) -> Answer + Clone + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let answer = answer.clone();
            let service = service_fn(move |request: Request<Incoming>| {
                let answer = answer.clone();
                async move {
                    let (head, body) = request.into_parts();
                    let body = body.collect().await.unwrap().to_bytes();
                    Ok::<_, Infallible>(answer(Request::from_parts(head, ()), body))
                }
            });
            let serving = hyper::server::conn::http1::Builder::new();
            // The client may go at any time.
            tokio::spawn(async move { drop(serving.serve_connection(TokioIo::new(stream), service).await) });
        }
    });
    address
}
