//! How a gateway has nodes fetch blobs.

use std::time::Duration;

use shoal_model::{BlobKey, Node};
use shoal_swarm::Geometry;

use super::{Source, Ticket};

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
