//! Schedulers die and return: pulls go on, the registry is read once, and blobs find their holders.

use std::time::Duration;

use anyhow::Result;
use futures_util::future::{try_join, try_join_all};
use shoal_tests::fleet::{Fleet, FleetSpec};
use shoal_tests::image::{Blob, Image};
use shoal_tests::shoal::Service;
use shoal_tests::slow::slow_fleet;
use shoal_tests::wait;

const DEADLINE: Duration = Duration::from_secs(20);
const TAKEN: &str = "shoal_sidecar_download_bytes_total";

/// The number of the scheduler that knows the region's only blob, which the others do not.
async fn owner(fleet: &Fleet) -> Result<usize> {
    let all = [&fleet.scheduler].into_iter().chain(&fleet.more_schedulers);
    let n_blobs = try_join_all(all.map(|it| it.metric("shoal_scheduler_blobs", &[]))).await?;
    let owners: Vec<_> = (0..n_blobs.len()).filter(|it| n_blobs[*it] > 0.0).collect();
    assert_eq!(owners.len(), 1, "blobs of each scheduler: {n_blobs:?}");
    Ok(owners[0])
}

fn scheduler(fleet: &mut Fleet, number: usize) -> &mut Service {
    if number == 0 { &mut fleet.scheduler } else { &mut fleet.more_schedulers[number - 1] }
}

/// Waits until so many nodes have told a scheduler something of a blob.
async fn wait_until_told(scheduler: &Service, n_nodes: usize) -> Result<()> {
    wait::until("the scheduler knows who holds what", DEADLINE, async || {
        let told = scheduler.metric("shoal_scheduler_messages_total", &[]).await;
        told.is_ok_and(|it| it >= n_nodes as f64).then_some(())
    })
    .await
}

/// A node reads a blob and has all of it from other nodes.
async fn read_from_nodes(fleet: &Fleet, node: usize, image: &Image, blob: &Blob) -> Result<()> {
    fleet.read(node, image, blob, &[]).await?.finish_with(blob).await?;
    let sidecar = &fleet.sidecars[node];
    let by_nodes = sidecar.metric(TAKEN, &[("source", "peer")]).await?;
    assert_eq!((by_nodes, sidecar.metric(TAKEN, &[]).await?), (blob.bytes.len() as f64, by_nodes));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_blobs_of_a_scheduler_find_their_holders_when_it_dies_and_when_it_is_back() -> Result<()> {
    let spec = FleetSpec::private().with_schedulers(2);
    let (_lab, mut fleet, image) = slow_fleet("two-schedulers", spec, 4, 0).await?;
    let layer = &image.layers[0];
    let pulls = try_join(fleet.pull_under_way(0, &image), fleet.pull_under_way(1, &image)).await?;
    let owner = owner(&fleet).await?;
    scheduler(&mut fleet, owner).process.kill().await?;
    try_join(pulls.0.finish_with(layer), pulls.1.finish_with(layer)).await?;
    // Two nodes and the gateway hold it, and tell the other one.
    wait_until_told(scheduler(&mut fleet, 1 - owner), 3).await?;
    read_from_nodes(&fleet, 2, &image, layer).await?;

    let back = scheduler(&mut fleet, owner);
    back.process.restart().await?;
    back.wait_until_ready().await?;
    // With the third node.
    wait_until_told(back, 4).await?;
    read_from_nodes(&fleet, 3, &image, layer).await?;
    assert_eq!(fleet.registry.front.blob_bytes_sent(), layer.bytes.len() as u64);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scheduler_that_starts_while_no_gateway_lives_brings_nodes_together() -> Result<()> {
    let (_lab, mut fleet, image) = slow_fleet("no-gateway", FleetSpec::private(), 2, 1).await?;
    let layer = &image.layers[0];
    // The node may have the blob, for as long as a ticket lives.
    assert_eq!(fleet.head(1, &image, layer).await?.status, 200);
    fleet.gateway.process.kill().await?;
    fleet.scheduler.process.restart().await?;
    fleet.scheduler.wait_until_ready().await?;
    wait_until_told(&fleet.scheduler, 1).await?;
    wait::until("both nodes at the scheduler", DEADLINE, async || {
        let nodes = fleet.scheduler.metric("shoal_scheduler_nodes", &[]).await;
        nodes.is_ok_and(|it| it == 2.0).then_some(())
    })
    .await?;
    read_from_nodes(&fleet, 1, &image, layer).await?;
    assert!(fleet.scheduler.metric("shoal_scheduler_orders_total", &[]).await? >= 1.0, "nobody was led");
    assert_eq!(fleet.registry.front.blob_bytes_sent(), layer.bytes.len() as u64);
    Ok(())
}
