//! What the console shows, by the API that it asks, is true of a real fleet.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use shoal_tests::fleet::{Fleet, FleetSpec};
use shoal_tests::lab::{Lab, LabSpec};
use shoal_tests::shoal::Service;
use shoal_tests::wait;

const DEADLINE: Duration = Duration::from_secs(60);
/// The sizes of an image's layers, and of another's.
const LAYERS: [[usize; 2]; 2] = [[3 << 20, 2 << 20], [6 << 20, 1 << 20]];
const N_NODES: u16 = 4;

async fn fleet(name: &str, spec: FleetSpec) -> Result<(Lab, Fleet)> {
    let mut lab = Lab::start(name, LabSpec::nodes(N_NODES)).await?;
    let spec = spec.with_gateway(json!({ "management": { "requestsPerSecond": 1000 } }));
    let fleet = Fleet::start(&mut lab, spec).await?;
    fleet.joined().await?;
    Ok((lab, fleet))
}

fn sum(of: &Value, what: &str) -> u64 {
    let zones = of["zones"].as_array().into_iter().flatten();
    let racks = zones.flat_map(|it| it["racks"].as_array().into_iter().flatten());
    racks.filter_map(|it| it[what].as_u64()).sum()
}

fn answering(list: &Value) -> usize {
    list.as_array().map_or(0, |it| it.iter().filter(|it| it["answers"] == true).count())
}

/// What has to be noted once all nodes have read a new image: bytes that arrive, and bytes that are read for that.
async fn read_everywhere(fleet: &Fleet, layers: &[usize]) -> Result<(u64, u64)> {
    let image = fleet.publish(layers).await?;
    let sizes: Vec<_> = image.blobs().map(|it| it.bytes.len()).collect();
    // The configuration is so small that it comes with the gateway's answer, and nobody fetches it.
    let fetched = sizes.iter().filter(|it| **it >= 1 << 20).sum::<usize>() * usize::from(N_NODES);
    for node in 0..usize::from(N_NODES) {
        for blob in image.blobs() {
            fleet.read(node, &image, blob, &[]).await?.finish_with(blob).await?;
        }
    }
    Ok((fetched as u64, sizes.iter().sum::<usize>() as u64))
}

/// What a gateway has noted, arrived and read, once at least `arrived` bytes are.
async fn noted(gateway: &Service, arrived: u64) -> Result<(u64, u64)> {
    wait::until("what arrived is noted", DEADLINE, async || {
        let total = gateway.seen("/savings?hours=1").await.ok()?["total"].clone();
        let noted = (total["arrivedBytes"].as_u64()?, total["registryBytes"].as_u64()?);
        (noted.0 >= arrived).then_some(noted)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_on_all_nodes_shows_in_the_fleet_the_swarm_and_the_savings() -> Result<()> {
    let spec = FleetSpec::private().in_racks(2).with_schedulers(2).with_gateways(2).with_redis();
    let (_lab, fleet) = fleet("console", spec).await?;

    // What is new at the other gateway is known only once it was looked at, as it was when the first image is noted.
    for gateway in fleet.gateways() {
        wait::until("the gateways know each other", DEADLINE, async || {
            let shown = gateway.seen("/fleet").await.ok()?;
            (answering(&shown["gateways"]) == 2).then_some(())
        })
        .await?;
    }
    let (arrived, _) = read_everywhere(&fleet, &LAYERS[0]).await?;
    let mut before = Vec::new();
    for gateway in fleet.gateways() {
        before.push(noted(gateway, arrived).await?);
    }

    // Each gateway notes what all of them bring in, and what arrives by all schedulers' count.
    let (arrived, read) = read_everywhere(&fleet, &LAYERS[1]).await?;
    for (gateway, before) in fleet.gateways().into_iter().zip(before) {
        let now = noted(gateway, before.0 + arrived).await?;
        let new = (now.0 - before.0, now.1 - before.1);
        ensure!(new == (arrived, read), "{new:?} are noted, of {:?}", (arrived, read));
    }

    let shown = fleet.gateway.seen("/fleet").await?;
    ensure!(shown["nodes"] == json!({ "sidecars": N_NODES, "gateways": 2 }), "{shown}");
    ensure!((sum(&shown, "sidecars"), sum(&shown, "gateways")) == (u64::from(N_NODES), 2), "{shown}");
    ensure!(answering(&shown["gateways"]) == 2, "{shown}");
    let causes: Vec<_> =
        shown["schedulers"].as_array().context("no schedulers")?.iter().map(|it| &it["cause"]).collect();
    ensure!(causes == [&Value::Null, &Value::Null], "{shown}");

    let tasks = fleet.gateway.seen("/tasks?per_page=100").await?;
    let largest =
        tasks["tasks"].as_array().context("no tasks")?.iter().max_by_key(|it| it["contentLength"].as_u64());
    let id = largest.and_then(|it| it["id"].as_str()).context("no task")?;
    let swarm = fleet.gateway.seen(&format!("/tasks/{id}/swarm")).await?;
    ensure!(swarm["task"] == *largest.context("no task")?, "{swarm}");
    let members = swarm["members"].as_array().context("no members")?;
    let cells = swarm["cells"].as_u64().context("no cells")? as usize;
    let sidecars: Vec<_> = members.iter().filter(|it| it["role"] == "sidecar").collect();
    ensure!(sidecars.len() == usize::from(N_NODES), "{swarm}");
    ensure!(sidecars.iter().all(|it| it["fill"] == "ff".repeat(cells) && it["wants"] == false), "{swarm}");
    ensure!(sidecars.iter().any(|it| it["neighbours"] != json!([])), "nobody is a neighbour: {swarm}");
    Ok(())
}
