//! The nouns of Shoal: digests, blob and node ids, places, sizes, rates, ticks, places in traces and seeded randomness.
//!
//! Every id, size, rate and time is its own type, so that a piece number cannot be passed where a byte
//! offset is meant. Text forms are parsed here and nowhere else.
//!
//! Knows nothing of: sockets, files, clocks, operating-system randomness, registries.

// Outside input gets here, and none may make a process panic.
#![cfg_attr(
    not(test),
    warn(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::string_slice)
)]

mod authorization;
mod blob;
mod digest;
mod node;
mod quantity;
mod rng;
mod tick;
mod trace_parent;

pub use authorization::Authorization;
pub use blob::{BlobKey, BlobKeyError, TrustGroup};
pub use digest::{Digest, DigestError};
pub use node::{Nearness, Node, NodeId, Place, Role};
pub use quantity::{ByteRate, ByteSize, QuantityError};
pub use rng::Rng;
pub use tick::Tick;
pub use trace_parent::{NoTraceParent, TraceParent};
