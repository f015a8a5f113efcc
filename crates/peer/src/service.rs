//! What a node's peer port serves: pieces over HTTP, watches and the wishes of gateways over gRPC, told apart by their
//! paths.
//!
//! A service with more to offer on the same port asks [`PeerService::owns`] which requests are for here.

use std::convert::Infallible;
use std::error::Error;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use http::{Request, Response};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use shoal_proto::peer_server::{Peer, PeerServer};
use shoal_proto::{RemoveReply, RemoveRequest, StoreProgress, StoreRequest, WatchRequest};
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::{Response as Answer, Status};
use tower::Service;

use crate::piece_path;
use crate::pieces::PieceServer;
use crate::remove::{RemoveService, Remover};
use crate::shelf::{Door, Refusals, Shelf};
use crate::store::{StoreService, Storer};
use crate::ticket::Verifier;
use crate::watch::{WatchService, Watched};

/// How long a reader of the peer port may refuse to take the next byte. The server that runs a
/// [`PeerService`] has to cut it then: a slow reader holds an upload slot.
pub const STALL: Duration = Duration::from_secs(10);

/// What the paths of the `Peer` service begin with.
const GRPC: &str = "/shoal.v1.Peer/";

/// How much other nodes may take at once.
#[derive(Clone, Copy, Debug)]
pub struct PeerLimits {
    /// Ranges being sent; more are refused, and the asker goes elsewhere.
    pub upload_slots: usize,
    /// Watches; more are refused.
    pub watches: usize,
}

/// Serves pieces and watches; clones share their limits.
#[derive(Clone)]
pub struct PeerService {
    pieces: PieceServer,
    calls: PeerServer<Calls>,
    watches: Arc<WatchService>,
    refused: Refusals,
    stopping: CancellationToken,
}

/// The `Peer` service.
struct Calls {
    watches: Arc<WatchService>,
    /// Where gateways may have blobs stored and removed.
    wishes: Option<(StoreService, RemoveService)>,
}

#[tonic::async_trait]
impl Peer for Calls {
    type WatchStream = Watched;
    type StoreStream = BoxStream<'static, Result<StoreProgress, Status>>;

    async fn watch(
        &self,
        request: tonic::Request<WatchRequest>,
    ) -> Result<Answer<Self::WatchStream>, Status> {
        self.watches.watch(request)
    }

    async fn store(
        &self,
        request: tonic::Request<StoreRequest>,
    ) -> Result<Answer<Self::StoreStream>, Status> {
        let (_, from, request) = request.into_parts();
        let wishes = self.wishes.as_ref();
        let (stores, _) = wishes.ok_or_else(|| Status::unimplemented("store: not done here"))?;
        stores.begin(&from, request).map(Answer::new)
    }

    async fn remove(&self, request: tonic::Request<RemoveRequest>) -> Result<Answer<RemoveReply>, Status> {
        let (_, from, request) = request.into_parts();
        let wishes = self.wishes.as_ref();
        let (_, removes) = wishes.ok_or_else(|| Status::unimplemented("remove: not done here"))?;
        removes.answer(&from, request).await.map(Answer::new)
    }
}

impl PeerService {
    /// Shares what is on `shelf` with those whose tickets `verifier` believes. Watches end on `stopping`;
    /// pieces being sent are sent to the end.
    pub fn new(
        shelf: Arc<dyn Shelf>,
        verifier: Arc<Verifier>,
        limits: PeerLimits,
        stopping: CancellationToken,
    ) -> Self {
        let door = Door::new(shelf, verifier);
        let watches = Arc::new(WatchService::new(door.clone(), limits.watches, stopping.clone()));
        let refused = door.refused().clone();
        let pieces = PieceServer::new(door, limits.upload_slots);
        let calls = PeerServer::new(Calls { watches: watches.clone(), wishes: None });
        Self { pieces, calls, watches, refused, stopping }
    }

    /// The same, and gateways may have `keeper` fetch blobs and remove them.
    pub fn obeying<K: Storer + Remover>(self, keeper: Arc<K>) -> Self {
        let stores = StoreService::new(keeper.clone(), self.stopping.clone());
        let wishes = Some((stores, RemoveService::new(keeper)));
        let calls = PeerServer::new(Calls { watches: self.watches.clone(), wishes });
        Self { calls, ..self }
    }

    /// Whether requests for this path are for this service.
    pub fn owns(path: &str) -> bool {
        path.starts_with(GRPC) || path.starts_with(piece_path::PREFIX)
    }

    /// Bytes of pieces sent to other nodes.
    pub const fn uploaded(&self) -> &Counter {
        self.pieces.uploaded()
    }

    /// Adds what is counted here to the process's metrics.
    pub fn register(&self, registry: &mut Registry) {
        let uploaded = self.pieces.uploaded().clone();
        registry.register("peer_upload_bytes", "Bytes of pieces sent to other nodes", uploaded);
        let refused = self.refused.clone();
        registry.register("peer_refused", "Requests of nodes whose ticket was not good, by reason", refused);
    }
}

/// What is not for this service is answered like a piece with a wrong path.
impl<B> Service<Request<B>> for PeerService
where
    B: http_body::Body + Send + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>> + Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        if request.uri().path().starts_with(GRPC) {
            return self.calls.call(request);
        }
        let pieces = self.pieces.clone();
        let (request, _) = request.into_parts();
        async move { Ok(pieces.answer(request).await) }.boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RegionKeys;
    use crate::attest;
    use crate::client::Fault;
    use crate::testing::{self, blob, content, geometry, key, region_keys, soon, ticket};
    use bytes::{Bytes, BytesMut};
    use http::StatusCode;
    use http_body_util::Empty;
    use shoal_blobstore::{Blob, PieceDigest, Store};
    use shoal_identity::{Clients, Reception};
    use shoal_model::{BlobKey, Node};
    use shoal_ops::serve::{Limits, Listener, ServeMetrics, serve};
    use shoal_proto::BlobNews;
    use shoal_swarm::{Geometry, PieceIndex};
    use std::ops::Range;
    use std::time::SystemTime;
    use tempfile::TempDir;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpSocket, TcpStream};
    use tower::ServiceExt as _;

    const PLENTY: PeerLimits = PeerLimits { upload_slots: 8, watches: 8 };

    /// A node that shares a store on a port of its own.
    struct Peer {
        node: Node,
        store: Store,
        service: PeerService,
        stopping: CancellationToken,
        _dir: TempDir,
    }

    fn offline(limits: PeerLimits) -> Peer {
        let (dir, store) = testing::store();
        let stopping = CancellationToken::new();
        let shelf = Arc::new(store.clone());
        Peer {
            node: testing::node("127.0.0.1:1"),
            service: PeerService::new(shelf, testing::verifier(), limits, stopping.clone()),
            store,
            stopping,
            _dir: dir,
        }
    }

    async fn online(limits: PeerLimits, stall: Duration) -> Peer {
        let listener = Listener::bind("peer", ([127, 0, 0, 1], 0).into()).await.unwrap();
        let listener = listener.with(Reception::new(None, Clients::Any));
        let mut peer = offline(limits);
        peer.node = testing::node(&listener.addr().to_string());
        let (service, stopping) = (peer.service.clone(), peer.stopping.clone());
        tokio::spawn(async move {
            let limits = Limits { stall, ..Limits::new(64) };
            serve(listener, service, limits, &ServeMetrics::default(), stopping).await;
        });
        peer
    }

    async fn fetched(peer: &Peer, key: &BlobKey, range: Range<u64>) -> Result<Bytes, Fault> {
        let mut bytes = BytesMut::new();
        let fetch = async {
            let mut pieces = testing::client().fetch(&peer.node, key, range, &ticket(key)).await?;
            while let Some(chunk) = pieces.next().await? {
                bytes.extend_from_slice(&chunk);
            }
            Ok(())
        };
        soon(fetch).await.map_err(|it: crate::client::FetchError| it.fault)?;
        Ok(bytes.freeze())
    }

    #[tokio::test]
    async fn what_is_held_is_fetched_by_range() {
        let peer = online(PLENTY, STALL).await;
        blob(&peer.store, &key(1), &[0, 1, 3]).await;
        let mut uploaded = 0;
        for range in [0..600_000, 0..1, 299_999..300_001, 900_000..1_000_000] {
            let expected = content().slice(range.start as usize..range.end as usize);
            uploaded += expected.len() as u64;
            assert_eq!(fetched(&peer, &key(1), range).await, Ok(expected));
        }
        assert_eq!(peer.service.pieces.uploaded().get(), uploaded);
        for range in [600_000..900_000, 599_999..600_001, 0..1_000_000] {
            assert_eq!(fetched(&peer, &key(1), range).await, Err(Fault::NotHeld));
        }
        assert_eq!(fetched(&peer, &key(2), 0..10).await, Err(Fault::NotHeld));
    }

    #[tokio::test]
    async fn without_a_free_slot_a_node_is_busy() {
        let none = PeerLimits { upload_slots: 0, ..PLENTY };
        let peer = online(none, STALL).await;
        blob(&peer.store, &key(1), &[0]).await;
        assert_eq!(fetched(&peer, &key(1), 0..10).await, Err(Fault::Busy));
        assert_eq!(fetched(&peer, &key(1), 300_000..300_010).await, Err(Fault::NotHeld));
    }

    /// A blob of more bytes than all buffers between two nodes take.
    async fn large(store: &Store, key: &BlobKey) -> Blob {
        let geometry = Geometry::stated(64 << 20, 4 << 20).unwrap();
        let blob = store.create(key, geometry).unwrap();
        let chunks = vec![Bytes::from(vec![7; 4 << 20])];
        let digests = vec![PieceDigest::of(&chunks); geometry.n_pieces() as usize];
        blob.learn(0, &digests, Bytes::new()).unwrap();
        for index in 0..geometry.n_pieces() {
            blob.write(index, chunks.clone()).await.unwrap();
        }
        blob
    }

    /// Fetches with one slot in all, which another request has had.
    async fn once_free(peer: &Peer, key: &BlobKey) {
        let free = async {
            loop {
                match fetched(peer, key, 0..10).await {
                    Err(Fault::Busy) => tokio::task::yield_now().await,
                    other => break other,
                }
            }
        };
        assert_eq!(soon(free).await, Ok(Bytes::from_static(&[7; 10])));
    }

    const ONE_SLOT: PeerLimits = PeerLimits { upload_slots: 1, watches: 1 };

    #[tokio::test]
    async fn a_slot_is_taken_until_its_reader_goes() {
        let peer = online(ONE_SLOT, STALL).await;
        large(&peer.store, &key(1)).await;
        let client = testing::client();
        let reader = client.fetch(&peer.node, &key(1), 0..64 << 20, &ticket(&key(1))).await;
        assert_eq!(fetched(&peer, &key(1), 0..10).await, Err(Fault::Busy));
        drop(reader);
        once_free(&peer, &key(1)).await;
    }

    #[tokio::test]
    async fn a_slot_is_taken_until_what_was_sent_has_arrived() {
        const LEN: u64 = 1 << 20;
        let (peer, key) = (online(ONE_SLOT, STALL).await, key(1));
        large(&peer.store, &key).await;
        let mut reader = slow_reader(&peer, &key, 0..LEN).await;
        let sent = async {
            while peer.service.pieces.uploaded().get() < LEN {
                tokio::task::yield_now().await;
            }
        };
        soon(sent).await;
        for _ in 0..3 {
            assert_eq!(fetched(&peer, &key, 0..10).await, Err(Fault::Busy), "most lies in the kernel");
        }
        let rest = async { while reader.read(&mut [0; 4096]).await.unwrap() > 0 {} };
        tokio::select! {
            () = rest => panic!("the connection is kept"),
            () = once_free(&peer, &key) => {}
        }
    }

    /// Asks for a range and takes no byte of it; the kernel takes few.
    async fn slow_reader(peer: &Peer, key: &BlobKey, range: Range<u64>) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(8 << 10).unwrap();
        let mut stream = socket.connect(peer.node.address.parse().unwrap()).await.unwrap();
        let (path, ticket, last) = (piece_path::write(key), ticket(key).0, range.end - 1);
        let request = format!(
            "GET {path} HTTP/1.1\r\nhost: peer\r\nshoal-ticket: {ticket}\r\nrange: bytes={}-{last}\r\n\r\n",
            range.start
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        stream
    }

    #[tokio::test]
    async fn an_urgent_request_finds_a_slot_where_others_find_none() {
        let peer = online(ONE_SLOT, STALL).await;
        large(&peer.store, &key(1)).await;
        let (client, ticket, key) = (testing::client(), ticket(&key(1)), key(1));
        let urgent = || client.fetch_urgent(&peer.node, &key, 0..64 << 20, &ticket);
        let first = client.fetch(&peer.node, &key, 0..64 << 20, &ticket).await.unwrap();
        let second = urgent().await.unwrap();
        assert_eq!(fetched(&peer, &key, 0..10).await, Err(Fault::Busy));
        assert_eq!(urgent().await.err().map(|it| it.fault), Some(Fault::Busy), "these are bounded as well");
        drop((first, second));
    }

    #[tokio::test]
    async fn a_reader_that_takes_nothing_loses_its_slot() {
        let peer = online(ONE_SLOT, Duration::from_millis(50)).await;
        large(&peer.store, &key(1)).await;
        let client = testing::client();
        let mut reader = client.fetch(&peer.node, &key(1), 0..64 << 20, &ticket(&key(1))).await.unwrap();
        once_free(&peer, &key(1)).await;
        let end = async { while let Ok(Some(_)) = reader.next().await {} };
        soon(end).await;
    }

    #[track_caller]
    fn check_status(method: &str, path: &str, headers: &[(&str, &str)], expected: u16) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let peer = offline(PLENTY);
            blob(&peer.store, &key(1), &[0]).await;
            let mut request = Request::builder().method(method).uri(path);
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            let mut request = request.body(Empty::<Bytes>::new()).unwrap();
            *request.extensions_mut() = testing::anybody();
            let Ok(response) = peer.service.oneshot(request).await;
            assert_eq!(response.status(), StatusCode::from_u16(expected).unwrap());
        });
    }

    #[test]
    fn each_refusal_has_its_status() {
        let path = piece_path::write(&key(1));
        let (good, other) = (ticket(&key(1)).0, ticket(&key(2)).0);
        let expired = testing::ticket_until(&key(1), SystemTime::now() - Duration::from_secs(2)).0;
        let (good, other, expired) = (
            ("shoal-ticket", good.as_str()),
            ("shoal-ticket", other.as_str()),
            ("shoal-ticket", expired.as_str()),
        );
        let range = ("range", "bytes=0-9");
        check_status("GET", &path, &[good, range], 206);
        check_status("POST", &path, &[good, range], 405);
        check_status("GET", "/pieces/x", &[good, range], 400);
        check_status("GET", "/elsewhere", &[good, range], 400);
        check_status("GET", &path, &[range], 400);
        check_status("GET", &path, &[("shoal-ticket", "x"), range], 403);
        check_status("GET", &path, &[other, range], 403);
        check_status("GET", &path, &[expired, range], 403);
        check_status("GET", &path, &[good], 416);
        check_status("GET", &path, &[good, ("range", "bytes=9-0")], 416);
        check_status("GET", &path, &[good, ("range", "bytes=1000000-1000001")], 416);
        check_status("GET", &path, &[good, ("range", "bytes=0-300000")], 404);
        check_status("GET", &piece_path::write(&key(2)), &[other, range], 404);
    }

    #[test]
    fn it_knows_its_own_paths() {
        for (path, expected) in [
            ("/pieces/a/b", true),
            ("/shoal.v1.Peer/Watch", true),
            ("/shoal.v1.Gateway/Open", false),
            ("/v2/", false),
            ("/piecesx", false),
        ] {
            assert_eq!(PeerService::owns(path), expected, "{path}");
        }
    }

    /// The pieces whose digests some news bring.
    fn attested(news: &BlobNews, keys: &RegionKeys) -> Vec<PieceIndex> {
        let first = |it| attest::check(it, keys, &key(1), &geometry()).map(|it| it.first);
        news.attestations.iter().map(|it| first(it).unwrap()).collect()
    }

    #[tokio::test]
    async fn a_watcher_hears_of_all_that_is_held_and_becomes_so() {
        let peer = online(PLENTY, STALL).await;
        let blob = blob(&peer.store, &key(1), &[0, 2]).await;
        let client = testing::client();
        let mut watching =
            client.watch(&peer.node, &key(1), geometry().n_pieces(), &ticket(&key(1))).await.unwrap();
        let keys = region_keys(&[1]);

        let news = soon(watching.next()).await.unwrap().unwrap();
        assert_eq!((attested(&news, &keys), news.gained), (vec![0, 2], vec![0..1, 2..3]));

        testing::hold(&blob, 3).await;
        let (mut digests, mut gained) = (Vec::new(), Vec::new());
        while gained.is_empty() {
            let news = soon(watching.next()).await.unwrap().unwrap();
            digests.extend(attested(&news, &keys));
            gained.extend(news.gained.into_iter().flatten());
        }
        assert_eq!((digests, gained), (vec![3], vec![3]));

        blob.clear("a test says so");
        let news = soon(watching.next()).await.unwrap().unwrap();
        assert_eq!((news.dropped, news.gained), (true, vec![]));

        peer.stopping.cancel();
        assert_eq!(soon(watching.next()).await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_watch_needs_a_ticket_and_a_blob_and_a_place() {
        let peer = online(ONE_SLOT, STALL).await;
        blob(&peer.store, &key(1), &[]).await;
        let client = testing::client();
        let fault = async |asked: &BlobKey, shown: &BlobKey| {
            let watching = soon(client.watch(&peer.node, asked, geometry().n_pieces(), &ticket(shown))).await;
            watching.map(drop).map_err(|it| it.fault)
        };
        assert!(matches!(fault(&key(1), &key(2)).await, Err(Fault::Refused(_))));
        assert_eq!(fault(&key(2), &key(2)).await, Err(Fault::NotHeld));
        let first = client.watch(&peer.node, &key(1), geometry().n_pieces(), &ticket(&key(1))).await;
        assert_eq!(fault(&key(1), &key(1)).await, Err(Fault::Busy));
        drop(first);
    }
}
