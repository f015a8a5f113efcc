//! What every service needs and none is about: settings, task groups, logs, metrics, traces, health, serving HTTP,
//! and the life of the process from its arguments to its exit code.
//!
//! A service's `main` is one call of [`program::Program::run`]: it names its default settings, says how they
//! are read, and what to start. Everything that must behave the same in all services (exit codes, signals,
//! draining, readiness, the watchdog) lives here once.
//!
//! Knows nothing of: blobs, registries, the swarm, tickets, wire contracts.

// Outside input gets here, and none may make a process panic.
#![cfg_attr(
    not(test),
    warn(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::string_slice)
)]

pub mod admin;
pub mod context;
mod lifecycle;
pub mod metrics;
pub mod open_files;
pub mod private_file;
pub mod program;
pub mod readiness;
pub mod serve;
pub mod settings;
mod systemd;
pub mod tasks;
pub mod telemetry;
pub mod traces;
pub mod wall_clock;
mod watchdog;

pub use context::Context;
