//! A node of the region lies about a blob that others pull: they lose some time, and nothing else.
//!
//! Each test puts one liar beside two honest nodes. It has a certificate and a ticket, the scheduler believes that it
//! holds everything and names it to both, and what it tells them is one [`Lie`].

// What is offered is mostly one run of pieces.
#![allow(clippy::single_range_in_vec_init)]

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use futures_util::stream::{self, StreamExt};
use shoal_model::{BlobKey, ByteSize, Digest, TrustGroup};
use shoal_proto::scheduler_client::SchedulerClient;
use shoal_proto::{BlobProgress, Hello, NodeMessage, PROTOCOL};
use shoal_swarm::Geometry;
use shoal_swarm::geometry::MAX_PIECES;
use shoal_tests::fleet::{Fleet, FleetSpec};
use shoal_tests::lab::Lab;
use shoal_tests::liar::{Liar, Lie};
use shoal_tests::member::Member;
use shoal_tests::slow::slow_fleet;
use shoal_tests::wait;

const DEADLINE: Duration = Duration::from_secs(30);
const HONEST: u16 = 2;
/// What an honest node may take in all. Without a liar it takes about 24 MiB for such a pull.
const MEMORY: ByteSize = ByteSize(48 << 20);

/// Has two nodes pull a blob at the same time beside a node that lies about it. Both get it, the registry is read
/// once, and the lie is told.
async fn check(name: &str, lie: Lie) -> Result<(Lab, Fleet)> {
    let (mut lab, fleet, image) = slow_fleet(name, FleetSpec::private(), HONEST, 0).await?;
    let liar = Liar::join(&mut lab, &fleet, &image, lie).await?;
    let layer = &image.layers[0];
    let pull = async |node| fleet.read(node, &image, layer, &[]).await?.finish_with(layer).await;
    try_join_all((0..fleet.sidecars.len()).map(pull)).await?;
    ensure!(liar.n_told() > 0, "nobody was lied to");
    let sent = fleet.registry.front.blob_bytes_sent();
    ensure!(sent == layer.bytes.len() as u64, "the registry sent {sent} bytes");
    for sidecar in &fleet.sidecars {
        let memory = sidecar.process.peak_memory()?;
        ensure!(memory <= MEMORY, "{} took {memory}", sidecar.host.name());
    }
    Ok((lab, fleet))
}

// === Nothing comes ===

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_says_nothing_at_all() -> Result<()> {
    check("mute", Lie::Mute).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_never_answers_for_a_piece() -> Result<()> {
    check("unanswering", Lie::Unanswering).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_says_that_it_is_at_work_and_is_not() -> Result<()> {
    check("at-work", Lie::AtWork).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_has_nothing_of_what_it_offers() -> Result<()> {
    check("nothing-there", Lie::NothingThere).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_always_busy() -> Result<()> {
    check("busy", Lie::Busy).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_sends_a_few_bytes_a_second() -> Result<()> {
    check("trickle", Lie::Trickle).await.map(drop)
}

// === Other bytes come ===

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_sends_wrong_bytes_is_named() -> Result<()> {
    let (_lab, fleet) = check("wrong-bytes", Lie::WrongBytes).await?;
    for sidecar in &fleet.sidecars {
        let log = sidecar.process.log()?;
        let told = log.lines().any(|it| it.contains("sent wrong bytes") && it.contains("\"liar\""));
        ensure!(told, "the log of {} does not tell who sent wrong bytes", sidecar.host.name());
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_sends_too_few_bytes() -> Result<()> {
    check("too-few", Lie::TooFew).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_sends_bytes_without_end() -> Result<()> {
    check("too-many", Lie::TooMany).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_sends_every_byte_by_itself() -> Result<()> {
    check("crumbs", Lie::Crumbs).await.map(drop)
}

// === Other news come ===

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_brings_no_gateways_word() -> Result<()> {
    check("unattested", Lie::Unattested).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_forges_a_gateways_word() -> Result<()> {
    check("forged", Lie::Forged).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_offers_pieces_beyond_the_end() -> Result<()> {
    check("beyond-the-end", Lie::Offers(vec![0..MAX_PIECES as u32])).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_offers_what_no_blob_has() -> Result<()> {
    check("no-such-piece", Lie::Offers(vec![7..u32::MAX])).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_does_not_speak_grpc() -> Result<()> {
    check("garbage", Lie::Garbage).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_news_are_too_long() -> Result<()> {
    check("swollen", Lie::Swollen).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_news_do_not_end() -> Result<()> {
    check("flood", Lie::Flood).await.map(drop)
}

// === The scheduler is lied to ===

/// What a scheduler may take in all, of which it has about 12 MiB before.
const SCHEDULERS_MEMORY: ByteSize = ByteSize(64 << 20);
/// Each of as many pieces as a blob can have: a few megabytes to whoever believed it.
const MADE_UP: u32 = 256;

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_tells_the_scheduler_of_blobs_that_there_are_not() -> Result<()> {
    let (mut lab, fleet, image) = slow_fleet("made-up", FleetSpec::private(), 1, 0).await?;
    let member = Member::new(&fleet, &lab.host("boaster").await?, "boaster")?;
    let geometry = Geometry::stated(MAX_PIECES, 1).context("no blob could be so large")?;
    let made_up = |number: u32| {
        let mut sha256 = [0; 32];
        sha256[..4].copy_from_slice(&number.to_be_bytes());
        let group = TrustGroup::new(fleet.registry.authority());
        let key = BlobKey { group, digest: Digest::from_sha256(sha256) };
        BlobProgress { key, geometry, dropped: false, gained: vec![0..1, 2..3] }
    };
    let hello = NodeMessage::Hello(Hello { node: member.node(), protocol: PROTOCOL });
    let lies: Vec<_> = (0..MADE_UP).map(|it| NodeMessage::Progress(vec![made_up(it)])).collect();
    let messages = stream::iter([hello].into_iter().chain(lies)).chain(stream::pending());
    let mut scheduler = SchedulerClient::new(member.channel(member.scheduler).await?);
    let _joined = scheduler.join(messages).await?;
    wait::until("all is heard", DEADLINE, async || {
        let heard = fleet.scheduler.metric("shoal_scheduler_messages_total", &[]).await;
        heard.is_ok_and(|it| it >= f64::from(MADE_UP)).then_some(())
    })
    .await?;
    fleet.read(0, &image, &image.layers[0], &[]).await?.finish_with(&image.layers[0]).await?;
    let memory = fleet.scheduler.process.peak_memory()?;
    ensure!(memory <= SCHEDULERS_MEMORY, "the scheduler took {memory}");
    Ok(())
}
