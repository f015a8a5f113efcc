//! One HTTP exchange at a time, with an end: a deadline for all of it, and a cap for the answer.
//!
//! It is what our command lines ask with: Harbor and the gateway set up by `shoal-harbor`, the management API and a node
//! asked by `shoalctl`. Redirects are not followed, since a credential goes along: where one leads is told instead. The
//! environment's proxies are not used either; neither does Harbor use them to ask the gateway.
//!
//! Knows nothing of: what is asked for, who asks, what an answer means.

// Outside input gets here, and none may make a process panic. JSON is indexed by names: what is not there is null.
#![cfg_attr(not(test), warn(clippy::expect_used, clippy::panic, clippy::string_slice))]

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, LINK, LOCATION};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
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
pub struct Http {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    base: Url,
    /// What goes along with every request.
    headers: HeaderMap,
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// All of its body.
    pub body: Bytes,
}

/// Why nothing came back.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// There was no answer, or not all of it.
    #[error("{url}: no answer within {deadline:?}")]
    Slow {
        /// What was asked.
        url: Url,
        /// Within this time.
        deadline: Duration,
    },
    /// The connection did not come about, or broke.
    #[error("{url}: {reason}")]
    Connection {
        /// What was asked.
        url: Url,
        /// What went wrong.
        reason: String,
    },
}

/// A file of certificates that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{}: {reason}", path.display())]
pub struct CertificatesError {
    path: PathBuf,
    reason: String,
}

impl Http {
    /// A server at `base`; `ca` is a file of certificates to trust besides the system's.
    ///
    /// # Errors
    /// Where that file is of no use.
    pub fn new(
        base: Url,
        ca: Option<&Path>,
        authorization: Option<HeaderValue>,
    ) -> Result<Self, CertificatesError> {
        let mut headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static("application/json"))]);
        if let Some(mut authorization) = authorization {
            authorization.set_sensitive(true);
            headers.insert(AUTHORIZATION, authorization);
        }
        Ok(Self { client: client(roots(ca)?), base, headers })
    }

    /// The same with one more header on every request.
    #[must_use]
    pub fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// The server's address.
    pub fn base(&self) -> &Url {
        &self.base
    }

    /// Asks, and takes the whole answer in.
    ///
    /// # Errors
    /// Where it is not there by `deadline`.
    pub async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        deadline: Duration,
    ) -> Result<Answer, HttpError> {
        let url = self.url(path);
        let exchange = async {
            let (head, body) = self.send(method, &url, HeaderMap::new(), body).await?.into_parts();
            let body = Limited::new(body, MAX_ANSWER).collect().await;
            let body = body.map_err(|it| failed(&url, it.to_string()))?.to_bytes();
            Ok(Answer { status: head.status, headers: head.headers, body })
        };
        within(deadline, &url, exchange).await
    }

    /// Asks for something large, with further headers, and returns once the answer begins. The body has no deadline
    /// here.
    ///
    /// # Errors
    /// Where it has not begun by `deadline`.
    pub async fn open(
        &self,
        path: &str,
        headers: HeaderMap,
        deadline: Duration,
    ) -> Result<Response<Incoming>, HttpError> {
        let url = self.url(path);
        within(deadline, &url, self.send(Method::GET, &url, headers, None)).await
    }

    async fn send(
        &self,
        method: Method,
        url: &Url,
        headers: HeaderMap,
        body: Option<&Value>,
    ) -> Result<Response<Incoming>, HttpError> {
        let content = body.map_or_else(Full::default, |it| Full::from(it.to_string()));
        let request = Request::builder().method(method).uri(url.as_str()).body(content);
        let mut request = request.map_err(|it| failed(url, it.to_string()))?;
        request.headers_mut().extend(self.headers.clone());
        if body.is_some() {
            request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        request.headers_mut().extend(headers);
        self.client.request(request).await.map_err(|it| failed(url, reasons(&it)))
    }

    fn url(&self, path: &str) -> Url {
        let mut url = self.base.clone();
        let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
        url.set_path(&format!("{}{path}", self.base.path().trim_end_matches('/')));
        url.set_query(query);
        url
    }
}

fn failed(url: &Url, reason: String) -> HttpError {
    HttpError::Connection { url: url.clone(), reason }
}

async fn within<T>(
    deadline: Duration,
    url: &Url,
    exchange: impl Future<Output = Result<T, HttpError>>,
) -> Result<T, HttpError> {
    let late = |_| HttpError::Slow { url: url.clone(), deadline };
    timeout(deadline, exchange).await.map_err(late)?
}

impl Answer {
    /// Its body as JSON; null where it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The text of a header.
    pub fn header(&self, name: HeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Whether a list goes on after this page.
    pub fn has_next(&self) -> bool {
        self.header(LINK).is_some_and(|it| it.contains("rel=\"next\""))
    }

    /// What the server says of itself, to be shown: a redirect's target, all its errors, a message, the beginning of a
    /// text.
    pub fn message(&self) -> String {
        if let Some(location) = self.header(LOCATION) {
            return format!("leads to {}", printable(location));
        }
        let json = self.json();
        let error = |it: &Value| it.as_str().or_else(|| it["message"].as_str()).map(str::to_owned);
        let errors: Vec<_> = json["errors"].as_array().into_iter().flatten().filter_map(error).collect();
        match (errors.is_empty(), json["message"].as_str()) {
            (false, _) => printable(&errors.join("; ")),
            (true, Some(message)) => printable(message),
            (true, None) => printable(&String::from_utf8_lossy(&self.body)),
        }
    }
}

/// Reads the address of a server, which has no path of its own meaning, no query and no credential.
///
/// # Errors
/// What is wrong with it; completes a sentence that begins with the text.
pub fn address(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|_| "is not a URL".to_owned())?;
    let is_bare = url.query().is_none()
        && url.fragment().is_none()
        && url.username().is_empty()
        && url.password().is_none();
    if !["http", "https"].contains(&url.scheme()) || !url.has_host() || !is_bare {
        return Err("is not of the form https://host[:port] or http://host[:port]".to_owned());
    }
    Ok(url)
}

/// What a server says, fit for a terminal: one line of at most 300 characters.
pub fn printable(text: &str) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(body: &str, location: Option<&'static str>, expected: &str) {
        let headers = location.map(|it| (LOCATION, HeaderValue::from_static(it)));
        let headers = headers.into_iter().collect();
        let answer = Answer { status: StatusCode::OK, headers, body: body.to_owned().into() };
        assert_eq!(answer.message(), expected);
    }

    #[test]
    fn a_server_is_quoted_in_its_own_words() {
        check(r#"{"errors": [{"code": "X", "message": "is running"}]}"#, None, "is running");
        check(r#"{"errors": ["a is wrong", "b is missing"]}"#, None, "a is wrong; b is missing");
        check(r#"{"message": "Unauthorized"}"#, None, "Unauthorized");
        check(r#"{"errors": []}"#, None, r#"{"errors": []}"#);
        check(" no\u{1b}[2J\nJSON ", None, "no[2JJSON");
        check("", Some("https://elsewhere.example/"), "leads to https://elsewhere.example/");
    }

    #[test]
    fn an_address_is_bare() {
        assert!(address("https://gateway.example.com:65023").is_ok());
        for bad in ["gateway:65023", "ftp://a", "https://u:p@a", "https://a?b=c", "https://a#b", ""] {
            assert!(address(bad).is_err(), "{bad}");
        }
    }
}
