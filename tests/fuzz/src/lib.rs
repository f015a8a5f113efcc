//! What must hold of every parser and state machine, whatever it is given.
//!
//! A target takes any bytes, has the product read them, and panics where something does not hold that the product
//! promises. `cargo xtask fuzz` hunts for such bytes with libFuzzer, guided by coverage. `tests/corpus.rs` gives
//! each target what lies in its directory of `corpus`: examples from which that begins, and whatever once broke
//! something.
//!
//! Where bytes have a structure, few of them at random get far. So an input is either the text or message itself,
//! or choices from which a nearly valid one is built ([`input`]).
//!
//! Knows nothing of: how inputs are found, which of them are new.

mod contract;
mod input;
mod json;
mod jwt;

pub mod access_token;
pub mod attestation;
pub mod fetch;
pub mod harbor;
pub mod messages;
pub mod oci_headers;
pub mod oci_manifest;
pub mod oci_path;
pub mod piece_path;
pub mod settings;
pub mod signing_request;
pub mod store;
pub mod table;
pub mod ticket;

/// A target: panics where an input shows that something does not hold.
pub type Check = fn(&[u8]);

/// All targets. The inputs of each lie in the directory of its name in `corpus`.
pub const TARGETS: [(&str, Check); 16] = [
    ("access_token", access_token::check),
    ("attestation", attestation::check),
    ("fetch", fetch::check),
    ("harbor", harbor::check),
    ("messages", messages::check),
    ("oci_headers", oci_headers::check),
    ("oci_manifest", oci_manifest::check),
    ("oci_path", oci_path::check),
    ("piece_path", piece_path::check),
    ("settings_gateway", settings::gateway),
    ("settings_scheduler", settings::scheduler),
    ("settings_sidecar", settings::sidecar),
    ("signing_request", signing_request::check),
    ("store", store::check),
    ("table", table::check),
    ("ticket", ticket::check),
];
