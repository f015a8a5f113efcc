//! What the rounds come to.

use std::fmt;
use std::time::Duration;

use serde_json::{Value, json};

use super::round::Round;
use crate::bench::figures::Spread;

/// All samples of a run.
pub(super) struct Report {
    /// At least one.
    pub(super) rounds: Vec<Round>,
    /// Until the last of all nodes had a blob from the registry.
    pub(super) direct: Duration,
    /// The machine's load averages, before and after.
    pub(super) load: [String; 2],
}

/// A figure of a round.
type Figure = fn(&Round) -> f64;

/// Every figure that a round has by itself: its name for machines and for people.
const FIGURES: [(&str, &str, Figure); 11] = [
    ("lastNodeRatio", "last node over the finite-piece bound", |it| it.last_node_ratio),
    ("medianNodeRatio", "median node over the bound", |it| it.median_node_ratio),
    ("registryEgressRatio", "registry egress, copies", |it| it.registry_egress),
    ("gatewayUploadRatio", "gateway upload, copies", |it| it.gateway_upload),
    ("singleNodeOverDirect", "one node alone: time over direct", |it| {
        it.single.as_secs_f64() / it.single_direct.as_secs_f64()
    }),
    ("replayedOverMeasured", "last node: simulated over measured", |it| it.replayed_over_measured),
    ("lastNodeSeconds", "last node, seconds", |it| it.run.last_node() as f64 / 1e6),
    ("singleNodeSeconds", "one node alone, seconds", |it| it.single.as_secs_f64()),
    ("linkBytesRatio", "bytes over a node's link into it, copies", Round::link_copies),
    ("cpuSecondsPerGiB", "CPU-s of the services per GiB that nodes got", Round::cpu_per_gib),
    ("processorsBusy", "processors' time used, by whomever", |it| it.busy),
];

impl fmt::Display for Round {
    /// All figures in one line: what comes later may fail.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        FIGURES.iter().try_for_each(|(name, _, of)| write!(f, "{name} {:.3} ", of(self)))
    }
}

impl Report {
    /// The figures for machines: medians by name, each with its spread, and what was run.
    pub(super) fn json(&self) -> Value {
        let figures = FIGURES.map(|(name, _, of)| (name, self.spread(of)));
        let medians = figures.iter().map(|(name, it)| ((*name).to_owned(), json!(it.median())));
        let mut all: serde_json::Map<_, _> = medians.collect();
        let rows = figures.iter().map(|(name, it)| ((*name).to_owned(), it.json()));
        all.insert("rows".into(), Value::Object(rows.collect()));
        all.insert("overDirect".into(), json!(self.over_direct().median()));
        all.insert("nodes".into(), json!(self.n_nodes()));
        all.insert("runs".into(), json!(self.rounds.iter().map(|it| &it.run).collect::<Vec<_>>()));
        all.insert("load".into(), json!(self.load));
        Value::Object(all)
    }

    fn spread(&self, of: Figure) -> Spread {
        Spread::of(self.rounds.iter().map(of))
    }

    fn over_direct(&self) -> Spread {
        let direct = self.direct.as_secs_f64();
        Spread::of(self.rounds.iter().map(|it| it.run.last_node() as f64 / 1e6 / direct))
    }

    fn n_nodes(&self) -> usize {
        self.rounds.first().map_or(0, |it| it.run.joins.len())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} nodes, load {} before and {} after\n", self.n_nodes(), self.load[0], self.load[1])?;
        writeln!(f, "| what | median (least..most) |\n| --- | --- |")?;
        for (_, what, of) in FIGURES {
            writeln!(f, "| {what} | {} |", self.spread(of))?;
        }
        writeln!(f, "| last node: time over all nodes direct | {} |", self.over_direct())?;
        writeln!(f, "| all nodes direct, seconds | {:.1} |", self.direct.as_secs_f64())
    }
}
