//! A gateway before Amazon's ECR: passwords from a service that verifies signatures, blobs from a store that
//! takes no credential.
//!
//! Where the AWS SDK looks for keys cannot be told to it in a test's own process, so each test runs in another
//! one that has them in its environment.

#![allow(clippy::unwrap_used, reason = "in a test, an unwrap is an assertion")]

#[path = "support/amazon.rs"]
mod amazon;
#[allow(dead_code, reason = "it serves several tests, and each needs a part of it")]
mod support;

use std::io::{self, Write};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use amazon::{KEY_ID, Passwords, REGION, SECRET_KEY, Store};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::future::join_all;
use http::{HeaderMap, Method, StatusCode};
use support::content;
use support::gateway::{Gateway, REPOSITORY, assert_status};
use support::registry::{Fault, Registry};

/// Tells a test that it is in the process of its own.
const INNER: &str = "SHOAL_TEST_INNER";

/// What the process logs, at every level.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

/// Runs `test`, whose name is `name`, in a process that has AWS keys, and looks through all that it logs.
#[track_caller]
fn with_keys<F: Future<Output = ()>>(name: &str, secret_key: &str, test: impl FnOnce(Log) -> F) {
    if std::env::var_os(INNER).is_none() {
        let mut inner = Command::new(std::env::current_exe().unwrap());
        inner.args(["--exact", name, "--nocapture"]).env(INNER, "yes");
        inner.env("AWS_ACCESS_KEY_ID", KEY_ID).env("AWS_SECRET_ACCESS_KEY", secret_key);
        inner.env_remove("AWS_SESSION_TOKEN").env("AWS_EC2_METADATA_DISABLED", "true");
        inner.env("AWS_CONFIG_FILE", "/dev/null").env("AWS_SHARED_CREDENTIALS_FILE", "/dev/null");
        let output = inner.output().unwrap();
        let [told, said] = [&output.stdout, &output.stderr].map(|it| String::from_utf8_lossy(it));
        assert!(output.status.success() && told.contains("1 passed"), "{told}\n{said}");
        return;
    }
    let log = Log::default();
    let writer = log.clone();
    let logging = tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE);
    logging.with_ansi(false).with_writer(move || writer.clone()).init();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(test(log.clone()));
    for secret in [secret_key, SECRET_KEY, "AWS:password", "password-", &STANDARD.encode("AWS:password")] {
        let text = log.text();
        let found: Vec<_> = text.lines().filter(|it| it.contains(secret)).collect();
        assert!(found.is_empty(), "{secret} is in the log: {found:#?}");
    }
}

struct World {
    passwords: Passwords,
    registry: Registry,
    store: Store,
    gateway: Gateway,
    layer: Vec<u8>,
}

/// A registry of this kind that takes only the password that was given last, and keeps its blobs elsewhere.
async fn world(kind: &str) -> World {
    let (registry, layer) = (Registry::with_secret("nothing yet").await, content(7, 300_000));
    let (passwords, store) = (Passwords::start(&registry).await, Store::with(&layer).await);
    if kind == "ecr" {
        registry.challenge_with("Basic realm=\"https://fake/\",service=\"ecr.amazonaws.com\"");
    }
    registry.send_blobs_to(store.address);
    registry.put_blob(REPOSITORY, &layer);
    let entry = format!(
        "kind: {kind}, credentials: {{mode: gateway, repositories: ['prod/*'], \
         aws: {{region: {REGION}, endpoint: 'http://{}'}}}}",
        passwords.address
    );
    let gateway = Gateway::start(&registry, &entry).await;
    World { passwords, registry, store, gateway, layer }
}

impl World {
    async fn pull(&self) {
        let blob = self.gateway.open(&self.layer, None).await.unwrap();
        assert!(self.gateway.follow(&blob).await);
        assert_eq!(self.gateway.fetch(&blob).await.unwrap(), self.layer);
    }

    async fn status_of_manifest(&self, repository: &str) -> StatusCode {
        self.registry.put_manifest(repository, "v1", b"{}");
        let path = format!("/v2/{repository}/manifests/v1");
        self.gateway.mirror(&path, HeaderMap::new()).await.status()
    }
}

#[test]
fn a_layer_comes_from_the_store_without_the_password() {
    with_keys("a_layer_comes_from_the_store_without_the_password", SECRET_KEY, |_| async {
        let world = world("ecr").await;
        world.pull().await;
        assert_eq!(world.passwords.n_asked(), 1);
        assert_eq!(world.registry.asked(&Method::GET).len(), 1);
    });
}

#[test]
fn an_address_that_has_ended_bars_nothing() {
    with_keys("an_address_that_has_ended_bars_nothing", SECRET_KEY, |_| async {
        let world = world("ecr").await;
        // The first attempt fails with the fresh address, too; the seed makes another.
        world.store.refuse(2);
        world.pull().await;
        assert_eq!(world.registry.asked(&Method::GET).len(), 3);
        assert_eq!(world.passwords.n_asked(), 1);
    });
}

#[test]
fn many_pulls_ask_for_one_password() {
    with_keys("many_pulls_ask_for_one_password", SECRET_KEY, |_| async {
        let world = world("ecr").await;
        let names: Vec<_> = (0..20).map(|n| format!("prod/app-{n}")).collect();
        let all = join_all(names.iter().map(|it| world.status_of_manifest(it))).await;
        assert_eq!(all, [StatusCode::OK; 20]);
        assert_eq!(world.passwords.n_asked(), 1);
    });
}

#[test]
fn a_password_that_ended_early_is_replaced_once() {
    with_keys("a_password_that_ended_early_is_replaced_once", SECRET_KEY, |_| async {
        let world = world("ecr").await;
        let names: Vec<_> = (0..10).map(|n| format!("prod/app-{n}")).collect();
        let (known, new) = names.split_at(5);
        join_all(known.iter().map(|it| world.status_of_manifest(it))).await;
        world.registry.take_only("nothing any more");
        let all = join_all(known.iter().chain(new).map(|it| world.status_of_manifest(it))).await;
        assert_eq!(all, [StatusCode::OK; 10]);
        assert_eq!(world.passwords.n_asked(), 2);
    });
}

#[test]
fn an_ended_password_is_replaced_and_a_failing_service_is_not_asked_by_everybody() {
    const NAME: &str = "an_ended_password_is_replaced_and_a_failing_service_is_not_asked_by_everybody";
    with_keys(NAME, SECRET_KEY, |_| async {
        let world = world("ecr").await;
        world.passwords.live_for(Duration::ZERO);
        assert_eq!(world.status_of_manifest("prod/a").await, StatusCode::OK);
        assert_eq!(world.status_of_manifest("prod/a").await, StatusCode::OK);
        assert_eq!(world.passwords.n_asked(), 2);
        world.passwords.go_down();
        assert_eq!(world.status_of_manifest("prod/a").await, StatusCode::SERVICE_UNAVAILABLE);
        let n_asked = world.passwords.n_asked();
        assert_eq!(world.status_of_manifest("prod/b").await, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(world.passwords.n_asked(), n_asked);
    });
}

#[test]
fn wrong_keys_are_told_to_the_operator_once() {
    with_keys("wrong_keys_are_told_to_the_operator_once", "of somebody else", |log| async move {
        let world = world("ecr").await;
        for repository in ["prod/a", "prod/a", "prod/b"] {
            assert_eq!(world.status_of_manifest(repository).await, StatusCode::FORBIDDEN);
        }
        assert_eq!(world.passwords.n_asked(), 1);
        let text = log.text();
        let told = format!(
            "registry {}: repository prod/a: login: the gateway is refused: ecr:GetAuthorizationToken in \
             {REGION}: InvalidSignatureException: check the AWS identity and its rights",
            support::gateway::NAME
        );
        assert_eq!(text.matches(&told).count(), 1, "{text}");
    });
}

#[test]
fn the_public_gallery_says_400_to_an_ended_token() {
    with_keys("the_public_gallery_says_400_to_an_ended_token", SECRET_KEY, |_| async {
        let world = world("ecr-public").await;
        let manifest = format!("/v2/{REPOSITORY}/manifests/v1");
        assert_eq!(world.status_of_manifest(REPOSITORY).await, StatusCode::OK);
        world.registry.fail_manifest(REPOSITORY, "v1", &[Fault::Status(400)]);
        assert_status(&world.gateway.mirror(&manifest, HeaderMap::new()).await, StatusCode::OK);
        assert_eq!(world.registry.n_logins(), 2);
        // What a fresh token does not help against is the registry's answer.
        world.registry.fail_manifest(REPOSITORY, "v1", &[Fault::Status(400), Fault::Status(400)]);
        assert_status(&world.gateway.mirror(&manifest, HeaderMap::new()).await, StatusCode::BAD_REQUEST);
        assert_eq!(world.registry.n_logins(), 3);
        assert_eq!(world.passwords.n_asked(), 1);
    });
}
