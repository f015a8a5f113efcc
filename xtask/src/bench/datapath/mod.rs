//! `cargo xtask bench datapath`: from node to client, from node to node, from registry to nodes.
//!
//! - *Hot*: a client downloads a blob from a sidecar that has it, and the same blob from nginx, in turns.
//! - *Pieces*: a node fetches pieces from another, verifies and stores them; see
//!   `crates/peer/benches/data_path`.
//! - *Cold*: nodes that have nothing download a blob at the same time, through gateway and scheduler, or one
//!   after a neighbour.
//!
//! Machines are never quite quiet. So what is compared alternates within a round and is compared within it,
//! and CPU time, which each process has of its own, counts more than the clock.

mod cold;
mod hot;
mod pieces;
mod report;

use std::process::ExitCode;

use anyhow::Result;

use super::How;
use super::figures::load;
use super::origin::Origin;
use crate::region::fleet::Security;
use crate::test::build_binaries;
use pieces::Pieces;
use report::Report;

/// How to measure.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    how: How,
    /// Measures one part only; the figures of the others are missing then.
    #[arg(long)]
    only: Option<Part>,
}

/// What is measured by itself.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// From node to client.
    Hot,
    /// From node to node.
    Pieces,
    /// From registry to nodes.
    Cold,
}

impl Args {
    fn wants(&self, part: Part) -> bool {
        self.only.is_none_or(|it| it == part)
    }
}

/// How much is measured.
#[derive(Clone, Copy)]
struct Extent {
    /// Bytes of the blob: more than fits the processor's caches, less than the page cache holds.
    blob: usize,
    /// Rounds with a hot blob.
    hot: u32,
    /// Rounds with a cold one; each starts regions of its own.
    cold: u32,
}

impl Extent {
    const FULL: Self = Self { blob: 512 << 20, hot: 9, cold: 5 };
    const QUICK: Self = Self { blob: 3 << 20, hot: 1, cold: 1 };
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    build_binaries()?;
    let pieces = if args.wants(Part::Pieces) { Some(pieces::measure(args.how.quick)?) } else { None };
    let report = measure(args, pieces)?;
    if args.how.json {
        println!("{:#}", report.json());
    } else {
        print!("{report}");
    }
    Ok(ExitCode::SUCCESS)
}

#[tokio::main]
async fn measure(args: &Args, pieces: Option<Pieces>) -> Result<Report> {
    let extent = if args.how.quick { Extent::QUICK } else { Extent::FULL };
    let load_before = load()?;
    let origin = Origin::start(extent.blob).await?;
    let (mut one, mut plain, mut mtls, mut near) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let cold_rounds = if args.wants(Part::Cold) { extent.cold } else { 0 };
    for round in 1..=cold_rounds {
        one.push(cold::round(&origin, 1, Security::Mtls).await?);
        plain.push(cold::round(&origin, 4, Security::Plain).await?);
        mtls.push(cold::round(&origin, 4, Security::Mtls).await?);
        near.push(cold::from_neighbour(&origin).await?);
        eprintln!("cold: round {round} of {cold_rounds} is done");
    }
    let hot = if args.wants(Part::Hot) { hot::rounds(&origin, extent.hot).await? } else { Vec::new() };
    Ok(Report { pieces, hot, one, plain, mtls, near, load: [load_before, load()?] })
}
