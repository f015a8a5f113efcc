//! Pieces on disk: where they lie, what is vouched for, what survives a crash, what is evicted.
//!
//! A blob is a sparse data file and a journal. Pieces arrive in any order and are checked against a
//! gateway's digest before they count as held; a crash at any instant leaves either a piece that can be
//! verified or none. The journal is best effort: what could not be recorded is true until the process
//! ends, so a full disk costs speed and never a pull. What the journal says after a restart is only
//! believed of a piece once its bytes have been hashed again, on first use.
//!
//! Each blob's state (`state`), the journal's records (`record`), the file names (`layout`) and the
//! choice of what to evict (`evict`) are pure; the other modules carry them out on files.
//!
//! Memory at rest is about 70 bytes per piece: its digest, and its share of the signed list.
//!
//! Knows nothing of: HTTP, sockets, signatures, tickets, registries, schedulers.

// Outside input gets here, and none may make a process panic.
#![cfg_attr(
    not(test),
    warn(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::string_slice)
)]

mod blob;
mod buffer;
mod chores;
mod content;
mod digest;
mod disk;
mod entry;
mod error;
mod evict;
mod files;
mod layout;
mod memory;
mod outcome;
mod prove;
mod read;
mod record;
mod scan;
mod state;
mod store;
#[cfg(test)]
mod testing;
mod upkeep;
mod write;

pub use blob::Blob;
pub use digest::PieceDigest;
pub use error::StoreError;
pub use outcome::{Learned, Status, Written};
pub use read::{Lent, MAX_READ};
pub use store::{Collected, Store, StoreSettings, Summary, Usage};
pub use upkeep::{Totals, Upkeep};
