//! Harbor's API as its source has it (v2.16), as far as it is used here: what it demands, what it leaves out of its
//! answers, and what it answers when it refuses. Nothing is taken that Harbor would not take.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::AUTHORIZATION;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::Empty;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::{Map, Value, json};

/// The account that sets Harbor up.
pub(crate) const ADMIN: (&str, &str) = ("admin", "Harbor12345");

/// A Harbor on loopback.
#[derive(Clone)]
pub(crate) struct Double {
    pub(crate) address: SocketAddr,
    state: Arc<Mutex<Inner>>,
}

/// What a test may look at and break.
pub(crate) struct Inner {
    pub(crate) version: &'static str,
    pub(crate) notifies: bool,
    pub(crate) robot_prefix: &'static str,
    pub(crate) projects: BTreeMap<String, i64>,
    pub(crate) robots: BTreeMap<i64, Value>,
    /// Of robots, by their names.
    pub(crate) secrets: BTreeMap<String, String>,
    pub(crate) instances: BTreeMap<i64, Value>,
    pub(crate) policies: BTreeMap<i64, Value>,
    pub(crate) webhooks: BTreeMap<i64, Value>,
    /// Policies that are just being carried out.
    pub(crate) running: Vec<i64>,
    /// What was asked to be changed: `PUT /robots/1`.
    pub(crate) writes: Vec<String>,
    last_id: i64,
}

type Answer = Result<Response, Response>;

impl Double {
    pub(crate) async fn start(projects: &[&str]) -> Self {
        let inner = Inner {
            version: "v2.16.0-89ef156d",
            notifies: true,
            robot_prefix: "robot$",
            projects: projects.iter().zip(1..).map(|(it, id)| ((*it).to_owned(), id)).collect(),
            robots: BTreeMap::new(),
            secrets: BTreeMap::new(),
            instances: BTreeMap::new(),
            policies: BTreeMap::new(),
            webhooks: BTreeMap::new(),
            running: Vec::new(),
            writes: Vec::new(),
            last_id: 0,
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let double = Self { address: listener.local_addr().unwrap(), state: Arc::new(Mutex::new(inner)) };
        let router = Router::new()
            .route("/v2/", get(v2))
            .route("/api/v2.0/ping", get(async || "Pong"))
            .route("/api/v2.0/systeminfo", get(about))
            .route("/api/v2.0/configurations", get(configurations))
            .route("/api/v2.0/projects", get(has_project))
            .route("/api/v2.0/robots", get(robots).post(create_robot))
            .route("/api/v2.0/robots/{id}", put(update_robot).patch(refresh).delete(delete_robot))
            .route("/api/v2.0/p2p/preheat/instances", get(instances).post(create_instance))
            .route("/api/v2.0/p2p/preheat/instances/ping", post(ping))
            .route("/api/v2.0/p2p/preheat/instances/{name}", put(update_instance).delete(delete_instance))
            .route("/api/v2.0/projects/{project}/preheat/policies", get(policies).post(create_policy))
            .route(
                "/api/v2.0/projects/{project}/preheat/policies/{name}",
                put(update_policy).delete(delete_policy),
            )
            .route("/api/v2.0/projects/{project}/webhook/policies", get(webhooks).post(create_webhook))
            .route(
                "/api/v2.0/projects/{project}/webhook/policies/{id}",
                put(update_webhook).delete(delete_webhook),
            )
            .with_state(double.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        double
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, Inner> {
        self.state.lock().unwrap()
    }

    /// What was asked to be changed since the last time.
    pub(crate) fn writes(&self) -> Vec<String> {
        std::mem::take(&mut self.state().writes)
    }

    /// Whoever asks, where Harbor knows them; else they are strangers, also with a wrong password.
    fn knows(&self, headers: &HeaderMap) -> bool {
        self.name(headers).is_some()
    }

    fn name(&self, headers: &HeaderMap) -> Option<String> {
        let value = headers.get(AUTHORIZATION)?.to_str().ok()?.strip_prefix("Basic ")?;
        let pair = String::from_utf8(STANDARD.decode(value).ok()?).ok()?;
        let (name, password) = pair.split_once(':')?;
        let state = self.state();
        let robot = state.robots.values().find(|it| it["name"] == name);
        let is_good = match robot {
            Some(robot) => {
                state.secrets.get(name).is_some_and(|it| it == password) && robot["disable"] != true
            }
            None => (name, password) == ADMIN,
        };
        is_good.then(|| name.to_owned())
    }

    fn need_admin(&self, headers: &HeaderMap) -> Result<(), Response> {
        match self.name(headers) {
            Some(name) if name == ADMIN.0 => Ok(()),
            Some(_) => Err(refuse(StatusCode::FORBIDDEN, "FORBIDDEN", "forbidden")),
            None => Err(refuse(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", "unauthorized")),
        }
    }

    /// Begins a change: only for the administrator, with a JSON object.
    fn begin(&self, headers: &HeaderMap, what: String, body: &Bytes) -> Result<Map<String, Value>, Response> {
        self.need_admin(headers)?;
        self.state().writes.push(what);
        if body.is_empty() {
            return Ok(Map::new());
        }
        if headers.get("content-type").is_none_or(|it| it != "application/json") {
            return Err(refuse(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "UNSUPPORTED_MEDIA_TYPE",
                "unsupported media type",
            ));
        }
        match serde_json::from_slice(body) {
            Ok(Value::Object(map)) => Ok(map),
            _ => Err(bad("parsing body failed")),
        }
    }
}

impl Inner {
    fn new_id(&mut self) -> i64 {
        self.last_id += 1;
        self.last_id
    }

    fn project(&self, name: &str) -> Result<i64, Response> {
        let missing = || refuse(StatusCode::NOT_FOUND, "NOT_FOUND", &format!("project {name} not found"));
        self.projects.get(name).copied().ok_or_else(missing)
    }
}

fn refuse(status: StatusCode, code: &str, message: &str) -> Response {
    (status, axum::Json(json!({ "errors": [{ "code": code, "message": message }] }))).into_response()
}

fn bad(message: &str) -> Response {
    refuse(StatusCode::BAD_REQUEST, "BAD_REQUEST", message)
}

/// What Harbor says of an error that it has no better word for.
fn internal() -> Response {
    refuse(StatusCode::INTERNAL_SERVER_ERROR, "UNKNOWN", "internal server error")
}

fn not_found() -> Response {
    refuse(StatusCode::NOT_FOUND, "NOT_FOUND", "not found")
}

fn text<'a>(body: &'a Map<String, Value>, field: &str) -> &'a str {
    body.get(field).and_then(Value::as_str).unwrap_or_default()
}

/// `^[a-z0-9]+(?:[._-][a-z0-9]+)*$`, in upper case as well where that is allowed.
fn is_name(name: &str, may_be_upper: bool) -> bool {
    let fits =
        |it: u8| it.is_ascii_digit() || it.is_ascii_lowercase() || (may_be_upper && it.is_ascii_uppercase());
    name.split(['.', '_', '-']).all(|it| !it.is_empty() && it.bytes().all(fits))
}

/// As Go leaves fields out of its JSON.
fn without_empty(mut value: Value, kept: &[&str]) -> Value {
    if let Value::Object(map) = &mut value {
        let is_empty = |it: &Value| {
            it.is_null() || it == "" || it == false || it == 0 || it.as_array().is_some_and(Vec::is_empty)
        };
        map.retain(|name, it| kept.contains(&name.as_str()) || !is_empty(it));
    }
    value
}

/// One page of a list.
fn page(double: &Double, query: &BTreeMap<String, String>, items: Vec<Value>) -> Answer {
    let number = |name: &str, usual: usize| query.get(name).map_or(usual, |it| it.parse().unwrap());
    let (page, size) = (number("page", 1), number("page_size", 10));
    if size > 100 {
        return Err(refuse(
            StatusCode::UNPROCESSABLE_ENTITY,
            "UNPROCESSABLE_ENTITY",
            "page_size in query should be less than or equal to 100",
        ));
    }
    let has_next = page * size < items.len();
    let items: Vec<_> = items.into_iter().skip((page - 1) * size).take(size).collect();
    let mut response = axum::Json(items).into_response();
    if has_next {
        let link = format!("<http://{}/next?page={}>; rel=\"next\"", double.address, page + 1);
        response.headers_mut().insert("link", link.parse().unwrap());
    }
    Ok(response)
}

async fn v2(State(double): State<Double>, headers: HeaderMap) -> Response {
    if double.knows(&headers) {
        "{}".into_response()
    } else {
        refuse(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", "unauthorized")
    }
}

async fn about(State(double): State<Double>, headers: HeaderMap) -> Response {
    let mut about = json!({ "auth_mode": "db_auth", "self_registration": false });
    if double.knows(&headers) {
        let state = double.state();
        about["harbor_version"] = state.version.into();
        about["notification_enable"] = state.notifies.into();
        about["external_url"] = "https://harbor.example.com".into();
        about["registry_url"] = "harbor.example.com".into();
    }
    axum::Json(about).into_response()
}

async fn configurations(State(double): State<Double>, headers: HeaderMap) -> Answer {
    double.need_admin(&headers)?;
    let prefix = double.state().robot_prefix;
    Ok(axum::Json(json!({ "robot_name_prefix": { "editable": true, "value": prefix } })).into_response())
}

async fn has_project(
    State(double): State<Double>,
    method: Method,
    headers: HeaderMap,
    Query(query): Query<BTreeMap<String, String>>,
) -> Answer {
    assert_eq!(method, Method::HEAD);
    if !double.knows(&headers) {
        return Err(refuse(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", "unauthorized"));
    }
    double.state().project(&query["project_name"])?;
    Ok(StatusCode::OK.into_response())
}

// === robots ===

async fn robots(
    State(double): State<Double>,
    headers: HeaderMap,
    Query(query): Query<BTreeMap<String, String>>,
) -> Answer {
    double.need_admin(&headers)?;
    assert_eq!(query.get("q").map(String::as_str), Some("Level=system"));
    let robots: Vec<_> = double.state().robots.values().cloned().collect();
    page(&double, &query, robots.into_iter().map(|it| without_empty(it, &["disable", "editable"])).collect())
}

fn check_robot(state: &Inner, body: &Map<String, Value>) -> Result<(), Response> {
    let days = body["duration"].as_i64().unwrap_or_default();
    if days != -1 && !(1..i64::from(i32::MAX)).contains(&days) {
        return Err(bad("bad request error duration input"));
    }
    if !["system", "project"].contains(&text(body, "level")) {
        return Err(bad("bad request error level input"));
    }
    let permissions = body.get("permissions").and_then(Value::as_array).cloned().unwrap_or_default();
    if permissions.is_empty() {
        return Err(bad("bad request empty permission"));
    }
    for permission in &permissions {
        let access = permission["access"].as_array().cloned().unwrap_or_default();
        if access.is_empty() {
            return Err(bad("bad request empty access"));
        }
        if permission["kind"] != "project"
            || access.iter().any(|it| it["resource"] != "repository" || it["action"] != "pull")
        {
            return Err(bad("more than the least right"));
        }
        state.project(permission["namespace"].as_str().unwrap())?;
    }
    Ok(())
}

async fn create_robot(State(double): State<Double>, headers: HeaderMap, body: Bytes) -> Answer {
    let body = double.begin(&headers, "POST /robots".to_owned(), &body)?;
    let mut state = double.state();
    if !is_name(text(&body, "name"), false) {
        return Err(bad("robot name is not in lower case or contains illegal characters"));
    }
    check_robot(&state, &body)?;
    let name = format!("{}{}", state.robot_prefix, text(&body, "name"));
    if state.robots.values().any(|it| it["name"] == name) {
        return Err(refuse(StatusCode::CONFLICT, "CONFLICT", "robot account already exists"));
    }
    let (id, secret) = (state.new_id(), format!("Secret{}", state.last_id));
    let expires = if body["duration"] == -1 { -1 } else { 4_000_000_000_i64 };
    let robot = json!({ "id": id, "name": name, "description": body["description"], "level": body["level"],
        "duration": body["duration"], "expires_at": expires, "editable": true, "disable": false,
        "permissions": body["permissions"], "creation_time": "2026-06-01T12:00:00.000Z" });
    state.robots.insert(id, robot);
    state.secrets.insert(name.clone(), secret.clone());
    let made = json!({ "id": id, "name": name, "secret": secret, "expires_at": expires });
    Ok((StatusCode::CREATED, axum::Json(made)).into_response())
}

async fn update_robot(
    State(double): State<Double>,
    Path(id): Path<i64>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    let body = double.begin(&headers, format!("PUT /robots/{id}"), &body)?;
    let mut state = double.state();
    let found = state.robots.get(&id).cloned().ok_or_else(not_found)?;
    check_robot(&state, &body)?;
    if body["level"] != found["level"] || body["name"] != found["name"] {
        return Err(bad("cannot update the level or name of robot"));
    }
    let mut robot = found;
    for field in ["description", "disable", "duration", "permissions"] {
        robot[field] = body[field].clone();
    }
    state.robots.insert(id, robot);
    Ok(StatusCode::OK.into_response())
}

async fn refresh(
    State(double): State<Double>,
    Path(id): Path<i64>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    double.begin(&headers, format!("PATCH /robots/{id}"), &body)?;
    let mut state = double.state();
    let name = state.robots.get(&id).ok_or_else(not_found)?["name"].as_str().unwrap().to_owned();
    let secret = format!("Fresh{}", state.new_id());
    state.secrets.insert(name, secret.clone());
    Ok(axum::Json(json!({ "secret": secret })).into_response())
}

async fn delete_robot(State(double): State<Double>, Path(id): Path<i64>, headers: HeaderMap) -> Answer {
    double.begin(&headers, format!("DELETE /robots/{id}"), &Bytes::new())?;
    double.state().robots.remove(&id).ok_or_else(not_found)?;
    Ok(StatusCode::OK.into_response())
}

// === instances ===

async fn instances(
    State(double): State<Double>,
    headers: HeaderMap,
    Query(query): Query<BTreeMap<String, String>>,
) -> Answer {
    double.need_admin(&headers)?;
    let shown = |mut it: Value| {
        it.as_object_mut().unwrap().remove("auth_info");
        it["status"] = "Unknown".into();
        without_empty(it, &["enabled", "default", "insecure"])
    };
    let all = double.state().instances.values().cloned().map(shown).collect();
    page(&double, &query, all)
}

async fn create_instance(State(double): State<Double>, headers: HeaderMap, body: Bytes) -> Answer {
    let body = double.begin(&headers, "POST /instances".to_owned(), &body)?;
    let mut state = double.state();
    // Neither an unknown name nor a second address has a status of its own.
    if !is_name(text(&body, "name"), true)
        || state.instances.values().any(|it| it["endpoint"] == body["endpoint"])
    {
        return Err(internal());
    }
    if state.instances.values().any(|it| it["name"] == body["name"]) {
        return Err(refuse(StatusCode::CONFLICT, "CONFLICT", "instance already exists"));
    }
    let id = state.new_id();
    let mut instance = Value::Object(body);
    instance["id"] = id.into();
    state.instances.insert(id, instance);
    Ok(StatusCode::CREATED.into_response())
}

async fn update_instance(
    State(double): State<Double>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    let mut body = double.begin(&headers, format!("PUT /instances/{name}"), &body)?;
    let mut state = double.state();
    let named = state.instances.values().find(|it| it["name"] == name).cloned().ok_or_else(not_found)?;
    // What is replaced says the body's id, and not the path.
    let id = body
        .get("id")
        .and_then(Value::as_i64)
        .filter(|it| state.instances.contains_key(it))
        .ok_or_else(not_found)?;
    if state.instances[&id]["vendor"] != body["vendor"] {
        return Err(internal());
    }
    if body.get("enabled") != Some(&true.into()) && state.policies.values().any(|it| it["provider_id"] == id)
    {
        return Err(refuse(
            StatusCode::PRECONDITION_FAILED,
            "PRECONDITION",
            "Provider cannot be disabled as some preheat policies are using it",
        ));
    }
    let has_none = body.get("auth_info").and_then(Value::as_object).is_none_or(Map::is_empty);
    if has_none && text(&body, "auth_mode") != "NONE" {
        body.insert("auth_info".to_owned(), named["auth_info"].clone());
    }
    state.instances.insert(id, Value::Object(body));
    Ok(StatusCode::OK.into_response())
}

async fn delete_instance(
    State(double): State<Double>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Answer {
    double.begin(&headers, format!("DELETE /instances/{name}"), &Bytes::new())?;
    let mut state = double.state();
    let id =
        state.instances.values().find(|it| it["name"] == name).ok_or_else(not_found)?["id"].as_i64().unwrap();
    if state.policies.values().any(|it| it["provider_id"] == id) {
        let message = format!("Provider [{name}] cannot be deleted as some preheat policies are using it");
        return Err(refuse(StatusCode::PRECONDITION_FAILED, "PRECONDITION", &message));
    }
    state.instances.remove(&id);
    Ok(StatusCode::OK.into_response())
}

/// Asks the gateway as Harbor's drivers do.
async fn ping(State(double): State<Double>, headers: HeaderMap, body: Bytes) -> Answer {
    double.need_admin(&headers)?;
    let body: Value = serde_json::from_slice(&body).unwrap();
    let instance =
        double.state().instances.get(&body["id"].as_i64().unwrap()).cloned().ok_or_else(not_found)?;
    let path = if instance["vendor"] == "dragonfly" { "/healthy" } else { "/health" };
    let endpoint = instance["endpoint"].as_str().unwrap().trim_end_matches('/').to_owned();
    let mut request = Request::get(format!("{endpoint}{path}"));
    if instance["auth_mode"] == "OAUTH" {
        let Some(token) = instance["auth_info"]["token"].as_str() else { return Err(internal()) };
        request = request.header(AUTHORIZATION, format!("Bearer {token}"));
    }
    let client = Client::builder(TokioExecutor::new()).build_http();
    let answer = client.request(request.body(Empty::<Bytes>::new()).unwrap()).await;
    if answer.is_ok_and(|it| it.status().is_success()) {
        Ok(StatusCode::OK.into_response())
    } else {
        Err(internal())
    }
}

// === preheat policies ===

async fn policies(
    State(double): State<Double>,
    Path(project): Path<String>,
    headers: HeaderMap,
    Query(query): Query<BTreeMap<String, String>>,
) -> Answer {
    double.need_admin(&headers)?;
    let id = double.state().project(&project)?;
    let all: Vec<_> = double.state().policies.values().filter(|it| it["project_id"] == id).cloned().collect();
    page(&double, &query, all.into_iter().map(|it| without_empty(it, &["enabled"])).collect())
}

fn check_policy(state: &Inner, body: &Map<String, Value>) -> Result<(), Response> {
    let parses = |field: &str| serde_json::from_str::<Value>(text(body, field)).is_ok();
    if !is_name(text(body, "name"), true) || !parses("filters") || !parses("trigger") {
        return Err(internal());
    }
    if !text(body, "extra_attrs").is_empty() && !parses("extra_attrs") {
        return Err(internal());
    }
    let provider = body.get("provider_id").and_then(Value::as_i64).unwrap_or_default();
    if state.instances.contains_key(&provider) { Ok(()) } else { Err(not_found()) }
}

async fn create_policy(
    State(double): State<Double>,
    Path(project): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    let body = double.begin(&headers, format!("POST /{project}/preheat"), &body)?;
    let mut state = double.state();
    let project = state.project(&project)?;
    check_policy(&state, &body)?;
    if state.policies.values().any(|it| it["project_id"] == project && it["name"] == body["name"]) {
        return Err(refuse(StatusCode::CONFLICT, "CONFLICT", "policy already exists"));
    }
    let id = state.new_id();
    let mut policy = Value::Object(body);
    (policy["id"], policy["project_id"]) = (id.into(), project.into());
    // It is written anew from what was read.
    let trigger: Value = serde_json::from_str(policy["trigger"].as_str().unwrap()).unwrap();
    let settings = trigger.get("trigger_setting").cloned().unwrap_or_else(|| json!({}));
    policy["trigger"] = json!({ "type": trigger["type"], "trigger_setting": settings }).to_string().into();
    state.policies.insert(id, policy);
    Ok(StatusCode::CREATED.into_response())
}

async fn update_policy(
    State(double): State<Double>,
    Path((project, name)): Path<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    let body = double.begin(&headers, format!("PUT /{project}/preheat/{name}"), &body)?;
    let mut state = double.state();
    let project = state.project(&project)?;
    check_policy(&state, &body)?;
    // Here, too, the body says which it is.
    let id = body.get("id").and_then(Value::as_i64).unwrap_or_default();
    if state.policies.get(&id).is_none_or(|it| it["project_id"] != project) {
        return Err(not_found());
    }
    let mut policy = Value::Object(body);
    policy["project_id"] = project.into();
    state.policies.insert(id, policy);
    Ok(StatusCode::OK.into_response())
}

async fn delete_policy(
    State(double): State<Double>,
    Path((project, name)): Path<(String, String)>,
    headers: HeaderMap,
) -> Answer {
    double.begin(&headers, format!("DELETE /{project}/preheat/{name}"), &Bytes::new())?;
    let mut state = double.state();
    let project = state.project(&project)?;
    let found = state.policies.iter().find(|(_, it)| it["project_id"] == project && it["name"] == name);
    let id = *found.ok_or_else(not_found)?.0;
    if state.running.contains(&id) {
        let message = format!("execution 7 under the policy {name} is running, stop it and retry");
        return Err(refuse(StatusCode::PRECONDITION_FAILED, "PRECONDITION", &message));
    }
    state.policies.remove(&id);
    Ok(StatusCode::OK.into_response())
}

// === webhooks ===

async fn webhooks(
    State(double): State<Double>,
    Path(project): Path<String>,
    headers: HeaderMap,
    Query(query): Query<BTreeMap<String, String>>,
) -> Answer {
    double.need_admin(&headers)?;
    assert_eq!(headers["x-is-resource-name"], "true", "a name of digits would be taken for an id");
    let id = double.state().project(&project)?;
    let all: Vec<_> = double.state().webhooks.values().filter(|it| it["project_id"] == id).cloned().collect();
    let shown = |mut it: Value| {
        let targets = it["targets"].as_array().unwrap().iter().map(|it| without_empty(it.clone(), &[]));
        it["targets"] = targets.collect();
        without_empty(it, &["enabled"])
    };
    page(&double, &query, all.into_iter().map(shown).collect())
}

fn check_webhook(body: &Map<String, Value>) -> Result<(), Response> {
    let list = |field: &str| body.get(field).and_then(Value::as_array).cloned().unwrap_or_default();
    let types = ["PUSH_ARTIFACT", "PULL_ARTIFACT", "DELETE_ARTIFACT"];
    if list("event_types").is_empty()
        || !list("event_types").iter().all(|it| types.contains(&it.as_str().unwrap()))
    {
        return Err(bad("empty or unsupported event type"));
    }
    if list("targets").is_empty() {
        return Err(bad("empty notification target"));
    }
    for target in list("targets") {
        if !target["address"].as_str().is_some_and(|it| it.starts_with("http")) {
            return Err(bad("invalid scheme"));
        }
        if !["http", "slack"].contains(&target["type"].as_str().unwrap()) {
            return Err(bad("unsupported target type"));
        }
        if !["Default", "CloudEvents"].contains(&target["payload_format"].as_str().unwrap()) {
            return Err(bad("unsupported payload format type"));
        }
    }
    Ok(())
}

async fn create_webhook(
    State(double): State<Double>,
    Path(project): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    let body = double.begin(&headers, format!("POST /{project}/webhook"), &body)?;
    check_webhook(&body)?;
    let mut state = double.state();
    let project = state.project(&project)?;
    if state.webhooks.values().any(|it| it["project_id"] == project && it["name"] == body["name"]) {
        return Err(refuse(StatusCode::CONFLICT, "CONFLICT", "notification policy already exists"));
    }
    let id = state.new_id();
    let mut webhook = Value::Object(body);
    (webhook["id"], webhook["project_id"]) = (id.into(), project.into());
    state.webhooks.insert(id, webhook);
    Ok(StatusCode::CREATED.into_response())
}

async fn update_webhook(
    State(double): State<Double>,
    Path((project, id)): Path<(String, i64)>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    let body = double.begin(&headers, format!("PUT /{project}/webhook/{id}"), &body)?;
    check_webhook(&body)?;
    let mut state = double.state();
    let project = state.project(&project)?;
    if state.webhooks.get(&id).is_none_or(|it| it["project_id"] != project) {
        return Err(not_found());
    }
    let mut webhook = Value::Object(body);
    (webhook["id"], webhook["project_id"]) = (id.into(), project.into());
    state.webhooks.insert(id, webhook);
    Ok(StatusCode::OK.into_response())
}

async fn delete_webhook(
    State(double): State<Double>,
    Path((project, id)): Path<(String, i64)>,
    headers: HeaderMap,
) -> Answer {
    double.begin(&headers, format!("DELETE /{project}/webhook/{id}"), &Bytes::new())?;
    double.state().webhooks.remove(&id).ok_or_else(not_found)?;
    Ok(StatusCode::OK.into_response())
}
