//! What callers are told about a blob.

use shoal_swarm::{Bitmap, Geometry};

/// What became of a piece that was to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// The piece is held from now on.
    Held,
    /// Local readers may have the piece from now on; nobody vouches for it yet.
    Provisional,
    /// The disk did not take the piece: it is in memory, for a while. Local readers may have it, and others as well
    /// where it came from the registry.
    Kept,
    /// The piece was there already.
    AlreadyHeld,
    /// Somebody else is writing the piece at this moment.
    Busy,
    /// The bytes are not the piece; whoever sent them is to blame.
    Mismatch,
    /// No digest of the piece is known, or everything was dropped while it was written.
    NoDigest,
}

/// What became of a list of piece digests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Learned {
    /// The list said something new.
    Fresh,
    /// All of it was known.
    Known,
    /// The list contradicts what is known or does not fit the blob, and was not taken. Two gateways, or a
    /// gateway and the content, disagree; the caller decides whom to believe.
    Conflict,
}

/// A blob's state at one instant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Grows each time that everything held is dropped.
    pub generation: u64,
    /// How the blob is cut.
    pub geometry: Geometry,
    /// The pieces that may be announced and served.
    pub held: Bitmap,
    /// Whether the whole digest is vouched for.
    pub sealed: bool,
}

impl Status {
    /// Whether the blob is sealed and all of it is here.
    pub fn is_complete(&self) -> bool {
        self.sealed && self.held.is_full()
    }
}
