//! `cargo xtask chaos`: a region under continuous pulls while its parts are killed, paused, cut off, slowed,
//! damaged and left without room by a seeded plan.
//!
//! Two kinds of clients pull on every node. containerd, with its own credentials and the registry to fall back
//! to, shows whether pulls fail and how long they take. A reader at the mirror, which resumes as runtimes do,
//! compares every byte, so that what containerd would notice as a wrong digest is seen where it happens. Stores
//! are much smaller than the images together, so blobs come and go all the time.
//!
//! At the end everything works again, and what is still open or on disk then has leaked.

mod clients;
mod leaks;
mod plan;
mod region;
mod report;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::packages;
use crate::test::build_binaries;
use plan::Plan;
use region::Region;
use report::Report;

/// How long, and what.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How long the faults go on.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    minutes: u64,
    /// What happens when; the same seed makes the same plan.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Prints JSON.
    #[arg(long)]
    json: bool,
}

/// Runs the command. It fails where a pull failed, a byte was wrong or something leaked.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    packages::ensure_installed(&packages::LAB)?;
    ensure!(nix::unistd::geteuid().is_root(), "the lab makes network namespaces, which needs root");
    build_binaries()?;
    let report = go_through(args.seed, Duration::from_secs(args.minutes * 60))?;
    if args.json {
        println!("{:#}", report.json());
    } else {
        print!("{report}");
    }
    Ok(if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[tokio::main]
async fn go_through(seed: u64, lasts: Duration) -> Result<Report> {
    let mut region = Region::start().await?;
    let direct = region.direct().await?;
    region.warm_up().await?;
    let before = region.held()?;
    let plan = Plan::new(seed, lasts);
    let pulled = region.suffer(&plan, seed).await?;
    let leaked = region.leaked(&before).await?;
    Ok(Report { seed, lasts, direct, pulled, leaked, plan })
}
