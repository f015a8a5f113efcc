//! A node and its schedulers over real sockets.

use super::*;
use crate::testing::{self, key, soon};
use shoal_model::BlobKey;
use shoal_proto::scheduler_server::{Scheduler, SchedulerServer};
use shoal_proto::{
    BlobsReply, BlobsRequest, Neighbours, NodesReply, NodesRequest, SwarmReply, SwarmRequest, TotalReply,
    TotalRequest,
};
use shoal_swarm::Algorithm;
use tokio::net::TcpListener;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

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
        self.0.send(Joined { from_node, to_node }).map_err(|_| Status::unavailable("the test is over"))?;
        Ok(Response::new(ReceiverStream::new(replies)))
    }

    type NodesStream = ReceiverStream<Result<NodesReply, Status>>;

    async fn nodes(&self, _: Request<NodesRequest>) -> Result<Response<Self::NodesStream>, Status> {
        Err(Status::unimplemented("nobody asks in these tests"))
    }

    type BlobsStream = ReceiverStream<Result<BlobsReply, Status>>;

    async fn blobs(&self, _: Request<BlobsRequest>) -> Result<Response<Self::BlobsStream>, Status> {
        Err(Status::unimplemented("nobody asks in these tests"))
    }

    async fn swarm(&self, _: Request<SwarmRequest>) -> Result<Response<SwarmReply>, Status> {
        Err(Status::unimplemented("nobody asks in these tests"))
    }

    async fn total(&self, _: Request<TotalRequest>) -> Result<Response<TotalReply>, Status> {
        Err(Status::unimplemented("nobody asks in these tests"))
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

/// An address that nobody answers at.
async fn nowhere() -> String {
    let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    format!("http://{address}")
}

/// A node that wants a hundred blobs.
struct Wishes;

fn blobs(concerns: &dyn Fn(&BlobKey) -> bool) -> Vec<u8> {
    (0..100).filter(|it| concerns(&key(*it))).collect()
}

impl Announce for Wishes {
    fn announce(&self, concerns: &dyn Fn(&BlobKey) -> bool) -> Vec<NodeMessage> {
        blobs(concerns).into_iter().map(|it| testing::wish(it, None)).collect()
    }
}

struct TestNode {
    schedulers: Schedulers,
    received: mpsc::Receiver<SchedulerMessage>,
    addresses: watch::Sender<Vec<String>>,
    stopping: CancellationToken,
}

fn node(addresses: &[&str]) -> TestNode {
    let addresses = addresses.iter().map(|it| (*it).to_owned()).collect();
    let (addresses, listed) = watch::channel(addresses);
    let node = testing::node("127.0.0.1:1");
    let (schedulers, received, driver) =
        Schedulers::new(node, &Dialer::new(None), listed, Arc::new(Wishes), Rng::new(1));
    let stopping = CancellationToken::new();
    tokio::spawn(driver.run(stopping.clone()));
    TestNode { schedulers, received, addresses, stopping }
}

impl TestNode {
    /// Waits until the blobs are shared by these alone.
    async fn shared_by(&self, addresses: &[&str]) {
        let mut expected = addresses.to_vec();
        expected.sort_unstable();
        let mut owners = self.schedulers.owners();
        let is_so = |it: &Owners| {
            it.candidates().eq(it.live()) && it.live().map(AsRef::as_ref).eq(expected.iter().copied())
        };
        soon(owners.wait_for(is_so)).await.unwrap();
    }

    /// The blobs of a scheduler.
    fn owned_by(&self, address: &str) -> Vec<u8> {
        let owners = self.schedulers.owners();
        let owners = owners.borrow();
        blobs(&|it| owners.owner(it).is_some_and(|it| **it == *address))
    }
}

/// The next stream of a node, whose greeting has been read.
async fn greeted(joins: &mut mpsc::UnboundedReceiver<Joined>) -> Joined {
    let mut joined = soon(joins.recv()).await.unwrap();
    let hello = soon(joined.from_node.message()).await.unwrap();
    assert!(matches!(hello, Some(NodeMessage::Hello(it)) if it.protocol == PROTOCOL));
    joined
}

/// The blobs of the next so many messages, which are wishes.
async fn wishes(joined: &mut Joined, n_wishes: usize) -> Vec<u8> {
    let mut wanted = Vec::new();
    while wanted.len() < n_wishes {
        let message = soon(joined.from_node.message()).await.unwrap();
        let Some(NodeMessage::Want(it)) = message else { panic!("{message:?} after {wanted:?}") };
        wanted.push(it.blob.key.digest.as_bytes()[0]);
    }
    wanted
}

fn neighbours(blob: u8) -> SchedulerMessage {
    SchedulerMessage::Neighbours(Neighbours {
        key: key(blob),
        near: Vec::new(),
        far: Vec::new(),
        algorithm: Algorithm::Default,
        gateway: None,
    })
}

#[tokio::test]
async fn messages_pass_both_ways() {
    let (address, mut joins) = scheduler().await;
    let mut node = node(&[&address]);
    let mut joined = greeted(&mut joins).await;
    assert_eq!(wishes(&mut joined, 100).await.len(), 100);
    node.schedulers.send(NodeMessage::Unwant(key(1)));
    assert_eq!(soon(joined.from_node.message()).await.unwrap(), Some(NodeMessage::Unwant(key(1))));
    joined.to_node.send(Ok(neighbours(1))).await.unwrap();
    assert_eq!(soon(node.received.recv()).await, Some(neighbours(1)));
}

#[tokio::test]
async fn a_lost_scheduler_is_joined_anew_and_told_everything() {
    let (address, mut joins) = scheduler().await;
    let node = node(&[&address]);
    for _ in 0..3 {
        let mut joined = greeted(&mut joins).await;
        assert_eq!(wishes(&mut joined, 100).await.len(), 100);
        node.shared_by(&[&address]).await;
    }
}

#[tokio::test]
async fn each_scheduler_is_told_of_its_own_blobs_and_heard_about_them_alone() {
    let ((first, mut first_joins), (second, mut second_joins)) = (scheduler().await, scheduler().await);
    let mut node = node(&[&first, &second]);
    let (mut one, mut other) = (greeted(&mut first_joins).await, greeted(&mut second_joins).await);
    node.shared_by(&[&first, &second]).await;
    let (firsts, seconds) = (node.owned_by(&first), node.owned_by(&second));
    assert_eq!(firsts.len() + seconds.len(), 100);
    assert_eq!(wishes(&mut one, firsts.len()).await, firsts);
    assert_eq!(wishes(&mut other, seconds.len()).await, seconds);
    for blob in [firsts[0], seconds[0]] {
        one.to_node.send(Ok(neighbours(blob))).await.unwrap();
        other.to_node.send(Ok(neighbours(blob))).await.unwrap();
        assert_eq!(soon(node.received.recv()).await, Some(neighbours(blob)));
    }
    for joined in [one, other] {
        joined.to_node.send(Ok(neighbours(firsts[1]))).await.unwrap();
    }
    assert_eq!(soon(node.received.recv()).await, Some(neighbours(firsts[1])), "none came twice");
}

#[tokio::test]
async fn the_blobs_of_a_scheduler_that_does_not_come_back_go_to_another() {
    let (address, mut joins) = scheduler().await;
    let nowhere = nowhere().await;
    let node = node(&["no address", &nowhere, &address]);
    let mut joined = greeted(&mut joins).await;
    let mut wanted = wishes(&mut joined, 100).await;
    wanted.sort_unstable();
    assert_eq!(wanted, (0..100).collect::<Vec<_>>());
    node.shared_by(&[&address]).await;
}

#[tokio::test]
async fn the_blobs_of_a_scheduler_that_hangs_go_to_another() {
    let hanging = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let hangs = format!("http://{}", hanging.local_addr().unwrap());
    let (address, mut joins) = scheduler().await;
    let node = node(&[&hangs, &address]);
    let mut joined = greeted(&mut joins).await;
    // It has a backlog, so that it seems to take connections.
    assert_eq!(wishes(&mut joined, 100).await.len(), 100);
    node.shared_by(&[&address]).await;
}

#[tokio::test]
async fn links_come_and_go_with_the_list() {
    let ((first, mut first_joins), (second, mut second_joins)) = (scheduler().await, scheduler().await);
    let node = node(&[]);
    node.addresses.send_replace(vec![first.clone()]);
    let mut one = greeted(&mut first_joins).await;
    wishes(&mut one, 100).await;
    node.addresses.send_replace(vec![second.clone(), first.clone()]);
    let mut other = greeted(&mut second_joins).await;
    node.shared_by(&[&first, &second]).await;
    let seconds = node.owned_by(&second);
    assert_eq!(wishes(&mut other, seconds.len()).await, seconds);
    for blob in seconds {
        assert_eq!(soon(one.from_node.message()).await.unwrap(), Some(NodeMessage::Unwant(key(blob))));
    }
    node.addresses.send_replace(vec![second.clone()]);
    assert_eq!(soon(one.from_node.message()).await.unwrap(), Some(NodeMessage::Leaving));
    assert_eq!(soon(one.from_node.message()).await.unwrap(), None);
    node.shared_by(&[&second]).await;
    assert_eq!(wishes(&mut other, node.owned_by(&first).len()).await, [0; 0]);
}

#[tokio::test]
async fn a_node_that_stops_says_goodbye() {
    let ((first, mut first_joins), (second, mut second_joins)) = (scheduler().await, scheduler().await);
    let node = node(&[&first, &second]);
    let joined = [greeted(&mut first_joins).await, greeted(&mut second_joins).await];
    node.shared_by(&[&first, &second]).await;
    let n_owned = [node.owned_by(&first).len(), node.owned_by(&second).len()];
    node.stopping.cancel();
    for (mut joined, n_owned) in joined.into_iter().zip(n_owned) {
        let mut last = Vec::new();
        while let Some(message) = soon(joined.from_node.message()).await.unwrap() {
            last = vec![message];
        }
        assert_eq!(last, [NodeMessage::Leaving], "after up to {n_owned} wishes");
    }
}

#[tokio::test]
async fn a_scheduler_that_does_not_take_what_it_is_told_is_joined_anew() {
    let (address, mut joins) = scheduler().await;
    let node = node(&[&address]);
    let slow = greeted(&mut joins).await;
    node.shared_by(&[&address]).await;
    // Far more than its queue and all buffers on the way take.
    (0..200_000).for_each(|_| node.schedulers.send(NodeMessage::Unwant(key(1))));
    let mut next = greeted(&mut joins).await;
    assert_eq!(wishes(&mut next, 100).await.len(), 100);
    drop(slow);
}

#[tokio::test]
async fn which_schedulers_a_node_is_connected_to_is_shown() {
    let ((address, mut joins), nowhere) = (scheduler().await, nowhere().await);
    let node = node(&[&address, &nowhere]);
    let mut registry = Registry::default();
    node.schedulers.register(&mut registry);
    let shown = || {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        let series = text.lines().filter_map(|it| it.strip_prefix("peer_scheduler_connected"));
        let mut series: Vec<_> = series.map(str::to_owned).collect();
        series.sort_unstable();
        series
    };
    let _joined = greeted(&mut joins).await;
    node.shared_by(&[&address]).await;
    let mut expected = [(&address, 1), (&nowhere, 0)].map(|(it, is)| format!("{{scheduler=\"{it}\"}} {is}"));
    expected.sort_unstable();
    assert_eq!(shown(), expected);
    node.addresses.send_replace(vec![address.clone()]);
    soon(node.schedulers.owners().wait_for(|it| !it.is_listed(&nowhere))).await.unwrap();
    assert_eq!(shown(), [format!("{{scheduler=\"{address}\"}} 1")]);
}
