//! `/api/v1/tokens`: seeing, making and withdrawing tokens.
//!
//! Nobody gives or takes a right away that he does not have himself, nor gives one for longer than he has it;
//! else the right to manage tokens for a day would be the right to everything for ever. A token's text is in the
//! answer that made it and never again.

use std::collections::BTreeSet;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::response::{AppendHeaders, IntoResponse, Response};
use axum::{Extension, Json};
use http::StatusCode;
use http::header::CACHE_CONTROL;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::book::{Conflict, Entry};
use super::guard::{Bearer, Subject};
use super::new_token::NewToken;
use super::reply::{Errors, Message, Reply};
use super::scope::Scope;
use super::store::TokenStore;
use super::token::{Refusal, Token, TokenHash, TokenName};
use crate::timestamp::Timestamp;

/// A token that is asked for.
#[derive(ToSchema)]
#[schema(as = NewToken, example = json!({ "name": "harbor-1", "scopes": ["preheat"], "expires": "2099-01-01T00:00:00Z" }))]
#[expect(dead_code, reason = "it describes what `NewToken::read` reads")]
struct Wanted {
    /// From 1 to 64 of the characters A-Z a-z 0-9 . _ -, and no other token's.
    name: String,
    /// At least one.
    #[schema(inline)]
    scopes: BTreeSet<Scope>,
    /// When it ends, in UTC; never, unless it is said.
    #[schema(format = DateTime)]
    expires: Option<String>,
}

/// A token as it is shown.
#[derive(Serialize, ToSchema)]
#[schema(as = Token)]
#[serde(rename_all = "camelCase")]
struct Shown {
    /// Eight hex digits.
    id: String,
    #[schema(value_type = String)]
    name: TokenName,
    scopes: BTreeSet<Scope>,
    #[schema(value_type = Option<String>, format = DateTime)]
    created: Option<Timestamp>,
    #[schema(value_type = Option<String>, format = DateTime)]
    expires: Option<Timestamp>,
    #[schema(value_type = Option<String>, format = DateTime)]
    last_used: Option<Timestamp>,
    /// Whether the settings declare it.
    declared: bool,
}

/// A token in the answer that made it.
#[derive(Serialize, ToSchema)]
#[schema(as = MadeToken)]
struct Made<'a> {
    #[serde(flatten)]
    shown: Shown,
    token: &'a str,
}

impl From<Entry> for Shown {
    fn from(Entry { token, is_declared }: Entry) -> Self {
        Self {
            id: token.hash.id().to_string(),
            name: token.name,
            scopes: token.scopes,
            created: token.created,
            expires: token.expires,
            last_used: token.last_used,
            declared: is_declared,
        }
    }
}

/// The routes, to be protected.
pub(super) fn router(store: TokenStore) -> OpenApiRouter {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(remove)).with_state(store)
}

/// All tokens, without their secrets.
#[utoipa::path(get, path = "/api/v1/tokens", tag = "tokens", security(("token" = [])), responses((status = 200, description = "a list", body = Vec<Shown>)))]
async fn list(State(store): State<TokenStore>) -> Json<Vec<Shown>> {
    Json(store.all().into_iter().map(Into::into).collect())
}

/// Makes a token. Its text is in this answer only.
#[utoipa::path(post, path = "/api/v1/tokens", tag = "tokens", request_body = Wanted, security(("token" = [])), responses((status = 201, description = "the token", body = Made), (status = 403, description = "the caller lacks what he would give", body = Message), (status = 409, description = "the name is taken", body = Message), (status = 422, description = "all that is wrong", body = Errors)))]
async fn create(
    State(store): State<TokenStore>,
    Extension(Bearer(bearer)): Extension<Bearer>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Response> {
    let now = Timestamp::now();
    let body = body.map_err(|it| Reply::from(it).into_response())?;
    let NewToken { name, scopes, expires } =
        NewToken::read(&body, now).map_err(IntoResponse::into_response)?;
    covers(&bearer, &scopes)
        .and_then(|()| outlives(&bearer, expires))
        .map_err(IntoResponse::into_response)?;
    let (text, hash) = TokenHash::fresh(rand::random());
    let token = Token { name, hash, scopes, created: Some(now), expires, last_used: None };
    store.add(token.clone()).await.map_err(|it| Reply::from(it).into_response())?;
    let subject = Subject(hash.id().to_string());
    let made = Made { shown: Entry { token, is_declared: false }.into(), token: text.expose() };
    let no_store = AppendHeaders([(CACHE_CONTROL, "no-store")]);
    Ok((StatusCode::CREATED, Extension(subject), no_store, Json(made)).into_response())
}

/// Withdraws a token.
#[utoipa::path(delete, path = "/api/v1/tokens/{id}", tag = "tokens", params(("id" = String, Path, description = "its eight hex digits")), security(("token" = [])), responses((status = 204, description = "withdrawn"), (status = 404, description = "no such token", body = Message), (status = 409, description = "the settings declare it", body = Message)))]
async fn remove(
    State(store): State<TokenStore>,
    Extension(Bearer(bearer)): Extension<Bearer>,
    Path(id): Path<String>,
) -> Result<Response, Response> {
    let unknown = |it: &dyn std::fmt::Display| Reply::new(StatusCode::NOT_FOUND, format!("{id:?} {it}"));
    let id = id.parse().map_err(|it| unknown(&it).into_response())?;
    let reply = |it: Conflict| Reply::from(it).into_response();
    covers(&bearer, &store.get(id).map_err(reply)?.token.scopes).map_err(IntoResponse::into_response)?;
    store.remove(id).await.map_err(|it| Reply::from(it).into_response())?;
    Ok((StatusCode::NO_CONTENT, Extension(Subject(id.to_string()))).into_response())
}

/// Whether the holder of a token can give a right until `expires`, or for ever.
fn outlives(bearer: &Token, expires: Option<Timestamp>) -> Result<(), Refusal> {
    match bearer.expires {
        Some(own) if expires.is_none_or(|it| it > own) => Err(Refusal::Ends(own)),
        _ => Ok(()),
    }
}

/// Whether the holder of a token has all these scopes himself.
fn covers(bearer: &Token, scopes: &BTreeSet<Scope>) -> Result<(), Refusal> {
    match scopes.iter().find(|it| !bearer.has(**it)) {
        Some(scope) => Err(Refusal::Lacks(*scope)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::management::described;

    #[test]
    fn a_new_token_is_described_as_it_is_read() {
        described::check::<Wanted, _>(|body| NewToken::read(body, Timestamp::now()));
        assert_eq!(described::names::<Wanted>(), ["expires", "name", "scopes"], "others are refused");
    }
}
