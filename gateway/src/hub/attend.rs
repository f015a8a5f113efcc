//! The stream to the hub: that it is there, and for the hub, that this region is.

use std::error::Error;
use std::pin::pin;
use std::time::Duration;

use shoal_identity::{Dialer, Expected, Role};
use shoal_ops::Context;
use shoal_proto::gateway_client::GatewayClient;
use shoal_proto::{RegionRequest, RegionState, Regional};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tonic::transport::Endpoint;
use tonic::{Status, Streaming};

use crate::timestamp::Timestamp;

/// How long a gateway may take to its first word.
const FIRST: Duration = Duration::from_secs(2);
/// A gateway speaks at least every 10 s.
const SILENCE: Duration = Duration::from_secs(15);
/// How often a gateway is asked for a sign of life, and how long the answer may take. Links between regions are slow,
/// and full of content.
const PING: Duration = Duration::from_secs(1);
const PONG: Duration = Duration::from_secs(4);
/// How long to wait when none has answered.
const PAUSE: Duration = Duration::from_secs(1);

/// A gateway of the hub that answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answering {
    /// `https://host:port`.
    pub(crate) gateway: String,
    pub(crate) since: Timestamp,
}

/// Keeps a stream to the first of `gateways` that answers, as a task of the process, and tells which that is.
pub(super) fn start(
    gateways: Vec<String>,
    dialer: Dialer,
    me: Regional,
    ctx: &Context,
) -> watch::Receiver<Option<Answering>> {
    let (answers, seen) = watch::channel(None);
    let stopping = ctx.tasks.stopping();
    ctx.tasks.spawn_infallible("hub", async move {
        stopping.run_until_cancelled(attend(&gateways, &dialer, &me, &answers)).await;
    });
    seen
}

async fn attend(
    gateways: &[String],
    dialer: &Dialer,
    me: &Regional,
    answers: &watch::Sender<Option<Answering>>,
) {
    let mut is_told = false;
    loop {
        for gateway in gateways {
            let error = stay(gateway, dialer, me, answers).await;
            let error = &error as &dyn Error;
            // Once per outage is news, every second is noise.
            if is_told {
                tracing::debug!(gateway, error, "still no hub");
            } else {
                tracing::warn!(gateway, error, "no hub");
            }
            is_told = answers.send_replace(None).is_none();
        }
        sleep(PAUSE).await;
    }
}

/// Follows one gateway for as long as it is well.
async fn stay(
    gateway: &str,
    dialer: &Dialer,
    me: &Regional,
    answers: &watch::Sender<Option<Answering>>,
) -> Status {
    loop {
        if let Err(status) = follow(gateway, dialer, me, answers).await {
            return status;
        }
    }
}

/// Follows one stream until this process has another certificate: the connection of the old one ends with that.
async fn follow(
    gateway: &str,
    dialer: &Dialer,
    me: &Regional,
    answers: &watch::Sender<Option<Answering>>,
) -> Result<(), Status> {
    let endpoint =
        Endpoint::from_shared(gateway.to_owned()).map_err(|it| Status::from_error(Box::new(it)))?;
    let endpoint = endpoint.http2_keep_alive_interval(PING).keep_alive_timeout(PONG);
    let mut renewed = pin!(dialer.renewed(dialer.generation()));
    let channel = endpoint.connect_with_connector_lazy(dialer.connector(Expected::Any(Role::Gateway)));
    let mut calls = GatewayClient::new(channel);
    let asked = timeout(FIRST, calls.region(RegionRequest { regional: Some(me.clone()) }));
    let mut states = asked.await.map_err(|_| silent())??.into_inner();
    loop {
        tokio::select! {
            () = renewed.as_mut() => return Ok(()),
            state = timeout(SILENCE, next(&mut states)) => state.map_err(|_| silent())??,
        };
        let is_news = answers.send_if_modified(|it| {
            let is_news = it.as_ref().is_none_or(|it| it.gateway != gateway);
            if is_news {
                *it = Some(Answering { gateway: gateway.to_owned(), since: Timestamp::now() });
            }
            is_news
        });
        if is_news {
            tracing::info!(gateway, "the hub answers");
        }
    }
}

async fn next(states: &mut Streaming<RegionState>) -> Result<RegionState, Status> {
    states.message().await?.ok_or_else(|| Status::unavailable("the gateway ended the stream"))
}

fn silent() -> Status {
    Status::deadline_exceeded("the gateway did not answer in time")
}
