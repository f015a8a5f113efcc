//! A node's stream to one scheduler.
//!
//! Whenever it breaks the link joins again after a while and tells the node's state anew, since a scheduler keeps
//! nothing of a node whose stream ended.

use std::error::Error;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use shoal_identity::{Dialer, Expected, Role};
use shoal_model::Rng;
use shoal_proto::scheduler_client::SchedulerClient;
use shoal_proto::{Hello, SchedulerMessage};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use super::outbox::{Announce, Outbox};
use super::routing::{Stream, may_say};
use crate::backoff::Backoff;
use crate::channel::endpoint;

/// How long a scheduler may take to accept a stream.
const JOIN: Duration = Duration::from_secs(3);
/// How long a scheduler may take to end the stream of a node that leaves.
const GOODBYE: Duration = Duration::from_secs(1);
/// Within what time the nodes of a fleet come back with renewed certificates. A certificate is renewed long
/// before it ends.
const SPREAD: Duration = Duration::from_secs(15);

/// The task behind one stream, over and over.
pub(super) struct Link {
    pub(super) address: Arc<str>,
    pub(super) hello: Hello,
    pub(super) dialer: Dialer,
    pub(super) announce: Arc<dyn Announce>,
    /// Spreads the attempts of a fleet.
    pub(super) rng: Rng,
    pub(super) outbox: Arc<Outbox>,
    /// What the scheduler says about its blobs.
    pub(super) inbox: mpsc::Sender<SchedulerMessage>,
}

/// Why there is no stream to the scheduler.
#[derive(Debug, thiserror::Error)]
enum LinkError {
    #[error("scheduler: cannot be reached")]
    Unreachable(#[source] tonic::transport::Error),
    #[error("scheduler: accepted no stream within {JOIN:?}")]
    Slow,
    #[error("scheduler: refused the node")]
    Refused(#[source] Status),
    #[error("scheduler: broke the stream")]
    Broken(#[source] Status),
    #[error("scheduler: ended the stream")]
    Ended,
    #[error("scheduler: does not take what it is told")]
    Overflowed,
    #[error("this node's certificate was renewed")]
    Renewed,
    #[error("scheduler: nobody takes its messages")]
    Unheard,
}

impl Link {
    /// Keeps the stream until `stopping`, then says goodbye in good order.
    pub(super) async fn run(mut self, stopping: CancellationToken) {
        let mut backoff = Backoff::default();
        while !stopping.is_cancelled() {
            let joined = stopping.run_until_cancelled(self.join(&backoff)).await;
            if let Some(Some((stream, incoming))) = joined {
                let since = Instant::now();
                self.converse(&stream, incoming, &stopping).await;
                backoff.lived(since.elapsed());
            }
            let wait = sleep(backoff.next(&mut self.rng));
            stopping.run_until_cancelled(wait).await;
        }
    }

    async fn join(&self, backoff: &Backoff) -> Option<(Stream, Streaming<SchedulerMessage>)> {
        let error = match self.attempt().await {
            Ok(joined) => return Some(joined),
            Err(error) => error,
        };
        self.outbox.failed(&self.address);
        let (scheduler, error) = (&*self.address, &error as &dyn Error);
        // Once per outage is news, every few seconds is noise.
        if backoff.is_fresh() {
            tracing::warn!(scheduler, error, "no scheduler");
        } else {
            tracing::debug!(scheduler, error, "still no scheduler");
        }
        None
    }

    async fn attempt(&self) -> Result<(Stream, Streaming<SchedulerMessage>), LinkError> {
        let endpoint = endpoint(self.address.as_ref().to_owned()).map_err(LinkError::Unreachable)?;
        let connector = self.dialer.connector(Expected::Any(Role::Scheduler));
        let channel = endpoint.connect_with_connector(connector).await;
        let channel = channel.map_err(LinkError::Unreachable)?;
        let (stream, outgoing) = self.outbox.stream(&self.address, self.hello.clone(), self.announce.clone());
        let joined = timeout(JOIN, SchedulerClient::new(channel).join(outgoing)).await;
        let response = joined.map_err(|_| LinkError::Slow)?.map_err(LinkError::Refused)?;
        Ok((stream, response.into_inner()))
    }

    /// Talks with the scheduler until either side ends it.
    async fn converse(
        &mut self,
        stream: &Stream,
        incoming: Streaming<SchedulerMessage>,
        stopping: &CancellationToken,
    ) {
        let spread = SPREAD.mul_f64(self.rng.below(1000) as f64 / 1000.0);
        let (address, outbox) = (&*self.address, &self.outbox);
        let generation = self.dialer.generation();
        outbox.joined(stream);
        tracing::info!(scheduler = address, connected = outbox.live(), "joined scheduler");
        let mut relay = pin!(self.relay(incoming));
        let error = tokio::select! {
            error = relay.as_mut() => Some(error),
            () = outbox.overflowed(stream) => Some(LinkError::Overflowed),
            () = renewed(&self.dialer, generation, spread) => Some(LinkError::Renewed),
            () = stopping.cancelled() => None,
        };
        if error.is_none() {
            outbox.leave(stream);
            // However it ends: the scheduler also notices a node that just goes.
            let _ = timeout(GOODBYE, relay).await;
        }
        outbox.lost(stream);
        let connected = outbox.live();
        match error {
            Some(error @ LinkError::Renewed) => {
                tracing::info!(scheduler = address, why = %error, connected, "joining the scheduler anew");
            }
            Some(error) => {
                tracing::warn!(
                    scheduler = address,
                    error = &error as &dyn Error,
                    connected,
                    "lost scheduler"
                );
            }
            None => tracing::info!(scheduler = address, connected, "left scheduler"),
        }
    }

    /// Hands on what the scheduler says of its blobs, until there is no more.
    async fn relay(&self, mut incoming: Streaming<SchedulerMessage>) -> LinkError {
        let owners = self.outbox.owners();
        loop {
            match incoming.message().await {
                Ok(Some(message)) => {
                    let is_heard = may_say(&owners.borrow(), &self.address, &message);
                    if is_heard && self.inbox.send(message).await.is_err() {
                        return LinkError::Unheard;
                    }
                }
                Ok(None) => return LinkError::Ended,
                Err(status) => return LinkError::Broken(status),
            }
        }
    }
}

/// Waits until this node has another certificate, and then a while, so that not all nodes of a fleet come back at
/// once: the stream of the old certificate ends with that.
async fn renewed(dialer: &Dialer, generation: u64, spread: Duration) {
    dialer.renewed(generation).await;
    sleep(spread).await;
}
