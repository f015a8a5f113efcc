//! Preheat policies of projects.

use std::collections::BTreeMap;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, put};
use http::{HeaderMap, StatusCode};
use serde_json::{Map, Value, json};

use super::{Answer, Double, Inner, internal, is_name, not_found, page, refuse, text, without_empty};

pub(super) fn routes() -> Router<Double> {
    Router::new()
        .route("/api/v2.0/projects/{project}/preheat/policies", get(policies).post(create_policy))
        .route(
            "/api/v2.0/projects/{project}/preheat/policies/{name}",
            put(update_policy).delete(delete_policy),
        )
}

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
