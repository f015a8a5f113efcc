//! Disks that are full, read-only, broken or stuck, at a node and at the gateway: pulls go on, more slowly.
//!
//! The registry's credentials are the gateway's alone in most of these, so that nobody can get the bytes elsewhere.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use futures_util::future::try_join_all;
use shoal_model::ByteSize;
use shoal_tests::disk::Disk;
use shoal_tests::fleet::{Fleet, FleetSpec};
use shoal_tests::image::{Blob, Image};
use shoal_tests::lab::{Lab, LabSpec};
use shoal_tests::shoal::Service;
use shoal_tests::slow::{LAYER, SLOW};

const SMALL: ByteSize = ByteSize(8 << 20);
const LARGE: ByteSize = ByteSize(256 << 20);
const UNSTORED: &str = "shoal_store_unstored_pieces_total";
/// What is logged when a disk fails.
const COMPLAINT: &str = "the disk fails";

/// Where a lab's gateway keeps everything.
fn at_gateway(lab: &Lab) -> PathBuf {
    lab.dir().join("gateway/gateway")
}

/// Where a node keeps its blobs.
fn at_node(lab: &Lab, node: usize) -> PathBuf {
    lab.nodes()[node].dir().join("sidecar")
}

/// A fleet in a lab that has its disks already, and an image of one layer.
async fn fleet(lab: &mut Lab, spec: FleetSpec) -> Result<(Fleet, Image)> {
    let fleet = Fleet::start(lab, spec).await?;
    let image = fleet.publish(&[LAYER]).await?;
    Ok((fleet, image))
}

/// Reads a layer on each of these nodes at the same time.
async fn read_on(
    fleet: &Fleet,
    image: &Image,
    layer: &Blob,
    nodes: impl IntoIterator<Item = usize>,
) -> Result<()> {
    let reads = nodes
        .into_iter()
        .map(async |node| fleet.read(node, image, layer, &[]).await?.finish_with(layer).await);
    try_join_all(reads).await.map(drop)
}

/// Fails unless a part passed pieces through memory, and said once why.
async fn check_complained(part: &Service) -> Result<()> {
    let n_unstored = part.metric(UNSTORED, &[]).await?;
    let n_complaints = part.process.log()?.matches(COMPLAINT).count();
    ensure!(n_unstored > 0.0 && n_complaints == 1, "{n_unstored} pieces unstored, {n_complaints} complaints");
    Ok(())
}

// === At a node ===

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_costs_a_node_its_cache_only() -> Result<()> {
    let mut lab = Lab::start("full-node", LabSpec::nodes(2)).await?;
    let disk = Disk::in_memory(at_node(&lab, 0), SMALL).await?;
    let (fleet, image) = fleet(&mut lab, FleetSpec::private()).await?;
    let layer = &image.layers[0];
    read_on(&fleet, &image, layer, [0, 1]).await?;
    check_complained(&fleet.sidecars[0]).await?;
    assert_eq!(fleet.registry.front.blob_bytes_sent(), layer.bytes.len() as u64, "others lose nothing");
    read_on(&fleet, &image, layer, [0]).await?;
    drop(disk);
    Ok(())
}
