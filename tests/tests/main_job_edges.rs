//! The edges of the mirror and of the settings, on a running sidecar with a fleet behind it.
//!
//! Whatever is asked, the answer comes in time and is the one that the distribution protocol or HTTP
//! gives; nothing that arrives can end the process.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use shoal_tests::command::Launch;
use shoal_tests::fleet::{Fleet, FleetSpec, admin};
use shoal_tests::image::{Image, ImageSpec};
use shoal_tests::lab::{Lab, LabSpec};
use shoal_tests::link::Mbit;
use shoal_tests::raw::Exchange;
use shoal_tests::shoal::Part;
use shoal_tests::wait;

const DEADLINE: Duration = Duration::from_secs(60);
const PARTS: [Part; 3] = [Part::Gateway, Part::Scheduler, Part::Sidecar];
/// Without this, the registry pretends not to have an OCI manifest.
const ACCEPT: &str = "Accept: application/vnd.oci.image.manifest.v1+json";
const UNKNOWN: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000000";

/// A fleet of one node with an image of one layer.
struct Edge {
    _lab: Lab,
    fleet: Fleet,
    image: Image,
}

impl Edge {
    async fn start(name: &str, spec: FleetSpec) -> Result<Self> {
        let mut lab = Lab::start(name, LabSpec::nodes(1)).await?;
        let fleet = Fleet::start(&mut lab, spec).await?;
        let image = fleet.publish(&[3 << 20]).await?;
        Ok(Self { _lab: lab, fleet, image })
    }

    /// Sends a request to the mirror. `{ns}` in `target` stands for the registry as a query value,
    /// `{registry}` for it as it is, `{layer}` for the layer's digest.
    async fn send(&self, method: &str, target: &str, headers: &[&str]) -> Result<Exchange> {
        let registry = self.fleet.registry.authority();
        let target = target
            .replace("{ns}", &registry.replace(':', "%3A"))
            .replace("{registry}", registry)
            .replace("{layer}", &self.image.layers[0].digest.to_string());
        Exchange::send(&self.fleet.sidecars[0].host, method, &target, headers).await
    }

    /// Fails unless the answer is an error of this status and code.
    async fn check_refused(&self, method: &str, target: &str, status: u16, code: &str) -> Result<String> {
        let answer = self.send(method, target, &[]).await?;
        let seen = answer.status;
        let body = answer.finish().await?.body;
        let text = String::from_utf8_lossy(&body);
        ensure!(seen == status, "{method} {target}: {seen} instead of {status}: {text}");
        let body: Value = serde_json::from_slice(&body).with_context(|| format!("{target}: {text:?}"))?;
        ensure!(body["errors"][0]["code"] == code, "{method} {target}: {body} instead of {code}");
        Ok(body["errors"][0]["message"].to_string())
    }

    /// Fails unless every part still runs as it was started, and has not complained of itself.
    async fn check_alive(&self) -> Result<()> {
        let Fleet { gateway, scheduler, sidecars, .. } = &self.fleet;
        for service in [gateway, scheduler].into_iter().chain(sidecars) {
            service.process.pid()?;
            service.metric("shoal_build_info", &[]).await?;
            ensure!(!service.process.log()?.contains("panicked"), "a panic on {}", service.host.name());
        }
        Ok(())
    }
}

// === What is answered ===

#[tokio::test(flavor = "multi_thread")]
async fn ranges_are_answered_as_http_has_it() -> Result<()> {
    let edge = Edge::start("ranges", FleetSpec::private()).await?;
    let layer = edge.image.layers[0].bytes.clone();
    let len = layer.len();
    let path = "/v2/team/app/blobs/{layer}?ns={ns}";
    let last = len - 1;
    let parts = [
        ("bytes=0-0".to_owned(), 0..1),
        ("bytes=1000000-".into(), 1_000_000..len),
        ("bytes=262140-262150".into(), 262_140..262_151),
        (format!("bytes={last}-"), last..len),
        (format!("bytes={last}-{}", len + 5), last..len),
        ("bytes=-7".into(), len - 7..len),
        (format!("bytes=-{}", len + 1), 0..len),
    ];
    for (range, expected) in parts {
        let answer = edge.send("GET", path, &[&format!("Range: {range}")]).await?;
        assert_eq!(answer.status, 206, "{range}");
        let stated = format!("bytes {}-{}/{len}", expected.start, expected.end - 1);
        assert_eq!(answer.header("content-range"), Some(&*stated), "{range}");
        let body = answer.finish().await?.body;
        assert!(body == layer[expected], "{range}: other content");
    }
    for range in [format!("bytes={len}-"), "bytes=-0".into()] {
        let answer = edge.send("GET", path, &[&format!("Range: {range}")]).await?;
        assert_eq!(answer.status, 416, "{range}");
        assert_eq!(answer.header("content-range"), Some(&*format!("bytes */{len}")), "{range}");
    }
    // What is no single range of bytes counts as not asked for.
    for range in ["bytes=5-2", "bytes=a-b", "lines=1-2", "bytes=0-1,5-6"] {
        let answer = edge.send("GET", path, &[&format!("Range: {range}")]).await?;
        assert_eq!((answer.status, answer.stated_len()?), (200, len), "{range}");
        answer.finish_with(&edge.image.layers[0]).await?;
    }
    edge.check_alive().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_tells_length_and_digest_and_sends_no_body() -> Result<()> {
    let edge = Edge::start("head", FleetSpec::private()).await?;
    let Image { layers, manifest, .. } = &edge.image;
    for (target, blob) in
        [("/v2/team/app/blobs/{layer}?ns={ns}", &layers[0]), ("/v2/team/app/manifests/v1?ns={ns}", manifest)]
    {
        let answer = edge.send("HEAD", target, &[ACCEPT, "Connection: close"]).await?;
        assert_eq!((answer.status, answer.stated_len()?), (200, blob.bytes.len()), "{target}");
        assert_eq!(answer.header("docker-content-digest"), Some(&*blob.digest.to_string()), "{target}");
        assert_eq!(answer.finish().await?.body.len(), 0, "{target}");
    }
    assert_eq!(edge.send("HEAD", &format!("/v2/team/app/blobs/{UNKNOWN}?ns={{ns}}"), &[]).await?.status, 404);
    assert_eq!(edge.fleet.registry.front.blob_bytes_sent(), 0, "a HEAD made the registry send a blob");
    edge.check_alive().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_is_named_by_query_by_path_or_by_default() -> Result<()> {
    let mut lab = Lab::start("named", LabSpec::nodes(1)).await?;
    let registry = "http://registry.test:5000";
    let sidecar = json!({ "proxy": { "registryMirror": { "url": registry, "insecure": true } } });
    let fleet = Fleet::start(&mut lab, FleetSpec::private().with_sidecar(sidecar)).await?;
    let image = fleet.publish(&[3 << 20]).await?;
    let edge = Edge { _lab: lab, fleet, image };
    assert_eq!(edge.fleet.registry.url(), registry);
    for resource in
        ["team/app/blobs/{layer}?ns={ns}", "{registry}/team/app/blobs/{layer}", "team/app/blobs/{layer}"]
    {
        let answer = edge.send("GET", &format!("/v2/{resource}"), &[]).await?;
        assert_eq!(answer.status, 200, "{resource}");
        answer.finish_with(&edge.image.layers[0]).await?;
    }
    for resource in ["?ns={ns}", "", "team/app/tags/list", "{registry}/team/app/manifests/v1"] {
        assert_eq!(edge.send("GET", &format!("/v2/{resource}"), &[ACCEPT]).await?.status, 200, "{resource}");
    }
    edge.check_alive().await
}

// === What is refused ===

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_or_not_a_pull_is_refused_in_the_protocols_own_form() -> Result<()> {
    let edge = Edge::start("refused", FleetSpec::private()).await?;
    let unknown = format!("/v2/team/app/blobs/{UNKNOWN}?ns={{ns}}");
    edge.check_refused("GET", &unknown, 404, "BLOB_UNKNOWN").await?;
    edge.check_refused("GET", "/v2/no/such/blobs/{layer}?ns={ns}", 404, "BLOB_UNKNOWN").await?;
    edge.check_refused("GET", "/v2/team/app/manifests/v2?ns={ns}", 404, "MANIFEST_UNKNOWN").await?;
    edge.check_refused("GET", "/v2/team/app/blobs/sha256:12?ns={ns}", 400, "DIGEST_INVALID").await?;
    edge.check_refused("GET", "/v2/Team/app/blobs/{layer}?ns={ns}", 400, "NAME_INVALID").await?;
    edge.check_refused("GET", "/v1/search?ns={ns}", 404, "NAME_UNKNOWN").await?;
    for method in ["POST", "PUT", "PATCH", "DELETE"] {
        edge.check_refused(method, "/v2/team/app/blobs/uploads/?ns={ns}", 405, "UNSUPPORTED").await?;
    }

    let other = "/v2/team/app/blobs/{layer}?ns=other.example";
    let message = edge.check_refused("GET", other, 404, "NAME_UNKNOWN").await?;
    for part in ["other.example", "proxy.registries", edge.fleet.registry.authority()] {
        assert!(message.contains(part), "{part} is not in {message}");
    }
    edge.check_alive().await
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_requests_are_answered_and_reach_nothing() -> Result<()> {
    let edge = Edge::start("hostile", FleetSpec::private()).await?;
    for path in [
        "/v2/../../etc/passwd?ns={ns}",
        "/v2/team/../app/blobs/{layer}?ns={ns}",
        "/v2/team/%2e%2e/app/blobs/{layer}?ns={ns}",
        "/v2/team%2fapp/blobs/{layer}?ns={ns}",
        "/v2/team/app/blobs/../../../manifests/v1?ns={ns}",
        "/v2/team/app/blobs/..%2f..%2fx?ns={ns}",
        "/v2/team/app/manifests/..?ns={ns}",
        "/v2/team/app/manifests/%00?ns={ns}",
        "/v2/team/app/blobs/{layer}?ns=../{ns}",
        "/v2/team/app/blobs/{layer}?ns=169.254.169.254",
        "/v2/team/app/blobs/{layer}?ns=127.0.0.1:65011",
        "/v2/team/app/blobs/{layer}?ns={ns}&ns=other.example",
        "/v2//app/blobs/{layer}?ns={ns}",
        "//v2/team/app/blobs/{layer}?ns={ns}",
        "http://169.254.169.254/v2/team/app/blobs/{layer}?ns=other.example",
    ] {
        let status = edge.send("GET", path, &[]).await?.status;
        assert!(matches!(status, 400 | 404), "{path}: {status}");
    }
    let long = "x".repeat(100 << 10);
    let path = "/v2/team/app/blobs/{layer}?ns={ns}";
    assert_eq!(edge.send("GET", path, &[&format!("X-Long: {long}")]).await?.status, 431);
    assert!(matches!(edge.send("GET", &format!("/v2/{long}"), &[]).await?.status, 414 | 431));
    for garbage in ["GET", "\u{0}\u{1}\u{2}", "GET /v2/ HTTP/9.9\r\n"] {
        // Whether the connection is closed or answered, the mirror goes on.
        let _ = edge.send(garbage, "/v2/", &[]).await;
    }
    let seen = edge.fleet.registry.front.seen();
    assert!(seen.is_empty(), "the registry was asked: {seen:?}");
    edge.send("GET", path, &[]).await?.finish_with(&edge.image.layers[0]).await?;
    edge.check_alive().await
}

// === Settings ===

#[tokio::test]
async fn all_mistakes_in_settings_are_told_at_once() -> Result<()> {
    let dir = std::env::temp_dir().join(format!("shoal-mistakes-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    let config = dir.join("settings.yaml");
    std::fs::write(&config, "{admin: {listen: here}, log: {level: loud}, shutdownGrace: soon, downlod: 1}")?;
    for part in PARTS {
        let check = part.command()?.arg("--check-config").arg("--config").arg(&config);
        let error = check.run(DEADLINE).await.expect_err("the settings are wrong");
        let error = format!("{error:#}");
        for text in ["exit status: 64", "admin.listen", "log.level", "shutdownGrace", "downlod"] {
            assert!(error.contains(text), "{text} is not in {error}");
        }
    }
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}

#[tokio::test]
async fn the_printed_defaults_lack_a_certificate_at_the_most() -> Result<()> {
    let dir = std::env::temp_dir().join(format!("shoal-defaults-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    for part in PARTS {
        let config = dir.join(part.program());
        let defaults = part.command()?.arg("--print-default-config").run(DEADLINE).await?;
        std::fs::write(&config, &defaults)?;
        let check =
            async || part.command()?.arg("--check-config").arg("--config").arg(&config).run(DEADLINE).await;
        if part != Part::Gateway {
            // Nobody can know what lets a process into its region.
            let mistakes = format!("{:#}", check().await.unwrap_err());
            assert!(
                mistakes.contains("1 mistake") && mistakes.contains("names no certificate"),
                "{mistakes}"
            );
            let token = format!("shoal-join.{}.{}", "0".repeat(64), "A".repeat(43));
            let joining = format!("joinToken: \"{token}\"");
            std::fs::write(&config, defaults.replace("joinToken: \"\"", &joining))?;
        }
        check().await?;
    }
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}

/// Fails unless an image's layer of 3 MiB takes the time that a limit of 1 MiB/s allows, set by `key`.
async fn check_slows(name: &str, key: &str) -> Result<()> {
    let sidecar = json!({ "download": { key: "1Mi" } });
    let edge = Edge::start(name, FleetSpec::private().with_sidecar(sidecar)).await?;
    let layer = &edge.image.layers[0];
    let began = Instant::now();
    edge.fleet.read(0, &edge.image, layer, &[]).await?.finish_with(layer).await?;
    // Only a lower bound: a busy machine makes it slower, nothing makes it faster. The first second's bytes
    // may come at once.
    assert!(began.elapsed() >= Duration::from_millis(1800), "{:?}", began.elapsed());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_total_rate_limit_slows_a_pull_down() -> Result<()> {
    check_slows("total-rate", "totalRateLimit").await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rate_limit_per_peer_slows_a_pull_down() -> Result<()> {
    check_slows("peer-rate", "perPeerRateLimit").await
}

/// Bytes on disk under a sidecar's store.
async fn stored(edge: &Edge) -> Result<u64> {
    let node = &edge.fleet.sidecars[0].host;
    let launch = Launch::new("du").args(["--summarize", "--block-size=1"]).arg(node.dir().join("sidecar"));
    let text = node.run(launch, DEADLINE).await?;
    Ok(text.split('\t').next().context("du printed nothing")?.parse()?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_store_makes_room_for_what_is_used_last() -> Result<()> {
    let storage = json!({ "storage": { "diskGCThreshold": "5Mi" } });
    let edge = Edge::start("full", FleetSpec::private().with_sidecar(storage)).await?;
    let other = Image::build(&ImageSpec { seed: 2, ..ImageSpec::new("team/other", 3 << 20) })?;
    edge.fleet.registry.push(&other).await?;
    for image in [&edge.image, &other] {
        edge.fleet.read(0, image, &image.layers[0], &[]).await?.finish_with(&image.layers[0]).await?;
    }
    let made_room = async || stored(&edge).await.ok().filter(|it| *it < 4 << 20);
    wait::until("room in the store", DEADLINE, made_room).await?;

    edge.fleet.read(0, &other, &other.layers[0], &[]).await?.finish_with(&other.layers[0]).await?;
    let from_cache = edge.fleet.metric("shoal_sidecar_cache_bytes_total", &[]).await?;
    assert!(from_cache >= f64::from(3 << 20), "{from_cache} bytes of the blob used last from the cache");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_nobody_uses_expires() -> Result<()> {
    let storage = json!({ "storage": { "taskExpireTime": "2s" } });
    let edge = Edge::start("expired", FleetSpec::private().with_sidecar(storage)).await?;
    let layer = &edge.image.layers[0];
    edge.fleet.read(0, &edge.image, layer, &[]).await?.finish_with(layer).await?;
    let expired = async || stored(&edge).await.ok().filter(|it| *it < 1 << 20);
    wait::until("expiry", DEADLINE, expired).await.map(drop)
}

// === Start and stop ===

#[tokio::test(flavor = "multi_thread")]
async fn a_sidecar_told_to_stop_is_no_longer_ready_and_ends_its_streams_well() -> Result<()> {
    let mut lab = Lab::start("graceful", LabSpec::nodes(1).at(Mbit(30))).await?;
    let mut fleet = Fleet::start(&mut lab, FleetSpec::private()).await?;
    let image = fleet.publish(&[12 << 20]).await?;
    let layer = &image.layers[0];
    let mut stream = fleet.read(0, &image, layer, &[]).await?;
    stream.read_to(1 << 20).await?;
    let sidecar = &mut fleet.sidecars[0];
    sidecar.process.signal(Signal::SIGTERM)?;
    let ready = format!("http://{}/readyz", admin(Part::Sidecar));
    let is_over = async || sidecar.host.get(&ready).await.map_or(true, |it| it.status() != 200).then_some(());
    wait::until("the end of readiness", DEADLINE, is_over).await?;
    stream.finish_with(layer).await?;
    assert_eq!(sidecar.process.wait_for_exit(DEADLINE).await?.code(), Some(0));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sidecar_whose_mirror_cannot_listen_never_says_that_it_is_ready() -> Result<()> {
    let mut lab = Lab::start("not-ready", LabSpec::nodes(1)).await?;
    let node = lab.nodes()[0].clone();
    let _taken = node.listen(65001)?;
    let error = Fleet::start(&mut lab, FleetSpec::private()).await.expect_err("the port is taken");
    let error = format!("{error:#}");
    assert!(error.contains("ended first, exit status: 1") && error.contains("start the mirror"), "{error}");
    Ok(())
}
