//! What it costs to move pieces from one node to another, in plain and under mutual TLS.
//!
//! `cargo xtask bench datapath` runs it as a part; `docs/BENCHMARKS.md` says how to read what it prints.
//!
//! Two processes, so that each one's CPU time can be told: this one asks, and a second one of the same binary
//! serves a store from the page cache. Between them is the product's own path, from `PeerClient` to
//! `PeerService`, over the loopback. Beside it runs a reference on the same bytes, keys and cipher: a thread
//! that copies a file into a socket or into a bare rustls stream. The distance between the two is what HTTP,
//! tickets, the store and the async runtime cost.
//!
//! Machines are never quite quiet. So plain and TLS alternate within a round and are compared within it, and
//! CPU time counts more than the clock. The median of the rounds is told, with the least and the most.
//!
//! Knows nothing of: schedulers, registries, how a node chooses what it asks for.

mod client;
mod cpu;
mod reference;
mod report;
mod server;
mod setup;
mod work;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;

use crate::client::Client;
use crate::report::Report;
use crate::work::{Extent, Security, Work};

#[derive(Parser)]
#[command(about = "Measures the data path between two nodes, in plain and under mutual TLS")]
struct Args {
    /// Checks that everything runs, in seconds; the figures mean nothing.
    #[arg(long)]
    quick: bool,
    /// Prints one JSON object instead of a table.
    #[arg(long)]
    json: bool,
    /// Rounds to run; each measures everything once.
    #[arg(long, default_value_t = 9)]
    rounds: u32,
    /// Measures only what has this in its name, such as "8 at once, TLS"; for a profiler.
    #[arg(long, default_value = "")]
    only: String,
    /// Serves from this directory: the second process.
    #[arg(long, hide = true)]
    serve: Option<PathBuf>,
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

fn run(args: &Args) -> Result<()> {
    let extent = if args.quick { Extent::QUICK } else { Extent::FULL };
    if let Some(dir) = &args.serve {
        return server::run(dir, &extent);
    }
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).context("no directory for the store")?;
    let mut client = Client::start(dir.path(), extent, args.quick)?;
    let mut report = Report::start()?;
    let rounds = if args.quick { 1 } else { args.rounds };
    for round in 0..rounds {
        for (work, security) in
            cases(round).filter(|(work, security)| format!("{work}, {security}").contains(&args.only))
        {
            report.add(work, security, client.measure(work, security)?);
        }
        eprintln!("round {} of {rounds} is done", round + 1);
    }
    let figures = report.finish()?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&figures)?);
    } else {
        print!("{figures}");
    }
    Ok(())
}

/// What a round measures, in order. Whether plain or TLS comes first changes from round to round, so that
/// neither has the better place.
fn cases(round: u32) -> impl Iterator<Item = (Work, Security)> {
    let turns = match round % 2 {
        0 => [Security::Plain, Security::Tls],
        _ => [Security::Tls, Security::Plain],
    };
    Work::ALL.into_iter().flat_map(move |work| turns.map(|security| (work, security)))
}
