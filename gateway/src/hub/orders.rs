//! The orders of the hub: one stream to each of its gateways, by which it says what is to be preheated here, and hears how
//! far that is.
//!
//! What is at work goes on while a gateway of the hub does not answer. When it does again, it says what stands, and is
//! told anew how far that is.

use std::error::Error;
use std::pin::pin;
use std::time::Duration;

use shoal_identity::{Dialer, Expected, Role};
use shoal_proto::gateway_client::GatewayClient;
use shoal_proto::{Regional, RegionalNews, RegionalOrders, StoreRequest};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Endpoint;
use tonic::{Code, Status};

use crate::preheat::Ordered;

/// How long a gateway may take to its first word.
const FIRST: Duration = Duration::from_secs(10);
/// How often a gateway is asked for a sign of life, and how long the answer may take.
const PING: Duration = Duration::from_secs(5);
const PONG: Duration = Duration::from_secs(5);
/// How often it is looked what has changed.
const LOOK: Duration = Duration::from_secs(1);
/// The hub expects a word at least every 5 s.
const QUIET: Duration = Duration::from_secs(3);
/// How long the hub may leave what it is told untaken.
const TAKEN: Duration = Duration::from_secs(10);
/// How long to wait for a gateway that does not answer, and for one that knows no orders.
const PAUSE: Duration = Duration::from_secs(1);
const LONG_PAUSE: Duration = Duration::from_secs(30);
/// The longest message with orders, in bytes: a blob and its ticket take less than 2 KiB.
const MAX_ORDERS: usize = RegionalOrders::MAX * StoreRequest::MAX_BLOBS * (2 << 10);

/// The orders of one gateway of the hub.
pub(super) struct Orders {
    gateway: String,
    dialer: Dialer,
    me: Regional,
}

impl Orders {
    pub(super) const fn new(gateway: String, dialer: Dialer, me: Regional) -> Self {
        Self { gateway, dialer, me }
    }

    /// Has them carried out.
    pub(super) async fn take(self, mut ordered: Ordered) {
        loop {
            if let Err(status) = self.follow(&mut ordered).await {
                // Whether the hub is there at all is told elsewhere.
                tracing::debug!(
                    gateway = self.gateway,
                    error = &status as &dyn Error,
                    "no orders of the hub"
                );
                sleep(if is_older(&status) { LONG_PAUSE } else { PAUSE }).await;
            }
        }
    }

    /// Follows one stream, until this process has another certificate: the connection of the old one ends with that.
    async fn follow(&self, ordered: &mut Ordered) -> Result<(), Status> {
        let endpoint =
            Endpoint::from_shared(self.gateway.clone()).map_err(|it| Status::from_error(Box::new(it)))?;
        let endpoint = endpoint.http2_keep_alive_interval(PING).keep_alive_timeout(PONG);
        let mut renewed = pin!(self.dialer.renewed(self.dialer.generation()));
        let channel =
            endpoint.connect_with_connector_lazy(self.dialer.connector(Expected::Any(Role::Gateway)));
        let (tell, told) = mpsc::channel(1);
        say(&tell, RegionalNews { regional: Some(self.me.clone()), orders: Vec::new() }).await?;
        let mut calls = GatewayClient::new(channel).max_decoding_message_size(MAX_ORDERS);
        let asked = timeout(FIRST, calls.attend(ReceiverStream::new(told)));
        let mut orders = asked.await.map_err(|_| silent())??.into_inner();
        ordered.begin_to_tell();
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut said_at = Instant::now();
        loop {
            tokio::select! {
                () = renewed.as_mut() => return Ok(()),
                standing = orders.message() => {
                    let ended = || Status::unavailable("the gateway ended the stream");
                    let standing: RegionalOrders = standing?.ok_or_else(ended)?;
                    ordered.stand(standing);
                }
                _ = looks.tick() => {
                    // One at a time, since each may have many rows.
                    let mut news: Vec<_> = ordered.news().into_iter().map(|it| vec![it]).collect();
                    if news.is_empty() && said_at.elapsed() >= QUIET {
                        news.push(Vec::new());
                    }
                    for orders in news {
                        say(&tell, RegionalNews { regional: None, orders }).await?;
                        said_at = Instant::now();
                    }
                }
            }
        }
    }
}

/// Whether a gateway is of a release that knows no orders: it lets no region in there.
fn is_older(status: &Status) -> bool {
    matches!(status.code(), Code::Unimplemented | Code::Unauthenticated)
}

async fn say(tell: &mpsc::Sender<RegionalNews>, news: RegionalNews) -> Result<(), Status> {
    let ended = |_| Status::unavailable("the gateway takes no news");
    timeout(TAKEN, tell.send(news)).await.map_err(|_| silent())?.map_err(ended)
}

fn silent() -> Status {
    Status::deadline_exceeded("the gateway did not answer in time")
}
