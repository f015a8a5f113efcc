//! More clients than a node was made for, and such as hold what they get: those that are honest are served, and memory
//! and descriptors stay within bounds.
//!
//! The clients are this process's, on the machines of a lab. What a service may take was measured, and stands beside
//! the measured value.

use std::ops::Range;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use futures_util::future::try_join_all;
use futures_util::stream::{self, FuturesUnordered, StreamExt, TryStreamExt};
use http_body_util::Empty;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use shoal_model::ByteSize;
use shoal_proto::OpenedBlob;
use shoal_tests::crowd::{Flood, raise_open_files};
use shoal_tests::fleet::{Fleet, FleetSpec};
use shoal_tests::image::{Image, ImageSpec};
use shoal_tests::lab::{Lab, LabSpec};
use shoal_tests::link::Mbit;
use shoal_tests::member::{Member, peer_port, piece_request};
use shoal_tests::process::Process;
use shoal_tests::raw::{Exchange, MIRROR};
use shoal_tests::shoal::Service;
use shoal_tests::wait;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::interval;
use tokio_rustls::client::TlsStream;
use tokio_util::task::AbortOnDropHandle;

const DEADLINE: Duration = Duration::from_secs(60);
/// A client that takes in this many bytes before it is read leaves the rest to the server.
const NARROW: u32 = 8 << 10;

/// What a client may cost a service, whatever it does: 28 KiB were measured.
const MEMORY_OF_CLIENT: u64 = 32 << 10;
/// What clients may cost together besides: 17 MiB were measured.
const MEMORY: u64 = 32 << 20;
/// What a process keeps open for itself: files of blobs, and connections to others, which stay for a minute.
const OWN_FILES: usize = 16;

/// What a process has before a test.
struct Before<'a> {
    process: &'a Process,
    memory: ByteSize,
    n_files: usize,
}

impl<'a> Before<'a> {
    fn of(process: &'a Process) -> Result<Self> {
        Ok(Self { process, memory: process.resident_memory()?, n_files: process.n_open_files()? })
    }

    /// Fails where so many clients have cost more than they may. Then waits until no descriptor is left of them.
    async fn check(&self, n_clients: usize) -> Result<()> {
        let grown = self.process.peak_memory()?.0.saturating_sub(self.memory.0);
        let allowed = MEMORY + n_clients as u64 * MEMORY_OF_CLIENT;
        ensure!(grown <= allowed, "took {} more, allowed are {}", ByteSize(grown), ByteSize(allowed));
        let n_files = || self.process.n_open_files();
        wait::until("descriptors given back", DEADLINE, async || {
            n_files().is_ok_and(|it| it <= self.n_files + OWN_FILES).then_some(())
        })
        .await
        .with_context(|| format!("{} open before, {:?} after", self.n_files, n_files()))
    }
}

/// A fleet, and an image of one layer.
async fn fleet(name: &str, nodes: u16, layer: usize) -> Result<(Lab, Fleet, Image)> {
    raise_open_files()?;
    let mut lab = Lab::start(name, LabSpec::nodes(nodes)).await?;
    let fleet = Fleet::start(&mut lab, FleetSpec::private()).await?;
    let image = fleet.publish(&[layer]).await?;
    Ok((lab, fleet, image))
}

/// Has a node hold a layer.
async fn cache(fleet: &Fleet, node: usize, image: &Image) -> Result<()> {
    fleet.read(node, image, &image.layers[0], &[]).await?.finish_with(&image.layers[0]).await
}

// === Many clients ===

const CLIENTS: usize = 2000;

/// Has two thousand clients read parts of a layer at the same time: each has its headers before any reads on.
async fn read_by_many(fleet: &Fleet, image: &Image, part: impl Fn(usize) -> Range<usize>) -> Result<()> {
    let (layer, target) = (&image.layers[0], fleet.blob_target(image, &image.layers[0])?);
    let streams = fleet.sidecars[0].host.connect_many(MIRROR, CLIENTS, None).await?;
    let asking = stream::iter(streams.into_iter().enumerate()).map(async |(number, stream)| {
        let part = part(number);
        let range = format!("Range: bytes={}-{}", part.start, part.end - 1);
        anyhow::Ok((Exchange::over(stream, "GET", &target, &[&range]).await?, part))
    });
    let open: Vec<_> = asking.buffer_unordered(64).try_collect().await?;
    let reading = open.into_iter().map(|(exchange, part)| exchange.compare_with(&layer.bytes[part]));
    try_join_all(reading).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_clients_read_what_is_cached() -> Result<()> {
    const LAYER: usize = 2 << 20;
    let (_lab, fleet, image) = fleet("many-cached", 1, LAYER).await?;
    cache(&fleet, 0, &image).await?;
    let before = Before::of(&fleet.sidecars[0].process)?;
    let len = image.layers[0].bytes.len();
    read_by_many(&fleet, &image, |number| number % 1000 * (len / 2000)..len).await?;
    before.check(CLIENTS).await
}

#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_clients_wait_for_what_is_fetched_once() -> Result<()> {
    const LAYER: usize = 16 << 20;
    const PART: usize = 512 << 10;
    let (lab, fleet, image) = fleet("many-cold", 1, LAYER).await?;
    lab.nodes()[0].shape(Mbit(40), Mbit(40)).await?;
    let before = Before::of(&fleet.sidecars[0].process)?;
    let layer = &image.layers[0];
    let first_of = |number: usize| number * 7919 % (layer.bytes.len() - PART);
    read_by_many(&fleet, &image, |number| first_of(number)..first_of(number) + PART).await?;
    let sent = fleet.registry.front.blob_bytes_sent();
    ensure!(sent == layer.bytes.len() as u64, "the registry sent {sent} bytes");
    before.check(CLIENTS).await
}

// === Slow readers ===

#[tokio::test(flavor = "multi_thread")]
async fn slow_readers_hold_up_nobody() -> Result<()> {
    const SLOW: usize = 600;
    const LAYER: usize = 8 << 20;
    let (_lab, fleet, image) = fleet("slow-readers", 1, LAYER).await?;
    cache(&fleet, 0, &image).await?;
    let other = Image::build(&ImageSpec { seed: 2, ..ImageSpec::new("team/other", LAYER) })?;
    fleet.registry.push(&other).await?;
    let (node, target) = (&fleet.sidecars[0], fleet.blob_target(&image, &image.layers[0])?);
    let before = Before::of(&node.process)?;
    let mut slow = JoinSet::new();
    for (number, stream) in node.host.connect_many(MIRROR, SLOW, Some(NARROW)).await?.into_iter().enumerate()
    {
        let mut exchange = Exchange::over(stream, "GET", &target, &[]).await?;
        slow.spawn(async move {
            let mut ticks = interval(Duration::from_millis(500));
            let mut n_bytes = 0;
            // One half takes a few bytes a second, the other none at all.
            while exchange.read_to(n_bytes).await.is_ok() {
                ticks.tick().await;
                n_bytes += number % 2;
            }
        });
    }
    cache(&fleet, 0, &image).await.context("what is cached")?;
    cache(&fleet, 0, &other).await.context("what is not")?;
    drop(slow);
    before.check(SLOW).await
}

/// Over HTTP/2 a client chooses how much it takes of each of many responses on one connection.
#[tokio::test(flavor = "multi_thread")]
async fn readers_that_grant_next_to_no_window_cost_little() -> Result<()> {
    const CONNECTIONS: usize = 16;
    const STREAMS: usize = 256;
    let (_lab, fleet, image) = fleet("no-window", 1, 8 << 20).await?;
    cache(&fleet, 0, &image).await?;
    let (node, target) = (&fleet.sidecars[0], fleet.blob_target(&image, &image.layers[0])?);
    let before = Before::of(&node.process)?;
    let mut kept = Vec::new();
    for stream in node.host.connect_many(MIRROR, CONNECTIONS, None).await? {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder.initial_stream_window_size(1).initial_connection_window_size(1 << 30);
        let (sender, connection) = builder.handshake(TokioIo::new(stream)).await?;
        let driven = AbortOnDropHandle::new(tokio::spawn(connection));
        let ask = || {
            let request = http::Request::get(format!("http://mirror{target}"));
            anyhow::Ok(sender.clone().send_request(request.body(Empty::<Bytes>::new())?))
        };
        let asks = (0..STREAMS).map(|_| ask()).collect::<Result<FuturesUnordered<_>>>()?;
        // Those beyond what the node allows are refused, or wait.
        let mut answers = asks.filter_map(async |it| it.ok()).boxed();
        let first = answers.next().await.context("no answer")?;
        ensure!(first.status() == 200, "{}", first.status());
        kept.push((first, answers, driven));
    }
    cache(&fleet, 0, &image).await?;
    drop(kept);
    before.check(CONNECTIONS).await
}

/// Asks a node for a whole blob over so many connections, and returns those that were given an upload slot. The
/// others are kept as well.
async fn take_slots(
    slow: &Member,
    of: &Service,
    blob: &OpenedBlob,
    n_asks: usize,
) -> Result<[Vec<TlsStream<TcpStream>>; 2]> {
    let request = piece_request(blob, blob.geometry.size()).body(())?;
    let mut head = format!("GET {} HTTP/1.1\r\n", request.uri().path());
    for (name, value) in request.headers() {
        head += &format!("{name}: {}\r\n", value.to_str()?);
    }
    head += "\r\n";
    let (mut given, mut refused) = (Vec::new(), Vec::new());
    for stream in slow.host.connect_many(peer_port(of), n_asks, Some(NARROW)).await? {
        let mut stream = slow.secure(stream).await?;
        stream.write_all(head.as_bytes()).await?;
        let mut status = [0; 12];
        stream.read_exact(&mut status).await?;
        match &status {
            b"HTTP/1.1 206" => given.push(stream),
            b"HTTP/1.1 503" => refused.push(stream),
            other => bail!("{}", String::from_utf8_lossy(other)),
        }
    }
    Ok([given, refused])
}

/// One node asks for more than another can send at once, and takes hardly anything.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_does_not_read_leaves_slots_to_others_and_loses_its_own() -> Result<()> {
    let (mut lab, fleet, image) = fleet("slots", 1, 24 << 20).await?;
    cache(&fleet, 0, &image).await?;
    let (node, layer) = (&fleet.sidecars[0], &image.layers[0]);
    let host = lab.host("others").await?;
    let (slow, honest) = (Member::new(&fleet, &host, "slow")?, Member::new(&fleet, &host, "honest")?);
    let [given, refused] = take_slots(&slow, node, &slow.open(&image, layer).await?, 16).await?;
    ensure!(!given.is_empty() && !refused.is_empty(), "{} slots, {} refused", given.len(), refused.len());
    let served = honest.ask(node, &honest.open(&image, layer).await?, 1000).await?;
    ensure!(served.status() == 206 && served.body() == &layer.bytes[..1000], "{}", served.status());

    let mut readers = JoinSet::new();
    for (number, mut stream) in given.into_iter().enumerate() {
        readers.spawn(async move {
            let mut ticks = interval(Duration::from_millis(500));
            // One half takes less than counts as progress, the other nothing.
            while number % 2 > 0 || matches!(stream.read(&mut [0; 256]).await, Ok(1..)) {
                ticks.tick().await;
            }
        });
    }
    let n_left = refused.len() as f64;
    wait::until("the slow ones are cut", DEADLINE, async || {
        let open = node.metric("shoal_connections", &[("listener", "peers")]).await;
        open.is_ok_and(|it| it <= n_left).then_some(())
    })
    .await
}

// === Connections that rest ===

/// More connections than a sidecar's listener takes, but not more than the kernel keeps for it.
const TOO_MANY: usize = 4096 + 64;

/// What clients do with a connection before they leave it at that.
const RESTING: [(&str, &[u8]); 4] = [
    ("nothing sent", b""),
    ("half a head", b"GET /v2/ HTTP/1.1\r\nhost: mir"),
    ("a request, and no other", b"GET /healthy HTTP/1.1\r\nhost: mirror\r\n\r\n"),
    ("half a preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n"),
];

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_rest_give_way_at_the_mirror() -> Result<()> {
    let (_lab, fleet, image) = fleet("half-open", 1, 3 << 20).await?;
    cache(&fleet, 0, &image).await?;
    let node = &fleet.sidecars[0];
    let before = Before::of(&node.process)?;
    for (what, sent) in RESTING {
        let mut resting = node.host.connect_many(MIRROR, TOO_MANY, None).await.context(what)?;
        for stream in &mut resting {
            // Some have had to give way by now.
            let _cut = stream.write_all(sent).await;
        }
        cache(&fleet, 0, &image).await.context(what)?;
    }
    ensure!(n_cut(node, "mirror").await? > 0.0, "none gave way");
    before.check(TOO_MANY).await
}

/// How many connections have given way at a listener.
async fn n_cut(of: &Service, listener: &str) -> Result<f64> {
    of.metric("shoal_connections_cut_total", &[("listener", listener)]).await
}

/// A process of the node asks for as many blobs as the mirror has connections, and takes none of them.
#[tokio::test(flavor = "multi_thread")]
async fn readers_that_stand_still_give_way_at_the_mirror() -> Result<()> {
    let (_lab, fleet, image) = fleet("all-stalled", 1, 8 << 20).await?;
    cache(&fleet, 0, &image).await?;
    let (node, target) = (&fleet.sidecars[0], fleet.blob_target(&image, &image.layers[0])?);
    let before = Before::of(&node.process)?;
    let head = format!("GET {target} HTTP/1.1\r\nhost: mirror\r\n\r\n");
    let mut stalled = node.host.connect_many(MIRROR, TOO_MANY, Some(NARROW)).await?;
    for stream in &mut stalled {
        let _cut = stream.write_all(head.as_bytes()).await;
    }
    cache(&fleet, 0, &image).await?;
    drop(stalled);
    before.check(TOO_MANY).await
}

#[tokio::test(flavor = "multi_thread")]
async fn handshakes_that_are_not_finished_give_way_at_the_peer_port() -> Result<()> {
    /// A record that announces more of a handshake than follows.
    const HALF: &[u8] = &[22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3];
    let (mut lab, fleet, image) = fleet("half-shaken", 1, 3 << 20).await?;
    cache(&fleet, 0, &image).await?;
    let (node, layer) = (&fleet.sidecars[0], &image.layers[0]);
    let host = lab.host("others").await?;
    let honest = Member::new(&fleet, &host, "honest")?;
    let blob = honest.open(&image, layer).await?;
    let before = Before::of(&node.process)?;
    for sent in [&b""[..], HALF] {
        let mut resting = host.connect_many(peer_port(node), TOO_MANY, None).await?;
        for stream in &mut resting {
            let _cut = stream.write_all(sent).await;
        }
        let served = honest.ask(node, &blob, 1000).await?;
        ensure!(served.status() == 206 && served.body() == &layer.bytes[..1000], "{}", served.status());
    }
    ensure!(n_cut(node, "peers").await? > 0.0, "none gave way");
    before.check(TOO_MANY).await
}

// === Floods ===

#[tokio::test(flavor = "multi_thread")]
async fn floods_of_connections_keep_nobody_from_pulling() -> Result<()> {
    const LONG: u64 = 5000;
    const HEARD: &str = "shoal_scheduler_messages_total";
    let (mut lab, fleet, image) = fleet("floods", 2, 3 << 20).await?;
    let crowd = lab.host("crowd").await?;
    try_join_all((0..2).map(|node| cache(&fleet, node, &image))).await?;
    let Fleet { gateway, scheduler, sidecars, .. } = &fleet;
    let all = [gateway, scheduler, &sidecars[0]];
    let before = all.iter().map(|it| Before::of(&it.process)).collect::<Result<Vec<_>>>()?;
    let member = Member::new(&fleet, &crowd, "crowd")?;
    let at = [member.gateway, member.scheduler, peer_port(&sidecars[0])].map(|it| crowd.flood(it));
    let floods: Vec<Flood> = at.into_iter().chain([sidecars[0].host.flood(MIRROR)]).collect();
    let heard = scheduler.metric(HEARD, &[]).await?;
    let mut seed = 2;
    while floods.iter().any(|it| it.n_connections() < LONG) {
        let other = Image::build(&ImageSpec { seed, ..ImageSpec::new("team/other", 1 << 20) })?;
        fleet.registry.push(&other).await?;
        try_join_all((0..2).map(|node| cache(&fleet, node, &other)))
            .await
            .with_context(|| format!("pull {seed}"))?;
        seed += 1;
    }
    ensure!(scheduler.metric(HEARD, &[]).await? > heard, "the scheduler heard nothing");
    drop(floods);
    for (service, before) in all.into_iter().zip(before) {
        before.check(0).await.with_context(|| service.host.name().to_owned())?;
    }
    Ok(())
}
