//! The OCI distribution protocol as values: registry text in, values out, and back to text.
//!
//! Everything here comes from outside (a runtime, a registry, a caller of the API), so every parser
//! is total: any text gives a value or an [`OciError`] that already carries the code a client is to
//! see. Each name has one spelling only; a value that was parsed can be compared, used as a key and
//! sent upstream without being cleaned again.
//!
//! Knows nothing of: sockets, HTTP libraries, credentials, clocks, which registries are configured.

// Outside input gets here, and none may make a process panic.
#![cfg_attr(
    not(test),
    warn(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::string_slice)
)]
#![cfg_attr(not(test), warn(clippy::arithmetic_side_effects))]

mod other_keys;
mod text;

pub mod challenge;
pub mod error;
pub mod manifest;
pub mod path;
pub mod range;

mod reference;
mod registry_name;
mod repository;

pub use error::{ErrorCode, OciError};
pub use reference::{AnyDigest, Reference, Tag};
pub use registry_name::RegistryName;
pub use repository::Repository;
