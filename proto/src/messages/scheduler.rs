//! What nodes and schedulers tell each other.

use std::ops::Range;

use shoal_model::{BlobKey, Node, TraceParent};
use shoal_swarm::{Algorithm, Geometry, PieceIndex};

use super::{Source, Ticket};

/// The revision of the rules that this build follows, told in [`Hello`].
pub const PROTOCOL: u32 = 1;

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
    /// Where its fetch stands in a trace.
    pub trace: Option<TraceParent>,
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
