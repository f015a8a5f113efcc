//! Little of what a sidecar takes for granted: few open files, little memory, a slow disk.

use std::time::Duration;

use anyhow::{Result, ensure};
use futures_util::future::try_join_all;
use shoal_model::{ByteRate, ByteSize};
use shoal_tests::cgroup::Limits;
use shoal_tests::command::Launch;
use shoal_tests::disk::Disk;
use shoal_tests::fleet::{Fleet, FleetSpec, admin, sidecar_settings};
use shoal_tests::image::{Blob, Image};
use shoal_tests::lab::{Lab, LabSpec};
use shoal_tests::raw::MIRROR;
use shoal_tests::shoal::{Part, Service};
use shoal_tests::wait;

const DEADLINE: Duration = Duration::from_secs(240);
/// Open files that a sidecar may have, and clients that come at once.
const FILES: usize = 128;
const CLIENTS: usize = 300;
/// What runs in so much memory has room for the processes beside it on a small node.
const MEMORY: ByteSize = ByteSize(96 << 20);
const DISK: ByteSize = ByteSize(512 << 20);
/// What a disk takes per second, which is much less than what comes.
const SLOW: ByteRate = ByteRate(4 << 20);

/// Reads a layer as a client that comes back until it is served.
async fn read_at_last(fleet: &Fleet, image: &Image, layer: &Blob) -> Result<()> {
    let read = async || fleet.read(0, image, layer, &[]).await?.finish_with(layer).await;
    wait::until("the layer", DEADLINE, async || read().await.ok()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sidecar_with_few_open_files_serves_many_clients_and_recovers() -> Result<()> {
    let mut lab = Lab::start("few-files", LabSpec::nodes(0)).await?;
    let mut fleet = Fleet::start(&mut lab, FleetSpec::private()).await?;
    let image = fleet.publish(&[1 << 20; 8]).await?;
    let node = lab.host("node").await?;
    let launch =
        Part::Sidecar.launch(&node, &sidecar_settings(&node, &fleet.gateway.host, &fleet.registry))?;
    let limit = Launch::new("prlimit").arg(format!("--nofile={FILES}:{FILES}")).arg("--");
    let process = node.start("shoal-sidecar", launch.wrapped_by(limit))?;
    let mut sidecar = Service::of(&node, Part::Sidecar, process, admin(Part::Sidecar));
    sidecar.wait_until_ready().await?;
    let at_rest = sidecar.process.n_open_files()?;
    fleet.sidecars.push(sidecar);

    let silent = try_join_all((0..FILES).map(|_| node.connect(MIRROR))).await?;
    let clients = (0..CLIENTS).map(|it| read_at_last(&fleet, &image, &image.layers[it % image.layers.len()]));
    try_join_all(clients).await?;
    drop(silent);
    let process = &fleet.sidecars[0].process;
    let few = async || process.n_open_files().ok().filter(|it| *it < at_rest + FILES / 2);
    wait::until("files closed again", DEADLINE, few).await?;
    fleet.read(0, &image, &image.layers[0], &[]).await?.finish_with(&image.layers[0]).await?;
    ensure!(!process.log()?.contains("panicked"));
    Ok(())
}

/// Has a sidecar under a limit of memory, with a slow disk, serve so many streams at once over so many blobs that it does not
/// have yet.
async fn check_memory(name: &str, n_streams: usize, layers: &[usize]) -> Result<()> {
    let mut lab = Lab::start(name, LabSpec::nodes(1)).await?;
    let disk = Disk::on_file(lab.nodes()[0].dir().join("sidecar"), DISK).await?.write_through().await?;
    let fleet = Fleet::start(&mut lab, FleetSpec::private()).await?;
    let image = fleet.publish(layers).await?;
    let sidecar = &fleet.sidecars[0];
    let limits = Limits::new(&sidecar.host)?.memory(MEMORY)?.writes(&disk, SLOW)?;
    limits.hold(&sidecar.process)?;
    let streams = image.layers.iter().cycle().take(n_streams).map(|it| read_at_last(&fleet, &image, it));
    let served = try_join_all(streams).await;
    println!("{} bytes of memory at most, {} allowed", limits.highest()?.0, MEMORY.0);
    assert_eq!(limits.n_killed()?, 0);
    served.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_streams_over_ten_blobs_fit_into_little_memory() -> Result<()> {
    check_memory("few-large", 200, &[4 << 20; 10]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_streams_over_as_many_blobs_fit_into_little_memory() -> Result<()> {
    check_memory("many-small", 200, &[1 << 20; 200]).await
}
