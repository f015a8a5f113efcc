//! Webhook policies of projects.

use std::collections::BTreeMap;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, put};
use http::{HeaderMap, StatusCode};
use serde_json::{Map, Value};

use super::{Answer, Double, bad, not_found, page, refuse, without_empty};

pub(super) fn routes() -> Router<Double> {
    Router::new()
        .route("/api/v2.0/projects/{project}/webhook/policies", get(webhooks).post(create_webhook))
        .route(
            "/api/v2.0/projects/{project}/webhook/policies/{id}",
            put(update_webhook).delete(delete_webhook),
        )
}

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
