//! The registry is gone: what the region has it still serves, and nobody hangs for the rest.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;
use shoal_tests::fleet::{Fleet, FleetSpec};
use shoal_tests::harm::{Harm, Victim};
use shoal_tests::image::Image;
use shoal_tests::lab::{Lab, LabSpec};
use shoal_tests::raw::{Ended, Ending};
use shoal_tests::registry::RegistrySpec;
use shoal_tests::slow::{SLOW, slow_fleet};
use shoal_tests::stored::{allocated, stored};
use shoal_tests::wait;
use tokio::time::timeout;

/// Within this a stream that cannot go on has ended, and what a busy machine may add.
const PROMISED: Duration = Duration::from_secs(10);
const MACHINE: Duration = Duration::from_secs(1);
const DEADLINE: Duration = Duration::from_secs(60);
const LAYER: usize = 3 << 20;

/// A fleet of two nodes, of which the first has pulled a layer as `reader`.
async fn half_served(name: &str, spec: FleetSpec, reader: &[&str]) -> Result<(Lab, Fleet, Image)> {
    let mut lab = Lab::start(name, LabSpec::nodes(2)).await?;
    let fleet = Fleet::start(&mut lab, spec).await?;
    let image = fleet.publish(&[LAYER]).await?;
    let layer = &image.layers[0];
    fleet.read(0, &image, layer, reader).await?.finish_with(layer).await?;
    Ok((lab, fleet, image))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_killed_in_the_middle_ends_the_stream_early_and_the_retry_is_answered() -> Result<()> {
    let (lab, mut fleet, image) = slow_fleet("registry-dies", FleetSpec::private(), 1, 0).await?;
    // So that the gateway does not have everything by then.
    fleet.registry.host.shape(SLOW, SLOW).await?;
    let layer = &image.layers[0];
    let pull = fleet.pull_under_way(0, &image).await?;
    fleet.harm(&lab, Victim::Registry, Harm::Killed).await?;
    let ended = timeout(PROMISED + MACHINE, pull.finish()).await;
    let Ended { body, ending } = ended.with_context(|| format!("no end within {PROMISED:?}"))??;
    assert_eq!(ending, Ending::Fin, "after {} of {} bytes", body.len(), layer.bytes.len());
    assert!(layer.bytes.starts_with(&body));

    let rest = format!("Range: bytes={}-", body.len());
    let retry = fleet.read(0, &image, layer, &[&rest]).await?;
    assert!(matches!(retry.status, 206 | 404 | 503), "{}", retry.status);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_gateway_has_outlives_the_registry() -> Result<()> {
    let (lab, mut fleet, image) = half_served("gateway-has-it", FleetSpec::private(), &[]).await?;
    fleet.harm(&lab, Victim::Registry, Harm::Killed).await?;
    fleet.harm(&lab, Victim::Sidecar(0), Harm::Killed).await?;
    let layer = &image.layers[0];
    fleet.read(1, &image, layer, &[]).await?.finish_with(layer).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_gateway_has_outlives_the_registry_for_callers_that_were_let_in() -> Result<()> {
    let user = RegistrySpec::plain().for_user("robot", "s3cret");
    let authorization = user.credentials.as_ref().context("it has a user")?.basic();
    let reader = format!("Authorization: {authorization}");
    let (lab, mut fleet, image) = half_served("caller-let-in", FleetSpec::before(user), &[&reader]).await?;
    fleet.harm(&lab, Victim::Registry, Harm::Killed).await?;
    fleet.harm(&lab, Victim::Sidecar(0), Harm::Killed).await?;
    let layer = &image.layers[0];
    fleet.read(1, &image, layer, &[&reader]).await?.finish_with(layer).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_node_has_outlives_the_registry() -> Result<()> {
    // Room for next to nothing, so that the gateway keeps no blob for longer than it has to.
    let spec = FleetSpec::private().with_gateway(json!({ "storage": { "diskGCThreshold": "64Ki" } }));
    let (lab, mut fleet, image) = half_served("node-has-it", spec, &[]).await?;
    wait::until("the gateway has evicted the blob", DEADLINE, async || {
        let kept = stored(fleet.gateway.host.dir());
        let kept: u64 = kept.ok()?.iter().filter_map(|it| allocated(it).ok()).sum();
        (kept < LAYER as u64 / 2).then_some(())
    })
    .await?;
    fleet.harm(&lab, Victim::Registry, Harm::Killed).await?;
    let layer = &image.layers[0];
    fleet.read(1, &image, layer, &[]).await?.finish_with(layer).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_does_not_reach_the_registry_is_waited_for_once() -> Result<()> {
    let mut lab = Lab::start("no-way-to-it", LabSpec::nodes(1)).await?;
    let mut fleet = Fleet::start(&mut lab, FleetSpec::before(RegistrySpec::plain())).await?;
    let image = fleet.publish(&[LAYER]).await?;
    let containerds = fleet.containerds().await?;
    fleet.harm(&lab, Victim::Registry, Harm::CutOffFromGateway).await?;
    // It asks for the manifest twice, one after the other.
    containerds[0].pull(&fleet.registry, &image).await?;
    let log = fleet.sidecars[0].process.log()?;
    let n_waits = log.matches("gateway did not answer in time").count();
    assert_eq!(n_waits, 1, "{log}");
    Ok(())
}
