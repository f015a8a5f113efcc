//! A region on this machine: the services' release binaries on loopback, and a registry to pull from.

pub(crate) mod client;
pub(crate) mod fleet;
pub(crate) mod processes;
pub(crate) mod source;
