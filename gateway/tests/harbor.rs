//! What was recorded of Harbor, sent to a gateway that was really started, and the gateway's answers read as Harbor
//! reads them.

#![allow(clippy::unwrap_used, reason = "in a test, an unwrap is an assertion")]

#[allow(dead_code, reason = "it serves several tests, and each needs a part of it")]
mod support;

use std::time::Duration;

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{Method, Request};
use http_body_util::Full;
use serde_json::{Value, json};
use support::managed::{Answer, Gateway, HOOK, NAME, RULES, bearer};
use support::{content, digest};

const REPOSITORY: &str = "p2p/team/app";
/// What a Harbor of the recordings put in the place of its own token.
const HARBORS_TOKEN: &str = "Bearer <jwt>";
const JOBS: &str = "/oapi/v1/jobs";
/// How long nobody asks for a job that goes on.
const PAUSE: Duration = Duration::from_millis(20);
/// Far above what any test takes.
const PATIENCE: Duration = Duration::from_secs(60);

impl Gateway {
    /// Puts an image into the registry, open to Harbor's token.
    fn put_image(&self, reference: &str) -> Vec<u8> {
        let [config, layer] = [content(1, 300), content(2, 200_000)];
        let described = |it: &[u8], kind: &str| {
            let media_type = format!("application/vnd.oci.image.{kind}");
            json!({ "mediaType": media_type, "digest": digest(it).to_string(), "size": it.len() })
        };
        let manifest = json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": described(&config, "config.v1+json"), "layers": [described(&layer, "layer.v1.tar")] });
        let manifest = manifest.to_string().into_bytes();
        self.registry.put_manifest(REPOSITORY, reference, &manifest);
        self.registry.put_manifest(REPOSITORY, &digest(&manifest).to_string(), &manifest);
        for blob in [&config, &layer] {
            self.registry.put_blob(REPOSITORY, blob);
        }
        self.registry.let_in(REPOSITORY, HARBORS_TOKEN);
        manifest
    }

    /// Sends a request as it was recorded, with the webhook's header in place of its own.
    async fn send_recorded(&self, path: &str, recorded: &Value, body: &str) -> Answer {
        let mut request = Request::post(format!("http://{}{path}", self.address)).header(AUTHORIZATION, HOOK);
        for header in recorded["headers"].as_array().unwrap() {
            let [name, value] = [0, 1].map(|it| header[it].as_str().unwrap());
            if name.starts_with("Ce-") || name == "Content-Type" {
                request = request.header(name, value);
            }
        }
        Self::answer(request.body(Full::<Bytes>::from(body.to_owned())).unwrap()).await
    }

    async fn post(&self, path: &str, authorization: &str, body: &str) -> Answer {
        self.call(Method::POST, path, Some(authorization), body).await
    }

    /// Polls a job as Harbor does, to its end.
    async fn poll(&self, id: u64) -> (&'static str, Value) {
        let polling = async {
            loop {
                let answer =
                    self.call(Method::GET, &format!("{JOBS}/{id}"), Some(&bearer("harbor")), "").await;
                assert_eq!(answer.status, 200, "one status that is not good ends a job of Harbor's");
                let job = answer.json();
                match as_harbor_reads(&job).unwrap() {
                    "Running" => tokio::time::sleep(PAUSE).await,
                    ended => return (ended, job),
                }
            }
        };
        tokio::time::timeout(PATIENCE, polling).await.expect("the job does not end")
    }

    async fn jobs(&self) -> Vec<Value> {
        let answer =
            self.call(Method::GET, &format!("{JOBS}?per_page=100"), Some(&bearer("harbor")), "").await;
        answer.json().as_array().unwrap().clone()
    }
}

/// What Harbor's driver takes a job for, or why it cannot be read: its fields have Go's types, and there are three
/// states.
fn as_harbor_reads(job: &Value) -> Result<&'static str, String> {
    job["id"].as_i64().ok_or("id is no integer")?;
    for field in ["created_at", "updated_at"] {
        let time = job[field].as_str().unwrap_or_default();
        humantime::parse_rfc3339(time).map_err(|_| format!("{field} {time:?}"))?;
    }
    let states = &job["result"]["job_states"];
    for state in states.as_array().into_iter().flatten() {
        state["error"].as_str().ok_or("error is no text")?;
        for rows in state["results"].as_array().ok_or("results are no list")? {
            rows["scheduler_cluster_id"].as_u64().ok_or("a cluster's id is no number")?;
            for (list, fields) in [("success_tasks", 3), ("failure_tasks", 4)] {
                for row in rows[list].as_array().ok_or("rows are no list")? {
                    let names = &["url", "hostname", "ip", "description"][..fields];
                    names
                        .iter()
                        .try_for_each(|it| row[*it].as_str().map(drop).ok_or(format!("{it} of a row")))?;
                }
            }
        }
    }
    match job["state"].as_str() {
        Some("PENDING") => Ok("Running"),
        Some("SUCCESS") => Ok("Success"),
        Some("FAILURE") => Ok("Error"),
        other => Err(format!("unknown state: {other:?}")),
    }
}

/// The requests in a file of recordings.
fn recorded(name: &str) -> Vec<Value> {
    let path = format!("{}/../harbor-integration/recorded/{name}.json", env!("CARGO_MANIFEST_DIR"));
    match serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap() {
        Value::Array(all) => all,
        one => vec![one],
    }
}

/// The body of the only one.
fn body(name: &str) -> String {
    let all = recorded(name);
    let post = all.iter().find(|it| it["method"] == "POST").unwrap();
    post["raw_body"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_harbor_sent_to_dragonfly_becomes_jobs_that_it_can_follow() {
    let gateway = Gateway::start("").await;
    gateway.call(Method::GET, "/healthy", None, "").await.is(200, "OK");
    gateway.put_image("v1");
    let mut ids = Vec::new();
    for name in ["dragonfly-2-preheat-manual-plain", "dragonfly-auth-basic", "dragonfly-auth-oauth"] {
        let answer = gateway.post(JOBS, &bearer("harbor"), &body(name)).await;
        answer.is(200, "\"id\":");
        let job = answer.json();
        assert!(!answer.body.windows(5).any(|it| it == b"<jwt>"), "the token is not repeated");
        as_harbor_reads(&job).unwrap();
        let (ended, job) = gateway.poll(job["id"].as_u64().unwrap()).await;
        assert_eq!(ended, "Success", "{job:#}");
        let rows = job["result"]["job_states"][0]["results"][0]["success_tasks"].as_array().unwrap().len();
        assert!(rows > 0, "{job:#}");
        ids.push(job["id"].as_u64().unwrap());
    }
    assert!(ids.is_sorted() && ids[0] != ids[1], "{ids:?}");
    let shown: Vec<_> =
        gateway.registry.asked(&Method::GET).iter().map(|it| it.authorization.clone()).collect();
    assert!(shown.iter().any(|it| it.as_deref() == Some(HARBORS_TOKEN)), "{shown:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_cannot_be_done_fails_with_a_cause_that_harbor_shows() {
    let gateway = Gateway::start("").await;
    let answer = gateway.post(JOBS, &bearer("harbor"), &body("dragonfly-2-preheat-index-tag")).await;
    answer.is(200, "PENDING");
    let (ended, job) = gateway.poll(answer.json()["id"].as_u64().unwrap()).await;
    let error = job["result"]["job_states"][0]["error"].as_str().unwrap();
    assert!(ended == "Error" && !error.is_empty(), "{job:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_job_is_refused_with_a_reason() {
    let gateway = Gateway::start("").await;
    let good = body("dragonfly-2-preheat-manual-plain");
    for (from, to, reason) in [
        (good.as_str(), "", "the body is not JSON"),
        (good.as_str(), "[]", "the body is not a JSON object"),
        ("\"preheat\"", "\"gc\"", "no other job is done here"),
        ("\"image\"", "\"file\"", "nothing else is preheated here"),
        ("127.0.0.1:17080", "169.254.169.254", "is no name of a registry in the gateway's settings"),
        ("http://127.0.0.1:17080", "http://ann:hunter2@127.0.0.1:17080", "holds a user or password"),
        ("manifests", "blobs", "is not the URL of a manifest"),
        ("\"scope\":\"\"", "\"scope\":\"everywhere\"", "is none of single_seed_peer"),
        ("\"scope\":\"\"", "\"count\":0,\"scope\":\"all_peers\"", "count: is 0"),
        ("\"timeout\":0", "\"timeout\":-1", "args.timeout is not a whole number"),
        ("\"Bearer <jwt>\"", "1", "args.headers is not an object of texts"),
    ] {
        let answer = gateway.post(JOBS, &bearer("harbor"), &good.replace(from, to)).await;
        answer.is(422, reason);
        assert!(answer.json()["errors"].is_string(), "as Dragonfly words it");
        assert!(!String::from_utf8_lossy(&answer.body).contains("hunter2"));
    }
    gateway.post(JOBS, &bearer("harbor"), &good.replace("<jwt>", &"x".repeat(100_000))).await.is(413, "");
    for (authorization, status) in
        [(bearer("nobody"), 401), (bearer("reader"), 403), ("Bearer <jwt>".to_owned(), 401)]
    {
        gateway.post(JOBS, &authorization, &good).await.is(status, "message");
    }
    for path in [JOBS, "/api/v1/preheat"] {
        gateway.call(Method::GET, path, Some(&bearer("reader")), "").await.is(200, "");
        gateway
            .call(Method::DELETE, &format!("{path}/1"), Some(&bearer("reader")), "")
            .await
            .is(403, "preheat");
    }
    for path in ["/oapi/v1/jobs/9", "/oapi/v1/jobs/x", "/oapi/v1/jobs/-1"] {
        gateway.call(Method::GET, path, Some(&bearer("harbor")), "").await.is(404, "record not found");
        gateway.call(Method::DELETE, path, Some(&bearer("harbor")), "").await.is(404, "record not found");
    }
    assert_eq!(gateway.jobs().await, [Value::Null; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_are_listed_by_pages_and_stopped() {
    let gateway = Gateway::start("").await;
    for tag in ["v1", "v2", "v3"] {
        gateway.put_image(tag);
    }
    // Nothing of a blob comes before the jobs have been stopped.
    gateway.registry.gate.forget_permits(tokio::sync::Semaphore::MAX_PERMITS);
    let good = body("dragonfly-2-preheat-manual-plain");
    for tag in 1..=3 {
        let job = good.replace("manifests/v1", &format!("manifests/v{tag}"));
        gateway.post(JOBS, &bearer("harbor"), &job).await.is(200, "PENDING");
    }
    let page = |query: &'static str| {
        let gateway = &gateway;
        async move { gateway.call(Method::GET, &format!("{JOBS}?{query}"), Some(&bearer("harbor")), "").await }
    };
    let second = page("page=2&per_page=2").await;
    assert_eq!(second.json().as_array().unwrap().len(), 1);
    assert!(
        second.link.contains("page=1&per_page=2>; rel=\"prev\"") && !second.link.contains("next"),
        "{}",
        second.link
    );
    page("page=0").await.is(422, "page is not from 1");
    let id = second.json()[0]["id"].as_u64().unwrap();
    gateway
        .call(Method::DELETE, &format!("{JOBS}/{id}"), Some(&bearer("harbor")), "")
        .await
        .is(200, "\"id\"");
    let (ended, job) = gateway.poll(id).await;
    assert!(ended == "Error" && job.to_string().contains("cancelled by harbor"), "{job:#}");
    assert_eq!(page("state=FAILURE").await.json()[0]["id"], id);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_harbor_sent_to_kraken_becomes_a_job_by_its_digest() {
    let gateway = Gateway::start("notifications: {scope: single_seed_peer}").await;
    gateway.call(Method::GET, "/health", None, "").await.is(200, "OK");
    for name in ["kraken-2-preheat", "kraken-2-preheat-index", "kraken-auth-basic"] {
        let answer = gateway.post("/registry/notifications", &bearer("harbor"), &body(name)).await;
        answer.is(200, "\"jobs\":[");
        let id = answer.json()["jobs"][0].as_u64().unwrap();
        let job =
            gateway.call(Method::GET, &format!("{JOBS}/{id}"), Some(&bearer("harbor")), "").await.json();
        let url = job["args"]["url"].as_str().unwrap();
        assert!(url.starts_with(&format!("{NAME}/{REPOSITORY}@sha256:")), "{url}");
    }
    let path = "/registry/notifications";
    let good = body("kraken-2-preheat");
    gateway.post(path, &bearer("harbor"), "{}").await.is(422, "events is missing");
    gateway
        .post(path, &bearer("harbor"), &good.replace("17080", "17081"))
        .await
        .is(422, "is no name of a registry");
    gateway.post(path, &bearer("reader"), &good).await.is(403, "lacks the scope preheat");
    gateway.post(path, &bearer("harbor"), "{\"events\":[]}").await.is(200, "\"jobs\":[]");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_that_a_webhook_tells_of_warms_the_image_once() {
    let gateway = Gateway::start_with(RULES, "mode: gateway, repositories: ['p2p/**', 'dev/**']").await;
    let manifest = gateway.put_image("v1");
    let hook = "/webhooks/harbor";
    let recorded = |name: &str| {
        let pushed = "sha256:d500a178c29e1209f014d58901810301c5fa85a3634e45971f65f7d6092114c0";
        body(name).replace(pushed, &digest(&manifest).to_string())
    };
    let push = recorded("webhook-default-push");
    gateway.post(hook, "Bearer other", &push).await.is(401, "Unauthorized");
    gateway.post(hook, &bearer("harbor"), &push).await.is(401, "Unauthorized");
    for aside in [
        "webhook-default-pull",
        "webhook-default-delete",
        "webhook-cloudevents-pull",
        "webhook-default-push-index-child",
    ] {
        gateway.post(hook, HOOK, &recorded(aside)).await.is(200, "\"aside\":");
    }
    gateway.post(hook, HOOK, &recorded("webhook-slack-push")).await.is(422, "the body is not JSON");
    gateway.post(hook, HOOK, &push.replace("17080", "17081")).await.is(422, "is no name of a registry");
    gateway.post(hook, HOOK, &push.replace("p2p/team", "dev/team")).await.is(200, "\"jobs\":[]");
    assert_eq!(gateway.jobs().await, [Value::Null; 0]);

    let answer = gateway.post(hook, HOOK, &push).await;
    answer.is(200, "\"jobs\":[");
    let (ended, job) = gateway.poll(answer.json()["jobs"][0].as_u64().unwrap()).await;
    assert_eq!(ended, "Success", "{job:#}");
    // Harbor tells again, and by its other webhook.
    for name in ["webhook-default-push", "webhook-cloudevents-push"] {
        gateway.post(hook, HOOK, &recorded(name)).await.is(200, "\"jobs\":[]");
    }
    assert_eq!(gateway.jobs().await.len(), 1);
    assert!(gateway.ctx.metrics.encode().contains("shoal_gateway_management_calls_total{status=\"401\"} 2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_that_zot_tells_of_warms_the_image() {
    let rules = RULES.replace("p2p/**", "ev/**");
    let gateway = Gateway::start_with(&rules, "mode: gateway, repositories: ['p2p/**', 'ev/**']").await;
    let manifest = gateway.put_image("v1");
    for reference in ["v1", &digest(&manifest).to_string()] {
        gateway.registry.put_manifest("ev/app", reference, &manifest);
    }
    for blob in [content(1, 300), content(2, 200_000)] {
        gateway.registry.put_blob("ev/app", &blob);
    }
    let hook = format!("/webhooks/harbor?registry={NAME}");
    let pushed = "sha256:d500a178c29e1209f014d58901810301c5fa85a3634e45971f65f7d6092114c0";
    let mut started = Vec::new();
    for event in recorded("zot-events") {
        let body = event["raw_body"].as_str().unwrap().replace(pushed, &digest(&manifest).to_string());
        let is_push = event["body"]["reference"] == "v1" && !event["body"]["manifest"].is_null();
        if event["body"]["reference"] == "multi" {
            continue;
        }
        let answer = gateway.send_recorded(&hook, &event, &body).await;
        answer.is(200, if is_push { "\"jobs\":[" } else { "\"aside\":" });
        started.extend(answer.json()["jobs"].as_array().unwrap().iter().filter_map(Value::as_u64));
        if is_push {
            gateway
                .send_recorded("/webhooks/harbor", &event, &body)
                .await
                .is(422, "the event names no registry");
            gateway
                .send_recorded("/webhooks/harbor?registry=evil.example", &event, &body)
                .await
                .is(422, "is no name of");
            gateway
                .send_recorded("/webhooks/harbor?other=1", &event, &body)
                .await
                .is(422, "something else than registry");
            gateway.send_recorded(&hook, &event, "not JSON").await.is(422, "the body is not JSON");
            let mut lacking = event.clone();
            lacking["headers"].as_array_mut().unwrap().retain(|it| it[0] != "Ce-Id");
            gateway.send_recorded(&hook, &lacking, &body).await.is(422, "the header ce-id is missing");
        }
    }
    assert_eq!(started.len(), 1);
    let (ended, job) = gateway.poll(started[0]).await;
    assert_eq!(ended, "Success", "{job:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_secret_there_are_no_webhooks() {
    let gateway = Gateway::start("").await;
    gateway.post("/webhooks/harbor", "", &body("webhook-default-push")).await.is(404, "Not Found");
}
