//! The lab itself, proved: links really limit and part, labs do not disturb each other, nothing stays
//! behind, programs can be hurt, fronts count and break answers.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Result;
use shoal_model::ByteRate;
use shoal_tests::command::Launch;
use shoal_tests::fault::{Effect, Ending};
use shoal_tests::host::Host;
use shoal_tests::image::{Image, ImageSpec};
use shoal_tests::lab::{Lab, LabSpec};
use shoal_tests::link::Mbit;
use shoal_tests::registry::{Registry, RegistrySpec};
use shoal_tests::supervised::Supervised;
use shoal_tests::sweep::sweep;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const DEADLINE: Duration = Duration::from_secs(30);

/// A lab of one node with a registry that holds an image of one layer.
async fn lab_with_image(name: &str, layer: usize) -> Result<(Lab, Registry, Image)> {
    let mut lab = Lab::start(name, LabSpec::nodes(1)).await?;
    let registry = lab.registry(RegistrySpec::plain()).await?;
    let image = Image::build(&ImageSpec::new("team/app", layer))?;
    registry.push(&image).await?;
    Ok((lab, registry, image))
}

fn layer_path(image: &Image) -> String {
    format!("/v2/{}/blobs/{}", image.repository, image.layers[0].digest)
}

/// What is left of a lab or of a run: namespaces and directories that begin with `prefix`.
fn traces(prefix: &str) -> usize {
    let dirs = [Path::new("/run/netns"), &std::env::temp_dir()].map(std::fs::read_dir);
    let names = dirs.into_iter().flatten().flatten().flatten();
    names.filter(|it| it.file_name().to_string_lossy().starts_with(prefix)).count()
}

// === Links ===

#[tokio::test(flavor = "multi_thread")]
async fn a_shaped_link_carries_no_more_than_its_rate() -> Result<()> {
    let (lab, registry, image) = lab_with_image("shaping", 4 << 20).await?;
    let node = &lab.nodes()[0];
    let url = format!("{}{}", registry.url(), layer_path(&image));
    let n_bytes = image.layers[0].bytes.len() as u64;

    let before = node.traffic().await?;
    assert_eq!(node.get(&url).await?.body().len() as u64, n_bytes);
    let after = node.traffic().await?;
    assert!(after.received - before.received >= n_bytes);
    assert!(after.sent - before.sent < n_bytes / 4);

    // Only a lower bound: a busy machine makes it slower, nothing makes it faster.
    node.shape(Mbit(100), Mbit(16)).await?;
    let began = Instant::now();
    node.get(&url).await?;
    let ideal = n_bytes as f64 * 8.0 / 16e6;
    assert!(began.elapsed().as_secs_f64() > 0.8 * ideal, "{:?} for {ideal} s", began.elapsed());
    Ok(())
}

#[tokio::test]
async fn a_partition_parts_and_heals() -> Result<()> {
    let lab = Lab::start("partition", LabSpec::nodes(3)).await?;
    let [a, b, c] = [0, 1, 2].map(|it| lab.nodes()[it].clone());
    let _listening = c.listen(7000)?;
    let at_c = (c.address(), 7000).into();

    lab.partition(std::slice::from_ref(&a), &[b.clone(), c.clone()]).await?;
    assert!(a.connect(at_c).await.is_err());
    assert!(b.connect(at_c).await.is_ok());

    a.listen_to_all().await?;
    c.listen_to_all().await?;
    assert!(a.connect(at_c).await.is_ok());

    a.unplug().await?;
    assert!(a.connect(at_c).await.is_err());
    a.plug().await?;
    a.connect(at_c).await?;
    Ok(())
}

// === Several labs, and what they leave ===

#[tokio::test(flavor = "multi_thread")]
async fn two_labs_at_once_do_not_meet() -> Result<()> {
    let (one, other) = tokio::join!(lab_with_image("one", 1000), lab_with_image("other", 2000));
    let ((one, one_registry, _), (other, other_registry, image)) = (one?, other?);
    assert_eq!(one.nodes()[0].address(), other.nodes()[0].address());

    let url = format!("{}{}", other_registry.url(), layer_path(&image));
    let in_other = other.nodes()[0].get(&url).await?;
    assert_eq!(in_other.status(), 200);
    let in_one = one.nodes()[0].get(&url).await?;
    assert_eq!(in_one.status(), 404);
    assert_eq!(one_registry.front.seen().len(), 1);
    assert_eq!(other_registry.front.seen().len(), 1);
    Ok(())
}

#[tokio::test]
async fn a_dropped_lab_leaves_nothing() -> Result<()> {
    let lab = Lab::start("dropped", LabSpec::nodes(2)).await?;
    let node = &lab.nodes()[0];
    let process = node.start("sleeper", Launch::new("sleep").arg("1000"))?;
    let pid = process.pid()?;
    let name = lab.dir().file_name().expect("has a name").to_string_lossy().into_owned();
    let id = name.trim_end_matches("dropped").to_owned();
    assert_eq!(traces(&id), 4, "hub, two nodes and the directory");

    drop(process);
    drop(lab);
    assert_eq!(traces(&id), 0);
    assert!(!is_running(pid.as_raw()));
    Ok(())
}

#[tokio::test]
async fn leftovers_of_a_killed_run_are_swept() -> Result<()> {
    let mut ended = Command::new("true").spawn()?;
    ended.wait()?;
    let leftover = format!("shoal-{}-0-", ended.id());
    let namespace = format!("{leftover}node1");
    assert!(Command::new("ip").args(["netns", "add", &namespace]).status()?.success());
    let mut inside = Command::new("ip").args(["netns", "exec", &namespace, "sleep", "1000"]).spawn()?;
    std::fs::create_dir_all(std::env::temp_dir().join(format!("{leftover}name/node1")))?;
    let lab = Lab::start("living", LabSpec::nodes(1)).await?;

    sweep();
    assert_eq!(traces(&leftover), 0);
    assert!(!inside.wait()?.success());
    assert!(lab.dir().exists());
    Ok(())
}

fn is_running(pid: i32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status.lines().any(|line| line.starts_with("State:") && !line.contains('Z'))
}

// === Programs ===

#[tokio::test(flavor = "multi_thread")]
async fn programs_can_be_watched_hurt_and_ended() -> Result<()> {
    let lab = Lab::start("programs", LabSpec::nodes(1)).await?;
    let node = &lab.nodes()[0];
    let script = "trap 'echo bye; exit 7' TERM; echo hello; while :; do sleep 0.05; done";
    let mut process = node.start("greeter", Launch::new("bash").args(["-c", script]))?;

    process.wait_for_log("hello").await?;
    assert!(process.resident_memory()?.0 > 100_000);
    assert!(process.n_open_files()? >= 3);
    assert_eq!(process.terminate(DEADLINE).await?.code(), Some(7));
    assert_eq!(process.log()?, "hello\nbye\n");

    process.restart().await?;
    process.kill().await?;
    assert!(process.pid().is_err());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_program_answers_when_it_goes_on() -> Result<()> {
    let (lab, registry, _) = lab_with_image("stopped", 1000).await?;
    let url = format!("{}/v2/", registry.url());
    registry.process.stop()?;
    let answer = lab.nodes()[0].get(&url);
    tokio::pin!(answer);
    assert!(tokio::time::timeout(Duration::from_millis(300), &mut answer).await.is_err());
    registry.process.cont()?;
    assert_eq!(answer.await?.status(), 200);
    Ok(())
}

#[tokio::test]
async fn a_wait_for_an_ended_program_shows_its_log() -> Result<()> {
    let lab = Lab::start("failing", LabSpec::nodes(1)).await?;
    let launch = Launch::shell("echo no such luck; exit 3");
    let mut process = lab.nodes()[0].start("failing", launch)?;
    let error = process.wait_for_port(9).await.expect_err("nobody listens");
    let text = format!("{error:#}");
    assert!(text.contains("no such luck") && text.contains("exit status: 3"), "{text}");
    Ok(())
}

#[tokio::test]
async fn the_supervisor_restarts_what_ends_and_what_falls_silent() -> Result<()> {
    let lab = Lab::start("supervised", LabSpec::nodes(1)).await?;
    // First run: says READY and ends. Second: READY, then silent. Third: goes on.
    let script = r#"
        open my $runs, '>>', $ARGV[0]; print $runs "x"; close $runs;
        socket my $s, PF_UNIX, SOCK_DGRAM, 0;
        my $to = sockaddr_un($ENV{NOTIFY_SOCKET});
        send $s, "READY=1", 0, $to;
        exit 1 if -s $ARGV[0] == 1;
        sleep 1000 if -s $ARGV[0] == 2;
        while (1) { send $s, "WATCHDOG=1", 0, $to; select undef, undef, undef, 0.1 }
    "#;
    let launch = Launch::new("perl").args(["-MSocket", "-e", script]).arg(lab.dir().join("runs"));
    let service = Supervised::start(&lab.nodes()[0], "service", launch, Duration::from_secs(2))?;
    let first = service.seen().pid;
    let third = service.wait_until_ready(2, DEADLINE).await?;
    assert_eq!(third.n_restarts, 2);
    assert_ne!(third.pid, first);
    Ok(())
}

// === Fronts ===

/// Asks for a path with raw bytes; returns what came and how the connection ended.
async fn read_raw(node: &Host, registry: &Registry, path: &str) -> Result<(Vec<u8>, std::io::Result<usize>)> {
    let mut stream = node.connect((registry.host.address(), 5000).into()).await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: registry\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut got = Vec::new();
    let end = stream.read_to_end(&mut got).await;
    Ok((got, end))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_front_breaks_bodies_by_fin_or_by_reset() -> Result<()> {
    let (lab, registry, image) = lab_with_image("breaking", 1 << 20).await?;
    let (node, path) = (&lab.nodes()[0], layer_path(&image));
    let half = 500_000;

    registry.front.hurt("/blobs/", 1, Effect::Break { after: half, ending: Ending::Fin });
    let (got, end) = read_raw(node, &registry, &path).await?;
    assert!(end.is_ok(), "{end:?}");
    assert!(got.starts_with(b"HTTP/1.1 200 OK\r\n"));
    assert!(got.len() < half as usize + 2000);

    registry.front.hurt("/blobs/", 1, Effect::Break { after: half, ending: Ending::Rst });
    let (_, end) = read_raw(node, &registry, &path).await?;
    assert_eq!(end.map_err(|it| it.kind()), Err(std::io::ErrorKind::ConnectionReset));

    let seen = registry.front.seen();
    assert_eq!([seen[0].sent, seen[1].sent], [half, half]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_front_refuses_flips_slows_and_hangs() -> Result<()> {
    let (lab, registry, image) = lab_with_image("hurting", 200_000).await?;
    let (node, front) = (&lab.nodes()[0], &registry.front);
    let url = format!("{}{}", registry.url(), layer_path(&image));
    let layer = &image.layers[0].bytes;

    front.hurt("/blobs/", 1, Effect::Status { code: 429, retry_after: Some(3) });
    let refused = node.get(&url).await?;
    assert_eq!(refused.status(), 429);
    assert_eq!(refused.headers()["retry-after"], "3");

    front.hurt("/blobs/", 1, Effect::Flip(150_000));
    let flipped = node.get(&url).await?.into_body();
    let differing: Vec<_> = (0..layer.len()).filter(|it| flipped[*it] != layer[*it]).collect();
    assert_eq!(differing, [150_000]);

    // Only a lower bound: a busy machine makes it slower, nothing makes it faster.
    front.hurt("/blobs/", 1, Effect::Slow(ByteRate(200_000)));
    let began = Instant::now();
    assert_eq!(node.get(&url).await?.body(), layer);
    assert!(began.elapsed() > Duration::from_millis(900));

    front.hurt("/blobs/", 1, Effect::Hang);
    let answer = tokio::time::timeout(Duration::from_millis(300), node.get(&url)).await;
    assert!(answer.is_err());
    assert_eq!(front.seen().last().map(|it| it.status), Some(0));

    assert_eq!(node.get(&url).await?.body(), layer);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_front_notes_what_was_asked() -> Result<()> {
    let (lab, registry, image) = lab_with_image("noting", 200_000).await?;
    let url = format!("{}{}?ns=a.test", registry.url(), layer_path(&image));
    let request = http::Request::get(url)
        .header("range", "bytes=100-199")
        .header("authorization", "Bearer secret")
        .body(Default::default())?;
    let response = lab.nodes()[0].send(request).await?;
    assert_eq!(response.body()[..], image.layers[0].bytes[100..200]);

    let [seen] = &registry.front.seen()[..] else { panic!("one request") };
    assert_eq!(seen.method, "GET");
    assert_eq!(seen.path, layer_path(&image));
    assert_eq!(seen.query.as_deref(), Some("ns=a.test"));
    assert_eq!(seen.range.as_deref(), Some("bytes=100-199"));
    assert_eq!(seen.authorization.as_deref(), Some("Bearer"));
    assert_eq!((seen.status, seen.sent), (206, 100));
    assert_eq!(registry.front.blob_bytes_sent(), 100);
    Ok(())
}
