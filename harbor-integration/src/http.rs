//! One HTTP exchange at a time, with an end: a deadline for all of it, and a cap for the answer.
//!
//! Redirects are not followed, since a credential goes along: where one leads is told instead. The environment's
//! proxies are not used either; neither does Harbor use them to ask the gateway.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, LOCATION};
use http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::Value;
use tokio::time::timeout;
use url::Url;

/// The largest answer that is read, in bytes.
const MAX_ANSWER: usize = 4 << 20;
/// The longest part of an answer that is shown, in characters.
const MAX_SHOWN: usize = 300;

/// A server and who asks it.
pub(crate) struct Http {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    base: Url,
    authorization: Option<HeaderValue>,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Bytes,
    location: Option<String>,
    next: bool,
}

/// Why nothing came back.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HttpError {
    #[error("{url}: no answer within {deadline:?}")]
    Slow { url: Url, deadline: Duration },
    #[error("{url}: {reason}")]
    Connection { url: Url, reason: String },
}

/// A file of certificates that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{}: {reason}", path.display())]
pub(crate) struct CertificatesError {
    path: PathBuf,
    reason: String,
}

impl Http {
    pub(crate) fn new(
        base: Url,
        ca: Option<&Path>,
        authorization: Option<HeaderValue>,
    ) -> Result<Self, CertificatesError> {
        let authorization = authorization.map(|mut it| {
            it.set_sensitive(true);
            it
        });
        Ok(Self { client: client(roots(ca)?), base, authorization })
    }

    pub(crate) async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        deadline: Duration,
    ) -> Result<Answer, HttpError> {
        let url = self.url(path);
        let failed = |reason: String| HttpError::Connection { url: url.clone(), reason };
        let mut request = Request::builder()
            .method(method)
            .uri(url.as_str())
            .header(ACCEPT, "application/json")
            // Harbor would take a name of digits for a number.
            .header("X-Is-Resource-Name", "true");
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization.clone());
        }
        let body = match body {
            Some(body) => {
                request = request.header(CONTENT_TYPE, "application/json");
                Full::from(body.to_string())
            }
            None => Full::default(),
        };
        let request = request.body(body).map_err(|it| failed(it.to_string()))?;
        let exchange = async {
            let response = self.client.request(request).await.map_err(|it| failed(reasons(&it)))?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, MAX_ANSWER).collect().await.map_err(|it| failed(it.to_string()))?;
            let text = |it: http::HeaderName| head.headers.get(it)?.to_str().ok().map(str::to_owned);
            let next = text(http::header::LINK).is_some_and(|it| it.contains("rel=\"next\""));
            Ok(Answer { status: head.status, body: body.to_bytes(), location: text(LOCATION), next })
        };
        let late = |_| HttpError::Slow { url: url.clone(), deadline };
        timeout(deadline, exchange).await.map_err(late)?
    }

    fn url(&self, path: &str) -> Url {
        let mut url = self.base.clone();
        let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
        url.set_path(&format!("{}{path}", self.base.path().trim_end_matches('/')));
        url.set_query(query);
        url
    }
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// Whether a list goes on after this page.
    pub(crate) fn has_next(&self) -> bool {
        self.next
    }

    /// What the server says of itself, to be shown: a redirect's target, an error's message, the beginning of a text.
    pub(crate) fn message(&self) -> String {
        if let Some(location) = &self.location {
            return format!("leads to {}", printable(location));
        }
        let json = self.json();
        let said = json["errors"][0]["message"].as_str().or_else(|| json["message"].as_str());
        printable(said.unwrap_or(&String::from_utf8_lossy(&self.body)))
    }
}

fn printable(text: &str) -> String {
    text.trim().chars().filter(|it| !it.is_control()).take(MAX_SHOWN).collect()
}

/// An error with what is behind it: the client's own text says only that it failed.
fn reasons(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text += &format!(": {error}");
        source = error.source();
    }
    text
}

fn roots(ca: Option<&Path>) -> Result<RootCertStore, CertificatesError> {
    let mut roots = RootCertStore::empty();
    // A system certificate that cannot be parsed is as good as absent.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let Some(path) = ca else { return Ok(roots) };
    let fail = |reason: String| CertificatesError { path: path.to_owned(), reason };
    let mut n_found = 0;
    for certificate in CertificateDer::pem_file_iter(path).map_err(|it| fail(it.to_string()))? {
        let certificate = certificate.map_err(|it| fail(it.to_string()))?;
        roots.add(certificate).map_err(|it| fail(it.to_string()))?;
        n_found += 1;
    }
    if n_found == 0 { Err(fail("holds no certificate".to_owned())) } else { Ok(roots) }
}

#[expect(clippy::expect_used, reason = "input cannot reach it")]
fn client(roots: RootCertStore) -> Client<HttpsConnector<HttpConnector>, Full<Bytes>> {
    let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring supports the default protocol versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().build();
    Client::builder(TokioExecutor::new()).build(connector)
}
