//! Shoal's command line: what a region holds and does, asked of a gateway; and what one node does, and what is wrong with
//! it, asked on that node.
//!
//! Each command is a thin shell around functions that turn documents into what is printed: [`fleet`], [`job`],
//! [`explain`] and [`doctor`] decide, [`gateway`] and [`node`] ask. What went wrong is a [`fault::Fault`], which says
//! what failed, what to do, and what the process ends with.
//!
//! Knows nothing of: how a gateway, a scheduler or a sidecar works; of a sidecar only how its settings are read.

#![forbid(unsafe_code)]
// Outside input gets here, and none may make a process panic.
#![cfg_attr(
    not(test),
    warn(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::string_slice)
)]

pub mod cli;
pub mod doctor;
pub mod explain;
pub mod fault;
pub mod fleet;
pub mod gateway;
pub mod get;
pub mod image;
pub mod job;
pub mod node;
pub mod preheat;
pub mod progress;
pub mod purge;
pub mod run;
pub mod settings;
pub mod table;
pub mod top;
