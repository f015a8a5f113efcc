//! A real Prometheus that watches a fleet.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use http::StatusCode;
use serde_json::{Value, json};
use url::Url;

use crate::command::Launch;
use crate::fleet::{Fleet, admin};
use crate::host::Host;
use crate::lab::Lab;
use crate::process::Process;
use crate::shoal::{Part, Service};

const PORT: u16 = 9090;

/// A running Prometheus, with the rules that Shoal comes with.
#[derive(Debug)]
pub struct Prometheus {
    host: Host,
    _process: Process,
}

/// The rules that Shoal comes with.
pub fn rules() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../helm/shoal/rules/shoal.yaml")
}

impl Prometheus {
    /// Starts it on a machine of its own. The fleet has to be [watched](crate::fleet::FleetSpec::watched).
    pub async fn start(lab: &mut Lab, fleet: &Fleet) -> Result<Self> {
        let host = lab.host("prometheus").await?;
        let schedulers = [&fleet.scheduler].into_iter().chain(&fleet.more_schedulers);
        let jobs = [
            job(Part::Gateway, fleet.gateways()),
            job(Part::Scheduler, schedulers),
            job(Part::Sidecar, &fleet.sidecars),
        ];
        let config = json!({
            "global": { "scrape_interval": "1s", "evaluation_interval": "1s" },
            "rule_files": [std::fs::canonicalize(rules())?],
            "scrape_configs": jobs,
        });
        let file = host.dir().join("prometheus.yaml");
        // JSON is YAML.
        std::fs::write(&file, config.to_string())?;
        let launch = Launch::new("prometheus")
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", host.dir().join("prometheus").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{PORT}"));
        let mut process = host.start("prometheus", launch)?;
        process.wait_for_port(PORT).await?;
        Ok(Self { host, _process: process })
    }

    /// What an expression is now: each series' labels and value.
    pub async fn query(&self, expression: &str) -> Result<Vec<(Value, f64)>> {
        let mut url = Url::parse(&format!("http://127.0.0.1:{PORT}/api/v1/query"))?;
        url.query_pairs_mut().append_pair("query", expression);
        let answer = self.host.get(url.as_str()).await?;
        let status = answer.status();
        let body: Value = serde_json::from_slice(answer.body())?;
        ensure!(status == StatusCode::OK, "{expression}: {status} {body}");
        let series = body["data"]["result"].as_array().context("no result")?;
        let value = |it: &Value| {
            let value = it["value"][1].as_str().context("no value")?;
            Ok((it["metric"].clone(), value.parse()?))
        };
        series.iter().map(value).collect()
    }

    /// The one value that an expression has now, if it has one.
    pub async fn value(&self, expression: &str) -> Result<Option<f64>> {
        let series = self.query(expression).await?;
        ensure!(series.len() < 2, "{expression}: {} series", series.len());
        Ok(series.first().map(|it| it.1))
    }
}

fn job<'a>(part: Part, services: impl IntoIterator<Item = &'a Service>) -> Value {
    let target = |it: &Service| {
        let address = format!("{}:{}", it.host.address(), admin(part).port());
        json!({ "targets": [address], "labels": { "instance": it.host.name() } })
    };
    let targets: Vec<_> = services.into_iter().map(target).collect();
    json!({ "job_name": part.program(), "static_configs": targets })
}
