//! The TokenReview API of Kubernetes, as far as the gateway uses it: what a token is says its `jti`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::AUTHORIZATION;
use http::{HeaderMap, StatusCode};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use shoal_ops::Context;
use shoal_ops::serve::{Handshake, Introduction, Limits, Listener};
use tempfile::TempDir;

/// What the gateway has to show.
pub(crate) const OWN_TOKEN: &str = "the-gateways-own-token";

/// The text of a service account's token for this audience.
pub(crate) fn token_for(audience: &str, jti: &str) -> String {
    let part = |it: Value| URL_SAFE_NO_PAD.encode(it.to_string());
    let (header, claims) = (json!({"alg": "RS256", "kid": "1"}), json!({"aud": [audience], "jti": jti}));
    format!("{}.{}.{}", part(header), part(claims), URL_SAFE_NO_PAD.encode("signature"))
}

/// An API server on loopback.
pub(crate) struct Kubernetes {
    address: SocketAddr,
    dir: TempDir,
    n_reviews: Arc<AtomicUsize>,
}

impl Kubernetes {
    pub(crate) async fn start() -> Self {
        let (dir, ctx) = (tempfile::tempdir().unwrap(), Context::new("kubernetes", "0"));
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        std::fs::write(dir.path().join("ca.crt"), made.cert.pem()).unwrap();
        let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
        let tls = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let listener = Listener::bind("kubernetes", ([127, 0, 0, 1], 0).into()).await.unwrap();
        let address = listener.addr();
        let path = "/apis/authentication.k8s.io/v1/tokenreviews";
        let n_reviews = Arc::new(AtomicUsize::new(0));
        let router = Router::new().route(path, post(review)).with_state(n_reviews.clone());
        ctx.serve(listener.with(Arc::new(Tls(Arc::new(tls)))), router, Limits::new(100));
        let it = Self { address, dir, n_reviews };
        it.replace_own_token(OWN_TOKEN);
        it
    }

    /// The gateway's `security` settings for it, as YAML.
    pub(crate) fn settings(&self) -> String {
        let dir = self.dir.path().display();
        format!(
            "kubernetes: {{accounts: {{sidecar: 'shoal:sidecar', scheduler: 'shoal:scheduler'}}, \
             apiServer: 'https://{}', caFile: {dir}/ca.crt, tokenFile: {dir}/token}}",
            self.address,
        )
    }

    /// How many tokens it was asked about.
    pub(crate) fn n_reviews(&self) -> usize {
        self.n_reviews.load(Ordering::Relaxed)
    }

    pub(crate) fn replace_own_token(&self, token: &str) {
        std::fs::write(self.dir.path().join("token"), format!("{token}\n")).unwrap();
    }

    pub(crate) fn remove_own_token(&self) {
        std::fs::remove_file(self.dir.path().join("token")).unwrap();
    }
}

struct Tls(Arc<ServerConfig>);

impl Handshake for Tls {
    fn tls(&self) -> Option<Arc<ServerConfig>> {
        Some(self.0.clone())
    }

    fn introduce(&self, _: SocketAddr, _: Option<&CertificateDer<'_>>) -> Introduction {
        Introduction::default()
    }
}

/// What a token is, by its `jti`.
fn jti(token: &str) -> String {
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
    serde_json::from_slice::<Value>(&claims).unwrap()["jti"].as_str().unwrap().to_owned()
}

async fn review(
    State(n_reviews): State<Arc<AtomicUsize>>,
    headers: HeaderMap,
    Json(review): Json<Value>,
) -> Response {
    n_reviews.fetch_add(1, Ordering::Relaxed);
    if headers.get(AUTHORIZATION).unwrap() != &format!("Bearer {OWN_TOKEN}") {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    assert_eq!(
        (&review["apiVersion"], &review["kind"]),
        (&json!("authentication.k8s.io/v1"), &json!("TokenReview"))
    );
    assert_eq!(review["spec"]["audiences"], json!(["shoal"]));
    let node = json!({"authentication.kubernetes.io/node-name": ["node-1"],
                      "authentication.kubernetes.io/pod-name": ["pod-1"]});
    let pod = json!({"authentication.kubernetes.io/pod-name": ["pod-1"]});
    let status = match jti(review["spec"]["token"].as_str().unwrap()).as_str() {
        "sidecar-on-node-1" => known("sidecar", "shoal", node),
        "scheduler-on-node-1" => known("scheduler", "shoal", node),
        "scheduler-in-pod-1" => known("scheduler", "shoal", pod),
        "sidecar-without-node" => known("sidecar", "shoal", pod),
        "of-another-account" => known("default", "shoal", node),
        "for-another-audience" => known("sidecar", "https://kubernetes.default.svc", node),
        "fails" => return StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        "makes-no-sense" => json!("sense"),
        "too-long" => json!("x".repeat(1 << 20)),
        "hangs" => std::future::pending().await,
        _ => json!({"user": {}, "error": "[invalid bearer token]"}),
    };
    let mut review = review;
    review["status"] = status;
    (StatusCode::CREATED, Json(review)).into_response()
}

fn known(account: &str, audience: &str, extra: Value) -> Value {
    let username = format!("system:serviceaccount:shoal:{account}");
    json!({"authenticated": true, "audiences": [audience], "user": {
        "username": username, "uid": "7", "groups": ["system:serviceaccounts"], "extra": extra}})
}
