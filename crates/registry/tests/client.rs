//! The client against servers on loopback: redirects, credentials, silence, certificates.

#![allow(clippy::unwrap_used, reason = "in a test, an unwrap is an assertion")]

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::header::{AUTHORIZATION, LOCATION, RANGE};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls_pki_types::PrivateKeyDer;
use shoal_registry::{Endpoint, ErrorKind, RegistryClient};
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
    let answer = client.ask_token_service(&realm, &scope, password()).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(at_registry.lock().unwrap()[0][AUTHORIZATION], "Basic c2VjcmV0");
    assert!(!at_stranger.lock().unwrap()[0].contains_key(AUTHORIZATION));

    for realm in [format!("http://localhost:{}/token", stranger.port()), "not a URL".to_owned()] {
        let error = client.ask_token_service(&realm, &scope, password()).await.unwrap_err();
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
    let answer = client.ask_token_service(&realm, &[("scope", "repository:a/b:pull")], None).await.unwrap();
    let seen = answer.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(seen, "account=x&scope=repository%3Aa%2Fb%3Apull");
}

#[tokio::test]
async fn a_token_service_on_an_inner_address_is_not_asked() {
    let mut endpoint = plain_endpoint(SocketAddr::from(([127, 0, 0, 1], 1)));
    endpoint.url = "http://registry.example".parse().unwrap();
    endpoint.name = "127.0.0.1:1".parse().unwrap();
    let client = RegistryClient::new(&endpoint).unwrap();
    let error = client.ask_token_service("http://127.0.0.1:1/token", &[], None).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Redirect, "{error}");
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

#[tokio::test]
async fn a_certificate_is_trusted_by_its_authority_or_by_express_wish() {
    let issued = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(issued.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![issued.cert.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            if let Ok(stream) = acceptor.accept(stream).await {
                tokio::spawn(converse(stream, Seen::default(), |_| content("ok")));
            }
        }
    });
    let mut ca = tempfile::NamedTempFile::new().unwrap();
    std::io::Write::write_all(&mut ca, issued.cert.pem().as_bytes()).unwrap();

    let mut endpoint = Endpoint::of("registry.example".parse().unwrap()).unwrap();
    endpoint.url = format!("https://localhost:{port}").parse().unwrap();
    assert_eq!(failure(&endpoint, "/v2/").await.0, ErrorKind::Tls);

    for (ca, insecure) in [(Some(ca.path().to_owned()), false), (None, true)] {
        endpoint.ca = ca;
        endpoint.insecure = insecure;
        let client = RegistryClient::new(&endpoint).unwrap();
        assert_eq!(client.send(request("/v2/")).await.unwrap().status(), StatusCode::OK);
    }
    endpoint.ca = Some("/nowhere/ca.pem".into());
    endpoint.insecure = false;
    assert!(RegistryClient::new(&endpoint).unwrap_err().to_string().contains("/nowhere/ca.pem"));
}
