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
use serde_json::Value;

use crate::packages;
use crate::test::build_binaries;
use cell::{Kind, MOMENTS, Row};
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
    let tables = try_all(&args.only)?;
    ensure!(!tables.is_empty(), "no row has `{}` in its name", args.only);
    if args.json {
        println!("{:#}", Value::from_iter(tables.iter().map(Table::json)));
    } else {
        tables.iter().for_each(|it| print!("{it}"));
    }
    Ok(if tables.iter().all(Table::is_clean) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[tokio::main]
async fn try_all(only: &str) -> Result<Vec<Table>> {
    let mut tables = Vec::new();
    for kind in Kind::ALL {
        let rows: Vec<_> = kind.rows().iter().filter(|it| it.name.contains(only)).collect();
        if !rows.is_empty() {
            tables.push(try_kind(kind, &rows).await?);
        }
    }
    Ok(tables)
}

async fn try_kind(kind: Kind, rows: &[&Row]) -> Result<Table> {
    let mut region = Region::start(kind).await?;
    let mut table = Table::new(kind, region.direct().await?, region.undisturbed().await?);
    for row in rows {
        for &course in row.courses {
            for moment in MOMENTS {
                let outcome = region.attempt(row, course, moment).await?;
                eprintln!("{} {course} {moment} the transfer: {outcome}", row.name);
                table.add(row.name, course, moment, outcome);
            }
        }
    }
    Ok(table)
}
