//! The management API: a listener of its own, which people and Harbor use and nodes do not.
//!
//! Whoever calls shows a token with the scope that the route wants ([`guard`]). Tokens are made here
//! ([`api`]) or declared in the settings, have an end, and are kept as hashes ([`store`]). Health is open to
//! all: Harbor asks for it before each of its jobs, under the paths of both its kinds of providers.
//!
//! Knows nothing of: registries, blobs, nodes.

mod api;
mod book;
#[cfg(test)]
pub(crate) mod described;
mod description;
mod guard;
mod header_secret;
mod new_token;
mod presented;
mod rates;
mod reply;
mod scope;
mod store;
mod tls;
mod token;

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::Path;

use axum::extract::DefaultBodyLimit;
use axum::routing::get;
use axum::{Json, Router};
use http::StatusCode;
use shoal_ops::Context;
use shoal_ops::serve::{Limits, Listener};
use shoal_ops::settings::SecretSource;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(crate) use guard::{Bearer, Subject};
pub(crate) use reply::{Errors, Message, Reply};
pub use scope::Scope;
pub use tls::TlsFiles;
pub use token::{Token, TokenHash, TokenId, TokenName, TokenTextError};

use crate::audit::Audit;
use crate::timestamp::Timestamp;
use guard::Guard;
use header_secret::HeaderSecret;
use store::TokenStore;

/// The most connections at once: some Harbors, some people and their tools.
const MAX_CONNECTIONS: usize = 1000;
/// The longest request body, in bytes.
const MAX_BODY: usize = 64 << 10;

/// How the management API is reached, and by whom.
#[derive(Clone, Debug)]
pub struct ManagementSettings {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Its certificate; none for plain HTTP.
    pub tls: Option<TlsFiles>,
    /// How often a token may be shown.
    pub requests_per_second: NonZeroU32,
    /// Tokens that are good without having been made here.
    pub tokens: Vec<Token>,
}

/// Routes that not everybody may call.
pub struct Guarded {
    key: Key,
    routes: OpenApiRouter,
}

/// What opens routes.
enum Key {
    Token(Scope),
    Header(SecretSource),
}

impl Guarded {
    /// Routes for holders of a token with this scope, who are found as [`Bearer`].
    pub(crate) const fn by_token(scope: Scope, routes: OpenApiRouter) -> Self {
        Self { key: Key::Token(scope), routes }
    }

    /// Routes for whoever shows this whole `Authorization` header.
    pub(crate) const fn by_header(secret: SecretSource, routes: OpenApiRouter) -> Self {
        Self { key: Key::Header(secret), routes }
    }
}

/// What other parts of the gateway offer; the default is nothing.
#[derive(Default)]
pub struct Offered {
    /// For some.
    pub(crate) guarded: Vec<Guarded>,
    /// For everybody.
    pub(crate) open: Router,
}

/// Starts the API as a task of the process and returns the address it listens on. What it keeps lies in `dir`.
///
/// # Errors
/// Where its address, certificate or tokens cannot be used.
pub async fn start(
    settings: ManagementSettings,
    dir: &Path,
    audit: Audit,
    offered: Offered,
    ctx: &Context,
) -> anyhow::Result<SocketAddr> {
    let (dir, declared) = (dir.to_owned(), settings.tokens);
    let open = move || TokenStore::open(&dir, declared, Timestamp::now());
    let store = tokio::task::spawn_blocking(open).await??;
    let mut listener = Listener::bind("management", settings.listen).await?;
    if let Some(files) = settings.tls {
        listener = listener.with(tls::follow(files, ctx)?);
    }
    let address = listener.addr();
    let guard = Guard::new(store.clone(), audit, settings.requests_per_second, &ctx.metrics);
    let protected = offered.guarded.into_iter().map(|Guarded { key, routes }| match key {
        Key::Token(scope) => guard.protect(scope, routes),
        Key::Header(secret) => guard.protect_webhook(HeaderSecret::follow(secret, ctx), routes),
    });
    let (router, description) = protected
        .fold(OpenApiRouter::with_openapi(description::begun()), OpenApiRouter::merge)
        .merge(guard.protect(Scope::Tokens, api::router(store)))
        .routes(routes!(healthy))
        .routes(routes!(health))
        .split_for_parts();
    let router = router
        .route("/api/v1/openapi.json", get(async || Json(description)))
        .merge(offered.open)
        .fallback(async || Reply::new(StatusCode::NOT_FOUND, "Not Found"))
        .layer(DefaultBodyLimit::max(MAX_BODY));
    ctx.serve(listener, router, Limits::new(MAX_CONNECTIONS));
    Ok(address)
}

/// The answer that Dragonfly gives.
#[utoipa::path(get, path = "/healthy", tag = "health", responses((status = 200, description = "it answers", body = String, content_type = "application/json")))]
async fn healthy() -> Json<&'static str> {
    Json("OK")
}

/// The same, where Kraken has it.
#[utoipa::path(get, path = "/health", tag = "health", responses((status = 200, description = "it answers", body = String, content_type = "application/json")))]
async fn health() -> Json<&'static str> {
    healthy().await
}
