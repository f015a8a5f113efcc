//! Every kind of Redis that gateways may have: also there the members of it die, others take their place, and each blob is
//! read from the registry once.

use anyhow::{Context, Result};
use futures_util::future::try_join_all;
use shoal_tests::fleet::{Fleet, FleetSpec};
use shoal_tests::image::Image;
use shoal_tests::lab::{Lab, LabSpec};
use shoal_tests::link::Mbit;
use shoal_tests::redis::{Access, Redis, restart};

const NODES: usize = 2;
/// The size of the layer, in bytes, before it is packed.
const LAYER: usize = 24 << 20;
/// The registry's link; it takes about 10 s for the layer.
const REGISTRY: Mbit = Mbit(20);

const UP: &str = "shoal_gateway_redis_up";
const LEASES: &str = "shoal_gateway_seed_leases_total";

/// A fleet of two gateways that have found each other by this Redis.
async fn fleet(name: &str, access: Access) -> Result<(Lab, Fleet)> {
    let mut lab = Lab::start(name, LabSpec::nodes(NODES as u16)).await?;
    let spec = FleetSpec::private().with_gateways(2).with_redis_as(access);
    let fleet = Fleet::start(&mut lab, spec).await?;
    fleet.joined().await?;
    fleet.gateways_say("shoal_gateway_sisters", 1.0).await?;
    fleet.gateways_say(UP, 1.0).await?;
    Ok((lab, fleet))
}

fn redis(fleet: &mut Fleet) -> Result<&mut Redis> {
    fleet.redis.as_mut().context("a fleet without Redis")
}

/// Reads a blob of so many MiB on each node, which is another one for each size.
async fn read_anew(fleet: &Fleet, size: usize) -> Result<()> {
    let image = fleet.publish(&[size << 20]).await?;
    fleet.registry.front.forget();
    for node in 0..NODES {
        fleet.read(node, &image, &image.layers[0], &[]).await?.finish_with(&image.layers[0]).await?;
    }
    check_read_once(fleet, &image);
    Ok(())
}

#[track_caller]
fn check_read_once(fleet: &Fleet, image: &Image) {
    assert_eq!(fleet.registry.front.blob_bytes_sent(), image.layers[0].bytes.len() as u64);
}

/// How often a gateway has got a lease.
async fn n_taken(fleet: &Fleet) -> Result<f64> {
    let taken = fleet.gateways().into_iter().map(|it| it.metric(LEASES, &[("outcome", "taken")]));
    Ok(try_join_all(taken.collect::<Vec<_>>()).await?.into_iter().sum())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_takes_the_masters_place_serves_the_gateways() -> Result<()> {
    let (_lab, mut fleet) = fleet("redis-sentinels", Access::Sentinels).await?;
    let image = fleet.publish(&[LAYER]).await?;
    fleet.registry.front.forget();
    fleet.registry.host.shape(REGISTRY, REGISTRY).await?;
    let layer = &image.layers[0];
    let mut pulls = try_join_all((0..NODES).map(|it| fleet.read(it, &image, layer, &[]))).await?;
    try_join_all(pulls.iter_mut().map(|it| it.read_to(LAYER / 4))).await?;
    redis(&mut fleet)?.process.kill().await?;
    fleet.gateways_say(UP, 0.0).await?;
    fleet.gateways_say(UP, 1.0).await?;
    try_join_all(pulls.into_iter().map(|it| it.finish_with(layer))).await?;
    check_read_once(&fleet, &image);
    // The one that died comes back as a replica; leases are had of the other.
    restart(&mut redis(&mut fleet)?.process).await?;
    let before = n_taken(&fleet).await?;
    read_anew(&fleet, 1).await?;
    assert!(n_taken(&fleet).await? > before);
    for gateway in fleet.gateways() {
        assert!(!gateway.process.log()?.contains("s3cret-of"));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_serves_for_as_long_as_the_member_with_the_keys_lives() -> Result<()> {
    let (_lab, mut fleet) = fleet("redis-cluster", Access::Cluster).await?;
    read_anew(&fleet, 2).await?;
    let members = redis(&mut fleet)?.members().await?;
    redis(&mut fleet)?.member(members[1]).kill().await?;
    let before = n_taken(&fleet).await?;
    read_anew(&fleet, 3).await?;
    assert!(n_taken(&fleet).await? > before, "the others serve on");
    fleet.gateways_say(UP, 1.0).await?;
    restart(redis(&mut fleet)?.member(members[1])).await?;
    redis(&mut fleet)?.member(members[0]).kill().await?;
    fleet.gateways_say(UP, 0.0).await?;
    read_anew(&fleet, 4).await?;
    restart(redis(&mut fleet)?.member(members[0])).await?;
    fleet.gateways_say(UP, 1.0).await?;
    let before = n_taken(&fleet).await?;
    read_anew(&fleet, 5).await?;
    assert!(n_taken(&fleet).await? > before);
    Ok(())
}
