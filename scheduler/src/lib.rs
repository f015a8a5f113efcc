//! The scheduler: a gRPC service around the swarm's table.
//!
//! Every node keeps one stream. What it says goes to the [`board`], whose tables are the only
//! ones to decide; what they order goes out on the stream of the node that it concerns. State is
//! soft: a scheduler that starts anew knows everything again once the nodes have reconnected and told
//! what they hold, and transfers between nodes go on meanwhile.
//!
//! A node is who its certificate says, and is told about a blob only where it shows a ticket of its own for
//! it. Whose tickets count, a gateway says; before one has, in this life or an earlier one ([`keys`]), nobody is
//! served.
//!
//! Knows nothing of: blob bytes, registries, credentials.

// Outside input gets here, and none may make a process panic.
#![cfg_attr(
    not(test),
    warn(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::string_slice)
)]

mod board;
pub mod keys;
mod service;
pub mod settings;

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::thread::available_parallelism;

use anyhow::Context as _;
use shoal_identity::enrol::{Applicant, enrol};
use shoal_identity::{Clients, Dialer, Reception, Role};
use shoal_model::NodeId;
use shoal_ops::serve::{Limits, Listener};
use shoal_ops::{Context, open_files};
use shoal_peer::region::Region;
use shoal_peer::ticket::Verifier;
use shoal_proto::scheduler_server::SchedulerServer;
use tonic::service::Routes;

use board::Board;
use keys::KeyFile;
use service::{Door, Service};
use settings::Settings;

/// The most nodes that may be connected.
const MAX_NODES: usize = 20_000;

/// Starts the service; it lives until the process's tasks are stopped.
///
/// # Errors
/// Where its address cannot be listened on, or its certificate not be used.
pub async fn start(settings: Settings, ctx: Context) -> anyhow::Result<()> {
    let ready = ctx.readiness.condition("listener");
    let listener = Listener::bind("nodes", settings.listen).await.context("start the scheduler")?;
    let gateways = settings.gateways;
    let applicant = Applicant {
        role: Role::Scheduler,
        unproven: NodeId::new("scheduler"),
        address: None,
        gateways: gateways.clone(),
    };
    let enrolment = enrol(&ctx, settings.security, applicant)?;
    let keychain = enrolment.keychain.as_ref();
    let listener = listener.with(Reception::new(keychain, Clients::WithCertificate));
    enrolment.complete().await;

    let kept = settings.keys.as_ref().and_then(KeyFile::read);
    let verifier = Arc::new(Verifier::new(kept.clone().unwrap_or_default()));
    let dialer = Dialer::new(keychain);
    let (region, keeper) = Region::new(gateways, dialer.clone(), verifier.clone());
    ctx.tasks.spawn_infallible("region", keeper.run(ctx.tasks.stopping()));
    if let Some(keys) = settings.keys {
        ctx.tasks.spawn_infallible("region keys", keys.follow(region.keys_told(), ctx.tasks.stopping()));
    }
    if kept.is_none() {
        region.answered().await;
    }

    let n_processors = available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let board = Board::start(&ctx, settings.policy, n_processors);
    let service = Service::new(board, Door::new(&ctx, verifier, dialer), ctx.tasks.clone());
    let limits = Limits::new(MAX_NODES.min(open_files::for_clients()));
    ctx.serve(listener, Routes::new(SchedulerServer::new(service)).prepare(), limits);
    ready.set(true);
    Ok(())
}
