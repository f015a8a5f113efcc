//! What is measured, and how much of it.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

/// Something to measure; each under either security.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Work {
    /// Pieces over kept connections, so many in flight.
    Pieces {
        /// How many.
        at_once: usize,
    },
    /// The same into a store, which verifies and writes them: what a node does.
    Stored {
        /// How many.
        at_once: usize,
    },
    /// The reference: one stream without HTTP or store.
    Stream,
    /// A new connection and the first byte over it.
    Connect,
}

impl Work {
    /// In the order in which they are run and told.
    pub(crate) const ALL: [Self; 6] = [
        Self::Pieces { at_once: 1 },
        Self::Pieces { at_once: 4 },
        Self::Pieces { at_once: 8 },
        Self::Stored { at_once: 4 },
        Self::Stream,
        Self::Connect,
    ];

    /// What it is counted in.
    pub(crate) const fn unit(self) -> &'static str {
        match self {
            Self::Pieces { .. } | Self::Stored { .. } | Self::Stream => "GiB",
            Self::Connect => "connection",
        }
    }
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pieces { at_once } => write!(f, "pieces, {at_once} at once"),
            Self::Stored { at_once } => write!(f, "pieces into a store, {at_once} at once"),
            Self::Stream => f.write_str("bare stream"),
            Self::Connect => f.write_str("connect"),
        }
    }
}

/// How the two processes talk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Security {
    /// By plain TCP.
    Plain,
    /// By mutual TLS.
    Tls,
}

impl fmt::Display for Security {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plain => "plain",
            Self::Tls => "TLS",
        })
    }
}

/// How much is done per measurement.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Extent {
    /// Pieces of the one blob: more than fits the processor's caches, less than the page cache holds.
    pub(crate) blob_pieces: u32,
    /// Pieces to fetch, the blob's over and over.
    pub(crate) n_pieces: u32,
    /// Connections to make.
    pub(crate) n_connections: u32,
}

impl Extent {
    /// What figures are taken from: 1 GiB per measurement.
    pub(crate) const FULL: Self = Self { blob_pieces: 256, n_pieces: 1024, n_connections: 500 };
    /// Enough to go through all code.
    pub(crate) const QUICK: Self = Self { blob_pieces: 4, n_pieces: 16, n_connections: 8 };
}

/// One measurement.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    /// How much was done, in the work's unit.
    pub(crate) units: f64,
    /// How long it took by the clock.
    pub(crate) wall: Duration,
    /// What it cost the serving process in CPU time.
    pub(crate) server_cpu: Duration,
    /// What it cost the asking process in CPU time.
    pub(crate) client_cpu: Duration,
}
