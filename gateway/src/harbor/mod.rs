//! What Harbor sends to a provider of preheating and to a webhook, and what it needs to hear.
//!
//! Harbor speaks with Dragonfly ([`jobs`]) or with Kraken ([`notifications`]), and tells of pushes by webhooks
//! ([`webhook`]). Each body is read into what a preheat job is asked for, or refused with all that is wrong with it; the
//! routes are in [`api`]. What was recorded of Harbor stands in `harbor-integration/recorded`.
//!
//! Harbor and the originals are written in Go, whose reader takes a field's name in any case and leaves fields aside
//! that it does not know; so does [`fields`]. An event that asks for nothing is no mistake: a registry that is told so
//! would send it again.
//!
//! All but [`api`] know nothing of: HTTP, who may ask, what becomes of a job, files, clocks.

pub(crate) mod api;
pub(crate) mod job_reply;
pub mod jobs;
pub mod notifications;
pub mod push;
pub mod rules;
pub(crate) mod told;
pub mod webhook;

#[cfg(test)]
mod recorded;
