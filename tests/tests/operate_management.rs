//! The region as the management API shows it, with real nodes.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use shoal_tests::fleet::{Fleet, FleetSpec};
use shoal_tests::image::Image;
use shoal_tests::lab::{Lab, LabSpec};
use shoal_tests::link::Mbit;
use shoal_tests::regions::{Regions, RegionsSpec};
use shoal_tests::registry::RegistrySpec;
use shoal_tests::stored::stored;
use shoal_tests::wait;

const DEADLINE: Duration = Duration::from_secs(60);
const LAYERS: [usize; 3] = [6 << 20, 4 << 20, 2 << 20];

/// A fleet of so many nodes, all of whom its first scheduler knows.
async fn fleet(name: &str, n_nodes: u16, spec: FleetSpec) -> Result<(Lab, Fleet)> {
    let mut lab = Lab::start(name, LabSpec::nodes(n_nodes)).await?;
    // Waiting for something is looking for it again and again.
    let spec = spec.with_gateway(json!({ "management": { "requestsPerSecond": 1000 } }));
    let fleet = Fleet::start(&mut lab, spec).await?;
    fleet.joined().await?;
    Ok((lab, fleet))
}

/// Reads all of an image at one node.
async fn read(fleet: &Fleet, node: usize, image: &Image) -> Result<()> {
    for blob in image.blobs() {
        fleet.read(node, image, blob, &[]).await?.finish_with(blob).await?;
    }
    Ok(())
}

fn list<'a>(page: &'a Value, what: &str) -> Vec<&'a Value> {
    page[what].as_array().map(|it| it.iter().collect()).unwrap_or_default()
}

/// All tasks of a query, of whatever many pages.
async fn tasks(fleet: &Fleet, query: &str) -> Result<Vec<Value>> {
    let (mut all, mut after) = (Vec::new(), String::new());
    loop {
        let page = fleet.gateway.seen(&format!("/tasks?{query}{after}")).await?;
        assert_eq!(page["incomplete"], json!([]), "{page}");
        all.extend(list(&page, "tasks").into_iter().cloned());
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => return Ok(all),
        }
    }
}

/// The tasks of an image, once each of its blobs is held by so many.
async fn held_by(fleet: &Fleet, image: &Image, n_nodes: u64) -> Result<Vec<Value>> {
    let is_held = |it: &Value| it["state"] == "COMPLETE" && it["nodes"]["whole"] == n_nodes;
    wait::until("every blob is held", DEADLINE, async || {
        let tasks = tasks(fleet, "per_page=3").await.ok()?;
        (tasks.len() == image.blobs().count() && tasks.iter().all(is_held)).then_some(tasks)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_region_is_shown_as_it_is_and_who_does_not_answer_is_named() -> Result<()> {
    let (_lab, mut fleet) =
        fleet("management", 3, FleetSpec::private().in_racks(2).with_schedulers(2)).await?;
    let image = fleet.publish(&LAYERS).await?;
    read(&fleet, 0, &image).await?;

    // The node and the gateway hold each blob, whichever scheduler knows of it.
    let seen = held_by(&fleet, &image, 2).await?;
    let digests: BTreeSet<_> = seen.iter().filter_map(|it| it["digest"].as_str()).collect();
    let expected: BTreeSet<_> = image.blobs().map(|it| it.digest.to_string()).collect();
    assert!(digests.iter().eq(&expected), "{digests:?}");
    for blob in image.blobs() {
        let digest = blob.digest.to_string();
        let task = seen.iter().find(|it| it["digest"] == digest).context("a blob is missing")?;
        let size = task["contentLength"].as_u64().context("no length")?;
        let source = json!({ "registry": fleet.registry.authority(), "repository": image.repository });
        assert_eq!((&task["sources"], &task["gateway"]), (&json!([source]), &json!("gateway")), "{task}");
        assert_eq!(task["traffic"]["registry"], size, "{task}");
        assert!(task["traffic"]["sent"].as_u64().is_some_and(|it| it >= size), "{task}");
        let path = format!("/tasks/{}", task["id"].as_str().context("no id")?);
        assert_eq!(fleet.gateway.seen(&path).await?["digest"], digest);
    }
    let n_bytes: u64 = seen.iter().filter_map(|it| it["contentLength"].as_u64()).sum();
    assert_eq!(n_bytes, image.n_bytes());
    let n_found = async |query: &str| tasks(&fleet, query).await.map(|it| it.len());
    let registry = fleet.registry.authority();
    assert_eq!(n_found(&format!("registry={registry}&repository={}", image.repository)).await?, seen.len());
    assert_eq!(n_found(&format!("registry={registry}&repository=team/other")).await?, 0);
    assert_eq!(n_found(&format!("digest={}", image.layers[0].digest)).await?, 1);
    assert_eq!(n_found("state=FETCHING").await?, 0);

    let nodes = fleet.gateway.seen("/nodes").await?;
    let has = |it: &&Value| it["blobs"] == seen.len();
    let (all, holders) = (list(&nodes, "nodes"), list(&nodes, "nodes").into_iter().filter(has));
    let roles: Vec<_> = holders.map(|it| it["role"].clone()).collect();
    assert_eq!((all.len(), roles.len()), (4, 2), "{nodes}");
    assert!(roles.contains(&json!("gateway")) && roles.contains(&json!("sidecar")), "{nodes}");
    let having =
        fleet.gateway.seen(&format!("/nodes?task={}", seen[0]["id"].as_str().context("no id")?)).await?;
    assert_eq!(list(&having, "nodes").len(), 2, "{having}");
    let in_zone = fleet.gateway.seen("/nodes?zone=zone&per_page=2").await?;
    assert_eq!(list(&in_zone, "nodes").len(), 2, "{in_zone}");
    assert!(in_zone["next"].is_string(), "the third is on the next page: {in_zone}");

    // Each that dies is named. What the gateway holds itself is shown to the end.
    for n_silent in 1..=2 {
        let dying = if n_silent == 1 { &mut fleet.more_schedulers[0] } else { &mut fleet.scheduler };
        dying.process.kill().await?;
        let page = fleet.gateway.seen("/tasks").await?;
        let silent = list(&page, "incomplete");
        assert_eq!(silent.len(), n_silent, "{page}");
        assert!(silent.iter().all(|it| it["cause"].as_str().is_some_and(|it| !it.is_empty())), "{page}");
    }
    let page = fleet.gateway.seen("/tasks").await?;
    let held = list(&page, "tasks");
    assert_eq!(held.len(), seen.len(), "{page}");
    assert!(held.iter().all(|it| it["nodes"]["whole"] == 1), "{page}");
    Ok(())
}

/// How many bytes of blobs the registry has sent.
fn sent(fleet: &Fleet) -> u64 {
    fleet.registry.front.blob_bytes_sent()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_removed_is_gone_everywhere_and_can_be_had_anew() -> Result<()> {
    let (_lab, fleet) =
        fleet("management-remove", 2, FleetSpec::private().with_gateways(2).with_redis()).await?;
    let image = fleet.publish(&LAYERS).await?;
    for node in 0..2 {
        read(&fleet, node, &image).await?;
    }
    let layer = &image.layers[0];
    let task = tasks(&fleet, &format!("digest={}", layer.digest)).await?.pop().context("no task")?;
    let id = task["id"].as_str().context("no id")?;
    let before = sent(&fleet);

    let (status, done) = fleet.gateway.manage(Method::DELETE, &format!("/tasks/{id}"), String::new()).await?;
    assert_eq!(status, StatusCode::OK, "{done}");
    assert_eq!((&done["nodes"]["asked"], &done["nodes"]["failed"]), (&json!(4), &json!(0)), "{done}");
    let removed = done["nodes"]["removed"].as_u64().context("no number")?;
    assert!((3..=4).contains(&removed), "both nodes and a gateway had it: {done}");
    wait::until("nobody holds it", DEADLINE, async || {
        let (status, _) =
            fleet.gateway.manage(Method::GET, &format!("/tasks/{id}"), String::new()).await.ok()?;
        (status == StatusCode::NOT_FOUND).then_some(())
    })
    .await?;
    assert_eq!(tasks(&fleet, "").await?.len(), image.blobs().count() - 1, "the others stay");
    for service in fleet.sidecars.iter().chain(fleet.gateways()) {
        let of_layer = |it: &PathBuf| it.to_string_lossy().contains(&layer.digest.hex());
        let left: Vec<_> = stored(service.host.dir())?.into_iter().filter(of_layer).collect();
        assert!(left.is_empty(), "files of it are left: {left:?}");
    }

    read(&fleet, 0, &image).await?;
    assert_eq!(sent(&fleet) - before, layer.bytes.len() as u64, "it alone is read again");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_over_what_is_removed_never_gets_other_bytes() -> Result<()> {
    let (_lab, fleet) = fleet("management-midway", 2, FleetSpec::private()).await?;
    let image = fleet.publish(&[16 << 20]).await?;
    let layer = &image.layers[0];
    fleet.registry.host.shape(Mbit(32), Mbit(32)).await?;
    let mut stream = fleet.read(0, &image, layer, &[]).await?;
    stream.read_to(2 << 20).await?;
    let id = format!("{}@{}", fleet.registry.authority(), layer.digest);
    let (status, done) = fleet.gateway.manage(Method::DELETE, &format!("/tasks/{id}"), String::new()).await?;
    assert!(status.is_success(), "{done}");
    // It may have ended, and has gone on with the right bytes if not.
    let got = stream.finish().await?;
    assert!(layer.bytes.starts_with(&got.body), "other bytes after {}", got.body.len());
    fleet.registry.host.unshape().await?;
    wait::until("it is had anew", DEADLINE, async || {
        let read = fleet.read(0, &image, layer, &[]).await.ok()?;
        read.finish_with(layer).await.ok()
    })
    .await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_is_purged_but_for_what_another_uses() -> Result<()> {
    let (_lab, fleet) = fleet("management-purge", 2, FleetSpec::private()).await?;
    let image = fleet.publish(&LAYERS).await?;
    let mut other = image.clone();
    other.repository = "team/other".to_owned();
    fleet.registry.push(&other).await?;
    read(&fleet, 0, &image).await?;
    let shared = &other.layers[1];
    fleet.read(1, &other, shared, &[]).await?.finish_with(shared).await?;
    let before = sent(&fleet);

    let body = json!({ "registry": fleet.registry.authority(), "repository": image.repository });
    let (status, done) = fleet.gateway.manage(Method::POST, "/repositories/purge", body.to_string()).await?;
    assert_eq!(status, StatusCode::OK, "{done}");
    let expected = json!({ "own": image.blobs().count() - 1, "shared": 1, "left": 0 });
    assert_eq!((&done["blobs"], &done["removal"]["nodes"]["failed"]), (&expected, &json!(0)), "{done}");
    wait::until("only what is shared is left", DEADLINE, async || {
        let left = tasks(&fleet, "").await.ok()?;
        (left.len() == 1 && left[0]["digest"] == shared.digest.to_string()).then_some(())
    })
    .await?;
    let left = tasks(&fleet, "").await?;
    assert_eq!(
        left[0]["sources"],
        json!([{ "registry": fleet.registry.authority(), "repository": "team/other" }])
    );
    read(&fleet, 1, &other).await?;
    assert_eq!(sent(&fleet) - before, image.n_bytes() - shared.bytes.len() as u64);
    let again = fleet.gateway.manage(Method::POST, "/repositories/purge", body.to_string()).await?;
    assert_eq!(again.1["removal"], Value::Null, "nothing is known of it: {}", again.1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_shows_its_regions_and_a_region_whether_its_hub_answers() -> Result<()> {
    let mut lab = Lab::start("management-regions", LabSpec::nodes(2)).await?;
    let mut regions = Regions::start(&mut lab, RegionsSpec::behind_hub(RegistrySpec::plain(), 2)).await?;
    let at_hub = regions.hub()?.seen("/regions").await?;
    let attending = list(&at_hub, "regions");
    let names: BTreeSet<_> = attending.iter().filter_map(|it| it["name"].as_str()).collect();
    assert_eq!(names, ["region-0", "region-1"].into(), "{at_hub}");
    for (number, region) in regions.all.iter().enumerate() {
        let there =
            attending.iter().find(|it| it["name"] == format!("region-{number}")).context("not there")?;
        let address = there["address"].as_str().context("no address")?;
        assert!(address.starts_with(&region.gateway.host.address().to_string()), "{there}");
        let seen = region.gateway.seen("/regions").await?;
        assert_eq!((&seen["hub"]["answers"], &seen["regions"]), (&json!(true), &json!([])), "{seen}");
    }
    regions.hub.as_mut().context("no hub")?.process.kill().await?;
    wait::until("it is seen that the hub is gone", DEADLINE, async || {
        let seen = regions.all[0].gateway.seen("/regions").await.ok()?;
        (seen["hub"]["answers"] == false && seen["hub"]["gateway"].is_null()).then_some(())
    })
    .await
}
