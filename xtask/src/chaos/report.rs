//! What came of the run.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde_json::{Value, json};

use super::clients::Pulled;
use super::leaks::Leaked;

/// All that is told of a run.
pub(super) struct Report {
    pub(super) seed: u64,
    pub(super) lasts: Duration,
    /// The median time of a pull without Shoal.
    pub(super) direct: Duration,
    pub(super) pulled: Pulled,
    pub(super) leaked: Leaked,
    /// How often each kind of fault came.
    pub(super) faults: BTreeMap<String, usize>,
}

impl Report {
    pub(super) fn is_clean(&self) -> bool {
        let Pulled { failed, n_wrong, .. } = &self.pulled;
        let Leaked { n_files, n_bytes } = self.leaked;
        failed.is_empty() && *n_wrong == 0 && n_files == 0 && n_bytes == 0
    }

    /// In seconds.
    fn slowest_over_direct(&self) -> f64 {
        let slowest = self.pulled.took.iter().max().copied().unwrap_or_default();
        slowest.as_secs_f64() - self.direct.as_secs_f64()
    }

    fn median(&self) -> f64 {
        let mut took = self.pulled.took.clone();
        took.sort_unstable();
        took.get(took.len() / 2).copied().unwrap_or_default().as_secs_f64()
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "seed": self.seed,
            "minutes": self.lasts.as_secs() / 60,
            "pulls": self.pulled.took.len() + self.pulled.failed.len(),
            "failedPulls": self.pulled.failed.len(),
            "reads": self.pulled.n_read,
            "wrongBytes": self.pulled.n_wrong,
            "directSeconds": self.direct.as_secs_f64(),
            "medianSeconds": self.median(),
            "slowestOverDirect": self.slowest_over_direct(),
            "leakedFileDescriptors": self.leaked.n_files,
            "leakedBytes": self.leaked.n_bytes,
            "faults": self.faults,
            "failures": self.pulled.failed,
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Pulled { took, failed, n_read, n_wrong } = &self.pulled;
        writeln!(f, "{} minutes, seed {}\n", self.lasts.as_secs() / 60, self.seed)?;
        writeln!(f, "| what | |\n| --- | --- |")?;
        writeln!(f, "| pulls by containerd | {} |", took.len() + failed.len())?;
        writeln!(f, "| of these failed | {} |", failed.len())?;
        writeln!(f, "| blobs read at mirrors | {n_read} |")?;
        writeln!(f, "| wrong bytes | {n_wrong} |")?;
        writeln!(f, "| a pull without Shoal and faults, median, s | {:.2} |", self.direct.as_secs_f64())?;
        writeln!(f, "| a pull, median, s | {:.2} |", self.median())?;
        writeln!(f, "| the slowest pull, s more than without | {:.2} |", self.slowest_over_direct())?;
        writeln!(f, "| leaked file descriptors | {} |", self.leaked.n_files)?;
        writeln!(f, "| leaked bytes | {} |", self.leaked.n_bytes)?;
        writeln!(f, "\n| fault | times |\n| --- | --- |")?;
        for (fault, times) in &self.faults {
            writeln!(f, "| {fault} | {times} |")?;
        }
        for why in failed {
            writeln!(f, "\nfailed: {why}")?;
        }
        Ok(())
    }
}
