//! `cargo xtask bench gateway`: how many nodes one gateway bears, and how many blobs it opens for them.
//!
//! Thousands of nodes, simulated in this process, connect by mutual TLS, as they do for as long as they live.
//! Then they take turns to open the layers of an image, as nodes do that pull it at the same time. The
//! gateway knows by then that the blobs belong to the repository, so it asks the registry for nothing.
//!
//! The nodes use the same processors as the gateway. What it would open with the processors for itself
//! follows from its CPU time.

mod nodes;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::{Value, json};
use shoal_proto::Source;
use tokio::time::Instant;

use super::figures::{Spread, load};
use super::registry::Registry;
use super::stage::Stage;
use super::{How, cpu};
use crate::region::fleet::Security;
use crate::test::build_binaries;
use nodes::Nodes;

/// How to measure.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    how: How,
}

/// How much is measured.
struct Extent {
    connections: usize,
    rounds: usize,
    round: Duration,
}

impl Extent {
    const FULL: Self = Self { connections: 10_000, rounds: 9, round: Duration::from_secs(5) };
    const QUICK: Self = Self { connections: 40, rounds: 1, round: Duration::from_millis(200) };
}

/// The layers of an image.
const LAYERS: usize = 10;
/// Their size in bytes: too large for the content to come along.
const LAYER: usize = 64 << 10;

/// One round.
struct Round {
    opens_per_second: f64,
    /// Of the gateway, per thousand.
    cpu_seconds: f64,
}

struct Report {
    connections: usize,
    /// What each of them takes, in KiB.
    kib_per_connection: f64,
    rounds: Vec<Round>,
    /// At the end, in MiB.
    resident: f64,
    /// The machine's load averages, before and after.
    load: [String; 2],
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    build_binaries()?;
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    let report = measure(if args.how.quick { Extent::QUICK } else { Extent::FULL })?;
    if args.how.json {
        println!("{:#}", report.json());
    } else {
        report.print();
    }
    Ok(ExitCode::SUCCESS)
}

#[tokio::main]
async fn measure(extent: Extent) -> Result<Report> {
    let load_before = load()?;
    let registry = Registry::start(LAYERS, LAYER).await?;
    let source = registry.source()?;
    let stage = Stage::start(&source, 0, Security::Mtls).await?;
    let source = Source { registry: source.registry.to_string(), repository: source.repository.to_string() };
    let idle = stage.resident_mib("gateway")?;
    let nodes =
        Nodes::connect(extent.connections, &stage.gateway(), &stage.dir("gateway").join("ca")).await?;
    let kib_per_connection = (stage.resident_mib("gateway")? - idle) * 1024.0 / extent.connections as f64;
    eprintln!("{} nodes are connected", extent.connections);
    let gateway = [stage.process("gateway")?];
    // The first time, the registry is asked.
    nodes.open(&source, registry.digests(), extent.round).await?;
    let mut rounds = Vec::new();
    for round in 1..=extent.rounds {
        let (before, start) = (cpu::used(&gateway)?, Instant::now());
        let n_opened = nodes.open(&source, registry.digests(), extent.round).await? as f64;
        let (cpu, lasted) = (cpu::used(&gateway)?.saturating_sub(before), start.elapsed());
        rounds.push(Round {
            opens_per_second: n_opened / lasted.as_secs_f64(),
            cpu_seconds: cpu.as_secs_f64() * 1e3 / n_opened,
        });
        eprintln!("round {round} of {} is done", extent.rounds);
    }
    let resident = stage.resident_mib("gateway").context("the gateway's memory")?;
    stage.end().await?;
    let load = [load_before, load()?];
    Ok(Report { connections: extent.connections, kib_per_connection, rounds, resident, load })
}

impl Report {
    fn opens_per_second(&self) -> Spread {
        Spread::of(self.rounds.iter().map(|it| it.opens_per_second))
    }

    fn cpu_seconds(&self) -> Spread {
        Spread::of(self.rounds.iter().map(|it| it.cpu_seconds))
    }

    /// What the gateway would open if two processors did nothing else.
    fn of_two_processors(&self) -> Spread {
        Spread::of(self.rounds.iter().map(|it| 2.0 * 1e3 / it.cpu_seconds))
    }

    fn json(&self) -> Value {
        json!({
            "connections": self.connections,
            "opensPerSecond": self.opens_per_second().median(),
            "cpuSecondsPerThousandOpens": self.cpu_seconds().median(),
            "residentMiB": self.resident,
            "rows": {
                "opensPerSecond": self.opens_per_second().json(),
                "opensPerSecondOfTwoProcessors": self.of_two_processors().json(),
                "cpuSecondsPerThousandOpens": self.cpu_seconds().json(),
                "kibPerConnection": self.kib_per_connection,
            },
            "load": self.load,
        })
    }

    fn print(&self) {
        println!("load {} before and {} after\n", self.load[0], self.load[1]);
        println!("| what | median (least..most) |\n| --- | --- |");
        println!("| connections | {} |", self.connections);
        println!("| Opens/s, nodes on the same processors | {} |", self.opens_per_second());
        println!(
            "| Opens/s that the CPU time of two processors is good for | {} |",
            self.of_two_processors()
        );
        println!("| CPU-s per 1,000 Opens | {} |", self.cpu_seconds());
        println!("| resident, MiB | {:.0} |", self.resident);
        println!("| resident per idle connection, KiB | {:.1} |", self.kib_per_connection);
    }
}
