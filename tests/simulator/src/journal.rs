//! What went into the machines and what the simulated network did, written down for a test.
//!
//! A fresh machine that is given the same events must decide the same. So whoever replays the journal
//! through the swarm's own code and finds every ask and every order there knows that the simulator has made
//! no choice of its own.

use shoal_model::{BlobKey, NodeId, Rng, Tick};
use shoal_swarm::{PieceIndex, fetch, table};

/// The written record of one run.
#[derive(Debug, Default)]
pub struct Journal {
    /// How the machines began and what they were told, in this order.
    pub entries: Vec<Entry>,
    /// Every piece that was asked for over the network, in order.
    pub asks: Vec<Asked>,
}

/// Something that a machine was told.
#[derive(Clone, Debug)]
pub enum Entry {
    /// The table of a region began.
    TableBegins {
        /// Which region.
        region: usize,
        /// Its randomness.
        rng: Rng,
    },
    /// The table of a region was told something.
    TableHears {
        /// Which region.
        region: usize,
        /// When.
        now: Tick,
        /// What.
        event: table::Event,
    },
    /// A node's fetch of a blob began with nothing.
    FetchBegins {
        /// When.
        now: Tick,
        /// Whose.
        node: NodeId,
        /// Of what.
        key: BlobKey,
        /// Its randomness.
        rng: Rng,
    },
    /// A node's fetch of a blob was told something.
    FetchHears {
        /// When.
        now: Tick,
        /// Whose.
        node: NodeId,
        /// Of what.
        key: BlobKey,
        /// What.
        event: fetch::Event,
    },
}

/// An ask as the network carried it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Asked {
    /// Who asked.
    pub by: NodeId,
    /// Of which blob.
    pub key: BlobKey,
    /// Whom.
    pub from: NodeId,
    /// For what.
    pub piece: PieceIndex,
}
