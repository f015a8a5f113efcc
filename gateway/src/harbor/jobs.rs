//! What a job is to do, as Dragonfly is told: `POST /oapi/v1/jobs`.
//!
//! A job is read as version 2.5 of Dragonfly reads it. What has no meaning here is taken and left aside: clusters,
//! descriptions, piece length, tag, application and filters of the URL. What would be done otherwise than it is asked
//! is refused. An index without a platform means all of its platforms: that is what Harbor sends, and it cannot say
//! more.

use std::time::Duration;

use serde_json::Value;
use shoal_model::Authorization;

use crate::fields::{Fields, Mistakes, object};
use crate::preheat::request::{Asked, basic};

/// Reads what somebody wants a job to do.
///
/// # Errors
/// All that is wrong with the body.
pub fn read(body: &[u8]) -> Result<Asked, Mistakes> {
    let map = object(body)?;
    let (fields, mut mistakes) = (Fields::of(&map), Mistakes::default());
    match fields.needed_text("type", &mut mistakes) {
        Some("preheat") | None => {}
        Some(_) => mistakes.add("type is not preheat, and no other job is done here"),
    }
    for field in ["scheduler_cluster_ids", "seed_peer_cluster_ids"] {
        if fields.list(field, &mut mistakes).iter().any(|it| !it.is_u64()) {
            mistakes.add(format!("{field} is not a list of whole numbers from 0 on"));
        }
    }
    let asked = match fields.group("args", &mut mistakes) {
        Some(args) => asked(&args, &mut mistakes),
        None => {
            mistakes.add("args is missing");
            Asked::default()
        }
    };
    mistakes.or(asked)
}

fn asked(args: &Fields<'_>, mistakes: &mut Mistakes) -> Asked {
    match args.needed_text("type", mistakes) {
        Some("image") | None => {}
        Some(_) => mistakes.add("args.type is not image, and nothing else is preheated here"),
    }
    let image = args.needed_text("url", mistakes).unwrap_or_default();
    if !image.contains("/manifests/") && !image.is_empty() {
        mistakes.add(
            "args.url is not the URL of a manifest: https://<host>/v2/<repository>/manifests/<reference>",
        );
    }
    let filled = |it: Option<&str>| it.filter(|it| !it.is_empty()).map(str::to_owned);
    // Nought is what Go sends for a number that nobody gave.
    let given = |it: Option<u64>| it.filter(|it| *it != 0);
    Asked {
        image: image.to_owned(),
        platforms: filled(args.text("platform", mistakes)).into_iter().collect(),
        scope: filled(args.text("scope", mistakes)),
        ips: args.texts("ips", mistakes),
        count: args.number("count", mistakes),
        percentage: args.number("percentage", mistakes),
        zone: None,
        regions: Vec::new(),
        layers: given(args.number("concurrent_task_count", mistakes)),
        nodes: given(args.number("concurrent_peer_count", mistakes)),
        timeout: given(args.number("timeout", mistakes)).map(Duration::from_nanos),
        authorization: authorization(args, mistakes),
    }
}

/// What the registry is shown: a header, or else what a name and a password make.
fn authorization(args: &Fields<'_>, mistakes: &mut Mistakes) -> Option<Authorization> {
    let headers = args.group("headers", mistakes);
    let mut shown = None;
    for (name, value) in headers.iter().flat_map(Fields::entries) {
        match value {
            Value::String(value) if name.eq_ignore_ascii_case("authorization") => {
                shown = Some(Authorization::new(value.clone()));
            }
            // Nothing else decides at a registry what its caller may read.
            Value::String(_) => {}
            _ => mistakes.add("args.headers is not an object of texts"),
        }
    }
    let user = args.text("username", mistakes).filter(|it| !it.is_empty());
    let password = args.text("password", mistakes).unwrap_or_default();
    match (shown, user) {
        (None, Some(user)) => basic(user, password).map_err(|it| mistakes.add(format!("args.{it}"))).ok(),
        (shown, _) => shown,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const URL: &str = "https://harbor.example/v2/library/busybox/manifests/latest";

    fn body(args: Value) -> Value {
        let mut all = json!({ "type": "image", "url": URL });
        all.as_object_mut().unwrap().extend(args.as_object().unwrap().clone());
        json!({ "type": "preheat", "args": all })
    }

    fn asked_in(body: &Value) -> Result<Asked, Vec<String>> {
        read(body.to_string().as_bytes()).map_err(|it| it.0)
    }

    #[track_caller]
    fn refused(body: Value, expected: &[&str]) {
        let mistakes = asked_in(&body).unwrap_err();
        assert_eq!(mistakes, expected, "{body}");
        assert!(!mistakes.concat().contains("hunter2"));
    }

    /// As its driver sends it.
    #[test]
    fn what_harbor_sends_is_a_job() {
        let sent = r#"{"type":"preheat","args":{"type":"image","url":"https://harbor.example/v2/library/busybox/manifests/latest","tag":"","filtered_query_params":"","headers":{"Authorization":"Bearer JWT"},"scope":"","concurrent_count":0,"timeout":0},"scheduler_cluster_ids":null}"#;
        let asked = read(sent.as_bytes()).unwrap();
        assert_eq!((asked.image.as_str(), asked.scope), (URL, None));
        assert_eq!((asked.timeout, asked.layers, asked.nodes), (None, None, None));
        assert_eq!(asked.authorization.unwrap().expose(), "Bearer JWT");
        assert!(asked.platforms.is_empty() && asked.ips.is_empty());
        let sent = sent.replace("\"scope\":\"\"", "\"scope\":\"all_peers\"").replace("null", "[1,2]");
        assert_eq!(read(sent.as_bytes()).unwrap().scope.unwrap(), "all_peers");
    }

    #[test]
    fn what_dragonfly_takes_is_taken() {
        let asked = asked_in(&json!({ "type": "preheat", "bio": "for tonight", "user_id": 1,
            "seed_peer_cluster_ids": [3], "args": { "type": "image", "url": URL, "platform": "linux/arm64",
            "scope": "all_peers", "ips": ["10.0.0.1"], "count": 2, "percentage": 50, "concurrent_task_count": 4,
            "concurrent_peer_count": 9, "timeout": 60_000_000_000_u64, "username": "ann", "password": "hunter2",
            "piece_length": 4_194_304, "application": "a", "headers": { "X-Other": "y" } } }))
        .unwrap();
        assert_eq!(
            (asked.platforms, asked.ips),
            (vec!["linux/arm64".to_owned()], vec!["10.0.0.1".to_owned()])
        );
        assert_eq!((asked.count, asked.percentage), (Some(2), Some(50)));
        assert_eq!((asked.layers, asked.nodes), (Some(4), Some(9)));
        assert_eq!(asked.timeout, Some(Duration::from_secs(60)));
        assert_eq!(asked.authorization.unwrap().expose(), "Basic YW5uOmh1bnRlcjI=");
    }

    #[test]
    fn a_header_goes_before_a_password() {
        let body = body(json!({ "username": "ann", "headers": { "authorization": "Bearer x" } }));
        let asked = asked_in(&body).unwrap();
        assert_eq!(asked.authorization.unwrap().expose(), "Bearer x");
    }

    #[test]
    fn everything_that_is_wrong_is_told() {
        refused(json!({}), &["type is missing", "args is missing"]);
        refused(
            json!({ "type": "gc", "args": { "type": "file" } }),
            &[
                "type is not preheat, and no other job is done here",
                "args.type is not image, and nothing else is preheated here",
                "args.url is missing",
            ],
        );
        refused(json!({ "type": "preheat", "args": [] }), &["args is not an object", "args is missing"]);
        refused(
            body(
                json!({ "headers": { "Authorization": 1 }, "timeout": -1, "ips": "x", "scope": 1, "count": "hunter2" }),
            ),
            &[
                "args.scope is not a text",
                "args.ips is not a list",
                "args.count is not a whole number from 0 on",
                "args.timeout is not a whole number from 0 on",
                "args.headers is not an object of texts",
            ],
        );
        refused(
            body(json!({ "url": "harbor.example/a:b" })),
            &["args.url is not the URL of a manifest: https://<host>/v2/<repository>/manifests/<reference>"],
        );
        refused(
            body(json!({ "username": "a:hunter2", "password": "hunter2" })),
            &["args.username: has a colon, which no registry can tell from the password's"],
        );
        let mut other = body(json!({}));
        other["scheduler_cluster_ids"] = json!(["1"]);
        refused(other, &["scheduler_cluster_ids is not a list of whole numbers from 0 on"]);
    }
}
