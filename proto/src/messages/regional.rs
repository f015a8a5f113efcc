//! What the gateways of other regions and their hub tell each other.

use std::time::Duration;

use shoal_model::Digest;

use super::Ticket;

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
