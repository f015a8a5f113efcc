//! Harbor's API as its source has it (v2.16), as far as it is used here: what it demands, what it leaves out of its
//! answers, and what it answers when it refuses. Nothing is taken that Harbor would not take.

mod instances;
mod policies;
mod robots;
mod webhooks;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::AUTHORIZATION;
use http::{HeaderMap, Method, StatusCode};
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
            .merge(robots::routes())
            .merge(instances::routes())
            .merge(policies::routes())
            .merge(webhooks::routes())
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
