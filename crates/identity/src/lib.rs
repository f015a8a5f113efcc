//! Who is at the other end of a connection, and how that is proven.
//!
//! A region has one certificate authority ([`Ca`]). It gives every gateway, scheduler and sidecar a
//! certificate that names it ([`SpiffeId`]), and all traffic between them is mutual TLS under that authority
//! and no other ([`Keychain`]). Addresses prove nothing: who dials says whom it expects ([`Expected`]), who
//! is dialled learns who called ([`Caller`]). A process gets its certificate from files of its own or from
//! the gateway against a [`credential`](settings::Source), and renews it without losing a stream
//! ([`enrol`]).
//!
//! Knows nothing of: blobs, tickets, registries, who may read what.

// Outside input gets here, and none may make a process panic.
#![cfg_attr(
    not(test),
    warn(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::string_slice)
)]

mod ca;
mod caller;
mod dial;
pub mod enrol;
mod expiry;
mod join_token;
mod keychain;
mod material;
mod reception;
pub mod settings;
mod shown;
mod spiffe;
mod verify;

pub use ca::{Ca, CaError, Grant, KeptCa, Request};
pub use caller::{Caller, Identity, Impostor};
pub use dial::{Connector, DialError, Dialer, Expected, Stream};
pub use expiry::show_expiry;
pub use join_token::JoinToken;
pub use keychain::Keychain;
pub use material::{Material, MaterialError, Validity};
pub use reception::{Clients, Reception};
pub use shown::ShownCertificate;
pub use spiffe::{Role, SpiffeId, TrustDomain};
