//! `cargo xtask bench`: figures, and beside each what the same work costs a reference in the same run.
//!
//! `docs/BENCHMARKS.md` says how to read them.

mod blobs;
mod cpu;
mod datapath;
mod download;
mod figures;
mod gateway;
mod origin;
mod registry;
mod scheduler;
mod small;
mod stage;
mod swarm;

use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;

/// What to measure.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

/// How every bench can be run.
#[derive(clap::Args)]
struct How {
    /// Only checks that everything runs, in seconds; the figures mean nothing.
    #[arg(long)]
    quick: bool,
    /// Prints one JSON object instead of tables.
    #[arg(long)]
    json: bool,
}

#[derive(Subcommand)]
enum What {
    /// What it costs to move bytes: from node to client, from node to node, from registry to nodes.
    Datapath(datapath::Args),
    /// How fast a fleet on shaped links pulls one image, over what its links allow.
    Swarm(swarm::Args),
    /// What a fleet of simulated nodes costs the scheduler.
    Scheduler(scheduler::Args),
    /// How many nodes a gateway bears, and how many blobs it opens for them.
    Gateway(gateway::Args),
    /// What many small blobs cost.
    Small(small::Args),
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    match &args.what {
        What::Datapath(args) => datapath::run(args),
        What::Swarm(args) => swarm::run(args),
        What::Scheduler(args) => scheduler::run(args),
        What::Gateway(args) => gateway::run(args),
        What::Small(args) => small::run(args),
    }
}
