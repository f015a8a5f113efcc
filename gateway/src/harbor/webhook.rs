//! Webhooks: Harbor's events of its own form, or CloudEvents, which Zot sends as well.
//!
//! Harbor sends CloudEvents in structured mode, where all stands in the body, and Zot in binary mode, where attributes
//! stand in headers and the body is what the event is about. Either is read from either.
//!
//! Both tell of each manifest that is pushed. One without a tag has its digest in the tag's place: it belongs to an
//! index, which follows, or to nobody. An event comes at least once, perhaps late, and in any order.

use super::push::{self, Push};
use crate::fields::{Fields, Mistakes, object};

/// What an event is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Images were pushed with a tag.
    Pushed(Vec<Push>),
    /// Something that asks for nothing; why it does not.
    Aside(&'static str),
}

/// What comes with a body.
#[derive(Clone, Debug, Default)]
pub struct Beside {
    /// The body's media type, without parameters and in lower case; empty where nothing is said.
    pub media_type: String,
    /// The attributes of a CloudEvent that stand in headers, by their names without `ce-`, in lower case.
    pub attributes: Vec<(String, String)>,
    /// The registry that the address of the webhook names, for events that name none.
    pub registry: Option<String>,
}

/// Where an event has its type and what it is about.
enum Form {
    /// Harbor's own: in `type` and `event_data`.
    Default,
    /// A CloudEvent in structured mode: in `type` and `data`.
    Structured,
    /// A CloudEvent in binary mode: in headers, and the body is what it is about.
    Binary,
}

impl Beside {
    /// As the HTTP protocol binding of CloudEvents 1.0 tells the modes apart (its sections 3, 3.1 and 3.2): the media
    /// type says that an event is structured, else the headers say that it is one at all. Harbor itself is told by the
    /// body.
    fn form(&self, body: &Fields<'_>) -> Result<Form, Mistakes> {
        match self.media_type.as_str() {
            "application/cloudevents+json" => Ok(Form::Structured),
            it if it.starts_with("application/cloudevents") => {
                Err(Mistakes::one("the body is of CloudEvents in another form than one JSON object"))
            }
            _ if !self.attributes.is_empty() => Ok(Form::Binary),
            _ if body.value("specversion").is_some() => Ok(Form::Structured),
            _ => Ok(Form::Default),
        }
    }

    /// An attribute that must be there, once.
    fn attribute(&self, name: &str, mistakes: &mut Mistakes) -> Option<&str> {
        let mut values = self.attributes.iter().filter(|it| it.0 == name).map(|it| it.1.as_str());
        match (values.next().filter(|it| !it.is_empty()), values.next()) {
            (Some(value), None) => return Some(value),
            (None, None) => mistakes.add(format!("the header ce-{name} is missing")),
            (_, Some(_)) => mistakes.add(format!("the header ce-{name} comes more than once")),
        }
        None
    }
}

impl Event {
    /// Reads a body in any of the forms.
    ///
    /// # Errors
    /// All that is wrong with it, and with what comes beside it.
    pub fn read(beside: &Beside, body: &[u8]) -> Result<Self, Mistakes> {
        let map = object(body)?;
        let (fields, mut mistakes) = (Fields::of(&map), Mistakes::default());
        let form = beside.form(&fields)?;
        let mut said = |name| match form {
            Form::Default if name != "type" => None,
            Form::Default => fields.needed_text(name, &mut mistakes),
            Form::Structured => fields.needed_text(name, &mut mistakes),
            Form::Binary => beside.attribute(name, &mut mistakes),
        };
        // Events are told apart by what they say, so the id is of no further use.
        let [kind, version, source, _] = ["type", "specversion", "source", "id"].map(&mut said);
        if !matches!(form, Form::Default) && version.is_some_and(|it| it != "1.0") {
            mistakes.add("specversion is not 1.0, and no other CloudEvents are read here");
        }
        if matches!(form, Form::Binary) && !is_json(&beside.media_type) {
            mistakes.add("the body of the event is not application/json");
        }
        let Some(kind) = kind.filter(|_| mistakes.0.is_empty()) else { return Err(mistakes) };
        let pusher = match (&form, kind) {
            (Form::Default, "PUSH_ARTIFACT")
            | (Form::Structured | Form::Binary, "harbor.artifact.pushed") => Pusher::Harbor,
            // The beginning is a setting of Zot's.
            (Form::Structured | Form::Binary, kind) if kind.ends_with(".image.updated") => Pusher::Zot,
            _ => return Ok(Self::Aside("it tells of no push")),
        };
        let data = match form {
            Form::Binary => Some(Fields::of(&map)),
            Form::Default => needed_group("event_data", &fields, &mut mistakes),
            Form::Structured => needed_group("data", &fields, &mut mistakes),
        };
        let pushes = match (data, pusher) {
            (None, _) => Vec::new(),
            (Some(data), Pusher::Harbor) => pushes(&data, &mut mistakes),
            (Some(data), Pusher::Zot) => {
                let named = beside.registry.as_deref().filter(|it| !it.is_empty());
                let host = named.or_else(|| source.and_then(host_of));
                zots_push(&data, host, &mut mistakes).into_iter().collect()
            }
        };
        match pushes.is_empty() {
            _ if !mistakes.0.is_empty() => Err(mistakes),
            true => Ok(Self::Aside("what was pushed has no tag")),
            false => Ok(Self::Pushed(pushes)),
        }
    }
}

/// Whose words a push is told in.
enum Pusher {
    Harbor,
    Zot,
}

fn is_json(media_type: &str) -> bool {
    media_type == "application/json" || media_type.ends_with("+json")
}

/// The host of a URL.
fn host_of(source: &str) -> Option<&str> {
    let rest = source.strip_prefix("https://").or_else(|| source.strip_prefix("http://"))?;
    rest.split('/').next().filter(|it| !it.is_empty())
}

/// What an event is about, which must stand in this field.
fn needed_group<'a>(name: &str, fields: &Fields<'a>, mistakes: &mut Mistakes) -> Option<Fields<'a>> {
    let group = fields.group(name, mistakes);
    if group.is_none() {
        mistakes.add(format!("{name} is missing"));
    }
    group
}

/// What Zot tells of a manifest that was put there.
fn zots_push(data: &Fields<'_>, host: Option<&str>, mistakes: &mut Mistakes) -> Option<Push> {
    let repository = push::repository("name", data, mistakes).map(str::to_owned);
    let [tag, digest] = ["reference", "digest"].map(|it| data.needed_text(it, mistakes).map(str::to_owned));
    let (repository, tag, digest) = (repository?, tag?, digest?);
    if tag == digest {
        return None;
    }
    if host.is_none() {
        mistakes.add(
            "the event names no registry: let the webhook's address do it, as in ?registry=zot.example:5000",
        );
    }
    Some(Push { host: host?.to_owned(), repository, tag, digest })
}

fn pushes(data: &Fields<'_>, mistakes: &mut Mistakes) -> Vec<Push> {
    let Some(repository) = data.group("repository", mistakes) else {
        mistakes.add(format!("{} is missing", data.full("repository")));
        return Vec::new();
    };
    let Some(repository) = push::repository("repo_full_name", &repository, mistakes) else {
        return Vec::new();
    };
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
    let Some((host, _)) = url.split_once('/').filter(|(host, _)| !host.is_empty()) else {
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
        read_beside(&Beside::default(), body)
    }

    fn read_beside(beside: &Beside, body: &Value) -> Result<Event, Vec<String>> {
        Event::read(beside, body.to_string().as_bytes()).map_err(|it| it.0)
    }

    /// What comes beside an event of this type in binary mode.
    fn binary(kind: &str) -> Beside {
        let attributes = [("specversion", "1.0"), ("id", "1"), ("source", "zotregistry.dev"), ("type", kind)];
        Beside {
            media_type: "application/json".to_owned(),
            attributes: attributes.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
            registry: Some("zot.example:5000".to_owned()),
        }
    }

    const UPDATED: &str = "zotregistry.image.updated";

    /// As Zot tells of a push.
    fn zots(reference: &str) -> Value {
        json!({ "name": "team/app", "reference": reference, "digest": "sha256:aa", "mediaType": "x", "manifest": "{}" })
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
    fn a_cloud_event_is_the_same_with_its_attributes_in_headers() {
        let pushed = |beside: &Beside, body: &Value| match read_beside(beside, body) {
            Ok(Event::Pushed(pushes)) => pushes.iter().map(ToString::to_string).collect::<Vec<_>>(),
            other => panic!("{body}: {other:?}"),
        };
        let harbors = pushed(&binary("harbor.artifact.pushed"), &data("v1"));
        assert_eq!(harbors, ["harbor.example/lib/app:v1@sha256:aa"]);
        assert_eq!(pushed(&binary(UPDATED), &zots("v1")), ["zot.example:5000/team/app:v1@sha256:aa"]);
        let named = |source: &str| {
            let mut it = Beside { registry: None, ..binary("com.example.registry.image.updated") };
            it.attributes[2].1 = source.to_owned();
            pushed(&it, &zots("v1"))
        };
        assert_eq!(named("https://zot.example:5000"), ["zot.example:5000/team/app:v1@sha256:aa"]);
        let structured = Beside {
            media_type: "application/cloudevents+json".to_owned(),
            // The media type decides, whatever else a header says.
            attributes: vec![("type".to_owned(), "other".to_owned())],
            ..binary(UPDATED)
        };
        let body = cloud(UPDATED, &zots("v1"));
        assert_eq!(pushed(&structured, &body), ["zot.example:5000/team/app:v1@sha256:aa"]);
    }

    #[test]
    fn of_zots_events_those_of_tagged_images_ask_for_something() {
        for kind in ["zotregistry.image.deleted", "zotregistry.repository.created", "PUSH_ARTIFACT"] {
            let aside = Ok(Event::Aside("it tells of no push"));
            assert_eq!(read_beside(&binary(kind), &zots("v1")), aside, "{kind}");
        }
        let aside = Ok(Event::Aside("what was pushed has no tag"));
        assert_eq!(read_beside(&binary(UPDATED), &zots("sha256:aa")), aside);
    }

    #[test]
    fn what_is_no_cloud_event_in_headers_is_refused() {
        #[track_caller]
        fn check(edit: impl Fn(&mut Beside), body: &Value, expected: &[&str]) {
            let mut beside = binary(UPDATED);
            edit(&mut beside);
            assert_eq!(read_beside(&beside, body).unwrap_err(), expected);
        }
        let good = zots("v1");
        for name in ["specversion", "id", "source", "type"] {
            let missing = format!("the header ce-{name} is missing");
            check(|it| it.attributes.retain(|it| it.0 != name), &good, &[&missing]);
            let empty = |it: &mut Beside| {
                it.attributes.iter_mut().filter(|it| it.0 == name).for_each(|it| it.1.clear())
            };
            check(empty, &good, &[&missing]);
            let again = format!("the header ce-{name} comes more than once");
            check(|it| it.attributes.push((name.to_owned(), "x".to_owned())), &good, &[&again]);
        }
        let version = |it: &mut Beside| it.attributes[0].1 = "0.3".to_owned();
        check(version, &good, &["specversion is not 1.0, and no other CloudEvents are read here"]);
        let text = |it: &mut Beside| it.media_type = "text/plain".to_owned();
        check(text, &good, &["the body of the event is not application/json"]);
        let batch = |it: &mut Beside| it.media_type = "application/cloudevents-batch+json".to_owned();
        check(batch, &good, &["the body is of CloudEvents in another form than one JSON object"]);
        check(|_| {}, &json!([]), &["the body is not a JSON object"]);
        check(
            |_| {},
            &json!({ "name": 1, "digest": "" }),
            &["name is not a text", "reference is missing", "digest is missing"],
        );
        let nowhere =
            "the event names no registry: let the webhook's address do it, as in ?registry=zot.example:5000";
        check(|it| it.registry = None, &good, &[nowhere]);
    }

    #[test]
    fn what_names_no_repository_is_refused() {
        for name in ["lib/app:v1", "lib/app@sha256:aa", "Lib/app", "/app", "lib//app"] {
            let mut data = data("v1");
            data["repository"]["repo_full_name"] = json!(name);
            let mistakes = ["event_data.repository.repo_full_name is no name of a repository"];
            assert_eq!(read(&default("PUSH_ARTIFACT", &data)).unwrap_err(), mistakes, "{name}");
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
        let mut old = cloud("harbor.artifact.pushed", &data("v1"));
        old["specversion"] = json!("0.3");
        check(old, &["specversion is not 1.0, and no other CloudEvents are read here"]);
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
        for url in ["app", "/lib/app:v1"] {
            odd["resources"] = json!([{ "tag": "v1", "digest": "sha256:aa", "resource_url": url }]);
            check(
                default("PUSH_ARTIFACT", &odd),
                &["event_data.resources[0].resource_url is not of the form host/repository:tag"],
            );
        }
    }
}
