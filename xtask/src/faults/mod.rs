//! `cargo xtask faults`: each part of a region is harmed in each way at each moment of a pull, one at a time,
//! and the pulls of all other nodes are timed beside the undisturbed ones.
//!
//! Pulls are containerd's own, with the credentials that it would use without Shoal. A pull that fails, or
//! that brings other bytes than were pushed, fails the command.

mod cell;
mod region;
mod table;

use std::process::ExitCode;

use anyhow::{Result, ensure};

use crate::packages;
use crate::test::build_binaries;
use cell::{Course, MOMENTS, ROWS};
use region::Region;
use table::Table;

/// What to try.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only rows whose name has this in it, such as `gateway`.
    #[arg(long, default_value = "")]
    only: String,
    /// Prints JSON.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    packages::ensure_installed(&packages::LAB)?;
    ensure!(nix::unistd::geteuid().is_root(), "the lab makes network namespaces, which needs root");
    build_binaries()?;
    let table = try_all(&args.only)?;
    if args.json {
        println!("{:#}", table.json());
    } else {
        print!("{table}");
    }
    Ok(if table.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[tokio::main]
async fn try_all(only: &str) -> Result<Table> {
    let mut region = Region::start().await?;
    let mut table = Table::new(region.direct().await?, region.undisturbed().await?);
    for row in ROWS.iter().filter(|it| it.name.contains(only)) {
        for course in Course::ALL {
            for moment in MOMENTS {
                let outcome = region.attempt(row, course, moment).await?;
                eprintln!("{} {course} {moment} the transfer: {outcome}", row.name);
                table.add(row.name, course, moment, outcome);
            }
        }
    }
    Ok(table)
}
