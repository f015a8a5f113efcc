//! From rounds to figures, and their table.

use std::{fmt, fs};

use anyhow::Result;
use serde::Serialize;

use crate::work::{Extent, Round, Took};

/// Collects the rounds of a run.
pub(crate) struct Report {
    extent: Extent,
    rounds: Vec<Round>,
    load_before: String,
}

/// What a run found.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Figures {
    /// Nodes that were connected.
    nodes: usize,
    /// Blobs that each of them held.
    blobs: u64,
    /// Nodes whose scheduler was restarted.
    returning: usize,
    /// Medians: by the clock, with the nodes on the same machine.
    registrations_per_second: f64,
    reports_per_second: f64,
    #[serde(rename = "residentMiB")]
    resident_mib: f64,
    seconds_after_restart: f64,
    rows: Vec<Row>,
    /// The machine's load averages when the run began and when it ended.
    load_before: String,
    load_after: String,
}

#[derive(Serialize)]
struct Row {
    what: &'static str,
    #[serde(flatten)]
    spread: Spread,
}

/// The rounds' median, and the least and the most of them.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
struct Spread {
    median: f64,
    min: f64,
    max: f64,
}

impl Report {
    /// Without rounds yet.
    pub(crate) fn start(extent: Extent) -> Result<Self> {
        Ok(Self { extent, rounds: Vec::new(), load_before: load()? })
    }

    /// Takes one.
    pub(crate) fn add(&mut self, round: Round) {
        self.rounds.push(round);
    }

    /// What it comes to.
    pub(crate) fn finish(self) -> Result<Figures> {
        let spread = |of: &dyn Fn(&Round) -> f64| spread(self.rounds.iter().map(of));
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let registrations = spread(&|it| it.registrations.rate());
        let reports = spread(&|it| it.reports.rate());
        let resident = spread(&|it| mib(it.resident_announced));
        let known = spread(&|it| it.restart.known.as_secs_f64());
        let rows = [
            ("registrations per second", registrations),
            ("reports per second", reports),
            ("scheduler, CPU-s per 1,000 joins", spread(&|it| it.joins.cpu_per_thousand())),
            ("scheduler, CPU-s per 1,000 registrations", spread(&|it| it.registrations.cpu_per_thousand())),
            ("scheduler, CPU-s per 1,000 reports", spread(&|it| it.reports.cpu_per_thousand())),
            ("scheduler, CPU-s for all nodes pulling one blob", spread(&|it| it.pull.cpu.as_secs_f64())),
            ("orders per registration", spread(&|it| it.registrations.orders_per_unit())),
            ("orders for all nodes pulling one blob", spread(&|it| it.pull.orders as f64)),
            ("resident memory, nodes connected, MiB", spread(&|it| mib(it.resident_joined))),
            ("resident memory, all blobs announced, MiB", resident),
            ("resident memory, after all pulls, MiB", spread(&|it| mib(it.resident_pulled))),
            ("restart: all that nodes hold is known, s", known),
            (
                "restart: every wish is answered with neighbours, s",
                spread(&|it| it.restart.led.as_secs_f64()),
            ),
            ("restart: orders to seed", spread(&|it| it.restart.seeds as f64)),
        ];
        Ok(Figures {
            nodes: self.extent.nodes,
            blobs: self.extent.held,
            returning: self.extent.returning,
            registrations_per_second: registrations.median,
            reports_per_second: reports.median,
            resident_mib: resident.median,
            seconds_after_restart: known.median,
            rows: rows.map(|(what, spread)| Row { what, spread }).into(),
            load_before: self.load_before,
            load_after: load()?,
        })
    }
}

impl Took {
    /// Units per second.
    fn rate(&self) -> f64 {
        self.units / self.wall.as_secs_f64()
    }

    /// CPU seconds of the scheduler per 1,000 units.
    fn cpu_per_thousand(&self) -> f64 {
        self.cpu.as_secs_f64() / self.units * 1e3
    }

    fn orders_per_unit(&self) -> f64 {
        self.orders as f64 / self.units
    }
}

/// Of one value at least, as every round gives one; without any, not a number.
fn spread(values: impl Iterator<Item = f64>) -> Spread {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
    let last = values.len().saturating_sub(1);
    Spread { median: (at(last / 2) + at(last.div_ceil(2))) / 2.0, min: at(0), max: at(last) }
}

fn load() -> Result<String> {
    let text = fs::read_to_string("/proc/loadavg")?;
    Ok(text.split_whitespace().take(3).collect::<Vec<_>>().join(" "))
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { nodes, blobs, returning, load_before, load_after, .. } = self;
        writeln!(
            f,
            "{nodes} nodes, {blobs} blobs, restart with {returning} nodes, load {load_before} before and {load_after} after\n"
        )?;
        writeln!(f, "| what | median (least..most) |\n| --- | --- |")?;
        self.rows.iter().try_for_each(|it| writeln!(f, "| {} | {} |", it.what, it.spread))
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Three digits, which is more than the rounds agree on.
        let digits = match self.median {
            it if it < 1.0 => 3,
            it if it < 10.0 => 2,
            it if it < 100.0 => 1,
            _ => 0,
        };
        let Self { median, min, max } = self;
        write!(f, "{median:.digits$} ({min:.digits$}..{max:.digits$})")
    }
}
