//! Robot accounts.

use std::collections::BTreeMap;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, put};
use http::{HeaderMap, StatusCode};
use serde_json::{Map, Value, json};

use super::{Answer, Double, Inner, bad, is_name, not_found, page, refuse, text, without_empty};

pub(super) fn routes() -> Router<Double> {
    Router::new()
        .route("/api/v2.0/robots", get(robots).post(create_robot))
        .route("/api/v2.0/robots/{id}", put(update_robot).patch(refresh).delete(delete_robot))
}

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
