//! A gateway with a management API and preheat rules, before the registry of the recordings, and its answers.

use std::net::SocketAddr;

use bytes::Bytes;
use http::header::{AUTHORIZATION, LINK};
use http::{Method, Request};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use shoal_gateway::settings::{DEFAULT, Settings};
use shoal_ops::Context;
use shoal_ops::settings::Reader;
use tempfile::TempDir;

use super::own_address;
use super::registry::Registry;

/// The registry as the recorded bodies name it.
pub(crate) const NAME: &str = "127.0.0.1:17080";
/// The gateway's account, `robot$prod+pull:hunter2`.
pub(crate) const ROBOT: &str = "Basic cm9ib3QkcHJvZCtwdWxsOmh1bnRlcjI=";
/// What webhooks show.
pub(crate) const HOOK: &str = "Bearer whsecret";
/// Webhooks, and a rule for what they tell of.
pub(crate) const RULES: &str = "webhook: {authorization: 'Bearer whsecret'}, rules: [{repositories: ['p2p/**'], scope: single_seed_peer}]";

/// A gateway before the registry of the recordings.
pub(crate) struct Gateway {
    pub(crate) address: SocketAddr,
    pub(crate) ctx: Context,
    pub(crate) registry: Registry,
    _dir: TempDir,
}

/// A management token of the name's own and its hash.
pub(crate) fn token(name: &str) -> (String, String) {
    let secret = hex::encode(Sha256::digest(name));
    let hash = hex::encode(Sha256::digest(&secret));
    (format!("shoal_{}_{secret}", &hash[..8]), format!("sha256:{hash}"))
}

pub(crate) fn bearer(name: &str) -> String {
    format!("Bearer {}", token(name).0)
}

impl Gateway {
    pub(crate) async fn start(preheat: &str) -> Self {
        Self::start_with(preheat, "mode: client").await
    }

    /// The gateway's account decides who may read what, or it does not.
    pub(crate) async fn start_with(preheat: &str, mode: &str) -> Self {
        let (dir, address, registry) =
            (tempfile::tempdir().unwrap(), own_address(), Registry::with_secret(ROBOT).await);
        let declared = |name: &str, scopes: &str| {
            format!("{{name: {name}, hash: '{}', scopes: [{scopes}]}}", token(name).1)
        };
        let user = format!(
            "
listen: '127.0.0.1:0'
security: {{mtls: false}}
storage: {{dir: '{}', freeSpaceFloor: 0}}
download: {{pieceSize: 64Ki}}
management:
  listen: '{address}'
  requestsPerSecond: 1000
  tokens: [{}, {}, {}]
preheat: {{{preheat}}}
registries:
  - name: '{NAME}'
    url: 'http://{}'
    insecure: true
    credentials: {{username: 'robot$prod+pull', password: hunter2, {mode}}}
",
            dir.path().display(),
            declared("harbor", "preheat"),
            declared("reader", "read"),
            declared("boss", "admin"),
            registry.address,
        );
        let reader = Reader::new(&user, DEFAULT, |_| None);
        let settings = Settings::read(&reader);
        reader.finish().unwrap();
        let ctx = Context::new("gateway", "0");
        shoal_gateway::start(settings, ctx.clone()).await.unwrap();
        Self { address, ctx, registry, _dir: dir }
    }

    pub(crate) async fn call(
        &self,
        method: Method,
        path: &str,
        authorization: Option<&str>,
        body: &str,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(format!("http://{}{path}", self.address));
        if let Some(authorization) = authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        Self::answer(request.body(Full::<Bytes>::from(body.to_owned())).unwrap()).await
    }

    pub(crate) async fn answer(request: Request<Full<Bytes>>) -> Answer {
        let client = Client::builder(TokioExecutor::new()).build_http();
        let (head, body) = client.request(request).await.unwrap().into_parts();
        let link = head.headers.get(LINK).map(|it| it.to_str().unwrap().to_owned());
        let body = body.collect().await.unwrap().to_bytes();
        Answer { status: head.status.as_u16(), link: link.unwrap_or_default(), body }
    }
}

/// What it answered.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) link: String,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    #[track_caller]
    pub(crate) fn is(&self, status: u16, text: &str) {
        let body = String::from_utf8_lossy(&self.body);
        assert!(self.status == status && body.contains(text), "{status} {text:?}: {} {body}", self.status);
    }
}
