//! Moving pieces between nodes: who may have them, whose word about them counts, the server that hands
//! them out, the client that fetches them, and the streams to the schedulers.
//!
//! Bytes travel as plain HTTP ranges, what a node holds as gRPC, both over one port. Nothing that
//! arrives is believed: a request needs a [`ticket`], a piece's digest needs an [`attest`]ation, and a
//! wait on another node ends at a deadline.
//!
//! Knows nothing of: registries and their credentials, runtimes, settings, which piece to ask for next.

// Outside input gets here, and none may make a process panic.
#![cfg_attr(
    not(test),
    warn(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::string_slice)
)]

pub mod attest;
mod backoff;
mod channel;
pub mod client;
pub mod epochs;
pub mod fleet;
pub mod keys;
pub mod piece_path;
mod pieces;
pub mod region;
pub mod remove;
pub mod report;
pub mod schedulers;
pub mod service;
mod shares;
pub mod shelf;
pub mod store;
#[cfg(test)]
mod testing;
pub mod ticket;
mod watch;

pub use keys::RegionKeys;
