//! `cargo xtask bench swarm`: a fleet of real services on shaped links, beside the same downloads without it.
//!
//! A round pulls a fresh blob on one node and another on all nodes at once. The first is compared with a
//! direct download over the same links, the second with the finite-piece bound of these links, with the
//! direct download by all nodes, and with its own replay in the simulator.
//!
//! The links are slow enough that the machine's processors are not the limit; the report says how busy they
//! were, since on a machine that is busy otherwise they may be.

mod pull;
mod report;
mod round;
mod stage;

use std::process::ExitCode;

use anyhow::{Context, Result, ensure};

use super::How;
use super::figures::load;
use crate::packages;
use crate::test::build_binaries;
use report::Report;
use stage::Stage;

/// How to measure.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    how: How,
    /// Number of nodes; 50 when left out, and 3 with `--quick`.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=200))]
    nodes: Option<u16>,
}

/// How much is measured.
#[derive(Clone, Copy)]
struct Extent {
    n_nodes: u16,
    /// Bytes of each image's layer, which is the blob that is pulled.
    layer: usize,
    rounds: u64,
}

impl Extent {
    const FULL: Self = Self { n_nodes: 50, layer: 32 << 20, rounds: 3 };
    const QUICK: Self = Self { n_nodes: 3, layer: 1 << 20, rounds: 1 };
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    packages::ensure_installed(&packages::LAB)?;
    ensure!(nix::unistd::geteuid().is_root(), "the lab makes network namespaces, which needs root");
    build_binaries()?;
    let extent = if args.how.quick { Extent::QUICK } else { Extent::FULL };
    let report = measure(Extent { n_nodes: args.nodes.unwrap_or(extent.n_nodes), ..extent })?;
    if args.how.json {
        println!("{:#}", report.json());
    } else {
        print!("{report}");
    }
    Ok(ExitCode::SUCCESS)
}

#[tokio::main]
async fn measure(extent: Extent) -> Result<Report> {
    let load_before = load()?;
    let stage = Stage::start(extent.n_nodes).await?;
    let mut rounds = Vec::new();
    for number in 1..=extent.rounds {
        let round = round::play(&stage, number, extent.layer).await;
        let round = round.with_context(|| format!("round {number}"))?;
        eprintln!("round {number} of {}: {round}", extent.rounds);
        rounds.push(round);
    }
    let direct = round::all_direct(&stage, extent.layer).await.context("direct downloads")?;
    Ok(Report { rounds, direct, load: [load_before, load()?] })
}
