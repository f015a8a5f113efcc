//! How gateways ask a scheduler what the region consists of.

use std::sync::Arc;
use std::time::Duration;

use shoal_model::{BlobKey, Node, NodeId};
use shoal_swarm::table::{CloseUp, Sought, Standing};

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

/// Asks a scheduler to show one blob closely.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SwarmRequest {
    /// Which.
    pub key: BlobKey,
    /// No more members than so many, from 1 to [`SwarmRequest::MAX`].
    pub at_most: usize,
}

impl SwarmRequest {
    /// The most members that are shown.
    pub const MAX: usize = 200;
}

/// One blob; none, where nobody holds it or wants it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SwarmReply(pub Option<CloseUp<Node>>);

/// Asks for what has arrived at nodes by a scheduler's knowledge, or what a gateway has read from registries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TotalRequest;

/// A count since the process that answers has started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TotalReply {
    /// In bytes.
    pub bytes: u64,
    /// How long the process has counted.
    pub counted_for: Duration,
}
