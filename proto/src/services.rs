//! The generated clients and servers, over this crate's own message types.

#![allow(missing_docs, clippy::pedantic)]

include!(concat!(env!("OUT_DIR"), "/shoal.v1.Gateway.rs"));
include!(concat!(env!("OUT_DIR"), "/shoal.v1.Scheduler.rs"));
include!(concat!(env!("OUT_DIR"), "/shoal.v1.Peer.rs"));
include!(concat!(env!("OUT_DIR"), "/shoal.v1.Certificates.rs"));
