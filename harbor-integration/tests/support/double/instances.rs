//! Instances: whom Harbor has preheat.

use std::collections::BTreeMap;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::response::IntoResponse;
use axum::routing::{get, post, put};
use http::header::AUTHORIZATION;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::Empty;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::{Map, Value};

use super::{Answer, Double, internal, is_name, not_found, page, refuse, text, without_empty};

pub(super) fn routes() -> Router<Double> {
    Router::new()
        .route("/api/v2.0/p2p/preheat/instances", get(instances).post(create_instance))
        .route("/api/v2.0/p2p/preheat/instances/ping", post(ping))
        .route("/api/v2.0/p2p/preheat/instances/{name}", put(update_instance).delete(delete_instance))
}

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
