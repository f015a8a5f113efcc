//! A gateway that reads its registry by way of another region's, as its nodes and the registry see it.

#![allow(clippy::unwrap_used, reason = "in a test, an unwrap is an assertion")]

#[allow(dead_code, reason = "it serves several tests, and each needs a part of it")]
mod support;

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use shoal_proto::{PreheatOrder, Regional, RegionalNews, RegionalOrders};
use support::gateway::{Gateway, REPOSITORY, assert_status};
use support::registry::{Fault, Registry};
use support::{content, digest, manifest};
use tokio_stream::StreamExt as _;

const SECRET: &str = "Basic cm9ib3Q6czNjcmV0";
const HUB: &str = "credentials: {username: robot, password: s3cret}, kind: distribution";
const REGION: &str = "kind: distribution";
const ANN: Option<&str> = Some("Basic YW5uOmFubg==");
const BOB: Option<&str> = Some("Basic Ym9iOmJvYg==");

fn shown(authorization: Option<&str>) -> HeaderMap {
    authorization.iter().map(|it| (http::header::AUTHORIZATION, it.parse().unwrap())).collect()
}

#[tokio::test]
async fn a_blob_is_read_once_for_all_regions() {
    let registry = Registry::open().await;
    let content = content(1, 1 << 20);
    registry.put_blob(REPOSITORY, &content);
    let hub = Gateway::start(&registry, REGION).await;
    let regions = [Gateway::start_behind(&hub, REGION).await, Gateway::start_behind(&hub, REGION).await];
    for region in &regions {
        let blob = region.open(&content, None).await.unwrap();
        assert!(region.follow(&blob).await);
        assert_eq!(region.fetch(&blob).await.unwrap(), content);
        assert_eq!(region.metric("gateway_back_to_source_bytes_total"), content.len() as u64);
    }
    assert_eq!(registry.asked(&Method::GET).len(), 1);
    assert_eq!(hub.metric("gateway_regions_sent_bytes_total"), 2 * content.len() as u64);
    assert_eq!(hub.metric("gateway_regions "), 0, "without certificates nobody attends");
}

#[tokio::test]
async fn a_small_blob_comes_with_the_answer() {
    let registry = Registry::open().await;
    let content = content(2, 1000);
    registry.put_blob(REPOSITORY, &content);
    let hub = Gateway::start(&registry, REGION).await;
    let region = Gateway::start_behind(&hub, REGION).await;
    let blob = region.open(&content, None).await.unwrap();
    assert_eq!(blob.content.as_deref(), Some(&content[..]));
}

#[tokio::test]
async fn what_breaks_at_the_registry_is_resumed_and_comes_once_over_the_link() {
    let registry = Registry::open().await;
    let content = content(3, 1 << 20);
    registry.put_blob(REPOSITORY, &content);
    registry.fail(REPOSITORY, &content, &[Fault::BreakAfter(300_000), Fault::Status(502)]);
    let hub = Gateway::start(&registry, REGION).await;
    let region = Gateway::start_behind(&hub, REGION).await;
    let blob = region.open(&content, None).await.unwrap();
    assert!(region.follow(&blob).await);
    assert_eq!(region.metric("gateway_back_to_source_bytes_total"), content.len() as u64);
}

#[tokio::test]
async fn the_hub_asks_of_a_region_what_the_registry_asks_of_each_caller() {
    let registry = Registry::with_secret(SECRET).await;
    registry.let_in(REPOSITORY, ANN.unwrap());
    let (layer, config) = (content(4, 1 << 20), content(5, 100));
    for blob in [&layer, &config] {
        registry.put_blob(REPOSITORY, blob);
    }
    registry.put_manifest(REPOSITORY, "v1", &manifest(&config, &[&layer]));
    let hub = Gateway::start(&registry, HUB).await;
    let [one, other] = [Gateway::start_behind(&hub, REGION).await, Gateway::start_behind(&hub, REGION).await];
    let path = format!("/v2/{REPOSITORY}/manifests/v1?ns=registry.example");
    assert_status(&one.mirror(&path, shown(ANN)).await, StatusCode::OK);
    let blob = one.open(&layer, ANN).await.unwrap();
    assert!(one.follow(&blob).await);

    for caller in [BOB, None] {
        assert_status(&other.mirror(&path, shown(caller)).await, StatusCode::UNAUTHORIZED);
        for region in [&one, &other] {
            assert_eq!(region.open(&layer, caller).await.unwrap_err().status, 401);
        }
        // Not by asking the hub for the content itself either.
        let blob = format!("/v2/{REPOSITORY}/blobs/{}?ns=registry.example", digest(&layer));
        let mut headers = shown(caller);
        headers.insert("shoal-region", "eu".parse().unwrap());
        headers.insert("shoal-mode", "client".parse().unwrap());
        assert_status(&hub.mirror(&blob, headers).await, StatusCode::UNAUTHORIZED);
    }
    assert_eq!(other.metric("gateway_back_to_source_bytes_total"), 0);
    let blob = other.open(&layer, ANN).await.unwrap();
    assert!(other.follow(&blob).await);
    assert_eq!(registry.asked(&Method::GET).iter().filter(|it| it.path.contains("/blobs/")).count(), 1);
}

#[tokio::test]
async fn a_hub_and_its_regions_must_agree_on_whose_right_decides() {
    let registry = Registry::with_secret(SECRET).await;
    let content = content(6, 1 << 20);
    registry.put_blob(REPOSITORY, &content);
    let gateway = "credentials: {mode: gateway, repositories: ['prod/*'], username: robot, password: s3cret}";
    let hub = Gateway::start(&registry, gateway).await;
    let of_callers = Gateway::start_behind(&hub, REGION).await;
    assert!(
        of_callers.open(&content, None).await.is_err(),
        "nobody in particular is let in by the hub's own right"
    );
    let alike = Gateway::start_behind(&hub, "credentials: {mode: gateway, repositories: ['**']}").await;
    let blob = alike.open(&content, None).await.unwrap();
    assert!(alike.follow(&blob).await);
}

#[tokio::test]
async fn in_gateway_mode_the_hubs_list_bounds_what_a_region_reads() {
    let registry = Registry::with_secret(SECRET).await;
    let content = content(7, 1 << 20);
    registry.put_blob(REPOSITORY, &content);
    let gateway = "credentials: {mode: gateway, repositories: ['base/*'], username: robot, password: s3cret}";
    let hub = Gateway::start(&registry, gateway).await;
    let region = Gateway::start_behind(&hub, "credentials: {mode: gateway, repositories: ['**']}").await;
    assert_eq!(region.open(&content, None).await.unwrap_err().status, 403);
    assert_eq!(registry.asked(&Method::GET).len() + registry.asked(&Method::HEAD).len(), 0);
}

/// A window of the day that is shut now and for hours.
fn shut() -> String {
    let hour = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() / 3600;
    format!("{:02}:00-{:02}:00", (hour + 6) % 24, (hour + 7) % 24)
}

#[tokio::test]
async fn what_nobody_waits_for_is_read_in_its_windows_unless_somebody_comes() {
    let registry = Registry::open().await;
    let content = content(8, 1 << 20);
    registry.put_blob(REPOSITORY, &content);
    let hub =
        Gateway::start(&registry, &format!("limits: {{background: {{windows: ['{}']}}}}", shut())).await;
    let path = format!("{}/v2/{REPOSITORY}/blobs/{}?ns=registry.example", hub.url, digest(&content));
    let request = Request::get(path)
        .header("shoal-region", "eu")
        .header("shoal-mode", "client")
        .header("shoal-background", "1")
        .header("accept", "application/vnd.shoal.frames");
    let client = Client::builder(TokioExecutor::new()).build_http();
    let answer = client.request(request.body(Empty::<Bytes>::new()).unwrap()).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    let mut body = answer.into_body();
    let life = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(life[..], [0; 4], "it waits, and says so");
    assert!(registry.asked(&Method::GET).is_empty());

    let blob = hub.open(&content, None).await.unwrap();
    assert!(hub.follow(&blob).await);
    assert!(body.collect().await.unwrap().to_bytes().len() > content.len());
    assert_eq!(registry.asked(&Method::GET).len(), 1);
}

#[tokio::test]
async fn what_a_job_has_the_gateway_hold_waits_for_its_window_or_for_somebody_who_wants_it() {
    let registry = Registry::open().await;
    let [content, other] = [content(9, 1 << 20), content(10, 1 << 20)];
    registry.put_blob(REPOSITORY, &content);
    registry.put_blob(REPOSITORY, &other);
    let entry = format!("limits: {{background: {{windows: ['{}']}}}}", shut());
    let gateway = Gateway::start(&registry, &entry).await;
    let blob = gateway.open(&content, None).await.unwrap();
    let held = gateway.store(&blob).await;
    let live = gateway.open(&other, None).await.unwrap();
    assert!(gateway.follow(&live).await);
    assert_eq!(registry.asked(&Method::GET).len(), 1, "of what a node wants");

    gateway.open(&content, None).await.unwrap();
    assert_eq!(held.await, Ok(()));
    assert_eq!(registry.asked(&Method::GET).len(), 2);
}

// === What the hub orders ===

/// An image of the registry, as `v1`: its layer and its configuration.
fn publish(registry: &Registry, seed: u64) -> [Vec<u8>; 2] {
    let (layer, config) = (content(seed, 1 << 20), content(seed + 1, 100));
    for blob in [&layer, &config] {
        registry.put_blob(REPOSITORY, blob);
    }
    registry.put_manifest(REPOSITORY, "v1", &manifest(&config, &[&layer]));
    [layer, config]
}

/// A job for the gateways of the hub and of these regions.
fn job(regions: &[&str]) -> Value {
    let image = format!("registry.example/{REPOSITORY}:v1");
    json!({ "image": image, "scope": "all_seed_peers", "regions": regions })
}

fn has_ended(job: &Value) -> bool {
    job["state"] != "PENDING"
}

fn n_blob_reads(registry: &Registry) -> usize {
    registry.asked(&Method::GET).iter().filter(|it| it.path.contains("/blobs/")).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_of_the_hub_is_carried_out_in_its_regions_and_told_of_each() {
    let registry = Registry::open().await;
    let blobs = publish(&registry, 20);
    let hub = Gateway::start(&registry, REGION).await;
    let regions =
        [Gateway::start_region(&hub, "eu", REGION).await, Gateway::start_region(&hub, "us", REGION).await];
    let id = hub.preheat(&job(&["us", "eu"])).await;
    let job = hub.job_when(id, has_ended).await;
    assert_eq!((&job["state"], &job["errors"]), (&json!("SUCCESS"), &json!([])), "{job:#}");
    assert_eq!(job["progress"]["nodesDone"], 1, "{job:#}");
    let size: usize = blobs.iter().map(Vec::len).sum();
    for (part, name) in job["regions"].as_array().unwrap().iter().zip(["eu", "us"]) {
        assert_eq!(
            (&part["name"], &part["state"], &part["doing"]),
            (&json!(name), &json!("SUCCESS"), &json!("ended"))
        );
        let progress =
            json!({ "bytes": size, "bytesHeld": size, "nodes": 1, "nodesDone": 1, "nodesFailed": 0 });
        assert_eq!(part["progress"], progress, "{job:#}");
        assert_eq!(part["success"].as_array().unwrap().len(), 2, "{job:#}");
        assert_eq!(part["layers"][0]["nodesDone"], 1, "{job:#}");
    }
    assert_eq!(n_blob_reads(&registry), 2, "each blob once, for all regions");
    for region in &regions {
        assert_eq!(region.metric("gateway_back_to_source_bytes_total"), size as u64);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_regions_part_needs_no_credential_and_opens_nothing_to_anybody() {
    let registry = Registry::with_secret(SECRET).await;
    registry.let_in(REPOSITORY, ANN.unwrap());
    let [layer, _] = publish(&registry, 30);
    let hub = Gateway::start(&registry, HUB).await;
    let region = Gateway::start_region(&hub, "eu", REGION).await;
    let mut asked = job(&["eu"]);
    asked["headers"] = json!({ "Authorization": ANN });
    let job = hub.job_when(hub.preheat(&asked).await, has_ended).await;
    assert_eq!(
        (&job["state"], &job["regions"][0]["state"]),
        (&json!("SUCCESS"), &json!("SUCCESS")),
        "{job:#}"
    );
    assert!(region.metric("gateway_back_to_source_bytes_total") >= layer.len() as u64);
    for caller in [BOB, None] {
        assert_eq!(region.open(&layer, caller).await.unwrap_err().status, 401);
    }
    let blob = region.open(&layer, ANN).await.unwrap();
    assert!(region.follow(&blob).await);
    assert_eq!(n_blob_reads(&registry), 2);
}

/// Attends at the hub as the gateway of a region that does nothing; returns what it is told first of a job.
async fn ordered(hub: &Gateway, region: &str) -> PreheatOrder {
    let regional = Regional { region: region.to_owned(), address: "10.0.0.1:1".to_owned() };
    let hello = RegionalNews { regional: Some(regional), orders: Vec::new() };
    let news = tokio_stream::iter([hello]).chain(tokio_stream::pending());
    let mut orders = hub.orders().attend(news).await.unwrap().into_inner();
    loop {
        let RegionalOrders(mut standing) = orders.message().await.unwrap().unwrap();
        if let Some(order) = standing.pop() {
            return order;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_of_an_order_is_good_for_its_blob_and_its_region_alone() {
    let registry = Registry::with_secret(SECRET).await;
    registry.let_in(REPOSITORY, ANN.unwrap());
    let [layer, config] = publish(&registry, 40);
    let hub = Gateway::start(&registry, HUB).await;
    let mut asked = job(&["eu"]);
    asked["headers"] = json!({ "Authorization": ANN });
    hub.preheat(&asked).await;
    let order = ordered(&hub, "eu").await;
    assert!(order.carry_out);
    let ticket = |content: &[u8]| {
        let blob = order.blobs.iter().find(|it| it.digest == digest(content)).unwrap();
        blob.ticket.0.clone()
    };
    let ask = async |region: &'static str, ticket: String| {
        let mut headers = shown(None);
        headers.insert("shoal-region", region.parse().unwrap());
        headers.insert("shoal-mode", "client".parse().unwrap());
        headers.insert("shoal-ticket", ticket.parse().unwrap());
        let path = format!("/v2/{REPOSITORY}/blobs/{}?ns=registry.example", digest(&layer));
        hub.mirror(&path, headers).await
    };
    assert_status(&ask("us", ticket(&layer)).await, StatusCode::UNAUTHORIZED);
    assert_status(&ask("eu", ticket(&config)).await, StatusCode::UNAUTHORIZED);
    assert_status(&ask("eu", "no-ticket".to_owned()).await, StatusCode::UNAUTHORIZED);
    let given = ask("eu", ticket(&layer)).await;
    assert_status(&given, StatusCode::OK);
    assert_eq!(given.body(), &layer);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_ends_without_a_region_says_which_and_why() {
    let registry = Registry::open().await;
    publish(&registry, 50);
    let hub = Gateway::start(&registry, REGION).await;
    let _region = Gateway::start_region(&hub, "eu", REGION).await;
    let mut asked = job(&["eu", "nowhere"]);
    asked["timeout"] = json!("5s");
    let id = hub.preheat(&asked).await;
    let waiting = hub.job_when(id, |it| it["regions"][0]["state"] == "SUCCESS").await;
    assert_eq!(
        (&waiting["state"], &waiting["regions"][1]["doing"]),
        (&json!("PENDING"), &json!("absent")),
        "{waiting:#}"
    );
    let job = hub.job_when(id, has_ended).await;
    assert_eq!(job["state"], "SUCCESS", "{job:#}");
    let absent = "none of its gateways is connected: those of eu are";
    let errors = json!([
        "not done within 5 s",
        "1 of 2 other regions have done all that they should",
        format!("region nowhere: not done within 5 s; {absent}"),
    ]);
    assert_eq!(job["errors"], errors, "{job:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_region_that_does_not_read_by_way_of_the_hub_or_not_this_says_so() {
    let registry = Registry::with_secret(SECRET).await;
    publish(&registry, 60);
    let gateway = |of: &str| {
        format!("credentials: {{mode: gateway, repositories: ['{of}'], username: robot, password: s3cret}}")
    };
    let hub = Gateway::start(&registry, &gateway("**")).await;
    let regional = "credentials: {mode: gateway, repositories: ['other/*']}";
    let _region = Gateway::start_region(&hub, "eu", regional).await;
    let job = hub.job_when(hub.preheat(&job(&["eu"])).await, has_ended).await;
    assert_eq!(
        (&job["state"], &job["regions"][0]["state"]),
        (&json!("SUCCESS"), &json!("FAILURE")),
        "{job:#}"
    );
    let error = job["regions"][0]["errors"][0].as_str().unwrap();
    assert!(error.contains("not one that nodes may pull"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_is_cancelled_is_ordered_no_more() {
    let registry = Registry::open().await;
    publish(&registry, 70);
    let hub = Gateway::start(&registry, REGION).await;
    let regional = Regional { region: "eu".to_owned(), address: "10.0.0.1:1".to_owned() };
    let hello = RegionalNews { regional: Some(regional), orders: Vec::new() };
    let news = tokio_stream::iter([hello]).chain(tokio_stream::pending());
    let mut orders = hub.orders().attend(news).await.unwrap().into_inner();
    let id = hub.preheat(&job(&["eu"])).await;
    let mut standing = Vec::new();
    while standing.is_empty() {
        standing = orders.message().await.unwrap().unwrap().0;
    }
    assert_eq!(standing[0].job, id);
    let (status, job) = hub.call(Method::DELETE, &format!("/api/v1/preheat/{id}"), &Value::Null).await;
    assert_eq!(status, StatusCode::OK, "{job}");
    let job = hub.job_when(id, has_ended).await;
    assert_eq!(
        (&job["state"], &job["regions"][0]["state"]),
        (&json!("FAILURE"), &json!("FAILURE")),
        "{job:#}"
    );
    while !standing.is_empty() {
        standing = orders.message().await.unwrap().unwrap().0;
    }
}
