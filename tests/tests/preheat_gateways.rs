//! Preheat jobs where there are several gateways: each shows, joins and stops all of them, and one that dies, hangs or
//! loses Redis takes no job with it.

use std::time::Duration;

use anyhow::{Context, Result};
use futures_util::future::try_join_all;
use http::{Method, StatusCode};
use serde_json::{Value, json};
use shoal_tests::fleet::{Fleet, FleetSpec};
use shoal_tests::image::Image;
use shoal_tests::lab::{Lab, LabSpec};
use shoal_tests::link::Mbit;
use shoal_tests::redis::{Access, Redis};
use shoal_tests::registry::RegistrySpec;
use shoal_tests::wait;

const NODES: usize = 2;
const DEADLINE: Duration = Duration::from_secs(60);
/// Layers that take some seconds on [`SLOW`].
const LAYERS: [usize; 2] = [12 << 20, 6 << 20];
/// The registry's link, where a job is to last.
const SLOW: Mbit = Mbit(16);

const MOVED: &str = "shoal_gateway_preheat_jobs_moved_total";
const ENDED: &str = "shoal_gateway_preheat_jobs_ended_total";
const UP: &str = "shoal_gateway_redis_up";
const HERE: [(&str, &str); 1] = [("direction", "here")];
const AWAY: [(&str, &str); 1] = [("direction", "away")];

/// Two gateways that have found each other, and an image whose registry is slow.
async fn fleet(name: &str, spec: FleetSpec) -> Result<(Lab, Fleet, Image)> {
    let mut lab = Lab::start(name, LabSpec::nodes(NODES as u16)).await?;
    // Waiting for a job is asking for it again and again.
    let management = json!({ "management": { "requestsPerSecond": 1000 } });
    let gateway = shoal_tests::fleet::changed(spec.gateway.clone(), &management);
    let fleet = Fleet::start(&mut lab, spec.with_gateways(2).with_gateway(gateway)).await?;
    fleet.joined().await?;
    fleet.gateways_say("shoal_gateway_sisters", 1.0).await?;
    let image = fleet.publish(&LAYERS).await?;
    fleet.registry.host.shape(SLOW, SLOW).await?;
    Ok((lab, fleet, image))
}

fn redis(fleet: &mut Fleet) -> Result<&mut Redis> {
    fleet.redis.as_mut().context("a fleet without Redis")
}

fn n_rows(job: &Value, kind: &str) -> usize {
    job[kind].as_array().map_or(0, Vec::len)
}

/// Fails unless every node holds every blob, by the job's own word.
#[track_caller]
fn check_whole(job: &Value, image: &Image) {
    assert_eq!((&job["state"], &job["errors"]), (&json!("SUCCESS"), &json!([])), "{job}");
    assert_eq!(n_rows(job, "success"), NODES * image.blobs().count(), "{job}");
    assert_eq!((n_rows(job, "failure"), &job["progress"]["nodesDone"]), (0, &json!(NODES)), "{job}");
    let layers = job["layers"].as_array().map(Vec::as_slice).unwrap_or_default();
    assert!(
        layers.iter().all(|it| it["nodesDone"] == NODES) && layers.len() == image.blobs().count(),
        "{job}"
    );
}

/// Waits until a gateway has counted one job that came to it, or went away.
async fn moved(fleet: &Fleet, gateway: usize, direction: &[(&str, &str)]) -> Result<()> {
    wait::until("a job has moved", DEADLINE, async || {
        let n_moved = fleet.gateways()[gateway].metric(MOVED, direction).await;
        n_moved.is_ok_and(|it| it > 0.5).then_some(())
    })
    .await
}

/// How many jobs have ended, at all gateways that answer.
async fn n_ended(fleet: &Fleet) -> Result<f64> {
    Ok(try_join_all(fleet.gateways().into_iter().map(|it| it.metric(ENDED, &[]))).await?.into_iter().sum())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_too_a_job_is_seen_joined_and_stopped_at_any_gateway() -> Result<()> {
    let names = json!({ "gateways": ["https://gateway:65003", "https://gateway2:65003"] });
    let (_lab, fleet, image) = fleet("preheat-anywhere", FleetSpec::private().with_gateway(names)).await?;
    let id = fleet.gateway.preheat(&fleet.to_all_peers(&image)).await?;
    // At once, and not only when there was time to tell of it.
    assert_eq!(fleet.gateways()[1].job(id).await?["id"], id);
    let half =
        fleet.gateways()[1].job_when(id, |it| it["progress"]["bytesHeld"].as_u64() > Some(2 << 20)).await?;
    assert_eq!(
        (&half["state"], n_rows(&half, "layers")),
        (&json!("PENDING"), image.blobs().count()),
        "{half}"
    );
    assert_eq!(
        fleet.gateways()[1].preheat(&fleet.to_all_peers(&image)).await?,
        id,
        "the same request is the same job"
    );
    let other = fleet.gateways()[1].preheat(&json!({ "image": fleet.registry.reference(&image) })).await?;
    assert!(other > id);
    for gateway in 0..2 {
        wait::until("both jobs are listed", DEADLINE, async || {
            let listed = fleet.gateways()[gateway].call_preheat(Method::GET, "", String::new()).await.ok()?.1;
            let ids: Vec<_> = listed["jobs"].as_array()?.iter().filter_map(|it| it["id"].as_u64()).collect();
            (ids == [other, id] && listed["total"] == 2).then_some(())
        })
        .await?;
    }
    let (status, _) =
        fleet.gateways()[1].call_preheat(Method::DELETE, &format!("/{id}"), String::new()).await?;
    assert_eq!(status, StatusCode::OK);
    let job = fleet.gateways()[1].ended_job(id).await?;
    assert_eq!(
        (&job["state"], &job["errors"][0]),
        (&json!("FAILURE"), &json!("cancelled by first")),
        "{job}"
    );
    assert_eq!(fleet.gateway.job(id).await?, job);
    let (status, _) = fleet.gateways()[1].call_preheat(Method::GET, "/7", String::new()).await?;
    assert_eq!(status, StatusCode::NOT_FOUND);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_of_a_gateway_that_dies_is_finished_by_the_other() -> Result<()> {
    let spec = FleetSpec::private().with_redis_as(Access::Cluster);
    let (_lab, mut fleet, image) = fleet("preheat-heir", spec).await?;
    let id = fleet.gateway.preheat(&fleet.to_all_peers(&image)).await?;
    let before = fleet.gateway.job_under_way(id).await?;
    fleet.gateway.process.kill().await?;
    // Until then, what the dead one last told is shown.
    assert_eq!(fleet.gateways()[1].job(id).await?["state"], "PENDING");
    let job = fleet.gateways()[1].ended_job(id).await?;
    check_whole(&job, &image);
    assert_eq!((&job["created"], &job["askedBy"]), (&before["created"], &before["askedBy"]), "{job}");
    moved(&fleet, 1, &HERE).await?;
    // The one that died kept the job on its disk, and finds that it has ended.
    fleet.gateway.process.restart().await?;
    fleet.gateway.wait_until_ready().await?;
    moved(&fleet, 0, &AWAY).await?;
    assert_eq!(fleet.gateway.job(id).await?, job);
    assert_eq!(n_ended(&fleet).await?, 1.0, "it has ended once");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_hangs_and_comes_back_ends_no_job_that_another_has() -> Result<()> {
    let spec = FleetSpec::private().with_redis_as(Access::Secured);
    let (_lab, fleet, image) = fleet("preheat-hangs", spec).await?;
    let id = fleet.gateway.preheat(&fleet.to_all_peers(&image)).await?;
    fleet.gateway.job_under_way(id).await?;
    fleet.gateway.process.stop()?;
    moved(&fleet, 1, &HERE).await?;
    // It goes on while the other is at work, and may well have everything that it waits for.
    fleet.gateway.process.cont()?;
    moved(&fleet, 0, &AWAY).await?;
    let job = fleet.gateways()[1].ended_job(id).await?;
    check_whole(&job, &image);
    assert_eq!(fleet.gateway.ended_job(id).await?, job);
    assert_eq!(n_ended(&fleet).await?, 1.0, "it has ended once");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_is_away_moves_no_job_and_one_that_is_back_does() -> Result<()> {
    let (_lab, mut fleet, image) = fleet("preheat-redis", FleetSpec::private().with_redis()).await?;
    redis(&mut fleet)?.process.kill().await?;
    fleet.gateways_say(UP, 0.0).await?;
    let first = fleet.gateway.preheat(&json!({ "image": fleet.registry.reference(&image) })).await?;
    assert_eq!(fleet.gateway.ended_job(first).await?["state"], "SUCCESS", "as without any Redis");
    let second = fleet.gateway.preheat(&fleet.to_all_peers(&image)).await?;
    fleet.gateways()[1].job_when(second, |it| it["state"] == "PENDING" && it["doing"] != "queued").await?;
    fleet.gateway.process.kill().await?;
    assert_eq!(fleet.gateways()[1].job(second).await?["state"], "PENDING");
    assert_eq!(fleet.gateways()[1].metric(MOVED, &[]).await?, 0.0, "nobody may take it up");
    redis(&mut fleet)?.restart().await?;
    let job = fleet.gateways()[1].ended_job(second).await?;
    check_whole(&job, &image);
    assert_eq!(fleet.gateways()[1].job(first).await?["state"], "SUCCESS", "what had ended is still told of");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_comes_back_empty_costs_no_job() -> Result<()> {
    let (_lab, mut fleet, image) = fleet("preheat-empty", FleetSpec::private().with_redis()).await?;
    let id = fleet.gateway.preheat(&fleet.to_all_peers(&image)).await?;
    fleet.gateway.job_under_way(id).await?;
    redis(&mut fleet)?.process.kill().await?;
    fleet.gateways_say(UP, 0.0).await?;
    redis(&mut fleet)?.restart().await?;
    fleet.gateways_say(UP, 1.0).await?;
    check_whole(&fleet.gateways()[1].ended_job(id).await?, &image);
    for gateway in fleet.gateways() {
        assert_eq!(gateway.metric(MOVED, &[]).await?, 0.0);
    }
    assert_eq!(n_ended(&fleet).await?, 1.0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_credential_dies_with_its_gateway_and_the_job_says_so() -> Result<()> {
    let registry = RegistrySpec::plain().for_user("robot", "s3cret");
    let (_lab, mut fleet, image) = fleet("preheat-lost", FleetSpec::before(registry).with_redis()).await?;
    let mut body = fleet.to_all_peers(&image);
    (body["username"], body["password"]) = (json!("robot"), json!("s3cret"));
    let id = fleet.gateway.preheat(&body).await?;
    fleet.gateway.job_under_way(id).await?;
    let other = fleet.gateways()[1].preheat(&body).await?;
    assert_ne!(other, id, "only its own gateway knows whose credential a job came with");
    fleet.gateways()[1].call_preheat(Method::DELETE, &format!("/{other}"), String::new()).await?;
    // What is in Redis names neither the image nor what opens it.
    let keys = redis(&mut fleet)?.run(&["KEYS", "*"]).await?;
    assert!(keys.contains(&format!("{{shoal}}:job:{id}")), "{keys}");
    let mut kept = keys.clone();
    for key in keys.lines() {
        kept += &redis(&mut fleet)?.run(&["DUMP", key]).await?;
    }
    for secret in ["s3cret", "cm9ib3Q6czNjcmV0", image.repository.as_str()] {
        assert!(!kept.contains(secret), "{secret} in {kept}");
    }
    fleet.gateway.process.kill().await?;
    let job = fleet.gateways()[1].ended_job(id).await?;
    assert_eq!((&job["state"], &job["hasCredential"]), (&json!("FAILURE"), &json!(true)), "{job}");
    let error = job["errors"][0].as_str().context("no error")?;
    assert!(error.contains("is gone") && error.contains("ask again"), "{error}");
    fleet.registry.host.unshape().await?;
    let job = fleet.gateways()[1].ended_job(fleet.gateways()[1].preheat(&body).await?).await?;
    check_whole(&job, &image);
    Ok(())
}
