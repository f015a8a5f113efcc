//! The metrics of a fleet at work: they are those of the reference, and Prometheus gets the right figures from them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;
use shoal_tests::fleet::{Fleet, FleetSpec};
use shoal_tests::lab::{Lab, LabSpec};
use shoal_tests::prometheus::Prometheus;
use shoal_tests::registry::RegistrySpec;
use shoal_tests::wait;

const DEADLINE: Duration = Duration::from_secs(60);
const NODES: usize = 3;
const LAYERS: [usize; 2] = [6 << 20, 2 << 20];
/// Set to have the reference written anew.
const WRITE: &str = "SHOAL_WRITE_REFERENCE";

// === The reference ===

/// A metric, as services export it.
#[derive(Debug, Default)]
struct Metric {
    kind: String,
    help: String,
    labels: BTreeSet<String>,
    services: BTreeSet<&'static str>,
}

/// Takes in what a service exports.
fn take_in(all: &mut BTreeMap<String, Metric>, service: &'static str, text: &str) {
    for line in text.lines() {
        if let Some(line) = line.strip_prefix("# HELP ") {
            let (name, help) = line.split_once(' ').unwrap_or((line, ""));
            let metric = all.entry(name.to_owned()).or_default();
            metric.help = help.trim_end_matches('.').to_owned();
            metric.services.insert(service);
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|it| it.split_once(' ')) {
            all.entry(name.to_owned()).or_default().kind = kind.to_owned();
        } else if let Some((series, _)) = line.rsplit_once(' ')
            && let Some((name, labels)) = series.trim_end_matches('}').split_once('{')
        {
            let named = all.iter_mut().filter(|(it, _)| name.starts_with(it.as_str()));
            if let Some((_, metric)) = named.max_by_key(|(it, _)| it.len()) {
                let keys = labels.split(',').filter_map(|it| Some(it.split_once('=')?.0.to_owned()));
                metric.labels.extend(keys.filter(|it| it != "le"));
            }
        }
    }
}

fn reference(all: &BTreeMap<String, Metric>) -> String {
    let mut page = String::from(
        "# Metrics\n\nEach service shows its metrics at `/metrics` of its admin listener, in the OpenMetrics format. \
         `SHOAL_WRITE_REFERENCE=1 cargo test -p shoal-tests --test operate_metrics` writes this page anew from what a \
         fleet at work exports.\n",
    );
    let of = |services: &[&'static str]| {
        let mut table = String::from("\n| metric | type | labels | |\n| --- | --- | --- | --- |\n");
        for (name, metric) in all.iter().filter(|(_, it)| it.services.iter().eq(services)) {
            let end = match metric.kind.as_str() {
                "counter" => "_total",
                "info" => "_info",
                _ => "",
            };
            let labels: Vec<_> = metric.labels.iter().map(|it| format!("`{it}`")).collect();
            let Metric { kind, help, .. } = metric;
            let _ = writeln!(table, "| `{name}{end}` | {kind} | {} | {help} |", labels.join(", "));
        }
        table
    };
    let groups: BTreeSet<Vec<_>> = all.values().map(|it| it.services.iter().copied().collect()).collect();
    for services in groups {
        let _ = write!(page, "\n## {}\n{}", title(&services), of(&services));
    }
    page
}

fn title(services: &[&str]) -> String {
    match services {
        [one] => format!("The {one}"),
        [one, other] => format!("The {one} and the {other}"),
        _ => "All services".to_owned(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_reference_lists_what_a_fleet_at_work_exports() -> Result<()> {
    let mut lab = Lab::start("metrics", LabSpec::nodes(NODES as u16)).await?;
    let limits = json!({ "bytesPerSecond": "100Mi/s", "requestsPerSecond": 1000 });
    let spec = FleetSpec::private().with_gateways(2).with_redis().with_limits(limits);
    let fleet = Fleet::start(&mut lab, spec).await?;
    fleet.joined().await?;
    fleet.gateways_say("shoal_gateway_redis_up", 1.0).await?;
    fleet.registry.front.state_quota(100, 76);
    let image = fleet.publish(&LAYERS).await?;
    for containerd in fleet.containerds().await? {
        containerd.pull(&fleet.registry, &image).await?;
    }
    fleet.gateway.ended_job(fleet.gateway.preheat(&fleet.to_all_peers(&image)).await?).await?;

    let mut all = BTreeMap::new();
    for gateway in fleet.gateways() {
        take_in(&mut all, "gateway", &gateway.metrics().await?);
    }
    take_in(&mut all, "scheduler", &fleet.scheduler.metrics().await?);
    for sidecar in &fleet.sidecars {
        take_in(&mut all, "sidecar", &sidecar.metrics().await?);
    }
    let unsaid: Vec<_> = all.iter().filter(|(_, it)| it.help.is_empty() || it.kind.is_empty()).collect();
    ensure!(unsaid.is_empty(), "without help or type: {unsaid:?}");

    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md");
    let page = reference(&all);
    if std::env::var_os(WRITE).is_some() {
        fs::write(&file, &page)?;
    }
    let kept = fs::read_to_string(&file)?;
    for (number, (kept, exported)) in kept.lines().zip(page.lines()).enumerate() {
        ensure!(kept == exported, "docs/metrics.md, line {}: {kept}\nis exported as: {exported}", number + 1);
    }
    ensure!(kept == page, "docs/metrics.md is longer or shorter than what is exported");
    Ok(())
}

// === The figures ===

/// Whether two figures agree as far as Prometheus, which sees counters once a second, can tell.
fn agree(value: f64, expected: f64) -> bool {
    (value - expected).abs() <= 0.05 * expected.abs() + 1e-9
}

/// Waits until Prometheus has seen the fleet's last state: what counters are is exact.
async fn until(prometheus: &Prometheus, expression: &str, expected: f64) -> Result<()> {
    let mut last = None;
    let is_there = async {
        wait::until(expression, DEADLINE, async || {
            let value = prometheus.value(expression).await.ok()?;
            (value == Some(expected)).then_some(())
        })
        .await
    };
    let res = is_there.await;
    if res.is_err() {
        last = prometheus.value(expression).await?;
    }
    res.map_err(|error| error.context(format!("it is {last:?}, {expected} is expected")))
}

#[tokio::test(flavor = "multi_thread")]
async fn prometheus_says_what_a_pull_has_cost() -> Result<()> {
    let mut lab = Lab::start("prometheus", LabSpec::nodes(NODES as u16)).await?;
    let registry = RegistrySpec::plain();
    let fleet = Fleet::start(&mut lab, FleetSpec::before(registry).watched()).await?;
    fleet.joined().await?;
    let prometheus = Prometheus::start(&mut lab, &fleet).await?;
    // A counter's first step is seen only after the counter was.
    until(&prometheus, "count(shoal_sidecar_served_bytes_total == 0)", NODES as f64).await?;
    until(&prometheus, "count(shoal_gateway_sealed_bytes_total == 0)", 1.0).await?;

    let image = fleet.publish(&LAYERS).await?;
    let containerds = fleet.containerds().await?;
    for containerd in &containerds {
        containerd.pull(&fleet.registry, &image).await?;
    }
    let (bytes, n_blobs) = (image.n_bytes() as f64, image.blobs().count() as f64);
    let runtimes = bytes * NODES as f64;
    until(&prometheus, "sum(shoal_sidecar_served_bytes_total)", runtimes).await?;
    until(&prometheus, "sum(shoal_gateway_back_to_source_bytes_total)", bytes).await?;
    until(&prometheus, r#"sum(shoal_gateway_back_to_source_total{outcome="sealed"})"#, n_blobs).await?;
    until(&prometheus, r#"sum(shoal_sidecar_pulls_total{outcome="complete"})"#, n_blobs * NODES as f64)
        .await?;
    // The swarm has served all: nothing passed it by, and the registry has sent each byte once.
    until(&prometheus, "1 - shoal:direct_bytes:rate5m / shoal:runtime_bytes:rate5m", 1.0).await?;
    let spared = "clamp_min(1 - shoal:registry_bytes:rate5m / shoal:runtime_bytes:rate5m, 0)";
    let expected = 1.0 - 1.0 / NODES as f64;
    let is_spared = async || agree(prometheus.value(spared).await.ok()??, expected).then_some(());
    wait::until("what the registry was spared", DEADLINE, is_spared).await?;
    let egress = prometheus.value("shoal:egress:ratio1h").await?;
    ensure!(egress.is_some_and(|it| agree(it, 1.0)), "egress is {egress:?}");

    // Without a gateway a node reads by itself, as much again as all have been given.
    let mut fleet = fleet;
    fleet.gateway.process.kill().await?;
    let other = fleet.publish(&[runtimes as usize]).await?;
    containerds[0].pull(&fleet.registry, &other).await?;
    let direct = other.n_bytes() as f64;
    let by_itself = "sum(shoal_sidecar_passed_through_bytes_total) \
                     + sum(shoal_sidecar_download_bytes_total{source=\"registry\"})";
    until(&prometheus, by_itself, direct).await?;
    let expected = runtimes / (runtimes + direct);
    let share = wait::until("the share of the swarm", DEADLINE, async || {
        let share =
            prometheus.value("1 - shoal:direct_bytes:rate5m / shoal:runtime_bytes:rate5m").await.ok()??;
        agree(share, expected).then_some(share)
    });
    share.await?;
    let fallbacks = prometheus.value(r#"sum(shoal_sidecar_fallbacks_total{step="passed_through"})"#).await?;
    ensure!(fallbacks.is_some_and(|it| it > 0.0), "no fallback was counted: {fallbacks:?}");
    Ok(())
}
