//! Proves the wiring between Harbor and the gateway from end to end.
//!
//! Each thing is tried as it will be used: Harbor itself asks the gateway for its health, the gateway is shown the very
//! token and header that Harbor shows, the robot logs in where images are pulled. What cannot be tried because of
//! something that is wrong before it is not told: it would only hide that.

use std::fmt;
use std::time::Duration;

use http::{HeaderValue, Method, StatusCode};
use serde_json::{Value, json};
use shoal_ask::{Answer, Http};
use shoal_ops::settings::{Secret, Setting as _};

use crate::harbor::{About, Harbor};
use crate::object::{Kind, Object, WEBHOOK_PATH, is_ours};
use crate::settings::{RobotSettings, Settings, Vendor};
use crate::setup::has_expired;

/// How long the gateway may take for an answer.
const DEADLINE: Duration = Duration::from_secs(10);
const DAY: i64 = 24 * 3600;
/// The first version of Harbor that speaks with Dragonfly as the gateway does, and the first that tells it a scope.
const SPEAKS_DRAGONFLY: (u32, u32) = (2, 12);
const TELLS_SCOPE: (u32, u32) = (2, 13);

/// Something that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What it is.
    pub subject: String,
    /// How it is.
    pub state: State,
}

/// How something is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// As it should be.
    Good(String),
    /// Not as it should be.
    Bad {
        /// What is wrong.
        fault: String,
        /// What to do.
        fix: String,
    },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let subject = &self.subject;
        match &self.state {
            State::Good(what) => write!(f, "good    {subject}: {what}"),
            State::Bad { fault, fix } => write!(f, "BAD     {subject}: {fault}\n        fix: {fix}"),
        }
    }
}

/// Looks at everything and returns what was found, in the order of looking.
pub async fn check(settings: &Settings, now: i64) -> Vec<Finding> {
    let mut check = Check { settings, now, found: Vec::new() };
    check.gateway().await;
    check.receiver().await;
    check.harbor().await;
    check.found
}

struct Check<'a> {
    settings: &'a Settings,
    /// Seconds since 1970.
    now: i64,
    found: Vec<Finding>,
}

impl Check<'_> {
    fn good(&mut self, subject: impl ToString, what: impl ToString) {
        let state = State::Good(what.to_string());
        self.found.push(Finding { subject: subject.to_string(), state });
    }

    fn bad(&mut self, subject: impl ToString, fault: impl ToString, fix: impl ToString) {
        let state = State::Bad { fault: fault.to_string(), fix: fix.to_string() };
        self.found.push(Finding { subject: subject.to_string(), state });
    }

    // === the gateway, asked as Harbor asks it ===

    async fn gateway(&mut self) {
        let subject = "gateway";
        let token = &self.settings.gateway.token;
        let answer = self.ask_gateway(Method::GET, "/healthy", None, None).await;
        match answer {
            Ok(answer) if answer.status == StatusCode::OK => self.good(subject, "answers"),
            Ok(answer) => {
                let fault = format!("says {} to /healthy: {}", answer.status, answer.message());
                return self.bad(subject, fault, "is gateway.url the address of its management API?");
            }
            Err(fault) => {
                let fix = "is it running, with management.listen on an address that can be reached, and gateway.ca the \
                           authority of its certificate?";
                return self.bad(subject, fault, fix);
            }
        }
        let bearer = Secret::new(format!("Bearer {}", token.text.expose()));
        let answer = self.ask_gateway(Method::GET, "/oapi/v1/jobs?per_page=1", Some(&bearer), None).await;
        let subject = format!("token {}", token.id);
        let make = "make one with the scope preheat (POST /api/v1/tokens), put it into gateway.token, and run `setup`";
        match answer {
            Ok(answer) if answer.status == StatusCode::OK => self.good(subject, "the gateway takes it"),
            Ok(answer) if answer.status == StatusCode::UNAUTHORIZED => {
                self.bad(subject, "the gateway does not know it", make);
            }
            Ok(answer) if answer.status == StatusCode::FORBIDDEN => {
                self.bad(subject, format!("the gateway does not take it: {}", answer.message()), make);
            }
            Ok(answer) => {
                let fault = format!("the gateway says {} to it: {}", answer.status, answer.message());
                self.bad(subject, fault, "see the gateway's log");
            }
            Err(fault) => self.bad(subject, fault, "see the gateway's log"),
        }
    }

    async fn receiver(&mut self) {
        let subject = "webhook receiver";
        let Some(authorization) = &self.settings.gateway.webhook_authorization else {
            return self.good(subject, "not used, since gateway.webhookAuthorization is empty");
        };
        // An event of a kind that Harbor does not have, and the receiver leaves aside.
        let event = json!({ "type": "SHOAL_CHECK" });
        match self.ask_gateway(Method::POST, WEBHOOK_PATH, Some(authorization), Some(&event)).await {
            Ok(answer) if answer.status.is_success() => self.good(subject, "takes what Harbor will show it"),
            Ok(answer) if answer.status == StatusCode::UNAUTHORIZED => {
                let fix = "give the gateway's preheat.webhook.authorization and gateway.webhookAuthorization the same \
                           text, and run `setup`";
                self.bad(subject, "does not take what Harbor will show it", fix);
            }
            Ok(answer) if answer.status == StatusCode::NOT_FOUND => {
                self.bad(subject, "there is none", "set preheat.webhook.authorization at the gateway");
            }
            Ok(answer) => {
                let fault = format!("says {}: {}", answer.status, answer.message());
                self.bad(subject, fault, "see the gateway's log");
            }
            Err(fault) => self.bad(subject, fault, "see the finding about the gateway"),
        }
    }

    async fn ask_gateway(
        &self,
        method: Method,
        path: &str,
        authorization: Option<&Secret>,
        body: Option<&Value>,
    ) -> Result<Answer, String> {
        let gateway = &self.settings.gateway;
        let header = authorization.map(|it| HeaderValue::from_str(it.expose())).transpose();
        let header = header.map_err(|_| "the credential cannot stand in a header")?;
        let http = Http::new(gateway.reached_at.clone(), gateway.ca.as_deref(), header);
        let http = http.map_err(|it| format!("gateway.ca: {it}"))?;
        http.ask(method, path, body, DEADLINE).await.map_err(|it| it.to_string())
    }

    // === Harbor ===

    async fn harbor(&mut self) {
        let subject = "harbor";
        let harbor = match Harbor::new(&self.settings.harbor) {
            Ok(harbor) => harbor,
            Err(error) => {
                return self.bad(subject, format!("harbor.ca: {error}"), "name a file of certificates");
            }
        };
        if let Err(error) = harbor.ping().await {
            let fix = "is harbor.url its address, is it running, and is harbor.ca the authority of its certificate?";
            return self.bad(subject, error, fix);
        }
        let about = match harbor.about().await {
            Ok(about) => about,
            Err(error) => return self.bad(subject, error, "see Harbor's own log"),
        };
        let Some(version) = &about.version else {
            let fault = "takes the account of harbor.username for a stranger";
            return self.bad(
                subject,
                fault,
                "mend harbor.username or harbor.password, or enable the account",
            );
        };
        self.good(subject, format!("{version}, lets the account in"));
        self.version(version);
        self.notifications(&about);
        self.objects(&harbor).await;
    }

    fn version(&mut self, version: &str) {
        let subject = "harbor's version";
        let (vendor, number) = (self.settings.instance.vendor, number(version));
        match number {
            Some(number) if vendor == Vendor::Dragonfly && number < SPEAKS_DRAGONFLY => {
                let fault = format!("{version} speaks with Dragonfly in an older way than the gateway");
                self.bad(subject, fault, "use Harbor 2.12 or newer, or instance.vendor: kraken");
            }
            Some(number) if vendor == Vendor::Dragonfly && number < TELLS_SCOPE => {
                let what =
                    "works, but for preheat.scope, which it does not tell: one gateway gets the images";
                self.good(subject, what);
            }
            _ => self.good(subject, "works"),
        }
    }

    fn notifications(&mut self, about: &About) {
        let url = &about.external_url;
        self.good(
            "registry",
            format!("images are named after {url}; the gateway's `registries` must have it"),
        );
        if self.settings.gateway.webhook_authorization.is_none() {
            return;
        }
        let subject = "notification_enable";
        if about.notifies {
            return self.good(subject, "webhooks are sent");
        }
        let fix = "switch it on: Configuration, System Settings, Webhooks enabled";
        self.bad(subject, "Harbor sends no webhooks at all", fix);
    }

    async fn objects(&mut self, harbor: &Harbor) {
        for project in &self.settings.projects {
            let subject = format!("project {}", project.name);
            match harbor.has_project(&project.name).await {
                Ok(true) => {}
                Ok(false) => {
                    self.bad(subject, "is not there", "make it in Harbor, or take it out of `projects`")
                }
                Err(error) => self.bad(subject, error, "give the account of harbor.username that right"),
            }
        }
        let prefix = match (&self.settings.robot, harbor.robot_prefix().await) {
            (None, _) => String::new(),
            (Some(_), Ok(prefix)) => prefix,
            (Some(_), Err(error)) => {
                let fix = "give the account of harbor.username that right";
                return self.bad("robot", error, fix);
            }
        };
        let mut instance = None;
        for object in Object::all(self.settings) {
            let object = object.provided_by(instance);
            let found = match harbor.list(object.kind, object.project.as_deref()).await {
                Ok(all) => all.into_iter().find(|it| object.is_named(it, &prefix)),
                Err(error) => {
                    self.bad(&object, error, "give the account of harbor.username that right");
                    continue;
                }
            };
            let Some(found) = found else {
                self.bad(&object, "is not there", "run `setup`");
                continue;
            };
            let is_right = self.compare(&object, &found);
            match object.kind {
                Kind::Robot => self.robot(&found).await,
                Kind::Instance => {
                    instance = found["id"].as_i64();
                    // Harbor uses it as it is, right or wrong.
                    self.ping(harbor, &object, instance).await;
                }
                Kind::Preheat | Kind::Webhook if is_right => self.good(&object, "as it should be"),
                Kind::Preheat | Kind::Webhook => {}
            }
        }
    }

    /// Tells what of an object is not as it should be, and returns whether nothing is.
    fn compare(&mut self, object: &Object, found: &Value) -> bool {
        if !is_ours(found) {
            let fix = "remove it, or choose another name, and run `setup`";
            self.bad(object, "is there, but this command has not made it", fix);
            return false;
        }
        let differences = object.differences(found);
        if differences.is_empty() {
            return true;
        }
        let shown: Vec<_> = differences.iter().map(ToString::to_string).collect();
        self.bad(object, format!("is not as it should be: {}", shown.join("; ")), "run `setup`");
        false
    }

    async fn ping(&mut self, harbor: &Harbor, object: &Object, id: Option<i64>) {
        match harbor.ping_instance(id.unwrap_or_default()).await {
            Ok(()) => self.good(object, "Harbor reaches the gateway"),
            Err(error) => {
                let url = &self.settings.gateway.url;
                let fix = format!(
                    "{url} must be reached from Harbor's core and jobservice, with a certificate that their system \
                     trusts, or gateway.insecure; Harbor's core.log has the reason"
                );
                self.bad(object, format!("Harbor does not reach the gateway: {error}"), fix);
            }
        }
    }

    async fn robot(&mut self, found: &Value) {
        let Some(robot) = &self.settings.robot else { return };
        let name = found["name"].as_str().unwrap_or_default();
        let subject = format!("account {name}");
        if has_expired(found, self.now) {
            return self.bad(subject, "has expired", "run `setup`, which makes it anew with another secret");
        }
        let again = "run `setup --new-secret`, and have the gateway use the new one";
        let secret = match read_secret(robot) {
            Ok(secret) => secret,
            Err(fault) => return self.bad(subject, fault, again),
        };
        let let_in = match Harbor::of_robot(&self.settings.harbor, name, &secret) {
            Ok(harbor) => harbor.lets_in().await,
            Err(error) => {
                return self.bad(subject, format!("harbor.ca: {error}"), "name a file of certificates");
            }
        };
        match let_in {
            Ok(true) => match found["expires_at"].as_i64() {
                Some(end) if end != -1 => {
                    let days = (end - self.now) / DAY;
                    self.good(
                        subject,
                        format!("pulls with the secret of robot.secretFile for {days} days more"),
                    );
                }
                _ => self.good(subject, "pulls with the secret of robot.secretFile"),
            },
            Ok(false) => {
                self.bad(subject, "the secret of robot.secretFile is not its own, or it is disabled", again);
            }
            Err(error) => self.bad(subject, error, "see Harbor's own log"),
        }
    }
}

fn read_secret(robot: &RobotSettings) -> Result<Secret, String> {
    let file = robot.secret_file.display();
    let secret = Secret::read(&format!("file:{file}")).map_err(|it| format!("{file} {it}"))?;
    if secret.expose().is_empty() { Err(format!("{file} is empty")) } else { Ok(secret) }
}

/// The first two numbers of a version such as `v2.16.0-89ef156d`.
fn number(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.trim_start_matches('v').split('.').map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_compared_by_its_numbers() {
        assert_eq!(number("v2.16.0-89ef156d"), Some((2, 16)));
        assert_eq!(number("2.9"), Some((2, 9)));
        assert!(number("v2.9.1") < Some(SPEAKS_DRAGONFLY));
        for odd in ["dev", "", "v2", "v2.x"] {
            assert_eq!(number(odd), None, "{odd}");
        }
    }
}
