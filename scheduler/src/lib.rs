//! The scheduler: a gRPC service around the swarm's table.
//!
//! Every node keeps one stream. What it says goes to the [`board`], which owns the table and is the only
//! one to decide; what the table orders goes out on the stream of the node that it concerns. State is
//! soft: a scheduler that starts anew knows everything again once the nodes have reconnected and told
//! what they hold, and transfers between nodes go on meanwhile.
//!
//! Knows nothing of: blob bytes, registries, credentials, disks.

mod board;
mod service;
pub mod settings;

use anyhow::Context as _;
use shoal_ops::Context;
use shoal_ops::serve::{Limits, Listener};
use shoal_proto::scheduler_server::SchedulerServer;
use tonic::service::Routes;

use board::Board;
use service::Service;
use settings::Settings;

/// The most nodes that may be connected.
const MAX_NODES: usize = 20_000;

/// Starts the service; it lives until the process's tasks are stopped.
///
/// # Errors
/// Where its address cannot be listened on.
pub async fn start(settings: Settings, ctx: Context) -> anyhow::Result<()> {
    let ready = ctx.readiness.condition("listener");
    let listener = Listener::bind("nodes", settings.listen).await.context("start the scheduler")?;
    let board = Board::start(&ctx, settings.policy);
    let service = Service::new(board, ctx.tasks.clone());
    ctx.serve(listener, Routes::new(SchedulerServer::new(service)).prepare(), Limits::new(MAX_NODES));
    ready.set(true);
    Ok(())
}
