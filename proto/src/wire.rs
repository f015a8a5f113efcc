//! The generated message types, seen by this crate alone.

#![allow(missing_docs, unreachable_pub, clippy::pedantic)]

include!(concat!(env!("OUT_DIR"), "/shoal.v1.rs"));
