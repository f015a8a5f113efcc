//! A node's one stream to its scheduler.
//!
//! The scheduler makes pulls better, never possible: nothing here makes anybody wait for it. Messages are
//! queued with a bound (see the outbox), and whenever the stream breaks the link joins again after a while
//! and announces the node's whole state, since a scheduler keeps nothing of a node whose stream ended.
//!
//! The first address of the list that takes the node in is used. The list may change at any time: a change
//! ends a wait at once, and a stream to an address that is no longer listed is left for another.

use std::error::Error;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future;
use shoal_identity::{Dialer, Expected, Role};
use shoal_model::{Node, Rng};
use shoal_proto::scheduler_client::SchedulerClient;
use shoal_proto::{Hello, NodeMessage, PROTOCOL, SchedulerMessage};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use crate::backoff::Backoff;
use crate::channel::endpoint;
pub use crate::outbox::Announce;
use crate::outbox::Outbox;

/// How long a scheduler may take to accept a stream.
const JOIN: Duration = Duration::from_secs(3);
/// How long a scheduler may take to end the stream of a node that leaves.
const GOODBYE: Duration = Duration::from_secs(1);
/// Within what time the nodes of a fleet come back with renewed certificates. A certificate is renewed long
/// before it ends.
const SPREAD: Duration = Duration::from_secs(15);
/// Messages of the scheduler that wait for their owner; more wait at the scheduler.
const INBOX: usize = 64;

/// The node's side of the link; clones are of the same link.
#[derive(Clone)]
pub struct SchedulerLink {
    outbox: Arc<Outbox>,
    connected: watch::Receiver<bool>,
}

impl SchedulerLink {
    /// Makes a link for `node` to the first live one of `addresses` (`https://host:port` each). It does
    /// nothing until the [`LinkDriver`] runs. `rng` spreads the reconnects and should differ per node.
    pub fn new(
        node: Node,
        dialer: &Dialer,
        addresses: watch::Receiver<Vec<String>>,
        announce: Arc<dyn Announce>,
        rng: Rng,
    ) -> (Self, mpsc::Receiver<SchedulerMessage>, LinkDriver) {
        let outbox = Arc::new(Outbox::default());
        let (inbox, received) = mpsc::channel(INBOX);
        let (connected, connection) = watch::channel(false);
        let link = Self { outbox: outbox.clone(), connected: connection };
        let driver = LinkDriver {
            hello: Hello { node, protocol: PROTOCOL },
            dialer: dialer.clone(),
            addresses,
            announce,
            rng,
            outbox,
            inbox,
            connected,
        };
        (link, received, driver)
    }

    /// Tells the scheduler something, when it listens. Never waits, and never loses what matters: in place
    /// of messages that could not be kept, the node's whole state is announced.
    pub fn send(&self, message: NodeMessage) {
        self.outbox.push(message);
    }

    /// Whether a scheduler listens, now and at every change.
    pub fn connected(&self) -> watch::Receiver<bool> {
        self.connected.clone()
    }
}

/// The task behind a [`SchedulerLink`].
pub struct LinkDriver {
    hello: Hello,
    dialer: Dialer,
    addresses: watch::Receiver<Vec<String>>,
    announce: Arc<dyn Announce>,
    rng: Rng,
    outbox: Arc<Outbox>,
    inbox: mpsc::Sender<SchedulerMessage>,
    connected: watch::Sender<bool>,
}

/// Why there is no stream to a scheduler.
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
    #[error("scheduler: no longer listed")]
    Unlisted,
    #[error("this node's certificate was renewed")]
    Renewed,
    #[error("scheduler: nobody takes its messages")]
    Unheard,
}

impl LinkDriver {
    /// Keeps the stream until `stopping`, then says goodbye in good order; ends as well when the receiver
    /// of the scheduler's messages is dropped.
    pub async fn run(mut self, stopping: CancellationToken) {
        let mut backoff = Backoff::default();
        while !stopping.is_cancelled() && !self.inbox.is_closed() {
            let joined = stopping.run_until_cancelled(self.join(&backoff)).await;
            if let Some(Some((address, incoming))) = joined {
                let since = Instant::now();
                self.converse(&address, incoming, &stopping).await;
                backoff.lived(since.elapsed());
            }
            let wait = sleep(backoff.next(&mut self.rng));
            tokio::select! {
                () = wait => {}
                () = changed(&mut self.addresses) => {}
                () = stopping.cancelled() => {}
            }
        }
    }

    /// Joins the first scheduler that takes the node in.
    async fn join(&mut self, backoff: &Backoff) -> Option<(String, Streaming<SchedulerMessage>)> {
        let addresses = self.addresses.borrow_and_update().clone();
        for address in addresses {
            match self.join_at(&address).await {
                Ok(incoming) => return Some((address, incoming)),
                // Once per outage is news, every few seconds is noise.
                Err(error) if backoff.is_fresh() => {
                    tracing::warn!(scheduler = address, error = &error as &dyn Error, "no scheduler");
                }
                Err(error) => {
                    tracing::debug!(scheduler = address, error = &error as &dyn Error, "still no scheduler");
                }
            }
        }
        None
    }

    async fn join_at(&self, address: &str) -> Result<Streaming<SchedulerMessage>, LinkError> {
        let endpoint = endpoint(address.to_owned()).map_err(LinkError::Unreachable)?;
        let connector = self.dialer.connector(Expected::Any(Role::Scheduler));
        let channel = endpoint.connect_with_connector(connector).await;
        let channel = channel.map_err(LinkError::Unreachable)?;
        let outgoing = self.outbox.stream(self.hello.clone(), self.announce.clone());
        let joined = timeout(JOIN, SchedulerClient::new(channel).join(outgoing)).await;
        let response = joined.map_err(|_| LinkError::Slow)?.map_err(LinkError::Refused)?;
        Ok(response.into_inner())
    }

    /// Talks with a scheduler until either side ends it.
    async fn converse(
        &mut self,
        address: &str,
        incoming: Streaming<SchedulerMessage>,
        stopping: &CancellationToken,
    ) {
        tracing::info!(scheduler = address, "joined scheduler");
        let generation = self.dialer.generation();
        self.connected.send_replace(true);
        let mut relay = pin!(relay(incoming, self.inbox.clone()));
        let error = tokio::select! {
            error = relay.as_mut() => Some(error),
            () = unlisted(&mut self.addresses, address) => Some(LinkError::Unlisted),
            () = renewed(&self.dialer, generation, &mut self.rng) => Some(LinkError::Renewed),
            () = stopping.cancelled() => None,
        };
        self.connected.send_replace(false);
        match error {
            Some(error @ LinkError::Renewed) => {
                tracing::info!(scheduler = address, why = %error, "joining the scheduler anew");
            }
            Some(error) => {
                tracing::warn!(scheduler = address, error = &error as &dyn Error, "lost scheduler");
            }
            None => {
                self.outbox.leave();
                // However it ends: the scheduler also notices a node that just goes.
                let _ = timeout(GOODBYE, relay).await;
            }
        }
    }
}

/// Hands the scheduler's messages on until there are no more.
async fn relay(
    mut incoming: Streaming<SchedulerMessage>,
    inbox: mpsc::Sender<SchedulerMessage>,
) -> LinkError {
    loop {
        match incoming.message().await {
            Ok(Some(message)) => {
                if inbox.send(message).await.is_err() {
                    return LinkError::Unheard;
                }
            }
            Ok(None) => return LinkError::Ended,
            Err(status) => return LinkError::Broken(status),
        }
    }
}

/// Waits for another list of addresses; for ever where nobody can change it any more.
async fn changed(addresses: &mut watch::Receiver<Vec<String>>) {
    if addresses.changed().await.is_err() {
        future::pending().await
    }
}

/// Waits until this node has another certificate, and then a while, so that not all nodes of a fleet come back at
/// once: the stream of the old certificate ends with that.
async fn renewed(dialer: &Dialer, generation: u64, rng: &mut Rng) {
    dialer.renewed(generation).await;
    sleep(SPREAD.mul_f64(rng.below(1000) as f64 / 1000.0)).await;
}

/// Waits until `address` is taken from the list.
async fn unlisted(addresses: &mut watch::Receiver<Vec<String>>, address: &str) {
    while addresses.borrow_and_update().iter().any(|it| it == address) {
        changed(addresses).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{self, key, soon};
    use shoal_proto::Neighbours;
    use shoal_proto::scheduler_server::{Scheduler, SchedulerServer};
    use shoal_swarm::Algorithm;
    use tokio::net::TcpListener;
    use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
    use tonic::transport::Server;
    use tonic::{Request, Response};

    /// A scheduler that hands the streams of its nodes to the test.
    struct Stub(mpsc::UnboundedSender<Joined>);

    /// One node's stream as the scheduler has it; dropping it ends the stream.
    struct Joined {
        from_node: Streaming<NodeMessage>,
        to_node: mpsc::Sender<Result<SchedulerMessage, Status>>,
    }

    #[tonic::async_trait]
    impl Scheduler for Stub {
        type JoinStream = ReceiverStream<Result<SchedulerMessage, Status>>;

        async fn join(
            &self,
            request: Request<Streaming<NodeMessage>>,
        ) -> Result<Response<Self::JoinStream>, Status> {
            let (to_node, replies) = mpsc::channel(1);
            let from_node = request.into_inner();
            self.0
                .send(Joined { from_node, to_node })
                .map_err(|_| Status::unavailable("the test is over"))?;
            Ok(Response::new(ReceiverStream::new(replies)))
        }
    }

    async fn scheduler() -> (String, mpsc::UnboundedReceiver<Joined>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let (joins, joined) = mpsc::unbounded_channel();
        let server = Server::builder().add_service(SchedulerServer::new(Stub(joins)));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        (address, joined)
    }

    /// A node that holds nothing.
    struct Holdings;

    impl Announce for Holdings {
        fn snapshot(&self) -> Vec<NodeMessage> {
            vec![NodeMessage::Progress(Vec::new())]
        }
    }

    struct Node {
        link: SchedulerLink,
        received: mpsc::Receiver<SchedulerMessage>,
        addresses: watch::Sender<Vec<String>>,
        stopping: CancellationToken,
    }

    fn node(addresses: &[&str]) -> Node {
        let addresses = addresses.iter().map(|it| (*it).to_owned()).collect();
        let (addresses, listed) = watch::channel(addresses);
        let node = testing::node("127.0.0.1:1");
        let (link, received, driver) =
            SchedulerLink::new(node, &Dialer::new(None), listed, Arc::new(Holdings), Rng::new(1));
        let stopping = CancellationToken::new();
        tokio::spawn(driver.run(stopping.clone()));
        Node { link, received, addresses, stopping }
    }

    /// The next stream of a node, whose greeting and announcement have been read.
    async fn greeted(joins: &mut mpsc::UnboundedReceiver<Joined>) -> Joined {
        let mut joined = soon(joins.recv()).await.unwrap();
        let hello = soon(joined.from_node.message()).await.unwrap();
        let state = soon(joined.from_node.message()).await.unwrap();
        assert!(matches!(hello, Some(NodeMessage::Hello(it)) if it.protocol == PROTOCOL));
        assert_eq!(state, Some(NodeMessage::Progress(Vec::new())));
        joined
    }

    async fn connected(node: &Node, expected: bool) {
        soon(node.link.connected().wait_for(|it| *it == expected)).await.unwrap();
    }

    #[tokio::test]
    async fn messages_pass_both_ways() {
        let (address, mut joins) = scheduler().await;
        let mut node = node(&[&address]);
        let mut joined = greeted(&mut joins).await;
        connected(&node, true).await;
        node.link.send(NodeMessage::Unwant(key(1)));
        assert_eq!(soon(joined.from_node.message()).await.unwrap(), Some(NodeMessage::Unwant(key(1))));
        let reply = SchedulerMessage::Neighbours(Neighbours {
            key: key(1),
            near: Vec::new(),
            far: Vec::new(),
            algorithm: Algorithm::Default,
        });
        joined.to_node.send(Ok(reply.clone())).await.unwrap();
        assert_eq!(soon(node.received.recv()).await, Some(reply));
    }

    #[tokio::test]
    async fn a_lost_scheduler_is_joined_anew_and_told_everything() {
        let (address, mut joins) = scheduler().await;
        let node = node(&[&address]);
        for _ in 0..3 {
            drop(greeted(&mut joins).await);
            connected(&node, false).await;
        }
    }

    #[tokio::test]
    async fn the_first_live_scheduler_is_taken() {
        let dead = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let (address, mut joins) = scheduler().await;
        let _node = node(&["no address", &format!("http://{dead}"), &address]);
        greeted(&mut joins).await;
    }

    #[tokio::test]
    async fn a_change_of_the_list_moves_the_link() {
        let (first, mut first_joins) = scheduler().await;
        let (second, mut second_joins) = scheduler().await;
        let node = node(&[]);
        node.addresses.send_replace(vec![first.clone()]);
        let mut joined = greeted(&mut first_joins).await;
        // Still listed: nothing happens to the stream.
        node.addresses.send_replace(vec![second.clone(), first]);
        node.link.send(NodeMessage::Unwant(key(1)));
        assert!(soon(joined.from_node.message()).await.unwrap().is_some());
        node.addresses.send_replace(vec![second]);
        greeted(&mut second_joins).await;
    }

    #[tokio::test]
    async fn a_node_that_stops_says_goodbye() {
        let (address, mut joins) = scheduler().await;
        let node = node(&[&address]);
        let mut joined = greeted(&mut joins).await;
        connected(&node, true).await;
        node.stopping.cancel();
        let last = soon(joined.from_node.message()).await.unwrap();
        assert_eq!(last, Some(NodeMessage::Leaving));
        assert_eq!(soon(joined.from_node.message()).await.unwrap(), None);
    }
}
