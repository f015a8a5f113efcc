//! `cargo xtask bench small`: a thousand blobs of 10 KiB through a warm swarm, and the same from the registry.
//!
//! - *Own*: the node that the client asks has all of them.
//! - *Other*: the node has none; the gateway and another node have all.
//!
//! The registry is a real one, on the loopback like everything else, so the swarm gains nothing from being
//! nearer: what is compared is the work. Who comes first changes from round to round.

mod client;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::How;
use super::download::Place;
use super::figures::{Spread, load};
use super::registry::Registry;
use super::stage::Stage;
use crate::region::fleet::Security;
use crate::test::build_binaries;
use client::download;

/// How to measure.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    how: How,
}

/// How much is measured.
struct Extent {
    n_blobs: usize,
    n_rounds: usize,
}

impl Extent {
    const FULL: Self = Self { n_blobs: 1000, n_rounds: 7 };
    const QUICK: Self = Self { n_blobs: 20, n_rounds: 1 };
}

/// A blob's size in bytes.
const SIZE: usize = 10 << 10;
/// How many the client asks for at the same time.
const AT_ONCE: [usize; 2] = [8, 64];

/// The work of one kind, round by round.
struct Work {
    /// Whether the node that is asked has the blobs.
    has_them: bool,
    at_once: usize,
    samples: Vec<Sample>,
}

struct Sample {
    swarm: Duration,
    direct: Duration,
    /// Of all services.
    cpu: Duration,
}

struct Report {
    n_blobs: usize,
    works: Vec<Work>,
    /// The machine's load averages, before and after.
    load: [String; 2],
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    build_binaries()?;
    let report = measure(if args.how.quick { Extent::QUICK } else { Extent::FULL })?;
    if args.how.json {
        println!("{:#}", report.json());
    } else {
        report.print();
    }
    Ok(ExitCode::SUCCESS)
}

#[tokio::main]
async fn measure(Extent { n_blobs, n_rounds }: Extent) -> Result<Report> {
    let load_before = load()?;
    let registry = Registry::start(n_blobs, SIZE).await?;
    // Each round takes nodes that have nothing yet.
    let n_nodes = u16::try_from(1 + AT_ONCE.len() * n_rounds)?;
    let stage = Stage::start(&registry.source()?, n_nodes, Security::Mtls).await?;
    let bench = Bench { registry: &registry, stage: &stage };
    let mut nodes = stage.mirrors().map(|it| registry.through(it));
    let own = nodes.next().context("one node at least")?;
    // The first brings the blobs here, the second finds everything warm.
    for _ in 0..2 {
        download(own.clone(), AT_ONCE[0]).await?;
        download(registry.direct(), AT_ONCE[0]).await?;
    }
    let kinds = [true, false].into_iter().flat_map(|it| AT_ONCE.map(|at_once| (it, at_once)));
    let work = |(has_them, at_once)| Work { has_them, at_once, samples: Vec::new() };
    let mut works: Vec<_> = kinds.map(work).collect();
    for round in 1..=n_rounds {
        for work in &mut works {
            let places = if work.has_them { own.clone() } else { nodes.next().context("a fresh node")? };
            work.samples.push(bench.sample(places, work.at_once, round.is_multiple_of(2)).await?);
        }
        eprintln!("round {round} of {n_rounds} is done");
    }
    drop(nodes);
    stage.end().await?;
    Ok(Report { n_blobs, works, load: [load_before, load()?] })
}

struct Bench<'a> {
    registry: &'a Registry,
    stage: &'a Stage,
}

impl Bench<'_> {
    async fn sample(&self, places: Vec<Place>, at_once: usize, swarm_first: bool) -> Result<Sample> {
        if swarm_first {
            let (swarm, cpu) = self.swarm(places, at_once).await?;
            return Ok(Sample { swarm, cpu, direct: download(self.registry.direct(), at_once).await? });
        }
        let direct = download(self.registry.direct(), at_once).await?;
        let (swarm, cpu) = self.swarm(places, at_once).await?;
        Ok(Sample { swarm, cpu, direct })
    }

    async fn swarm(&self, places: Vec<Place>, at_once: usize) -> Result<(Duration, Duration)> {
        let before = self.stage.cpu_used()?;
        let took = download(places, at_once).await?;
        Ok((took, self.stage.cpu_used()?.saturating_sub(before)))
    }
}

impl Work {
    fn over_direct(&self) -> Spread {
        Spread::of(self.samples.iter().map(|it| it.swarm.as_secs_f64() / it.direct.as_secs_f64()))
    }

    fn name(&self) -> String {
        let whose = if self.has_them { "the node's own" } else { "of other nodes" };
        format!("{whose}, {} at once", self.at_once)
    }
}

impl Report {
    fn rows(&self) -> impl Iterator<Item = (String, Spread)> {
        let n_blobs = self.n_blobs as f64;
        self.works.iter().flat_map(move |work| {
            let per_second = |of: fn(&Sample) -> Duration| {
                work.samples.iter().map(move |it| n_blobs / of(it).as_secs_f64())
            };
            let cpu = work.samples.iter().map(|it| it.cpu.as_secs_f64() * 1e3 / n_blobs);
            let name = work.name();
            [
                (format!("{name}: time over direct"), work.over_direct()),
                (format!("{name}: blobs/s"), Spread::of(per_second(|it| it.swarm))),
                (format!("{name}: direct, blobs/s"), Spread::of(per_second(|it| it.direct))),
                (format!("{name}: CPU-s of all services per 1,000"), Spread::of(cpu)),
            ]
        })
    }

    fn json(&self) -> Value {
        let over_direct = |has_them| {
            let works = self.works.iter().filter(move |it| it.has_them == has_them);
            let medians = works.map(|it| (it.at_once.to_string(), it.over_direct().median().into()));
            Value::Object(medians.collect())
        };
        let rows = self.rows().map(|(name, spread)| (name, spread.json()));
        json!({
            "overDirect": { "own": over_direct(true), "other": over_direct(false) },
            "rows": rows.collect::<serde_json::Map<_, _>>(),
            "load": self.load,
        })
    }

    fn print(&self) {
        println!("load {} before and {} after\n", self.load[0], self.load[1]);
        println!("| what | median (least..most) |\n| --- | --- |");
        self.rows().for_each(|(name, spread)| println!("| {name} | {spread} |"));
    }
}
