//! What came of the run.

use std::fmt;
use std::time::Duration;

use serde_json::{Value, json};

use super::clients::{Pull, Pulled};
use super::leaks::Leaked;
use super::plan::Plan;

/// All that is told of a run.
pub(super) struct Report {
    pub(super) seed: u64,
    pub(super) lasts: Duration,
    /// The median time of a pull without Shoal.
    pub(super) direct: Duration,
    pub(super) pulled: Pulled,
    pub(super) leaked: Leaked,
    pub(super) plan: Plan,
}

impl Report {
    pub(super) fn is_clean(&self) -> bool {
        let Pulled { failed, n_wrong, .. } = &self.pulled;
        let Leaked { n_files, n_bytes } = self.leaked;
        failed.is_empty() && *n_wrong == 0 && n_files == 0 && n_bytes == 0
    }

    /// In seconds, by what is counted of each pull.
    fn slowest_over_direct(&self, counted: impl Fn(&Pull) -> Duration) -> f64 {
        let slowest = self.pulled.good.iter().map(counted).max().unwrap_or_default();
        slowest.as_secs_f64() - self.direct.as_secs_f64()
    }

    /// How long a pull took, without the time in which nothing could come to its node.
    fn took_reachable(&self, pull: &Pull) -> Duration {
        pull.took.saturating_sub(self.plan.alone(pull.node, pull.began, pull.began + pull.took))
    }

    fn median(&self) -> f64 {
        let mut took: Vec<_> = self.pulled.good.iter().map(|it| it.took).collect();
        took.sort_unstable();
        took.get(took.len() / 2).copied().unwrap_or_default().as_secs_f64()
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "seed": self.seed,
            "minutes": self.lasts.as_secs() / 60,
            "pulls": self.pulled.good.len() + self.pulled.failed.len(),
            "failedPulls": self.pulled.failed.len(),
            "reads": self.pulled.n_read,
            "wrongBytes": self.pulled.n_wrong,
            "directSeconds": self.direct.as_secs_f64(),
            "medianSeconds": self.median(),
            "slowestOverDirect": self.slowest_over_direct(|it| it.took),
            "slowestOverDirectReachable": self.slowest_over_direct(|it| self.took_reachable(it)),
            "leakedFileDescriptors": self.leaked.n_files,
            "leakedBytes": self.leaked.n_bytes,
            "faults": self.plan.counted(),
            "failures": self.pulled.failed,
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Pulled { good, failed, n_read, n_wrong } = &self.pulled;
        writeln!(f, "{} minutes, seed {}\n", self.lasts.as_secs() / 60, self.seed)?;
        writeln!(f, "| what | |\n| --- | --- |")?;
        writeln!(f, "| pulls by containerd | {} |", good.len() + failed.len())?;
        writeln!(f, "| of these failed | {} |", failed.len())?;
        writeln!(f, "| blobs read at mirrors | {n_read} |")?;
        writeln!(f, "| wrong bytes | {n_wrong} |")?;
        writeln!(f, "| a pull without Shoal and faults, median, s | {:.2} |", self.direct.as_secs_f64())?;
        writeln!(f, "| a pull, median, s | {:.2} |", self.median())?;
        let [all, reachable] =
            [self.slowest_over_direct(|it| it.took), self.slowest_over_direct(|it| self.took_reachable(it))];
        writeln!(f, "| the slowest pull, s more than without | {all:.2} |")?;
        writeln!(f, "| the same, less what its own node was cut off or stopped | {reachable:.2} |")?;
        writeln!(f, "| leaked file descriptors | {} |", self.leaked.n_files)?;
        writeln!(f, "| leaked bytes | {} |", self.leaked.n_bytes)?;
        writeln!(f, "\n| fault | times |\n| --- | --- |")?;
        for (fault, times) in self.plan.counted() {
            writeln!(f, "| {fault} | {times} |")?;
        }
        for why in failed {
            writeln!(f, "\nfailed: {why}")?;
        }
        Ok(())
    }
}
