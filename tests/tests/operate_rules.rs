//! Alerts and dashboards: they are what Prometheus understands, alerts fire when they should and only then, and each
//! names what is exported and explained.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use shoal_tests::prometheus::rules;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn promtool(args: &[&str]) -> Result<()> {
    let output = Command::new("promtool").args(args).current_dir(root()).output()?;
    let told = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "promtool {}: {told}", args.join(" "));
    Ok(())
}

/// Each dashboard's name and content.
fn dashboards() -> Result<Vec<(String, Value)>> {
    let dir = root().join("helm/shoal/dashboards");
    let files: Vec<_> = fs::read_dir(dir)?.collect::<Result<_, _>>()?;
    ensure!(!files.is_empty(), "there are no dashboards");
    let read = |file: fs::DirEntry| {
        let content =
            serde_json::from_slice(&fs::read(file.path())?).context(file.path().display().to_string())?;
        Ok((file.file_name().to_string_lossy().into_owned(), content))
    };
    files.into_iter().map(read).collect()
}

/// All expressions of a dashboard, with what its variables may stand for.
fn expressions(dashboard: &Value) -> Vec<String> {
    let panels = dashboard["panels"].as_array().into_iter().flatten();
    let targets = panels.flat_map(|it| it["targets"].as_array().into_iter().flatten());
    let expressions = targets.filter_map(|it| it["expr"].as_str());
    let filled = |it: &str| {
        let it = it.replace("$__rate_interval", "5m").replace("$__range", "1h");
        it.replace("$instance", ".*").replace("$registry", ".*")
    };
    expressions.map(filled).collect()
}

/// The names of Shoal's metrics in a text.
fn metrics_in(text: &str) -> BTreeSet<String> {
    let is_part = |it: char| it.is_ascii_alphanumeric() || it == '_' || it == ':';
    let words = text.split(|it| !is_part(it)).filter(|it| it.starts_with("shoal_"));
    let ends = ["_bucket", "_sum", "_count"];
    let name = |it: &str| ends.iter().find_map(|end| it.strip_suffix(end)).unwrap_or(it).to_owned();
    words.map(name).collect()
}

/// The names that the rules record.
fn recorded() -> Result<BTreeSet<String>> {
    let text = fs::read_to_string(rules())?;
    let names = text.lines().filter_map(|it| it.trim().strip_prefix("- record: "));
    Ok(names.map(str::to_owned).collect())
}

fn alerts() -> Result<Vec<String>> {
    let text = fs::read_to_string(rules())?;
    let names: Vec<_> = text.lines().filter_map(|it| it.trim().strip_prefix("- alert: ")).collect();
    ensure!(!names.is_empty(), "there are no alerts");
    Ok(names.into_iter().map(str::to_owned).collect())
}

#[test]
fn rules_are_understood_and_alerts_fire_when_they_should_and_only_then() -> Result<()> {
    promtool(&["check", "rules", "helm/shoal/rules/shoal.yaml"])?;
    promtool(&["test", "rules", "tests/alerts/fire.yaml", "tests/alerts/quiet.yaml"])
}

#[test]
fn each_alert_is_tested_to_fire_and_not_to_fire() -> Result<()> {
    for file in ["fire", "quiet"] {
        let tests = fs::read_to_string(root().join(format!("tests/alerts/{file}.yaml")))?;
        for alert in alerts()? {
            ensure!(tests.contains(&format!("alertname: {alert}")), "{alert} is not in {file}.yaml");
        }
    }
    Ok(())
}

#[test]
fn each_alert_leads_to_what_is_to_be_done() -> Result<()> {
    let (text, runbooks) =
        (fs::read_to_string(rules())?, fs::read_to_string(root().join("docs/runbooks.md"))?);
    for alert in alerts()? {
        let link = format!("runbook_url: docs/runbooks.md#{}\n", alert.to_lowercase());
        ensure!(text.contains(&link), "{alert} does not link to its section");
        ensure!(runbooks.contains(&format!("\n## {alert}\n")), "docs/runbooks.md says nothing of {alert}");
    }
    Ok(())
}

#[test]
fn each_panel_asks_what_prometheus_understands() -> Result<()> {
    for (name, dashboard) in dashboards()? {
        let record = |(number, it)| json!({ "record": format!("panel:{number}"), "expr": it });
        let rules: Vec<_> = expressions(&dashboard).into_iter().enumerate().map(record).collect();
        ensure!(!rules.is_empty(), "{name} asks nothing");
        let file = std::env::temp_dir().join(format!("shoal-{}-{name}", std::process::id()));
        fs::write(&file, json!({ "groups": [{ "name": name, "rules": rules }] }).to_string())?;
        let res = promtool(&["check", "rules", &file.to_string_lossy()]);
        fs::remove_file(&file)?;
        res.context(name)?;
    }
    Ok(())
}

#[test]
fn panels_and_rules_name_what_is_exported() -> Result<()> {
    let reference = metrics_in(&fs::read_to_string(root().join("docs/metrics.md"))?);
    let recorded = recorded()?;
    let mut asked = metrics_in(&fs::read_to_string(rules())?);
    for (name, dashboard) in dashboards()? {
        let text = expressions(&dashboard).join("\n");
        asked.extend(metrics_in(&text));
        let is_part = |it: char| it.is_ascii_alphanumeric() || it == '_' || it == ':';
        for word in text.split(|it| !is_part(it)).filter(|it| it.starts_with("shoal:")) {
            ensure!(recorded.contains(word), "{name}: {word} is not recorded");
        }
    }
    let unknown: Vec<_> = asked.difference(&reference).collect();
    ensure!(unknown.is_empty(), "not in docs/metrics.md: {unknown:?}");
    Ok(())
}
