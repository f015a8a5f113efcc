//! Two gateways keep to one limit of a registry together: whichever of them has work, while one of them dies, and while
//! Redis is away. That no more is read is what fails a test. How much of the limit is used is also a matter of the machine's
//! speed: it is printed, and what was seen is in docs/BENCHMARKS.md.

use std::time::Duration;

use anyhow::{Context, Result};
use futures_util::future::try_join_all;
use serde_json::json;
use shoal_tests::fleet::{Fleet, FleetSpec};
use shoal_tests::image::Image;
use shoal_tests::lab::{Lab, LabSpec};
use shoal_tests::raw::Exchange;
use shoal_tests::redis::Redis;
use shoal_tests::sent::most_within;
use shoal_tests::wait;

const DEADLINE: Duration = Duration::from_secs(120);
const NODES: usize = 2;
const BLOBS: usize = 200;
/// The size of a blob, in bytes; all of them take about 12 s.
const BLOB: usize = 256 << 10;
/// Bytes per second.
const RATE: u64 = 4 << 20;
const WINDOW: Duration = Duration::from_secs(5);
/// How many blobs a gateway reads at once.
const AT_ONCE: u64 = 4;
/// The most that is sent in a window: a twentieth more than the limit, and what was paid for before. A registry that stood
/// still, as it does where processors are short, sends that late.
const MOST: u64 = RATE * 5 * 21 / 20 + 2 * AT_ONCE * (128 << 10);
/// What a gateway that is lost, or has lost its turn, may have been sent beyond what the others have of it: the blobs that it was
/// reading, which are packed and so a little larger.
const IN_FLIGHT: u64 = AT_ONCE * (BLOB + BLOB / 64) as u64;

const UP: &str = "shoal_gateway_redis_up";
const LOTS: &str = "shoal_gateway_lots_total";

async fn fleet(name: &str) -> Result<(Lab, Fleet, Image)> {
    let mut lab = Lab::start(name, LabSpec::nodes(NODES as u16)).await?;
    let limits = json!({ "bytesPerSecond": RATE, "concurrentBlobs": AT_ONCE });
    let spec = FleetSpec::private().with_gateways(2).with_redis().with_limits(limits);
    let fleet = Fleet::start(&mut lab, spec).await?;
    fleet.joined().await?;
    fleet.gateways_say("shoal_gateway_sisters", 1.0).await?;
    fleet.gateways_say(UP, 1.0).await?;
    let image = fleet.publish(&[BLOB; BLOBS]).await?;
    fleet.registry.front.forget();
    Ok((lab, fleet, image))
}

/// Begins to read all blobs at once, each at one of the nodes, as a client that comes back until it is answered.
async fn begin(fleet: &Fleet, image: &Image) -> Result<Vec<Exchange>> {
    let reads = image.layers.iter().enumerate().map(async |(number, blob)| {
        let read =
            async || fleet.read(number % NODES, image, blob, &[]).await.ok().filter(|it| it.status == 200);
        wait::until("an answer", DEADLINE, read).await
    });
    try_join_all(reads).await
}

/// Reads all to their ends; one that breaks off is read anew, as runtimes do.
async fn finish(fleet: &Fleet, reads: Vec<Exchange>, image: &Image) -> Result<()> {
    let reads = reads.into_iter().zip(&image.layers).enumerate().map(async |(number, (read, blob))| {
        if let Err(error) = read.finish_with(blob).await {
            println!("blob {number}: {error}");
            let again = async || fleet.read(number % NODES, image, blob, &[]).await?.finish_with(blob).await;
            wait::until("the blob", DEADLINE, async || again().await.ok()).await?;
        }
        Ok::<_, anyhow::Error>(())
    });
    try_join_all(reads).await.map(drop)
}

/// Waits until so many of all blobs' bytes have been sent.
async fn until_sent(fleet: &Fleet, part: f64) -> Result<()> {
    let n_bytes = (part * (BLOBS * BLOB) as f64) as u64;
    let sent = async || (fleet.registry.front.blob_bytes_sent() >= n_bytes).then_some(());
    wait::until("bytes from the registry", DEADLINE, sent).await
}

/// Fails where the registry was read faster than the limit in any five seconds; returns how many it took.
#[track_caller]
fn check_rate(fleet: &Fleet) -> f64 {
    let sent = fleet.registry.front.sent();
    let most = most_within(&sent, WINDOW);
    let (Some(first), Some(last)) = (sent.first(), sent.last()) else { panic!("nothing was sent") };
    let seconds = (last.at - first.at).as_secs_f64();
    let n_bytes: u64 = sent.iter().map(|it| it.n_bytes).sum();
    println!("{n_bytes} bytes in {seconds:.1} s: {:.3} of the limit", n_bytes as f64 / seconds / RATE as f64);
    println!("at most {most} in 5 s: {:.3} of the limit", most as f64 / (5 * RATE) as f64);
    assert!(most <= MOST, "{most} bytes in five seconds, {MOST} allowed");
    seconds
}

/// Fails unless the registry has sent each blob once, but for so many bytes. What it refuses to nodes that ask by themselves is
/// none of a blob's.
#[track_caller]
fn check_read_once(fleet: &Fleet, image: &Image, beyond: u64) {
    let size: u64 = image.layers.iter().map(|it| it.bytes.len() as u64).sum();
    let seen = fleet.registry.front.seen();
    let reads: Vec<_> = seen.iter().filter(|it| it.is_blob_read() && it.status != 401).collect();
    let sent: u64 = reads.iter().map(|it| it.sent).sum();
    println!("{sent} bytes of blobs for {size}");
    assert!((size..=size + beyond).contains(&sent), "{sent} bytes sent for {size}");
}

fn redis(fleet: &mut Fleet) -> Result<&mut Redis> {
    fleet.redis.as_mut().context("a fleet without Redis")
}

#[tokio::test(flavor = "multi_thread")]
async fn two_gateways_keep_to_one_limit() -> Result<()> {
    let (_lab, fleet, image) = fleet("one-limit").await?;
    let reads = begin(&fleet, &image).await?;
    finish(&fleet, reads, &image).await?;
    let seconds = check_rate(&fleet);
    check_read_once(&fleet, &image, 0);
    for gateway in fleet.gateways() {
        let n_lent = gateway.metric(LOTS, &[("outcome", "lent")]).await?;
        println!("{:.1} lots per second", n_lent / seconds);
        assert!(n_lent > 0.0, "each has its part");
        assert!(n_lent <= 50.0 * seconds, "{n_lent} in {seconds} s: Redis is asked too often");
        assert!(gateway.metric(LOTS, &[("outcome", "unanswered")]).await?.abs() < 0.1);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_dies_leaves_the_limit_to_the_other() -> Result<()> {
    let (_lab, mut fleet, image) = fleet("limit-gateway-dies").await?;
    let reads = begin(&fleet, &image).await?;
    until_sent(&fleet, 0.3).await?;
    fleet.gateway_mut(1).process.kill().await?;
    finish(&fleet, reads, &image).await?;
    check_read_once(&fleet, &image, IN_FLIGHT);
    check_rate(&fleet);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn while_redis_is_away_and_when_it_is_back_the_limit_is_kept() -> Result<()> {
    let (_lab, mut fleet, image) = fleet("limit-redis-dies").await?;
    let reads = begin(&fleet, &image).await?;
    until_sent(&fleet, 0.2).await?;
    redis(&mut fleet)?.process.kill().await?;
    fleet.gateways_say(UP, 0.0).await?;
    until_sent(&fleet, 0.6).await?;
    redis(&mut fleet)?.restart().await?;
    fleet.gateways_say(UP, 1.0).await?;
    finish(&fleet, reads, &image).await?;
    check_rate(&fleet);
    // Where leases end before blobs do, owners go on with what others were reading.
    check_read_once(&fleet, &image, 2 * IN_FLIGHT);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn while_redis_hangs_the_limit_is_kept() -> Result<()> {
    let (_lab, mut fleet, image) = fleet("limit-redis-hangs").await?;
    let reads = begin(&fleet, &image).await?;
    until_sent(&fleet, 0.2).await?;
    redis(&mut fleet)?.process.stop()?;
    fleet.gateways_say(UP, 0.0).await?;
    until_sent(&fleet, 0.6).await?;
    redis(&mut fleet)?.process.cont()?;
    finish(&fleet, reads, &image).await?;
    check_rate(&fleet);
    check_read_once(&fleet, &image, 2 * IN_FLIGHT);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_alone_loses_redis_has_its_part_and_the_other_the_rest() -> Result<()> {
    let (lab, mut fleet, image) = fleet("limit-one-sided").await?;
    let reads = begin(&fleet, &image).await?;
    until_sent(&fleet, 0.2).await?;
    let at_redis = redis(&mut fleet)?.host.clone();
    lab.partition(&[at_redis], &[fleet.gateways()[1].host.clone()]).await?;
    finish(&fleet, reads, &image).await?;
    // What it was reading the other one goes on with.
    check_read_once(&fleet, &image, IN_FLIGHT);
    check_rate(&fleet);
    Ok(())
}
