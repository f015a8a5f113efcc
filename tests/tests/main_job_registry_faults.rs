//! A registry that breaks off, dawdles, refuses or lies.
//!
//! What can be mended is mended behind the gateway, by one whole read in sum; what is not the blob never
//! reaches a client as a complete response and stays nowhere.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use futures_util::future::try_join_all;
use shoal_model::ByteRate;
use shoal_tests::counting::Seen;
use shoal_tests::fault::{Effect, Ending as Break};
use shoal_tests::fleet::{Fleet, FleetSpec};
use shoal_tests::image::Image;
use shoal_tests::lab::{Lab, LabSpec};
use shoal_tests::raw::{Ended, Ending};
use shoal_tests::wait;

const DEADLINE: Duration = Duration::from_secs(60);
const LAYER: usize = 12 << 20;
const EVERY_TIME: u32 = u32::MAX;

/// A fleet of two nodes, and an image of one layer that nobody has asked for yet.
async fn fleet(name: &str, spec: FleetSpec) -> Result<(Lab, Fleet, Image)> {
    let mut lab = Lab::start(name, LabSpec::nodes(2)).await?;
    let fleet = Fleet::start(&mut lab, spec).await?;
    let image = fleet.publish(&[LAYER]).await?;
    Ok((lab, fleet, image))
}

/// Both nodes read the layer to its end.
async fn both_read(fleet: &Fleet, image: &Image) -> Result<()> {
    let layer = &image.layers[0];
    let reads = [0, 1].map(async |node| fleet.read(node, image, layer, &[]).await?.finish_with(layer).await);
    try_join_all(reads).await.map(drop)
}

/// Has the gateway see the manifest, which proves the right to its blobs: the first request for one of them
/// is then the read itself.
async fn read_manifest(fleet: &Fleet, image: &Image) -> Result<()> {
    let path = format!("{}/manifests/{}", image.repository, image.tag);
    for sidecar in &fleet.sidecars {
        let request = fleet.ask(&path).header("accept", image.media_type()).body(Default::default())?;
        let answer = sidecar.host.send(request).await?;
        ensure!(answer.body() == &image.manifest.bytes, "{}: not the manifest", answer.status());
    }
    Ok(())
}

fn blob_reads(fleet: &Fleet) -> Vec<Seen> {
    fleet.registry.front.seen().into_iter().filter(Seen::is_blob_read).collect()
}

// === What can be mended ===

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_breaks_twice_is_resumed_where_it_broke() -> Result<()> {
    let (_lab, fleet, image) = fleet("registry-breaks", FleetSpec::private()).await?;
    read_manifest(&fleet, &image).await?;
    for (after, ending) in [(LAYER / 2, Break::Fin), (LAYER / 4, Break::Rst)] {
        fleet.registry.front.hurt("/blobs/", 1, Effect::Break { after: after as u64, ending });
    }
    let before = fleet.registry.host.traffic().await?.sent;
    both_read(&fleet, &image).await?;

    assert_eq!(blob_reads(&fleet).len(), 3, "{:?}", blob_reads(&fleet));
    // What a reset takes with it on the way was sent as well; the link tells what that was.
    let sent = fleet.registry.host.traffic().await?.sent - before;
    assert!(sent < LAYER as u64 * 5 / 4, "{sent} bytes for a layer of {LAYER}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_registry_is_waited_for_and_read_once() -> Result<()> {
    let (_lab, fleet, image) = fleet("registry-slow", FleetSpec::private()).await?;
    fleet.registry.front.hurt("/blobs/", EVERY_TIME, Effect::Slow(ByteRate(1 << 20)));
    both_read(&fleet, &image).await?;
    assert_eq!(blob_reads(&fleet).len(), 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_wants_to_be_left_alone_is_and_then_read_once() -> Result<()> {
    let (_lab, fleet, image) = fleet("registry-later", FleetSpec::private()).await?;
    read_manifest(&fleet, &image).await?;
    fleet.registry.front.hurt("/blobs/", 1, Effect::Status { code: 429, retry_after: Some(2) });
    both_read(&fleet, &image).await?;
    let statuses: Vec<_> = blob_reads(&fleet).iter().map(|it| it.status).collect();
    assert_eq!(statuses, [429, 200]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn statuses_that_runtimes_hammer_on_are_not_passed_on() -> Result<()> {
    let (_lab, mut fleet, image) = fleet("registry-429", FleetSpec::open()).await?;
    let layer = &image.layers[0];
    for code in [429, 408] {
        fleet.registry.front.hurt("/v2/", EVERY_TIME, Effect::Status { code, retry_after: Some(1) });
        assert_eq!(fleet.read(0, &image, layer, &[]).await?.status, 503);
        assert_eq!(fleet.head_manifest(0, &image).await?.status, 503);
        fleet.registry.front.heal();
    }
    fleet.gateway.process.kill().await?;
    fleet.registry.front.hurt("/v2/", EVERY_TIME, Effect::Status { code: 429, retry_after: None });
    assert_eq!(fleet.read(1, &image, layer, &[]).await?.status, 503);
    assert_eq!(fleet.head_manifest(1, &image).await?.status, 503);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_in_the_middle_reaches_the_runtime_as_an_early_end() -> Result<()> {
    let (_lab, mut fleet, image) = fleet("registry-resets", FleetSpec::open()).await?;
    let layer = &image.layers[0];
    fleet.gateway.process.kill().await?;
    let reset = Effect::Break { after: LAYER as u64 / 2, ending: Break::Rst };
    fleet.registry.front.hurt("/blobs/", 1, reset);
    let Ended { mut body, ending } = fleet.read(0, &image, layer, &[]).await?.finish().await?;
    assert_eq!(ending, Ending::Fin);

    let rest = format!("Range: bytes={}-", body.len());
    let resumed = fleet.read(0, &image, layer, &[&rest]).await?;
    assert_eq!(resumed.status, 206);
    body.extend(resumed.finish().await?.body);
    assert!(body == layer.bytes);
    Ok(())
}

// === What cannot ===

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_hangs_is_answered_for_in_time() -> Result<()> {
    let (_lab, fleet, image) = fleet("registry-hangs", FleetSpec::open()).await?;
    fleet.registry.front.hurt("/v2/", EVERY_TIME, Effect::Hang);
    assert_eq!(fleet.head_manifest(0, &image).await?.status, 503);
    assert_eq!(fleet.read(0, &image, &image.layers[0], &[]).await?.status, 503);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_hangs_on_the_content_ends_the_stream_early() -> Result<()> {
    let (_lab, fleet, image) = fleet("registry-mute", FleetSpec::open()).await?;
    read_manifest(&fleet, &image).await?;
    fleet.registry.front.hurt("/blobs/", EVERY_TIME, Effect::Hang);
    // The longest silence has its limit within `finish`.
    let ended = fleet.read(0, &image, &image.layers[0], &[]).await?.finish().await?;
    assert_eq!((ended.body.len(), ended.ending), (0, Ending::Fin));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_stays_broken_ends_the_stream_early_and_a_mended_one_goes_on() -> Result<()> {
    let (_lab, fleet, image) = fleet("registry-broken", FleetSpec::private()).await?;
    let (layer, front) = (&image.layers[0], &fleet.registry.front);
    read_manifest(&fleet, &image).await?;
    front.hurt("/blobs/", 1, Effect::Break { after: LAYER as u64 / 2, ending: Break::Fin });
    front.hurt("/blobs/", EVERY_TIME, Effect::Status { code: 500, retry_after: None });
    let Ended { body, ending } = fleet.read(0, &image, layer, &[]).await?.finish().await?;
    assert_eq!(ending, Ending::Fin);
    assert!(!body.is_empty() && layer.bytes.starts_with(&body));

    front.heal();
    front.forget();
    wait::until("the mended registry is read", DEADLINE, async || both_read(&fleet, &image).await.ok())
        .await?;
    let read: u64 = blob_reads(&fleet).iter().filter(|it| it.status == 206).map(|it| it.sent).sum();
    assert!(read <= (layer.bytes.len() - body.len()) as u64, "{read} bytes, with {} there", body.len());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_bytes_end_nowhere_and_a_healed_registry_is_read_anew() -> Result<()> {
    let (_lab, fleet, image) = fleet("registry-lies", FleetSpec::private()).await?;
    check_lies(&fleet, &image).await
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_bytes_are_not_believed_of_the_registry_itself_either() -> Result<()> {
    let (_lab, fleet, image) = fleet("registry-lies-open", FleetSpec::open()).await?;
    check_lies(&fleet, &image).await
}

/// While the registry flips a bit, no client gets a complete response and nobody keeps anything; after
/// that the blob is there for everybody.
async fn check_lies(fleet: &Fleet, image: &Image) -> Result<()> {
    let layer = &image.layers[0];
    read_manifest(fleet, image).await?;
    fleet.registry.front.hurt("/blobs/", EVERY_TIME, Effect::Flip(LAYER as u64 / 2));
    try_join_all([0, 1].map(async |node| {
        let Ended { body, ending } = fleet.read(node, image, layer, &[]).await?.finish().await?;
        ensure!(ending == Ending::Fin, "{ending:?} after {} of {} bytes", body.len(), layer.bytes.len());
        let rest = format!("Range: bytes={}-", body.len());
        let retry = fleet.read(node, image, layer, &[&rest]).await?;
        ensure!(retry.status == 404, "{}", retry.status);
        Ok(())
    }))
    .await?;
    wait::until("nobody keeps or announces anything", DEADLINE, async || {
        let announced = fleet.scheduler.metric("shoal_scheduler_blobs", &[]).await.ok()?;
        let parts = fleet.sidecars.iter().chain([&fleet.gateway]);
        let kept: u64 = parts.map(|it| disk_usage(it.host.dir()).unwrap_or(u64::MAX >> 8)).sum();
        (announced == 0.0 && kept < 1 << 20).then_some(())
    })
    .await?;

    fleet.registry.front.heal();
    wait::until("the healed blob is served", DEADLINE, async || both_read(fleet, image).await.ok()).await
}

/// Bytes that the files below a directory take on the disk.
fn disk_usage(dir: &Path) -> Result<u64> {
    let mut sum = 0;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        sum += if metadata.is_dir() { disk_usage(&entry.path())? } else { metadata.blocks() * 512 };
    }
    Ok(sum)
}
