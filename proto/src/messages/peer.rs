//! What nodes tell each other of blobs.

use std::ops::Range;

use bytes::Bytes;
use shoal_model::BlobKey;
use shoal_swarm::{Geometry, PieceIndex};

use super::Ticket;

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
