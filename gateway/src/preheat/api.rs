//! `/api/v1/preheat`: asking for jobs, seeing and cancelling them.
//!
//! ```text
//! POST   /api/v1/preheat        {"image": "harbor.example.com/prod/app:v2", "scope": "all_peers"}
//! GET    /api/v1/preheat        ?state=PENDING&page=1&per_page=10
//! GET    /api/v1/preheat/{id}
//! DELETE /api/v1/preheat/{id}
//! ```
//!
//! What is called as in Dragonfly's API means the same. Unlike there, what is not known is refused, and a credential is
//! in no answer.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, RawQuery, State as Shared};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use http::{HeaderMap, StatusCode};
use serde::Serialize;
use serde_json::Value;
use shoal_model::Authorization;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::request::{self, Asked, Request};
use super::view::{JobView, State};
use super::{Listed, OutOfReach, Preheats, Refused};
use crate::fields::{Fields, Mistakes, object};
use crate::live::Live;
use crate::management::{Bearer, Errors, Guarded, Message, Reply, Scope, Subject};

/// How many jobs a list has, unless it is said, and at the most.
const PER_PAGE: usize = 10;
const MAX_PER_PAGE: usize = 100;
/// What a time is written as.
const TIME: &str = "a time such as \"10m\", or a number of nanoseconds";
const FIELDS: [&str; 17] = [
    "image",
    "url",
    "type",
    "scope",
    "platform",
    "platforms",
    "ips",
    "count",
    "percentage",
    "zone",
    "regions",
    "concurrent_task_count",
    "concurrent_peer_count",
    "timeout",
    "headers",
    "username",
    "password",
];

/// The routes.
pub(crate) fn routes(preheats: Preheats, live: Live) -> Guarded {
    let routes = OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(show, cancel));
    let routes = routes.layer(Extension(live)).with_state(preheats);
    Guarded::by_token(Scope::Preheat, routes)
}

/// What a job is asked for with. The image has to be said, by `image` or `url`.
#[derive(ToSchema)]
#[schema(
    as = PreheatRequest,
    example = json!({ "image": "harbor.example.com/production/app:v2", "scope": "all_peers", "platform": "linux/amd64",
        "count": 3, "timeout": "10m", "username": "robot$production+pull", "password": "a secret" }),
)]
#[expect(dead_code, reason = "it describes what `read` reads")]
struct Body {
    /// `host/repository:tag` or `host/repository@digest`, of a registry that the gateway's settings name.
    image: Option<String>,
    /// The same as the URL of its manifest, `https://host/v2/repository/manifests/reference`.
    url: Option<String>,
    /// `image`.
    r#type: Option<String>,
    /// `single_seed_peer`, which is the default: each blob at the gateway that owns it. `all_seed_peers`: all at each
    /// gateway. `all_peers`: at the nodes.
    scope: Option<String>,
    /// `os/architecture` or `os/architecture/variant`; all of the image, unless it is said.
    platform: Option<String>,
    /// Several of them, up to 20.
    platforms: Option<Vec<String>>,
    /// Addresses of the nodes that are meant, up to 100; goes before `count`.
    ips: Option<Vec<String>>,
    /// So many nodes, from 1 to 200; goes before `percentage`.
    count: Option<u64>,
    /// So many of a hundred nodes, at least one.
    percentage: Option<u64>,
    /// Nodes of this zone only.
    zone: Option<String>,
    /// Other regions in which the same is done, by name, up to 64; `*` alone for all that are connected.
    regions: Option<Vec<String>>,
    /// Blobs at once at a node, from 1 to 100.
    concurrent_task_count: Option<u64>,
    /// Nodes at once, from 1 to 1000.
    concurrent_peer_count: Option<u64>,
    /// `10m`, or a number of nanoseconds; more than 1700 s is that.
    timeout: Option<String>,
    /// `Authorization`, and no other: what the registry is shown.
    headers: Option<BTreeMap<String, String>>,
    /// The same as Basic, with `password`.
    username: Option<String>,
    /// See `username`.
    password: Option<String>,
}

/// Some of the jobs, without what they did where.
#[derive(Serialize, ToSchema)]
#[schema(as = PreheatJobs)]
struct Page {
    jobs: Vec<JobView>,
    total: usize,
}

/// Asks for an image to be where it will be wanted.
#[utoipa::path(post, path = "/api/v1/preheat", tag = "preheat", request_body = Body, security(("token" = [])), responses((status = 202, description = "the job", body = JobView), (status = 429, description = "too many wait", body = Message), (status = 422, description = "all that is wrong", body = Errors)))]
async fn create(
    Shared(preheats): Shared<Preheats>,
    Extension(Bearer(bearer)): Extension<Bearer>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Response> {
    let body = body.map_err(|it| Reply::from(it).into_response())?;
    let asked = read(&body).map_err(IntoResponse::into_response)?;
    let request = Request::new(asked, |host| preheats.registry_named(host));
    let request = request.map_err(|it| Mistakes(it).into_response())?;
    let job = preheats.submit(request, bearer.name.to_string()).await;
    let job = job.map_err(|it| Reply::from(it).into_response())?;
    let subject = Extension(Subject(job.id.to_string()));
    Ok((StatusCode::ACCEPTED, subject, Json(job)).into_response())
}

/// A job as it is now.
#[utoipa::path(get, path = "/api/v1/preheat/{id}", tag = "preheat", params(("id" = u64, Path, description = "its number")), security(("token" = [])), responses((status = 200, description = "the job; as server-sent events for who accepts text/event-stream", body = JobView), (status = 404, description = "no such job", body = Message)))]
async fn show(
    Shared(preheats): Shared<Preheats>,
    Extension(live): Extension<Live>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Result<Response, Reply> {
    let Ok(number) = id.parse() else { return Err(unknown(&id)) };
    let look = move || {
        let (preheats, id) = (preheats.clone(), id.clone());
        async move { preheats.get(number).await.ok_or_else(|| unknown(&id)) }
    };
    Ok(live.answer(&headers, look).await)
}

/// Stops a job.
#[utoipa::path(delete, path = "/api/v1/preheat/{id}", tag = "preheat", params(("id" = u64, Path, description = "its number")), security(("token" = [])), responses((status = 200, description = "the job", body = JobView), (status = 404, description = "no such job", body = Message), (status = 503, description = "the gateway that has it does not answer", body = Message)))]
async fn cancel(
    Shared(preheats): Shared<Preheats>,
    Extension(Bearer(bearer)): Extension<Bearer>,
    Path(id): Path<String>,
) -> Result<Response, Reply> {
    let Ok(number) = id.parse() else { return Err(unknown(&id)) };
    let job = preheats.cancel(number, &bearer.name.to_string()).await;
    let job = job.map_err(Reply::from)?.ok_or_else(|| unknown(&id))?;
    Ok((Extension(Subject(id)), Json(job)).into_response())
}

/// Jobs, the latest first.
#[utoipa::path(get, path = "/api/v1/preheat", tag = "preheat", params(("state" = Option<String>, Query, description = "PENDING, SUCCESS or FAILURE"), ("page" = Option<usize>, Query, description = "from 1"), ("per_page" = Option<usize>, Query, description = "up to 100")), security(("token" = [])), responses((status = 200, description = "a page of jobs; as server-sent events for who accepts text/event-stream", body = Page), (status = 422, description = "all that is wrong", body = Errors)))]
async fn list(
    Shared(preheats): Shared<Preheats>,
    Extension(live): Extension<Live>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Result<Response, Mistakes> {
    let ListQuery { state, page, per_page } = ListQuery::read(query.as_deref().unwrap_or_default())?;
    let look = move || {
        let Listed { jobs, n_all } = preheats.list(state, (page - 1).saturating_mul(per_page), per_page);
        std::future::ready(Ok(Page { jobs, total: n_all }))
    };
    Ok(live.answer(&headers, look).await)
}

fn unknown(id: &str) -> Reply {
    let shown: String = id.chars().take(40).collect();
    Reply::new(StatusCode::NOT_FOUND, format!("preheat job {shown:?} does not exist"))
}

impl From<Refused> for Reply {
    fn from(refused: Refused) -> Self {
        let status = match refused {
            Refused::Full => StatusCode::TOO_MANY_REQUESTS,
            Refused::NotKept => StatusCode::INTERNAL_SERVER_ERROR,
            Refused::Ending => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self::new(status, refused.to_string())
    }
}

impl From<OutOfReach> for Reply {
    fn from(out_of_reach: OutOfReach) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, out_of_reach.to_string())
    }
}

/// Which part of which jobs is wanted.
#[derive(Debug, PartialEq, Eq)]
struct ListQuery {
    state: Option<State>,
    page: usize,
    per_page: usize,
}

impl ListQuery {
    fn read(query: &str) -> Result<Self, Mistakes> {
        let mut it = Self { state: None, page: 1, per_page: PER_PAGE };
        let mut mistakes = Mistakes::default();
        let number = |value: &str, most: usize| value.parse().ok().filter(|it| (1..=most).contains(it));
        for (key, value) in url::form_urlencoded::parse(query.as_bytes()) {
            let read = match &*key {
                "state" => {
                    it.state = State::ALL.into_iter().find(|it| it.as_str() == value);
                    it.state.map(drop).ok_or("state is none of PENDING, SUCCESS, FAILURE".to_owned())
                }
                "page" => number(&value, 1_000_000)
                    .map(|page| it.page = page)
                    .ok_or("page is not a number from 1".to_owned()),
                "per_page" => number(&value, MAX_PER_PAGE)
                    .map(|per_page| it.per_page = per_page)
                    .ok_or(format!("per_page is not from 1 to {MAX_PER_PAGE}")),
                _ => Err(format!("{key:?} is none of state, page, per_page")),
            };
            mistakes.0.extend(read.err());
        }
        mistakes.or(it)
    }
}

/// What a body asks for, or all that cannot be read of it.
fn read(body: &[u8]) -> Result<Asked, Mistakes> {
    let map = object(body)?;
    let (fields, mut mistakes) = (Fields::of(&map), Mistakes::default());
    fields.refuse_others(&FIELDS, &mut mistakes);
    if fields.text("type", &mut mistakes).is_some_and(|it| it != "image") {
        mistakes.add("type is not image, and nothing else can be preheated");
    }
    let image = match (fields.text("image", &mut mistakes), fields.text("url", &mut mistakes)) {
        (Some(_), Some(_)) => {
            mistakes.add("image and url are both given, and mean the same");
            ""
        }
        (image, url) => image.or(url).unwrap_or_default(),
    };
    let owned = |it: Option<&str>| it.map(str::to_owned);
    let mut platforms = fields.texts("platforms", &mut mistakes);
    platforms.extend(owned(fields.text("platform", &mut mistakes)));
    let asked = Asked {
        image: image.to_owned(),
        platforms,
        scope: owned(fields.text("scope", &mut mistakes)),
        ips: fields.texts("ips", &mut mistakes),
        count: fields.number("count", &mut mistakes),
        percentage: fields.number("percentage", &mut mistakes),
        zone: owned(fields.text("zone", &mut mistakes)),
        regions: fields.texts("regions", &mut mistakes),
        layers: fields.number("concurrent_task_count", &mut mistakes),
        nodes: fields.number("concurrent_peer_count", &mut mistakes),
        timeout: fields.read("timeout", TIME, time, &mut mistakes),
        authorization: authorization(&fields, &mut mistakes),
    };
    mistakes.or(asked)
}

fn time(value: &Value) -> Option<Duration> {
    match value {
        Value::String(it) => humantime::parse_duration(it).ok(),
        _ => value.as_u64().map(Duration::from_nanos),
    }
}

fn authorization(fields: &Fields<'_>, mistakes: &mut Mistakes) -> Option<Authorization> {
    let headers = fields.group("headers", mistakes);
    let mut header = None;
    for (name, value) in headers.iter().flat_map(Fields::entries) {
        match (name.eq_ignore_ascii_case("authorization"), value) {
            (true, Value::String(it)) if header.is_none() => header = Some(Authorization::new(it.clone())),
            (true, _) => mistakes.add("headers: Authorization is not one text"),
            (false, _) => mistakes.add("headers: only Authorization is sent to registries"),
        }
    }
    match (fields.text("username", mistakes), fields.text("password", mistakes)) {
        (None, None) => header,
        (Some(user), Some(password)) if header.is_none() => {
            request::basic(user, password).map_err(|it| mistakes.add(it)).ok()
        }
        (Some(_), Some(_)) => {
            mistakes.add("username and the header Authorization are both given");
            None
        }
        _ => {
            mistakes.add("username and password are only good together");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::management::described;

    #[track_caller]
    fn refused(body: &Value, mistake: &str) {
        let Mistakes(mistakes) = read(body.to_string().as_bytes()).unwrap_err();
        assert!(mistakes.iter().any(|it| it.contains(mistake)), "{mistake:?} in {mistakes:?}");
        assert!(!mistakes.concat().contains("hunter2"), "{mistakes:?}");
    }

    #[test]
    fn a_body_is_described_as_it_is_read() {
        described::check::<Body, _>(read);
        let mut fields = FIELDS.to_vec();
        fields.sort_unstable();
        assert_eq!(described::names::<Body>(), fields);
    }

    #[test]
    fn a_body_says_what_is_asked_for() {
        let body = json!({
            "type": "image",
            "url": "https://a.example/v2/b/manifests/c",
            "scope": "all_peers",
            "platform": "linux/amd64",
            "ips": ["10.0.0.1"],
            "count": 2,
            "percentage": null,
            "zone": "z",
            "regions": ["eu"],
            "concurrent_task_count": 4,
            "concurrent_peer_count": 50,
            "timeout": 600_000_000_000_u64,
            "headers": { "authorization": "Bearer x" },
        });
        let expected = Asked {
            image: "https://a.example/v2/b/manifests/c".to_owned(),
            platforms: vec!["linux/amd64".to_owned()],
            scope: Some("all_peers".to_owned()),
            ips: vec!["10.0.0.1".to_owned()],
            count: Some(2),
            percentage: None,
            zone: Some("z".to_owned()),
            regions: vec!["eu".to_owned()],
            layers: Some(4),
            nodes: Some(50),
            timeout: Some(Duration::from_secs(600)),
            authorization: Some(Authorization::new("Bearer x".to_owned())),
        };
        assert_eq!(read(body.to_string().as_bytes()), Ok(expected));
        let brief =
            read(br#"{"image":"a.example/b:c","timeout":"10m","username":"ann","password":"pw"}"#).unwrap();
        assert_eq!(brief.timeout, Some(Duration::from_secs(600)));
        assert_eq!(brief.authorization, request::basic("ann", "pw").ok());
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        assert_eq!(read(b"[]"), Err(Mistakes::one("the body is not a JSON object")));
        refused(&json!({ "imgae": "a.example/b:c" }), "\"imgae\" is not a field");
        refused(&json!({ "type": "file" }), "type is not image");
        refused(&json!({ "image": "a", "url": "b" }), "both given");
        refused(&json!({ "count": "3" }), "count is not a whole number");
        refused(&json!({ "count": -3 }), "count is not a whole number");
        refused(&json!({ "ips": "10.0.0.1" }), "ips is not a list");
        refused(&json!({ "timeout": "soon" }), "timeout is not a time");
        refused(&json!({ "headers": { "Cookie": "hunter2" } }), "only Authorization");
        refused(&json!({ "headers": { "Authorization": ["hunter2"] } }), "is not one text");
        refused(&json!({ "username": "ann" }), "only good together");
        let both =
            json!({ "username": "a", "password": "hunter2", "headers": { "Authorization": "hunter2" } });
        refused(&both, "both given");
    }

    #[test]
    fn a_list_has_pages() {
        let read = ListQuery::read;
        assert_eq!(read(""), Ok(ListQuery { state: None, page: 1, per_page: 10 }));
        let query = ListQuery { state: Some(State::Failure), page: 2, per_page: 100 };
        assert_eq!(read("state=FAILURE&page=2&per_page=100"), Ok(query));
        for bad in ["state=DONE", "page=0", "per_page=101", "size=3"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
