//! Fetching pieces from another node, and hearing what it holds.
//!
//! Every wait has a deadline on progress, none on the whole: a large range over a slow link is fine as long
//! as bytes come, if more than a handful. An answer is only taken when it says that it is the range that was asked, and exactly as
//! many bytes follow; what they are worth is for the store to say, which knows the digests.
//!
//! Connections are kept, pieces over HTTP/1.1 and watches over one HTTP/2 connection per node, so that
//! asking a known neighbour costs no handshake.

use std::error::Error;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use lru::LruCache;
use shoal_identity::{Connector, Dialer, Expected};
use shoal_model::{BlobKey, Node, NodeId};
use shoal_oci::range::ContentRange;
use shoal_ops::traces;
use shoal_proto::peer_client::PeerClient as PeerGrpc;
use shoal_proto::{
    BlobNews, Removal, RemoveReply, RemoveRequest, StoreProgress, StoreRequest, Ticket, WatchRequest,
};
use tokio::time::{Instant, sleep_until, timeout};
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

use crate::channel::endpoint;
use crate::piece_path;
use crate::watch::MAX_ATTESTATIONS;

/// How long a node may take to its first answer, and to so many of its bytes.
const PATIENCE: Duration = Duration::from_secs(3);
const PROGRESS: u64 = 4 << 10;
/// How long a node that stores blobs may say nothing; it has something to say every few seconds.
const SILENCE: Duration = Duration::from_secs(20);
/// A node is heard no more often than this, however much it has to tell: honest ones keep a longer distance.
const NEWS_DISTANCE: Duration = Duration::from_millis(5);
/// How long an unused connection for pieces is kept, and how many to one node.
const IDLE: Duration = Duration::from_secs(60);
const IDLE_PER_NODE: usize = 8;
/// How much is read at once, in bytes: large enough that a read costs little beside its bytes, and small enough that unused
/// connections, each of which keeps so much, take little.
const READ: usize = 64 << 10;
/// How many nodes' connections are kept.
const LINKS: NonZeroUsize = NonZeroUsize::new(256).expect("not zero");
/// The longest explanation of a refusal that is read, in bytes.
const MAX_REASON: usize = 1024;
/// What one attestation may take in a message besides its digests, in bytes.
const ATTESTATION: usize = 1 << 10;

/// Why a node did not give what was asked of it.
#[derive(Debug, thiserror::Error)]
#[error("peer {node}, blob {key}: {fault}")]
pub struct FetchError {
    /// The node that was asked.
    pub node: NodeId,
    /// The blob.
    pub key: BlobKey,
    /// What happened.
    pub fault: Fault,
}

/// What went wrong with a request to a node.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It has no upload slot free.
    #[error("no upload slot is free")]
    Busy,
    /// It does not hold the blob or the pieces.
    #[error("not held there")]
    NotHeld,
    /// It does not accept the ticket.
    #[error("refused: {0}")]
    Refused(String),
    /// No connection came about, or it broke before an answer.
    #[error("unreachable: {0}")]
    Unreachable(String),
    /// It made no progress for the allowed time.
    #[error("less than {PROGRESS} bytes within {PATIENCE:?}")]
    Stalled,
    /// It said nothing for so long that it must be gone.
    #[error("nothing heard for {SILENCE:?}")]
    Silent,
    /// The bytes ended early.
    #[error("cut short, {missing} of {asked} bytes are missing")]
    Cut {
        /// How many did not come.
        missing: u64,
        /// How many were asked.
        asked: u64,
    },
    /// More came than was asked.
    #[error("more than the {asked} bytes that were asked")]
    TooMuch {
        /// How many were asked.
        asked: u64,
    },
    /// An answer that no node of this kind gives.
    #[error("unexpected answer: {0}")]
    Unexpected(String),
}

impl Fault {
    /// Whether the node that was asked is in order: it lacks something at this moment, or the ticket was not
    /// good enough. Others are to be left alone for a while.
    pub const fn is_well(&self) -> bool {
        match self {
            Self::Busy | Self::NotHeld | Self::Refused(_) => true,
            Self::Unreachable(_)
            | Self::Stalled
            | Self::Silent
            | Self::Cut { .. }
            | Self::TooMuch { .. }
            | Self::Unexpected(_) => false,
        }
    }
}

/// Asks other nodes; clones share their connections.
#[derive(Clone)]
pub struct PeerClient {
    dialer: Dialer,
    links: Arc<Mutex<LruCache<Party, Link>>>,
}

/// A node at an address: one that moves is dialled anew, and one that took another's address is not taken
/// for it.
type Party = (NodeId, Arc<str>);

/// The connections to one node; dialled when they are first used, and again when they broke.
#[derive(Clone)]
struct Link {
    /// With which certificate they are made: they end with it.
    generation: u64,
    pieces: Client<Connector, Empty<Bytes>>,
    watches: Channel,
}

impl PeerClient {
    /// Without connections yet.
    pub fn new(dialer: Dialer) -> Self {
        Self { dialer, links: Arc::new(Mutex::new(LruCache::new(LINKS))) }
    }

    /// Asks `node` for the bytes `range` of a blob, which must not be empty. Returns once the node has
    /// agreed; the bytes follow. The node is told where the span at hand stands in a trace.
    pub async fn fetch(
        &self,
        node: &Node,
        key: &BlobKey,
        range: Range<u64>,
        ticket: &Ticket,
    ) -> Result<PieceBytes, FetchError> {
        let request = piece_request(node, key, &range, ticket);
        self.ask(node, key, range, request).await
    }

    /// The same, before other asks: nodes have further slots for pieces that many wait for, and for those who have
    /// little else under way.
    pub async fn fetch_urgent(
        &self,
        node: &Node,
        key: &BlobKey,
        range: Range<u64>,
        ticket: &Ticket,
    ) -> Result<PieceBytes, FetchError> {
        let mut request = piece_request(node, key, &range, ticket);
        if let Ok(request) = &mut request {
            request.headers_mut().insert(piece_path::URGENT, HeaderValue::from_static("1"));
        }
        self.ask(node, key, range, request).await
    }

    async fn ask(
        &self,
        node: &Node,
        key: &BlobKey,
        range: Range<u64>,
        request: Result<Request<Empty<Bytes>>, Fault>,
    ) -> Result<PieceBytes, FetchError> {
        let asked = range.end.saturating_sub(range.start);
        let at = At::new(node, key);
        let answer = async {
            let response = within(self.link(node)?.pieces.request(request?)).await?;
            let response = response.map_err(|it| Fault::Unreachable(chain(&it)))?;
            agreed(response, &range).await
        };
        match answer.await {
            Ok(body) => Ok(PieceBytes { at, body, asked, missing: asked, pace: Pace::default() }),
            Err(fault) => Err(at.error(fault)),
        }
    }

    /// Asks `node` what it holds of a blob of so many pieces, now and as it changes.
    pub async fn watch(
        &self,
        node: &Node,
        key: &BlobKey,
        n_pieces: u32,
        ticket: &Ticket,
    ) -> Result<Watching, FetchError> {
        let at = At::new(node, key);
        let request = WatchRequest { key: key.clone(), ticket: ticket.clone() };
        let answer = async {
            let Link { generation, watches, .. } = self.link(node)?;
            let mut grpc = PeerGrpc::new(watches).max_decoding_message_size(longest_news(n_pieces));
            let response = within(grpc.watch(request)).await?.map_err(|it| of_status(&it))?;
            Ok((response.into_inner(), generation))
        };
        match answer.await {
            Ok((news, generation)) => {
                let (dialer, quiet_until) = (self.dialer.clone(), Instant::now());
                Ok(Watching { at, news, generation, dialer, quiet_until })
            }
            Err(fault) => Err(at.error(fault)),
        }
    }

    /// Has `node` fetch blobs and keep them, for a gateway only.
    ///
    /// # Errors
    /// What the node, or the way there, has against it.
    pub async fn store(&self, node: &Node, request: StoreRequest) -> Result<StoringThere, Fault> {
        let mut grpc = PeerGrpc::new(self.link(node)?.watches);
        let response = within(grpc.store(request)).await?.map_err(|it| of_status(&it))?;
        Ok(StoringThere(response.into_inner()))
    }

    /// Has `node` remove blobs, for a gateway only. Returns what was done about each.
    ///
    /// # Errors
    /// What the node, or the way there, has against it.
    pub async fn remove(&self, node: &Node, request: RemoveRequest) -> Result<Vec<Removal>, Fault> {
        let n_blobs = request.0.len();
        let mut grpc = PeerGrpc::new(self.link(node)?.watches);
        let answer = timeout(SILENCE, grpc.remove(request)).await.map_err(|_| Fault::Silent)?;
        let RemoveReply(removals) = answer.map_err(|it| of_status(&it))?.into_inner();
        match removals.len() == n_blobs {
            true => Ok(removals),
            false => Err(Fault::Unexpected(format!("{} outcomes for {n_blobs} blobs", removals.len()))),
        }
    }

    fn link(&self, node: &Node) -> Result<Link, Fault> {
        let party = (node.id.clone(), node.address.clone());
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        // What is under way on old connections goes on.
        if links.peek(&party).is_some_and(|it| it.generation != self.dialer.generation()) {
            links.pop(&party);
        }
        let link = links.try_get_or_insert(party, || Link::new(node, &self.dialer));
        link.cloned().map_err(|it: tonic::transport::Error| Fault::Unreachable(chain(&it)))
    }
}

impl Link {
    fn new(node: &Node, dialer: &Dialer) -> Result<Self, tonic::transport::Error> {
        let connector = dialer.connector(Expected::node(node));
        let pieces = Client::builder(TokioExecutor::new())
            .http1_read_buf_exact_size(READ)
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(IDLE_PER_NODE)
            .build(connector.clone());
        // The connector sees to security; to HTTP it is a connection like any other.
        let watches = endpoint(format!("http://{}", node.address))?.connect_with_connector_lazy(connector);
        Ok(Self { generation: dialer.generation(), pieces, watches })
    }
}

/// Blobs that a node fetches to keep them. Dropping it drops the wish.
pub struct StoringThere(Streaming<StoreProgress>);

impl StoringThere {
    /// What the node says next; `None` when each blob has come to its end.
    ///
    /// # Errors
    /// Where it says no more, be it that it has nothing to tell.
    pub async fn next(&mut self) -> Result<Option<StoreProgress>, Fault> {
        let said = timeout(SILENCE, self.0.message()).await.map_err(|_| Fault::Silent)?;
        said.map_err(|it| of_status(&it))
    }
}

/// The bytes of a range, as they come.
pub struct PieceBytes {
    at: At,
    body: Incoming,
    asked: u64,
    missing: u64,
    pace: Pace,
}

/// How long a node has been waited for since it last made progress, and the bytes that came since.
#[derive(Default)]
struct Pace {
    waited: Duration,
    n_bytes: u64,
}

impl Pace {
    /// Waits for a node as long as it has left. What the receiver takes for itself does not count.
    async fn wait_for<T>(&mut self, it: impl Future<Output = T>) -> Result<T, Fault> {
        let began = Instant::now();
        let res = timeout(PATIENCE.saturating_sub(self.waited), it).await;
        self.waited += began.elapsed();
        res.map_err(|_| Fault::Stalled)
    }

    fn came(&mut self, n_bytes: usize) {
        self.n_bytes += n_bytes as u64;
        if self.n_bytes >= PROGRESS {
            *self = Self::default();
        }
    }
}

impl PieceBytes {
    /// The next bytes, which keep a larger buffer in memory; `None` after the last of exactly as many as were asked.
    pub async fn next(&mut self) -> Result<Option<Bytes>, FetchError> {
        match self.frame().await {
            Ok(bytes) => Ok(bytes),
            Err(fault) => Err(self.at.error(fault)),
        }
    }

    async fn frame(&mut self) -> Result<Option<Bytes>, Fault> {
        loop {
            let frame = match self.pace.wait_for(self.body.frame()).await? {
                Some(Ok(frame)) => frame,
                None if self.missing == 0 => return Ok(None),
                Some(Err(_)) | None => {
                    return Err(Fault::Cut { missing: self.missing, asked: self.asked });
                }
            };
            if let Ok(bytes) = frame.into_data() {
                self.pace.came(bytes.len());
                self.missing = self
                    .missing
                    .checked_sub(bytes.len() as u64)
                    .ok_or(Fault::TooMuch { asked: self.asked })?;
                return Ok(Some(bytes));
            }
        }
    }
}

/// What a node tells of a blob.
pub struct Watching {
    at: At,
    news: Streaming<BlobNews>,
    generation: u64,
    dialer: Dialer,
    /// It is not heard before this.
    quiet_until: Instant,
}

impl Watching {
    /// The next news. `None` when it was ended in good order: by the node, because its blob is gone, the ticket
    /// ran out or it stops, or here, because a new certificate wants a new connection. Whoever still wants to
    /// know asks again with a fresh ticket.
    pub async fn next(&mut self) -> Result<Option<BlobNews>, FetchError> {
        sleep_until(self.quiet_until).await;
        tokio::select! {
            news = self.news.message() => {
                self.quiet_until = Instant::now() + NEWS_DISTANCE;
                news.map_err(|it| self.at.error(of_status(&it)))
            }
            () = self.dialer.renewed(self.generation) => Ok(None),
        }
    }

    /// Whether it has to be begun anew for the sake of a new certificate, and for nothing else.
    pub fn is_outdated(&self) -> bool {
        self.dialer.generation() != self.generation
    }
}

/// Whom a request went to, and about what.
#[derive(Debug)]
struct At {
    node: NodeId,
    key: BlobKey,
}

impl At {
    fn new(node: &Node, key: &BlobKey) -> Self {
        Self { node: node.id.clone(), key: key.clone() }
    }

    fn error(&self, fault: Fault) -> FetchError {
        FetchError { node: self.node.clone(), key: self.key.clone(), fault }
    }
}

/// The longest message of a watch, in bytes: what is read before it is looked at takes many times that. Digests of
/// all pieces in as many attestations as one message may have, and all runs of pieces, with some room.
fn longest_news(n_pieces: u32) -> usize {
    let n_pieces = n_pieces as usize;
    (64 << 10) + 48 * n_pieces + ATTESTATION * MAX_ATTESTATIONS.min(2 * n_pieces)
}

async fn within<T>(it: impl Future<Output = T>) -> Result<T, Fault> {
    timeout(PATIENCE, it).await.map_err(|_| Fault::Stalled)
}

fn piece_request(
    node: &Node,
    key: &BlobKey,
    range: &Range<u64>,
    ticket: &Ticket,
) -> Result<Request<Empty<Bytes>>, Fault> {
    let uri = Uri::builder()
        .scheme("http")
        .authority(&*node.address)
        .path_and_query(piece_path::write(key))
        .build();
    uri.and_then(|uri| {
        let range = format!("bytes={}-{}", range.start, range.end.saturating_sub(1));
        let request = Request::get(uri).header(header::RANGE, range);
        let mut request = request.header(piece_path::TICKET, &ticket.0).body(Empty::new())?;
        traces::tell(traces::here(), request.headers_mut());
        Ok(request)
    })
    .map_err(|it| Fault::Unreachable(it.to_string()))
}

/// The body of an answer that brings exactly `range`.
async fn agreed(response: Response<Incoming>, range: &Range<u64>) -> Result<Incoming, Fault> {
    let busy = response.headers().contains_key(piece_path::BUSY);
    match response.status() {
        StatusCode::PARTIAL_CONTENT if states(response.headers(), range) => Ok(response.into_body()),
        StatusCode::PARTIAL_CONTENT => Err(Fault::Unexpected("another range than asked".into())),
        StatusCode::NOT_FOUND => Err(Fault::NotHeld),
        StatusCode::SERVICE_UNAVAILABLE if busy => Err(Fault::Busy),
        StatusCode::FORBIDDEN => Err(Fault::Refused(reason(response).await?)),
        status => Err(Fault::Unexpected(format!("{status}: {}", reason(response).await?))),
    }
}

fn states(headers: &HeaderMap, asked: &Range<u64>) -> bool {
    let stated = headers.get(header::CONTENT_RANGE).and_then(|it| it.to_str().ok()?.parse().ok());
    matches!(stated, Some(ContentRange::Part { range, .. }) if range == *asked)
}

/// What a node says about its refusal; whatever of it cannot be read is left out.
async fn reason(response: Response<Incoming>) -> Result<String, Fault> {
    let body = within(Limited::new(response, MAX_REASON).collect()).await?;
    let text = body.map(|it| it.to_bytes()).unwrap_or_default();
    Ok(String::from_utf8_lossy(&text).into_owned())
}

fn of_status(status: &Status) -> Fault {
    let text = || status.message().to_owned();
    match status.code() {
        Code::NotFound => Fault::NotHeld,
        Code::PermissionDenied => Fault::Refused(text()),
        Code::ResourceExhausted => Fault::Busy,
        Code::Unavailable => Fault::Unreachable(chain(status)),
        code => Fault::Unexpected(format!("{code}: {}", text())),
    }
}

/// An error with its causes, in one line.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(it) = cause {
        text = format!("{text}: {it}");
        cause = it.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{self, geometry, key, node, soon, ticket};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    /// A node that answers one request with these bytes, whatever was asked; the connection is returned.
    async fn answer(listener: TcpListener, bytes: &str) -> TcpStream {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            request.push(stream.read_u8().await.unwrap());
        }
        stream.write_all(bytes.as_bytes()).await.unwrap();
        stream
    }

    async fn listen() -> (TcpListener, Node) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let node = node(&listener.local_addr().unwrap().to_string());
        (listener, node)
    }

    /// Fetches the ten bytes from 5 on.
    async fn fetched(node: &Node) -> Result<Vec<u8>, Fault> {
        let mut bytes = Vec::new();
        let fetch = async {
            let client = testing::client();
            let mut pieces = client.fetch(node, &key(1), 5..15, &ticket(&key(1))).await?;
            while let Some(chunk) = pieces.next().await? {
                bytes.extend_from_slice(&chunk);
            }
            Ok(())
        };
        soon(fetch).await.map_err(|it: FetchError| it.fault)?;
        Ok(bytes)
    }

    #[track_caller]
    fn check(response: &str, expected: Result<&str, Fault>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let seen = runtime.block_on(async {
            let (listener, node) = listen().await;
            let served = async { drop(answer(listener, response).await) };
            tokio::join!(fetched(&node), served).0
        });
        assert_eq!(seen, expected.map(|it| it.as_bytes().to_vec()), "{response}");
    }

    fn partial(content_range: &str, framing: &str, body: &str) -> String {
        format!("HTTP/1.1 206 Partial Content\r\nContent-Range: {content_range}\r\n{framing}\r\n\r\n{body}")
    }

    #[test]
    fn exactly_the_bytes_asked_are_taken() {
        let right = "bytes 5-14/100";
        let cut = |missing| Err(Fault::Cut { missing, asked: 10 });
        let too_much = Err(Fault::TooMuch { asked: 10 });
        let other = Err(Fault::Unexpected("another range than asked".into()));
        for (content_range, framing, body, expected) in [
            (right, "Content-Length: 10", "0123456789", Ok("0123456789")),
            (right, "Content-Length: 10", "0123", cut(6)),
            (right, "Content-Length: 4", "0123", cut(6)),
            (right, "Content-Length: 12", "0123456789ab", too_much.clone()),
            (right, "Connection: close", "0123456789", Ok("0123456789")),
            (right, "Connection: close", "0123456789a", too_much),
            (right, "Transfer-Encoding: chunked", "4\r\n0123\r\n0\r\n\r\n", cut(6)),
            (right, "Transfer-Encoding: chunked", "4\r\n0123\r\n", cut(6)),
            ("bytes 0-9/100", "Content-Length: 10", "0123456789", other.clone()),
            ("bytes 5-15/100", "Content-Length: 11", "0123456789a", other.clone()),
            ("nonsense", "Content-Length: 10", "0123456789", other),
        ] {
            check(&partial(content_range, framing, body), expected);
        }
    }

    #[test]
    fn each_answer_says_whose_fault_it_is() {
        let status = |line: &str, rest: &str| format!("HTTP/1.1 {line}\r\n{rest}");
        let (empty, why) = ("Content-Length: 0\r\n\r\n", "Content-Length: 3\r\n\r\nwhy");
        let unexpected = |text: &str| Err(Fault::Unexpected(text.into()));
        check(&status("503 No", &format!("shoal-busy: 1\r\n{empty}")), Err(Fault::Busy));
        check(&status("503 No", empty), unexpected("503 Service Unavailable: "));
        check(&status("404 No", empty), Err(Fault::NotHeld));
        check(&status("403 No", why), Err(Fault::Refused("why".into())));
        check(&status("416 No", why), unexpected("416 Range Not Satisfiable: why"));
        check(&status("200 OK", why), unexpected("200 OK: why"));
        let endless = format!("Content-Length: 5000\r\n\r\n{}", "a".repeat(5000));
        check(&status("403 No", &endless), Err(Fault::Refused(String::new())));
        for (fault, expected) in [
            (Fault::Busy, true),
            (Fault::NotHeld, true),
            (Fault::Refused(String::new()), true),
            (Fault::Stalled, false),
            (Fault::Cut { missing: 1, asked: 2 }, false),
        ] {
            assert_eq!(fault.is_well(), expected, "{fault}");
        }
    }

    #[tokio::test]
    async fn a_node_that_does_not_speak_is_unreachable() {
        let (listener, node) = listen().await;
        let nonsense = async { drop(answer(listener, "SSH-2.0-x\r\n").await) };
        let (seen, ()) = tokio::join!(fetched(&node), nonsense);
        assert!(matches!(seen, Err(Fault::Unreachable(_))), "{seen:?}");
        // Nobody listens there any more.
        let seen = fetched(&node).await;
        assert!(matches!(seen, Err(Fault::Unreachable(_))), "{seen:?}");
        let watching = testing::client().watch(&node, &key(1), geometry().n_pieces(), &ticket(&key(1))).await;
        let seen = watching.map(drop).map_err(|it| it.fault);
        assert!(matches!(seen, Err(Fault::Unreachable(_))), "{seen:?}");
    }

    #[tokio::test]
    async fn an_address_that_is_none_is_unreachable() {
        let seen = fetched(&node("no such/host")).await;
        assert!(matches!(seen, Err(Fault::Unreachable(_))), "{seen:?}");
    }

    #[tokio::test]
    async fn a_node_that_makes_no_progress_has_stalled() {
        let half = partial("bytes 5-14/100", "Content-Length: 10", "0123");
        for bytes in ["", "HTTP/1.1 206 Part", half.as_str()] {
            let (listener, node) = listen().await;
            let stalls = async {
                let stream = answer(listener, bytes).await;
                // All has been sent. From here on the clock runs ahead, since nothing else happens.
                tokio::time::pause();
                stream
            };
            let (seen, _stream) = tokio::join!(fetched(&node), stalls);
            tokio::time::resume();
            assert_eq!(seen, Err(Fault::Stalled), "{bytes}");
        }
    }
}
