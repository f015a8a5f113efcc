//! `/oapi/v1/jobs`, as Dragonfly has it.
//!
//! ```text
//! POST   /oapi/v1/jobs        a job as Harbor asks for it
//! GET    /oapi/v1/jobs        ?state=PENDING&page=1&per_page=10
//! GET    /oapi/v1/jobs/{id}
//! DELETE /oapi/v1/jobs/{id}   stops it
//! ```

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, RawQuery, State as Shared};
use axum::response::{AppendHeaders, IntoResponse, Response};
use axum::{Extension, Json};
use http::StatusCode;
use http::header::LINK;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::bodies::NewJob;
use super::{OneText, ask, one_text};
use crate::fields::Mistakes;
use crate::harbor::job_reply::Job;
use crate::harbor::jobs;
use crate::management::{Bearer, Guarded, Message, Reply, Scope, Subject};
use crate::preheat::{JobView, Listed, Preheats, State};

const PATH: &str = "/oapi/v1/jobs";
/// How many jobs a page has, unless it is said, and at the most.
const PER_PAGE: usize = 10;
const MAX_PER_PAGE: usize = 100;
const MAX_PAGE: usize = 1_000_000;

pub(super) fn routes(preheats: Preheats) -> Guarded {
    let routes =
        OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(show, cancel)).with_state(preheats);
    Guarded::by_token(Scope::Preheat, routes)
}

/// Asks for a job, as Dragonfly is asked.
#[utoipa::path(post, path = "/oapi/v1/jobs", tag = "harbor", request_body = NewJob, security(("token" = [])), responses((status = 200, description = "the job", body = Job), (status = 429, description = "too many wait", body = Message), (status = 422, description = "all that is wrong", body = OneText)))]
async fn create(
    Shared(preheats): Shared<Preheats>,
    Extension(Bearer(bearer)): Extension<Bearer>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Response> {
    let body = body.map_err(|it| Reply::from(it).into_response())?;
    let asked = jobs::read(&body).map_err(one_text)?;
    let job = ask(&preheats, asked, bearer.name.to_string()).await.map_err(IntoResponse::into_response)?;
    Ok((Extension(Subject(job.id.to_string())), Json(Job::from(&job))).into_response())
}

/// A job as it is now.
#[utoipa::path(get, path = "/oapi/v1/jobs/{id}", tag = "harbor", params(("id" = u64, Path, description = "its number")), security(("token" = [])), responses((status = 200, description = "the job", body = Job), (status = 404, description = "no such job", body = Message)))]
async fn show(Shared(preheats): Shared<Preheats>, Path(id): Path<String>) -> Result<Json<Job>, Response> {
    let number = id.parse().map_err(|_| unknown())?;
    preheats.get(number).await.map(|it| Json(Job::from(&it))).ok_or_else(unknown)
}

/// Stops a job.
#[utoipa::path(delete, path = "/oapi/v1/jobs/{id}", tag = "harbor", params(("id" = u64, Path, description = "its number")), security(("token" = [])), responses((status = 200, description = "the job", body = Job), (status = 404, description = "no such job", body = Message), (status = 503, description = "the gateway that has it does not answer", body = Message)))]
async fn cancel(
    Shared(preheats): Shared<Preheats>,
    Extension(Bearer(bearer)): Extension<Bearer>,
    Path(id): Path<String>,
) -> Result<Response, Response> {
    let number = id.parse().map_err(|_| unknown())?;
    let job = preheats.cancel(number, &bearer.name.to_string()).await;
    let job = job.map_err(|it| Reply::from(it).into_response())?.ok_or_else(unknown)?;
    Ok((Extension(Subject(job.id.to_string())), Json(Job::from(&job))).into_response())
}

/// Jobs, the latest first, without what became of each blob. The header `Link` leads to other pages.
#[utoipa::path(get, path = "/oapi/v1/jobs", tag = "harbor", params(("state" = Option<String>, Query, description = "PENDING, SUCCESS or FAILURE"), ("page" = Option<usize>, Query, description = "from 1"), ("per_page" = Option<usize>, Query, description = "up to 100")), security(("token" = [])), responses((status = 200, description = "a list", body = Vec<Job>), (status = 422, description = "all that is wrong", body = OneText)))]
async fn list(Shared(preheats): Shared<Preheats>, RawQuery(query): RawQuery) -> Result<Response, Response> {
    let query = ListQuery::read(query.as_deref().unwrap_or_default()).map_err(one_text)?;
    let skip = (query.page - 1).saturating_mul(query.per_page);
    let Listed { jobs, n_all } = preheats.list(query.state, skip, query.per_page);
    // No list has rows, which is nothing to be said of a job.
    let told = |mut it: JobView| {
        it.regions
            .iter_mut()
            .map(|it| &mut it.held)
            .chain([&mut it.held])
            .for_each(|it| it.rows_left_out = 0);
        Job::from(&it)
    };
    let jobs: Vec<_> = jobs.into_iter().map(told).collect();
    Ok((AppendHeaders([(LINK, query.links(n_all))]), Json(jobs)).into_response())
}

fn unknown() -> Response {
    Reply::new(StatusCode::NOT_FOUND, "record not found").into_response()
}

/// Which part of which jobs is wanted. What else a query says is left aside.
#[derive(Debug, PartialEq, Eq)]
struct ListQuery {
    state: Option<State>,
    page: usize,
    /// More than [`MAX_PER_PAGE`] are not given, whoever asks for them.
    per_page: usize,
}

impl ListQuery {
    fn read(query: &str) -> Result<Self, Mistakes> {
        let mut it = Self { state: None, page: 1, per_page: PER_PAGE };
        let mut mistakes = Mistakes::default();
        for (key, value) in url::form_urlencoded::parse(query.as_bytes()) {
            let number = || value.parse::<usize>().ok().filter(|it| *it > 0);
            match &*key {
                // What Dragonfly has besides is all not ended.
                "state" if ["RECEIVED", "STARTED", "RETRY"].contains(&&*value) => {
                    it.state = Some(State::Pending)
                }
                "state" => match State::ALL.into_iter().find(|it| it.as_str() == value) {
                    None => {
                        mistakes.add("state is none of PENDING, SUCCESS, FAILURE, RECEIVED, STARTED, RETRY")
                    }
                    state => it.state = state,
                },
                "page" => match number().filter(|it| *it <= MAX_PAGE) {
                    None => mistakes.add(format!("page is not from 1 to {MAX_PAGE}")),
                    Some(page) => it.page = page,
                },
                "per_page" => match number() {
                    None => mistakes.add("per_page is not a number from 1 on"),
                    Some(n) => it.per_page = n.min(MAX_PER_PAGE),
                },
                _ => {}
            }
        }
        mistakes.or(it)
    }

    /// The header that leads to other pages of so many jobs.
    fn links(&self, n_all: usize) -> String {
        let Self { state, page, per_page } = self;
        let last = n_all.div_ceil(*per_page).max(1);
        let state = state.map(|it| format!("&state={}", it.as_str())).unwrap_or_default();
        let pages = [
            ("prev", page.checked_sub(1).filter(|it| *it > 0)),
            ("next", Some(page + 1).filter(|it| *it <= last)),
            ("first", Some(1)),
            ("last", Some(last)),
        ];
        let link = |(rel, page): (&str, Option<usize>)| {
            Some(format!("<{PATH}?page={}&per_page={per_page}{state}>; rel=\"{rel}\"", page?))
        };
        pages.into_iter().filter_map(link).collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(query: &str, expected: Result<(Option<State>, usize, usize), &str>) {
        let expected = expected
            .map(|(state, page, per_page)| ListQuery { state, page, per_page })
            .map_err(Mistakes::one);
        assert_eq!(ListQuery::read(query), expected, "{query}");
    }

    #[test]
    fn a_query_says_which_jobs_and_which_page() {
        check("", Ok((None, 1, 10)));
        check("page=3&per_page=50&state=SUCCESS&user_id=1", Ok((Some(State::Success), 3, 50)));
        check("per_page=10000000&state=STARTED", Ok((Some(State::Pending), 1, 100)));
        check("page=0", Err("page is not from 1 to 1000000"));
        check("page=1000001", Err("page is not from 1 to 1000000"));
        check("per_page=-1", Err("per_page is not a number from 1 on"));
        check("state=success", Err("state is none of PENDING, SUCCESS, FAILURE, RECEIVED, STARTED, RETRY"));
    }

    #[test]
    fn links_lead_to_the_pages_that_there_are() {
        #[track_caller]
        fn check(query: &str, n_all: usize, expected: &[(&str, usize)]) {
            let links = ListQuery::read(query).unwrap().links(n_all);
            let expected: Vec<_> = expected
                .iter()
                .map(|(rel, page)| format!("</oapi/v1/jobs?page={page}&per_page=10>; rel=\"{rel}\""))
                .collect();
            assert_eq!(links, expected.join(", "), "{query} {n_all}");
        }
        check("", 0, &[("first", 1), ("last", 1)]);
        check("", 10, &[("first", 1), ("last", 1)]);
        check("", 11, &[("next", 2), ("first", 1), ("last", 2)]);
        check("page=2", 30, &[("prev", 1), ("next", 3), ("first", 1), ("last", 3)]);
        check("page=9", 30, &[("prev", 8), ("first", 1), ("last", 3)]);
        let with_state = ListQuery::read("state=FAILURE").unwrap().links(0);
        assert!(with_state.contains("&per_page=10&state=FAILURE>"), "{with_state}");
    }
}
