//! Who reaches whom, over real connections.

#![allow(clippy::unwrap_used, reason = "in a test, an unwrap is an assertion")]

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::TokioIo;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::{DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use shoal_identity::{Ca, Caller, Clients, Dialer, Expected, Grant, Keychain, Reception, Role, SpiffeId};
use shoal_model::NodeId;
use shoal_ops::Context;
use shoal_ops::serve::{Limits, Listener};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tower::service_fn;

const DAY: Duration = Duration::from_secs(24 * 3600);
const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn ca(domain: &str) -> Ca {
    Ca::create(domain.parse().unwrap()).unwrap().0
}

fn grant(ca: &Ca, role: Role, node: &str) -> Grant {
    let id = SpiffeId::new(ca.domain().clone(), role, node).unwrap();
    Grant { id, addresses: vec![HERE], hosts: Vec::new(), lives: DAY }
}

/// A keychain with a certificate that was issued at `now`.
fn keychain_of(ca: &Ca, role: Role, node: &str, now: SystemTime) -> Keychain {
    let keychain = Keychain::empty();
    keychain.replace(ca.own(now, &grant(ca, role, node)).unwrap());
    keychain
}

fn keychain(ca: &Ca, role: Role, node: &str) -> Keychain {
    keychain_of(ca, role, node, SystemTime::now())
}

/// Serves who the caller is, and returns the address.
async fn serve(keychain: &Keychain, clients: Clients) -> String {
    let listener = Listener::bind("test", (HERE, 0).into()).await.unwrap();
    let address = listener.addr().to_string();
    let service = service_fn(|request: Request<Incoming>| async move {
        let caller = Caller::of(request.extensions()).unwrap();
        let seen = match &caller.identity {
            Some(it) => format!("{} {} {:?}", it.role, it.node, it.addresses),
            None => "nobody".to_owned(),
        };
        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(seen))))
    });
    let listener = listener.with(Reception::new(Some(keychain), clients));
    Context::new("test", "0").serve(listener, service, Limits::new(16));
    address
}

/// Asks who the caller is taken for.
async fn ask(dialer: &Dialer, address: &str, expected: &Expected) -> Result<String, String> {
    let stream = dialer.dial(address, expected).await.map_err(|it| it.to_string())?;
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut requests, connection) = handshake.map_err(|it| it.to_string())?;
    tokio::spawn(connection);
    let request = Request::get("/").header("host", "test").body(Empty::<Bytes>::new()).unwrap();
    // With TLS 1.3 a client learns only now that its own certificate was refused.
    let response = requests.send_request(request).await.map_err(|_| "refused".to_owned())?;
    assert_eq!(response.status(), StatusCode::OK);
    let body = response.into_body().collect().await.map_err(|it| it.to_string())?.to_bytes();
    Ok(String::from_utf8_lossy(&body).into_owned())
}

fn sidecar(node: &str) -> Expected {
    Expected::Exactly(Role::Sidecar, NodeId::new(node))
}

#[track_caller]
fn assert_refused(seen: Result<String, String>, part: &str) {
    let error = seen.unwrap_err();
    assert!(error.contains(part), "{part:?} in {error:?}");
}

#[tokio::test]
async fn two_nodes_of_a_region_know_each_other() {
    let ca = ca("a");
    let address = serve(&keychain(&ca, Role::Sidecar, "b"), Clients::WithCertificate).await;
    let dialer = Dialer::new(Some(&keychain(&ca, Role::Sidecar, "a")));
    let seen = ask(&dialer, &address, &sidecar("b")).await;
    assert_eq!(seen.as_deref(), Ok("sidecar a [127.0.0.1]"));
    assert!(ask(&dialer, &address, &Expected::Any(Role::Sidecar)).await.is_ok());
}

#[tokio::test]
async fn whoever_answers_at_an_address_must_be_the_one_that_was_meant() {
    let ca = ca("a");
    let address = serve(&keychain(&ca, Role::Sidecar, "b"), Clients::WithCertificate).await;
    let dialer = Dialer::new(Some(&keychain(&ca, Role::Sidecar, "a")));
    assert_refused(ask(&dialer, &address, &sidecar("c")).await, "answers the sidecar b, not the sidecar c");
    let gateway = Expected::Any(Role::Gateway);
    assert_refused(ask(&dialer, &address, &gateway).await, "answers the sidecar b, not a gateway");
}

#[tokio::test]
async fn a_stranger_is_served_nothing() {
    let (ca, other) = (ca("a"), ca("a"));
    let address = serve(&keychain(&ca, Role::Sidecar, "b"), Clients::WithCertificate).await;
    // Its own authority does not know the one that answers either, so it would not even go on.
    let stranger = Dialer::new(Some(&keychain(&other, Role::Sidecar, "a")));
    assert_refused(ask(&stranger, &address, &sidecar("b")).await, "TLS");
    let expired = keychain_of(&ca, Role::Sidecar, "a", SystemTime::now() - 2 * DAY);
    assert_refused(ask(&Dialer::new(Some(&expired)), &address, &sidecar("b")).await, "refused");
    let without = Dialer::new(Some(&Keychain::empty()));
    assert_refused(ask(&without, &address, &sidecar("b")).await, "no certificate yet");
    assert_refused(ask(&Dialer::new(None), &address, &sidecar("b")).await, "refused");
}

/// Everything that a TLS client needs to insist although it should be refused: a certificate of `own`, and no
/// objection to whoever answers.
fn insistent(own: &Ca) -> rustls::ClientConfig {
    let keychain = keychain(own, Role::Sidecar, "a");
    let mut config = (*keychain.client()).clone();
    config.dangerous().set_certificate_verifier(Arc::new(NoObjection));
    config
}

#[tokio::test]
async fn a_certificate_of_another_region_is_refused_by_the_one_that_is_dialled() {
    let ca = ca("a");
    let address = serve(&keychain(&ca, Role::Sidecar, "b"), Clients::WithCertificate).await;
    for (own, is_served) in [(&ca, true), (&self::ca("a"), false), (&self::ca("b"), false)] {
        let answer = insist(insistent(own), &address).await;
        assert_eq!(answer.starts_with("HTTP/1.1 200"), is_served, "{answer:?}");
    }
}

/// Connects whoever answers, asks, and returns all that comes before the connection ends.
async fn insist(config: rustls::ClientConfig, address: &str) -> String {
    let tcp = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("b").unwrap();
    let mut stream = TlsConnector::from(Arc::new(config)).connect(name, tcp).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: b\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    // A refusal comes as an error of TLS, after nothing else.
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[derive(Debug)]
struct NoObjection;

impl ServerCertVerifier for NoObjection {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

#[tokio::test]
async fn a_gateway_also_hears_those_that_have_no_certificate_and_knows_them_from_others() {
    let ca = ca("a");
    let address = serve(&keychain(&ca, Role::Gateway, "g"), Clients::Any).await;
    let gateway = Expected::Any(Role::Gateway);
    let node = Dialer::new(Some(&keychain(&ca, Role::Sidecar, "a")));
    assert_eq!(ask(&node, &address, &gateway).await.as_deref(), Ok("sidecar a [127.0.0.1]"));
    let expired = keychain_of(&ca, Role::Sidecar, "a", SystemTime::now() - 2 * DAY);
    assert_refused(ask(&Dialer::new(Some(&expired)), &address, &gateway).await, "refused");

    let without =
        rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(NoObjection))
            .with_no_client_auth();
    let answer = insist(without, &address).await;
    assert!(answer.ends_with("nobody"), "{answer:?}");
}

#[tokio::test]
async fn a_connection_ends_with_the_certificate_of_its_client() {
    let ca = ca("a");
    let address = serve(&keychain(&ca, Role::Sidecar, "b"), Clients::WithCertificate).await;
    let short = Keychain::empty();
    let lives = Duration::from_secs(2);
    short.replace(ca.own(SystemTime::now(), &Grant { lives, ..grant(&ca, Role::Sidecar, "a") }).unwrap());
    let stream = Dialer::new(Some(&short)).dial(&address, &sidecar("b")).await.unwrap();
    let (mut requests, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    let ended = tokio::spawn(connection);
    let request = Request::get("/").header("host", "test").body(Empty::<Bytes>::new()).unwrap();
    assert_eq!(requests.send_request(request).await.unwrap().status(), StatusCode::OK);
    // The server closes it: nobody has asked for that here.
    tokio::time::timeout(Duration::from_secs(60), ended).await.expect("it goes on").unwrap().unwrap();
    assert!(requests.is_closed());
}

#[tokio::test]
async fn a_new_certificate_holds_at_once_and_old_connections_go_on() {
    let ca = ca("a");
    let (ours, theirs) = (keychain(&ca, Role::Sidecar, "a"), keychain(&ca, Role::Sidecar, "b"));
    let address = serve(&theirs, Clients::WithCertificate).await;
    let dialer = Dialer::new(Some(&ours));
    let old = dialer.dial(&address, &sidecar("b")).await.unwrap();
    ours.replace(ca.own(SystemTime::now(), &grant(&ca, Role::Sidecar, "renamed")).unwrap());
    let seen = ask(&dialer, &address, &sidecar("b")).await;
    assert_eq!(seen.as_deref(), Ok("sidecar renamed [127.0.0.1]"));
    let (mut requests, connection) = hyper::client::conn::http1::handshake(TokioIo::new(old)).await.unwrap();
    tokio::spawn(connection);
    let request = Request::get("/").header("host", "test").body(Empty::<Bytes>::new()).unwrap();
    let body = requests.send_request(request).await.unwrap().into_body().collect().await.unwrap();
    assert_eq!(body.to_bytes(), "sidecar a [127.0.0.1]");
}
