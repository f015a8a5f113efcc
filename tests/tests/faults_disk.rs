//! Disks that are full, read-only, broken or stuck, at a node and at the gateway: pulls go on, more slowly.
//!
//! The registry's credentials are the gateway's alone in most of these, so that nobody can get the bytes elsewhere.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use futures_util::future::try_join_all;
use serde_json::json;
use shoal_model::ByteSize;
use shoal_tests::command::Launch;
use shoal_tests::disk::Disk;
use shoal_tests::fleet::{Fleet, FleetSpec};
use shoal_tests::image::{Blob, Image, ImageSpec};
use shoal_tests::lab::{Lab, LabSpec};
use shoal_tests::raw::{Ended, Ending, Exchange};
use shoal_tests::shoal::Service;
use shoal_tests::slow::{LAYER, SLOW};

const DEADLINE: Duration = Duration::from_secs(30);
/// How long a disk does not answer; a process whose runtime stands still is ended after 5 s.
const STUCK: Duration = Duration::from_secs(7);
const SMALL: ByteSize = ByteSize(8 << 20);
const LARGE: ByteSize = ByteSize(256 << 20);
const UNSTORED: &str = "shoal_store_unstored_pieces_total";
const DAMAGED: &str = "shoal_store_damaged_pieces_total";
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

/// Reads, on two nodes, the layer of an image that nobody has yet.
async fn read_another(fleet: &Fleet, seed: u64) -> Result<()> {
    let other = Image::build(&ImageSpec { seed, ..ImageSpec::new("team/other", LAYER) })?;
    fleet.registry.push(&other).await?;
    read_on(fleet, &other, &other.layers[0], 0..2).await
}

/// Fails unless a part passed pieces through memory, and said once why.
async fn check_complained(part: &Service) -> Result<()> {
    let n_unstored = part.metric(UNSTORED, &[]).await?;
    let n_complaints = part.process.log()?.matches(COMPLAINT).count();
    ensure!(n_unstored > 0.0 && n_complaints == 1, "{n_unstored} pieces unstored, {n_complaints} complaints");
    Ok(())
}

/// Begins to read the layer on each of these nodes and returns in the middle.
async fn begin_on(
    fleet: &Fleet,
    image: &Image,
    nodes: impl IntoIterator<Item = usize>,
) -> Result<Vec<Exchange>> {
    try_join_all(nodes.into_iter().map(|node| fleet.pull_under_way(node, image))).await
}

async fn finish(pulls: Vec<Exchange>, layer: &Blob) -> Result<()> {
    try_join_all(pulls.into_iter().map(|it| it.finish_with(layer))).await.map(drop)
}

/// Finishes a pull as a runtime does, which resumes once where its stream ends early.
async fn finish_or_resume(fleet: &Fleet, image: &Image, layer: &Blob, pull: Exchange) -> Result<()> {
    let Ended { mut body, ending } = pull.finish().await?;
    if ending == Ending::Fin {
        let rest = format!("Range: bytes={}-", body.len());
        body.extend(fleet.read(0, image, layer, &[&rest]).await?.finish().await?.body);
    }
    ensure!(body == layer.bytes, "{ending:?}, then {} bytes of {}", body.len(), layer.bytes.len());
    Ok(())
}

/// The files of a store that hold content.
async fn content(store: &Path) -> Result<Vec<PathBuf>> {
    let find = Launch::new("find").arg(store).args(["-name", "*.data"]);
    Ok(find.run(DEADLINE).await?.lines().map(PathBuf::from).collect())
}

// === At a node ===

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_costs_a_node_its_cache_only() -> Result<()> {
    let mut lab = Lab::start("full-node", LabSpec::nodes(2)).await?;
    Disk::in_memory(at_node(&lab, 0), SMALL).await?;
    let (fleet, image) = fleet(&mut lab, FleetSpec::private()).await?;
    let layer = &image.layers[0];
    read_on(&fleet, &image, layer, [0, 1]).await?;
    check_complained(&fleet.sidecars[0]).await?;
    assert_eq!(fleet.registry.front.blob_bytes_sent(), layer.bytes.len() as u64, "others lose nothing");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_has_room_again_is_used_again() -> Result<()> {
    let mut lab = Lab::start("room-again", LabSpec::nodes(1)).await?;
    let disk = Disk::in_memory(at_node(&lab, 0), LARGE).await?;
    // What is not in use would be removed at once from a disk that is smaller than what is to stay free.
    let all_of_it = json!({ "storage": { "freeSpaceFloor": "0" } });
    let (mut fleet, image) = fleet(&mut lab, FleetSpec::private().with_sidecar(all_of_it)).await?;
    let layer = &image.layers[0];
    lab.nodes()[0].shape(SLOW, SLOW).await?;
    disk.fill()?;
    let pulls = begin_on(&fleet, &image, [0]).await?;
    disk.make_room()?;
    finish(pulls, layer).await?;
    check_complained(&fleet.sidecars[0]).await?;

    // What has passed through memory meanwhile is there as well.
    fleet.sidecars[0].process.wait_for_log("blob complete").await?;
    read_on(&fleet, &image, layer, [0]).await?;
    let from_cache = fleet.metric("shoal_sidecar_cache_bytes_total", &[]).await?;
    assert_eq!(from_cache as usize, layer.bytes.len());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_turns_read_only_in_the_middle_stops_no_pull() -> Result<()> {
    let mut lab = Lab::start("read-only-node", LabSpec::nodes(1)).await?;
    let disk = Disk::on_file(at_node(&lab, 0), LARGE).await?;
    let (mut fleet, image) = fleet(&mut lab, FleetSpec::private()).await?;
    let layer = &image.layers[0];
    lab.nodes()[0].shape(SLOW, SLOW).await?;
    let pulls = begin_on(&fleet, &image, [0]).await?;
    disk.turn_read_only().await?;
    finish(pulls, layer).await?;
    check_complained(&fleet.sidecars[0]).await?;

    // What it has is still of use, to a process that starts as well.
    let sidecar = &mut fleet.sidecars[0];
    sidecar.process.restart().await?;
    sidecar.wait_until_ready().await?;
    read_on(&fleet, &image, layer, [0]).await?;
    let taken = fleet.metric("shoal_sidecar_download_bytes_total", &[]).await?;
    assert!(taken > 0.0 && taken < layer.bytes.len() as f64, "{taken} bytes were fetched again");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_breaks_in_the_middle_stops_no_pull() -> Result<()> {
    let mut lab = Lab::start("broken-node", LabSpec::nodes(1)).await?;
    let disk = Disk::on_file(at_node(&lab, 0), LARGE).await?;
    let (fleet, image) = fleet(&mut lab, FleetSpec::private()).await?;
    let layer = &image.layers[0];
    lab.nodes()[0].shape(SLOW, SLOW).await?;
    let pull = fleet.pull_under_way(0, &image).await?;
    disk.break_down(&content(disk.dir()).await?)?;
    // What the connection was about to send may be gone.
    finish_or_resume(&fleet, &image, layer, pull).await?;
    // What was written before cannot be read any more.
    read_on(&fleet, &image, layer, [0]).await?;
    // The disk says so, or takes too long to.
    let log = fleet.sidecars[0].process.log()?;
    let is_noticed = fleet.metric(DAMAGED, &[]).await? > 0.0 || log.contains(COMPLAINT);
    ensure!(is_noticed, "nothing was found damaged, and the disk well: {log}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_does_not_answer_stops_neither_pull_nor_process() -> Result<()> {
    let mut lab = Lab::start("stuck-node", LabSpec::nodes(2)).await?;
    let disk = Disk::on_file(at_node(&lab, 0), LARGE).await?;
    let (fleet, image) = fleet(&mut lab, FleetSpec::private()).await?;
    let layer = &image.layers[0];
    lab.nodes()[0].shape(SLOW, SLOW).await?;
    let pulls = begin_on(&fleet, &image, [0]).await?;
    let pid = fleet.sidecars[0].process.pid()?;
    disk.freeze().await?;
    finish(pulls, layer).await?;
    check_complained(&fleet.sidecars[0]).await?;
    // Longer than a stalled process is left alone, with all that a pull does from its beginning to its end.
    let began = Instant::now();
    while began.elapsed() < STUCK {
        read_on(&fleet, &image, layer, [0]).await?;
    }
    disk.thaw().await?;
    read_on(&fleet, &image, layer, [0, 1]).await?;
    assert_eq!(fleet.sidecars[0].process.pid()?, pid);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_does_not_answer_from_the_beginning_stops_no_pull() -> Result<()> {
    let mut lab = Lab::start("stuck-before", LabSpec::nodes(2)).await?;
    let disk = Disk::on_file(at_node(&lab, 0), LARGE).await?;
    let (fleet, image) = fleet(&mut lab, FleetSpec::private()).await?;
    let layer = &image.layers[0];
    read_on(&fleet, &image, layer, [0]).await?;
    disk.freeze().await?;
    // What has to be made there, and what has only to be opened once more.
    read_another(&fleet, 2).await?;
    read_on(&fleet, &image, layer, [0]).await?;
    check_complained(&fleet.sidecars[0]).await?;
    disk.thaw().await?;
    read_another(&fleet, 3).await?;
    read_on(&fleet, &image, layer, [0, 1]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn containerd_gets_its_image_on_a_node_whose_disk_is_full() -> Result<()> {
    let mut lab = Lab::start("full-containerd", LabSpec::nodes(1)).await?;
    Disk::in_memory(at_node(&lab, 0), SMALL).await?;
    let fleet = Fleet::start(&mut lab, FleetSpec::private()).await?;
    let image = fleet.publish(&[LAYER, LAYER / 2, LAYER / 3, 5000]).await?;
    let containerd = fleet.containerds().await?.remove(0);
    containerd.pull(&fleet.registry, &image).await?;
    containerd.check(&fleet.registry, &image).await?;
    check_complained(&fleet.sidecars[0]).await
}

// === At the gateway ===

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_at_the_gateway_costs_no_second_read() -> Result<()> {
    let mut lab = Lab::start("full-gateway", LabSpec::nodes(3)).await?;
    Disk::in_memory(at_gateway(&lab), SMALL).await?;
    let (fleet, image) = fleet(&mut lab, FleetSpec::private()).await?;
    let layer = &image.layers[0];
    read_on(&fleet, &image, layer, 0..3).await?;
    check_complained(&fleet.gateway).await?;
    assert_eq!(fleet.registry.front.blob_bytes_sent(), layer.bytes.len() as u64);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_whose_disk_turns_read_only_or_breaks_goes_on_to_seed() -> Result<()> {
    for breaks in [false, true] {
        let mut lab = Lab::start("bad-gateway", LabSpec::nodes(2)).await?;
        let disk = Disk::on_file(at_gateway(&lab), LARGE).await?;
        let (mut fleet, image) = fleet(&mut lab, FleetSpec::private()).await?;
        fleet.gateway.host.shape(SLOW, SLOW).await?;
        let pulls = begin_on(&fleet, &image, 0..2).await?;
        if breaks {
            disk.break_down(&content(disk.dir()).await?)?;
        } else {
            disk.turn_read_only().await?;
        }
        finish(pulls, &image.layers[0]).await?;
        if breaks {
            assert!(fleet.gateway.metric(DAMAGED, &[]).await? > 0.0, "what it had can be read no longer");
            continue;
        }
        read_another(&fleet, 2).await?;
        check_complained(&fleet.gateway).await?;
        // A process that starts now has never seen the disk take anything.
        fleet.gateway.process.restart().await?;
        fleet.gateway.wait_until_ready().await?;
        fleet.wait_until_whole().await?;
        read_another(&fleet, 3).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn full_disks_everywhere_cost_speed_only() -> Result<()> {
    let mut lab = Lab::start("full-all", LabSpec::nodes(3)).await?;
    Disk::in_memory(at_gateway(&lab), SMALL).await?;
    for node in 0..3 {
        Disk::in_memory(at_node(&lab, node), SMALL).await?;
    }
    let (fleet, image) = fleet(&mut lab, FleetSpec::private()).await?;
    read_on(&fleet, &image, &image.layers[0], 0..3).await?;
    for part in fleet.sidecars.iter().chain([&fleet.gateway]) {
        check_complained(part).await?;
    }
    Ok(())
}
