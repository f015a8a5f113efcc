//! Notifications as Kraken takes them: `POST /registry/notifications`.
//!
//! Harbor sends them with capitalised names and calls every manifest one of Docker's, whatever it is. A distribution
//! that notifies by itself writes its names in lower case, calls a manifest what it is, and tells of blobs as well.
//! What counts is a push of something that is not a blob, with a tag: the manifests of an index come without one, and
//! the index itself follows them.

use shoal_oci::manifest::{IMAGE_TYPES, INDEX_TYPES};

use super::push::{self, Push};
use crate::fields::{Fields, Mistakes, object};

/// Reads a body: the pushes that it tells of, each once.
///
/// # Errors
/// All that is wrong with the body.
pub fn read(body: &[u8]) -> Result<Vec<Push>, Mistakes> {
    let map = object(body)?;
    let (fields, mut mistakes) = (Fields::of(&map), Mistakes::default());
    if fields.value("events").is_none() {
        mistakes.add("events is missing");
    }
    let mut pushes = Vec::new();
    for event in fields.groups("events", &mut mistakes) {
        match event.needed_text("action", &mut mistakes) {
            Some("push") => {}
            _ => continue,
        }
        let Some(target) = event.group("target", &mut mistakes) else {
            mistakes.add(format!("{} is missing", event.full("target")));
            continue;
        };
        let push = push(&event, &target, &mut mistakes);
        pushes.extend(push.filter(|it| !pushes.contains(it)));
    }
    mistakes.or(pushes)
}

fn push(event: &Fields<'_>, target: &Fields<'_>, mistakes: &mut Mistakes) -> Option<Push> {
    let kind = target.text("mediaType", mistakes).unwrap_or_default();
    let is_manifest = IMAGE_TYPES.iter().chain(&INDEX_TYPES).any(|it| *it == kind);
    let tag = target.text("tag", mistakes).filter(|it| !it.is_empty());
    let (true, Some(tag)) = (is_manifest, tag) else { return None };
    let repository = push::repository("repository", target, mistakes).map(str::to_owned);
    let digest = target.needed_text("digest", mistakes).map(str::to_owned);
    Some(Push {
        host: host(event, target, mistakes)?,
        repository: repository?,
        tag: tag.to_owned(),
        digest: digest?,
    })
}

/// The registry's host, as its URL says, or else whoever pushed asked for it.
fn host(event: &Fields<'_>, target: &Fields<'_>, mistakes: &mut Mistakes) -> Option<String> {
    let url = target.text("url", mistakes).unwrap_or_default();
    let of_url =
        url.split_once("://").and_then(|(_, rest)| rest.split('/').next()).filter(|it| !it.is_empty());
    let request = event.group("request", mistakes);
    let of_request = request.and_then(|it| it.text("host", mistakes)).filter(|it| !it.is_empty());
    let host = of_url.or(of_request);
    if host.is_none() {
        mistakes.add(format!("{} is not a URL, which is needed for the registry's host", target.full("url")));
    }
    host.map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const DIGEST: &str = "sha256:d500a178c29e1209f014d58901810301c5fa85a3634e45971f65f7d6092114c0";

    fn event() -> Value {
        json!({ "id": "1", "timestamp": "2026-11-25T01:39:54Z", "action": "push",
            "target": { "mediaType": "application/vnd.oci.image.index.v1+json", "size": 1, "digest": DIGEST, "length": 1,
                "repository": "team/app", "url": format!("https://r.example:5000/v2/team/app/manifests/{DIGEST}"),
                "tag": "v1" },
            "request": { "id": "2", "addr": "10.0.0.1:1", "host": "other.example", "method": "PUT" },
            "actor": {}, "source": { "addr": "r:5000" } })
    }

    #[track_caller]
    fn check(events: Value, expected: Result<&[&str], &[&str]>) {
        let read = read(json!({ "events": events }).to_string().as_bytes());
        let read = read.map(|it| it.iter().map(ToString::to_string).collect::<Vec<_>>()).map_err(|it| it.0);
        let owned = |it: &[&str]| it.iter().map(|it| (*it).to_owned()).collect();
        assert_eq!(read, expected.map(owned).map_err(owned), "{events}");
    }

    fn with(path: &str, value: Value) -> Value {
        let mut event = event();
        *event.pointer_mut(path).unwrap() = value;
        event
    }

    #[test]
    fn a_distribution_says_so_in_lower_case() {
        let push = format!("r.example:5000/team/app:v1@{DIGEST}");
        check(json!([event()]), Ok(&[&push]));
        check(json!([event(), event()]), Ok(&[&push]));
        check(json!([]), Ok(&[]));
        check(
            json!([with("/target/url", Value::Null)]),
            Ok(&[&format!("other.example/team/app:v1@{DIGEST}")]),
        );
    }

    #[test]
    fn what_asks_for_nothing_is_left_aside() {
        for event in [
            with("/action", "pull".into()),
            with("/action", "delete".into()),
            with("/target/tag", "".into()),
            with("/target/tag", Value::Null),
            with("/target/mediaType", "application/octet-stream".into()),
        ] {
            check(json!([event]), Ok(&[]));
        }
    }

    #[test]
    fn what_is_no_notification_is_refused() {
        assert_eq!(read(b"{}").unwrap_err().0, ["events is missing"]);
        check(json!({}), Err(&["events is not a list"]));
        check(json!([1]), Err(&["events[0] is not an object"]));
        check(json!([{}]), Err(&["events[0].action is missing"]));
        check(json!([{ "action": "push" }]), Err(&["events[0].target is missing"]));
        check(json!([with("/target/digest", Value::Null)]), Err(&["events[0].target.digest is missing"]));
        check(
            json!([with("/target/repository", 1.into())]),
            Err(&["events[0].target.repository is not a text"]),
        );
        let mut nowhere = with("/target/url", "team/app".into());
        nowhere["request"] = Value::Null;
        check(
            json!([nowhere]),
            Err(&["events[0].target.url is not a URL, which is needed for the registry's host"]),
        );
    }
}
