//! What was recorded of Harbor 2.16 and Zot 2.1.20, read as it came.

use serde_json::Value;

use super::{jobs, notifications, webhook};

/// A request as it was recorded, in `harbor-integration/recorded`.
struct Recorded {
    name: String,
    path: String,
    headers: Vec<(String, String)>,
    body: String,
}

fn recorded() -> Vec<Recorded> {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../harbor-integration/recorded");
    let mut all = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let file: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let one = file.as_object().map(|_| file.clone());
        for request in one.iter().chain(file.as_array().into_iter().flatten()) {
            let text = |field: &str| request[field].as_str().unwrap_or_default().to_owned();
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            if request["method"] == "POST" {
                let headers = serde_json::from_value(request["headers"].clone()).unwrap_or_default();
                all.push(Recorded { name, path: text("path"), headers, body: text("raw_body") });
            }
        }
    }
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all
}

/// What one body comes to, in a line.
fn read(Recorded { path, headers, body, .. }: &Recorded) -> Result<String, Vec<String>> {
    let body = body.as_bytes();
    if path.ends_with("/oapi/v1/jobs") {
        let asked = jobs::read(body).map_err(|it| it.0)?;
        let credential = asked.authorization.as_ref().map_or("", |it| it.expose());
        return Ok(format!("{} {} {credential}", asked.image, asked.scope.as_deref().unwrap_or("-")));
    }
    if path.ends_with("/registry/notifications") {
        let pushes = notifications::read(body).map_err(|it| it.0)?;
        return Ok(pushes.iter().map(ToString::to_string).collect());
    }
    let mut beside = webhook::Beside { registry: Some("zot.example".to_owned()), ..Default::default() };
    for (name, value) in headers {
        match name.to_ascii_lowercase().as_str() {
            "content-type" => beside.media_type.clone_from(value),
            name => {
                beside.attributes.extend(name.strip_prefix("ce-").map(|it| (it.to_owned(), value.clone())))
            }
        }
    }
    match webhook::Event::read(&beside, body).map_err(|it| it.0)? {
        webhook::Event::Pushed(pushes) => Ok(pushes.iter().map(ToString::to_string).collect()),
        webhook::Event::Aside(why) => Ok(why.to_owned()),
    }
}

#[test]
fn everything_that_harbor_and_zot_sent_is_read() {
    const IMAGE: &str = "127.0.0.1:17080/p2p/team/app";
    const DIGEST: &str = "sha256:d500a178c29e1209f014d58901810301c5fa85a3634e45971f65f7d6092114c0";
    const INDEX: &str = "sha256:efb2473e6bf89451e2c593b705274b792b513032d5f4cf1de6ecac9c60407215";
    let job = |tag: &str, scope: &str| {
        format!("http://127.0.0.1:17080/v2/p2p/team/app/manifests/{tag} {scope} Bearer <jwt>")
    };
    let all = recorded();
    assert!(all.len() > 15, "{}", all.len());
    for it in &all {
        let expected = match it.name.as_str() {
            "dragonfly-2-preheat-index-tag" => job("multi", "all_peers"),
            "dragonfly-2-preheat-event-extra-attrs" => job("v1", "all_peers"),
            name if name.starts_with("dragonfly") => job("v1", "-"),
            "kraken-2-preheat-index" => format!("{IMAGE}:multi@{INDEX}"),
            name if name.starts_with("kraken") => format!("{IMAGE}:v1@{DIGEST}"),
            "webhook-default-push" | "webhook-cloudevents-push" => format!("{IMAGE}:v1@{DIGEST}"),
            "webhook-default-push-index-child" => "what was pushed has no tag".to_owned(),
            // Harbor's form for chats, which is none for machines.
            "webhook-slack-push" => {
                assert!(read(it).is_err_and(|it| it[0].starts_with("the body is not JSON")));
                continue;
            }
            // Of an index the images come first.
            "zot-events" if it.body.contains("\"reference\":\"sha256:") => {
                "what was pushed has no tag".to_owned()
            }
            "zot-events" if it.body.contains("\"reference\":\"multi\"") => {
                format!("zot.example/ev/app:multi@{INDEX}")
            }
            "zot-events" if it.body.contains("manifest\":") => format!("zot.example/ev/app:v1@{DIGEST}"),
            _ => "it tells of no push".to_owned(),
        };
        assert_eq!(read(it).as_deref(), Ok(expected.as_str()), "{}", it.name);
    }
}
