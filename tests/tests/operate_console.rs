//! What the console shows, by the API that it asks, is true of a real fleet.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use shoal_tests::fleet::{Fleet, FleetSpec};
use shoal_tests::lab::{Lab, LabSpec};
use shoal_tests::wait;

const DEADLINE: Duration = Duration::from_secs(60);
const LAYERS: [usize; 2] = [6 << 20, 2 << 20];
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

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_on_all_nodes_shows_in_the_fleet_the_swarm_and_the_savings() -> Result<()> {
    let spec = FleetSpec::private().in_racks(2).with_schedulers(2).with_gateways(2).with_redis();
    let (_lab, fleet) = fleet("console", spec).await?;
    let image = fleet.publish(&LAYERS).await?;
    let sizes: Vec<_> = image.blobs().map(|it| it.bytes.len()).collect();
    // The configuration is so small that it comes with the gateway's answer, and nobody fetches it.
    let fetched = sizes.iter().filter(|it| **it >= LAYERS[1]).sum::<usize>() * usize::from(N_NODES);
    let read: usize = sizes.iter().sum();
    for node in 0..usize::from(N_NODES) {
        for blob in image.blobs() {
            fleet.read(node, &image, blob, &[]).await?.finish_with(blob).await?;
        }
    }

    // Each gateway notes what all of them bring in, and what arrives by all schedulers' count.
    for gateway in fleet.gateways() {
        let savings = wait::until("what arrived is noted", DEADLINE, async || {
            let savings = gateway.seen("/savings?hours=1").await.ok()?;
            let total = savings["total"].clone();
            (total["arrivedBytes"].as_u64()? >= fetched as u64).then_some(total)
        })
        .await?;
        let expected = json!({ "arrivedBytes": fetched, "registryBytes": read });
        ensure!(savings == expected, "{savings} is not {expected}");
    }

    let shown = fleet.gateway.seen("/fleet").await?;
    ensure!(shown["nodes"] == json!({ "sidecars": N_NODES, "gateways": 2 }), "{shown}");
    ensure!((sum(&shown, "sidecars"), sum(&shown, "gateways")) == (u64::from(N_NODES), 2), "{shown}");
    let answering =
        |list: &Value| list.as_array().map(|it| it.iter().filter(|it| it["answers"] == true).count());
    ensure!(answering(&shown["gateways"]) == Some(2), "{shown}");
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
