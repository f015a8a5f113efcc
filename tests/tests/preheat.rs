//! Preheat jobs with real nodes: what they bring about, and that they say what came of it, also where something dies,
//! is missing or is cancelled on the way.

use std::time::Duration;

use anyhow::{Context, Result};
use futures_util::future::try_join_all;
use http::{Method, StatusCode};
use serde_json::{Value, json};
use shoal_tests::counting::Seen;
use shoal_tests::fault::Effect;
use shoal_tests::fleet::{Fleet, FleetSpec};
use shoal_tests::image::{Image, ImageSpec, Index};
use shoal_tests::lab::{Lab, LabSpec};
use shoal_tests::link::Mbit;
use shoal_tests::registry::RegistrySpec;
use shoal_tests::wait;

const DEADLINE: Duration = Duration::from_secs(60);
/// Three layers, as small as pulls with unpacking allow.
const LAYERS: [usize; 3] = [6 << 20, 4 << 20, 2 << 20];
/// One that takes some seconds on [`SLOW`].
const LONG: [usize; 1] = [16 << 20];
/// The registry's link, where a job is to last.
const SLOW: Mbit = Mbit(16);

const DOWNLOADED: &str = "shoal_sidecar_download_bytes_total";
const ACTIVE: &str = "shoal_sidecar_active_blobs";

/// A fleet of so many nodes, all of whom its scheduler knows.
async fn fleet(name: &str, n_nodes: u16, spec: FleetSpec) -> Result<(Lab, Fleet)> {
    let mut lab = Lab::start(name, LabSpec::nodes(n_nodes)).await?;
    // Waiting for a job is asking for it again and again.
    let spec = spec.with_gateway(json!({ "management": { "requestsPerSecond": 1000 } }));
    let fleet = Fleet::start(&mut lab, spec).await?;
    fleet.joined().await?;
    Ok((lab, fleet))
}

fn rows<'a>(job: &'a Value, kind: &str) -> Vec<&'a Value> {
    job[kind].as_array().map(|it| it.iter().collect()).unwrap_or_default()
}

/// How often each blob of an image was read of the registry.
fn n_reads(fleet: &Fleet, image: &Image) -> Vec<usize> {
    let seen = fleet.registry.front.seen();
    let of = |digest: String| move |it: &&Seen| it.is_blob_read() && it.path.ends_with(&digest);
    image.blobs().map(|blob| seen.iter().filter(of(blob.digest.to_string())).count()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_preheated_is_pulled_while_nobody_serves_a_blob_but_the_nodes() -> Result<()> {
    const NODES: u16 = 8;
    let (_lab, fleet) = fleet("preheat-all", NODES, FleetSpec::private()).await?;
    let build = |tag: &str, seed| {
        let spec =
            ImageSpec { tag: tag.to_owned(), layers: LAYERS.into(), seed, ..ImageSpec::new("team/app", 0) };
        Image::build(&spec)
    };
    let (amd64, arm64) = (build("amd64", 1)?, build("arm64", 2)?);
    fleet.registry.push(&amd64).await?;
    fleet.registry.push(&arm64).await?;
    fleet.registry.push_index(&Index::of("v1", &[("amd64", &amd64), ("arm64", &arm64)])).await?;
    let mut image = amd64;
    image.tag = "v1".to_owned();

    let url = format!("https://{}/v2/team/app/manifests/v1", fleet.registry.authority());
    let id = fleet
        .gateway
        .preheat(&json!({ "url": url, "scope": "all_peers", "platform": "linux/amd64" }))
        .await?;
    let job = fleet.gateway.ended_job(id).await?;
    assert_eq!(job["state"], "SUCCESS", "{job}");
    let n_blobs = image.blobs().count();
    assert_eq!(rows(&job, "success").len(), usize::from(NODES) * n_blobs, "{job}");
    assert_eq!((rows(&job, "failure").len(), &job["errors"]), (0, &json!([])), "{job}");
    assert_eq!(job["progress"]["nodesDone"], NODES, "{job}");
    assert_eq!(job["progress"]["bytesHeld"], image.n_bytes() * u64::from(NODES), "{job}");
    assert_eq!(n_reads(&fleet, &image), vec![1; n_blobs]);
    assert_eq!(n_reads(&fleet, &arm64)[1..], [0; 3], "of the other platform nothing is read");
    let sent = fleet.registry.front.blob_bytes_sent();
    println!("the registry sent {sent} bytes for {}", image.n_bytes());
    assert!(sent * 100 <= image.n_bytes() * 101, "{sent} bytes sent for {}", image.n_bytes());

    // From here on a blob is only where the job has put it.
    fleet.registry.front.hurt("/blobs/", u32::MAX, Effect::Status { code: 503, retry_after: None });
    let before = fleet.metric(DOWNLOADED, &[]).await?;
    let nodes = fleet.containerds().await?;
    try_join_all(nodes.iter().map(|it| it.pull(&fleet.registry, &image))).await?;
    try_join_all(nodes.iter().map(|it| it.check(&fleet.registry, &image))).await?;
    let more = fleet.metric(DOWNLOADED, &[]).await? - before;
    assert!(more < 1.0, "nodes have fetched {more} bytes for the pulls");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_dies_is_named_and_the_others_hold_the_image() -> Result<()> {
    let (_lab, mut fleet) = fleet("preheat-dead", 3, FleetSpec::private()).await?;
    let image = fleet.publish(&LONG).await?;
    fleet.registry.host.shape(SLOW, SLOW).await?;
    let id = fleet.gateway.preheat(&fleet.to_all_peers(&image)).await?;
    fleet.gateway.job_under_way(id).await?;
    let address = fleet.sidecars[1].host.address().to_string();
    fleet.sidecars[1].process.kill().await?;

    let job = fleet.gateway.ended_job(id).await?;
    assert_eq!(job["state"], "SUCCESS", "{job}");
    assert_eq!((&job["progress"]["nodesDone"], &job["progress"]["nodesFailed"]), (&json!(2), &json!(1)));
    assert_eq!(job["errors"], json!(["2 of 3 nodes hold all that they should"]));
    let failed = rows(&job, "failure");
    assert!(!failed.is_empty(), "{job}");
    for row in failed {
        assert_eq!(row["ip"], address, "{row}");
        assert!(row["description"].as_str().is_some_and(|it| it.contains("unreachable")), "{row}");
    }
    // What the dead one had before counts for nothing in the verdict, but is told.
    let by_others = rows(&job, "success").iter().filter(|it| it["ip"] != address).count();
    assert_eq!(by_others, 2 * image.blobs().count(), "{job}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_that_the_registry_lacks_is_named_for_each_node() -> Result<()> {
    let (_lab, fleet) = fleet("preheat-lacking", 2, FleetSpec::private()).await?;
    let image = fleet.publish(&LAYERS).await?;
    let missing = image.layers[1].digest.to_string();
    fleet.registry.front.hurt(&missing, u32::MAX, Effect::Status { code: 404, retry_after: None });
    let id = fleet.gateway.preheat(&fleet.to_all_peers(&image)).await?;
    let job = fleet.gateway.ended_job(id).await?;
    assert_eq!(job["state"], "FAILURE", "no node has the whole image: {job}");
    let failed = rows(&job, "failure");
    assert_eq!(failed.len(), 2, "{job}");
    for row in failed {
        assert!(row["url"].as_str().is_some_and(|it| it.ends_with(&missing)), "{row}");
        assert!(row["description"].as_str().is_some_and(|it| it.contains("404")), "{row}");
    }
    assert_eq!(rows(&job, "success").len(), 2 * (image.blobs().count() - 1), "{job}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_cancelled_says_so_and_nodes_fetch_no_more() -> Result<()> {
    let (_lab, fleet) = fleet("preheat-cancelled", 2, FleetSpec::private()).await?;
    let image = fleet.publish(&LONG).await?;
    fleet.registry.host.shape(SLOW, SLOW).await?;
    let id = fleet.gateway.preheat(&fleet.to_all_peers(&image)).await?;
    assert_eq!(
        fleet.gateway.preheat(&fleet.to_all_peers(&image)).await?,
        id,
        "the same request joins the job that goes on"
    );
    fleet.gateway.job_under_way(id).await?;
    let (status, _) = fleet.gateway.call_preheat(Method::DELETE, &format!("/{id}"), String::new()).await?;
    assert_eq!(status, StatusCode::OK);

    let job = fleet.gateway.ended_job(id).await?;
    assert_eq!(job["state"], "FAILURE", "{job}");
    assert_eq!(job["errors"][0], "cancelled by first", "{job}");
    wait::until("no node fetches anything", DEADLINE, async || {
        fleet.metric(ACTIVE, &[]).await.is_ok_and(|it| it < 0.5).then_some(())
    })
    .await?;
    let (fetched, whole) = (fleet.metric(DOWNLOADED, &[]).await?, 2 * image.n_bytes());
    assert!(fetched < whole as f64, "the nodes have fetched all {whole} bytes");
    // Whoever pulls it then gets it all the same.
    fleet.registry.host.unshape().await?;
    for blob in image.blobs() {
        fleet.read(0, &image, blob, &[]).await?.finish_with(blob).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_restarts_goes_on_with_its_jobs() -> Result<()> {
    let (_lab, mut fleet) = fleet("preheat-restart", 2, FleetSpec::private()).await?;
    let image = fleet.publish(&LONG).await?;
    fleet.registry.host.shape(SLOW, SLOW).await?;
    let id = fleet.gateway.preheat(&fleet.to_all_peers(&image)).await?;
    let before = fleet.gateway.job_under_way(id).await?;
    fleet.gateway.process.kill().await?;
    fleet.gateway.process.restart().await?;
    fleet.gateway.wait_until_ready().await?;

    let job = fleet.gateway.ended_job(id).await?;
    assert_eq!(job["state"], "SUCCESS", "{job}");
    assert_eq!((&job["created"], &job["progress"]["nodesDone"]), (&before["created"], &json!(2)), "{job}");
    let next = fleet.gateway.preheat(&fleet.to_all_peers(&image)).await?;
    assert!(next > id, "no number is given twice");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn gateways_hold_what_they_shall_and_the_registry_is_read_once() -> Result<()> {
    let (_lab, fleet) = fleet("preheat-seeds", 1, FleetSpec::private().with_gateways(2).with_redis()).await?;
    let image = fleet.publish(&LAYERS).await?;
    let n_blobs = image.blobs().count();
    for (scope, n_rows) in [("single_seed_peer", n_blobs), ("all_seed_peers", 2 * n_blobs)] {
        let id = fleet
            .gateway
            .preheat(&json!({ "image": fleet.registry.reference(&image), "scope": scope }))
            .await?;
        let job = fleet.gateway.ended_job(id).await?;
        assert_eq!((&job["state"], rows(&job, "success").len()), (&json!("SUCCESS"), n_rows), "{job}");
        assert_eq!(n_reads(&fleet, &image), vec![1; n_blobs], "{scope}");
    }
    assert!(fleet.metric(DOWNLOADED, &[]).await? < 1.0, "no node has fetched anything");
    let here = json!({ "image": fleet.registry.reference(&image), "scope": "all_seed_peers", "count": 1 });
    let (status, refused) = fleet.gateway.call_preheat(Method::POST, "", here.to_string()).await?;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{refused}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_credential_of_its_own_a_job_opens_nothing_to_others() -> Result<()> {
    let registry = RegistrySpec::plain().for_user("robot", "s3cret");
    let (_lab, mut fleet) = fleet("preheat-client", 2, FleetSpec::before(registry)).await?;
    let image = fleet.publish(&LONG).await?;
    let body = |password: Option<&str>| {
        let mut body = fleet.to_all_peers(&image);
        if let Some(password) = password {
            body["username"] = json!("robot");
            body["password"] = json!(password);
        }
        body
    };
    let (none, wrong, good) = (body(None), body(Some("wr0ng")), body(Some("s3cret")));
    for (body, advice) in [(none, "the job came without"), (wrong, "may not read it, or has ended")] {
        let job = fleet.gateway.ended_job(fleet.gateway.preheat(&body).await?).await?;
        assert_eq!(job["state"], "FAILURE", "{job}");
        let error = job["errors"][0].as_str().context("no error")?;
        assert!(error.contains("401") && error.contains(advice), "{error}");
    }

    // The gateway forgets the credential, and says so.
    fleet.registry.host.shape(SLOW, SLOW).await?;
    let id = fleet.gateway.preheat(&good).await?;
    fleet.gateway.job_under_way(id).await?;
    fleet.gateway.process.kill().await?;
    fleet.gateway.process.restart().await?;
    fleet.gateway.wait_until_ready().await?;
    let job = fleet.gateway.ended_job(id).await?;
    assert_eq!((&job["state"], &job["hasCredential"]), (&json!("FAILURE"), &json!(true)), "{job}");
    assert!(job["errors"][0].as_str().is_some_and(|it| it.contains("ask again")), "{job}");
    fleet.registry.host.unshape().await?;
    let job = fleet.gateway.ended_job(fleet.gateway.preheat(&good).await?).await?;
    assert_eq!(job["state"], "SUCCESS", "{job}");
    assert!(!job.to_string().contains("s3cret"));

    // The bytes are there, and are for those whom the registry admits.
    let layer = &image.layers[0];
    assert_eq!(fleet.read(0, &image, layer, &[]).await?.status, 401);
    let robot = fleet.registry.authorization(Some("robot"), &image.repository)?.context("no credential")?;
    let header = format!("Authorization: {robot}");
    fleet.read(0, &image, layer, &[&header]).await?.finish_with(layer).await?;

    // Nor is the secret anywhere on the gateway's disk.
    let kept = std::fs::read(fleet.gateway.host.dir().join("gateway/preheat.redb"))?;
    let basic = robot.trim_start_matches("Basic ");
    for secret in ["s3cret", basic] {
        assert!(!kept.windows(secret.len()).any(|it| it == secret.as_bytes()), "{secret} is kept");
    }
    Ok(())
}

// === What the registry does ===

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_limits_requests_costs_time_only() -> Result<()> {
    let (_lab, fleet) = fleet("preheat-429", 2, FleetSpec::private()).await?;
    let image = fleet.publish(&LAYERS).await?;
    let limit = Effect::Status { code: 429, retry_after: Some(1) };
    fleet.registry.front.hurt("/manifests/", 1, limit.clone());
    fleet.registry.front.hurt(&image.layers[0].digest.to_string(), 2, limit);
    let job = fleet.gateway.ended_job(fleet.gateway.preheat(&fleet.to_all_peers(&image)).await?).await?;
    assert_eq!(job["state"], "SUCCESS", "{job}");
    assert_eq!(job["progress"]["nodesDone"], 2, "{job}");
    assert_eq!(fleet.registry.front.blob_bytes_sent(), image.n_bytes());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_for_which_the_registry_never_has_a_turn_is_named() -> Result<()> {
    let (_lab, fleet) = fleet("preheat-429s", 2, FleetSpec::private()).await?;
    let image = fleet.publish(&LAYERS).await?;
    let limited = image.layers[1].digest.to_string();
    let limit = Effect::Status { code: 429, retry_after: Some(1) };
    fleet.registry.front.hurt(&limited, u32::MAX, limit);
    let mut body = fleet.to_all_peers(&image);
    // Long enough for a seed to give up, which is after eight attempts.
    body["timeout"] = json!("40s");
    let job = fleet.gateway.ended_job(fleet.gateway.preheat(&body).await?).await?;
    assert_eq!(job["state"], "FAILURE", "{job}");
    let failed = rows(&job, "failure");
    assert_eq!(failed.len(), 2, "{job}");
    for row in failed {
        assert!(row["url"].as_str().is_some_and(|it| it.ends_with(&limited)), "{row}");
        assert!(row["description"].as_str().is_some_and(|it| it.contains("429")), "{row}");
    }
    assert_eq!(rows(&job, "success").len(), 2 * (image.blobs().count() - 1), "{job}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_that_a_jobs_token_did_not_outlive_are_named() -> Result<()> {
    let registry = RegistrySpec::plain().for_user("robot", "s3cret").with_tokens();
    let (_lab, fleet) = fleet("preheat-token", 2, FleetSpec::before(registry)).await?;
    let image = fleet.publish(&[LONG[0], LONG[0] / 2]).await?;
    let token = fleet.registry.authorization(Some("robot"), &image.repository)?.context("no token")?;
    let mut body = fleet.to_all_peers(&image);
    body["headers"] = json!({ "Authorization": token });
    body["concurrent_task_count"] = json!(1);
    fleet.registry.host.shape(SLOW, SLOW).await?;
    let id = fleet.gateway.preheat(&body).await?;
    fleet.gateway.job_under_way(id).await?;
    let late = image.layers[1].digest.to_string();
    fleet.registry.front.hurt(&late, u32::MAX, Effect::Status { code: 401, retry_after: None });
    let job = fleet.gateway.ended_job(id).await?;
    assert_eq!(job["state"], "FAILURE", "{job}");
    let failed = rows(&job, "failure");
    assert_eq!(failed.len(), 2, "{job}");
    for row in failed {
        assert!(row["url"].as_str().is_some_and(|it| it.ends_with(&late)), "{row}");
        assert!(row["description"].as_str().is_some_and(|it| it.contains("401")), "{row}");
    }
    assert_eq!(rows(&job, "success").len(), 2 * (image.blobs().count() - 1), "{job}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_without_a_credential_that_needs_one_ends_at_once() -> Result<()> {
    let registry = RegistrySpec::plain().for_user("robot", "s3cret").with_tokens();
    let (_lab, fleet) = fleet("preheat-stranger", 1, FleetSpec::before(registry)).await?;
    let image = fleet.publish(&LAYERS).await?;
    fleet.registry.tokens.as_ref().context("no token service")?.turn_strangers_away();
    let job = fleet.gateway.ended_job(fleet.gateway.preheat(&fleet.to_all_peers(&image)).await?).await?;
    assert_eq!(job["state"], "FAILURE", "{job}");
    assert!(job["errors"][0].as_str().is_some_and(|it| it.contains("the job came without")), "{job}");
    Ok(())
}
