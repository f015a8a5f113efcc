//! Nobody reaches a protected route without a good token, and every call is told to the audit log. Harbor's webhooks
//! come with one header that both sides were given, instead of a token.
//!
//! Two rates bound what a caller can cause. A token has one, so that a client gone wild does not take the
//! gateway's time. An address has one for failures; it bounds how fast a stranger can fill the log. A good
//! token works all the same from an address that others have failed from: behind one proxy all have the same
//! address, and there is no guessing 256 bits. Calls that come too fast are counted, but not told: else
//! somebody could write the log over that shows what he did before.
//!
//! Knows nothing of: what the routes do.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{ConnectInfo, MatchedPath, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use http::{Method, StatusCode};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use shoal_ops::metrics::Metrics;
use tokio::time::timeout;
use utoipa_axum::router::OpenApiRouter;

use super::header_secret::HeaderSecret;
use super::presented::presented;
use super::rates::{Rates, TooMany};
use super::reply::{Reply, unauthorized};
use super::scope::Scope;
use super::store::TokenStore;
use super::token::{Token, TokenId};
use crate::audit::{Audit, Call, Event, TokenShown};
use crate::party::party;
use crate::timestamp::Timestamp;

/// Failures per second and address.
const FAILURES: NonZeroU32 = NonZeroU32::new(5).expect("not zero");
/// Webhooks per second. An image for many platforms comes as that many events at once, and one that is refused comes
/// again only after a minute and a half.
const WEBHOOKS: NonZeroU32 = NonZeroU32::new(200).expect("not zero");
/// How long an answer may take, the reading of the request's body included.
const ANSWER: Duration = Duration::from_secs(30);

/// What stands before protected routes; clones are of the same.
#[derive(Clone)]
pub(super) struct Guard(Arc<Inner>);

struct Inner {
    store: TokenStore,
    audit: Audit,
    calls: Rates<TokenId>,
    failures: Rates<std::net::IpAddr>,
    webhooks: Rates<()>,
    n_calls: Family<[(&'static str, String); 1], Counter>,
}

/// The token that a request was let through with; an extension of the request.
#[derive(Clone)]
pub(crate) struct Bearer(pub(crate) Token);

/// What a call made or changed, by its id; an extension of the response, for the audit log.
#[derive(Clone)]
pub(crate) struct Subject(pub(crate) String);

/// What lets a caller in.
#[derive(Clone)]
enum Door {
    /// A token with this scope.
    Token(Scope),
    /// This header.
    Webhook(HeaderSecret),
}

/// Whoever was recognised at a door, and may be refused still.
struct Visitor {
    shown: TokenShown,
    token: Option<Token>,
}

/// An answer, and the token that was shown for it.
struct Answered {
    response: Response,
    token: Option<TokenShown>,
    is_told: bool,
}

impl Guard {
    pub(super) fn new(store: TokenStore, audit: Audit, rate: NonZeroU32, metrics: &Metrics) -> Self {
        let n_calls = Family::default();
        metrics.register(|registry| {
            registry.register(
                "gateway_management_calls",
                "Calls of protected management routes, by the status of the answer",
                n_calls.clone(),
            );
        });
        let (calls, failures) = (Rates::per_second(rate), Rates::per_second(FAILURES));
        let webhooks = Rates::per_second(WEBHOOKS);
        Self(Arc::new(Inner { store, audit, calls, failures, webhooks, n_calls }))
    }

    /// The same routes, for holders of a token with `scope` only, and those that change nothing for holders of one that
    /// may read as well. They find it as [`Bearer`].
    pub(super) fn protect(&self, scope: Scope, routes: OpenApiRouter) -> OpenApiRouter {
        self.stand_before(Door::Token(scope), routes)
    }

    /// The same routes, for whoever shows this header only.
    pub(super) fn protect_webhook(&self, secret: HeaderSecret, routes: OpenApiRouter) -> OpenApiRouter {
        self.stand_before(Door::Webhook(secret), routes)
    }

    fn stand_before(&self, door: Door, routes: OpenApiRouter) -> OpenApiRouter {
        routes.route_layer(middleware::from_fn_with_state((self.clone(), door), pass))
    }

    /// Whoever comes to this door, if they are known there; and whether they come too often.
    fn recognise(&self, door: &Door, request: &Request) -> Option<(Visitor, Result<(), TooMany>)> {
        match door {
            Door::Token(_) => {
                let token = presented(request.headers()).and_then(|it| self.0.store.find(&it))?;
                let id = token.hash.id();
                let shown = TokenShown { id: id.to_string(), name: token.name.to_string() };
                Some((Visitor { shown, token: Some(token) }, self.0.calls.take(&id)))
            }
            Door::Webhook(secret) => {
                let shown = TokenShown { id: "-".to_owned(), name: "webhook".to_owned() };
                let is_good = secret.is_in(request.headers());
                is_good.then(|| (Visitor { shown, token: None }, self.0.webhooks.take(&())))
            }
        }
    }

    async fn answer(&self, door: &Door, client: SocketAddr, mut request: Request, next: Next) -> Answered {
        let untold = |response: Response| Answered { response, token: None, is_told: false };
        let Some((Visitor { shown, token }, rate)) = self.recognise(door, &request) else {
            return match self.0.failures.take(&party(client.ip())) {
                Ok(()) => Answered { response: unauthorized(), token: None, is_told: true },
                Err(too_many) => untold(too_many.into_response()),
            };
        };
        if let Err(too_many) = rate {
            return untold(too_many.into_response());
        }
        let now = Timestamp::now();
        let checked = match (door, &token) {
            // Who may read may see all that there is to see.
            (Door::Token(scope), Some(token)) if request.method() == Method::GET => {
                token.check(now, *scope).or_else(|_| token.check(now, Scope::Read))
            }
            (Door::Token(scope), Some(token)) => token.check(now, *scope),
            _ => Ok(()),
        };
        let response = match checked {
            Err(refusal) => refusal.into_response(),
            Ok(()) => {
                if let Some(token) = token {
                    self.0.store.touch(token.hash.id(), now).await;
                    request.extensions_mut().insert(Bearer(token));
                }
                let late = |_| Reply::new(StatusCode::REQUEST_TIMEOUT, "took too long").into_response();
                timeout(ANSWER, next.run(request)).await.unwrap_or_else(late)
            }
        };
        Answered { response, token: Some(shown), is_told: true }
    }
}

async fn pass(
    State((guard, door)): State<(Guard, Door)>,
    ConnectInfo(client): ConnectInfo<SocketAddr>,
    path: MatchedPath,
    request: Request,
    next: Next,
) -> Response {
    let method = request.method().clone();
    let Answered { response, token, is_told } = guard.answer(&door, client, request, next).await;
    let status = response.status().as_u16();
    guard.0.n_calls.get_or_create(&[("status", status.to_string())]).inc();
    if is_told {
        let call = Call {
            client: client.ip(),
            token,
            method,
            route: path.as_str().to_owned(),
            subject: response.extensions().get::<Subject>().map(|it| it.0.clone()),
            status,
        };
        guard.0.audit.record(Event::Management(call)).await;
    }
    response
}
