//! The fallback ladder, rung by rung: each test leaves a node just one way to get the rest of a blob, so
//! that it fails when that rung is taken out.

use std::time::Duration;

use anyhow::Result;
use shoal_tests::fleet::FleetSpec;
use shoal_tests::raw::{Ended, Ending};
use shoal_tests::slow::slow_fleet;
use shoal_tests::wait;

const DEADLINE: Duration = Duration::from_secs(60);
const TAKEN: &str = "shoal_sidecar_download_bytes_total";

#[tokio::test(flavor = "multi_thread")]
async fn neighbours_serve_what_the_gateway_no_longer_does() -> Result<()> {
    let (_lab, mut fleet, image) = slow_fleet("neighbours", FleetSpec::private(), 2, 1).await?;
    let pull = fleet.pull_under_way(1, &image).await?;
    fleet.gateway.process.kill().await?;
    pull.finish_with(&image.layers[0]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn another_neighbour_serves_what_a_frozen_one_does_not() -> Result<()> {
    let (_lab, mut fleet, image) = slow_fleet("hedge", FleetSpec::private(), 3, 2).await?;
    let pull = fleet.pull_under_way(2, &image).await?;
    fleet.gateway.process.kill().await?;
    fleet.sidecars[0].process.stop()?;
    pull.finish_with(&image.layers[0]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gateway_serves_without_a_lease_where_nobody_else_is_left() -> Result<()> {
    let (_lab, mut fleet, image) = slow_fleet("no-lease", FleetSpec::private(), 2, 1).await?;
    let pull = fleet.pull_under_way(1, &image).await?;
    fleet.scheduler.process.kill().await?;
    fleet.sidecars[0].process.kill().await?;
    pull.finish_with(&image.layers[0]).await?;
    assert!(fleet.sidecars[1].metric(TAKEN, &[("source", "gateway")]).await? > 0.0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_registry_serves_the_caller_where_the_whole_region_is_gone() -> Result<()> {
    let (_lab, mut fleet, image) = slow_fleet("direct", FleetSpec::open(), 1, 0).await?;
    let layer = &image.layers[0];
    let pull = fleet.pull_under_way(0, &image).await?;
    fleet.scheduler.process.kill().await?;
    fleet.gateway.process.kill().await?;
    pull.finish_with(layer).await?;
    assert!(fleet.sidecars[0].metric(TAKEN, &[("source", "registry")]).await? > 0.0);
    // From the byte where it stood: what was there is not fetched again.
    let taken = fleet.sidecars[0].metric(TAKEN, &[]).await?;
    assert!(taken <= layer.bytes.len() as f64, "{taken} of {}", layer.bytes.len());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn with_nothing_left_the_stream_ends_early_and_the_retry_is_sent_elsewhere() -> Result<()> {
    let (_lab, mut fleet, image) = slow_fleet("early-end", FleetSpec::private(), 1, 0).await?;
    let layer = &image.layers[0];
    let pull = fleet.pull_under_way(0, &image).await?;
    fleet.gateway.process.kill().await?;
    let Ended { body, ending } = pull.finish().await?;
    assert_eq!(ending, Ending::Fin, "after {} of {} bytes", body.len(), layer.bytes.len());
    assert!(body.len() < layer.bytes.len() && layer.bytes.starts_with(&body));

    let rest = format!("Range: bytes={}-", body.len());
    let retry = fleet.read(0, &image, layer, &[&rest]).await?;
    assert!(matches!(retry.status, 404 | 503), "{}", retry.status);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_ended_early_is_resumed_once_the_bytes_can_be_had() -> Result<()> {
    let (_lab, mut fleet, image) = slow_fleet("resumed", FleetSpec::private(), 1, 0).await?;
    let layer = &image.layers[0];
    let pull = fleet.pull_under_way(0, &image).await?;
    fleet.gateway.process.kill().await?;
    let Ended { mut body, ending } = pull.finish().await?;
    assert_eq!(ending, Ending::Fin);

    fleet.gateway.process.restart().await?;
    fleet.gateway.wait_until_ready().await?;
    let rest = format!("Range: bytes={}-", body.len());
    let retry = wait::until("the rest is served", DEADLINE, async || {
        fleet.read(0, &image, layer, &[&rest]).await.ok().filter(|it| it.status == 206)
    })
    .await?;
    let resumed = retry.finish().await?;
    assert_eq!(resumed.ending, Ending::Whole);
    body.extend(resumed.body);
    assert!(body == layer.bytes);
    Ok(())
}
