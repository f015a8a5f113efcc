//! `GET /api/v1/audit`: the newest lines of the audit log.

use axum::Json;
use axum::extract::{RawQuery, State as Shared};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::Serialize;
use serde_json::Value;
use tokio::task::spawn_blocking;
use url::form_urlencoded;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::AuditSettings;
use super::tail::{Page, Tail, Wanted};
use crate::fields::Mistakes;
use crate::management::{Errors, Guarded, Message, Reply, Scope};

/// How many lines are told, unless it is said, and at the most.
const PER_PAGE: usize = 50;
const MAX_PER_PAGE: usize = 500;
/// The longest text that is looked for.
const MAX_TEXT: usize = 200;

/// Lines of the audit log.
#[derive(Serialize, ToSchema)]
#[schema(as = Audit)]
struct View {
    /// The newest first, each with its `time` and `event`.
    #[schema(value_type = Vec<Object>)]
    lines: Vec<Value>,
    /// What older lines are asked for with, if there may be any: one look reads a part of a large log only.
    next: Option<String>,
    /// Whether the log is in a file of this gateway. Where it is not, there are no lines here.
    kept: bool,
}

/// The routes, for those who may look.
pub(crate) fn routes(settings: &AuditSettings) -> Guarded {
    let tail = match settings {
        AuditSettings::File { path, n_kept, .. } => Some(Tail { path: path.clone(), n_kept: *n_kept }),
        AuditSettings::Off | AuditSettings::Output => None,
    };
    Guarded::by_token(Scope::Read, OpenApiRouter::new().routes(routes!(list)).with_state(tail))
}

/// The newest lines of this gateway's audit log.
#[utoipa::path(get, path = "/api/v1/audit", tag = "gateway", params(("text" = Option<String>, Query, description = "lines that have this in them"), ("before" = Option<String>, Query, description = "an earlier answer's next"), ("per_page" = Option<usize>, Query, description = "up to 500")), security(("token" = [])), responses((status = 200, description = "lines, the newest first", body = View), (status = 422, description = "all that is wrong", body = Errors), (status = 500, description = "the log cannot be read", body = Message)))]
async fn list(Shared(tail): Shared<Option<Tail>>, RawQuery(query): RawQuery) -> Result<Json<View>, Response> {
    let wanted = read(&query.unwrap_or_default()).map_err(IntoResponse::into_response)?;
    let Some(tail) = tail else { return Ok(Json(View { lines: Vec::new(), next: None, kept: false })) };
    let looked = spawn_blocking(move || tail.look(&wanted)).await.map_err(std::io::Error::other).flatten();
    let Page { lines, next } = looked.map_err(|error| {
        let text = format!("the audit log cannot be read: {error}");
        Reply::new(StatusCode::INTERNAL_SERVER_ERROR, text).into_response()
    })?;
    Ok(Json(View { lines, next: next.map(|it| it.to_string()), kept: true }))
}

fn read(query: &str) -> Result<Wanted, Mistakes> {
    let mut it = Wanted { at_most: PER_PAGE, ..Wanted::default() };
    let mut mistakes = Mistakes::default();
    for (key, value) in form_urlencoded::parse(query.as_bytes()) {
        match &*key {
            "text" if value.len() <= MAX_TEXT => it.text = value.into_owned(),
            "text" => mistakes.add(format!("text has more than {MAX_TEXT} bytes")),
            "before" => match value.parse() {
                Ok(before) => it.before = Some(before),
                Err(error) => mistakes.add(error),
            },
            "per_page" => match value.parse().ok().filter(|it| (1..=MAX_PER_PAGE).contains(it)) {
                Some(number) => it.at_most = number,
                None => mistakes.add(format!("per_page is not from 1 to {MAX_PER_PAGE}")),
            },
            _ => mistakes.add("there is no parameter but text, before, per_page"),
        }
    }
    mistakes.or(it)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_says_which_lines_are_meant() {
        let it = read("text=team%2Fapp&before=7.9&per_page=500").unwrap();
        assert_eq!(
            (it.text.as_str(), it.before.unwrap().to_string(), it.at_most),
            ("team/app", "7.9".to_owned(), 500)
        );
        assert_eq!(read("").unwrap().at_most, PER_PAGE);
        let long = format!("text={}", "x".repeat(MAX_TEXT + 1));
        for bad in ["before=7", "before=x.1", "per_page=0", "per_page=501", "page=1", &long] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
