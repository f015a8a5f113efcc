//! How a gateway logs in at registries of several kinds, and what it makes of their answers.

#![allow(clippy::unwrap_used, reason = "in a test, an unwrap is an assertion")]

#[allow(dead_code, reason = "it serves several tests, and each needs a part of it")]
mod support;

use std::time::Duration;

use http::{HeaderMap, StatusCode};
use support::gateway::{Gateway, REPOSITORY, assert_status};
use support::registry::{Fault, REFUSAL, Registry};

/// `robot$prod+pull:hunter2`.
const ROBOT: &str = "Basic cm9ib3QkcHJvZCtwdWxsOmh1bnRlcjI=";
/// `robot$prod+pull:hunter3`.
const NEXT_ROBOT: &str = "Basic cm9ib3QkcHJvZCtwdWxsOmh1bnRlcjM=";

async fn harbor() -> Registry {
    let registry = Registry::with_secret(ROBOT).await;
    registry.put_manifest(REPOSITORY, "v1", b"{}");
    registry
}

async fn gateway(registry: &Registry, kind: &str, password: &str) -> Gateway {
    let entry = format!(
        "kind: {kind}, credentials: {{mode: gateway, username: 'robot$prod+pull', \
         password: '{password}', repositories: ['prod/*']}}"
    );
    Gateway::start(registry, &entry).await
}

async fn manifest(gateway: &Gateway) -> http::Response<bytes::Bytes> {
    gateway.mirror(&format!("/v2/{REPOSITORY}/manifests/v1"), HeaderMap::new()).await
}

#[tokio::test]
async fn a_robots_name_arrives_as_it_is() {
    let registry = harbor().await;
    assert_status(&manifest(&gateway(&registry, "harbor", "hunter2").await).await, StatusCode::OK);
    assert_eq!(registry.n_tokens(), 1);
}

#[tokio::test]
async fn a_token_is_for_the_repository_that_is_read_whatever_the_challenge_says() {
    let registry = harbor().await;
    let realm = format!("http://{}/token", registry.address);
    registry.challenge_with(&format!(
        "Bearer realm=\"{realm}\",service=\"ghcr.io\",scope=\"repository:user/image:pull\""
    ));
    assert_status(&manifest(&gateway(&registry, "ghcr", "hunter2").await).await, StatusCode::OK);
    assert_eq!(registry.token_queries(), ["scope=repository%3Aprod%2Fapp%3Apull&service=ghcr.io"]);
}

#[tokio::test]
async fn a_policy_refusal_passes_as_it_is() {
    let registry = harbor().await;
    registry.fail_manifest(REPOSITORY, "v1", &[Fault::Status(412)]);
    let answer = manifest(&gateway(&registry, "harbor", "hunter2").await).await;
    assert_status(&answer, StatusCode::PRECONDITION_FAILED);
    assert_eq!(answer.body(), REFUSAL);
}

#[tokio::test]
async fn a_quota_that_the_registry_states_is_a_metric() {
    let registry = harbor().await;
    let gateway = gateway(&registry, "docker-hub", "hunter2").await;
    assert_status(&manifest(&gateway).await, StatusCode::OK);
    assert_eq!(gateway.metric("gateway_registry_quota"), 0);
    registry.say("RateLimit-Limit", "100;w=21600");
    registry.say("RateLimit-Remaining", "76;w=21600");
    assert_status(&manifest(&gateway).await, StatusCode::OK);
    assert_eq!(gateway.metric("shoal_gateway_registry_quota_limit{registry="), 100);
    assert_eq!(gateway.metric("shoal_gateway_registry_quota_remaining{registry="), 76);
}

#[tokio::test]
async fn a_password_that_was_replaced_is_used_at_once_and_what_the_old_one_brought_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let [link, next] = ["password", "..data"].map(|it| dir.path().join(it));
    std::fs::write(&link, "hunter2\n").unwrap();
    let registry = harbor().await;
    let gateway = gateway(&registry, "harbor", &format!("file:{}", link.display())).await;
    assert_status(&manifest(&gateway).await, StatusCode::OK);

    // The account has another password, so neither the token nor another login is of use.
    registry.take_only(NEXT_ROBOT);
    assert_status(&manifest(&gateway).await, StatusCode::FORBIDDEN);
    let n_logins = registry.n_logins();
    assert_status(&manifest(&gateway).await, StatusCode::FORBIDDEN);
    assert_eq!(registry.n_logins(), n_logins, "a refused password is not tried again");

    std::fs::write(&next, "hunter3\n").unwrap();
    std::fs::rename(&next, &link).unwrap();
    let replaced = async { while manifest(&gateway).await.status() != StatusCode::OK {} };
    // Far above what it takes, and below the time for which a refusal is remembered.
    tokio::time::timeout(Duration::from_secs(25), replaced).await.expect("the new password is not used");
    assert_eq!(registry.n_logins(), n_logins + 1);
}
