//! The swarm's decisions: how a blob is cut, who asks whom for which piece, who brings it in, who seeds.
//!
//! The same code runs in the scheduler, in the sidecar and in the simulator. Time is an argument,
//! randomness a seeded generator that is passed in; every decision comes back as an action.
//!
//! Knows nothing of: sockets, files, clocks, operating-system randomness, HTTP, registries.

// Outside input gets here, and none may make a process panic.
#![cfg_attr(
    not(test),
    warn(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::string_slice)
)]

mod algorithm;
mod average;
pub mod bitmap;
pub mod fetch;
pub mod geometry;
pub mod news;
pub mod owners;
pub mod rendezvous;
pub mod table;

pub use algorithm::Algorithm;
pub use bitmap::Bitmap;
pub use geometry::{Geometry, PieceIndex};
pub use owners::Owners;
