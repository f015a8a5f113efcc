//! The wire contracts between sidecars, schedulers and gateways.
//!
//! `shoal/v1/shoal.proto` is the contract. The rest of Shoal speaks the types of this crate, which are
//! valid by construction: a message that does not make sense is refused at the edge, as
//! `INVALID_ARGUMENT`, before any service sees it.
//!
//! Knows nothing of: sockets, files, what the messages are for, how bytes are verified.

// Outside input gets here, and none may make a process panic.
#![cfg_attr(
    not(test),
    warn(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::string_slice)
)]
#![cfg_attr(not(test), warn(clippy::arithmetic_side_effects))]

mod codec;
mod convert;
mod messages;
mod services;
mod wire;

pub use convert::Malformed;
pub use messages::*;
pub use services::{
    certificates_client, certificates_server, gateway_client, gateway_server, peer_client, peer_server,
    scheduler_client, scheduler_server,
};
