//! A node of the region that lies to the others.
//!
//! Its certificate is good and its ticket is its own. It holds a whole blob, it tells the scheduler, which then
//! neither has a gateway seed the blob nor leases a piece of it to anybody, and names the liar to everybody who wants
//! it. What it tells those who come, and what it sends them, is one [`Lie`].

// What is offered is mostly one run of pieces.
#![allow(clippy::single_range_in_vec_init)]

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use futures_util::stream::{self, BoxStream, Stream, StreamExt};
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, RANGE};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use shoal_model::BlobKey;
use shoal_proto::peer_client::PeerClient;
use shoal_proto::peer_server::{Peer, PeerServer};
use shoal_proto::scheduler_client::SchedulerClient;
use shoal_proto::{
    Attestation, BlobNews, BlobProgress, Hello, NodeMessage, OpenedBlob, PROTOCOL, RemoveReply,
    RemoveRequest, SeedProgress, Statement, StoreProgress, StoreRequest, Ticket, Want, WantedBlob,
    WatchRequest,
};
use shoal_swarm::Geometry;
use socket2::Socket;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::{interval, timeout};
use tokio_util::task::AbortOnDropHandle;
use tonic::{Request as Call, Response as Reply, Status};
use tower::Service;

use crate::fleet::Fleet;
use crate::image::{Blob, Image};
use crate::lab::Lab;
use crate::member::{Member, PEER_PORT};
use crate::server::{Answer, Body, Server, full};

const NAME: &str = "liar";
/// How long each part of the region may take to be lied to.
const DEADLINE: Duration = Duration::from_secs(30);
/// What the paths of the `Peer` service begin with.
const GRPC: &str = "/shoal.v1.Peer/";
/// How often a liar that is slow on purpose says something.
const SLOWLY: Duration = Duration::from_millis(500);
/// So many pieces are sent by the byte: more than two nodes ask for at once. It costs the liar more than anybody.
const CRUMBLED: u64 = 24;
/// As much of a message as one about the largest blob could have.
const SWOLLEN: usize = 40 << 20;

/// What a liar does to those who come to it.
#[derive(Clone, Debug, PartialEq)]
pub enum Lie {
    /// Accepts connections and says nothing, not even for TLS.
    Mute,
    /// Offers everything and never answers for a piece.
    Unanswering,
    /// The same, and says again and again that it is at work.
    AtWork,
    /// Offers everything and has nothing.
    NothingThere,
    /// Offers everything and never has a free upload slot.
    Busy,
    /// Sends other bytes.
    WrongBytes,
    /// Ends each piece in the middle.
    TooFew,
    /// Goes on after the end of a piece, for ever.
    TooMany,
    /// Sends the right bytes, a few in a second.
    Trickle,
    /// Sends the right bytes, each as a part of its own; after some pieces it is tired of that.
    Crumbs,
    /// Offers everything and brings no word of a gateway about it.
    Unattested,
    /// Brings such a word, with a signature of its own.
    Forged,
    /// Offers these pieces.
    Offers(Vec<Range<u32>>),
    /// Sends something else than gRPC has.
    Garbage,
    /// Begins a message that is longer than any may be, full of nothing.
    Swollen,
    /// Takes everything back and offers it anew, as fast as it is heard, and has nothing.
    Flood,
}

impl Lie {
    /// Whether it is told with a piece, and not with the news of pieces.
    fn is_told_by_pieces(&self) -> bool {
        match self {
            Self::Unanswering
            | Self::AtWork
            | Self::NothingThere
            | Self::Busy
            | Self::WrongBytes
            | Self::TooFew
            | Self::TooMany
            | Self::Trickle
            | Self::Crumbs
            | Self::Unattested => true,
            Self::Mute | Self::Forged | Self::Offers(_) | Self::Garbage | Self::Swollen | Self::Flood => {
                false
            }
        }
    }
}

/// A running liar. Dropping it ends it.
#[derive(Debug)]
pub struct Liar {
    told: Arc<Told>,
    _serving: Serving,
    _joined: AbortOnDropHandle<()>,
}

#[derive(Debug)]
#[expect(dead_code, reason = "dropped with the liar, which ends it")]
enum Serving {
    Requests(Server),
    Nothing(AbortOnDropHandle<()>),
}

impl Liar {
    /// Starts a liar about an image's first layer, on a machine of its own, and makes it known to the region.
    pub async fn join(lab: &mut Lab, fleet: &Fleet, image: &Image, lie: Lie) -> Result<Self> {
        let host = lab.host(NAME).await?;
        let (member, layer) = (Member::new(fleet, &host, NAME)?, &image.layers[0]);
        let OpenedBlob { key, geometry, ticket, .. } = member.open(image, layer).await?;
        let seal = timeout(DEADLINE, seal(&member, &key, &ticket)).await.context("no seal")??;
        let told = Arc::new(Told { lie, layer: layer.clone(), geometry, seal, n: AtomicU64::new(0) });
        let serving = match told.lie {
            Lie::Mute => {
                let holding = hold(host.listen(PEER_PORT)?, Arc::clone(&told));
                Serving::Nothing(AbortOnDropHandle::new(tokio::spawn(holding)))
            }
            _ => {
                let tls = Some(member.certify()?.server()?);
                Serving::Requests(Server::start(&host, PEER_PORT, tls, Arc::clone(&told))?)
            }
        };
        let joined =
            join(&member, WantedBlob { key, geometry, source: member.source(image), ticket, trace: None });
        let joined = timeout(DEADLINE, joined).await.context("the scheduler says nothing")??;
        Ok(Self { told, _serving: serving, _joined: joined })
    }

    /// How often the lie has been told.
    pub fn n_told(&self) -> u64 {
        self.told.n.load(Ordering::Relaxed)
    }
}

// === Becoming a neighbour ===

/// The gateway's word about a whole blob, which it seeds for that.
async fn seal(member: &Member, key: &BlobKey, ticket: &Ticket) -> Result<Attestation> {
    let request = WatchRequest { key: key.clone(), ticket: ticket.clone() };
    let mut news = PeerClient::new(member.channel(member.gateway).await?).watch(request).await?.into_inner();
    while let Some(BlobNews { attestations, .. }) = news.message().await? {
        for it in attestations {
            if Statement::decode(&it.statement)?.sealed {
                return Ok(it);
            }
        }
    }
    anyhow::bail!("the gateway ended its news before the seal")
}

/// Tells the scheduler that all pieces are held here, and stays.
async fn join(member: &Member, blob: WantedBlob) -> Result<AbortOnDropHandle<()>> {
    let (key, geometry) = (blob.key.clone(), blob.geometry);
    let last = geometry.n_pieces() - 1;
    let (say, said) = mpsc::channel(1);
    let said = stream::unfold(said, async |mut it| Some((it.recv().await?, it)));
    let hello = NodeMessage::Hello(Hello { node: member.node(), protocol: PROTOCOL });
    let want = NodeMessage::Want(Want { blob, held: vec![0..last], moved: false });
    let messages = stream::iter([hello, want]).chain(said);
    let mut scheduler = SchedulerClient::new(member.channel(member.scheduler).await?);
    let mut orders = scheduler.join(messages).await?.into_inner();
    // Whoever lacks a piece is told something, and so knows that it was heard.
    orders.message().await?.context("the scheduler ended the stream")?;
    let gained = vec![last..last + 1];
    say.send(NodeMessage::Progress(vec![BlobProgress { key, geometry, dropped: false, gained }])).await?;
    Ok(AbortOnDropHandle::new(tokio::spawn(async move {
        let _stays = say;
        while let Ok(Some(_)) = orders.message().await {}
    })))
}

// === Lying ===

/// A lie, what it is about, and how often it has been told.
#[derive(Debug)]
struct Told {
    lie: Lie,
    layer: Blob,
    geometry: Geometry,
    seal: Attestation,
    n: AtomicU64,
}

/// Keeps whatever is connected.
async fn hold(listener: TcpListener, told: Arc<Told>) {
    let mut held = Vec::new();
    while let Ok(accepted) = listener.accept().await {
        told.count();
        held.push(accepted);
    }
}

impl Told {
    fn count(&self) {
        self.n.fetch_add(1, Ordering::Relaxed);
    }

    /// News by which everything is offered.
    fn offer(&self) -> BlobNews {
        BlobNews {
            attestations: vec![self.seal.clone()],
            gained: vec![0..self.geometry.n_pieces()],
            ..BlobNews::default()
        }
    }

    fn news(&self) -> BoxStream<'static, BlobNews> {
        let offer = self.offer();
        match &self.lie {
            Lie::Unattested => lasting(BlobNews { attestations: Vec::new(), ..offer }),
            Lie::Forged => {
                let forged = Attestation { signature: [7; 64], ..self.seal.clone() };
                lasting(BlobNews { attestations: vec![forged], ..offer })
            }
            Lie::Offers(pieces) => lasting(BlobNews { gained: pieces.clone(), ..offer }),
            Lie::AtWork => stream::iter([offer]).chain(at_work()).boxed(),
            Lie::Flood => stream::repeat(BlobNews { dropped: true, ..offer }).boxed(),
            _ => lasting(offer),
        }
    }

    async fn piece(&self, headers: &HeaderMap) -> Response<Body> {
        let Some(range) = asked(headers) else { return status(StatusCode::RANGE_NOT_SATISFIABLE) };
        let bytes = self.layer.bytes.slice(range.start..range.end);
        match self.lie {
            Lie::Mute | Lie::Unanswering | Lie::AtWork => std::future::pending().await,
            Lie::NothingThere | Lie::Forged | Lie::Offers(_) | Lie::Garbage | Lie::Swollen | Lie::Flood => {
                status(StatusCode::NOT_FOUND)
            }
            Lie::Busy => {
                let mut response = status(StatusCode::SERVICE_UNAVAILABLE);
                response.headers_mut().insert("shoal-busy", 1.into());
                response
            }
            Lie::WrongBytes => {
                let other: Vec<u8> = bytes.iter().map(|it| !it).collect();
                self.part(&range, full(other))
            }
            Lie::TooFew => {
                let half = bytes.slice(..bytes.len() / 2);
                self.part(&range, parts(stream::iter([half])))
            }
            Lie::TooMany => {
                let mut response = self.part(&range, parts(stream::repeat(bytes)));
                response.headers_mut().remove(CONTENT_LENGTH);
                response
            }
            Lie::Trickle => self.part(&range, parts(trickle(bytes))),
            Lie::Crumbs if self.n.load(Ordering::Relaxed) <= CRUMBLED => {
                let crumbs = stream::unfold(bytes, async |mut it| {
                    let crumb = it.split_to(it.len().min(1));
                    (!crumb.is_empty()).then_some((crumb, it))
                });
                let mut response = self.part(&range, parts(crumbs));
                response.headers_mut().remove(CONTENT_LENGTH);
                response
            }
            Lie::Crumbs | Lie::Unattested => self.part(&range, full(bytes)),
        }
    }

    fn part(&self, range: &Range<usize>, body: Body) -> Response<Body> {
        let stated = format!("bytes {}-{}/{}", range.start, range.end - 1, self.layer.bytes.len());
        let response = Response::builder().status(StatusCode::PARTIAL_CONTENT);
        let response = response.header(CONTENT_RANGE, stated).header(CONTENT_LENGTH, range.len());
        response.body(body).unwrap_or_else(|_| status(StatusCode::INTERNAL_SERVER_ERROR))
    }
}

impl Answer for Told {
    async fn answer(self: Arc<Self>, request: Request<Incoming>, _: Arc<Socket>) -> Response<Body> {
        let is_news = request.uri().path().starts_with(GRPC);
        if is_news != self.lie.is_told_by_pieces() {
            self.count();
        }
        match self.lie {
            Lie::Garbage if is_news => grpc(parts(stream::repeat(Bytes::from_static(b"garbage")).take(99))),
            Lie::Swollen if is_news => grpc(swollen()),
            _ if is_news => {
                let Ok(response) = PeerServer::from_arc(self).call(request).await;
                response.map(|body| body.map_err(anyhow::Error::from).boxed_unsync())
            }
            _ => self.piece(request.headers()).await,
        }
    }
}

#[tonic::async_trait]
impl Peer for Told {
    type WatchStream = BoxStream<'static, Result<BlobNews, Status>>;

    async fn watch(&self, _: Call<WatchRequest>) -> Result<Reply<Self::WatchStream>, Status> {
        Ok(Reply::new(self.news().map(Ok).boxed()))
    }

    type StoreStream = BoxStream<'static, Result<StoreProgress, Status>>;

    async fn store(&self, _: Call<StoreRequest>) -> Result<Reply<Self::StoreStream>, Status> {
        Err(Status::unimplemented("it stores nothing"))
    }

    async fn remove(&self, _: Call<RemoveRequest>) -> Result<Reply<RemoveReply>, Status> {
        Err(Status::unimplemented("it has nothing"))
    }
}

/// One message, and then nothing any more.
fn lasting(news: BlobNews) -> BoxStream<'static, BlobNews> {
    stream::iter([news]).chain(stream::pending()).boxed()
}

/// Signs of life of a seed that is none.
fn at_work() -> impl Stream<Item = BlobNews> {
    stream::unfold((0, interval(SLOWLY)), async |(heartbeat, mut ticks)| {
        ticks.tick().await;
        let seed = Some(SeedProgress { heartbeat, ..SeedProgress::default() });
        Some((BlobNews { seed, ..BlobNews::default() }, (heartbeat + 1, ticks)))
    })
}

fn trickle(bytes: Bytes) -> impl Stream<Item = Bytes> {
    stream::unfold((bytes, interval(SLOWLY)), async |(mut bytes, mut ticks)| {
        ticks.tick().await;
        let few = bytes.split_to(bytes.len().min(3));
        Some((few, (bytes, ticks)))
    })
}

/// A message of empty attestations, each of which takes two bytes here and many more once it has been read.
fn swollen() -> Body {
    const EMPTY: [u8; 2] = [0x12, 0];
    let part = Bytes::from(EMPTY.repeat(32 << 10));
    let [a, b, c, d] = (SWOLLEN as u32).to_be_bytes();
    let head = Bytes::copy_from_slice(&[0, a, b, c, d]);
    let n_parts = SWOLLEN / part.len();
    parts(stream::iter([head]).chain(stream::repeat(part).take(n_parts)))
}

fn grpc(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

fn status(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(full(""));
    *response.status_mut() = status;
    response
}

fn parts(parts: impl Stream<Item = Bytes> + Send + 'static) -> Body {
    StreamBody::new(parts.map(|it| Ok(Frame::data(it)))).boxed_unsync()
}

/// The bytes that are asked for.
fn asked(headers: &HeaderMap) -> Option<Range<usize>> {
    let (first, last) = headers.get(RANGE)?.to_str().ok()?.strip_prefix("bytes=")?.split_once('-')?;
    Some(first.parse().ok()?..last.parse::<usize>().ok()? + 1)
}
