//! From samples to figures, and their table.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::thread;

use anyhow::Result;
use serde::Serialize;

use crate::work::{Sample, Security, Work};

/// Collects the samples of a run.
pub(crate) struct Report {
    samples: BTreeMap<(Work, Security), Vec<Sample>>,
    load_before: String,
}

/// What a run found.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Figures {
    /// Processors of the machine.
    processors: usize,
    /// Its load averages when the run began and when it ended.
    load_before: String,
    load_after: String,
    rows: Vec<Row>,
}

/// One work under one security.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    work: String,
    security: Security,
    unit: &'static str,
    /// Units per second.
    rate: Spread,
    /// CPU milliseconds per unit, of the serving and of the asking process.
    server_cpu: Spread,
    client_cpu: Spread,
    /// This row's units per second and CPU time of both processes over those of the same work in plain, by
    /// rounds.
    #[serde(skip_serializing_if = "Option::is_none")]
    over_plain: Option<Ratio>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Ratio {
    rate: Spread,
    cpu: Spread,
}

/// The rounds' median, and the least and the most of them.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
struct Spread {
    median: f64,
    min: f64,
    max: f64,
}

impl Report {
    /// Without samples yet.
    pub(crate) fn start() -> Result<Self> {
        Ok(Self { samples: BTreeMap::new(), load_before: load()? })
    }

    /// Takes one.
    pub(crate) fn add(&mut self, work: Work, security: Security, sample: Sample) {
        self.samples.entry((work, security)).or_default().push(sample);
    }

    /// What it comes to.
    pub(crate) fn finish(self) -> Result<Figures> {
        let row = |(&(work, security), samples): (&(Work, Security), &Vec<Sample>)| Row {
            work: work.to_string(),
            security,
            unit: work.unit(),
            rate: spread(samples.iter().map(Sample::rate)),
            server_cpu: spread(samples.iter().map(|it| it.server_cpu.as_secs_f64() * 1e3 / it.units)),
            client_cpu: spread(samples.iter().map(|it| it.client_cpu.as_secs_f64() * 1e3 / it.units)),
            over_plain: self.over_plain(work, security),
        };
        Ok(Figures {
            processors: thread::available_parallelism()?.get(),
            rows: self.samples.iter().map(row).collect(),
            load_before: self.load_before,
            load_after: load()?,
        })
    }

    fn over_plain(&self, work: Work, security: Security) -> Option<Ratio> {
        let plain = self.samples.get(&(work, Security::Plain)).filter(|_| security == Security::Tls)?;
        let pairs = || self.samples.get(&(work, security)).into_iter().flatten().zip(plain);
        Some(Ratio {
            rate: spread(pairs().map(|(tls, plain)| tls.rate() / plain.rate())),
            cpu: spread(pairs().map(|(tls, plain)| tls.cpu() / plain.cpu())),
        })
    }
}

impl Sample {
    /// Units per second.
    fn rate(&self) -> f64 {
        self.units / self.wall.as_secs_f64()
    }

    /// CPU seconds of both processes per unit.
    fn cpu(&self) -> f64 {
        (self.server_cpu + self.client_cpu).as_secs_f64() / self.units
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
        writeln!(
            f,
            "{} processors, load {} before and {} after\n",
            self.processors, self.load_before, self.load_after
        )?;
        writeln!(f, "| work | security | per second | server, CPU ms | client, CPU ms | CPU, TLS : plain |")?;
        writeln!(f, "| --- | --- | --- | --- | --- | --- |")?;
        for row in &self.rows {
            let ratio = row.over_plain.as_ref().map_or_else(String::new, |it| it.cpu.to_string());
            let Row { work, security, unit, rate, server_cpu, client_cpu, .. } = row;
            writeln!(f, "| {work} | {security} | {rate} {unit} | {server_cpu} | {client_cpu} | {ratio} |")?;
        }
        Ok(())
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Three digits, which is more than the rounds agree on.
        let digits = match self.median {
            it if it < 10.0 => 2,
            it if it < 100.0 => 1,
            _ => 0,
        };
        let Self { median, min, max } = self;
        write!(f, "{median:.digits$} ({min:.digits$}..{max:.digits$})")
    }
}
