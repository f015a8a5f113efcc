//! Asks Kubernetes what it knows of a service account's token: the TokenReview API.
//!
//! The gateway shows its own token, which the kubelet replaces every hour or so; so the file is read each
//! time. No more than a few reviews are under way at once, since a whole fleet may join within seconds; some
//! more wait, and all waiting together ends after [`DEADLINE`]. What is not answered is not decided: who asked
//! comes again. What cannot be a good token is not asked about.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::proven::{Proof, Refused, TokenStatus, check_presented, reviewed};
use crate::settings::KubernetesSettings;

/// How long a review may take, all waiting included.
const DEADLINE: Duration = Duration::from_secs(3);
/// How many reviews are under way at once.
const AT_ONCE: usize = 16;
/// How many more wait for their turn. Who comes then is sent away at once.
const WAITING: usize = 64;
/// The longest answer that is read, in bytes.
const MAX_ANSWER: usize = 256 << 10;
/// How long a connection is kept for the next review.
const IDLE: Duration = Duration::from_secs(60);

/// The Kubernetes API, as far as it knows tokens.
pub(super) struct TokenReviews {
    settings: KubernetesSettings,
    uri: Uri,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    /// For those under way and those who wait.
    places: Semaphore,
    /// For those under way.
    slots: Semaphore,
}

/// Certificates of the API that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("security.kubernetes: {}: {fault}", path.display())]
pub(super) struct SetupError {
    path: PathBuf,
    fault: String,
}

/// Why nothing is known of a token.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReviewError {
    #[error("token review: {WAITING} others wait for theirs")]
    Busy,
    #[error("token review: no answer within {DEADLINE:?}")]
    Slow,
    #[error("token review: the gateway's own token {}: {reason}", path.display())]
    OwnToken { path: PathBuf, reason: String },
    #[error("token review: {0}")]
    Connection(String),
    #[error("token review: status {0}; the gateway's account needs the cluster role system:auth-delegator")]
    NotAllowed(StatusCode),
    #[error("token review: status {0}")]
    Status(StatusCode),
    #[error("token review: the answer is none")]
    Malformed,
}

#[derive(Deserialize)]
struct Review {
    status: TokenStatus,
}

impl TokenReviews {
    /// Reads the certificates, connects nowhere.
    pub(super) fn new(settings: KubernetesSettings) -> Result<Self, SetupError> {
        let path = &settings.ca_file;
        let fail = |fault: String| SetupError { path: path.clone(), fault };
        let roots = roots(path).map_err(fail)?;
        let mut uri = settings.api_server.clone();
        uri.set_path(&format!(
            "{}/apis/authentication.k8s.io/v1/tokenreviews",
            uri.path().trim_end_matches('/')
        ));
        let uri = uri.as_str().parse().map_err(|it: http::uri::InvalidUri| fail(it.to_string()))?;
        let (places, slots) = (Semaphore::new(AT_ONCE + WAITING), Semaphore::new(AT_ONCE));
        Ok(Self { settings, uri, client: client(roots), places, slots })
    }

    /// What a token proves.
    pub(super) async fn review(&self, token: &str) -> Result<Result<Proof, Refused>, ReviewError> {
        if let Err(refused) = check_presented(token, &self.settings.audience) {
            return Ok(Err(refused));
        }
        let _place = self.places.try_acquire().map_err(|_| ReviewError::Busy)?;
        let status = timeout(DEADLINE, self.ask(token)).await.map_err(|_| ReviewError::Slow)??;
        Ok(reviewed(status, &self.settings.audience, &self.settings.accounts))
    }

    #[expect(clippy::expect_used, reason = "input cannot reach it")]
    async fn ask(&self, token: &str) -> Result<TokenStatus, ReviewError> {
        let _slot = self.slots.acquire().await.expect("the semaphore is never closed");
        let review = json!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": token, "audiences": [self.settings.audience]},
        });
        let request = Request::post(self.uri.clone())
            .header(AUTHORIZATION, self.own_token().await?)
            .header(CONTENT_TYPE, "application/json")
            .body(Full::from(review.to_string()))
            .expect("its parts are valid");
        let response = self.client.request(request).await.map_err(|it| connection(it.into()))?;
        match response.status() {
            StatusCode::OK | StatusCode::CREATED => {}
            status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
                return Err(ReviewError::NotAllowed(status));
            }
            status => return Err(ReviewError::Status(status)),
        }
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
        let body = body.map_err(|it| connection(anyhow::Error::from_boxed(it)))?.to_bytes();
        // The answer repeats the token, so what is wrong with it is not quoted.
        let review: Review = serde_json::from_slice(&body).map_err(|_| ReviewError::Malformed)?;
        Ok(review.status)
    }

    async fn own_token(&self) -> Result<HeaderValue, ReviewError> {
        let path = &self.settings.token_file;
        let fail = |reason: String| ReviewError::OwnToken { path: path.clone(), reason };
        let text = tokio::fs::read_to_string(path).await.map(Zeroizing::new);
        let text = text.map_err(|it| fail(it.to_string()))?;
        let bearer = Zeroizing::new(format!("Bearer {}", text.trim()));
        let mut value = HeaderValue::from_str(&bearer).map_err(|_| fail("is no token".to_owned()))?;
        value.set_sensitive(true);
        Ok(value)
    }
}

/// The reason behind the reasons.
fn connection(error: anyhow::Error) -> ReviewError {
    ReviewError::Connection(format!("{error:#}"))
}

fn roots(path: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    let certificates = CertificateDer::pem_file_iter(path).map_err(|it| it.to_string())?;
    for certificate in certificates {
        let certificate = certificate.map_err(|it| it.to_string())?;
        roots.add(certificate).map_err(|it| it.to_string())?;
    }
    if roots.is_empty() { Err("holds no certificate".to_owned()) } else { Ok(roots) }
}

#[expect(clippy::expect_used, reason = "input cannot reach it")]
fn client(roots: RootCertStore) -> Client<HttpsConnector<HttpConnector>, Full<Bytes>> {
    let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring supports the default protocol versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_only().enable_http1().build();
    Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE)
        .pool_max_idle_per_host(AT_ONCE)
        .build(connector)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// `{"alg":"RS256"}`, `{"aud":"shoal"}`, and a signature.
    const TOKEN: &str = "eyJhbGciOiJSUzI1NiJ9.eyJhdWQiOiJzaG9hbCJ9.c2ln";

    #[tokio::test]
    async fn who_comes_while_too_many_wait_is_sent_away_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let (ca_file, token_file) = (dir.path().join("ca.crt"), dir.path().join("none"));
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        std::fs::write(&ca_file, made.cert.pem()).unwrap();
        let api_server = "https://localhost:1".parse().unwrap();
        let audience = "shoal".to_owned();
        let settings =
            KubernetesSettings { accounts: BTreeMap::new(), audience, api_server, ca_file, token_file };
        let reviews = TokenReviews::new(settings).unwrap();

        let n_others = u32::try_from(AT_ONCE + WAITING - 1).unwrap();
        let _others = reviews.places.try_acquire_many(n_others).unwrap();
        // The last place leads as far as the gateway's own token, which is missing.
        assert!(matches!(reviews.review(TOKEN).await, Err(ReviewError::OwnToken { .. })));
        let _last = reviews.places.try_acquire().unwrap();
        assert!(matches!(reviews.review(TOKEN).await, Err(ReviewError::Busy)));
    }
}
