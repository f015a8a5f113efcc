//! A gateway before a registry that misbehaves: what nodes get, and what the registry is asked.

#![allow(clippy::unwrap_used, reason = "in a test, an unwrap is an assertion")]

#[allow(dead_code, reason = "it serves several tests, and each needs a part of it")]
mod support;

use std::time::Duration;

use futures_util::future::join_all;
use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use http::{HeaderMap, Method, StatusCode};
use shoal_peer::RegionKeys;
use shoal_peer::ticket::Verifier;
use support::gateway::{Gateway, NAME, REPOSITORY, assert_status};
use support::registry::{Fault, Registry};
use support::{content, digest, manifest};
use tokio::time::Instant;

const ANYBODY: &str = "credentials: {}";
/// A registry that takes no manifest of blobs that it does not have.
const HARBOR: &str = "kind: harbor, credentials: {username: robot, password: hunter2}";
const ONE_AT_A_TIME: &str = "limits: {concurrentBlobs: 1}";
const ROBOT: &str = "credentials: {username: robot, password: hunter2}";
/// `robot:hunter2`.
const SECRET: &str = "Basic cm9ib3Q6aHVudGVyMg==";
const GATEWAY_MODE: &str =
    "credentials: {mode: gateway, username: robot, password: hunter2, repositories: ['prod/*']}";
const WRONG_PASSWORD: &str =
    "credentials: {mode: gateway, username: robot, password: wrong, repositories: ['prod/*']}";

fn with(authorization: &str) -> HeaderMap {
    HeaderMap::from_iter([(AUTHORIZATION, authorization.parse().unwrap())])
}

/// The credentials that came with the GETs so far.
fn shown(registry: &Registry) -> Vec<String> {
    registry.asked(&Method::GET).into_iter().map(|it| it.authorization.unwrap()).collect()
}

/// Content of several pieces, in a registry that is open to everybody.
async fn world(len: usize) -> (Registry, Gateway, Vec<u8>) {
    let (registry, layer) = (Registry::open().await, content(7, len));
    registry.put_blob(REPOSITORY, &layer);
    let gateway = Gateway::start(&registry, ANYBODY).await;
    (registry, gateway, layer)
}

#[tokio::test]
async fn many_nodes_make_one_get_and_all_get_the_bytes() {
    let (registry, gateway, layer) = world(1_000_000).await;
    let nodes: Vec<_> = (0..20).map(|n| format!("node-{n}")).collect();
    let opened = join_all(nodes.iter().map(|it| gateway.open_as(it, &layer, None))).await;
    let opened: Vec<_> = opened.into_iter().map(Result::unwrap).collect();
    assert!(join_all(opened.iter().map(|it| gateway.follow(it))).await.into_iter().all(|it| it));
    for blob in &opened {
        assert_eq!(gateway.fetch(blob).await.unwrap(), layer);
    }
    assert_eq!(registry.asked(&Method::GET).len(), 1);
    assert_eq!(registry.asked(&Method::HEAD).len(), 1);
    assert_eq!(gateway.metric("back_to_source_bytes_total"), 1_000_000);
    assert_eq!(gateway.metric("peer_upload_bytes_total"), 20_000_000);
}

#[tokio::test]
async fn pieces_are_shared_while_the_registry_still_sends() {
    let (registry, gateway, layer) = world(300_000).await;
    registry.fail(REPOSITORY, &layer, &[Fault::BreakAfter(200_000)]);
    // One body may begin; the rest of the blob comes only when this test says so.
    registry.gate.forget_permits(usize::MAX >> 3);
    registry.gate.add_permits(1);
    let blob = gateway.open(&layer, None).await.unwrap();
    let peers = shoal_peer::client::PeerClient::new(shoal_identity::Dialer::new(None));
    let mut news =
        peers.watch(&blob.gateway, &blob.key, blob.geometry.n_pieces(), &blob.ticket).await.unwrap();
    let mut n_held = 0;
    while n_held < 3 {
        let it = news.next().await.unwrap().unwrap();
        n_held += it.gained.iter().map(|it| it.end - it.start).sum::<u32>();
    }
    let part = 0..3 * blob.geometry.piece_length();
    let mut body = peers.fetch(&blob.gateway, &blob.key, part.clone(), &blob.ticket).await.unwrap();
    let mut bytes = Vec::new();
    while let Some(chunk) = body.next().await.unwrap() {
        bytes.extend_from_slice(&chunk);
    }
    assert_eq!(bytes, layer[..part.end as usize]);
    registry.gate.add_permits(1);
    assert!(gateway.follow(&blob).await);
    assert_eq!(gateway.fetch(&blob).await.unwrap(), layer);
}

#[tokio::test]
async fn a_broken_stream_is_resumed_where_it_broke() {
    let (registry, gateway, layer) = world(500_000).await;
    registry.fail(REPOSITORY, &layer, &[Fault::BreakAfter(200_000), Fault::BreakAfter(100_000)]);
    let blob = gateway.open(&layer, None).await.unwrap();
    assert!(gateway.follow(&blob).await);
    assert_eq!(gateway.fetch(&blob).await.unwrap(), layer);
    let ranges: Vec<_> = registry.asked(&Method::GET).into_iter().map(|it| it.range).collect();
    assert_eq!(ranges, [None, Some("bytes=200000-".into()), Some("bytes=300000-".into())]);
    assert_eq!(gateway.metric("back_to_source_bytes_total"), 500_000);
}

#[tokio::test]
async fn wrong_bytes_poison_the_blob_and_are_kept_nowhere() {
    let (registry, gateway, layer) = world(500_000).await;
    registry.fail(REPOSITORY, &layer, &[Fault::WrongByte]);
    let blob = gateway.open(&layer, None).await.unwrap();
    assert!(!gateway.follow(&blob).await);
    assert!(gateway.fetch(&blob).await.is_err());
    assert_eq!(gateway.metric("outcome=\"poisoned\""), 1);
    // It is not fetched again and again because nodes keep asking.
    assert_eq!(registry.asked(&Method::GET).len(), 1);
}

#[tokio::test]
async fn a_busy_registry_is_asked_again_when_it_said() {
    let (registry, gateway, layer) = world(100_000).await;
    registry.fail(REPOSITORY, &layer, &[Fault::TooMany(1)]);
    let blob = gateway.open(&layer, None).await.unwrap();
    assert!(gateway.follow(&blob).await);
    assert_eq!(registry.asked(&Method::GET).len(), 2);
    assert_eq!(gateway.metric("status=\"429\""), 1);
}

#[tokio::test]
async fn the_gateway_logs_in_by_itself_and_again_when_its_token_is_refused() {
    let (registry, layer) = (Registry::with_secret(SECRET).await, content(7, 200_000));
    registry.put_blob(REPOSITORY, b"{}");
    registry.put_blob(REPOSITORY, &layer);
    registry.fail(REPOSITORY, &layer, &[Fault::TokenExpired]);
    let gateway = Gateway::start(&registry, ROBOT).await;
    gateway.open(b"{}", Some(SECRET)).await.unwrap().content.unwrap();
    let blob = gateway.open(&layer, Some(SECRET)).await.unwrap();
    assert!(gateway.follow(&blob).await);
    assert_eq!(gateway.fetch(&blob).await.unwrap(), layer);
    assert_eq!(registry.n_tokens(), 2);
    assert_eq!(shown(&registry), ["Bearer token-1", "Bearer token-1", "Bearer token-2"]);
}

#[tokio::test]
async fn what_a_login_has_just_brought_is_not_brought_again() {
    let (registry, layer) = (Registry::with_secret(SECRET).await, content(7, 200_000));
    registry.put_blob(REPOSITORY, &layer);
    registry.fail(REPOSITORY, &layer, &[Fault::TokenExpired]);
    let gateway = Gateway::start(&registry, ROBOT).await;
    let blob = gateway.open(&layer, Some(SECRET)).await.unwrap();
    assert!(!gateway.follow(&blob).await);
    assert_eq!(shown(&registry), ["Bearer token-1"]);
    assert_eq!(registry.n_logins(), 1);
}

#[tokio::test]
async fn a_refused_login_is_not_tried_again_with_every_request() {
    let (registry, layer) = (Registry::with_secret(SECRET).await, content(7, 200_000));
    registry.put_blob(REPOSITORY, &layer);
    let gateway = Gateway::start(&registry, WRONG_PASSWORD).await;
    for _ in 0..3 {
        assert_eq!(gateway.open(&layer, None).await.unwrap_err().status, 403);
        let manifest = gateway.mirror(&format!("/v2/{REPOSITORY}/manifests/v1"), HeaderMap::new()).await;
        assert_status(&manifest, StatusCode::FORBIDDEN);
    }
    assert_eq!(registry.n_logins(), 1);
    assert!(registry.asked(&Method::GET).is_empty());
}

#[tokio::test]
async fn a_login_that_is_slower_than_its_askers_wait_is_finished_for_the_next() {
    let (registry, layer) = (Registry::with_secret(SECRET).await, content(7, 200_000));
    registry.put_blob(REPOSITORY, &layer);
    registry.tokens.forget_permits(usize::MAX >> 3);
    let gateway = Gateway::start(&registry, GATEWAY_MODE).await;
    for _ in 0..2 {
        assert_eq!(gateway.open(&layer, None).await.unwrap_err().status, 503);
    }
    registry.tokens.add_permits(1);
    gateway.open(&layer, None).await.unwrap();
    assert_eq!(registry.n_logins(), 1);
}

#[tokio::test]
async fn a_password_that_the_registry_itself_refuses_is_not_shown_again() {
    let registry = Registry::with_secret(SECRET).await;
    registry.challenge_with("Basic realm=\"fake\"");
    let gateway = Gateway::start(&registry, WRONG_PASSWORD).await;
    for _ in 0..3 {
        assert_eq!(gateway.open(b"layer", None).await.unwrap_err().status, 403);
    }
    assert_eq!(registry.asked(&Method::HEAD).len(), 1);
}

#[tokio::test]
async fn a_registry_without_a_token_service_is_shown_the_identity_itself() {
    let (registry, layer) = (Registry::with_secret(SECRET).await, content(7, 200_000));
    registry.challenge_with("Basic realm=\"fake\"");
    registry.put_blob(REPOSITORY, &layer);
    let gateway = Gateway::start(&registry, GATEWAY_MODE).await;
    let blob = gateway.open(&layer, None).await.unwrap();
    assert!(gateway.follow(&blob).await);
    assert_eq!(shown(&registry), [SECRET]);
    assert_eq!(registry.n_logins(), 0);
}

#[tokio::test]
async fn a_password_goes_to_no_token_service_but_the_registrys_and_those_that_the_operator_named() {
    let (registry, layer) = (Registry::with_secret(SECRET).await, content(7, 200_000));
    registry.put_blob(REPOSITORY, &layer);
    // The same server, but by another name than the registry is known by.
    let elsewhere = format!("http://localhost:{}/token", registry.address.port());
    registry.challenge_with(&format!("Bearer realm=\"{elsewhere}\",service=\"fake\""));
    let gateway = Gateway::start(&registry, GATEWAY_MODE).await;
    assert_eq!(gateway.open(&layer, None).await.unwrap_err().status, 503);
    assert_eq!(registry.n_logins(), 0);
    let named = GATEWAY_MODE.replace("mode:", "tokenHosts: [LocalHost], mode:");
    let gateway = gateway.restart(&registry, &named).await;
    gateway.open(&layer, None).await.unwrap();
    assert_eq!(registry.n_tokens(), 1);
}

#[tokio::test]
async fn a_repository_that_the_gateway_may_not_read_is_left_to_those_who_may() {
    let (registry, layer) = (Registry::with_secret(SECRET).await, content(7, 200_000));
    let kept = content(8, 100_000);
    for blob in [b"{}".as_slice(), &layer, &kept] {
        registry.put_blob(REPOSITORY, blob);
    }
    let gateway = Gateway::start(&registry, ROBOT).await;
    let blob = gateway.open(&kept, Some(SECRET)).await.unwrap();
    assert!(gateway.follow(&blob).await);
    let gateway = gateway.restart(&registry, ANYBODY).await;

    assert_eq!(gateway.open(b"{}", Some(SECRET)).await.unwrap_err().status, 503);
    let n_asked = registry.asked(&Method::HEAD).len();
    assert_eq!(gateway.open(&layer, Some(SECRET)).await.unwrap_err().status, 503);
    assert_eq!(registry.asked(&Method::HEAD).len(), n_asked, "it was answered at once");
    // What is here is given to whom the registry gives it.
    gateway.open(&kept, Some(SECRET)).await.unwrap();
    assert_eq!(gateway.open(&kept, None).await.unwrap_err().status, 401);
}

#[tokio::test]
async fn a_caller_gets_what_the_registry_gives_it_also_when_the_blob_is_here() {
    let (registry, layer) = (Registry::with_secret(SECRET).await, content(7, 200_000));
    registry.put_blob(REPOSITORY, &layer);
    let gateway = Gateway::start(&registry, ROBOT).await;
    let blob = gateway.open(&layer, Some(SECRET)).await.unwrap();
    assert!(gateway.follow(&blob).await);

    for stranger in [None, Some("Basic c3RyYW5nZXI6eA==")] {
        let refusal = gateway.open(&layer, stranger).await.unwrap_err();
        assert_eq!(refusal.status, 401);
        assert!(refusal.challenges[0].starts_with("Bearer realm="), "{refusal:?}");
    }
    let unknown = gateway.open(b"not there", Some(SECRET)).await.unwrap_err();
    assert_eq!(unknown.status, 404);
    assert!(String::from_utf8_lossy(&unknown.body).contains("BLOB_UNKNOWN"));
    // What was allowed is remembered, what was refused is not.
    let n_asked = registry.asked(&Method::HEAD).len();
    gateway.open(&layer, Some(SECRET)).await.unwrap();
    assert_eq!(registry.asked(&Method::HEAD).len(), n_asked);
    gateway.open(&layer, None).await.unwrap_err();
    assert_eq!(registry.asked(&Method::HEAD).len(), n_asked + 1);
}

#[tokio::test]
async fn a_manifest_passes_untouched_and_proves_its_blobs_to_its_caller() {
    let (registry, layer) = (Registry::with_secret(SECRET).await, content(7, 200_000));
    let manifest = manifest(b"{}", &[&layer]);
    registry.put_blob(REPOSITORY, b"{}");
    registry.put_blob(REPOSITORY, &layer);
    registry.put_manifest(REPOSITORY, "v1", &manifest);
    let gateway = Gateway::start(&registry, HARBOR).await;
    let path = format!("/v2/{REPOSITORY}/manifests/v1?ns={NAME}");

    let login = gateway.mirror(&path, HeaderMap::new()).await;
    assert_status(&login, StatusCode::UNAUTHORIZED);
    assert!(login.headers().contains_key(WWW_AUTHENTICATE));
    assert_eq!(login.body().as_ref(), br#"{"errors":[{"code":"UNAUTHORIZED"}]}"#);

    let answer = gateway.mirror(&path, with(SECRET)).await;
    assert_status(&answer, StatusCode::OK);
    assert_eq!(answer.body().as_ref(), manifest);
    assert_eq!(answer.headers()["docker-content-digest"], "as-it-is");
    assert_eq!(registry.asked(&Method::GET).len(), 2);

    let config = gateway.open(b"{}", Some(SECRET)).await.unwrap();
    assert_eq!(config.content.unwrap().as_ref(), b"{}");
    let opened = gateway.open(&layer, Some(SECRET)).await.unwrap();
    assert_eq!(opened.geometry.size(), layer.len() as u64);
    assert!(registry.asked(&Method::HEAD).is_empty());
    // Another caller has proven nothing.
    gateway.open(&layer, None).await.unwrap_err();
    assert_eq!(registry.asked(&Method::HEAD).len(), 1);
}

#[tokio::test]
async fn in_gateway_mode_nodes_pull_with_the_gateways_right_within_its_repositories() {
    let (registry, layer) = (Registry::with_secret(SECRET).await, content(7, 200_000));
    registry.put_blob(REPOSITORY, &layer);
    registry.put_manifest(REPOSITORY, "v1", &manifest(b"{}", &[&layer]));
    let gateway = Gateway::start(&registry, GATEWAY_MODE).await;
    let manifest_path = format!("/v2/{REPOSITORY}/manifests/v1");
    // A credential that a caller sends along is of no interest.
    assert_status(&gateway.mirror(&manifest_path, with("Basic eA==")).await, StatusCode::OK);
    assert_status(&gateway.mirror("/v2/", HeaderMap::new()).await, StatusCode::OK);
    let blob = gateway.open(&layer, None).await.unwrap();
    assert!(gateway.follow(&blob).await);

    let outside = gateway.mirror("/v2/secret/app/manifests/v1", HeaderMap::new()).await;
    assert_status(&outside, StatusCode::FORBIDDEN);
    let asked = registry.asked(&Method::GET);
    assert!(asked.iter().all(|it| it.path.starts_with("/v2/prod/app/")), "{asked:?}");
    assert!(asked.iter().all(|it| it.authorization.as_deref() == Some("Bearer token-1")), "{asked:?}");
}

#[tokio::test]
async fn only_reads_of_configured_registries_are_passed_through() {
    let (registry, gateway, layer) = world(200_000).await;
    let blob = format!("/v2/{REPOSITORY}/blobs/{}", digest(&layer));
    let answer = gateway.mirror(&blob, HeaderMap::new()).await;
    assert_status(&answer, StatusCode::OK);
    assert_eq!(answer.body().as_ref(), layer);
    let n_asked = registry.asked(&Method::GET).len();
    for (path, status) in [
        (format!("{blob}?ns=evil.example"), StatusCode::NOT_FOUND),
        ("/v2/PROD/app/manifests/v1".to_owned(), StatusCode::BAD_REQUEST),
        ("/v2/_catalog".to_owned(), StatusCode::NOT_FOUND),
        ("/elsewhere".to_owned(), StatusCode::NOT_FOUND),
    ] {
        assert_status(&gateway.mirror(&path, HeaderMap::new()).await, status);
    }
    assert_eq!(registry.asked(&Method::GET).len(), n_asked);
}

#[tokio::test]
async fn a_restart_keeps_what_was_fetched_and_what_was_signed() {
    let (registry, gateway, layer) = world(500_000).await;
    let blob = gateway.open(&layer, None).await.unwrap();
    assert!(gateway.follow(&blob).await);
    let keys = gateway.region().await.verifying_keys;
    let gateway = gateway.restart(&registry, ANYBODY).await;
    let region = gateway.region().await;
    assert_eq!(region.verifying_keys, keys);
    assert_eq!(region.trust_groups.len(), 1);
    let verifier = Verifier::new(RegionKeys::parse(&keys).unwrap());
    verifier.check(std::time::SystemTime::now(), &blob.ticket, &blob.key).unwrap();
    let again = gateway.open(&layer, None).await.unwrap();
    assert_eq!(gateway.fetch(&again).await.unwrap(), layer);
    assert_eq!(registry.asked(&Method::GET).len(), 1);
}

#[tokio::test]
async fn a_node_that_opened_a_blob_is_named_to_the_next() {
    let (_registry, gateway, layer) = world(100_000).await;
    assert!(gateway.open_as("node-1", &layer, None).await.unwrap().holders.is_empty());
    let holders = gateway.open_as("node-2", &layer, None).await.unwrap().holders;
    let names: Vec<_> = holders.iter().map(|it| it.id.as_str()).collect();
    assert_eq!(names, ["node-1"]);
}

#[tokio::test]
async fn a_registry_that_wants_to_be_left_alone_for_long_ends_the_seed() {
    let (registry, gateway, layer) = world(100_000).await;
    registry.fail(REPOSITORY, &layer, &[Fault::TooMany(6 * 60 * 60)]);
    let blob = gateway.open(&layer, None).await.unwrap();
    assert!(!gateway.follow(&blob).await);
}

#[tokio::test]
async fn a_seed_that_was_turned_away_gives_up_its_place() {
    let (registry, layer) = (Registry::open().await, content(7, 100_000));
    registry.put_blob(REPOSITORY, &layer);
    registry.fail(REPOSITORY, &layer, &[Fault::TooMany(60)]);
    let gateway = Gateway::start(&registry, ONE_AT_A_TIME).await;
    let blob = gateway.open(&layer, None).await.unwrap();
    // Nothing is held yet, so nothing comes; the asking has it seeded.
    assert!(gateway.fetch(&blob).await.is_err());
    registry.until_asked(&Method::GET, 1).await;
    let path = format!("/v2/{REPOSITORY}/blobs/{}", digest(&layer));
    assert_status(&gateway.mirror(&path, HeaderMap::new()).await, StatusCode::OK);
}

#[tokio::test]
async fn a_part_that_does_not_say_which_is_not_taken_for_the_beginning() {
    let (registry, gateway, layer) = world(200_000).await;
    registry.fail(REPOSITORY, &layer, &[Fault::Somewhere]);
    let blob = gateway.open(&layer, None).await.unwrap();
    assert!(gateway.follow(&blob).await);
    assert_eq!(gateway.fetch(&blob).await.unwrap(), layer);
}

#[tokio::test]
async fn a_small_blob_does_not_wait_behind_large_ones() {
    let (registry, layer) = (Registry::open().await, content(7, 100_000));
    registry.put_blob(REPOSITORY, &layer);
    registry.put_blob(REPOSITORY, b"{}");
    registry.fail(REPOSITORY, &layer, &[Fault::Silence]);
    let gateway = Gateway::start(&registry, ONE_AT_A_TIME).await;
    let blob = gateway.open(&layer, None).await.unwrap();
    // Nothing is held yet, so nothing comes; the asking has it seeded.
    assert!(gateway.fetch(&blob).await.is_err());
    registry.until_asked(&Method::GET, 1).await;
    let config = gateway.open(b"{}", None).await.unwrap();
    assert_eq!(config.content.unwrap().as_ref(), b"{}");
}

/// Opens a small blob, whose GET goes wrong, and returns how long that took by the test's clock, which stands
/// still while anything happens.
async fn time_to_open(dawdles: Duration, fault: Fault) -> Duration {
    let registry = Registry::open().await;
    registry.put_blob(REPOSITORY, b"{}");
    registry.dawdle(dawdles);
    registry.fail(REPOSITORY, b"{}", &[fault]);
    let gateway = Gateway::start(&registry, ANYBODY).await;
    tokio::time::pause();
    let start = Instant::now();
    assert_eq!(gateway.open(b"{}", None).await.unwrap().content, None);
    start.elapsed()
}

#[tokio::test]
async fn decision_and_content_share_one_deadline() {
    let took = time_to_open(Duration::from_millis(1000), Fault::Silence).await;
    assert!(took < Duration::from_millis(1500), "{took:?}");
}

#[tokio::test]
async fn a_small_blob_that_will_not_come_is_not_waited_for() {
    let took = time_to_open(Duration::ZERO, Fault::Status(404)).await;
    assert!(took < Duration::from_millis(500), "{took:?}");
}

/// A registry in whose repository a manifest is wrong about its layer's size, and a gateway that saw it.
async fn misled(layer: &[u8], claim: usize) -> (Registry, Gateway) {
    let registry = Registry::open().await;
    registry.put_blob(REPOSITORY, layer);
    let truth = String::from_utf8(manifest(b"{}", &[layer])).unwrap();
    let wrong = truth.replace(&format!("\"size\":{}", layer.len()), &format!("\"size\":{claim}"));
    assert_ne!(wrong, truth);
    registry.put_manifest(REPOSITORY, "wrong", wrong.as_bytes());
    (registry.clone(), Gateway::start(&registry, "kind: harbor").await)
}

async fn pull_wrong_manifest(gateway: &Gateway, authorization: &str) {
    let path = format!("/v2/{REPOSITORY}/manifests/wrong");
    assert_status(&gateway.mirror(&path, with(authorization)).await, StatusCode::OK);
}

#[tokio::test]
async fn a_wrong_claim_about_a_known_blob_changes_nothing_for_anybody() {
    let layer = content(7, 300_000);
    let (registry, gateway) = misled(&layer, 70_000).await;
    let blob = gateway.open(&layer, Some("Basic YW5u")).await.unwrap();
    pull_wrong_manifest(&gateway, "Basic Ym9i").await;
    let again = gateway.open(&layer, Some("Basic Ym9i")).await.unwrap();
    assert_eq!(again.geometry, blob.geometry);
    assert!(gateway.follow(&blob).await);
    pull_wrong_manifest(&gateway, "Basic Ym9i").await;
    assert_eq!(gateway.open(&layer, Some("Basic Ym9i")).await.unwrap().geometry, blob.geometry);
    assert_eq!(registry.asked(&Method::HEAD).len(), 1, "the registry's own word stands");
    assert_eq!(gateway.fetch(&blob).await.unwrap(), layer);
}

#[tokio::test]
async fn a_wrong_claim_that_came_first_is_found_out_by_the_first_seed() {
    let layer = content(7, 300_000);
    let (registry, gateway) = misled(&layer, 70_000).await;
    pull_wrong_manifest(&gateway, "Basic Ym9i").await;
    let wrong = gateway.open(&layer, Some("Basic Ym9i")).await.unwrap();
    assert_eq!(wrong.geometry.size(), 70_000);
    assert!(!gateway.follow(&wrong).await);
    let right = gateway.open(&layer, Some("Basic Ym9i")).await.unwrap();
    assert_eq!(right.geometry.size(), 300_000);
    assert_eq!(registry.asked(&Method::HEAD).len(), 1);
}
