//! Parts of the region die in the middle of a pull, or fall silent: the pull loses speed only.
//!
//! Links are slow enough that the middle lasts for seconds, and a part is killed when a client has got some
//! bytes, not after some time.

use std::slice::from_ref;
use std::time::Duration;

use anyhow::Result;
use futures_util::future::{try_join, try_join_all};
use nix::sys::signal::{Signal, killpg};
use shoal_tests::fleet::{Fleet, FleetSpec, sidecar_settings};
use shoal_tests::host::Host;
use shoal_tests::image::{Blob, Image};
use shoal_tests::lab::{Lab, LabSpec};
use shoal_tests::raw::{Ended, Ending, Exchange};
use shoal_tests::runtime::MIRROR;
use shoal_tests::runtime::containerd::Containerd;
use shoal_tests::shoal::Part;
use shoal_tests::slow::{LAYER, SLOW, SOME, slow_fleet};
use shoal_tests::supervised::Supervised;
use shoal_tests::wait;

const DEADLINE: Duration = Duration::from_secs(60);
/// What the unit file sets, and within what time a frozen sidecar is back.
const WATCHDOG: Duration = Duration::from_secs(5);
const RESTARTED: Duration = Duration::from_secs(10);

/// The pulls of the first two nodes, both in the middle.
async fn both_under_way(fleet: &Fleet, image: &Image) -> Result<[Exchange; 2]> {
    let (first, second) = try_join(fleet.pull_under_way(0, image), fleet.pull_under_way(1, image)).await?;
    Ok([first, second])
}

async fn finish(pulls: [Exchange; 2], layer: &Blob) -> Result<()> {
    try_join_all(pulls.into_iter().map(|it| it.finish_with(layer))).await.map(drop)
}

/// Waits until the gateway has read a blob to its end.
async fn wait_for_seal(fleet: &Fleet) -> Result<()> {
    let sealed = [("outcome", "sealed")];
    wait::until("the gateway has the blob", DEADLINE, async || {
        let sealed = fleet.gateway.metric("shoal_gateway_back_to_source_total", &sealed).await;
        sealed.is_ok_and(|it| it >= 1.0).then_some(())
    })
    .await
}

/// Waits until some bytes of a pull have reached a machine.
async fn wait_for_middle(node: &Host) -> Result<()> {
    let before = node.traffic().await?.received;
    wait::until("the pull is under way", DEADLINE, async || {
        node.traffic().await.is_ok_and(|it| it.received > before + SOME as u64).then_some(())
    })
    .await
}

// === Parts die in the middle ===

#[tokio::test(flavor = "multi_thread")]
async fn a_scheduler_killed_in_the_middle_costs_no_second_read() -> Result<()> {
    let (_lab, mut fleet, image) = slow_fleet("scheduler-dies", FleetSpec::private(), 2, 0).await?;
    let layer = &image.layers[0];
    let pulls = both_under_way(&fleet, &image).await?;
    fleet.scheduler.process.kill().await?;
    finish(pulls, layer).await?;
    assert_eq!(fleet.registry.front.blob_bytes_sent(), layer.bytes.len() as u64);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_killed_in_the_middle_leaves_neighbours_and_registry() -> Result<()> {
    let (_lab, mut fleet, image) = slow_fleet("gateway-dies", FleetSpec::open(), 2, 0).await?;
    let pulls = both_under_way(&fleet, &image).await?;
    wait_for_seal(&fleet).await?;
    fleet.gateway.process.kill().await?;
    finish(pulls, &image.layers[0]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_neighbour_killed_in_the_middle_costs_no_second_read() -> Result<()> {
    let (_lab, mut fleet, image) = slow_fleet("neighbour-dies", FleetSpec::private(), 2, 1).await?;
    let layer = &image.layers[0];
    let pull = fleet.pull_under_way(1, &image).await?;
    let by_peer = [("source", "peer")];
    assert!(fleet.sidecars[1].metric("shoal_sidecar_download_bytes_total", &by_peer).await? > 0.0);
    fleet.sidecars[0].process.kill().await?;
    pull.finish_with(layer).await?;
    assert_eq!(fleet.registry.front.blob_bytes_sent(), layer.bytes.len() as u64);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn with_all_three_killed_containerd_still_gets_its_image() -> Result<()> {
    let mut lab = Lab::start("all-die", LabSpec::nodes(2)).await?;
    let mut fleet = Fleet::start(&mut lab, FleetSpec::open()).await?;
    let image = fleet.publish(&[LAYER / 3; 3]).await?;
    let containerds = fleet.containerds().await?;
    for node in lab.nodes() {
        node.shape(SLOW, SLOW).await?;
    }
    let (first, second) = (&containerds[0], &containerds[1]);
    let dying = async {
        wait_for_middle(&fleet.sidecars[1].host).await?;
        fleet.scheduler.process.kill().await?;
        fleet.gateway.process.kill().await?;
        fleet.sidecars[0].process.kill().await
    };
    // The first node's own sidecar is killed too: both fall back, each in its way.
    let (first_pull, second_pull) =
        (first.pull(&fleet.registry, &image), second.pull(&fleet.registry, &image));
    tokio::try_join!(first_pull, second_pull, dying)?;
    first.check(&fleet.registry, &image).await?;
    second.check(&fleet.registry, &image).await
}

#[tokio::test(flavor = "multi_thread")]
async fn with_all_three_killed_a_neighbour_alone_serves_a_node_without_credentials() -> Result<()> {
    let (_lab, mut fleet, image) = slow_fleet("one-is-left", FleetSpec::private(), 3, 2).await?;
    fleet.registry.front.forget();
    let pull = fleet.pull_under_way(2, &image).await?;
    fleet.scheduler.process.kill().await?;
    fleet.gateway.process.kill().await?;
    fleet.sidecars[0].process.kill().await?;
    pull.finish_with(&image.layers[0]).await?;
    assert_eq!(fleet.registry.front.blob_bytes_sent(), 0);
    Ok(())
}

// === Parts fall silent ===

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_vanishes_without_a_word_delays_no_answer() -> Result<()> {
    let (lab, fleet, image) = slow_fleet("gateway-silent", FleetSpec::open(), 1, 0).await?;
    let pull = fleet.pull_under_way(0, &image).await?;
    lab.partition(from_ref(&fleet.gateway.host), lab.nodes()).await?;
    // Each answer has its own deadline within `read` and `head_manifest`. The first may be that there is none.
    let first = [fleet.head_manifest(0, &image).await?, fleet.read(0, &image, &image.config, &[]).await?];
    assert!(first.iter().all(|it| matches!(it.status, 200 | 503)), "{first:?}");
    for _ in 0..3 {
        assert_eq!(fleet.head_manifest(0, &image).await?.status, 200);
        assert_eq!(fleet.read(0, &image, &image.config, &[]).await?.status, 200);
    }
    pull.finish_with(&image.layers[0]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vanished_gateway_with_the_only_copy_ends_the_stream_early() -> Result<()> {
    let (lab, fleet, image) = slow_fleet("only-copy", FleetSpec::private(), 1, 0).await?;
    let pull = fleet.pull_under_way(0, &image).await?;
    lab.partition(from_ref(&fleet.gateway.host), lab.nodes()).await?;
    // The longest silence has its limit within `finish`.
    let Ended { body, ending } = pull.finish().await?;
    assert_eq!(ending, Ending::Fin, "after {} bytes", body.len());
    assert!(image.layers[0].bytes.starts_with(&body));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_scheduler_holds_nothing_up() -> Result<()> {
    let (_lab, fleet, image) = slow_fleet("scheduler-frozen", FleetSpec::private(), 2, 0).await?;
    let pull = fleet.pull_under_way(0, &image).await?;
    fleet.scheduler.process.stop()?;
    let later = fleet.pull_under_way(1, &image).await?;
    finish([pull, later], &image.layers[0]).await?;
    assert_eq!(fleet.registry.front.blob_bytes_sent(), image.layers[0].bytes.len() as u64);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_sidecar_is_restarted_and_the_pull_goes_on() -> Result<()> {
    let mut lab = Lab::start("sidecar-frozen", LabSpec::nodes(0)).await?;
    let fleet = Fleet::start(&mut lab, FleetSpec::open()).await?;
    let image = fleet.publish(&[LAYER]).await?;
    let node = lab.host("node").await?;
    let settings = sidecar_settings(&node, &fleet.gateway.host, &fleet.registry);
    let launch = Part::Sidecar.launch(&node, &settings)?;
    let sidecar = Supervised::start(&node, "shoal-sidecar", launch, WATCHDOG)?;
    sidecar.wait_until_ready(0, DEADLINE).await?;
    let containerd = Containerd::start(&node).await?;
    containerd.go_through(&fleet.registry, MIRROR)?;
    node.shape(SLOW, SLOW).await?;

    let freezing = async {
        wait_for_middle(&node).await?;
        killpg(sidecar.seen().pid, Signal::SIGSTOP)?;
        sidecar.wait_until_ready(1, RESTARTED).await.map(drop)
    };
    tokio::try_join!(containerd.pull(&fleet.registry, &image), freezing)?;
    containerd.check(&fleet.registry, &image).await
}
