//! Stores that are damaged at rest: what is damaged is found, counted and fetched again, and no pull sees it.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use futures_util::future::try_join_all;
use serde_json::json;
use shoal_model::ByteSize;
use shoal_tests::disk::Disk;
use shoal_tests::fleet::{Fleet, FleetSpec};
use shoal_tests::image::{Blob, Image};
use shoal_tests::lab::{Lab, LabSpec};
use shoal_tests::stored::stored;

const DEADLINE: Duration = Duration::from_secs(30);
const LAYERS: [usize; 2] = [5 << 20, 3 << 20];
const PIECES: &str = "shoal_store_damaged_pieces_total";
const JOURNALS: &str = "shoal_store_damaged_journals_total";

/// A file of a blob below a store's directory: `data` or `pieces`.
fn file_of(blob: &Blob, store: &Path, extension: &str) -> Result<PathBuf> {
    let name = format!("{}.{extension}", blob.digest.hex());
    let file = stored(store)?.into_iter().find(|it| it.file_name().is_some_and(|it| *it == *name));
    file.with_context(|| format!("{}: no {name} there", store.display()))
}

/// Overwrites bytes of a file, counted from its middle.
fn overwrite(path: &Path, with: impl Fn(u8) -> u8, n_bytes: usize) -> Result<()> {
    let file = File::options().read(true).write(true).open(path)?;
    let at = file.metadata()?.len() / 2;
    let mut bytes = vec![0; n_bytes];
    file.read_exact_at(&mut bytes, at)?;
    bytes.iter_mut().for_each(|it| *it = with(*it));
    Ok(file.write_all_at(&bytes, at)?)
}

fn cut_to_half(path: &Path) -> Result<()> {
    let file = File::options().write(true).open(path)?;
    Ok(file.set_len(file.metadata()?.len() / 2)?)
}

/// Puts each of two files in the place of the other.
fn swap(one: &Path, other: &Path) -> Result<()> {
    let aside = one.with_extension("aside");
    fs::rename(one, &aside)?;
    fs::rename(other, one)?;
    Ok(fs::rename(&aside, other)?)
}

/// Damages the store of the node of this number in a way of its own. Returns the metric that has to tell, if any.
fn damage(number: usize, store: &Path, image: &Image) -> Result<Option<&'static str>> {
    let file = |layer: usize, extension| file_of(&image.layers[layer], store, extension);
    let both = |extension| Ok::<_, anyhow::Error>([file(0, extension)?, file(1, extension)?]);
    match number {
        0 => overwrite(&file(0, "data")?, |it| !it, 1)?,
        1 => overwrite(&file(1, "data")?, |_| 0, 1 << 20)?,
        2 => cut_to_half(&file(0, "data")?)?,
        3 => swap(&file(0, "data")?, &file(1, "data")?)?,
        4 => overwrite(&file(0, "pieces")?, |it| it ^ 1, 1)?,
        5 => both("pieces")?.iter().try_for_each(|it| cut_to_half(it))?,
        6 => both("pieces")?.iter().try_for_each(fs::remove_file)?,
        _ => File::options().append(true).open(file(0, "data")?)?.write_all(&[7; 5000])?,
    }
    Ok(match number {
        0..=3 => Some(PIECES),
        4..=5 => Some(JOURNALS),
        _ => None,
    })
}

/// A fleet on the nodes of a lab, all of which have read an image that only the gateway could get.
async fn complete(lab: &mut Lab) -> Result<(Fleet, Image)> {
    // What is not in use would be removed at once from a disk that is smaller than what is to stay free.
    let all_of_it = json!({ "storage": { "freeSpaceFloor": "0" } });
    let fleet = Fleet::start(lab, FleetSpec::private().with_sidecar(all_of_it)).await?;
    let image = fleet.publish(&LAYERS).await?;
    read_everywhere(&fleet, &image).await?;
    fleet.registry.front.forget();
    Ok((fleet, image))
}

/// Reads every layer on all nodes at the same time.
async fn read_everywhere(fleet: &Fleet, image: &Image) -> Result<()> {
    let reads = (0..fleet.sidecars.len()).flat_map(|node| image.layers.iter().map(move |it| (node, it)));
    let reads = reads.map(async |(node, layer)| {
        let read = async { fleet.read(node, image, layer, &[]).await?.finish_with(layer).await };
        read.await.with_context(|| format!("on node {node}"))
    });
    try_join_all(reads).await.map(drop)
}

fn store_of(fleet: &Fleet, node: usize) -> PathBuf {
    fleet.sidecars[node].host.dir().join("sidecar")
}

#[tokio::test(flavor = "multi_thread")]
async fn eight_caches_damaged_in_eight_ways_spoil_no_pull() -> Result<()> {
    let mut lab = Lab::start("eight-damaged", LabSpec::nodes(8)).await?;
    let (mut fleet, image) = complete(&mut lab).await?;
    let mut tells = Vec::new();
    for node in 0..8 {
        fleet.sidecars[node].process.terminate(DEADLINE).await?;
        tells.push(damage(node, &store_of(&fleet, node), &image).with_context(|| format!("node {node}"))?);
    }
    for sidecar in &mut fleet.sidecars {
        sidecar.process.restart().await?;
        sidecar.wait_until_ready().await?;
    }
    for _ in 0..2 {
        read_everywhere(&fleet, &image).await?;
    }
    assert_eq!(fleet.registry.front.blob_bytes_sent(), 0, "all of it was in the region");
    for (node, metric) in tells.into_iter().enumerate() {
        if let Some(metric) = metric {
            assert!(fleet.sidecars[node].metric(metric, &[]).await? > 0.0, "{metric} of node {node}");
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn content_that_is_changed_under_running_nodes_spoils_no_pull() -> Result<()> {
    let mut lab = Lab::start("changed", LabSpec::nodes(4)).await?;
    let (fleet, image) = complete(&mut lab).await?;
    // Those that touch content only: journals are read at the start.
    for node in 0..4 {
        damage(node, &store_of(&fleet, node), &image)?;
    }
    read_everywhere(&fleet, &image).await?;
    assert_eq!(fleet.registry.front.blob_bytes_sent(), 0);
    // The files that were swapped may have been open, and what was open was right.
    for sidecar in &fleet.sidecars[..3] {
        assert!(sidecar.metric(PIECES, &[]).await? > 0.0, "on {}", sidecar.host.name());
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn content_that_rots_on_the_disk_after_it_was_verified_spoils_no_pull() -> Result<()> {
    let mut lab = Lab::start("rotten", LabSpec::nodes(1)).await?;
    let disk = Disk::on_file(lab.nodes()[0].dir().join("sidecar"), ByteSize(64 << 20)).await?;
    let (fleet, image) = complete(&mut lab).await?;
    for (layer, at) in [(0, 1 << 20), (1, 0)] {
        disk.rot(&file_of(&image.layers[layer], disk.dir(), "data")?, at)?;
    }
    read_everywhere(&fleet, &image).await?;
    assert_eq!(fleet.metric(PIECES, &[]).await?, 2.0);
    read_everywhere(&fleet, &image).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_whose_content_is_damaged_reads_it_anew() -> Result<()> {
    let mut lab = Lab::start("gateway-rot", LabSpec::nodes(2)).await?;
    let (mut fleet, image) = complete(&mut lab).await?;
    // Nobody else is left to have it.
    for node in 0..2 {
        fleet.sidecars[node].process.kill().await?;
        fs::remove_dir_all(store_of(&fleet, node))?;
    }
    let store = fleet.gateway.host.dir().join("gateway");
    for layer in 0..2 {
        overwrite(&file_of(&image.layers[layer], &store, "data")?, |it| !it, 1)?;
    }
    for sidecar in &mut fleet.sidecars {
        sidecar.process.restart().await?;
        sidecar.wait_until_ready().await?;
    }
    read_everywhere(&fleet, &image).await?;
    assert_eq!(fleet.gateway.metric(PIECES, &[]).await?, 2.0);
    let again = fleet.registry.front.blob_bytes_sent();
    let all: usize = image.layers.iter().map(|it| it.bytes.len()).sum();
    assert!(again > 0 && again < all as u64, "{again} of {all} bytes");
    Ok(())
}
