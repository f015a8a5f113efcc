//! The bench of pieces between two nodes, which is one of the crate that moves them.

use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::test::cargo;

/// The work whose cost counts: what a node does with a piece that it gets.
const WORK: &str = "pieces into a store, 4 at once";

/// What that bench found, as it tells it.
pub(super) struct Pieces(pub(super) Value);

/// Builds and runs it.
pub(super) fn measure(quick: bool) -> Result<Pieces> {
    let mut bench = cargo("bench");
    bench.args(["--package", "shoal-peer", "--bench", "data_path"]);
    if quick {
        bench.args(["--profile", "dev"]);
    }
    bench.args(["--", "--json"]).args(quick.then_some("--quick"));
    let output = bench.stderr(Stdio::inherit()).output().context("cargo cannot be started")?;
    ensure!(output.status.success(), "bench of pieces: {}", output.status);
    Ok(Pieces(serde_json::from_slice(&output.stdout)?))
}

impl Pieces {
    /// Median CPU seconds per GiB of both nodes together.
    pub(super) fn cpu_per_gib(&self, security: &str) -> Option<f64> {
        let mut rows = self.0["rows"].as_array()?.iter();
        let row = rows.find(|it| it["work"] == WORK && it["security"] == security)?;
        let milliseconds = row["serverCpu"]["median"].as_f64()? + row["clientCpu"]["median"].as_f64()?;
        Some(milliseconds / 1e3)
    }
}
