//! The management API as its clients see it, on a listener that was really started.

#![allow(clippy::unwrap_used, reason = "in a test, an unwrap is an assertion")]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::future::join_all;
use http::header::{AUTHORIZATION, CACHE_CONTROL, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use shoal_gateway::audit::Audit;
use shoal_gateway::management::{self, Offered};
use shoal_gateway::settings::{DEFAULT, Settings};
use shoal_ops::Context;
use shoal_ops::settings::Reader;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const TOKENS: &str = "/api/v1/tokens";

/// A running API and its directory.
struct Api {
    address: SocketAddr,
    ctx: Context,
    dir: TempDir,
}

/// What an operator makes with a shell: a token and the hash to declare.
fn own(seed: u8) -> (String, String) {
    let secret = hex::encode([seed; 32]);
    let hash = hex::encode(Sha256::digest(&secret));
    (format!("shoal_{}_{secret}", &hash[..8]), format!("sha256:{hash}"))
}

/// An entry of `management.tokens`.
fn declared(seed: u8, name: &str, more: &str) -> String {
    format!("{{name: {name}, hash: '{}', {more}}}", own(seed).1)
}

impl Api {
    /// Starts an API with these further settings, as YAML.
    async fn start(settings: &str) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), settings).await
    }

    async fn start_in(dir: TempDir, settings: &str) -> Self {
        let user = format!(
            "{{storage: {{dir: '{}'}}, management: {{listen: '127.0.0.1:0', {settings}}}}}",
            dir.path().display()
        );
        let reader = Reader::new(&user, DEFAULT, |_| None);
        let settings = Settings::read(&reader);
        reader.finish().unwrap();
        let ctx = Context::new("gateway", "0");
        let audit = Audit::start(settings.audit, &ctx);
        let address = management::start(settings.management, dir.path(), audit, Offered::default(), &ctx)
            .await
            .unwrap();
        Self { address, ctx, dir }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn first(&self) -> String {
        std::fs::read_to_string(self.file("management-token")).unwrap().trim_end().to_owned()
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Response<Bytes> {
        let (mut head, body) = request.into_parts();
        head.uri = format!("http://{}{}", self.address, head.uri).parse().unwrap();
        let client = Client::builder(TokioExecutor::new()).build_http();
        let response = client.request(Request::from_parts(head, body)).await.unwrap();
        let (head, body) = response.into_parts();
        Response::from_parts(head, body.collect().await.unwrap().to_bytes())
    }

    async fn call(&self, method: &str, path: &str, token: &str, body: &Value) -> (u16, Value) {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(AUTHORIZATION, format!("Bearer {token}"))
            .body(Full::from(body.to_string()))
            .unwrap();
        read(&self.send(request).await)
    }

    async fn list(&self, token: &str) -> (u16, Value) {
        self.call("GET", TOKENS, token, &Value::Null).await
    }

    async fn get(&self, path: &str, authorization: &[&str]) -> Response<Bytes> {
        let mut request = Request::get(path).body(Full::default()).unwrap();
        for value in authorization {
            let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
            request.headers_mut().append(AUTHORIZATION, value);
        }
        self.send(request).await
    }

    /// Ends the service and returns its audit log, with its directory.
    async fn stop(self) -> (Vec<Value>, TempDir) {
        let ended = self.ctx.tasks.shut_down(Duration::from_secs(10)).await;
        assert!(ended.failure.is_none() && ended.cut.is_empty(), "{ended:?}");
        let text = std::fs::read_to_string(self.file("audit.jsonl")).unwrap_or_default();
        (text.lines().map(|it| serde_json::from_str(it).unwrap()).collect(), self.dir)
    }
}

fn read(response: &Response<Bytes>) -> (u16, Value) {
    let body = response.body();
    let body = if body.is_empty() { Value::Null } else { serde_json::from_slice(body).unwrap() };
    (response.status().as_u16(), body)
}

fn message(text: &str) -> Value {
    json!({ "message": text })
}

#[tokio::test]
async fn only_a_good_token_with_the_scope_gets_through() {
    let tokens = [
        declared(1, "manager", "scopes: [tokens]"),
        declared(2, "reader", "scopes: [read, preheat]"),
        declared(3, "former", "scopes: [admin], expires: 2020-01-01T00:00:00Z"),
        declared(4, "nothing", "scopes: []"),
    ];
    let api = Api::start(&format!("tokens: [{}]", tokens.join(", "))).await;
    let [manager, reader, former, nothing, stranger] = [1, 2, 3, 4, 5].map(|it| own(it).0);
    // Who may read may see what there is, and no more.
    assert_eq!(api.list(&reader).await.0, 200);
    let wanted = json!({ "name": "ci", "scopes": ["read"] });
    let lacks = (403, message("Token lacks the scope tokens"));
    assert_eq!(api.call("POST", TOKENS, &reader, &wanted).await, lacks);
    let own_id = format!("{TOKENS}/{}", &reader[6..14]);
    assert_eq!(api.call("DELETE", &own_id, &reader, &Value::Null).await, lacks);
    for (token, status, body) in [
        (nothing, 403, message("Token lacks the scope read")),
        (former, 403, message("Token has expired")),
        (stranger, 401, message("Unauthorized")),
    ] {
        assert_eq!(api.list(&token).await, (status, body), "{token}");
    }
    assert_eq!(api.list(&manager).await.0, 200);
    let basic = |text: &str| format!("Basic {}", STANDARD.encode(text));
    for user in ["password", "harbor"] {
        let response = api.get(TOKENS, &[&basic(&format!("{user}:{manager}"))]).await;
        assert_eq!(response.status(), 200, "{user}");
    }
    let (bearer, swapped) = (format!("Bearer {manager}"), basic(&format!("{manager}:x")));
    let in_query = format!("{TOKENS}?access_token={manager}");
    let bad: [(&str, &[&str]); 5] = [
        (&in_query, &[]),
        (TOKENS, &[]),
        (TOKENS, &[&bearer, &bearer]),
        (TOKENS, &[&swapped]),
        (TOKENS, &["Bearer \u{e9}"]),
    ];
    for (path, authorization) in bad {
        let response = api.get(path, authorization).await;
        assert_eq!(read(&response), (401, message("Unauthorized")), "{path} {authorization:?}");
        assert_eq!(response.headers()[WWW_AUTHENTICATE], "Bearer");
    }
}

#[tokio::test]
async fn health_is_open_and_nothing_else_is_there() {
    let api = Api::start("").await;
    for (path, expected) in [
        ("/healthy", (200, json!("OK"))),
        ("/health", (200, json!("OK"))),
        ("/", (404, message("Not Found"))),
        ("/api/v1/users", (404, message("Not Found"))),
    ] {
        assert_eq!(read(&api.get(path, &[]).await), expected, "{path}");
    }
    assert_eq!(api.stop().await.0, [Value::Null; 0]);
}

#[tokio::test]
async fn a_token_is_shown_once_and_works_until_it_is_withdrawn() {
    let api = Api::start("").await;
    let first = api.first();
    let wanted = json!({ "name": "ci", "scopes": ["tokens"], "expires": "2099-01-01T00:00:00Z" });
    let (status, made) = api.call("POST", TOKENS, &first, &wanted).await;
    assert_eq!(
        (status, &made["scopes"], &made["expires"]),
        (201, &json!(["tokens"]), &json!("2099-01-01T00:00:00.000Z"))
    );
    let (id, token) = (made["id"].as_str().unwrap(), made["token"].as_str().unwrap());
    assert!(token.starts_with(&format!("shoal_{id}_")));

    let (status, list) = api.list(token).await;
    assert_eq!((status, list.as_array().unwrap().len()), (200, 2));
    let ours = list.as_array().unwrap().iter().find(|it| it["id"] == id).unwrap();
    let fields: Vec<_> = ours.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(fields, ["created", "declared", "expires", "id", "lastUsed", "name", "scopes"]);
    assert!(ours["lastUsed"].is_string());
    let kept = std::fs::read_to_string(api.file("management-tokens.json")).unwrap();
    for secret in [token, &first] {
        let secret = &secret[15..];
        assert!(!kept.contains(secret) && !list.to_string().contains(secret));
    }

    let again = api.call("POST", TOKENS, &first, &wanted).await;
    assert_eq!(again, (409, message("name: another token has it")));
    let path = format!("{TOKENS}/{id}");
    assert_eq!(api.call("DELETE", &path, &first, &Value::Null).await, (204, Value::Null));
    assert_eq!(api.list(token).await.0, 401);
    assert_eq!(api.call("DELETE", &path, &first, &Value::Null).await.0, 404);
    let malformed = format!("{TOKENS}/..%2f");
    assert_eq!(api.call("DELETE", &malformed, &first, &Value::Null).await.0, 404);

    let (_, dir) = api.stop().await;
    let api = Api::start_in(dir, "").await;
    assert_eq!((api.list(token).await.0, api.list(&first).await.0), (401, 200));
}

#[tokio::test]
async fn nobody_gives_or_takes_a_right_that_he_lacks() {
    let tokens = [declared(1, "manager", "scopes: [tokens, read]"), declared(2, "boss", "scopes: [admin]")];
    let api = Api::start(&format!("tokens: [{}]", tokens.join(", "))).await;
    let [manager, boss] = [1, 2].map(|it| own(it).0);
    let wanted = |name: &str, scope: &str| json!({ "name": name, "scopes": [scope] });
    for (scope, status) in [("read", 201), ("tokens", 201), ("preheat", 403), ("admin", 403)] {
        assert_eq!(api.call("POST", TOKENS, &manager, &wanted(scope, scope)).await.0, status, "{scope}");
    }
    let (_, strong) = api.call("POST", TOKENS, &boss, &wanted("strong", "preheat")).await;
    let strong = format!("{TOKENS}/{}", strong["id"].as_str().unwrap());
    let refused = api.call("DELETE", &strong, &manager, &Value::Null).await;
    assert_eq!(refused, (403, message("Token lacks the scope preheat")));
    assert_eq!(api.call("DELETE", &strong, &boss, &Value::Null).await.0, 204);
    let by_settings = format!("{TOKENS}/{}", &manager[6..14]);
    assert_eq!(api.call("DELETE", &by_settings, &boss, &Value::Null).await.0, 409);
}

#[tokio::test]
async fn no_token_outlives_the_one_that_made_it() {
    let tokens = [
        declared(1, "short", "scopes: [tokens], expires: 2090-01-01T00:00:00Z"),
        declared(2, "endless", "scopes: [tokens]"),
    ];
    let api = Api::start(&format!("tokens: [{}]", tokens.join(", "))).await;
    let [short, endless] = [1, 2].map(|it| own(it).0);
    for (bearer, expires, status) in [
        (&short, json!("2089-12-31T23:59:59Z"), 201),
        (&short, json!("2090-01-01T00:00:00Z"), 201),
        (&short, json!("2090-01-01T00:00:01Z"), 403),
        (&short, Value::Null, 403),
        (&endless, json!("2099-01-01T00:00:00Z"), 201),
        (&endless, Value::Null, 201),
    ] {
        let name = format!("{status}-{}", expires.as_str().unwrap_or("ever").replace(':', "."));
        let name = if bearer == &short { format!("s-{name}") } else { name };
        let wanted = json!({ "name": name, "scopes": ["tokens"], "expires": expires });
        let (got, body) = api.call("POST", TOKENS, bearer, &wanted).await;
        assert_eq!(got, status, "{wanted} {body}");
        if status == 403 {
            let why = "Token ends at 2090-01-01T00:00:00.000Z, and what it makes must not outlive it";
            assert_eq!(body, message(why));
        }
    }
}

#[tokio::test]
async fn bad_bodies_are_refused_with_all_their_mistakes() {
    let api = Api::start("").await;
    let first = api.first();
    let errors = json!({ "errors": ["\"token\" is not a field", "name is missing", "scopes is missing"] });
    assert_eq!(api.call("POST", TOKENS, &first, &json!({ "token": "mine" })).await, (422, errors));
    let huge = json!({ "name": "x".repeat(100_000) });
    assert_eq!(api.call("POST", TOKENS, &first, &huge).await.0, 413);
    let response = api.send(Request::put(TOKENS).body(Full::default()).unwrap()).await;
    assert_eq!(response.status(), 401);
}

#[tokio::test]
async fn the_answer_with_a_token_is_not_to_be_kept() {
    let api = Api::start("").await;
    let request = Request::post(TOKENS)
        .header(AUTHORIZATION, format!("Bearer {}", api.first()))
        .body(Full::from(json!({ "name": "ci", "scopes": ["read"] }).to_string()))
        .unwrap();
    assert_eq!(api.send(request).await.headers()[CACHE_CONTROL], "no-store");
}

#[tokio::test]
async fn a_token_that_is_shown_too_often_waits_and_others_do_not() {
    let tokens = [declared(1, "wild", "scopes: [tokens]"), declared(2, "calm", "scopes: [tokens]")];
    let api = Api::start(&format!("requestsPerSecond: 1, tokens: [{}]", tokens.join(", "))).await;
    let (wild, calm) = (format!("Bearer {}", own(1).0), own(2).0);
    // Far more than the rate allows for the time that any machine takes for them.
    let wild = [wild.as_str()];
    let responses = join_all((0..200).map(|_| api.get(TOKENS, &wild))).await;
    let late: Vec<_> = responses.iter().filter(|it| it.status() == 429).collect();
    assert!(!late.is_empty() && late.len() < responses.len());
    assert_eq!(read(late[0]).1, message("rate limit exceeded"));
    assert_eq!(late[0].headers()[RETRY_AFTER], "1");
    assert_eq!(api.list(&calm).await.0, 200);
    let told = responses.len() - late.len() + 1;
    assert_eq!(api.stop().await.0.len(), told);
}

#[tokio::test]
async fn failures_are_bounded_and_shut_nobody_out() {
    let api = Api::start("").await;
    let responses = join_all((0..500).map(|_| api.get(TOKENS, &["Bearer guess"]))).await;
    let n_late = responses.iter().filter(|it| it.status() == 429).count();
    assert!(n_late > 0 && responses.iter().all(|it| [401, 429].contains(&it.status().as_u16())));
    assert_eq!(api.list(&api.first()).await.0, 200);
    assert!(api.ctx.metrics.encode().contains("shoal_gateway_management_calls_total{status=\"429\"}"));
    assert_eq!(api.stop().await.0.len(), responses.len() - n_late + 1);
}

#[tokio::test]
async fn every_call_is_told_without_a_secret() {
    let api = Api::start("").await;
    let first = api.first();
    let (_, made) = api.call("POST", TOKENS, &first, &json!({ "name": "ci", "scopes": ["preheat"] })).await;
    let (id, token) = (made["id"].as_str().unwrap(), made["token"].as_str().unwrap());
    api.list(token).await;
    api.list("shoal_00000000_wrong").await;
    api.call("DELETE", &format!("{TOKENS}/{id}?why=leaked"), &first, &Value::Null).await;
    let metrics = api.ctx.metrics.encode();
    let (lines, _dir) = api.stop().await;
    let seen: Vec<_> = lines
        .iter()
        .map(|it| {
            assert_eq!((&it["event"], &it["client"]), (&json!("management"), &json!("127.0.0.1")));
            json!([it["token"]["name"], it["method"], it["route"], it["subject"], it["status"]])
        })
        .collect();
    let one = format!("{TOKENS}/{{id}}");
    assert_eq!(
        seen,
        [
            json!(["first", "POST", TOKENS, id, 201]),
            json!(["ci", "GET", TOKENS, null, 403]),
            json!([null, "GET", TOKENS, null, 401]),
            json!(["first", "DELETE", one, id, 204]),
        ]
    );
    for secret in [&first[15..], &token[15..], "wrong", "leaked"] {
        assert!(!json!(lines).to_string().contains(secret) && !metrics.contains(secret));
    }
}

#[tokio::test]
async fn with_a_certificate_nothing_is_served_in_the_clear() {
    let (made, files) =
        (rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap(), tempfile::tempdir().unwrap());
    let [chain, key] = ["tls.crt", "tls.key"].map(|it| files.path().join(it));
    std::fs::write(&chain, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let tls = format!("tls: {{certFile: '{}', keyFile: '{}'}}", chain.display(), key.display());
    let api = Api::start(&tls).await;

    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let ask = b"GET /healthy HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    let mut answer = Vec::new();
    let stream = tokio::net::TcpStream::connect(api.address).await.unwrap();
    let mut stream = connector.connect(ServerName::try_from("localhost").unwrap(), stream).await.unwrap();
    stream.write_all(ask).await.unwrap();
    stream.read_to_end(&mut answer).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200 ") && answer.ends_with(b"\"OK\""));

    let mut answer = Vec::new();
    let mut stream = tokio::net::TcpStream::connect(api.address).await.unwrap();
    stream.write_all(ask).await.unwrap();
    // Whether the connection ends or is reset, no HTTP comes back.
    let _ = stream.read_to_end(&mut answer).await;
    assert!(!answer.windows(4).any(|it| it == b"HTTP"));
}
