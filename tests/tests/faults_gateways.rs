//! Several gateways in one region: each blob is read from the registry once, whoever of them dies, hangs or comes back,
//! and whatever becomes of their Redis.
//!
//! The registry's link is slow, so that a seed lasts for seconds, and the nodes' are not, so that what was read is with
//! them soon. Only the gateways have its credentials: nobody reads it behind their back.

use std::slice::from_ref;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use serde_json::json;
use shoal_tests::fleet::{Fleet, FleetSpec};
use shoal_tests::image::Image;
use shoal_tests::lab::{Lab, LabSpec};
use shoal_tests::link::Mbit;
use shoal_tests::raw::Exchange;
use shoal_tests::redis::{Access, Redis};
use shoal_tests::wait;

const DEADLINE: Duration = Duration::from_secs(30);
const NODES: usize = 4;
/// The size of the layer, in bytes, before it is packed.
const LAYER: usize = 32 << 20;
/// The registry's link; it takes about 7 s for the layer.
const REGISTRY: Mbit = Mbit(40);
/// With so many bytes at every client a pull is in the middle, also where clients lag behind.
const MIDDLE: usize = LAYER / 2;
/// What a gateway that is lost may have been sent beyond what the nodes have of it: what fills the buffers of the two
/// ends of a connection.
const WINDOW: u64 = 12 << 20;

const READ: &str = "shoal_gateway_back_to_source_bytes_total";
const GATHERED: &str = "shoal_gateway_gathered_bytes_total";
const LEASES: &str = "shoal_gateway_seed_leases_total";

fn two_gateways() -> FleetSpec {
    FleetSpec::private().with_gateways(2)
}

/// Gateways that know each other's names as well, for when Redis does not tell them.
fn named(spec: FleetSpec) -> FleetSpec {
    spec.with_gateway(json!({ "gateways": ["https://gateway:65003", "https://gateway2:65003"] }))
}

/// A fleet of four nodes, half of whom turn to each gateway first, and an image of one layer.
async fn fleet(name: &str, spec: FleetSpec) -> Result<(Lab, Fleet, Image)> {
    let mut lab = Lab::start(name, LabSpec::nodes(NODES as u16)).await?;
    let fleet = Fleet::start(&mut lab, spec).await?;
    fleet.joined().await?;
    let image = fleet.publish(&[LAYER]).await?;
    fleet.registry.host.shape(REGISTRY, REGISTRY).await?;
    Ok((lab, fleet, image))
}

/// Begins the pull of the layer on every node.
async fn begin(fleet: &Fleet, image: &Image) -> Result<Vec<Exchange>> {
    try_join_all((0..NODES).map(|node| fleet.read(node, image, &image.layers[0], &[]))).await
}

/// The same, and returns in the middle.
async fn under_way(fleet: &Fleet, image: &Image) -> Result<Vec<Exchange>> {
    let mut pulls = begin(fleet, image).await?;
    try_join_all(pulls.iter_mut().map(|it| it.read_to(MIDDLE))).await?;
    let (sent, size) = (fleet.registry.front.blob_bytes_sent(), image.layers[0].bytes.len() as u64);
    ensure!(sent < size, "the clients are so far behind that there is no middle");
    Ok(pulls)
}

async fn finish(pulls: Vec<Exchange>, image: &Image) -> Result<()> {
    try_join_all(pulls.into_iter().map(|it| it.finish_with(&image.layers[0]))).await.map(drop)
}

/// Reads every blob on every node, all at once.
async fn read_everywhere(fleet: &Fleet, image: &Image) -> Result<()> {
    let reads = (0..NODES).flat_map(|node| image.blobs().map(move |blob| (node, blob)));
    let reads =
        reads.map(async |(node, blob)| fleet.read(node, image, blob, &[]).await?.finish_with(blob).await);
    try_join_all(reads).await.map(drop)
}

/// The number of the gateway that reads, or has read, most.
async fn seeder(fleet: &Fleet) -> Result<usize> {
    let read = try_join_all(fleet.gateways().into_iter().map(|it| it.metric(READ, &[]))).await?;
    let most = read.iter().enumerate().max_by(|(_, one), (_, other)| one.total_cmp(other));
    Ok(most.context("no gateway")?.0)
}

/// Fails unless the registry has sent no more than this beyond one copy of the layer.
#[track_caller]
fn check_read(fleet: &Fleet, image: &Image, beyond: u64) {
    let (sent, size) = (fleet.registry.front.blob_bytes_sent(), image.layers[0].bytes.len() as u64);
    println!("the registry sent {sent} bytes for {size}");
    assert!((size..=size + beyond).contains(&sent), "{sent} bytes sent for {size}");
}

async fn sum(fleet: &Fleet, name: &str, labels: &[(&str, &str)]) -> Result<f64> {
    Ok(try_join_all(fleet.gateways().into_iter().map(|it| it.metric(name, labels))).await?.into_iter().sum())
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_gateway_a_node_turns_to_each_blob_is_read_once() -> Result<()> {
    let mut lab = Lab::start("one-read", LabSpec::nodes(NODES as u16)).await?;
    let fleet = Fleet::start(&mut lab, two_gateways().with_redis()).await?;
    fleet.joined().await?;
    // With so many blobs each gateway owns some.
    let image = fleet.publish(&[3 << 20; 8]).await?;
    read_everywhere(&fleet, &image).await?;
    assert_eq!(fleet.registry.front.blob_bytes_sent(), image.n_bytes());
    for gateway in fleet.gateways() {
        assert!(gateway.metric(READ, &[]).await? > f64::from(3 << 20), "each has its part");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_scheduler_too_each_blob_is_read_once() -> Result<()> {
    let mut lab = Lab::start("no-scheduler", LabSpec::nodes(NODES as u16)).await?;
    let mut fleet = Fleet::start(&mut lab, two_gateways().with_redis()).await?;
    fleet.joined().await?;
    fleet.scheduler.process.kill().await?;
    let image = fleet.publish(&[3 << 20; 4]).await?;
    read_everywhere(&fleet, &image).await?;
    assert_eq!(fleet.registry.front.blob_bytes_sent(), image.n_bytes());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_with_tls_and_a_user_of_few_rights_serves_as_well() -> Result<()> {
    let mut lab = Lab::start("redis-secured", LabSpec::nodes(2)).await?;
    let mut fleet = Fleet::start(&mut lab, two_gateways().with_redis_as(Access::Secured)).await?;
    // They find each other there, and again after it was away.
    fleet.gateways_say("shoal_gateway_sisters", 1.0).await?;
    fleet.gateways_say("shoal_gateway_sharing_limits", 2.0).await?;
    redis(&mut fleet)?.process.kill().await?;
    fleet.gateways_say("shoal_gateway_redis_up", 0.0).await?;
    redis(&mut fleet)?.restart().await?;
    fleet.gateways_say("shoal_gateway_redis_up", 1.0).await?;
    let image = fleet.publish(&[1 << 20]).await?;
    for node in 0..2 {
        fleet.read(node, &image, &image.layers[0], &[]).await?.finish_with(&image.layers[0]).await?;
    }
    check_read(&fleet, &image, 0);
    for gateway in fleet.gateways() {
        assert!(!gateway.process.log()?.contains("s3cret-of-redis"));
    }
    Ok(())
}

// === A gateway is lost ===

#[tokio::test(flavor = "multi_thread")]
async fn the_successor_of_a_gateway_that_dies_goes_on_from_what_the_nodes_hold() -> Result<()> {
    let (_lab, mut fleet, image) = fleet("seeder-dies", two_gateways().with_redis()).await?;
    let pulls = under_way(&fleet, &image).await?;
    let seeder = seeder(&fleet).await?;
    fleet.gateway_mut(seeder).process.kill().await?;
    finish(pulls, &image).await?;
    check_read(&fleet, &image, WINDOW);
    let successor = fleet.gateways()[1 - seeder];
    assert!(successor.metric(GATHERED, &[]).await? >= MIDDLE as f64 * 0.9);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_comes_back_empty_goes_on_from_what_the_nodes_hold() -> Result<()> {
    let (_lab, mut fleet, image) = fleet("seeder-restarts", FleetSpec::private()).await?;
    let pulls = under_way(&fleet, &image).await?;
    fleet.gateway.process.kill().await?;
    // It has lost its disk, but for what makes it this gateway.
    let store = fleet.gateway.host.dir().join("gateway");
    for entry in std::fs::read_dir(&store)? {
        let entry = entry?.path();
        if !["ca", "join", "signing.key"].iter().any(|it| entry.ends_with(it)) {
            if entry.is_dir() { std::fs::remove_dir_all(entry)? } else { std::fs::remove_file(entry)? }
        }
    }
    fleet.gateway.process.restart().await?;
    finish(pulls, &image).await?;
    check_read(&fleet, &image, WINDOW);
    assert!(fleet.gateway.metric(GATHERED, &[]).await? >= MIDDLE as f64 * 0.9);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_hangs_and_comes_back_publishes_nothing_stale() -> Result<()> {
    let (_lab, fleet, image) = fleet("seeder-hangs", two_gateways().with_redis()).await?;
    let pulls = under_way(&fleet, &image).await?;
    let seeder = seeder(&fleet).await?;
    let (hung, successor) = (fleet.gateways()[seeder], fleet.gateways()[1 - seeder]);
    let read = hung.metric(READ, &[]).await?;
    hung.process.stop()?;
    wait::until("the successor reads", DEADLINE, async || {
        successor.metric(READ, &[]).await.is_ok_and(|it| it > 0.0).then_some(())
    })
    .await?;
    hung.process.cont()?;
    finish(pulls, &image).await?;
    // In its turn again it finds that it has lost the lease, and ends with what was on the way to it.
    let overtaken = [("outcome", "overtaken")];
    wait::until("the one that hung has stopped", DEADLINE, async || {
        hung.metric("shoal_gateway_back_to_source_total", &overtaken)
            .await
            .is_ok_and(|it| it >= 1.0)
            .then_some(())
    })
    .await?;
    assert!(hung.metric(LEASES, &[("outcome", "lost")]).await? >= 1.0);
    let beyond = hung.metric(READ, &[]).await? - read;
    assert!(beyond <= WINDOW as f64, "{beyond} bytes were read by the one that hung");
    check_read(&fleet, &image, WINDOW);
    // What it publishes now it has from the one that took over.
    let late = fleet.publish(&[LAYER / 8]).await?;
    for node in 0..NODES {
        fleet.read(node, &late, &late.layers[0], &[]).await?.finish_with(&late.layers[0]).await?;
    }
    Ok(())
}

// === Redis is lost ===

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_gateways_that_know_each_others_names_read_once() -> Result<()> {
    let (_lab, mut fleet, image) = fleet("redis-dead", named(two_gateways().with_redis())).await?;
    redis(&mut fleet)?.process.kill().await?;
    for gateway in 0..2 {
        let gateway = fleet.gateway_mut(gateway);
        gateway.process.restart().await?;
        gateway.wait_until_ready().await?;
    }
    fleet.gateways_say("shoal_gateway_sisters", 1.0).await?;
    read_everywhere(&fleet, &image).await?;
    assert_eq!(fleet.registry.front.blob_bytes_sent(), image.n_bytes());
    assert!(sum(&fleet, LEASES, &[("outcome", "taken")]).await?.abs() < 0.1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_dies_and_comes_back_with_nothing_costs_no_second_read() -> Result<()> {
    let (_lab, mut fleet, image) = fleet("redis-dies", two_gateways().with_redis()).await?;
    let pulls = under_way(&fleet, &image).await?;
    redis(&mut fleet)?.process.kill().await?;
    fleet.gateways_say("shoal_gateway_redis_up", 0.0).await?;
    redis(&mut fleet)?.restart().await?;
    fleet.gateways_say("shoal_gateway_redis_up", 1.0).await?;
    finish(pulls, &image).await?;
    check_read(&fleet, &image, 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_hangs_holds_nothing_up() -> Result<()> {
    let (_lab, mut fleet, image) = fleet("redis-hangs", two_gateways().with_redis()).await?;
    let mut pulls = begin(&fleet, &image).await?;
    redis(&mut fleet)?.process.stop()?;
    try_join_all(pulls.iter_mut().map(|it| it.read_to(MIDDLE))).await?;
    redis(&mut fleet)?.process.cont()?;
    finish(pulls, &image).await?;
    check_read(&fleet, &image, 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_a_gateway_that_dies_is_replaced_all_the_same() -> Result<()> {
    let (lab, mut fleet, image) = fleet("redis-unreachable", two_gateways().with_redis()).await?;
    let pulls = under_way(&fleet, &image).await?;
    let seeder = seeder(&fleet).await?;
    let at_redis = redis(&mut fleet)?.host.clone();
    let gateways: Vec<_> = fleet.gateways().into_iter().map(|it| it.host.clone()).collect();
    lab.partition(from_ref(&at_redis), &gateways).await?;
    fleet.gateways_say("shoal_gateway_redis_up", 0.0).await?;
    fleet.gateway_mut(seeder).process.kill().await?;
    finish(pulls, &image).await?;
    check_read(&fleet, &image, WINDOW);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_alone_loses_redis_reads_nothing_that_the_other_reads() -> Result<()> {
    let (lab, mut fleet, image) = fleet("redis-one-sided", two_gateways().with_redis()).await?;
    let pulls = under_way(&fleet, &image).await?;
    let seeder = seeder(&fleet).await?;
    let (at_redis, other) = (redis(&mut fleet)?.host.clone(), fleet.gateways()[1 - seeder].host.clone());
    lab.partition(from_ref(&at_redis), from_ref(&other)).await?;
    finish(pulls, &image).await?;
    check_read(&fleet, &image, 0);
    Ok(())
}

fn redis(fleet: &mut Fleet) -> Result<&mut Redis> {
    fleet.redis.as_mut().context("a fleet without Redis")
}

// === Whose word counts where ===

#[tokio::test(flavor = "multi_thread")]
async fn what_one_gateway_signed_counts_with_nodes_that_know_only_the_other() -> Result<()> {
    let (_lab, mut fleet, image) = fleet("signed-elsewhere", two_gateways().with_redis()).await?;
    let layer = &image.layers[0];
    fleet.read(0, &image, layer, &[]).await?.finish_with(layer).await?;
    fleet.registry.front.forget();
    let seeder = seeder(&fleet).await?;
    fleet.gateway_mut(seeder).process.kill().await?;
    // The pieces are with a node, and signed by the one that is dead; the tickets are of the one that is left.
    for node in 1..NODES {
        let answer = wait::until("a gateway answers", DEADLINE, async || {
            fleet.read(node, &image, layer, &[]).await.ok().filter(|it| it.status == 200)
        });
        answer.await?.finish_with(layer).await?;
    }
    // Before they have found the other gateway, nodes may ask by themselves, in vain.
    let seen = fleet.registry.front.seen();
    assert!(seen.iter().all(|it| !it.is_blob_read() || it.status == 401), "{seen:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_write_to_redis_is_no_word_of_a_gateway() -> Result<()> {
    let (_lab, mut fleet, image) = fleet("redis-forged", two_gateways().with_redis()).await?;
    let layer = &image.layers[0];
    let lease = format!("{{shoal}}:lease:{}@{}", fleet.registry.authority(), layer.digest);
    let redis = redis(&mut fleet)?;
    // A lease without an end, gateways where there are none, and an epoch that no clock will reach.
    redis.run(&["SET", &lease, "99999999999999999 gateway9"]).await?;
    redis.run(&["ZADD", "{shoal}:gateways", "99999999999999", "10.77.0.250:65003"]).await?;
    redis.run(&["ZADD", "{shoal}:gateways", "99999999999999", "gateway9:65003"]).await?;
    redis.run(&["SET", "{shoal}:epoch", "1e30"]).await?;
    fleet.read(0, &image, layer, &[]).await?.finish_with(layer).await?;
    check_read(&fleet, &image, 0);
    for gateway in fleet.gateways() {
        assert!((gateway.metric("shoal_gateway_sisters", &[]).await? - 1.0).abs() < 0.1);
    }
    Ok(())
}
