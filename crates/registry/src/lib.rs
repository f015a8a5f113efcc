//! Asking a registry over HTTP: where it is, how it is trusted, how long it is waited for, which of its
//! redirects are followed, and which token service it may send a credential to.
//!
//! Both the gateway (with its own credentials) and the sidecar's last resort (with the caller's own
//! header) speak to registries through [`RegistryClient`], so the rules against leaking a credential
//! and against being sent to an inner address are kept in one place.
//!
//! Knows nothing of: which registries are configured, who may pull, what a token is, blobs, pieces, metrics.

// Outside input gets here, and none may make a process panic.
#![cfg_attr(
    not(test),
    warn(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::string_slice)
)]
#![cfg_attr(not(test), warn(clippy::arithmetic_side_effects))]

mod body;
mod client;
mod endpoint;
mod error;
mod network;
mod realm;
mod redirect;
mod resolve;
pub mod retry_after;
mod tls;
mod transport;

pub use body::RegistryBody;
pub use client::RegistryClient;
pub use endpoint::{ClientCertificate, Endpoint, EndpointError};
pub use error::{ErrorKind, RegistryError};
pub use network::Network;
