//! Nobody reaches a protected route without a good token, and every call is told to the audit log.
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

use axum::Router;
use axum::extract::{ConnectInfo, MatchedPath, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use shoal_ops::metrics::Metrics;
use tokio::time::timeout;

use super::presented::presented;
use super::rates::Rates;
use super::reply::{Reply, unauthorized};
use super::scope::Scope;
use super::store::TokenStore;
use super::token::{Token, TokenId};
use crate::audit::{Audit, Call, Event, TokenShown};
use crate::party::party;
use crate::timestamp::Timestamp;

/// Failures per second and address.
const FAILURES: NonZeroU32 = NonZeroU32::new(5).expect("not zero");
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
    n_calls: Family<[(&'static str, String); 1], Counter>,
}

/// The token that a request was let through with; an extension of the request.
#[derive(Clone)]
pub(crate) struct Bearer(pub(crate) Token);

/// What a call made or changed, by its id; an extension of the response, for the audit log.
#[derive(Clone)]
pub(crate) struct Subject(pub(crate) String);

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
        Self(Arc::new(Inner { store, audit, calls, failures, n_calls }))
    }

    /// The same routes, for holders of a token with `scope` only. They find it as [`Bearer`].
    pub(super) fn protect(&self, scope: Scope, routes: Router) -> Router {
        routes.route_layer(middleware::from_fn_with_state((self.clone(), scope), pass))
    }

    async fn answer(&self, scope: Scope, client: SocketAddr, mut request: Request, next: Next) -> Answered {
        let untold = |response: Response| Answered { response, token: None, is_told: false };
        let Some(token) = presented(request.headers()).and_then(|it| self.0.store.find(&it)) else {
            return match self.0.failures.take(&party(client.ip())) {
                Ok(()) => Answered { response: unauthorized(), token: None, is_told: true },
                Err(too_many) => untold(too_many.into_response()),
            };
        };
        let id = token.hash.id();
        if let Err(too_many) = self.0.calls.take(&id) {
            return untold(too_many.into_response());
        }
        let shown = TokenShown { id: id.to_string(), name: token.name.to_string() };
        let now = Timestamp::now();
        let response = match token.check(now, scope) {
            Err(refusal) => refusal.into_response(),
            Ok(()) => {
                self.0.store.touch(id, now).await;
                request.extensions_mut().insert(Bearer(token));
                let late = |_| Reply::new(StatusCode::REQUEST_TIMEOUT, "took too long").into_response();
                timeout(ANSWER, next.run(request)).await.unwrap_or_else(late)
            }
        };
        Answered { response, token: Some(shown), is_told: true }
    }
}

async fn pass(
    State((guard, scope)): State<(Guard, Scope)>,
    ConnectInfo(client): ConnectInfo<SocketAddr>,
    path: MatchedPath,
    request: Request,
    next: Next,
) -> Response {
    let method = request.method().clone();
    let Answered { response, token, is_told } = guard.answer(scope, client, request, next).await;
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
