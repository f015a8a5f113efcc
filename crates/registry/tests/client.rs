//! The client against servers on loopback: redirects, credentials, silence, certificates.

#![allow(clippy::unwrap_used, reason = "in a test, an unwrap is an assertion")]

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::header::{AUTHORIZATION, LOCATION, RANGE};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rcgen::{CertifiedKey, KeyPair};
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::PrivateKeyDer;
use shoal_registry::{ClientCertificate, Endpoint, ErrorKind, Network, RegistryClient};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

type Answer = Response<Full<Bytes>>;
type Seen = Arc<Mutex<Vec<HeaderMap>>>;

async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    seen: Seen,
    answer: impl Fn(&Request<Incoming>) -> Answer + Clone,
) {
    let service = service_fn(move |request: Request<Incoming>| {
        seen.lock().unwrap().push(request.headers().clone());
        let answer = answer(&request);
        async move { Ok::<_, std::convert::Infallible>(answer) }
    });
    // The client may go at any time.
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

/// A plain server that answers every request by `answer` and remembers the headers it saw.
async fn serve(
    answer: impl Fn(&Request<Incoming>) -> Answer + Clone + Send + Sync + 'static,
) -> (SocketAddr, Seen) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Seen::default();
    let log = seen.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(converse(stream, log.clone(), answer.clone()));
        }
    });
    (address, seen)
}

fn found(location: &str) -> Answer {
    Response::builder().status(307).header(LOCATION, location).body(Full::default()).unwrap()
}

fn content(text: &'static str) -> Answer {
    Response::new(Full::from(text))
}

fn plain_endpoint(address: SocketAddr) -> Endpoint {
    let mut endpoint = Endpoint::of("registry.example".parse().unwrap()).unwrap();
    endpoint.url = format!("http://{address}").parse().unwrap();
    endpoint.insecure = true;
    endpoint
}

fn request(path: &str) -> Request<()> {
    Request::get(path).header(AUTHORIZATION, "Basic c2VjcmV0").header(RANGE, "bytes=5-").body(()).unwrap()
}

async fn failure(endpoint: &Endpoint, path: &str) -> (ErrorKind, String) {
    let error = RegistryClient::new(endpoint).unwrap().send(request(path)).await.unwrap_err();
    (error.kind, error.to_string())
}

#[tokio::test]
async fn a_redirect_elsewhere_takes_the_range_along_and_leaves_the_credential_behind() {
    let (store, at_store) = serve(|_| content("bytes")).await;
    let (registry, at_registry) = serve(move |request| match request.uri().path() {
        "/v2/a" => found("/v2/b"),
        _ => found(&format!("http://{store}/c?signature=1")),
    })
    .await;

    let client = RegistryClient::new(&plain_endpoint(registry)).unwrap();
    let answer = client.send(request("/v2/a?x=1")).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "bytes");

    let at_registry = at_registry.lock().unwrap();
    assert_eq!(at_registry.len(), 2);
    assert!(at_registry.iter().all(|it| it.contains_key(AUTHORIZATION)));
    let at_store = at_store.lock().unwrap();
    assert!(!at_store[0].contains_key(AUTHORIZATION));
    assert_eq!(at_store[0][RANGE], "bytes=5-");
}

#[tokio::test]
async fn a_password_reaches_the_token_service_and_nobody_behind_it() {
    let (stranger, at_stranger) = serve(|_| content("{}")).await;
    let (registry, at_registry) = serve(move |_| found(&format!("http://{stranger}/token"))).await;
    let client = RegistryClient::new(&plain_endpoint(registry)).unwrap();
    let password = || Some("Basic c2VjcmV0".parse().unwrap());
    let scope = [("scope", "repository:a/b:pull")];

    let realm = format!("http://{registry}/token?account=x#y");
    let answer = client.ask_token_service((&realm, Network::Private), &scope, password()).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(at_registry.lock().unwrap()[0][AUTHORIZATION], "Basic c2VjcmV0");
    assert!(!at_stranger.lock().unwrap()[0].contains_key(AUTHORIZATION));

    for realm in [format!("http://localhost:{}/token", stranger.port()), "not a URL".to_owned()] {
        let error =
            client.ask_token_service((&realm, Network::Private), &scope, password()).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Redirect, "{error}");
    }
    assert_eq!(at_stranger.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_token_service_is_asked_with_its_own_query_and_ours() {
    let (registry, _) = serve(|request| {
        let query = request.uri().query().unwrap_or_default().to_owned();
        Response::new(Full::from(query))
    })
    .await;
    let client = RegistryClient::new(&plain_endpoint(registry)).unwrap();
    let realm = format!("http://{registry}/token?account=x#y");
    let answer = client
        .ask_token_service((&realm, Network::Private), &[("scope", "repository:a/b:pull")], None)
        .await
        .unwrap();
    let seen = answer.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(seen, "account=x&scope=repository%3Aa%2Fb%3Apull");
}

#[tokio::test]
async fn a_token_service_is_not_asked_where_its_challenge_may_not_lead() {
    for (host, from, why) in [
        ("127.0.0.1:1", Network::Inner, "inside this machine"),
        ("10.0.0.1:1", Network::Public, "into the private network"),
        ("localhost:1", Network::Public, "inside this machine"),
    ] {
        let mut endpoint = plain_endpoint(SocketAddr::from(([127, 0, 0, 1], 1)));
        endpoint.url = "http://registry.example".parse().unwrap();
        endpoint.name = host.parse().unwrap();
        let client = RegistryClient::new(&endpoint).unwrap();
        let realm = format!("http://{host}/token");
        let error = client.ask_token_service((&realm, from), &[], None).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Redirect, "{error}");
        assert!(error.to_string().contains(why), "{error}");
    }
}

#[tokio::test]
async fn an_answer_tells_where_it_came_from() {
    let (registry, _) = serve(|_| content("ok")).await;
    let client = RegistryClient::new(&plain_endpoint(registry)).unwrap();
    assert_eq!(Network::behind(&client.send(request("/v2/")).await.unwrap()), Network::Inner);
}

#[tokio::test]
async fn a_host_that_a_caller_chose_is_judged_like_any_other() {
    let (registry, seen) = serve(|_| content("ok")).await;
    for url in [format!("http://{registry}"), format!("http://localhost:{}", registry.port())] {
        let mut endpoint = plain_endpoint(registry);
        endpoint.url = url.parse().unwrap();
        endpoint.chosen_by_caller = true;
        let (kind, text) = failure(&endpoint, "/v2/").await;
        assert_eq!(kind, ErrorKind::Redirect, "{text}");
        assert!(text.contains("inside this machine"), "{text}");
    }
    assert!(seen.lock().unwrap().is_empty());
}

#[tokio::test]
async fn an_inner_address_is_not_asked_whether_it_is_written_out_or_looked_up() {
    let (registry, seen) = serve(|request| match request.uri().path() {
        "/literal" => found("http://127.0.0.2:1/x"),
        _ => found("http://localhost:1/x"),
    })
    .await;
    for path in ["/literal", "/name"] {
        let (kind, text) = failure(&plain_endpoint(registry), path).await;
        assert_eq!(kind, ErrorKind::Redirect, "{text}");
        assert!(text.starts_with(&format!("registry registry.example: GET {path}: ")), "{text}");
    }
    assert_eq!(seen.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn a_ring_of_redirects_ends() {
    let (registry, seen) = serve(|_| found("/again?signature=secret")).await;
    let (kind, text) = failure(&plain_endpoint(registry), "/v2/a").await;
    assert_eq!(kind, ErrorKind::Redirect);
    assert!(!text.contains("secret"), "{text}");
    assert_eq!(seen.lock().unwrap().len(), 6);
}

#[tokio::test]
async fn nobody_there_is_told_from_nonsense() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.read_u8().await.unwrap();
        stream.write_all(b"SSH-2.0-nonsense\r\n\r\n").await.unwrap();
        // The listener is gone from here on.
    });
    assert_eq!(failure(&plain_endpoint(address), "/v2/").await.0, ErrorKind::Protocol);
    assert_eq!(failure(&plain_endpoint(address), "/v2/").await.0, ErrorKind::Connect);
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_falls_silent_is_given_up() {
    for spoken in ["", "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf"] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let silent = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.read_u8().await.unwrap();
            stream.write_all(spoken.as_bytes()).await.unwrap();
            std::future::pending::<()>().await;
            drop(stream);
        });
        let client = RegistryClient::new(&plain_endpoint(address)).unwrap();
        let error = match client.send(request("/v2/")).await {
            Ok(answer) => answer.into_body().collect().await.map(|_| ()).unwrap_err(),
            Err(error) => error,
        };
        assert_eq!(error.kind, ErrorKind::Timeout, "{error}");
        silent.abort();
    }
}

/// A registry that redirects every request to a store, whose answers have these statuses in turn.
async fn redirecting(statuses: &'static [u16]) -> (SocketAddr, Seen, Seen) {
    let n_asked = Arc::new(AtomicUsize::new(0));
    let (store, at_store) = serve(move |_| {
        let status = statuses[n_asked.fetch_add(1, Ordering::Relaxed)];
        Response::builder().status(status).body(Full::from("bytes")).unwrap()
    })
    .await;
    let (registry, at_registry) = serve(move |_| found(&format!("http://{store}/c?signature=secret"))).await;
    (registry, at_registry, at_store)
}

#[tokio::test]
async fn a_store_that_refuses_is_asked_once_more_by_a_fresh_address() {
    for statuses in [&[403, 200], &[400, 200], &[401, 200]] {
        let (registry, at_registry, at_store) = redirecting(statuses).await;
        let client = RegistryClient::new(&plain_endpoint(registry)).unwrap();
        let answer = client.send(request("/v2/a")).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        let at_registry = at_registry.lock().unwrap();
        assert_eq!(at_registry.len(), 2);
        assert!(at_registry.iter().all(|it| it.contains_key(AUTHORIZATION)));
        assert!(at_store.lock().unwrap().iter().all(|it| !it.contains_key(AUTHORIZATION)));
    }
}

#[tokio::test]
async fn a_store_that_refuses_again_is_not_taken_for_the_registry() {
    let (registry, at_registry, _) = redirecting(&[403, 403]).await;
    let (kind, text) = failure(&plain_endpoint(registry), "/v2/a").await;
    assert_eq!(kind, ErrorKind::Store);
    assert!(text.contains("which answered 403") && !text.contains("secret"), "{text}");
    assert_eq!(at_registry.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn what_the_registry_itself_refuses_and_what_a_store_lacks_is_their_answer() {
    let (registry, seen) = serve(|request| {
        let status = if request.uri().path() == "/v2/b" { 403 } else { 307 };
        Response::builder().status(status).header(LOCATION, "/v2/b").body(Full::default()).unwrap()
    })
    .await;
    let client = RegistryClient::new(&plain_endpoint(registry)).unwrap();
    assert_eq!(client.send(request("/v2/a")).await.unwrap().status(), StatusCode::FORBIDDEN);
    assert_eq!(seen.lock().unwrap().len(), 2);

    let (registry, at_registry, _) = redirecting(&[404]).await;
    let client = RegistryClient::new(&plain_endpoint(registry)).unwrap();
    assert_eq!(client.send(request("/v2/a")).await.unwrap().status(), StatusCode::NOT_FOUND);
    assert_eq!(at_registry.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn no_path_leads_to_another_host() {
    let (registry, seen) = serve(|request| Response::new(Full::from(request.uri().to_string()))).await;
    let client = RegistryClient::new(&plain_endpoint(registry)).unwrap();
    for (path, sent) in [("//evil.example/x?a=b", "//evil.example/x?a=b"), ("*", "/*")] {
        let answer = client.send(request(path)).await.unwrap();
        assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), sent);
    }
    assert_eq!(seen.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn two_credentials_are_not_sent() {
    let (registry, seen) = serve(|_| content("ok")).await;
    let client = RegistryClient::new(&plain_endpoint(registry)).unwrap();
    let mut request = request("/v2/a");
    request.headers_mut().append(AUTHORIZATION, "Basic YW5u".parse().unwrap());
    let error = client.send(request).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Protocol, "{error}");
    assert!(seen.lock().unwrap().is_empty());
}

/// A certificate for localhost, which signed itself, and its key; both as PEM files.
struct Certificate {
    issued: CertifiedKey<KeyPair>,
    files: ClientCertificate,
    _dir: TempDir,
}

impl Certificate {
    fn new() -> Self {
        let issued = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let files = ClientCertificate { chain: dir.path().join("tls.crt"), key: dir.path().join("tls.key") };
        std::fs::write(&files.chain, issued.cert.pem()).unwrap();
        std::fs::write(&files.key, issued.signing_key.serialize_pem()).unwrap();
        Self { issued, files, _dir: dir }
    }

    /// Takes another one's place.
    fn replace(&self, other: &ClientCertificate) {
        std::fs::copy(&self.files.chain, &other.chain).unwrap();
        std::fs::copy(&self.files.key, &other.key).unwrap();
    }

    /// A TLS server with this certificate that takes any certificate of `clients`, and answers with the number
    /// of certificates that it was shown, or as `answer` says.
    async fn serve(
        &self,
        clients: &Self,
        answer: impl Fn() -> Option<Answer> + Clone + Send + 'static,
    ) -> u16 {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = rustls::RootCertStore::empty();
        roots.add(clients.issued.cert.der().clone()).unwrap();
        let asking = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
        let key = PrivateKeyDer::try_from(self.issued.signing_key.serialize_der()).unwrap();
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(asking.allow_unauthenticated().build().unwrap())
            .with_single_cert(vec![self.issued.cert.der().clone()], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(stream) = acceptor.accept(stream).await else { continue };
                let n_shown = stream.get_ref().1.peer_certificates().map_or(0, <[_]>::len);
                let answer = answer.clone();
                let answer = move |_: &Request<Incoming>| {
                    answer().unwrap_or_else(|| Response::new(Full::from(n_shown.to_string())))
                };
                tokio::spawn(converse(stream, Seen::default(), answer));
            }
        });
        port
    }

    fn endpoint(&self, port: u16) -> Endpoint {
        let mut endpoint = Endpoint::of("registry.example".parse().unwrap()).unwrap();
        endpoint.url = format!("https://localhost:{port}").parse().unwrap();
        endpoint.ca = Some(self.files.chain.clone());
        endpoint
    }
}

async fn text(client: &RegistryClient) -> String {
    let answer = client.send(request("/v2/")).await.unwrap();
    String::from_utf8(answer.into_body().collect().await.unwrap().to_bytes().into()).unwrap()
}

#[tokio::test]
async fn a_certificate_is_trusted_by_its_authority_or_by_express_wish() {
    let server = Certificate::new();
    let port = server.serve(&server, || None).await;
    let mut endpoint = Endpoint { ca: None, ..server.endpoint(port) };
    assert_eq!(failure(&endpoint, "/v2/").await.0, ErrorKind::Tls);

    for (ca, insecure) in [(Some(server.files.chain.clone()), false), (None, true)] {
        endpoint.ca = ca;
        endpoint.insecure = insecure;
        let client = RegistryClient::new(&endpoint).unwrap();
        assert_eq!(client.send(request("/v2/")).await.unwrap().status(), StatusCode::OK);
    }
    endpoint.ca = Some("/nowhere/ca.pem".into());
    endpoint.insecure = false;
    assert!(RegistryClient::new(&endpoint).unwrap_err().to_string().contains("/nowhere/ca.pem"));
}

#[tokio::test]
async fn only_the_registry_is_shown_the_client_certificate_and_in_nobody_elses_name() {
    let (server, client) = (Certificate::new(), Certificate::new());
    for insecure in [false, true] {
        let registry = server.serve(&client, || None).await;
        let mut endpoint = server.endpoint(registry);
        endpoint.client_certificate = Some(client.files.clone());
        endpoint.insecure = insecure;
        let registry_client = RegistryClient::new(&endpoint).unwrap();
        assert_eq!(text(&registry_client).await, "1");
        assert_eq!(text(&registry_client.unidentified()).await, "0");

        let to_store = format!("https://localhost:{registry}/c");
        let redirecting = server.serve(&client, move || Some(found(&to_store))).await;
        endpoint.url = format!("https://localhost:{redirecting}").parse().unwrap();
        assert_eq!(text(&RegistryClient::new(&endpoint).unwrap()).await, "0");
    }
}

#[tokio::test]
async fn certificates_are_read_again_and_what_is_half_replaced_changes_nothing() {
    let (server, old, new) = (Certificate::new(), Certificate::new(), Certificate::new());
    let port = server.serve(&new, || None).await;
    let mut endpoint = server.endpoint(port);
    endpoint.client_certificate = Some(old.files.clone());
    let client = RegistryClient::new(&endpoint).unwrap();
    let error = client.send(request("/v2/")).await;
    assert!(error.is_err(), "the server knows the new certificate only");
    assert!(!client.reload().unwrap());

    std::fs::copy(&new.files.chain, &old.files.chain).unwrap();
    let half = client.reload().unwrap_err().to_string();
    assert!(half.contains("tls.key") && !half.contains("PRIVATE"), "{half}");
    std::fs::remove_file(&old.files.key).unwrap();
    assert!(client.reload().is_err());
    assert!(client.send(request("/v2/")).await.is_err(), "the old one is still shown");

    new.replace(&old.files);
    let clone = client.clone();
    assert!(client.reload().unwrap());
    assert_eq!(text(&clone).await, "1");
}
