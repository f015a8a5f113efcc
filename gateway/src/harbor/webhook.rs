//! Harbor's webhooks: events of its own form, or CloudEvents with the same inside.
//!
//! Harbor tells of each manifest that is pushed. One without a tag has its digest in the tag's place: it belongs to an
//! index, which follows, or to nobody. An event comes at least once, perhaps late, and in any order.

use super::push::Push;
use crate::fields::{Fields, Mistakes, object};

/// What an event is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Images were pushed with a tag.
    Pushed(Vec<Push>),
    /// Something that asks for nothing; why it does not.
    Aside(&'static str),
}

impl Event {
    /// Reads a body in either form.
    ///
    /// # Errors
    /// All that is wrong with the body.
    pub fn read(body: &[u8]) -> Result<Self, Mistakes> {
        let map = object(body)?;
        let (fields, mut mistakes) = (Fields::of(&map), Mistakes::default());
        let (pushed, data) = match fields.value("specversion") {
            Some(_) => ("harbor.artifact.pushed", "data"),
            None => ("PUSH_ARTIFACT", "event_data"),
        };
        match fields.needed_text("type", &mut mistakes) {
            Some(it) if it == pushed => {}
            Some(_) => return Ok(Self::Aside("it tells of no push")),
            None => return Err(mistakes),
        }
        let pushes = match fields.group(data, &mut mistakes) {
            Some(data) => pushes(&data, &mut mistakes),
            None => {
                mistakes.add(format!("{data} is missing"));
                Vec::new()
            }
        };
        match pushes.is_empty() {
            _ if !mistakes.0.is_empty() => Err(mistakes),
            true => Ok(Self::Aside("what was pushed has no tag")),
            false => Ok(Self::Pushed(pushes)),
        }
    }
}

fn pushes(data: &Fields<'_>, mistakes: &mut Mistakes) -> Vec<Push> {
    let Some(repository) = data.group("repository", mistakes) else {
        mistakes.add(format!("{} is missing", data.full("repository")));
        return Vec::new();
    };
    let Some(repository) = repository.needed_text("repo_full_name", mistakes) else { return Vec::new() };
    let resources = data.groups("resources", mistakes);
    if resources.is_empty() {
        mistakes.add(format!("{} has none", data.full("resources")));
    }
    resources.iter().filter_map(|it| push(repository, it, mistakes)).collect()
}

fn push(repository: &str, resource: &Fields<'_>, mistakes: &mut Mistakes) -> Option<Push> {
    let digest = resource.needed_text("digest", mistakes);
    let tag = resource.text("tag", mistakes).unwrap_or_default();
    let url = resource.needed_text("resource_url", mistakes);
    let (digest, url) = (digest?, url?);
    let Some((host, _)) = url.split_once('/') else {
        mistakes.add(format!("{} is not of the form host/repository:tag", resource.full("resource_url")));
        return None;
    };
    if tag.is_empty() || tag == digest {
        return None;
    }
    let owned = str::to_owned;
    Some(Push { host: owned(host), repository: owned(repository), tag: owned(tag), digest: owned(digest) })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn data(tag: &str) -> Value {
        json!({ "resources": [{ "digest": "sha256:aa", "tag": tag, "resource_url": format!("harbor.example/lib/app:{tag}") }],
            "repository": { "date_created": 1_690_000_000, "name": "app", "namespace": "lib", "repo_full_name": "lib/app",
                "repo_type": "private" } })
    }

    fn default(kind: &str, data: &Value) -> Value {
        json!({ "type": kind, "occur_at": 1_700_000_000, "operator": "robot$ci", "event_data": data })
    }

    fn cloud(kind: &str, data: &Value) -> Value {
        json!({ "specversion": "1.0", "id": "1", "source": "/projects/1/webhook/policies/3", "type": kind,
            "datacontenttype": "application/json", "time": "2023-11-14T22:13:20Z", "data": data, "operator": "robot$ci",
            "requestid": "" })
    }

    fn read(body: &Value) -> Result<Event, Vec<String>> {
        Event::read(body.to_string().as_bytes()).map_err(|it| it.0)
    }

    #[test]
    fn a_push_is_the_same_in_both_forms() {
        let forms = [default("PUSH_ARTIFACT", &data("v1")), cloud("harbor.artifact.pushed", &data("v1"))];
        for body in forms {
            let Ok(Event::Pushed(pushes)) = read(&body) else { panic!("{body}") };
            assert_eq!(pushes.len(), 1);
            assert_eq!(pushes[0].to_string(), "harbor.example/lib/app:v1@sha256:aa");
            assert_eq!(pushes[0].image(), "harbor.example/lib/app@sha256:aa");
        }
    }

    #[test]
    fn what_asks_for_nothing_is_left_aside() {
        for body in [
            default("PULL_ARTIFACT", &data("v1")),
            default("SHOAL_CHECK", &Value::Null),
            default("harbor.artifact.pushed", &data("v1")),
            cloud("harbor.artifact.deleted", &data("v1")),
            cloud("PUSH_ARTIFACT", &data("v1")),
        ] {
            assert_eq!(read(&body), Ok(Event::Aside("it tells of no push")), "{body}");
        }
        for tag in ["sha256:aa", ""] {
            let body = default("PUSH_ARTIFACT", &data(tag));
            assert_eq!(read(&body), Ok(Event::Aside("what was pushed has no tag")), "{tag}");
        }
    }

    #[test]
    fn what_is_no_event_is_refused() {
        #[track_caller]
        fn check(body: Value, expected: &[&str]) {
            assert_eq!(read(&body).unwrap_err(), expected, "{body}");
        }
        check(json!({}), &["type is missing"]);
        check(json!({ "blocks": [] }), &["type is missing"]);
        check(default("PUSH_ARTIFACT", &Value::Null), &["event_data is missing"]);
        check(cloud("harbor.artifact.pushed", &json!([])), &["data is not an object", "data is missing"]);
        check(default("PUSH_ARTIFACT", &json!({})), &["event_data.repository is missing"]);
        let mut odd = data("v1");
        odd["resources"] = json!([]);
        check(default("PUSH_ARTIFACT", &odd), &["event_data.resources has none"]);
        odd["resources"] = json!([{ "tag": 1, "resource_url": "app" }]);
        check(
            default("PUSH_ARTIFACT", &odd),
            &["event_data.resources[0].digest is missing", "event_data.resources[0].tag is not a text"],
        );
        odd["resources"] = json!([{ "tag": "v1", "digest": "sha256:aa", "resource_url": "app" }]);
        check(
            default("PUSH_ARTIFACT", &odd),
            &["event_data.resources[0].resource_url is not of the form host/repository:tag"],
        );
    }
}
