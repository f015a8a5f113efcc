//! What was recorded of Harbor, sent to a gateway that was really started, and the gateway's answers read as Harbor
//! reads them.

#![allow(clippy::unwrap_used, reason = "in a test, an unwrap is an assertion")]

#[allow(dead_code, reason = "it serves several tests, and each needs a part of it")]
mod support;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, LINK};
use http::{Method, Request};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use shoal_gateway::settings::{DEFAULT, Settings};
use shoal_ops::Context;
use shoal_ops::settings::Reader;
use support::registry::Registry;
use support::{content, digest, own_address};
use tempfile::TempDir;

/// The registry as the recorded bodies name it.
const NAME: &str = "127.0.0.1:17080";
const REPOSITORY: &str = "p2p/team/app";
/// What a Harbor of the recordings put in the place of its own token.
const HARBORS_TOKEN: &str = "Bearer <jwt>";
/// The gateway's account, `robot$prod+pull:hunter2`.
const ROBOT: &str = "Basic cm9ib3QkcHJvZCtwdWxsOmh1bnRlcjI=";
const HOOK: &str = "Bearer whsecret";
const JOBS: &str = "/oapi/v1/jobs";
/// How long nobody asks for a job that goes on.
const PAUSE: Duration = Duration::from_millis(20);
/// Far above what any test takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// A gateway before the registry of the recordings.
struct Gateway {
    address: SocketAddr,
    ctx: Context,
    registry: Registry,
    _dir: TempDir,
}

/// A management token of the name's own and its hash.
fn token(name: &str) -> (String, String) {
    let secret = hex::encode(Sha256::digest(name));
    let hash = hex::encode(Sha256::digest(&secret));
    (format!("shoal_{}_{secret}", &hash[..8]), format!("sha256:{hash}"))
}

fn bearer(name: &str) -> String {
    format!("Bearer {}", token(name).0)
}

impl Gateway {
    async fn start(preheat: &str) -> Self {
        Self::start_with(preheat, "mode: client").await
    }

    /// The gateway's account decides who may read what, or it does not.
    async fn start_with(preheat: &str, mode: &str) -> Self {
        let (dir, address, registry) =
            (tempfile::tempdir().unwrap(), own_address(), Registry::with_secret(ROBOT).await);
        let declared = |name: &str, scopes: &str| {
            format!("{{name: {name}, hash: '{}', scopes: [{scopes}]}}", token(name).1)
        };
        let user = format!(
            "
listen: '127.0.0.1:0'
security: {{mtls: false}}
storage: {{dir: '{}', freeSpaceFloor: 0}}
download: {{pieceSize: 64Ki}}
management:
  listen: '{address}'
  requestsPerSecond: 1000
  tokens: [{}, {}, {}]
preheat: {{{preheat}}}
registries:
  - name: '{NAME}'
    url: 'http://{}'
    insecure: true
    credentials: {{username: 'robot$prod+pull', password: hunter2, {mode}}}
",
            dir.path().display(),
            declared("harbor", "preheat"),
            declared("reader", "read"),
            declared("boss", "admin"),
            registry.address,
        );
        let reader = Reader::new(&user, DEFAULT, |_| None);
        let settings = Settings::read(&reader);
        reader.finish().unwrap();
        let ctx = Context::new("gateway", "0");
        shoal_gateway::start(settings, ctx.clone()).await.unwrap();
        Self { address, ctx, registry, _dir: dir }
    }

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

    async fn call(&self, method: Method, path: &str, authorization: Option<&str>, body: &str) -> Answer {
        let mut request = Request::builder().method(method).uri(format!("http://{}{path}", self.address));
        if let Some(authorization) = authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        Self::answer(request.body(Full::<Bytes>::from(body.to_owned())).unwrap()).await
    }

    async fn answer(request: Request<Full<Bytes>>) -> Answer {
        let client = Client::builder(TokioExecutor::new()).build_http();
        let (head, body) = client.request(request).await.unwrap().into_parts();
        let link = head.headers.get(LINK).map(|it| it.to_str().unwrap().to_owned());
        let body = body.collect().await.unwrap().to_bytes();
        Answer { status: head.status.as_u16(), link: link.unwrap_or_default(), body }
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

struct Answer {
    status: u16,
    link: String,
    body: Bytes,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    #[track_caller]
    fn is(&self, status: u16, text: &str) {
        let body = String::from_utf8_lossy(&self.body);
        assert!(self.status == status && body.contains(text), "{status} {text:?}: {} {body}", self.status);
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

const RULES: &str = "webhook: {authorization: 'Bearer whsecret'}, rules: [{repositories: ['p2p/**'], scope: single_seed_peer}]";

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

#[tokio::test(flavor = "multi_thread")]
async fn the_description_names_the_routes_that_there_are() {
    let gateway = Gateway::start(RULES).await;
    let answer = gateway.call(Method::GET, "/api/v1/openapi.json", None, "").await;
    answer.is(200, "\"openapi\":\"3.");
    let document = answer.json();
    let mut named = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            named.push(format!("{method} {path}"));
            let method = method.to_uppercase().parse().unwrap();
            let is_open = path.starts_with("/health");
            // Who shows nothing is not let in; what is not there would be 404 or 405.
            let answer = gateway.call(method, &path.replace("{id}", "1"), None, "").await;
            assert!([401, 429].contains(&answer.status) != is_open, "{path}: {}", answer.status);
            let is_by_token = operation["security"] == json!([{ "token": [] }]);
            assert_eq!(is_by_token, !is_open && path != "/webhooks/harbor", "{path}");
        }
    }
    assert_eq!(
        named,
        [
            "get /api/v1/nodes",
            "get /api/v1/preheat",
            "post /api/v1/preheat",
            "delete /api/v1/preheat/{id}",
            "get /api/v1/preheat/{id}",
            "get /api/v1/regions",
            "post /api/v1/repositories/purge",
            "get /api/v1/tasks",
            "delete /api/v1/tasks/{id}",
            "get /api/v1/tasks/{id}",
            "get /api/v1/tokens",
            "post /api/v1/tokens",
            "delete /api/v1/tokens/{id}",
            "get /health",
            "get /healthy",
            "get /oapi/v1/jobs",
            "post /oapi/v1/jobs",
            "delete /oapi/v1/jobs/{id}",
            "get /oapi/v1/jobs/{id}",
            "post /registry/notifications",
            "post /webhooks/harbor",
        ]
    );
}

/// What a schema of the document says of an object: its properties, and those that must be there.
fn described<'a>(
    document: &'a Value,
    schema: &'a Value,
    found: &mut (BTreeMap<&'a str, &'a Value>, Vec<&'a str>),
) {
    if let Some(name) = schema["$ref"].as_str() {
        return described(document, document.pointer(&name[1..]).expect(name), found);
    }
    schema["allOf"].as_array().into_iter().flatten().for_each(|it| described(document, it, found));
    found
        .0
        .extend(schema["properties"].as_object().into_iter().flatten().map(|(name, it)| (name.as_str(), it)));
    found.1.extend(schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str));
}

/// Whether a value is as a schema of the document describes it: with no field that is not named, and all that must be
/// there.
fn conforms(document: &Value, schema: &Value, value: &Value) -> Result<(), String> {
    if let Some(name) = schema["$ref"].as_str() {
        let schema = document.pointer(&name[1..]).ok_or(format!("{name} is nowhere"))?;
        return conforms(document, schema, value).map_err(|it| format!("{name}: {it}"));
    }
    if let Some(alternatives) = schema["oneOf"].as_array() {
        let fits = alternatives.iter().any(|it| conforms(document, it, value).is_ok());
        return fits.then_some(()).ok_or(format!("{value} is none of {alternatives:?}"));
    }
    let is = |kind: &str| {
        schema["type"] == kind || schema["type"].as_array().is_some_and(|it| it.contains(&json!(kind)))
    };
    match value {
        Value::Object(map) if is("object") || schema["allOf"].is_array() => {
            let mut found = (BTreeMap::new(), Vec::new());
            described(document, schema, &mut found);
            if let Some(missing) = found.1.iter().find(|it| !map.contains_key(**it)) {
                return Err(format!("{missing} is missing in {value}"));
            }
            map.iter().try_for_each(|(name, field)| {
                let schema = found.0.get(name.as_str()).ok_or(format!("{name} is not described"))?;
                conforms(document, schema, field).map_err(|it| format!("{name}: {it}"))
            })
        }
        Value::Array(items) if is("array") => {
            items.iter().try_for_each(|it| conforms(document, &schema["items"], it))
        }
        Value::String(_) if is("string") => {
            let named = schema["enum"].as_array();
            named
                .is_none_or(|it| it.contains(value))
                .then_some(())
                .ok_or(format!("{value} is not in {named:?}"))
        }
        Value::Number(_) if is("integer") => Ok(()),
        Value::Bool(_) if is("boolean") => Ok(()),
        Value::Null if is("null") => Ok(()),
        _ => Err(format!("{value} is not {}", schema["type"])),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn examples_are_taken_and_answers_are_as_they_are_described() {
    let gateway = Gateway::start_with(RULES, "mode: gateway, repositories: ['**']").await;
    let answer = gateway.call(Method::GET, "/api/v1/openapi.json", None, "").await;
    let text = String::from_utf8(answer.body.to_vec()).unwrap().replace("harbor.example.com", NAME);
    let document: Value = serde_json::from_str(&text).unwrap();
    // What was made at a path, by its id. A task is made by nobody who asks for it; what is not there is removed as well.
    const TASKS: &str = "/api/v1/tasks";
    let task = format!("{NAME}@sha256:{}", "0".repeat(64));
    let (mut made, mut n_examples) = (BTreeMap::from([(TASKS.to_owned(), task)]), 0);
    for method in ["post", "get", "delete"] {
        for (path, item) in document["paths"].as_object().unwrap() {
            let Some(operation) = item.get(method) else { continue };
            let at = path.trim_end_matches("/{id}");
            if (method, at) == ("get", TASKS) && at != path {
                continue;
            }
            let path = path.replace("{id}", made.get(at).map_or("", String::as_str));
            let authorization = if path.starts_with("/webhooks/") { HOOK.to_owned() } else { bearer("boss") };
            let bodies = operation["requestBody"]["content"].as_object();
            let mut examples: Vec<_> = bodies
                .into_iter()
                .flatten()
                .map(|(kind, it)| {
                    let name = it["schema"]["$ref"].as_str().expect("a body has a schema of its own");
                    (kind.as_str(), document.pointer(&name[1..]).unwrap()["example"].to_string())
                })
                .collect();
            assert_eq!(examples.is_empty(), method != "post", "{method} {path}");
            n_examples += examples.len();
            if examples.is_empty() {
                examples.push(("application/json", String::new()));
            }
            for (kind, body) in examples {
                let request = Request::builder()
                    .method(method.to_uppercase().as_str())
                    .uri(format!("http://{}{path}", gateway.address))
                    .header(AUTHORIZATION, &authorization)
                    .header("content-type", kind);
                let answer = Gateway::answer(request.body(Full::from(body.clone())).unwrap()).await;
                let status = answer.status.to_string();
                let shown = String::from_utf8_lossy(&answer.body);
                assert!(status.starts_with('2'), "{method} {path} {body}: {status} {shown}");
                let described = &operation["responses"][&status];
                assert!(described.is_object(), "{method} {path}: {status} is not described");
                if answer.status == 204 {
                    continue;
                }
                let schema = &described["content"]["application/json"]["schema"];
                let json = answer.json();
                conforms(&document, schema, &json).unwrap_or_else(|it| panic!("{method} {path}: {it}"));
                let id = &json["id"];
                let id = id.as_str().map(str::to_owned).or_else(|| id.as_u64().map(|it| it.to_string()));
                made.extend(id.filter(|_| method == "post").map(|it| (at.to_owned(), it)));
            }
        }
    }
    assert_eq!(n_examples, 7);
}
