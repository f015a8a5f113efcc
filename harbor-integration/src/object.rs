//! What Harbor keeps, as JSON: what is wanted, what was found, and how the two differ.
//!
//! Harbor's API has a form of its own for each kind of object, but one way to treat all: a `POST` makes one, a `GET`
//! tells it, a `PUT` replaces it as a whole. So an object is the JSON that is sent, and what is not ours in it is sent
//! back as it came.
//!
//! Two texts of one thing are no difference: Harbor leaves out what is empty or false, keeps some lists in no order,
//! and has JSON within JSON. A credential is named where it differs, and never shown. Harbor does not tell an
//! instance's credential at all; that is why its description names the token.
//!
//! Every object's description begins with [`MARK`]. Whoever made one without it may want it as it is: such an object
//! is neither changed nor removed.
//!
//! Knows nothing of: HTTP, files.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::{Map, Value, json};

use crate::settings::{
    GatewaySettings, InstanceSettings, PreheatSettings, RobotSettings, Settings, Trigger, Vendor,
    WebhookSettings,
};

/// How the description of each object begins that this command made.
pub const MARK: &str = "Made by shoal-harbor";
/// The path of the gateway's webhook receiver.
pub const WEBHOOK_PATH: &str = "/webhooks/harbor";

/// What an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// An account for machines.
    Robot,
    /// A provider of preheating.
    Instance,
    /// A project's rule about what is preheated.
    Preheat,
    /// A project's rule about whom to tell of pushes.
    Webhook,
}

/// One object that Harbor shall have.
#[derive(Clone, Debug)]
pub struct Object {
    /// What it is.
    pub kind: Kind,
    /// Its name, for a robot without the prefix.
    pub name: String,
    /// The project that it belongs to.
    pub project: Option<String>,
    /// What is sent, but for the name. Secrets are among it: it has no `Display`, and is not logged.
    body: Fields,
}

/// The fields of a JSON object. They may be secret, so they are not shown.
#[derive(Clone, Default, PartialEq)]
pub(crate) struct Fields(Map<String, Value>);

/// A field that is not as it is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    field: String,
    /// The values, in JSON; none where there is no such field, or where they are secret.
    found: Option<String>,
    wanted: Option<String>,
}

impl fmt::Debug for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Robot => "robot",
            Self::Instance => "preheat instance",
            Self::Preheat => "preheat policy",
            Self::Webhook => "webhook",
        })
    }
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.project {
            Some(project) => write!(f, "{} {project}/{}", self.kind, self.name),
            None => write!(f, "{} {}", self.kind, self.name),
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { field, found, wanted } = self;
        match (found, wanted) {
            (Some(found), Some(wanted)) => write!(f, "{field}: {found} -> {wanted}"),
            (Some(found), None) => write!(f, "{field}: {found} -> none"),
            (None, Some(wanted)) => write!(f, "{field}: none -> {wanted}"),
            (None, None) => write!(f, "{field}: another value, which is not shown"),
        }
    }
}

impl Difference {
    /// Whether it is this field that differs.
    pub fn is_about(&self, field: &str) -> bool {
        self.field == field
    }
}

impl Object {
    /// All objects that the settings ask for, those first that others refer to.
    pub fn all(settings: &Settings) -> Vec<Self> {
        let mut objects = Vec::new();
        objects.extend(settings.robot.as_ref().map(|it| Self::robot(it, settings)));
        objects.push(Self::instance(&settings.instance, &settings.gateway));
        for project in &settings.projects {
            let preheat = project.preheat.as_ref();
            objects.extend(preheat.map(|it| Self::preheat(&project.name, it, settings.instance.vendor)));
            let webhook = project.webhook.as_ref();
            objects.extend(webhook.map(|it| Self::webhook(&project.name, it, &settings.gateway)));
        }
        objects
    }

    fn new(kind: Kind, name: &str, project: Option<&str>, body: Value) -> Self {
        let Value::Object(mut body) = body else { unreachable!("bodies are written as objects below") };
        body.entry("description").or_insert_with(|| format!("{MARK}.").into());
        Self { kind, name: name.to_owned(), project: project.map(str::to_owned), body: Fields(body) }
    }

    /// It may pull in the listed projects, and nothing else.
    fn robot(robot: &RobotSettings, settings: &Settings) -> Self {
        let pull = |project: &str| {
            let access = [json!({ "resource": "repository", "action": "pull" })];
            json!({ "kind": "project", "namespace": project, "access": access })
        };
        let permissions: Vec<_> = settings.projects.iter().map(|it| pull(&it.name)).collect();
        let body = json!({
            "level": "system",
            "duration": robot.days,
            "disable": false,
            "permissions": permissions,
        });
        Self::new(Kind::Robot, &robot.name, None, body)
    }

    /// `OAUTH`, because Harbor's `BASIC` sends something else than what its portal asks for.
    fn instance(instance: &InstanceSettings, gateway: &GatewaySettings) -> Self {
        let body = json!({
            "description": format!("{MARK}. It shows the gateway the token {}.", gateway.token.id),
            "vendor": instance.vendor.as_str(),
            "endpoint": address(gateway, ""),
            "auth_mode": "OAUTH",
            "auth_info": { "token": gateway.token.text.expose() },
            "enabled": true,
            "insecure": gateway.insecure,
        });
        Self::new(Kind::Instance, &instance.name, None, body)
    }

    fn preheat(project: &str, preheat: &PreheatSettings, vendor: Vendor) -> Self {
        let filters = json!([
            { "type": "repository", "value": preheat.repositories },
            { "type": "tag", "value": preheat.tags },
        ]);
        let trigger = match &preheat.trigger {
            Trigger::EventBased => json!({ "type": "event_based" }),
            Trigger::Manual => json!({ "type": "manual" }),
            Trigger::Scheduled(cron) => json!({ "type": "scheduled", "trigger_setting": { "cron": cron } }),
        };
        let extra = match vendor {
            Vendor::Dragonfly => json!({ "scope": preheat.scope }).to_string(),
            Vendor::Kraken => String::new(),
        };
        let body = json!({
            "enabled": true,
            "filters": filters.to_string(),
            "trigger": trigger.to_string(),
            "extra_attrs": extra,
        });
        Self::new(Kind::Preheat, &preheat.name, Some(project), body)
    }

    fn webhook(project: &str, webhook: &WebhookSettings, gateway: &GatewaySettings) -> Self {
        let authorization = gateway.webhook_authorization.as_ref().map(|it| it.expose());
        let target = json!({
            "type": "http",
            "address": address(gateway, WEBHOOK_PATH),
            "auth_header": authorization,
            "skip_cert_verify": gateway.insecure,
            "payload_format": webhook.format,
        });
        let body = json!({ "enabled": true, "event_types": ["PUSH_ARTIFACT"], "targets": [target] });
        Self::new(Kind::Webhook, &webhook.name, Some(project), body)
    }

    /// The same object, provided by the instance with this id.
    #[must_use]
    pub fn provided_by(mut self, instance: Option<i64>) -> Self {
        if self.kind == Kind::Preheat {
            self.body.0.insert("provider_id".to_owned(), instance.into());
        }
        self
    }

    /// What is sent to make it.
    pub fn to_create(&self) -> Value {
        let mut body = self.body.0.clone();
        body.insert("name".to_owned(), self.name.clone().into());
        Value::Object(body)
    }

    /// What is sent to have `found` become it.
    pub fn to_update(&self, found: &Value) -> Value {
        let mut body = found.as_object().cloned().unwrap_or_default();
        body.extend(self.body.0.clone());
        Value::Object(body)
    }

    /// Whether what was found has its name; `prefix` is that of robots.
    pub fn is_named(&self, found: &Value, prefix: &str) -> bool {
        let name = found["name"].as_str().unwrap_or_default();
        match self.kind {
            Kind::Robot => name.strip_prefix(prefix) == Some(&self.name),
            Kind::Instance | Kind::Preheat | Kind::Webhook => name == self.name,
        }
    }

    /// What is not in `found` as it is wanted.
    pub fn differences(&self, found: &Value) -> Vec<Difference> {
        let mut flat = (BTreeMap::new(), BTreeMap::new());
        // Harbor tells no credential of an instance: whether it is the right one shows in the description.
        for (field, wanted) in self.body.0.iter().filter(|(field, _)| *field != "auth_info") {
            flatten(field, normal(field, &found[field]), &mut flat.0);
            flatten(field, normal(field, wanted), &mut flat.1);
        }
        let (found, wanted) = flat;
        let fields: BTreeSet<_> = found.keys().chain(wanted.keys()).collect();
        let differing = fields.into_iter().filter(|it| found.get(*it) != wanted.get(*it));
        let shown = |field: &str, values: &BTreeMap<String, Value>| {
            values.get(field).filter(|_| !field.ends_with("auth_header")).map(Value::to_string)
        };
        let difference = |field: &String| Difference {
            found: shown(field, &found),
            wanted: shown(field, &wanted),
            field: field.clone(),
        };
        differing.map(difference).collect()
    }
}

/// Whether this command made what was found.
pub fn is_ours(found: &Value) -> bool {
    found["description"].as_str().is_some_and(|it| it.starts_with(MARK))
}

/// An address of the gateway as Harbor reaches it. A prefix of its path is kept.
fn address(gateway: &GatewaySettings, path: &str) -> String {
    format!("{}{path}", gateway.url.as_str().trim_end_matches('/'))
}

/// A value in the one form that all its texts have in common.
fn normal(field: &str, value: &Value) -> Value {
    let parsed = value.as_str().and_then(|it| serde_json::from_str(it).ok());
    match field {
        "filters" | "trigger" | "extra_attrs" => parsed.unwrap_or_else(|| value.clone()),
        "permissions" => Value::Object(rights(value).map(|it| (it, true.into())).collect()),
        "event_types" => {
            let types = value.as_array().into_iter().flatten().filter_map(Value::as_str);
            Value::Object(types.map(|it| (it.to_owned(), true.into())).collect())
        }
        _ => value.clone(),
    }
}

/// The rights of a robot, each as `kind namespace resource:action`.
fn rights(permissions: &Value) -> impl Iterator<Item = String> {
    let text = |it: &Value, field: &str| it[field].as_str().unwrap_or_default().to_owned();
    let each = permissions.as_array().into_iter().flatten().flat_map(move |it| {
        let of = format!("{} {}", text(it, "kind"), text(it, "namespace"));
        let access = it["access"].as_array().into_iter().flatten();
        access.map(move |it| format!("{of} {}:{}", text(it, "resource"), text(it, "action")))
    });
    each.collect::<Vec<_>>().into_iter()
}

/// All values of a tree by their paths, without those that Harbor leaves out.
fn flatten(path: &str, value: Value, out: &mut BTreeMap<String, Value>) {
    match value {
        Value::Null | Value::Bool(false) => {}
        Value::String(it) if it.is_empty() => {}
        Value::Object(fields) => {
            for (name, value) in fields {
                flatten(&format!("{path}.{name}"), value, out);
            }
        }
        Value::Array(items) => {
            for (at, value) in items.into_iter().enumerate() {
                flatten(&format!("{path}[{at}]"), value, out);
            }
        }
        value => {
            out.insert(path.to_owned(), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use shoal_ops::settings::Reader;

    use super::*;
    use crate::settings::DEFAULT;

    fn objects(more: &str) -> Vec<Object> {
        let user = format!(
            "{{harbor: {{url: 'https://harbor.example.com', username: admin, password: x}}, gateway: {{url: \
             'https://gateway.example.com:65023/', token: shoal_0a1b2c3d_hunter2, webhookAuthorization: 'Bearer \
             hunter3'}}, projects: [{{name: production}}, {{name: base}}]{more}}}"
        );
        let reader = Reader::new(&user, DEFAULT, |_| None);
        let settings = Settings::read(&reader);
        reader.finish().unwrap();
        Object::all(&settings)
    }

    #[track_caller]
    fn check(object: &Object, found: &Value, expected: &[&str]) {
        let differences = object.differences(found);
        let shown: Vec<_> = differences.iter().map(ToString::to_string).collect();
        assert_eq!(shown, expected, "{object}");
    }

    #[test]
    fn what_was_made_is_as_it_is_wanted() {
        let objects = objects("");
        let shown: Vec<_> = objects.iter().map(ToString::to_string).collect();
        let expected = [
            "robot shoal",
            "preheat instance shoal",
            "preheat policy production/shoal",
            "webhook production/shoal",
            "preheat policy base/shoal",
            "webhook base/shoal",
        ];
        assert_eq!(shown, expected);
        for object in &objects {
            check(object, &object.to_create(), &[]);
            assert!(is_ours(&object.to_create()));
            assert!(!format!("{object:?}").contains("hunter"));
        }
    }

    /// As Harbor 2.16 tells them.
    #[test]
    fn what_harbor_tells_in_other_words_is_the_same() {
        let [robot, instance, preheat, webhook, ..] = &objects("")[..] else { panic!("six objects") };
        let right = |project: &str| {
            json!({ "kind": "project", "namespace": project, "access":
                [{ "resource": "repository", "action": "pull", "effect": "" }] })
        };
        let mut found = json!({ "id": 3, "name": "robot$shoal", "description": "Made by shoal-harbor.",
            "level": "system", "duration": -1, "expires_at": -1, "editable": true, "disable": false,
            "permissions": [right("base"), right("production")] });
        check(robot, &found, &[]);
        found["permissions"] = json!([right("base"), right("secret")]);
        check(
            robot,
            &found,
            &[
                "permissions.project production repository:pull: none -> true",
                "permissions.project secret repository:pull: true -> none",
            ],
        );
        assert!(robot.is_named(&found, "robot$") && !robot.is_named(&found, "bot-"));

        let found = json!({ "id": 1, "name": "shoal", "status": "Unknown", "enabled": true, "default": true,
            "description": "Made by shoal-harbor. It shows the gateway the token 0a1b2c3d.", "insecure": false,
            "vendor": "dragonfly", "endpoint": "https://gateway.example.com:65023", "auth_mode": "OAUTH" });
        check(instance, &found, &[]);
        assert_eq!(instance.to_update(&found)["default"], true);

        let found = json!({ "id": 7, "name": "shoal", "description": "Made by shoal-harbor.", "enabled": true,
            "provider_id": 1, "provider_name": "shoal", "project_id": 2, "extra_attrs": "{\"scope\": \"all_peers\"}",
            "filters": "[{\"type\":\"repository\",\"value\":\"**\"},{\"type\":\"tag\",\"value\":\"**\"}]",
            "trigger": "{\"type\":\"event_based\",\"trigger_setting\":{}}" });
        check(&preheat.clone().provided_by(Some(1)), &found, &[]);
        check(&preheat.clone().provided_by(Some(2)), &found, &["provider_id: 1 -> 2"]);

        let mut found = json!({ "id": 9, "name": "shoal", "description": "Made by shoal-harbor.", "enabled": true,
            "event_types": ["PUSH_ARTIFACT"], "targets": [{ "type": "http", "auth_header": "Bearer hunter3",
            "address": "https://gateway.example.com:65023/webhooks/harbor", "payload_format": "Default" }] });
        check(webhook, &found, &[]);
        found["targets"][0]["auth_header"] = "Bearer hunter4".into();
        found["targets"][0]["skip_cert_verify"] = true.into();
        found["event_types"] = json!(["PUSH_ARTIFACT", "PULL_ARTIFACT"]);
        check(
            webhook,
            &found,
            &[
                "event_types.PULL_ARTIFACT: true -> none",
                "targets[0].auth_header: another value, which is not shown",
                "targets[0].skip_cert_verify: true -> none",
            ],
        );
    }

    #[test]
    fn a_new_token_is_a_difference_although_harbor_tells_none() {
        let mut found = objects("")[1].to_create();
        found["description"] = "Made by shoal-harbor. It shows the gateway the token 99999999.".into();
        let differences = objects("")[1].differences(&found);
        assert!(differences[0].to_string().starts_with("description: "), "{differences:?}");
        assert_eq!(objects("")[1].to_update(&found)["auth_info"]["token"], "shoal_0a1b2c3d_hunter2");
    }

    #[test]
    fn kraken_is_told_no_scope() {
        let objects = objects(", instance: {vendor: kraken}");
        assert_eq!(objects[1].to_create()["vendor"], "kraken");
        assert_eq!(objects[2].to_create()["extra_attrs"], "");
    }
}
