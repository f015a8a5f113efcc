//! The description of the management API: it names the routes that there are, its examples are taken, and answers are as
//! they are described.

#![allow(clippy::unwrap_used, reason = "in a test, an unwrap is an assertion")]

#[allow(dead_code, reason = "it serves several tests, and each needs a part of it")]
mod support;

use std::collections::BTreeMap;

use http::header::AUTHORIZATION;
use http::{Method, Request};
use http_body_util::Full;
use serde_json::{Value, json};
use support::managed::{Gateway, HOOK, NAME, RULES, bearer};

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
            "get /api/v1/audit",
            "get /api/v1/certificates",
            "get /api/v1/fleet",
            "get /api/v1/nodes",
            "get /api/v1/preheat",
            "post /api/v1/preheat",
            "delete /api/v1/preheat/{id}",
            "get /api/v1/preheat/{id}",
            "get /api/v1/regions",
            "post /api/v1/repositories/purge",
            "get /api/v1/savings",
            "get /api/v1/settings",
            "get /api/v1/tasks",
            "delete /api/v1/tasks/{id}",
            "get /api/v1/tasks/{id}",
            "get /api/v1/tasks/{id}/swarm",
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
        // Of what says for itself what it is, nothing is described.
        Value::Object(_) if *schema == json!({ "type": "object" }) => Ok(()),
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
            if method == "get" && path.starts_with(TASKS) && path != TASKS {
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
