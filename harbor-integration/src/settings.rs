//! What the operator wants; `config/default.yaml` and `config/project.yaml` document it and hold the defaults.
//!
//! Names are held to Harbor's own rules here, so that a mistake shows before anything is changed there.

use std::collections::BTreeSet;
use std::path::PathBuf;

use shoal_ask::address;
use shoal_ops::settings::{Reader, Secret};
use url::Url;

/// The commented default settings.
pub const DEFAULT: &str = include_str!("../config/default.yaml");
/// The commented template of an entry of `projects`.
const PROJECT: &str = include_str!("../config/project.yaml");

/// What Harbor shall be set up with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Harbor, and who sets it up.
    pub harbor: HarborSettings,
    /// The gateway that it shall use.
    pub gateway: GatewaySettings,
    /// The gateway as Harbor knows it.
    pub instance: InstanceSettings,
    /// The account that the gateway pulls with; none where it has another.
    pub robot: Option<RobotSettings>,
    /// The projects to preheat.
    pub projects: Vec<ProjectSettings>,
}

/// Harbor, and who sets it up.
#[derive(Clone, Debug)]
pub struct HarborSettings {
    /// Its address.
    pub url: Url,
    /// The account's name.
    pub username: String,
    /// The account's password.
    pub password: Secret,
    /// Certificates to trust besides the system's.
    pub ca: Option<PathBuf>,
}

/// The gateway's management API.
#[derive(Clone, Debug)]
pub struct GatewaySettings {
    /// Its address as Harbor reaches it.
    pub url: Url,
    /// Its address as this process reaches it.
    pub reached_at: Url,
    /// The token that Harbor shows.
    pub token: Token,
    /// What Harbor shows the webhook receiver; none for no webhooks.
    pub webhook_authorization: Option<Secret>,
    /// Certificates to trust besides the system's.
    pub ca: Option<PathBuf>,
    /// Whether Harbor takes any certificate for the gateway's.
    pub insecure: bool,
}

/// A management token of the gateway.
#[derive(Clone, Debug)]
pub struct Token {
    /// The part of it that is no secret.
    pub id: String,
    /// All of it.
    pub text: Secret,
}

/// The gateway as Harbor knows it.
#[derive(Clone, Debug)]
pub struct InstanceSettings {
    /// Its name.
    pub name: String,
    /// The protocol that Harbor speaks with it.
    pub vendor: Vendor,
}

/// Whose protocol Harbor speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vendor {
    /// Jobs that are followed to their end.
    Dragonfly,
    /// Notifications.
    Kraken,
}

/// A robot account of Harbor.
#[derive(Clone, Debug)]
pub struct RobotSettings {
    /// Its name without the prefix.
    pub name: String,
    /// For how many days it is good; -1 for ever.
    pub days: i64,
    /// Where its secret goes.
    pub secret_file: PathBuf,
}

/// A project of Harbor.
#[derive(Clone, Debug)]
pub struct ProjectSettings {
    /// Its name.
    pub name: String,
    /// Its preheat policy; none for none.
    pub preheat: Option<PreheatSettings>,
    /// Its webhook; none for none.
    pub webhook: Option<WebhookSettings>,
}

/// A preheat policy.
#[derive(Clone, Debug)]
pub struct PreheatSettings {
    /// Its name in the project.
    pub name: String,
    /// When it runs.
    pub trigger: Trigger,
    /// Which repositories, a glob.
    pub repositories: String,
    /// Which tags, a glob.
    pub tags: String,
    /// Who is to have the images.
    pub scope: String,
}

/// When a preheat policy runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// When an image is pushed.
    EventBased,
    /// At these times.
    Scheduled(String),
    /// When somebody says so.
    Manual,
}

/// A webhook.
#[derive(Clone, Debug)]
pub struct WebhookSettings {
    /// Its name in the project.
    pub name: String,
    /// The form of its events.
    pub format: String,
}

impl Vendor {
    /// Harbor's word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Dragonfly => "dragonfly",
            Self::Kraken => "kraken",
        }
    }
}

impl Settings {
    /// Reads them; mistakes are kept by the reader.
    pub fn read(reader: &Reader) -> Self {
        let url = required(reader, "gateway.url", address);
        let webhook_authorization = reader.optional("gateway.webhookAuthorization");
        let projects = projects(reader, webhook_authorization.is_some());
        Self {
            harbor: HarborSettings {
                url: required(reader, "harbor.url", address),
                username: reader.required("harbor.username"),
                password: reader.required("harbor.password"),
                ca: reader.optional("harbor.ca"),
            },
            gateway: GatewaySettings {
                reached_at: reader.parse("gateway.reachedAt", |text| match text {
                    "" => Ok(url.clone()),
                    text => address(text),
                }),
                url,
                token: token(reader),
                webhook_authorization,
                ca: reader.optional("gateway.ca"),
                insecure: reader.get("gateway.insecure"),
            },
            instance: InstanceSettings {
                name: reader.parse("instance.name", name),
                vendor: reader.parse("instance.vendor", |text| match text {
                    "dragonfly" => Ok(Vendor::Dragonfly),
                    "kraken" => Ok(Vendor::Kraken),
                    _ => Err("is neither dragonfly nor kraken".to_owned()),
                }),
            },
            robot: robot(reader),
            projects,
        }
    }
}

/// A setting that must be given, and has an example for its default.
fn required<T>(reader: &Reader, key: &str, read: fn(&str) -> Result<T, String>) -> T {
    reader.required::<String>(key);
    reader.parse(key, read)
}

fn token(reader: &Reader) -> Token {
    let text: Secret = reader.required("gateway.token");
    let id = text.expose().strip_prefix("shoal_").and_then(|it| it.split_once('_')).map(|(id, _)| id);
    let id = id.filter(|it| it.len() == 8 && it.bytes().all(|it| it.is_ascii_hexdigit()));
    if id.is_none() && !text.expose().is_empty() {
        reader.reject("gateway.token", "is not a management token, which begins with shoal_");
    }
    Token { id: id.unwrap_or_default().to_owned(), text }
}

fn robot(reader: &Reader) -> Option<RobotSettings> {
    let name = reader.parse("robot.name", |text| match text {
        "" => Ok(None),
        text => lower_name(text).map(Some),
    });
    let days = reader.parse("robot.days", |text| match text.parse() {
        Ok(it @ (-1 | 1..=36_500)) => Ok(it),
        _ => Err("is neither -1 nor from 1 to 36500".to_owned()),
    });
    let secret_file = reader.get("robot.secretFile");
    name.map(|name| RobotSettings { name, days, secret_file })
}

fn projects(reader: &Reader, has_webhooks: bool) -> Vec<ProjectSettings> {
    let mut names = BTreeSet::new();
    let mut projects = Vec::new();
    for item in reader.list("projects", PROJECT) {
        let name = required(&item, "name", lower_name);
        if !names.insert(name.clone()) {
            item.reject("name", "is listed twice");
        }
        let webhook = webhook(&item).filter(|_| has_webhooks);
        projects.push(ProjectSettings { name, preheat: preheat(&item), webhook });
    }
    if projects.is_empty() {
        reader.reject("projects", "names none: there would be nothing to preheat");
    }
    projects
}

fn preheat(item: &Reader) -> Option<PreheatSettings> {
    let cron: Option<String> = item.optional("preheat.cron");
    let trigger = item.parse("preheat.trigger", |text| match text {
        "event_based" => Ok(Some(Trigger::EventBased)),
        "scheduled" => Ok(Some(Trigger::Scheduled(String::new()))),
        "manual" => Ok(Some(Trigger::Manual)),
        "off" => Ok(None),
        _ => Err("is not event_based, scheduled, manual or off".to_owned()),
    });
    let settings = (
        item.parse("preheat.name", name),
        item.parse("preheat.repositories", glob),
        item.parse("preheat.tags", glob),
        item.parse("preheat.scope", |text| match text {
            "single_seed_peer" | "all_seed_peers" | "all_peers" => Ok(text.to_owned()),
            _ => Err("is not single_seed_peer, all_seed_peers or all_peers".to_owned()),
        }),
    );
    let trigger = match (trigger?, cron) {
        // Harbor's cron has a field for seconds, and it refuses any but 0 there.
        (Trigger::Scheduled(_), Some(cron)) if cron.split_whitespace().count() == 6 => {
            Trigger::Scheduled(cron)
        }
        (Trigger::Scheduled(_), _) => {
            item.reject("preheat.cron", "has not the six fields that Harbor wants: 0 0 2 * * *");
            Trigger::Manual
        }
        (trigger, _) => trigger,
    };
    let (name, repositories, tags, scope) = settings;
    Some(PreheatSettings { name, trigger, repositories, tags, scope })
}

fn webhook(item: &Reader) -> Option<WebhookSettings> {
    let name = item.parse("webhook.name", |text| match text {
        "" => Ok(None),
        text => name(text).map(Some),
    });
    let format = item.parse("webhook.format", |text| match text {
        "Default" | "CloudEvents" => Ok(text.to_owned()),
        _ => Err("is neither Default nor CloudEvents".to_owned()),
    });
    name.map(|name| WebhookSettings { name, format })
}

fn glob(text: &str) -> Result<String, String> {
    if text.is_empty() { Err("matches nothing; ** is all".to_owned()) } else { Ok(text.to_owned()) }
}

/// A name as Harbor has them: words joined by `.`, `_` or `-`.
fn name(text: &str) -> Result<String, String> {
    let is_word = |it: &str| !it.is_empty() && it.bytes().all(|it| it.is_ascii_alphanumeric());
    if text.len() <= 255 && text.split(['.', '_', '-']).all(is_word) {
        return Ok(text.to_owned());
    }
    Err("is not words of letters and digits joined by . _ or -".to_owned())
}

fn lower_name(text: &str) -> Result<String, String> {
    if text.bytes().any(|it| it.is_ascii_uppercase()) {
        return Err("has upper-case letters, which Harbor does not allow here".to_owned());
    }
    name(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "shoal_0a1b2c3d_hunter2";
    const GIVEN: &str = "
harbor: {url: 'https://harbor.example.com', username: admin, password: '${PASSWORD}'}
gateway: {url: 'https://gateway.example.com:65023', token: '${TOKEN}'}
";

    fn read(more: &str) -> (Settings, Reader) {
        let env = |name: &str| match name {
            "PASSWORD" => Some("hunter2".to_owned()),
            "TOKEN" => Some(TOKEN.to_owned()),
            _ => None,
        };
        let reader = Reader::new(&format!("{GIVEN}{more}"), DEFAULT, env);
        (Settings::read(&reader), reader)
    }

    #[track_caller]
    fn check(more: &str, mistake: &str) {
        let text = read(more).1.finish().unwrap_err().to_string();
        assert!(text.contains(mistake), "{mistake:?} in {text:?}");
        assert!(!text.contains("hunter2"), "{text}");
    }

    #[test]
    fn every_default_is_allowed_and_read() {
        let (settings, reader) = read("projects: [{name: production}]");
        assert_eq!(reader.finish(), Ok(()));
        assert_eq!(reader.unread_keys(), [""; 0]);
        assert_eq!(settings.gateway.reached_at, settings.gateway.url);
        assert_eq!(settings.gateway.token.id, "0a1b2c3d");
        let [project] = &settings.projects[..] else { panic!("one project") };
        assert!(project.webhook.is_none(), "there is nothing to show the receiver");
        assert_eq!(project.preheat.as_ref().unwrap().trigger, Trigger::EventBased);
        assert!(!format!("{settings:?}").contains("hunter2"));
    }

    #[test]
    fn what_must_be_given_is_missed() {
        let reader = Reader::new("", DEFAULT, |_| None);
        Settings::read(&reader);
        let text = reader.finish().unwrap_err().to_string();
        for key in ["harbor.url", "harbor.username", "harbor.password", "gateway.url", "gateway.token"] {
            assert!(text.contains(&format!("{key} is missing")), "{text}");
        }
    }

    #[test]
    fn parts_are_switched_off_by_name() {
        let (settings, reader) = read("robot: {name: ''}\nprojects: [{name: a, preheat: {trigger: 'off'}}]");
        assert_eq!(reader.finish(), Ok(()));
        assert!(settings.robot.is_none() && settings.projects[0].preheat.is_none());
    }

    #[test]
    fn what_harbor_would_refuse_is_named_before() {
        check("robot: {name: 'robot$shoal'}", "is not words of letters and digits");
        check("robot: {name: Shoal}", "has upper-case letters");
        check("robot: {days: 0}", "is neither -1 nor from 1");
        check("instance: {name: 'my gateway'}", "is not words of letters and digits");
        check("instance: {vendor: spegel}", "is neither dragonfly nor kraken");
        check("projects: [{name: a}, {name: a}]", "projects[1].name is listed twice");
        check("projects: [{preheat: {tags: '*'}}]", "projects[0].name is missing");
        check("projects: [{name: a, preheat: {scope: all}}]", "is not single_seed_peer");
        check(
            "projects: [{name: a, preheat: {trigger: scheduled, cron: 0 2 * * *}}]",
            "has not the six fields",
        );
        check("projects: [{name: a, webhook: {format: slack}}]", "is neither Default nor CloudEvents");
    }

    #[test]
    fn addresses_and_tokens_are_told_from_others() {
        let other = |url: &str, token: &str| {
            let reader =
                Reader::new(&format!("gateway: {{url: '{url}', token: '{token}'}}"), DEFAULT, |_| None);
            Settings::read(&reader);
            reader.finish().unwrap_err().to_string()
        };
        assert!(other("gateway.example.com:65023", TOKEN).contains("is not of the form"));
        assert!(other("https://g/?a=b", TOKEN).contains("is not of the form"));
        let text = other("https://g", "hunter2");
        assert!(text.contains("is not a management token") && !text.contains("hunter2"), "{text}");
    }
}
