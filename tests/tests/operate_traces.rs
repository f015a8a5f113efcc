//! Traces of pulls, as a collector gets them from a fleet at work.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use http_body_util::Full;
use shoal_model::TraceParent;
use shoal_tests::collector::{Collector, Span, endpoint};
use shoal_tests::fleet::{Fleet, FleetSpec};
use shoal_tests::image::Image;
use shoal_tests::lab::{Lab, LabSpec};
use shoal_tests::wait;

/// Spans are sent every few seconds.
const DEADLINE: Duration = Duration::from_secs(30);
/// A layer of many pieces.
const LAYER: usize = 24 << 20;

/// A runtime's request that is in this trace.
fn asker(trace: u128, is_sampled: bool) -> Result<TraceParent> {
    TraceParent::new(trace, 0xabc, is_sampled).context("not zero")
}

/// Pulls the image's one layer on a node, in a trace or in none.
async fn pull(fleet: &Fleet, node: usize, image: &Image, asker: Option<TraceParent>) -> Result<()> {
    let layer = &image.layers[0];
    let mut request = fleet.ask_blob(image, layer);
    if let Some(asker) = asker {
        request = request.header(TraceParent::HEADER, asker.to_string());
    }
    let answer = fleet.sidecars[node].host.send(request.body(Full::default())?).await?;
    ensure!(answer.status().is_success(), "{}", answer.status());
    ensure!(*answer.body() == layer.bytes, "another content");
    Ok(())
}

/// The trace that the node's line about its latest pull names.
fn logged_trace(fleet: &Fleet, node: usize) -> Result<Option<String>> {
    let log = fleet.sidecars[node].process.log()?;
    let lines = log.lines().filter_map(|it| serde_json::from_str::<serde_json::Value>(it).ok());
    let mut pulls = lines.filter(|it| it["message"] == "pull" && it["level"] == "INFO");
    let last = pulls.next_back().context("no pull in the log")?;
    Ok(last["trace"].as_str().map(str::to_owned))
}

/// Waits until a trace has spans of all these names.
async fn complete(collector: &Collector, trace: &str, names: &[(&str, &str)]) -> Result<Vec<Span>> {
    let there = || async {
        let spans = collector.trace(trace);
        let has = |&(service, name): &(&str, &str)| {
            spans.iter().any(|it| it.service == format!("shoal-{service}") && it.name == name)
        };
        names.iter().all(has).then_some(spans.clone())
    };
    let seen = wait::until("the trace is complete", DEADLINE, there).await;
    seen.with_context(|| format!("{:#?}", collector.trace(trace)))
}

/// Each span is part of another one of the trace, but for the first, whose parent is returned.
fn root(spans: &[Span]) -> Result<&Span> {
    let ids: BTreeSet<_> = spans.iter().map(|it| &it.id).collect();
    let mut roots = spans.iter().filter(|it| !ids.contains(&it.parent));
    let root = roots.next().context("a trace in a circle")?;
    ensure!(roots.next().is_none(), "several begin the trace: {spans:#?}");
    Ok(root)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_is_one_trace_through_all_parts() -> Result<()> {
    let mut lab = Lab::start("traces", LabSpec::nodes(2)).await?;
    let collector = Collector::start(&mut lab).await?;
    let fleet = Fleet::start(&mut lab, FleetSpec::private().traced_at(&collector.endpoint())).await?;
    fleet.joined().await?;
    let image = fleet.publish(&[LAYER]).await?;

    // The runtime is in a trace already.
    let runtime = asker(7, true)?;
    pull(&fleet, 0, &image, Some(runtime)).await?;
    let parts = [
        ("sidecar", "pull"),
        ("sidecar", "open"),
        ("gateway", "decide"),
        ("gateway", "ask registry"),
        ("sidecar", "download"),
        ("sidecar", "swarm"),
        ("sidecar", "piece"),
        ("scheduler", "neighbours"),
        ("gateway", "order"),
        ("gateway", "seed"),
        ("gateway", "serve piece"),
    ];
    let spans = complete(&collector, &runtime.trace_id(), &parts).await?;
    let first = root(&spans)?;
    ensure!(first.name == "pull" && first.is_part_of(runtime), "{first:?}");
    let said = |name: &str| first.attributes.get(name).map(String::as_str);
    ensure!(said("outcome") == Some("complete") && said("supply") == Some("swarm"), "{first:?}");
    let size = image.layers[0].bytes.len();
    ensure!(said("bytes") == Some(&size.to_string()), "{first:?}");
    ensure!(said("digest") == Some(&image.layers[0].digest.to_string()), "{first:?}");
    ensure!(!spans.iter().any(|it| it.is_error), "{spans:#?}");
    ensure!(logged_trace(&fleet, 0)? == Some(runtime.trace_id()), "the log names another trace");
    // A few pieces stand for all.
    let mut n_named = BTreeMap::<_, usize>::new();
    spans.iter().for_each(|it| *n_named.entry(&*it.name).or_default() += 1);
    let n_pieces = size / (256 << 10);
    ensure!((1..n_pieces / 8).contains(&n_named["piece"]), "{n_named:?}");
    // One HEAD and one GET.
    ensure!(n_named["ask registry"] == 2, "{n_named:?}");

    // Now one that is in none: the node begins one, and its neighbour has a part in it.
    pull(&fleet, 1, &image, None).await?;
    let trace = logged_trace(&fleet, 1)?.context("no trace is logged")?;
    let spans = complete(
        &collector,
        &trace,
        &[("sidecar", "pull"), ("sidecar", "piece"), ("sidecar", "serve piece")],
    )
    .await?;
    let first = root(&spans)?;
    ensure!(first.name == "pull" && first.parent.is_empty(), "{first:?}");

    // And one that is not to be recorded; what comes after it shows that it would have been here.
    let (hushed, last) = (asker(8, false)?, asker(9, true)?);
    pull(&fleet, 1, &image, Some(hushed)).await?;
    ensure!(logged_trace(&fleet, 1)? == Some(hushed.trace_id()), "it can be searched for all the same");
    pull(&fleet, 1, &image, Some(last)).await?;
    complete(&collector, &last.trace_id(), &[("sidecar", "pull"), ("gateway", "decide")]).await?;
    ensure!(collector.trace(&hushed.trace_id()).is_empty(), "a trace was recorded that was not to be");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_that_another_has_begun_is_linked_to_it() -> Result<()> {
    let mut lab = Lab::start("traces-shared", LabSpec::nodes(1)).await?;
    let collector = Collector::start(&mut lab).await?;
    let limits = serde_json::json!({ "bytesPerSecond": "8Mi/s" });
    let spec = FleetSpec::private().with_limits(limits).traced_at(&collector.endpoint());
    let fleet = Fleet::start(&mut lab, spec).await?;
    fleet.joined().await?;
    let image = fleet.publish(&[LAYER]).await?;
    let (one, other) = (asker(7, true)?, asker(8, true)?);
    tokio::try_join!(pull(&fleet, 0, &image, Some(one)), pull(&fleet, 0, &image, Some(other)))?;
    let mut downloads = Vec::new();
    for (mine, others) in [(one, other), (other, one)] {
        let spans = complete(&collector, &mine.trace_id(), &[("sidecar", "pull")]).await?;
        let pull = root(&spans)?;
        match spans.iter().any(|it| it.name == "open" && !pull.links.is_empty()) {
            true => ensure!(pull.links == [others.trace_id()], "{pull:?}"),
            false => downloads.push(mine),
        }
    }
    ensure!(downloads.len() == 1, "one has begun it, the other is linked: {downloads:?}");
    complete(&collector, &downloads[0].trace_id(), &[("sidecar", "download")]).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_collector_a_fleet_works_as_ever() -> Result<()> {
    let mut lab = Lab::start("traces-lost", LabSpec::nodes(1)).await?;
    let nobody = lab.host("collector").await?;
    let spec = FleetSpec::private().traced_at(&endpoint(nobody.address()));
    let mut fleet = Fleet::start(&mut lab, spec).await?;
    fleet.joined().await?;
    let image = fleet.publish(&[LAYER]).await?;
    pull(&fleet, 0, &image, None).await?;
    let sidecar = &mut fleet.sidecars[0].process;
    sidecar.wait_for_log("opentelemetry").await?;
    let status = sidecar.terminate(DEADLINE).await?;
    ensure!(status.success(), "{status}");
    Ok(())
}
