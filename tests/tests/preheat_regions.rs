//! Several regions before one registry: by way of the hub it is read once for all, and each link carries each byte once.
//!
//! Every region is whole, of a gateway, a scheduler and three nodes. But for the last tests the hub alone has the
//! registry's credentials, so that nobody reads it behind the hub's back.

use std::collections::VecDeque;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use http::{Method, StatusCode};
use serde_json::{Value, json};
use shoal_tests::counting::Seen;
use shoal_tests::fault::Effect;
use shoal_tests::image::Image;
use shoal_tests::lab::{Lab, LabSpec};
use shoal_tests::link::Mbit;
use shoal_tests::private::{ALICE, BOB, NOBODY};
use shoal_tests::raw::Exchange;
use shoal_tests::regions::{Region, Regions, RegionsSpec};
use shoal_tests::registry::RegistrySpec;
use shoal_tests::runtime::MIRROR;
use shoal_tests::runtime::containerd::Containerd;
use shoal_tests::shoal::Service;
use shoal_tests::wait;
use tokio::time::{Instant, interval};

const DEADLINE: Duration = Duration::from_secs(30);
const REGIONS: usize = 3;
const NODES: usize = 9;

/// Bytes of blobs that a gateway read, from the registry or the hub.
const READ: &str = "shoal_gateway_back_to_source_bytes_total";
/// Bytes of blobs that the hub sent to regions.
const SENT: &str = "shoal_gateway_regions_sent_bytes_total";

/// A registry whose credentials the gateway that reads it has, and no node.
fn private() -> RegistrySpec {
    RegistrySpec::plain().for_user("robot", "s3cret").unknown_to_nodes()
}

/// What came over a region's link so far, with all headers.
async fn received(region: &Region) -> Result<u64> {
    Ok(region.gateway.host.traffic().await?.received)
}

#[tokio::test(flavor = "multi_thread")]
async fn by_way_of_a_hub_the_registry_is_read_once_and_each_link_carries_one_copy() -> Result<()> {
    let mut lab = Lab::start("hub-one-copy", LabSpec::nodes(NODES as u16).with_jumbo_frames()).await?;
    let regions = Regions::start(&mut lab, RegionsSpec::behind_hub(private(), REGIONS)).await?;
    let image = regions.publish(&[8 << 20, 3 << 20, 1 << 10]).await?;
    let before = try_join_all(regions.all.iter().map(received)).await?;
    regions.read_everywhere(&image).await?;

    let size = image.n_bytes();
    assert_eq!(regions.registry.front.blob_bytes_sent(), size);
    assert_eq!(regions.hub()?.metric(SENT, &[]).await? as u64, size * REGIONS as u64);
    for (region, before) in regions.all.iter().zip(before) {
        assert_eq!(region.gateway.metric(READ, &[]).await? as u64, size);
        let link = received(region).await? - before;
        println!("{link} bytes over the link for {size}");
        assert!(link < size * 5 / 4, "{link} bytes for {size}");
    }
    // A runtime gets the image as well, whatever region it is in.
    for region in &regions.all {
        let containerd = Containerd::start(&region.sidecars[0].host).await?;
        containerd.go_through(&regions.registry, MIRROR)?;
        containerd.pull(&regions.registry, &image).await?;
        containerd.check(&regions.registry, &image).await?;
    }
    assert_eq!(regions.registry.front.blob_bytes_sent(), size);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_hub_each_region_reads_the_registry() -> Result<()> {
    let mut lab = Lab::start("no-hub", LabSpec::nodes(NODES as u16)).await?;
    let regions = Regions::start(&mut lab, RegionsSpec::apart(private(), REGIONS)).await?;
    let image = regions.publish(&[8 << 20, 3 << 20]).await?;
    regions.read_everywhere(&image).await?;
    assert_eq!(regions.registry.front.blob_bytes_sent(), image.n_bytes() * REGIONS as u64);
    Ok(())
}

// === The link ===

/// Bytes per second that a link is to carry.
const RATE: u64 = 2 << 20;
/// Over how long that is looked at.
const WINDOW: Duration = Duration::from_secs(5);
/// How many blobs a gateway reads at once.
const AT_ONCE: u64 = 4;
/// The most bytes of content that a link is to carry in a window: a twentieth more than its rate, and what was paid for
/// before. A hub that stood still, as it does where processors are short, sends that late.
const MOST: u64 = RATE * WINDOW.as_secs() * 21 / 20 + AT_ONCE * (128 << 10);
/// How many times content packets, TLS and HTTP/2 make of it, with the long packets of this lab.
const HEADERS: f64 = 1.015;

/// A link's counter, and between which moments it was read.
struct Reading {
    from: Instant,
    to: Instant,
    bytes: u64,
}

/// The most bytes per second that a link received over any window, until `done`.
///
/// A window ends no earlier than its last reading did, so that a machine too busy to look in time is not taken for a
/// link that is too fast.
async fn highest_rate(region: &Region, done: impl Future<Output = Result<()>>) -> Result<f64> {
    let (mut readings, mut highest) = (VecDeque::<Reading>::new(), 0.0_f64);
    let mut looks = interval(Duration::from_millis(100));
    let mut done = std::pin::pin!(done);
    loop {
        tokio::select! {
            res = &mut done => break res?,
            _ = looks.tick() => {
                let from = Instant::now();
                let bytes = received(region).await?;
                let last = Reading { from, to: Instant::now(), bytes };
                while readings.get(1).is_some_and(|it| last.to.duration_since(it.from) >= WINDOW) {
                    readings.pop_front();
                }
                if let Some(first) = readings.front() {
                    let took = last.to.duration_since(first.from);
                    if took >= WINDOW {
                        highest = highest.max((last.bytes - first.bytes) as f64 / took.as_secs_f64());
                    }
                }
                readings.push_back(last);
            }
        }
    }
    ensure!(highest > 0.0, "all was over within {WINDOW:?}");
    Ok(highest)
}

#[tokio::test(flavor = "multi_thread")]
async fn no_link_carries_more_than_its_rate() -> Result<()> {
    let mut lab = Lab::start("link-rate", LabSpec::nodes(4).with_jumbo_frames()).await?;
    let limit = json!({ "limits": { "bytesPerSecond": format!("{RATE}/s"), "concurrentBlobs": AT_ONCE } });
    let spec = RegionsSpec::behind_hub(private(), 2).with_regional(limit);
    let regions = Regions::start(&mut lab, spec).await?;
    // Many at once, which must not add up.
    let image = regions.publish(&[2 << 20; 10]).await?;
    let pull = regions.read_everywhere(&image);
    let highest = highest_rate(&regions.all[0], pull).await?;
    let allowed = MOST as f64 / WINDOW.as_secs_f64() * HEADERS;
    println!("at most {highest:.0} bytes/s over {WINDOW:?}, allowed are {allowed:.0}");
    assert!(highest <= allowed, "{highest:.0} bytes/s over {WINDOW:?}, allowed are {allowed:.0}");
    assert_eq!(regions.registry.front.blob_bytes_sent(), image.n_bytes());
    Ok(())
}

/// Regions behind a hub whose link to the registry is slow, and an image that is read for seconds.
async fn slow_regions(name: &str) -> Result<(Lab, Regions, Image)> {
    let mut lab = Lab::start(name, LabSpec::nodes(6)).await?;
    let regions = Regions::start(&mut lab, RegionsSpec::behind_hub(private(), 2)).await?;
    let image = regions.publish(&[24 << 20]).await?;
    regions.resolve(&image).await?;
    regions.registry.host.shape(Mbit(24), Mbit(24)).await?;
    Ok((lab, regions, image))
}

/// Fails unless the registry has given so many bytes in all, and each link has carried them once.
async fn check_read_once(regions: &Regions, size: u64) -> Result<()> {
    let seen = regions.registry.front.seen().into_iter();
    let given = seen.filter(|it| it.is_blob_read() && matches!(it.status, 200 | 206)).map(|it| it.sent);
    assert_eq!(given.sum::<u64>(), size);
    for region in &regions.all {
        let read = region.gateway.metric(READ, &[]).await? as u64;
        println!("{read} bytes over the link for {size}");
        // What was on its way when the link was cut may come again.
        assert!((size..=size + (1 << 20)).contains(&read), "{read} bytes for {size}");
    }
    Ok(())
}

async fn begin(regions: &Regions, image: &Image) -> Result<Vec<Exchange>> {
    try_join_all(regions.sidecars().map(|it| regions.read(it, image, &image.layers[0], &[]))).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_is_cut_in_the_middle_and_comes_back_carries_nothing_twice() -> Result<()> {
    let (_lab, regions, image) = slow_regions("link-cut").await?;
    let mut pulls = begin(&regions, &image).await?;
    try_join_all(pulls.iter_mut().map(|it| it.read_to(6 << 20))).await?;
    let (hub, cut) = (&regions.hub()?.host, &regions.all[0].gateway);
    let n_missed =
        |gateway: &Service| Ok::<_, anyhow::Error>(gateway.process.log()?.matches("\"no hub\"").count());
    let before = n_missed(cut)?;
    cut.host.ignore(std::slice::from_ref(hub)).await?;
    hub.ignore(std::slice::from_ref(&cut.host)).await?;
    let began = Instant::now();
    wait::until("the region misses the hub", DEADLINE, async || (n_missed(cut).ok()? > before).then_some(()))
        .await?;
    println!("cut for {:?}", began.elapsed());
    cut.host.listen_to_all().await?;
    hub.listen_to_all().await?;

    let layer = &image.layers[0];
    let ended = try_join_all(pulls.into_iter().map(Exchange::finish)).await?;
    // Those in the region that was cut off may have been told to come again, as runtimes do.
    for (sidecar, ended) in regions.sidecars().zip(ended) {
        let (mut body, mut n_tries) = (ended.body, 0);
        while body.len() < layer.bytes.len() {
            n_tries += 1;
            ensure!(n_tries < 60, "{} bytes of {}", body.len(), layer.bytes.len());
            let range = format!("Range: bytes={}-", body.len());
            let mut looks = interval(Duration::from_millis(500));
            looks.tick().await;
            looks.tick().await;
            let Ok(again) = regions.read(sidecar, &image, layer, &[&range]).await else { continue };
            if again.status == 206 {
                body.extend(again.finish().await?.body);
            }
        }
        ensure!(body == layer.bytes, "other content");
    }
    let size = layer.bytes.len() as u64;
    // Nodes that were without their gateway's word have asked the registry, which refused them.
    check_read_once(&regions, size).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_region_that_is_cut_off_serves_what_it_holds() -> Result<()> {
    let mut lab = Lab::start("cut-off", LabSpec::nodes(4)).await?;
    let regions = Regions::start(&mut lab, RegionsSpec::behind_hub(private(), 2)).await?;
    let image = regions.publish(&[3 << 20, 1 << 20]).await?;
    regions.resolve(&image).await?;
    let region = &regions.all[0];
    for blob in image.blobs() {
        regions.read(&region.sidecars[0], &image, blob, &[]).await?.finish_with(blob).await?;
    }
    let hub = regions.hub()?.host.clone();
    region.gateway.host.ignore(&[hub]).await?;
    for sidecar in &region.sidecars {
        for blob in image.blobs() {
            regions.read(sidecar, &image, blob, &[]).await?.finish_with(blob).await?;
        }
    }
    assert_eq!(regions.registry.front.blob_bytes_sent(), image.n_bytes());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_that_waits_on_purpose_is_no_registry_that_is_dead() -> Result<()> {
    let mut lab = Lab::start("hub-waits", LabSpec::nodes(4)).await?;
    // One blob at a time, each for some seconds: those that wait in the hub's line wait for longer than nodes do for
    // somebody who is silent.
    let limits = json!({ "limits": { "bytesPerSecond": "1Mi/s", "concurrentBlobs": 1 } });
    let spec = RegionsSpec::behind_hub(private(), 2).with_hub(limits);
    let regions = Regions::start(&mut lab, spec).await?;
    let image = regions.publish(&[5 << 20; 3]).await?;
    regions.read_everywhere(&image).await?;
    assert_eq!(regions.registry.front.blob_bytes_sent(), image.n_bytes());
    // A node that had gone there by itself would have been refused.
    let reads: Vec<_> = regions.registry.front.seen().into_iter().filter(Seen::is_blob_read).collect();
    ensure!(reads.iter().all(|it| matches!(it.status, 200 | 206)), "{reads:?}");
    Ok(())
}

// === Preheating ===

/// Bytes that sidecars fetched, and blobs that they are fetching.
const DOWNLOADED: &str = "shoal_sidecar_download_bytes_total";
const ACTIVE: &str = "shoal_sidecar_active_blobs";

/// A job for all nodes of these regions.
fn everywhere(regions: &Regions, image: &Image, names: &[&str]) -> Value {
    json!({ "image": regions.registry.reference(image), "scope": "all_peers", "regions": names })
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_hub_has_preheated_is_pulled_in_each_region_without_a_blob_from_hub_or_registry()
-> Result<()> {
    let mut lab = Lab::start("hub-preheat", LabSpec::nodes(2 * REGIONS as u16)).await?;
    let regions = Regions::start(&mut lab, RegionsSpec::behind_hub(private(), REGIONS)).await?;
    let (hub, image) = (regions.hub()?, regions.publish(&[6 << 20, 3 << 20, 1 << 10]).await?);
    let job = hub.ended_job(hub.preheat(&everywhere(&regions, &image, &["*"])).await?).await?;
    assert_eq!((&job["state"], &job["errors"]), (&json!("SUCCESS"), &json!([])), "{job:#}");
    let parts = job["regions"].as_array().context("no regions")?;
    assert_eq!(parts.len(), REGIONS, "{job:#}");
    let (n_blobs, size) = (image.blobs().count(), image.n_bytes());
    for part in parts {
        assert_eq!(
            (&part["state"], &part["progress"]["nodesDone"]),
            (&json!("SUCCESS"), &json!(2)),
            "{job:#}"
        );
        assert_eq!(part["progress"]["bytesHeld"], 2 * size, "{job:#}");
        assert_eq!(part["success"].as_array().map(Vec::len), Some(2 * n_blobs), "{job:#}");
    }
    assert_eq!(regions.registry.front.blob_bytes_sent(), size);
    let sent = async || hub.metric(SENT, &[]).await.map(|it| it as u64);
    assert_eq!(sent().await?, size * REGIONS as u64);

    // From here on a blob is only where the job has put it.
    regions.registry.front.hurt("/blobs/", u32::MAX, Effect::Status { code: 503, retry_after: None });
    let before = regions.of_sidecars(DOWNLOADED).await?;
    for sidecar in regions.sidecars() {
        let containerd = Containerd::start(&sidecar.host).await?;
        containerd.go_through(&regions.registry, MIRROR)?;
        containerd.pull(&regions.registry, &image).await?;
        containerd.check(&regions.registry, &image).await?;
    }
    assert_eq!(sent().await?, size * REGIONS as u64);
    let more = regions.of_sidecars(DOWNLOADED).await? - before;
    assert!(more < 1.0, "nodes have fetched {more} bytes for the pulls");
    Ok(())
}

/// Regions behind a hub whose link to the registry is slow, and a job for both that is under way in the first.
async fn job_under_way(name: &str) -> Result<(Lab, Regions, Image, u64)> {
    let mut lab = Lab::start(name, LabSpec::nodes(4)).await?;
    let regions = Regions::start(&mut lab, RegionsSpec::behind_hub(private(), 2)).await?;
    let image = regions.publish(&[16 << 20]).await?;
    regions.registry.host.shape(Mbit(8), Mbit(8)).await?;
    let hub = regions.hub()?;
    let id = hub.preheat(&everywhere(&regions, &image, &["region-0", "region-1"])).await?;
    let some = |it: &Value| it["regions"][0]["progress"]["bytesHeld"].as_u64().is_some_and(|it| it > 2 << 20);
    let job = hub.job_when(id, |it| some(it) || it["state"] != "PENDING").await?;
    ensure!(job["state"] == "PENDING", "it is over already: {job:#}");
    Ok((lab, regions, image, id))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_region_that_is_cut_off_in_the_middle_of_a_job_has_done_its_part_when_it_is_back() -> Result<()> {
    let (_lab, regions, image, id) = job_under_way("preheat-cut").await?;
    let (hub, cut) = (regions.hub()?, &regions.all[0].gateway.host);
    cut.ignore(std::slice::from_ref(&hub.host)).await?;
    hub.host.ignore(std::slice::from_ref(cut)).await?;
    let job =
        hub.job_when(id, |it| it["regions"][0]["doing"] == "cut off" || it["state"] != "PENDING").await?;
    ensure!(job["state"] == "PENDING", "it did not wait: {job:#}");
    // The other one is not held up.
    hub.job_when(id, |it| it["regions"][1]["state"] == "SUCCESS").await?;
    cut.listen_to_all().await?;
    hub.host.listen_to_all().await?;

    let job = hub.ended_job(id).await?;
    assert_eq!((&job["state"], &job["errors"]), (&json!("SUCCESS"), &json!([])), "{job:#}");
    for part in job["regions"].as_array().context("no regions")? {
        assert_eq!(
            (&part["state"], &part["progress"]["nodesDone"]),
            (&json!("SUCCESS"), &json!(2)),
            "{job:#}"
        );
    }
    let size = image.n_bytes();
    check_read_once(&regions, size).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_is_cancelled_at_the_hub_ends_in_its_regions() -> Result<()> {
    let (_lab, regions, image, id) = job_under_way("preheat-stopped").await?;
    let hub = regions.hub()?;
    let (status, _) = hub.call_preheat(Method::DELETE, &format!("/{id}"), String::new()).await?;
    assert_eq!(status, StatusCode::OK);
    let job = hub.ended_job(id).await?;
    assert_eq!(
        (&job["state"], &job["errors"][0]),
        (&json!("FAILURE"), &json!("cancelled by first")),
        "{job:#}"
    );
    wait::until("no node fetches anything", DEADLINE, async || {
        regions.of_sidecars(ACTIVE).await.is_ok_and(|it| it < 0.5).then_some(())
    })
    .await?;
    let (fetched, whole) = (regions.of_sidecars(DOWNLOADED).await?, 4 * image.n_bytes());
    assert!(fetched < whole as f64, "the nodes have fetched all {whole} bytes");
    Ok(())
}

// === Who may read what ===

#[tokio::test(flavor = "multi_thread")]
async fn whoever_the_registry_refuses_gets_nothing_from_hub_or_region_though_both_hold_it() -> Result<()> {
    for (name, registry) in
        [("hub-passwords", RegistrySpec::plain()), ("hub-tokens", RegistrySpec::plain().with_tokens())]
    {
        let registry =
            registry.for_user("robot", "r0b0t").with_reader("alice", "al1ce").with_reader("bob", "b0b");
        let mut lab = Lab::start(name, LabSpec::nodes(4)).await?;
        let regions = Regions::start(&mut lab, RegionsSpec::behind_hub(registry, 2)).await?;
        let image = regions.publish(&[3 << 20]).await?;
        regions.registry.rights()?.grant(ALICE, &image.repository);
        let pull = async |user: Option<&str>, region: usize| {
            let containerd = Containerd::start(&regions.all[region].sidecars[1].host).await?;
            containerd.go_through(&regions.registry, MIRROR)?;
            containerd.pull_as(user, &regions.registry, &image).await
        };
        let read = async |user: Option<&str>, sidecar| {
            let header = regions.registry.authorization(user, &image.repository)?;
            let header = header.map(|it| format!("Authorization: {it}"));
            let headers: Vec<&str> = header.as_deref().into_iter().collect();
            regions.read(sidecar, &image, &image.layers[0], &headers).await
        };
        pull(ALICE, 0).await.context("Alice")?;
        assert_eq!(regions.registry.front.blob_bytes_sent(), image.n_bytes());
        for user in [BOB, NOBODY] {
            for sidecar in regions.sidecars() {
                let status = read(user, sidecar).await?.status;
                assert!([401, 403].contains(&status), "{name}, {user:?}: {status}");
            }
        }
        let held =
            async |region: usize| regions.all[region].gateway.metric(READ, &[]).await.map(|it| it as u64);
        assert_eq!((held(0).await?, held(1).await?), (image.n_bytes(), 0), "nothing came for those");
        // The other region gets it for somebody who may.
        read(ALICE, &regions.all[1].sidecars[0]).await?.finish_with(&image.layers[0]).await?;
        assert_eq!(regions.registry.front.blob_bytes_sent(), image.n_bytes());
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn in_gateway_mode_a_region_reads_what_the_hub_lists_whatever_it_lists_itself() -> Result<()> {
    let mut lab = Lab::start("hub-lists", LabSpec::nodes(2)).await?;
    let listed = json!({ "credentials": { "repositories": ["other/*"] } });
    let regions = Regions::start(&mut lab, RegionsSpec::behind_hub(private(), 1).with_hub(listed)).await?;
    let image = regions.publish(&[1 << 20]).await?;
    let layer = &image.layers[0];
    let refused = regions.read(&regions.all[0].sidecars[0], &image, layer, &[]).await?;
    assert_eq!(refused.status, 403);
    assert_eq!(regions.registry.front.blob_bytes_sent(), 0);
    Ok(())
}
