//! How nodes ask a gateway, and what it tells them.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use shoal_model::{Authorization, BlobKey, Digest, Node, TraceParent, TrustGroup};
use shoal_swarm::Geometry;

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
    /// Where the pull of each digest stands in a trace, in the same order; nowhere where this is shorter.
    pub traces: Vec<Option<TraceParent>>,
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
