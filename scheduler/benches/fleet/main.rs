//! What a fleet costs its scheduler: the real process, asked by simulated nodes over the loopback.
//!
//! `cargo xtask bench scheduler` runs it; `docs/BENCHMARKS.md` says how to read what it prints.
//!
//! Each node has a connection and a stream of its own and speaks the protocol that sidecars speak, tickets
//! included, but moves no bytes. Nodes and scheduler share the machine, so that rates say what both come to
//! together; the scheduler's own CPU time is told beside them.
//!
//! Knows nothing of: what the scheduler decides, beyond that it answers.

mod fleet;
mod gateway;
mod node;
mod report;
mod restart;
mod scheduler;
mod work;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::report::Report;
use crate::work::Extent;

#[derive(Parser)]
#[command(about = "Measures what a fleet of simulated nodes costs the scheduler")]
struct Args {
    /// Checks that everything runs, in seconds; the figures mean nothing.
    #[arg(long)]
    quick: bool,
    /// Prints one JSON object instead of a table.
    #[arg(long)]
    json: bool,
    /// Rounds to run; each has a scheduler of its own and measures everything once.
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// What cargo says to every bench.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn run(args: &Args) -> Result<()> {
    // A descriptor for each node's connection; the scheduler does the same for its ends.
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;

    let (extent, rounds) = if args.quick { (Extent::QUICK, 1) } else { (Extent::FULL, args.rounds) };
    let mut report = Report::start(extent)?;
    for round in 1..=rounds {
        report.add(work::round(&extent).await?);
        eprintln!("round {round} of {rounds} is done");
    }
    let figures = report.finish()?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&figures)?);
    } else {
        print!("{figures}");
    }
    Ok(())
}
