//! A sidecar that ends in the middle of a download goes on where it was.

use std::time::Duration;

use anyhow::Result;
use shoal_tests::fleet::{Fleet, FleetSpec};
use shoal_tests::image::Image;
use shoal_tests::lab::Lab;
use shoal_tests::slow::slow_fleet;

const DEADLINE: Duration = Duration::from_secs(60);
/// Pieces of a layer of this size, and how many of them are under way at the same time by default.
const PIECE: u64 = 256 << 10;
const AT_ONCE: u64 = 8;
const TAKEN: &str = "shoal_sidecar_download_bytes_total";

/// A node with a part of a layer, which it has counted.
async fn half_downloaded(name: &str) -> Result<(Lab, Fleet, Image, u64)> {
    let (lab, fleet, image) = slow_fleet(name, FleetSpec::private(), 1, 0).await?;
    // The client goes, and the download goes on.
    drop(fleet.pull_under_way(0, &image).await?);
    let taken = fleet.sidecars[0].metric(TAKEN, &[]).await?;
    Ok((lab, fleet, image, taken as u64))
}

/// Reads the layer after a restart; returns the bytes that this took.
async fn read_again(fleet: &mut Fleet, image: &Image) -> Result<u64> {
    let sidecar = &mut fleet.sidecars[0];
    sidecar.process.restart().await?;
    sidecar.wait_until_ready().await?;
    let layer = &image.layers[0];
    fleet.read(0, image, layer, &[]).await?.finish_with(layer).await?;
    Ok(fleet.sidecars[0].metric(TAKEN, &[]).await? as u64)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_sidecar_fetches_only_what_was_under_way_again() -> Result<()> {
    let (_lab, mut fleet, image, before) = half_downloaded("killed").await?;
    fleet.sidecars[0].process.kill().await?;
    let after = read_again(&mut fleet, &image).await?;
    let size = image.layers[0].bytes.len() as u64;
    assert!(before + after <= size + AT_ONCE * PIECE, "{before} and {after} bytes of {size}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_sidecar_fetches_no_byte_again() -> Result<()> {
    let (_lab, mut fleet, image, before) = half_downloaded("stopped").await?;
    assert!(fleet.sidecars[0].process.terminate(DEADLINE).await?.success());
    let after = read_again(&mut fleet, &image).await?;
    let size = image.layers[0].bytes.len() as u64;
    assert!(before + after <= size, "{before} and {after} bytes of {size}");
    Ok(())
}
