//! What a table is told, and what it has others told. Here everything has its name.

use std::ops::Range;

use shoal_model::{BlobKey, NodeId, Place, Role};

use crate::{Algorithm, Geometry, PieceIndex};

/// What a node said, or what became of it.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A node's stream began; what it announced before is void.
    Joined {
        /// Who.
        node: NodeId,
        /// What it is for.
        role: Role,
        /// Where it stands.
        place: Place,
    },
    /// A node's stream ended, or it said that it goes.
    Left(NodeId),
    /// A node wishes to hold a blob.
    Want {
        /// Which blob, and what the node holds of it.
        report: Report,
        /// The blob has just come to this scheduler: nodes that hold it may not have told it yet.
        moved: bool,
    },
    /// What a node newly holds.
    Progress(Report),
    /// A node no longer wishes a blob.
    Unwant {
        /// Who.
        node: NodeId,
        /// Which blob.
        key: BlobKey,
    },
    /// Nothing comes to this node from neighbours or gateway.
    Stranded {
        /// Who.
        node: NodeId,
        /// Which blob.
        key: BlobKey,
    },
    /// The time that [`Table::next_deadline`] named has come.
    Deadline,
}

/// What a node says that it holds of a blob.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// Who.
    pub node: NodeId,
    /// Which blob.
    pub key: BlobKey,
    /// How it is cut.
    pub geometry: Geometry,
    /// What it held before is gone.
    pub dropped: bool,
    /// The pieces that were not told before.
    pub gained: Vec<Range<PieceIndex>>,
}

/// What the scheduler is to tell a node.
#[derive(Clone, Debug, PartialEq)]
pub struct Order {
    /// Whom.
    pub to: NodeId,
    /// About which blob.
    pub key: BlobKey,
    /// What.
    pub what: What,
}

/// The content of an [`Order`].
#[derive(Clone, Debug, PartialEq)]
pub enum What {
    /// Ask these from now on.
    Neighbours {
        /// For everything.
        near: Vec<NodeId>,
        /// For what does not come from there.
        far: Vec<NodeId>,
        /// How to choose among them.
        algorithm: Algorithm,
        /// Who seeds the blob, where a gateway does.
        gateway: Option<NodeId>,
    },
    /// Bring these pieces in.
    Lease {
        /// From the gateway that seeds, or from a member that holds them.
        from: NodeId,
        /// Which pieces.
        pieces: Vec<Range<PieceIndex>>,
    },
    /// To a gateway: seed the blob.
    Seed {
        /// Some who hold pieces of it, whoever holds most first.
        holders: Vec<NodeId>,
    },
    /// Ask the registry yourself.
    GoDirect,
}
