//! Harbor set up to use Shoal: a robot account for the gateway, the gateway as Harbor's provider of preheating, and in
//! each project a preheat policy and a webhook.
//!
//! What shall be there ([`object`]) is compared with what Harbor tells, and only what differs is changed
//! ([`setup`]): a second run changes nothing. [`check`] proves the wiring from end to end and says, for each thing
//! that is wrong, how to mend it.
//!
//! Knows nothing of: jobs, nodes, blobs; how the gateway works.

// Outside input gets here, and none may make a process panic. JSON is indexed by names: what is not there is null.
#![cfg_attr(not(test), warn(clippy::expect_used, clippy::panic, clippy::string_slice))]

pub mod check;
mod harbor;
pub mod object;
pub mod settings;
pub mod setup;
