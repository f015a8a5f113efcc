//! Shoal's programs on the lab's machines, watched through their admin listeners.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use http::StatusCode;
use serde_json::Value;

use crate::command::Launch;
use crate::host::Host;
use crate::process::Process;

/// The environment variable that says where the binaries are, if not in this workspace's release directory.
pub const BIN_DIR: &str = "SHOAL_BIN_DIR";

/// One of the three services.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The registry side.
    Gateway,
    /// Who holds what.
    Scheduler,
    /// The node side.
    Sidecar,
}

impl Part {
    /// The name of its program.
    pub fn program(self) -> &'static str {
        match self {
            Self::Gateway => "shoal-gateway",
            Self::Scheduler => "shoal-scheduler",
            Self::Sidecar => "shoal-sidecar",
        }
    }

    /// The launch of this part on a host, with its settings written to the host's directory.
    pub fn launch(self, host: &Host, settings: &Value) -> Result<Launch> {
        let config = self.settings_file(host);
        // JSON is YAML.
        std::fs::write(&config, settings.to_string())?;
        Ok(self.command()?.arg("--config").arg(config))
    }

    /// The file of this part's settings on a host.
    pub fn settings_file(self, host: &Host) -> PathBuf {
        host.dir().join(format!("{}.yaml", self.program()))
    }

    /// The program without arguments.
    pub fn command(self) -> Result<Launch> {
        command(self.program())
    }
}

/// `shoalctl` without arguments.
pub fn shoalctl() -> Result<Launch> {
    command("shoalctl")
}

fn command(program: &str) -> Result<Launch> {
    let file = bin_dir().join(program);
    ensure!(file.exists(), "{}: no such program; build it in release mode", file.display());
    Ok(Launch::new(file))
}

fn bin_dir() -> PathBuf {
    match std::env::var_os(BIN_DIR) {
        Some(dir) => dir.into(),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/release"),
    }
}

/// A running part.
#[derive(Debug)]
pub struct Service {
    /// The machine it runs on.
    pub host: Host,
    /// The program.
    pub process: Process,
    part: Part,
    admin: SocketAddr,
}

impl Service {
    /// Starts a part and waits until it says that it is ready. `admin` is the address of its admin listener
    /// as its settings say, reached from its own machine.
    pub async fn start(host: &Host, part: Part, settings: &Value, admin: SocketAddr) -> Result<Self> {
        let process = host.start(part.program(), part.launch(host, settings)?)?;
        let mut this = Self::of(host, part, process, admin);
        this.wait_until_ready().await?;
        Ok(this)
    }

    /// A part that was started already.
    pub fn of(host: &Host, part: Part, process: Process, admin: SocketAddr) -> Self {
        Self { host: host.clone(), process, part, admin }
    }

    /// Waits until the part says that it is ready.
    pub async fn wait_until_ready(&mut self) -> Result<()> {
        let (host, url) = (self.host.clone(), format!("http://{}/readyz", self.admin));
        let is_ready = async || host.get(&url).await.is_ok_and(|it| it.status() == StatusCode::OK);
        self.process.wait_for("ready", is_ready).await
    }

    /// Changes the part's settings, as an operator does: in the file, with a restart.
    pub async fn change_settings(&mut self, change: impl FnOnce(&mut Value)) -> Result<()> {
        let file = self.part.settings_file(&self.host);
        let mut settings = serde_json::from_slice(&std::fs::read(&file)?)?;
        change(&mut settings);
        std::fs::write(&file, settings.to_string())?;
        self.process.restart().await?;
        self.wait_until_ready().await
    }

    /// A metric's value now, summed over all series that carry the given labels; 0 when there is none.
    pub async fn metric(&self, name: &str, labels: &[(&str, &str)]) -> Result<f64> {
        Ok(sum_of(&self.metrics().await?, name, labels))
    }

    /// All metrics now, in the Prometheus text format.
    pub async fn metrics(&self) -> Result<String> {
        let response = self.host.get(&format!("http://{}/metrics", self.admin)).await?;
        String::from_utf8(response.into_body().into()).context("metrics: not text")
    }
}

/// Sums a metric in the Prometheus text format; 0 when there is none. Label values with commas or quotes in
/// them are not expected.
pub fn sum_of(text: &str, name: &str, labels: &[(&str, &str)]) -> f64 {
    let carries = |series: &str| {
        labels.iter().all(|(key, value)| series.split(',').any(|it| it == format!("{key}=\"{value}\"")))
    };
    text.lines()
        .filter_map(|line| {
            let (series, value) = line.strip_prefix(name)?.rsplit_once(' ')?;
            let series = match series {
                "" => "",
                braced => braced.strip_prefix('{')?.strip_suffix('}')?,
            };
            carries(series).then_some(value.parse::<f64>().ok()?)
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const METRICS: &str = "\
# HELP pulls_total Pulls.
pulls_total{result=\"ok\",via=\"swarm\"} 3
pulls_total{result=\"ok\",via=\"direct\"} 4
pulls_total{result=\"failed\",via=\"direct\"} 1
pulls_total_bytes 17
up 1
# EOF";

    #[track_caller]
    fn check(name: &str, labels: &[(&str, &str)], expected: f64) {
        assert!((sum_of(METRICS, name, labels) - expected).abs() < f64::EPSILON, "{name} {labels:?}");
    }

    #[test]
    fn a_metric_is_summed_over_the_series_with_its_labels() {
        check("pulls_total", &[], 8.0);
        check("pulls_total", &[("result", "ok")], 7.0);
        check("pulls_total", &[("result", "ok"), ("via", "direct")], 4.0);
        check("pulls_total", &[("result", "fine")], 0.0);
        check("pulls_total_bytes", &[], 17.0);
        check("up", &[], 1.0);
        check("down", &[], 0.0);
    }
}
