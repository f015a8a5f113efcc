//! What Harbor and registries send: what is read is whole, whatever case its names are in; what is refused says why, and
//! repeats no secret.

use arbitrary::{Result, Unstructured};
use serde_json::{Map, Value, json};
use shoal_gateway::fields::Mistakes;
use shoal_gateway::harbor::push::Push;
use shoal_gateway::harbor::webhook::{Beside, Event};
use shoal_gateway::harbor::{jobs, notifications};
use shoal_gateway::preheat::image::Image;
use shoal_gateway::preheat::request::Request;

use crate::input::{parts, text, word};

const SECRET: &str = "hunter2";
const DIGEST: &str = "sha256:d500a178c29e1209f014d58901810301c5fa85a3634e45971f65f7d6092114c0";
const HOST: &str = "harbor.example";

/// Takes a body.
pub fn check(data: &[u8]) {
    let Some(body) = text(data, |u| Ok(document(u)?.to_string())) else { return };
    read(&body);
    let Ok(json) = serde_json::from_str::<Value>(&body) else { return };
    // Names that differ only in case are one name; which of them counts is not promised.
    let Some(other) = in_capitals(&json) else { return };
    assert_eq!(read(&json.to_string()), read(&other.to_string()), "{body}");
}

/// What each reader makes of it.
fn read(body: &str) -> [String; 3] {
    let job = match jobs::read(body.as_bytes()) {
        Ok(asked) => {
            assert!(asked.image.contains("/manifests/"), "{body}");
            let shown = format!("{asked:?}");
            if let Err(faults) = Request::new(asked, |it| it.parse().ok()) {
                assert!(!faults.is_empty(), "{body}");
            }
            shown
        }
        Err(mistakes) => refused(body, &mistakes),
    };
    let pushes = notifications::read(body.as_bytes()).map(|it| pushed(&it));
    let event = Event::read(&Beside::default(), body.as_bytes()).map(|it| match it {
        Event::Pushed(it) => pushed(&it),
        Event::Aside(why) => why.to_owned(),
    });
    let shown = |it: std::result::Result<String, Mistakes>| it.unwrap_or_else(|it| refused(body, &it));
    // Paths in mistakes have the names that are looked for, so they are the same in any case.
    [job, shown(pushes), shown(event)]
}

fn refused(body: &str, mistakes: &Mistakes) -> String {
    assert!(!mistakes.0.is_empty() && mistakes.0.iter().all(|it| !it.is_empty()), "{body}");
    let text = mistakes.0.join("; ");
    assert!(!text.contains(SECRET), "{text}");
    text
}

fn pushed(pushes: &[Push]) -> String {
    for push in pushes {
        let Push { host, repository, tag, digest } = push;
        assert!([host, repository, tag, digest].iter().all(|it| !it.is_empty()) && tag != digest, "{push}");
        assert!(!host.contains('/'), "{push}");
        if let Ok(image) = Image::parse(&push.image(), |it| it.parse().ok()) {
            assert_eq!(
                (image.repository.as_str(), image.reference.to_string()),
                (&**repository, digest.clone())
            );
        }
    }
    pushes.iter().map(|it| format!("{it};")).collect()
}

/// The same with the first letter of each name in capitals; none where two names became one.
fn in_capitals(value: &Value) -> Option<Value> {
    Some(match value {
        Value::Object(map) => {
            let capital = |key: &str| {
                let mut letters = key.chars();
                letters
                    .next()
                    .map_or_else(String::new, |it| it.to_ascii_uppercase().to_string() + letters.as_str())
            };
            let lower: std::collections::BTreeSet<_> = map.keys().map(|it| it.to_ascii_lowercase()).collect();
            if lower.len() != map.len() {
                return None;
            }
            let entries = map.iter().map(|(key, it)| Some((capital(key), in_capitals(it)?)));
            Value::Object(entries.collect::<Option<Map<_, _>>>()?)
        }
        Value::Array(items) => Value::Array(items.iter().map(in_capitals).collect::<Option<_>>()?),
        other => other.clone(),
    })
}

// === nearly valid bodies ===

fn document(u: &mut Unstructured<'_>) -> Result<Value> {
    let body = match u.int_in_range(0..=3)? {
        0 => {
            json!({ "type": word(u, &["preheat", "gc"])?, "args": args(u)?, "scheduler_cluster_ids": other(u)? })
        }
        1 => {
            let mut events = Vec::new();
            parts(u, 3, |u| {
                events.push(event(u)?);
                Ok(())
            })?;
            json!({ "events": events })
        }
        2 => json!({ "type": word(u, &["PUSH_ARTIFACT", "PULL_ARTIFACT"])?, "event_data": data(u)? }),
        _ => {
            json!({ "specversion": "1.0", "type": word(u, &["harbor.artifact.pushed", "x"])?, "data": data(u)? })
        }
    };
    altered(u, body)
}

fn args(u: &mut Unstructured<'_>) -> Result<Value> {
    let args = json!({
        "type": word(u, &["image", "file"])?,
        "url": word(u, &["https://harbor.example/v2/lib/app/manifests/v1", "https://a:b@h/v2/a/manifests/b", ""])?,
        "headers": { "Authorization": word(u, &["Bearer hunter2", "hunter2\n"])? },
        "scope": word(u, &["", "all_peers", "everywhere"])?,
        "username": word(u, &["", "ann", "a:b"])?,
        "password": SECRET,
        "platform": word(u, &["", "linux/amd64", "linux"])?,
        "ips": [word(u, &["10.0.0.1", "::1", "x"])?],
        "timeout": u.arbitrary::<u64>()?,
        "count": u.int_in_range(0..=300)?,
    });
    altered(u, args)
}

fn event(u: &mut Unstructured<'_>) -> Result<Value> {
    let target = json!({
        "mediaType": word(u, &["application/vnd.docker.distribution.manifest.v2+json", "application/octet-stream"])?,
        "digest": DIGEST,
        "repository": word(u, &["lib/app", "Lib"])?,
        "url": word(u, &["https://harbor.example/v2/lib/app/manifests/v1", "https:///x", "x"])?,
        "tag": word(u, &["v1", ""])?,
    });
    let target = altered(u, target)?;
    let event =
        json!({ "action": word(u, &["push", "pull"])?, "target": target, "request": { "host": HOST } });
    altered(u, event)
}

fn data(u: &mut Unstructured<'_>) -> Result<Value> {
    let resource = json!({
        "digest": DIGEST,
        "tag": word(u, &["v1", "", DIGEST])?,
        "resource_url": word(u, &["harbor.example/lib/app:v1", "app", "/x"])?,
    });
    let resource = altered(u, resource)?;
    let data =
        json!({ "resources": [resource], "repository": { "repo_full_name": word(u, &["lib/app", ""])? } });
    altered(u, data)
}

/// The same, perhaps with one field missing or of another kind.
fn altered(u: &mut Unstructured<'_>, mut value: Value) -> Result<Value> {
    if let (Value::Object(map), true) = (&mut value, u.ratio(1, 4)?) {
        let keys: Vec<_> = map.keys().cloned().collect();
        let key = u.choose(&keys)?;
        if u.arbitrary()? {
            map.remove(key);
        } else {
            map.insert(key.clone(), other(u)?);
        }
    }
    Ok(value)
}

fn other(u: &mut Unstructured<'_>) -> Result<Value> {
    Ok(match u.int_in_range(0..=5)? {
        0 => Value::Null,
        1 => json!([1, 2]),
        2 => json!({}),
        3 => json!(-1),
        4 => json!(SECRET),
        _ => json!([SECRET]),
    })
}
