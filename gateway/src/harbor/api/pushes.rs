//! `/webhooks/harbor` and `/registry/notifications`: who tells of pushes is answered at once, and jobs follow.
//!
//! A webhook that comes again does nothing. A notification always starts its job, which joins the same one if that
//! goes on: Harbor notifies once for each time that somebody wants a preheat.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{RawQuery, State as Shared};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};
use percent_encoding::percent_decode_str;
use serde::Serialize;
use shoal_ops::settings::SecretSource;
use tokio::time::timeout;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::bodies::{CloudEvent, HarborEvent, Notifications};
use super::{OneText, ask, one_text};
use crate::fields::Mistakes;
use crate::harbor::notifications;
use crate::harbor::push::Push;
use crate::harbor::rules::{Rule, Target, target};
use crate::harbor::told::Told;
use crate::harbor::webhook::{Beside, Event};
use crate::management::{Bearer, Guarded, Message, Reply, Scope, Subject};
use crate::preheat::Preheats;
use crate::settings::OccasionSettings;
use crate::timestamp::Timestamp;

/// What was done about what somebody told of.
#[derive(Serialize, ToSchema)]
#[schema(as = StartedJobs)]
struct Started {
    /// The numbers of the jobs that were started.
    jobs: Vec<u64>,
    /// Why none was, where what was told asks for none.
    #[serde(skip_serializing_if = "Option::is_none")]
    aside: Option<&'static str>,
}

/// How long an answer may take: Harbor gives its webhooks three seconds.
const ANSWER: Duration = Duration::from_secs(1);

/// What is done about pushes; clones are of the same.
#[derive(Clone)]
pub(super) struct Pushes(Arc<Inner>);

struct Inner {
    preheats: Preheats,
    rules: Vec<Rule>,
    notified: Target,
    told: Mutex<Told>,
}

impl Pushes {
    pub(super) fn new(preheats: Preheats, occasions: &OccasionSettings) -> Self {
        let (rules, notified) = (occasions.rules.clone(), occasions.notified.clone());
        Self(Arc::new(Inner { preheats, rules, notified, told: Mutex::default() }))
    }

    pub(super) fn webhook(&self, authorization: SecretSource) -> Guarded {
        let routes = OpenApiRouter::new().routes(routes!(webhook)).with_state(self.clone());
        Guarded::by_header(authorization, routes)
    }

    pub(super) fn notifications(&self) -> Guarded {
        let routes = OpenApiRouter::new().routes(routes!(notification)).with_state(self.clone());
        Guarded::by_token(Scope::Preheat, routes)
    }

    /// Whether something was done lately about a push.
    fn knows(&self, push: &Push) -> bool {
        self.0.told.lock().unwrap_or_else(PoisonError::into_inner).knows(push, Timestamp::now())
    }

    fn note(&self, push: Push) {
        self.0.told.lock().unwrap_or_else(PoisonError::into_inner).note(push, Timestamp::now());
    }

    async fn start(&self, push: &Push, target: &Target, by: &str) -> Result<u64, Response> {
        let job = ask(&self.0.preheats, target.asked(push.image()), by.to_owned()).await;
        job.map(|it| it.id).map_err(IntoResponse::into_response)
    }

    /// Starts jobs for the pushes that a rule is about, each once.
    async fn warm(&self, pushes: Vec<Push>) -> Result<Vec<u64>, Response> {
        let mut ids = Vec::new();
        for push in pushes {
            let Some(target) = target(&self.0.rules, &push).filter(|_| !self.knows(&push)) else { continue };
            ids.push(self.start(&push, target, "webhook").await?);
            self.note(push);
        }
        Ok(ids)
    }
}

/// What comes with an event's body.
fn beside(headers: &HeaderMap, query: Option<&str>) -> Result<Beside, Mistakes> {
    let (mut beside, mut mistakes) = (Beside::default(), Mistakes::default());
    let media_type = headers.get(CONTENT_TYPE).and_then(|it| it.to_str().ok()).unwrap_or_default();
    let media_type = media_type.split(';').next().unwrap_or_default();
    beside.media_type = media_type.trim().to_ascii_lowercase();
    for (name, value) in headers {
        let Some(name) = name.as_str().strip_prefix("ce-") else { continue };
        // Values are percent-encoded: section 3.1.3.2 of the HTTP protocol binding.
        match value.to_str().map(|it| percent_decode_str(it).decode_utf8()) {
            Ok(Ok(value)) => beside.attributes.push((name.to_owned(), value.into_owned())),
            _ => mistakes.add(format!("the header ce-{name} is no text")),
        }
    }
    for (name, value) in url::form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
        match &*name {
            "registry" if beside.registry.is_none() => beside.registry = Some(value.into_owned()),
            "registry" => mistakes.add("registry is in the address more than once"),
            _ => mistakes.add("the address has something else than registry in its query"),
        }
    }
    mistakes.or(beside)
}

/// Takes an event of Harbor's, in its own form or as a CloudEvent, or of Zot's. It comes with the header that the
/// settings say, and not with a token.
#[utoipa::path(post, path = "/webhooks/harbor", tag = "harbor", params(("registry" = Option<String>, Query, description = "the registry that the event is of, for events that do not say so, such as Zot's")), request_body(content((HarborEvent = "application/json"), (CloudEvent = "application/cloudevents+json"))), responses((status = 200, description = "the jobs that were started", body = Started), (status = 422, description = "all that is wrong", body = OneText), (status = 503, description = "to be told again", body = Message)))]
async fn webhook(
    Shared(pushes): Shared<Pushes>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Response> {
    let body = body.map_err(|it| Reply::from(it).into_response())?;
    let beside = beside(&headers, query.as_deref()).map_err(one_text)?;
    match Event::read(&beside, &body).map_err(one_text)? {
        Event::Aside(why) => Ok(Json(Started { jobs: Vec::new(), aside: Some(why) }).into_response()),
        Event::Pushed(pushed) => taken(pushes.warm(pushed)).await,
    }
}

/// Takes notifications, as Kraken does.
#[utoipa::path(post, path = "/registry/notifications", tag = "harbor", request_body = Notifications, security(("token" = [])), responses((status = 200, description = "the jobs that were started", body = Started), (status = 422, description = "all that is wrong", body = OneText), (status = 503, description = "to be told again", body = Message)))]
async fn notification(
    Shared(pushes): Shared<Pushes>,
    Extension(Bearer(bearer)): Extension<Bearer>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Response> {
    let body = body.map_err(|it| Reply::from(it).into_response())?;
    let pushed = notifications::read(&body).map_err(one_text)?;
    let by = bearer.name.to_string();
    let starting = async {
        let mut ids = Vec::new();
        for push in &pushed {
            ids.push(pushes.start(push, &pushes.0.notified, &by).await?);
        }
        Ok::<_, Response>(ids)
    };
    taken(starting).await
}

/// Answers with the jobs that were started. What is not written down in time is not answered for: who told of it comes
/// again, and joins the job that was started meanwhile.
async fn taken(starting: impl Future<Output = Result<Vec<u64>, Response>>) -> Result<Response, Response> {
    let late =
        |_| Reply::new(StatusCode::SERVICE_UNAVAILABLE, "no time to write the job down").into_response();
    let ids = timeout(ANSWER, starting).await.map_err(late)??;
    let subject = ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let answer = Json(Started { jobs: ids, aside: None });
    Ok(if subject.is_empty() {
        answer.into_response()
    } else {
        (Extension(Subject(subject)), answer).into_response()
    })
}
