//! What the services say to each other, in types that cannot be malformed.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use shoal_model::{Authorization, BlobKey, Digest, Node, NodeId, TrustGroup};
use shoal_swarm::table::{Sought, Standing};
use shoal_swarm::{Algorithm, Geometry, PieceIndex};

/// The revision of the rules that this build follows, told in [`Hello`].
pub const PROTOCOL: u32 = 1;

/// Asks a gateway whether the caller may read blobs of a repository, and how to get them.
#[derive(Clone, Debug, PartialEq)]
pub struct OpenRequest {
    /// From where: the caller's registry and repository.
    pub source: Source,
    /// At most [`OpenRequest::MAX_DIGESTS`].
    pub digests: Vec<Digest>,
    /// The caller's own credential; `None` for an anonymous caller.
    pub authorization: Option<Authorization>,
    /// The asking node.
    pub node: Node,
}

impl OpenRequest {
    /// The most digests in one request.
    pub const MAX_DIGESTS: usize = 256;
    /// So many of them a gateway decides about at the same time; more in one request wait for each other.
    pub const AT_ONCE: usize = 16;
}

/// A place that a registry serves blobs from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Source {
    /// The configured registry's name, as in `ns`.
    pub registry: String,
    /// The repository within it.
    pub repository: String,
}

/// What a gateway has decided by now. The replies to a request hold one answer for each requested digest.
#[derive(Clone, Debug, PartialEq)]
pub struct OpenReply(pub Vec<Opened>);

/// A gateway's answer for one blob.
#[derive(Clone, Debug, PartialEq)]
pub struct Opened {
    /// Which of the requested digests.
    pub index: usize,
    /// How to get the blob, or why not.
    pub outcome: Result<OpenedBlob, Refusal>,
}

/// A blob that the caller may read.
#[derive(Clone, Debug, PartialEq)]
pub struct OpenedBlob {
    /// What the swarm calls it.
    pub key: BlobKey,
    /// How it is cut.
    pub geometry: Geometry,
    /// Shown to schedulers, gateways and peers for everything about this blob.
    pub ticket: Ticket,
    /// The whole content, where it is small.
    pub content: Option<Bytes>,
    /// Nodes that lately held a ticket: the swarm for a node without a scheduler.
    pub holders: Vec<Node>,
    /// The gateway that owns the blob, the one that answered or another: the last resort inside the region.
    pub gateway: Node,
    /// For how long the ticket is good, from when the answer was made.
    pub ticket_lives: Duration,
}

/// A signed, short-lived proof that one node may obtain a blob, in its text form.
#[derive(Clone, PartialEq, Eq)]
pub struct Ticket(pub String);

impl std::fmt::Debug for Ticket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ticket(…)")
    }
}

/// The registry's answer where it did not grant, handed on to the runtime as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// An HTTP status from 400 to 599.
    pub status: u16,
    /// `WWW-Authenticate` headers, in order.
    pub challenges: Vec<String>,
    /// The body's media type.
    pub content_type: String,
    /// At most [`Refusal::MAX_BODY`] bytes.
    pub body: Bytes,
    /// `Retry-After`, where the registry gave one.
    pub retry_after: Option<Duration>,
}

impl Refusal {
    /// The longest body that is handed on, in bytes.
    pub const MAX_BODY: usize = 16 << 10;
}

/// Asks a gateway for a fresh ticket in place of one that is about to end.
#[derive(Clone, Debug, PartialEq)]
pub struct RenewRequest {
    /// Which blob.
    pub key: BlobKey,
    /// Still good, and given to the asking node.
    pub ticket: Ticket,
}

/// A fresh ticket.
#[derive(Clone, Debug, PartialEq)]
pub struct RenewReply {
    /// In place of the old one.
    pub ticket: Ticket,
    /// For how long it is good, from when the answer was made.
    pub ticket_lives: Duration,
}

/// Asks a gateway for a certificate.
#[derive(Clone, Debug, PartialEq)]
pub struct IssueRequest {
    /// PKCS #10 in DER. Only its key counts.
    pub signing_request: Bytes,
    /// What the asker proves itself with.
    pub credential: JoinCredential,
    /// What the machine calls itself; for logs, proves nothing.
    pub host: String,
}

/// What the asker for a certificate proves itself with. `Debug` shows none of it.
#[derive(Clone, PartialEq, Eq)]
pub enum JoinCredential {
    /// The secret that is shared by all nodes of one role.
    JoinToken(String),
    /// A Kubernetes service account's token, bound to a pod.
    ServiceAccountToken(String),
}

impl std::fmt::Debug for JoinCredential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::JoinToken(_) => "JoinToken(…)",
            Self::ServiceAccountToken(_) => "ServiceAccountToken(…)",
        })
    }
}

/// A certificate, in DER as all others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssueReply {
    /// The certificate and what lies between it and a root.
    pub chain: Vec<Bytes>,
    /// The region's roots.
    pub roots: Vec<Bytes>,
}

/// Asks a gateway to tell what the region consists of, now and at every change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegionRequest {
    /// Where the gateway of another region asks: who that is.
    pub regional: Option<Regional>,
}

/// The gateway of another region, as it says itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Regional {
    /// What its region is called.
    pub region: String,
    /// `host:port` where its own region reaches it.
    pub address: String,
}

/// What the gateway of another region tells the hub.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RegionalNews {
    /// Who attends; in the first message of a stream.
    pub regional: Option<Regional>,
    /// What has changed about orders, at most [`RegionalOrders::MAX`] of them.
    pub orders: Vec<OrderProgress>,
}

/// All orders that stand for the gateway of another region.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RegionalOrders(pub Vec<PreheatOrder>);

impl RegionalOrders {
    /// The most orders that stand.
    pub const MAX: usize = 32;
}

/// What a preheat job of the hub is to bring about in a region.
#[derive(Clone, Debug, PartialEq)]
pub struct PreheatOrder {
    /// The job's number at the gateway that tells this.
    pub job: u64,
    /// Which image, and where it is to be.
    pub wish: PreheatWish,
    /// Every blob of it, at most [`StoreRequest::MAX_BLOBS`].
    pub blobs: Vec<OrderedBlob>,
    /// For how long it is worth the while, from when the order was told.
    pub left: Duration,
    /// Whether the gateway that is told this is to carry it out; otherwise it may have to read the blobs.
    pub carry_out: bool,
    /// At most so many rows of either kind are told.
    pub max_rows: u32,
}

/// Where an image is to be, in the words of the management API.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PreheatWish {
    /// Its name.
    pub image: String,
    /// At gateways or at nodes.
    pub scope: String,
    /// The nodes of this zone only.
    pub zone: Option<String>,
    /// Addresses of the nodes that are meant.
    pub ips: Vec<String>,
    /// So many nodes.
    pub count: Option<u64>,
    /// So many of a hundred nodes.
    pub percentage: Option<u64>,
    /// Blobs at once at a node.
    pub blobs_at_once: u64,
    /// Nodes at once.
    pub nodes_at_once: u64,
}

/// A blob that a region is to hold.
#[derive(Clone, Debug, PartialEq)]
pub struct OrderedBlob {
    /// Its digest.
    pub digest: Digest,
    /// In bytes.
    pub size: u64,
    /// Given to the gateway that is told this.
    pub ticket: Ticket,
    /// For how long the ticket is good, from when the order was told.
    pub ticket_lives: Duration,
}

/// How far a region is with an order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OrderProgress {
    /// The job's number at the hub's gateway.
    pub job: u64,
    /// All rows of before are void.
    pub anew: bool,
    /// What it is at.
    pub doing: String,
    /// Bytes of all blobs at all nodes together.
    pub bytes: u64,
    /// What nodes hold of that.
    pub bytes_held: u64,
    /// Nodes that shall hold something.
    pub nodes: u64,
    /// Those that hold all of it.
    pub nodes_done: u64,
    /// Those that will not.
    pub nodes_failed: u64,
    /// Nodes that hold each blob and that will not, in the order's order.
    pub blobs: Vec<[u64; 2]>,
    /// Further nodes at which a blob has come to its end.
    pub rows: Vec<BlobAtNode>,
    /// So many are not told.
    pub rows_left_out: u64,
    /// What is to be said about the whole.
    pub errors: Vec<String>,
    /// Whether it is over, and whether at least one node holds all that it should.
    pub succeeded: Option<bool>,
}

impl OrderProgress {
    /// The most rows in one message.
    pub const MAX_ROWS: usize = 2000;
    /// The most errors.
    pub const MAX_ERRORS: usize = 16;
}

/// A blob at a node of another region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobAtNode {
    /// Which of the order's blobs.
    pub blob: usize,
    /// The node's name.
    pub node: String,
    /// Its address.
    pub ip: String,
    /// Why it does not hold the blob, if it does not; at most [`Stored::MAX_CAUSE`] bytes.
    pub failed: Option<String>,
}

/// What a region consists of.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RegionState {
    /// gRPC addresses, `https://host:port`; `http` where the region has no transport security.
    pub schedulers: Vec<String>,
    /// Ed25519 public keys that sign attestations and tickets.
    pub verifying_keys: Vec<[u8; 32]>,
    /// The trust group of each configured registry.
    pub trust_groups: BTreeMap<String, TrustGroup>,
    /// The gateway that tells this, where it says so.
    pub gateway: Option<Node>,
    /// Of the verifying keys, those that it signs with itself.
    pub own_keys: Vec<[u8; 32]>,
    /// Whether it borrows what it asks of registries from what all gateways may ask together.
    pub borrows: bool,
}

/// What a node tells its scheduler.
#[derive(Clone, Debug, PartialEq)]
pub enum NodeMessage {
    /// First on every stream.
    Hello(Hello),
    /// The node wishes to hold a blob.
    Want(Want),
    /// What the node holds, batched.
    Progress(Vec<BlobProgress>),
    /// The node no longer wishes a blob; what it holds it still shares.
    Unwant(BlobKey),
    /// The node wants a blob, no neighbour serves it and no gateway answers.
    Stranded(BlobKey),
    /// The node goes away in good order.
    Leaving,
    /// Something that a newer build says and this one does not know; to be ignored.
    Unknown,
}

/// Who speaks, and by which rules.
#[derive(Clone, Debug, PartialEq)]
pub struct Hello {
    /// The node itself.
    pub node: Node,
    /// Revision of the rules that it follows.
    pub protocol: u32,
}

/// A node's wish for a blob.
#[derive(Clone, Debug, PartialEq)]
pub struct Want {
    /// Which blob, how it is cut, from where it may be seeded.
    pub blob: WantedBlob,
    /// The pieces that the node holds already.
    pub held: Vec<Range<PieceIndex>>,
    /// The blob has just come to this scheduler: nodes that hold it may not have told it yet.
    pub moved: bool,
}

/// A blob and all that a gateway needs in order to seed it.
#[derive(Clone, Debug, PartialEq)]
pub struct WantedBlob {
    /// What the swarm calls it.
    pub key: BlobKey,
    /// How it is cut.
    pub geometry: Geometry,
    /// From where a gateway may fetch it.
    pub source: Source,
    /// The wanting node's proof.
    pub ticket: Ticket,
}

/// What changed at a node about one blob since its last report.
#[derive(Clone, Debug, PartialEq)]
pub struct BlobProgress {
    /// Which blob.
    pub key: BlobKey,
    /// How it is cut.
    pub geometry: Geometry,
    /// Everything held before is gone; `gained` counts from nothing.
    pub dropped: bool,
    /// Pieces newly held.
    pub gained: Vec<Range<PieceIndex>>,
}

/// What a scheduler tells a node.
#[derive(Clone, Debug, PartialEq)]
pub enum SchedulerMessage {
    /// Whom to ask for a blob; replaces what was said before.
    Neighbours(Neighbours),
    /// A grant to bring pieces into the region, the zone or the rack.
    Lease(Lease),
    /// To a gateway: fetch this blob from its registry and serve it.
    Seed(SeedOrder),
    /// To a stranded node: fetch this blob from its registry with the caller's own credential.
    GoDirect(BlobKey),
    /// Something that a newer build says and this one does not know; to be ignored.
    Unknown,
}

/// A blob to be seeded.
#[derive(Clone, Debug, PartialEq)]
pub struct SeedOrder {
    /// Which, and by whose ticket.
    pub blob: WantedBlob,
    /// Some who hold pieces of it, whoever holds most first.
    pub holders: Vec<Node>,
}

/// Whom to ask for a blob.
#[derive(Clone, Debug, PartialEq)]
pub struct Neighbours {
    /// Which blob.
    pub key: BlobKey,
    /// For everything; in no order.
    pub near: Vec<Node>,
    /// For what does not come from those; in no order.
    pub far: Vec<Node>,
    /// How to choose among them.
    pub algorithm: Algorithm,
    /// The gateway that seeds it, where one does.
    pub gateway: Option<Node>,
}

/// A grant to bring pieces into the region, the zone or the rack.
#[derive(Clone, Debug, PartialEq)]
pub struct Lease {
    /// Which blob.
    pub key: BlobKey,
    /// Which pieces.
    pub pieces: Vec<Range<PieceIndex>>,
    /// The gateway that seeds the blob.
    pub from: Node,
}

/// Asks a scheduler which nodes are joined; the default asks for all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodesRequest {
    /// Those whose names come after this one.
    pub after: Option<NodeId>,
    /// No more than so many; zero is no bound.
    pub at_most: u32,
    /// Those in this zone.
    pub zone: Option<Arc<str>>,
    /// Those that hold something of this blob or want it.
    pub having: Option<BlobKey>,
    /// Their blobs are to be counted.
    pub counted: bool,
}

/// Some of the nodes that are joined.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodesReply(pub Vec<Joined>);

impl NodesReply {
    /// The most nodes in one message.
    pub const MAX: usize = 1000;
}

/// A node that is joined.
#[derive(Clone, Debug, PartialEq)]
pub struct Joined {
    /// Who.
    pub node: Node,
    /// Of how many blobs it holds something or wants it, where that was asked and is known.
    pub n_blobs: Option<u32>,
}

/// Asks a scheduler for some of the blobs that nodes hold or want: those that all that is set here is true of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobsRequest {
    /// Which.
    pub sought: Sought,
    /// No more than so many, from 1 to [`BlobsRequest::MAX`].
    pub at_most: usize,
}

impl BlobsRequest {
    /// The most blobs in one answer, and that may be named in a request.
    pub const MAX: usize = 1000;
}

/// How some of the blobs stand, in order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BlobsReply(pub Vec<Standing>);

impl BlobsReply {
    /// The most blobs in one message.
    pub const MAX: usize = 250;
}

/// Has a node fetch blobs, keep them and share them.
#[derive(Clone, Debug, PartialEq)]
pub struct StoreRequest {
    /// From where they come.
    pub source: Source,
    /// At most [`StoreRequest::MAX_BLOBS`].
    pub blobs: Vec<StoreBlob>,
    /// So many of them are fetched at the same time.
    pub at_once: u32,
}

impl StoreRequest {
    /// The most blobs in one request.
    pub const MAX_BLOBS: usize = 512;
}

/// A blob that a node shall hold.
#[derive(Clone, Debug, PartialEq)]
pub struct StoreBlob {
    /// What the swarm calls it.
    pub key: BlobKey,
    /// How it is cut.
    pub geometry: Geometry,
    /// Given to the asked node.
    pub ticket: Ticket,
    /// For how long the ticket is good, from when the request was made.
    pub ticket_lives: Duration,
    /// The gateway that owns the blob.
    pub gateway: Node,
}

/// Asks a gateway for its preheat jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JobsRequest;

/// What has changed among a gateway's preheat jobs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobsNews {
    /// Jobs that are new or are not as they were, as JSON: at most [`JobsNews::MAX`], of at most
    /// [`JobsNews::MAX_JOB`] bytes each.
    pub jobs: Vec<Bytes>,
    /// Numbers of jobs that the gateway has no more.
    pub gone: Vec<u64>,
}

impl JobsNews {
    /// The most jobs in one message.
    pub const MAX: usize = 64;
    /// The most bytes of one of them.
    pub const MAX_JOB: usize = 64 << 10;
}

/// Asks a gateway how one of its preheat jobs is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobRequest {
    /// Its number.
    pub id: u64,
    /// Who wants it to end, if anybody does.
    pub cancelled_by: Option<String>,
}

/// How the job is by now, as JSON; `None` where the gateway has no such job.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobReply(pub Option<Bytes>);

impl JobReply {
    /// The most bytes of it.
    pub const MAX_JOB: usize = 8 << 20;
}

/// What has changed about blobs that a node shall hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StoreProgress(pub Vec<Stored>);

/// How far a node is with a blob that it shall hold.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    /// Which of the requested blobs.
    pub index: usize,
    /// Bytes of it that the node holds.
    pub held: u64,
    /// How it ended, if it has: it is there and stays, or why not.
    pub end: Option<Result<(), String>>,
}

impl Stored {
    /// The longest cause of a failure, in bytes.
    pub const MAX_CAUSE: usize = 1024;
}

/// Has a node remove blobs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoveRequest(pub Vec<BlobKey>);

impl RemoveRequest {
    /// The most blobs in one request.
    pub const MAX: usize = 1000;
}

/// What a node has done about each of the blobs that it was to remove, in the same order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoveReply(pub Vec<Removal>);

/// What was done about a blob that was to be removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removal {
    /// Something of it was there, and is gone.
    Removed,
    /// Nothing of it was there.
    Nothing,
    /// It is still there, and why.
    Failed(String),
}

impl Removal {
    /// The longest cause of a failure, in bytes.
    pub const MAX_CAUSE: usize = 1024;
}

/// Asks a node to tell what it holds of a blob, at once and then as it changes.
#[derive(Clone, Debug, PartialEq)]
pub struct WatchRequest {
    /// Which blob.
    pub key: BlobKey,
    /// The asker's proof.
    pub ticket: Ticket,
}

/// What changed at a node about a blob.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BlobNews {
    /// Everything said before is void: the content was poisoned or evicted.
    pub dropped: bool,
    /// Pieces that were told of and are held no longer. Some may be among those newly held.
    pub lost: Vec<Range<PieceIndex>>,
    /// What a gateway signed about the blob's pieces; comes before the pieces themselves.
    pub attestations: Vec<Attestation>,
    /// Pieces newly held.
    pub gained: Vec<Range<PieceIndex>>,
    /// A seed at work.
    pub seed: Option<SeedProgress>,
}

/// How far a seed is. Any change counts as progress: busy is not sick.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SeedProgress {
    /// Blobs before this one; 0 while it is fetched.
    pub queue_position: u32,
    /// Bytes read from the registry.
    pub offset: u64,
    /// Grows with each sign of life, also while the seed waits for the registry's turn.
    pub heartbeat: u64,
}

/// A [`Statement`] as a gateway signed it, kept in the very bytes that were signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attestation {
    /// The encoded statement.
    pub statement: Bytes,
    /// Ed25519 over [`Attestation::CONTEXT`] and the statement.
    pub signature: [u8; 64],
}

impl Attestation {
    /// What stands before the statement in the signed bytes, so that no other signature of the same
    /// key can be taken for an attestation.
    pub const CONTEXT: &'static [u8] = b"shoal attestation v1\0";
}

/// A gateway's word about pieces of a blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// Which blob.
    pub key: BlobKey,
    /// How it is cut.
    pub geometry: Geometry,
    /// One seeding of the blob by one gateway.
    pub epoch: u64,
    /// The first piece that `digests` speaks of.
    pub first: PieceIndex,
    /// BLAKE3 of each piece from `first` on.
    pub digests: Vec<[u8; 32]>,
    /// The whole content matched its SHA-256, and `digests` lists every piece.
    pub sealed: bool,
}
