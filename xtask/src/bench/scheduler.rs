//! `cargo xtask bench scheduler`: what a fleet of simulated nodes costs the scheduler.
//!
//! It is a bench of the scheduler's own, `scheduler/benches/fleet`, since its nodes have to be as fast as
//! optimised code is.

use std::process::ExitCode;

use anyhow::{Context, Result};

use super::How;
use crate::test::cargo;

/// How to measure.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    how: How,
}

/// Builds and runs it.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let mut bench = cargo("bench");
    bench.args(["--package", "shoal-scheduler", "--bench", "fleet"]);
    if args.how.quick {
        bench.args(["--profile", "dev"]);
    }
    bench.arg("--").args(args.how.quick.then_some("--quick")).args(args.how.json.then_some("--json"));
    let status = bench.status().context("cargo cannot be started")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
