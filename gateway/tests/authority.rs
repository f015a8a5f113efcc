//! Who gets what from a gateway before registries that give different callers different things.

#![allow(clippy::unwrap_used, reason = "in a test, an unwrap is an assertion")]

#[allow(dead_code, reason = "it serves several tests, and each needs a part of it")]
mod support;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use futures_util::future::join_all;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_LENGTH, HOST};
use http::{HeaderMap, HeaderName, Method, StatusCode};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rcgen::{KeyPair, PublicKeyData as _};
use serde_json::{Value, json};
use shoal_proto::{OpenedBlob, Refusal, Ticket};
use support::gateway::{Gateway, NAME, assert_status};
use support::registry::{Asked, Fault, REFUSAL, Registry};
use support::{content, digest, manifest};

const PRIVATE: &str = "private/app";
const PUBLIC: &str = "public/app";
/// `robot:hunter2`, who may read everything.
const ROBOT: &str = "Basic cm9ib3Q6aHVudGVyMg==";
const ANN: &str = "Basic YW5u";
const BOB: &str = "Basic Ym9i";
const HARBOR: &str = "kind: harbor, credentials: {username: robot, password: hunter2}";
const OCI: &str = "kind: oci, credentials: {username: robot, password: hunter2}";
const GATEWAY_MODE: &str = "kind: harbor, credentials: {mode: gateway, username: robot, password: hunter2, \
                            repositories: ['public/*']}";

/// A registry whose private repository is Ann's and has the layer, while the public one is everybody's.
async fn registry(layer: &[u8]) -> Registry {
    let registry = Registry::with_secret(ROBOT).await;
    registry.let_in(PRIVATE, ANN);
    registry.let_in(PUBLIC, "");
    for blob in [b"{}".as_slice(), layer] {
        registry.put_blob(PRIVATE, blob);
    }
    registry.put_blob(PUBLIC, b"{}");
    registry.put_manifest(PRIVATE, "v1", &manifest(b"{}", &[layer]));
    registry.put_manifest(PUBLIC, "v1", &manifest(b"{}", &[]));
    registry
}

fn with(name: HeaderName, value: &str) -> HeaderMap {
    HeaderMap::from_iter([(name, value.parse().unwrap())])
}

async fn open(gateway: &Gateway, from: &str, layer: &[u8], who: &str) -> Result<OpenedBlob, Refusal> {
    let who = Some(who).filter(|it| !it.is_empty());
    gateway.open_from("node-1", (NAME, from), layer, who).await
}

async fn pull_manifest(gateway: &Gateway, repository: &str, who: &str) {
    let answer = gateway.mirror(&format!("/v2/{repository}/manifests/v1"), with(AUTHORIZATION, who)).await;
    assert_status(&answer, StatusCode::OK);
}

fn n_heads(registry: &Registry) -> usize {
    registry.asked(&Method::HEAD).len()
}

#[tokio::test]
async fn a_private_digest_opens_nothing_through_a_public_repository() {
    let layer = content(7, 200_000);
    let registry = registry(&layer).await;
    let gateway = Gateway::start(&registry, HARBOR).await;
    pull_manifest(&gateway, PRIVATE, ANN).await;
    let blob = open(&gateway, PRIVATE, &layer, ANN).await.unwrap();
    assert!(gateway.follow(&blob).await);
    assert_eq!(n_heads(&registry), 0);

    pull_manifest(&gateway, PUBLIC, BOB).await;
    for who in [BOB, ""] {
        assert_eq!(open(&gateway, PUBLIC, &layer, who).await.unwrap_err().status, 404);
        assert_eq!(open(&gateway, PRIVATE, &layer, who).await.unwrap_err().status, 401);
    }
    // A layer that is in both is everybody's.
    registry.put_blob(PUBLIC, &layer);
    assert_eq!(open(&gateway, PUBLIC, &layer, "").await.unwrap().key, blob.key);
}

#[tokio::test]
async fn a_registry_that_says_yes_to_everything_opens_nothing_of_another() {
    let layer = content(7, 200_000);
    let registry = registry(&layer).await;
    let evil = Registry::open().await;
    evil.put_blob(PRIVATE, &layer);
    let gateway = Gateway::start_before(&[(NAME, &registry, HARBOR), ("evil.example", &evil, "")]).await;
    let blob = open(&gateway, PRIVATE, &layer, ANN).await.unwrap();
    assert!(gateway.follow(&blob).await);
    let from_evil = gateway.open_from("node-1", ("evil.example", PRIVATE), &layer, Some(BOB)).await.unwrap();
    assert_ne!(from_evil.key, blob.key);
    let forged = OpenedBlob { key: blob.key.clone(), ..from_evil };
    assert!(gateway.fetch(&forged).await.is_err());
    assert_eq!(open(&gateway, PRIVATE, &layer, BOB).await.unwrap_err().status, 401);
}

#[tokio::test]
async fn a_membership_that_one_caller_proved_serves_the_next_who_has_a_right() {
    let layer = content(7, 200_000);
    let registry = registry(&layer).await;
    registry.let_in(PRIVATE, BOB);
    let gateway = Gateway::start(&registry, OCI).await;
    // This registry takes manifests of blobs that it does not have, so a manifest alone is no proof of them.
    pull_manifest(&gateway, PRIVATE, ANN).await;
    open(&gateway, PRIVATE, &layer, ANN).await.unwrap();
    assert_eq!(n_heads(&registry), 1);
    pull_manifest(&gateway, PRIVATE, BOB).await;
    open(&gateway, PRIVATE, &layer, BOB).await.unwrap();
    assert_eq!(n_heads(&registry), 1);
}

#[tokio::test]
async fn a_blob_that_was_seeded_from_a_repository_belongs_to_it() {
    let layer = content(7, 200_000);
    let registry = registry(&layer).await;
    registry.let_in(PRIVATE, BOB);
    let gateway = Gateway::start(&registry, OCI).await;
    let blob = open(&gateway, PRIVATE, &layer, ANN).await.unwrap();
    assert!(gateway.follow(&blob).await);
    let path = format!("/v2/{PRIVATE}/blobs/{}", digest(b"{}"));
    assert_status(&gateway.mirror(&path, with(AUTHORIZATION, BOB)).await, StatusCode::OK);
    // Bob's right is proven by the one blob, and what belongs to the repository by whoever got it.
    for blob in [b"{}".as_slice(), &layer] {
        open(&gateway, PRIVATE, blob, BOB).await.unwrap();
    }
    assert_eq!(n_heads(&registry), 1);
}

/// Whether a manifest that Bob pushed to his repository opens him a blob which only Ann's has.
async fn opens_foreign_blob(change: impl Fn(&mut Value)) -> bool {
    let layer = content(7, 200_000);
    let registry = registry(&layer).await;
    let mut forged: Value = serde_json::from_slice(&manifest(b"{}", &[&layer])).unwrap();
    change(&mut forged);
    registry.put_manifest(PUBLIC, "v1", forged.to_string().as_bytes());
    let gateway = Gateway::start(&registry, HARBOR).await;
    pull_manifest(&gateway, PUBLIC, BOB).await;
    open(&gateway, PUBLIC, &layer, BOB).await.is_ok()
}

#[tokio::test]
async fn what_a_registry_does_not_look_at_when_it_takes_a_manifest_proves_nothing() {
    // The test's registry takes anything; one of this kind would have refused this one.
    assert!(opens_foreign_blob(|_| {}).await);
    let foreign = json!("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip");
    assert!(!opens_foreign_blob(|it| it["layers"][0]["mediaType"] = foreign.clone()).await);
    let elsewhere = json!(["https://elsewhere.example/layer"]);
    assert!(!opens_foreign_blob(|it| it["layers"][0]["urls"] = elsewhere.clone()).await);
    let unknown = json!("application/vnd.example.thing+json");
    assert!(!opens_foreign_blob(|it| it["mediaType"] = unknown.clone()).await);
}

#[tokio::test]
async fn a_manifest_that_a_registry_could_read_otherwise_proves_nothing() {
    // Registries written in Go look at the list that is written last, in whatever case.
    for key in ["Layers", "LAYERS", "layer\u{17f}"] {
        assert!(!opens_foreign_blob(|it| it[key] = json!([])).await, "{key}");
    }
    let own = digest(b"{}").to_string();
    for (key, value) in [("Digest", json!(own)), ("diGest", json!(own)), ("Urls", json!(["https://a"]))] {
        assert!(!opens_foreign_blob(|it| it["layers"][0][key] = value.clone()).await, "{key}");
    }
}

#[tokio::test]
async fn what_a_caller_sends_besides_its_credential_decides_nothing() {
    let registry = registry(b"layer").await;
    let gateway = Gateway::start(&registry, HARBOR).await;
    let mut headers = with(AUTHORIZATION, BOB);
    for name in ["x-forwarded-user", "x-harbor-csrf-token", "proxy-authorization"] {
        headers.insert(HeaderName::from_static(name), "ann".parse().unwrap());
    }
    headers.insert(ACCEPT, "*/*".parse().unwrap());
    for (path, query) in [
        ("manifests/v1?access_token=ann", ""),
        (&format!("blobs/{}?n=1&account=ann", digest(b"{}")), ""),
        ("tags/list?n=5&last=v1&access_token=ann", "n=5&last=v1"),
        (&format!("referrers/{}?artifactType=a&u=ann", digest(b"{}")), "artifactType=a"),
    ] {
        gateway.mirror(&format!("/v2/{PUBLIC}/{path}"), headers.clone()).await;
        let asked = registry.asked(&Method::GET).pop().unwrap();
        assert_eq!((asked.query.as_str(), asked.authorization.as_deref()), (query, Some(BOB)), "{path}");
        let mut names = asked.headers;
        names.sort();
        assert_eq!(names, ["accept", "authorization", "host"], "{path}");
    }
}

#[tokio::test]
async fn a_zot_is_never_asked_in_a_way_that_puts_a_blob_where_it_was_not() {
    let layer = content(7, 200_000);
    let registry = registry(&layer).await;
    let gateway = Gateway::start(&registry, &GATEWAY_MODE.replace("harbor", "zot")).await;
    assert_eq!(open(&gateway, PUBLIC, &layer, "").await.unwrap_err().status, 404);
    assert_eq!(open(&gateway, PUBLIC, b"{}", "").await.unwrap().geometry.size(), 2);
    for (blob, status, length) in [(b"{}".as_slice(), 200, Some("2")), (&layer, 404, None)] {
        let path = format!("/v2/{PUBLIC}/blobs/{}", digest(blob));
        let answer = gateway.ask_mirror(Method::HEAD, &path, HeaderMap::new()).await;
        let told = answer.headers().get(CONTENT_LENGTH).filter(|_| status == 200);
        assert_eq!((answer.status().as_u16(), told.map(|it| it.to_str().unwrap())), (status, length));
    }
    assert_eq!(n_heads(&registry), 0);
    let is_look = |it: &&Asked| it.range.as_deref() == Some("bytes=0-0");
    assert_eq!(registry.asked(&Method::GET).iter().filter(is_look).count(), 4);
}

#[tokio::test]
async fn a_right_that_was_withdrawn_is_over_after_five_minutes() {
    let layer = content(7, 200_000);
    let registry = registry(&layer).await;
    let gateway = Gateway::start(&registry, HARBOR).await;
    tokio::time::pause();
    open(&gateway, PRIVATE, &layer, ANN).await.unwrap();
    registry.shut_out(PRIVATE, ANN);
    tokio::time::advance(Duration::from_secs(4 * 60)).await;
    open(&gateway, PRIVATE, &layer, ANN).await.unwrap();
    tokio::time::advance(Duration::from_secs(60)).await;
    assert_eq!(open(&gateway, PRIVATE, &layer, ANN).await.unwrap_err().status, 401);
    // What is refused is not remembered.
    registry.let_in(PRIVATE, ANN);
    open(&gateway, PRIVATE, &layer, ANN).await.unwrap();
}

#[tokio::test]
async fn equal_questions_of_one_caller_are_one() {
    let layer = content(7, 200_000);
    let registry = registry(&layer).await;
    registry.dawdle(Duration::from_millis(200));
    let gateway = Gateway::start(&registry, HARBOR).await;
    let opened = join_all((0..200).map(|_| open(&gateway, PRIVATE, &layer, ANN))).await;
    assert!(opened.iter().all(Result::is_ok));
    assert_eq!(n_heads(&registry), 1);
}

/// What a token service with this key says to `who` about a repository.
fn token(key: &KeyPair, repository: &str, exp: u64) -> String {
    let claims = json!({
        "iss": "harbor-token-issuer",
        "aud": "harbor-registry",
        "exp": exp,
        "access": [{ "type": "repository", "name": repository, "actions": ["pull"] }],
    });
    let key = EncodingKey::from_ec_der(key.serialized_der());
    format!("Bearer {}", jsonwebtoken::encode(&Header::new(Algorithm::ES256), &claims, &key).unwrap())
}

#[tokio::test]
async fn a_token_that_the_registrys_service_signed_is_a_right_without_a_question() {
    let layer = content(7, 200_000);
    let registry = registry(&layer).await;
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token.pem");
    let der = base64::engine::general_purpose::STANDARD.encode(key.subject_public_key_info());
    std::fs::write(&file, format!("-----BEGIN PUBLIC KEY-----\n{der}\n-----END PUBLIC KEY-----\n")).unwrap();
    let entry = format!(
        "kind: harbor, credentials: {{username: robot, password: hunter2, tokenKey: '{}'}}",
        file.display()
    );
    let gateway = Gateway::start(&registry, &entry).await;
    open(&gateway, PRIVATE, &layer, ANN).await.unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();

    // The registry does not know any of these tokens: what it is asked about, it refuses.
    let n_before = n_heads(&registry);
    open(&gateway, PRIVATE, &layer, &token(&key, PRIVATE, now + 600)).await.unwrap();
    assert_eq!(n_heads(&registry), n_before);
    let stranger = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    for bad in [
        token(&key, PRIVATE, now - 600),
        token(&key, PUBLIC, now + 600),
        token(&stranger, PRIVATE, now + 600),
    ] {
        let refusal = open(&gateway, PRIVATE, &layer, &bad).await.unwrap_err();
        assert_eq!(refusal.status, 401);
        assert!(refusal.challenges[0].starts_with("Bearer realm="), "{refusal:?}");
    }
    // A right is not yet a blob.
    let unknown = open(&gateway, PRIVATE, b"unknown", &token(&key, PRIVATE, now + 601)).await;
    assert_eq!(unknown.unwrap_err().status, 401, "the registry was asked");
}

#[tokio::test]
async fn the_host_name_says_which_registry_is_meant_where_nothing_else_does() {
    let [one, other] = [Registry::open().await, Registry::open().await];
    one.put_manifest(PUBLIC, "v1", b"one");
    other.put_manifest(PUBLIC, "v1", b"other");
    let gateway = Gateway::start_before(&[
        ("one.example", &one, "hosts: [one.mirror.example, '127.0.0.1']"),
        ("other.example", &other, "hosts: [other.mirror.example]"),
    ])
    .await;
    let path = format!("/v2/{PUBLIC}/manifests/v1");
    for (host, path, expected) in [
        ("one.mirror.example", path.clone(), "one"),
        ("other.mirror.example", path.clone(), "other"),
        ("Other.Mirror.example:65003", path.clone(), "other"),
        ("127.0.0.1:65003", path.clone(), "one"),
        ("other.mirror.example", format!("{path}?ns=one.example"), "one"),
        ("other.mirror.example", format!("/v2/one.example/{PUBLIC}/manifests/v1"), "one"),
    ] {
        let answer = gateway.mirror(&path, with(HOST, host)).await;
        assert_status(&answer, StatusCode::OK);
        assert_eq!(answer.body().as_ref(), expected.as_bytes(), "{host} {path}");
        assert_eq!(answer.headers()["oci-namespace"], format!("{expected}.example").as_str());
    }
    // None of them is Docker Hub, which is what a client means that names none.
    assert_status(&gateway.mirror(&path, with(HOST, "elsewhere.example")).await, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_policys_refusal_of_a_manifest_passes_untouched_and_proves_nothing() {
    let layer = content(7, 200_000);
    for entry in [HARBOR, GATEWAY_MODE] {
        let registry = registry(&layer).await;
        registry.fail_manifest(PUBLIC, "v1", &[Fault::Status(412)]);
        let gateway = Gateway::start(&registry, entry).await;
        let answer = gateway.mirror(&format!("/v2/{PUBLIC}/manifests/v1"), with(AUTHORIZATION, BOB)).await;
        assert_status(&answer, StatusCode::PRECONDITION_FAILED);
        assert_eq!(answer.body().as_ref(), REFUSAL.as_bytes());
        open(&gateway, PUBLIC, b"{}", BOB).await.unwrap();
        assert_eq!(n_heads(&registry), 1, "{entry}");
    }
}

/// A registry that has a manifest under its digest, and where.
async fn by_digest(content: &[u8]) -> (Registry, String) {
    let registry = registry(b"layer").await;
    let reference = digest(content).to_string();
    registry.put_manifest(PUBLIC, &reference, content);
    registry.put_manifest("secret/app", &reference, content);
    (registry, format!("/v2/{PUBLIC}/manifests/{reference}"))
}

#[tokio::test]
async fn in_gateway_mode_a_manifest_by_digest_is_asked_for_once() {
    let content = manifest(b"{}", &[]);
    let (registry, path) = by_digest(&content).await;
    let gateway = Gateway::start(&registry, GATEWAY_MODE).await;
    let get = || gateway.mirror(&path, HeaderMap::new());
    for answer in join_all((0..50).map(|_| get())).await {
        assert_status(&answer, StatusCode::OK);
        assert_eq!(answer.body().as_ref(), content);
    }
    let n_gets = |registry: &Registry| registry.asked(&Method::GET).len();
    assert_eq!(n_gets(&registry), 1);
    // It is the gateway's proof, like any other.
    assert!(open(&gateway, PUBLIC, b"{}", "").await.is_ok());
    assert_eq!(n_heads(&registry), 0);
    let n_before = n_gets(&registry);
    assert_status(&get().await, StatusCode::OK);
    assert_eq!(n_gets(&registry), n_before);

    // Other types, tags and other repositories are others' requests.
    assert_status(&gateway.mirror(&path, with(ACCEPT, "*/*")).await, StatusCode::OK);
    for _ in 0..2 {
        let by_tag = gateway.mirror(&format!("/v2/{PUBLIC}/manifests/v1"), HeaderMap::new()).await;
        assert_status(&by_tag, StatusCode::OK);
    }
    assert_eq!(n_gets(&registry), n_before + 3);
    let elsewhere = path.replace(PUBLIC, "secret/app");
    assert_status(&gateway.mirror(&elsewhere, HeaderMap::new()).await, StatusCode::FORBIDDEN);
    assert_eq!(n_gets(&registry), n_before + 3);
}

#[tokio::test]
async fn a_manifest_that_is_not_what_its_digest_says_is_given_to_nobody() {
    let (registry, path) = by_digest(b"{}").await;
    registry.put_manifest(PUBLIC, &digest(b"{}").to_string(), b"{ }");
    let gateway = Gateway::start(&registry, GATEWAY_MODE).await;
    for _ in 0..2 {
        let answer = gateway.mirror(&path, HeaderMap::new()).await;
        assert_status(&answer, StatusCode::SERVICE_UNAVAILABLE);
    }
    assert_eq!(registry.asked(&Method::GET).len(), 2, "a fault is not kept");
}

#[tokio::test]
async fn each_callers_own_manifest_request_is_passed_on() {
    let (registry, path) = by_digest(b"{}").await;
    let gateway = Gateway::start(&registry, HARBOR).await;
    for _ in 0..2 {
        assert_status(&gateway.mirror(&path, with(AUTHORIZATION, BOB)).await, StatusCode::OK);
    }
    assert_eq!(registry.asked(&Method::GET).len(), 2);
}

#[tokio::test]
async fn every_decision_is_told_to_the_audit_log() {
    let layer = content(7, 200_000);
    let registry = registry(&layer).await;
    let gateway = Gateway::start(&registry, HARBOR).await;
    open(&gateway, PRIVATE, &layer, ANN).await.unwrap();
    pull_manifest(&gateway, PRIVATE, ANN).await;
    open(&gateway, PRIVATE, b"{}", ANN).await.unwrap();
    open(&gateway, PRIVATE, &layer, "").await.unwrap_err();
    let lines = gateway.audit().await;
    let told: Vec<_> = lines
        .iter()
        .filter(|it| it["event"] == "authorization")
        .map(|it| (it["outcome"].as_str().unwrap(), it["proof"].as_str().unwrap()))
        .collect();
    assert_eq!(told, [("allowed", "blobHead"), ("allowed", "manifest"), ("refused", "blobHead")]);
    let text = serde_json::to_string(&lines).unwrap();
    for secret in [ANN, ROBOT, "hunter2", "YW5u"] {
        assert!(!text.contains(secret), "{text}");
    }

    let gateway = Gateway::start(&registry, GATEWAY_MODE).await;
    open(&gateway, PUBLIC, b"{}", ANN).await.unwrap();
    open(&gateway, PRIVATE, &layer, ANN).await.unwrap_err();
    let lines = gateway.audit().await;
    for (line, outcome) in
        lines.iter().filter(|it| it["event"] == "authorization").zip(["allowed", "refused"])
    {
        assert_eq!((&line["outcome"], &line["proof"]), (&json!(outcome), &json!("allowList")), "{line}");
    }
    assert_eq!(lines.iter().filter(|it| it["event"] == "authorization").count(), 2);
}

#[tokio::test]
async fn every_read_through_the_mirror_is_told_to_the_audit_log() {
    let registry = registry(b"layer").await;
    let gateway = Gateway::start(&registry, GATEWAY_MODE).await;
    let blob = digest(b"{}");
    let resources = ["manifests/v1".to_owned(), format!("blobs/{blob}"), format!("referrers/{blob}")];
    for resource in resources.iter().map(String::as_str).chain(["tags/list"]) {
        for repository in [PUBLIC, PRIVATE] {
            gateway.mirror(&format!("/v2/{repository}/{resource}"), HeaderMap::new()).await;
        }
    }
    let lines = gateway.audit().await;
    let told: Vec<_> = lines
        .iter()
        .map(|it| {
            assert_eq!(it["event"], "read");
            (it["repository"].as_str().unwrap(), it["resource"].as_str().unwrap(), &it["status"])
        })
        .collect();
    let [manifest, blob, referrers] = &resources;
    assert_eq!(
        told,
        [
            (PUBLIC, manifest.as_str(), &json!(200)),
            (PRIVATE, manifest, &json!(403)),
            (PUBLIC, blob, &json!(200)),
            (PRIVATE, blob, &json!(403)),
            (PUBLIC, referrers, &json!(404)),
            (PRIVATE, referrers, &json!(403)),
            (PUBLIC, "tags/list", &json!(404)),
            (PRIVATE, "tags/list", &json!(403)),
        ]
    );
}

#[tokio::test]
async fn what_is_turned_away_is_told_to_the_audit_log() {
    let registry = registry(b"layer").await;
    let gateway = Gateway::start(&registry, HARBOR).await;
    let unknown = gateway.open_from("node-1", ("evil.example", PUBLIC), b"{}", Some(ANN)).await;
    assert_eq!(unknown.unwrap_err().status, 404);
    open(&gateway, "Public/../app", b"{}", ANN).await.unwrap_err();
    gateway.mirror(&format!("/v2/{PUBLIC}/manifests/v1?ns=evil.example"), with(AUTHORIZATION, ANN)).await;
    gateway.mirror("/v2/Public/manifests/v1?access_token=hunter2", HeaderMap::new()).await;
    gateway.ask_mirror(Method::POST, &format!("/v2/{PUBLIC}/blobs/uploads/"), HeaderMap::new()).await;
    let blob = open(&gateway, PUBLIC, b"{}", ANN).await.unwrap();
    gateway.renew(&blob, blob.ticket.clone()).await.unwrap();
    gateway.renew(&blob, Ticket("forged".to_owned())).await.unwrap_err();
    let lines = gateway.audit().await;
    let told: Vec<_> = lines
        .iter()
        .filter(|it| it["event"] == "rejection")
        .map(|it| {
            assert_eq!((&it["node"], &it["client"]), (&Value::Null, &json!("127.0.0.1")), "{it}");
            json!([it["request"], it["reason"], it["registry"]])
        })
        .collect();
    assert_eq!(
        told,
        [
            json!(["open", "unknownRegistry", "evil.example"]),
            json!(["open", "malformed", null]),
            json!(["mirror", "unknownRegistry", "evil.example"]),
            json!(["mirror", "malformed", null]),
            json!(["mirror", "malformed", null]),
            json!(["renewal", "ticket", null]),
        ]
    );
    let text = serde_json::to_string(&lines).unwrap();
    assert!(!text.contains("hunter2") && !text.contains("YW5u"), "{text}");
}
