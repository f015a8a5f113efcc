//! The registry mirror on the node's loopback.
//!
//! Only requests for blobs go into the swarm; everything else passes straight through, untouched and
//! uncached. Every request is answered in time, if only with an error that lets the runtime go elsewhere:
//! what runtimes forgive is an error before the first byte of a body, and an early end after it.

mod account;
mod answer;
mod blob;
mod detours;
mod pass;
mod route;

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use shoal_identity::Dialer;
use tokio::time::Instant;
use tower::Service;

use crate::pull::Pulls;
use crate::recent::Recent;
use crate::settings::ProxySettings;
use answer::Body;
use pass::Passage;
pub(crate) use route::WantedBlob;
use route::{Route, Router, Target};

/// Answers runtimes; clones are of the same mirror.
#[derive(Clone)]
pub(crate) struct Mirror(Arc<Inner>);

struct Inner {
    router: Router,
    passage: Passage,
    pulls: Pulls,
    recent: Recent,
    answer_within: Duration,
}

impl Mirror {
    /// A mirror over the node's pulls, which tells `recent` what became of each.
    pub(crate) fn new(settings: &ProxySettings, pulls: Pulls, dialer: &Dialer, recent: Recent) -> Self {
        let tools = pulls.tools();
        Self(Arc::new(Inner {
            router: Router::new(settings, tools.registries.clone()),
            passage: Passage::new(tools.region.clone(), tools.registries.clone(), dialer),
            answer_within: settings.answer_within,
            pulls,
            recent,
        }))
    }

    async fn answer(self, request: Request<Incoming>) -> Response<Body> {
        let deadline = Instant::now() + self.0.answer_within;
        let asked = request.map(drop);
        match self.0.router.route(&asked) {
            Route::Healthy => answer::healthy(),
            Route::Refuse(error) => answer::error(&asked, &error),
            Route::Ping(default) => self.ping(default.as_ref(), &asked, deadline).await,
            Route::Pass(target) => self.0.passage.pass(&target, &asked, deadline).await,
            Route::Blob(wanted) => self.blob(wanted, &asked, deadline).await,
        }
    }

    /// Docker asks this of the default registry, whose challenge it needs; Podman and its kin, which name
    /// their registry in later paths only, ask it of the mirror. So where no default registry answers as
    /// one, the mirror answers for itself, and they do not go past it.
    async fn ping(&self, default: Option<&Target>, asked: &Request<()>, deadline: Instant) -> Response<Body> {
        if let Some(default) = default {
            let answer = self.0.passage.pass(default, asked, deadline).await;
            if matches!(answer.status(), StatusCode::OK | StatusCode::UNAUTHORIZED) {
                return answer;
            }
        }
        answer::spoken()
    }
}

/// Until when the gateway is waited for, where the answer is due by `deadline`: what is left after that is
/// for the registry.
fn gateways_share(deadline: Instant) -> Instant {
    share(deadline, 0.8)
}

/// Until when a registry is waited for that is asked first.
fn half(deadline: Instant) -> Instant {
    share(deadline, 0.5)
}

fn share(deadline: Instant, part: f32) -> Instant {
    let now = Instant::now();
    now + deadline.saturating_duration_since(now).mul_f32(part)
}

impl Service<Request<Incoming>> for Mirror {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Incoming>) -> Self::Future {
        self.clone().answer(request).map(Ok).boxed()
    }
}
