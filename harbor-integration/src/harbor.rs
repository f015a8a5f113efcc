//! Harbor's API, as far as it is used here.
//!
//! Harbor takes a wrong password for no password at all: what everybody may know it then tells, and the rest it
//! refuses. So a credential is good only where it shows what a stranger is not shown.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderName, HeaderValue, Method, StatusCode};
use serde_json::{Value, json};
use shoal_ask::{Answer, CertificatesError, Http, HttpError};
use shoal_ops::settings::Secret;
use zeroize::Zeroizing;

use crate::object::{Kind, Object};
use crate::settings::HarborSettings;

/// How long Harbor may take for an answer.
const DEADLINE: Duration = Duration::from_secs(20);
/// How long it may take to ask the gateway whether it is well: it gives the gateway 30 s.
const PING: Duration = Duration::from_secs(40);
/// How many objects a page of a list has, the most that Harbor allows.
const PAGE: usize = 100;
/// How many pages of a list are read.
const MAX_PAGES: usize = 100;
/// Where the API begins.
const API: &str = "/api/v2.0";

/// Harbor, asked by one account.
pub(crate) struct Harbor(Http);

/// Why Harbor did not do as it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HarborError {
    #[error(transparent)]
    Http(#[from] HttpError),
    #[error(
        "harbor says 401 to {0}: harbor.username or harbor.password is wrong, or the account has been disabled"
    )]
    Unauthorized(String),
    #[error("harbor says 403 to {0}: {1}; the account of harbor.username lacks that right")]
    Forbidden(String, String),
    #[error("harbor says {status} to {asked}: {message}")]
    Refused { status: StatusCode, asked: String, message: String },
    #[error("harbor answers {0} with something else than its API does: is harbor.url its address?")]
    Strange(String),
}

/// What Harbor tells of itself.
#[derive(Debug)]
pub(crate) struct About {
    /// Its version; none where it takes the account for a stranger.
    pub(crate) version: Option<String>,
    /// Whether webhooks are sent at all.
    pub(crate) notifies: bool,
    /// What its images are called after.
    pub(crate) external_url: String,
}

impl Harbor {
    pub(crate) fn new(settings: &HarborSettings) -> Result<Self, CertificatesError> {
        Self::asked_by(settings, &settings.username, &settings.password)
    }

    /// The same Harbor, asked by a robot.
    pub(crate) fn of_robot(
        settings: &HarborSettings,
        name: &str,
        secret: &Secret,
    ) -> Result<Self, CertificatesError> {
        Self::asked_by(settings, name, secret)
    }

    fn asked_by(settings: &HarborSettings, name: &str, secret: &Secret) -> Result<Self, CertificatesError> {
        let http = Http::new(settings.url.clone(), settings.ca.as_deref(), basic(name, secret))?;
        // Harbor would take a name of digits for a number.
        let by_name = HeaderName::from_static("x-is-resource-name");
        Ok(Self(http.with(by_name, HeaderValue::from_static("true"))))
    }

    /// Whether anything answers as Harbor does.
    pub(crate) async fn ping(&self) -> Result<(), HarborError> {
        let answer = self.ask(Method::GET, "/ping", None, DEADLINE).await?;
        if String::from_utf8_lossy(&answer.body).trim().trim_matches('"') == "Pong" {
            return Ok(());
        }
        Err(HarborError::Strange("/ping".to_owned()))
    }

    pub(crate) async fn about(&self) -> Result<About, HarborError> {
        let info = self.ask(Method::GET, "/systeminfo", None, DEADLINE).await?.json();
        let text = |field: &str| info[field].as_str().map(str::to_owned);
        Ok(About {
            version: text("harbor_version"),
            notifies: info["notification_enable"] == true,
            external_url: text("external_url").unwrap_or_default(),
        })
    }

    /// What the names of robots begin with.
    pub(crate) async fn robot_prefix(&self) -> Result<String, HarborError> {
        let all = self.ask(Method::GET, "/configurations", None, DEADLINE).await?.json();
        let prefix = all["robot_name_prefix"]["value"].as_str();
        prefix.map(str::to_owned).ok_or_else(|| HarborError::Strange("/configurations".to_owned()))
    }

    pub(crate) async fn has_project(&self, name: &str) -> Result<bool, HarborError> {
        match self.ask(Method::HEAD, &format!("/projects?project_name={name}"), None, DEADLINE).await {
            Ok(_) => Ok(true),
            Err(HarborError::Refused { status: StatusCode::NOT_FOUND, .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// All objects of the kind and project.
    pub(crate) async fn list(&self, kind: Kind, project: Option<&str>) -> Result<Vec<Value>, HarborError> {
        let path = collection(kind, project);
        let filter = if kind == Kind::Robot { "&q=Level%3Dsystem" } else { "" };
        let mut all = Vec::new();
        for page in 1..=MAX_PAGES {
            let path = format!("{path}?page={page}&page_size={PAGE}{filter}");
            let answer = self.ask(Method::GET, &path, None, DEADLINE).await?;
            match answer.json() {
                Value::Array(items) => all.extend(items),
                // An empty list of Go's.
                Value::Null if answer.body.trim_ascii() == b"null" => {}
                _ => return Err(HarborError::Strange(path)),
            }
            if !answer.has_next() {
                break;
            }
        }
        Ok(all)
    }

    /// Makes an object, and returns what Harbor tells of it then and never again.
    pub(crate) async fn create(&self, object: &Object) -> Result<Value, HarborError> {
        let path = collection(object.kind, object.project.as_deref());
        Ok(self.ask(Method::POST, &path, Some(&object.to_create()), DEADLINE).await?.json())
    }

    pub(crate) async fn update(&self, object: &Object, found: &Value) -> Result<(), HarborError> {
        self.ask(Method::PUT, &item(object, found), Some(&object.to_update(found)), DEADLINE).await?;
        Ok(())
    }

    pub(crate) async fn delete(&self, object: &Object, found: &Value) -> Result<(), HarborError> {
        self.ask(Method::DELETE, &item(object, found), None, DEADLINE).await?;
        Ok(())
    }

    /// Has Harbor make a robot another secret. The one before is good for nothing from then on.
    pub(crate) async fn new_secret(&self, object: &Object, found: &Value) -> Result<Value, HarborError> {
        let nothing = json!({ "secret": "" });
        Ok(self.ask(Method::PATCH, &item(object, found), Some(&nothing), DEADLINE).await?.json())
    }

    /// Has Harbor ask an instance whether it is well.
    pub(crate) async fn ping_instance(&self, id: i64) -> Result<(), HarborError> {
        let instance = json!({ "id": id });
        self.ask(Method::POST, "/p2p/preheat/instances/ping", Some(&instance), PING).await?;
        Ok(())
    }

    /// Whether Harbor lets the account in where images are pulled.
    pub(crate) async fn lets_in(&self) -> Result<bool, HarborError> {
        let answer = self.0.ask(Method::GET, "/v2/", None, DEADLINE).await?;
        match answer.status {
            StatusCode::OK => Ok(true),
            StatusCode::UNAUTHORIZED => Ok(false),
            _ => Err(refused("GET /v2/".to_owned(), &answer)),
        }
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        deadline: Duration,
    ) -> Result<Answer, HarborError> {
        let asked = format!("{method} {path}");
        let answer = self.0.ask(method, &format!("{API}{path}"), body, deadline).await?;
        if answer.status.is_success() { Ok(answer) } else { Err(refused(asked, &answer)) }
    }
}

fn refused(asked: String, answer: &Answer) -> HarborError {
    match answer.status {
        StatusCode::UNAUTHORIZED => HarborError::Unauthorized(asked),
        StatusCode::FORBIDDEN => HarborError::Forbidden(asked, answer.message()),
        status => HarborError::Refused { status, asked, message: answer.message() },
    }
}

fn basic(name: &str, password: &Secret) -> Option<HeaderValue> {
    let pair = Zeroizing::new(format!("{name}:{}", password.expose()));
    let value = Zeroizing::new(format!("Basic {}", STANDARD.encode(pair.as_bytes())));
    HeaderValue::from_str(&value).ok()
}

fn collection(kind: Kind, project: Option<&str>) -> String {
    let project = project.unwrap_or_default();
    match kind {
        Kind::Robot => "/robots".to_owned(),
        Kind::Instance => "/p2p/preheat/instances".to_owned(),
        Kind::Preheat => format!("/projects/{project}/preheat/policies"),
        Kind::Webhook => format!("/projects/{project}/webhook/policies"),
    }
}

/// Where one object is: some kinds are found by their number, others by their name.
fn item(object: &Object, found: &Value) -> String {
    let path = collection(object.kind, object.project.as_deref());
    match object.kind {
        Kind::Robot | Kind::Webhook => format!("{path}/{}", found["id"]),
        Kind::Instance | Kind::Preheat => format!("{path}/{}", object.name),
    }
}
