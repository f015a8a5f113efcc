//! The main job: real runtimes pull through their nodes' sidecars, and the registry is read about once.
//!
//! Mostly the registry asks for a credential that no node has, so whatever a runtime gets came through
//! Shoal: its own fallback to the registry would end in a 401.

use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use futures_util::future::{try_join, try_join_all};
use http_body_util::{BodyExt, Full};
use shoal_tests::fleet::{Fleet, FleetSpec};
use shoal_tests::image::{Blob, Image};
use shoal_tests::lab::{Lab, LabSpec};
use shoal_tests::link::Mbit;
use shoal_tests::registry::RegistrySpec;
use shoal_tests::runtime::docker::{Docker, HUB};
use shoal_tests::runtime::podman::Podman;
use shoal_tests::runtime::{MIRROR, skopeo};
use shoal_tests::wait;

const DEADLINE: Duration = Duration::from_secs(60);
const DOWNLOADED: &str = "shoal_sidecar_download_bytes_total";
const UPLOADED_BY_GATEWAY: &str = "shoal_peer_upload_bytes_total";
const FROM_CACHE: &str = "shoal_sidecar_cache_bytes_total";

/// Three layers, as small as pulls with unpacking allow.
const LAYERS: [usize; 3] = [12 << 20, 8 << 20, 4 << 20];

/// Fails unless the registry has sent each blob of the image whole, once.
#[track_caller]
fn check_read_once(fleet: &Fleet, image: &Image) {
    let seen = fleet.registry.front.seen();
    for blob in image.blobs() {
        let of_blob = |it: &&shoal_tests::counting::Seen| {
            it.is_blob_read() && it.path.ends_with(&blob.digest.to_string())
        };
        let statuses: Vec<u16> = seen.iter().filter(of_blob).map(|it| it.status).collect();
        assert_eq!(statuses, [200], "reads of {}", blob.digest);
    }
    let sent = fleet.registry.front.blob_bytes_sent();
    assert!(sent * 100 <= image.n_bytes() * 102, "{sent} bytes sent of {}", image.n_bytes());
}

#[tokio::test(flavor = "multi_thread")]
async fn eight_nodes_without_a_credential_cost_the_registry_one_copy_and_the_gateway_two() -> Result<()> {
    const NODES: u16 = 8;
    const RATE: Mbit = Mbit(50);
    let mut lab = Lab::start("eight-nodes", LabSpec::nodes(NODES).at(RATE)).await?;
    let fleet = Fleet::start(&mut lab, FleetSpec::private()).await?;
    let image = fleet.publish(&LAYERS).await?;
    let nodes = fleet.containerds().await?;
    fleet.gateway.host.shape(RATE, RATE).await?;
    try_join_all(nodes.iter().map(|it| it.pull(&fleet.registry, &image))).await?;
    try_join_all(nodes.iter().map(|it| it.check(&fleet.registry, &image))).await?;

    check_read_once(&fleet, &image);
    let layers: usize = image.layers.iter().map(|it| it.bytes.len()).sum();
    let delivered = f64::from(NODES) * layers as f64;
    let from_peers = fleet.metric(DOWNLOADED, &[("source", "peer")]).await?;
    let share = from_peers / delivered;
    assert!(share >= f64::from(NODES - 2) / f64::from(NODES), "{share} of the bytes came from peers");
    let uploaded = fleet.gateway.metric(UPLOADED_BY_GATEWAY, &[]).await?;
    assert!(uploaded <= 2.0 * layers as f64, "the gateway sent {uploaded} bytes of {layers}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_piece_comes_into_a_rack_once() -> Result<()> {
    let mut lab = Lab::start("two-racks", LabSpec::nodes(12).at(Mbit(50))).await?;
    let fleet = Fleet::start(&mut lab, FleetSpec::open().in_racks(2)).await?;
    let image = fleet.publish(&[16 << 20]).await?;
    let layer = &image.layers[0];
    let pulls = fleet.sidecars.iter().map(async |it| {
        let pulled = it.host.send(fleet.ask_blob(&image, layer).body(Full::default())?).await?;
        anyhow::ensure!(*pulled.body() == layer.bytes, "{}: another content", it.host.name());
        Ok(())
    });
    try_join_all(pulls).await?;

    let copies = async |labels: &[(&str, &str)]| -> Result<f64> {
        Ok(fleet.metric(DOWNLOADED, labels).await? / layer.bytes.len() as f64)
    };
    let within = copies(&[("source", "peer"), ("nearness", "rack")]).await?;
    let across = copies(&[("source", "peer"), ("nearness", "zone")]).await?;
    let gateway = copies(&[("source", "gateway")]).await?;
    // What one of the two has from the gateway the other has from the first. A mesh without regard to racks would
    // carry about six across.
    assert!(
        across + gateway <= 3.0,
        "{across} copies came into racks from each other, {gateway} from outside"
    );
    assert!(within >= 9.0, "{within} copies went within racks");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn podman_and_skopeo_get_every_blob_through_the_mirror_that_gave_the_manifest() -> Result<()> {
    let mut lab = Lab::start("podman-skopeo", LabSpec::nodes(3)).await?;
    let registry = RegistrySpec::plain().with_tls().for_user("robot", "s3cret").unknown_to_nodes();
    let fleet = Fleet::start(&mut lab, FleetSpec::before(registry)).await?;
    let image = fleet.publish(&LAYERS).await?;
    // These send no `ns`; the mirror's location names the registry.
    let mirror = format!("{MIRROR}/{}", fleet.registry.authority());
    let [first, second, third] = lab.nodes() else { unreachable!("three nodes were asked for") };
    let podmen = [first, second].map(|it| Podman::new(it, &fleet.registry, Some(&mirror)));
    let podmen = podmen.into_iter().collect::<Result<Vec<_>>>()?;
    let by_podman = try_join_all(podmen.iter().map(|it| it.pull(&fleet.registry, &image)));
    let by_skopeo = skopeo::copy(third, &fleet.registry, &image, Some(&mirror));
    try_join(by_podman, by_skopeo).await?;
    try_join_all(podmen.iter().map(|it| it.check(&fleet.registry, &image))).await?;
    check_read_once(&fleet, &image);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn docker_pulls_docker_hub_images_through_the_mirror() -> Result<()> {
    let mut lab = Lab::start("dockers", LabSpec::nodes(2)).await?;
    let hub = RegistrySpec::plain().named("hub").with_tls().playing(HUB);
    let hub = hub.for_user("robot", "s3cret").unknown_to_nodes();
    let fleet = Fleet::start(&mut lab, FleetSpec::before(hub)).await?;
    let image = fleet.publish(&LAYERS).await?;
    let starts = lab.nodes().iter().map(|it| Docker::start(it, &fleet.registry, &[MIRROR]));
    let dockers = try_join_all(starts).await?;
    try_join_all(dockers.iter().map(|it| it.pull(&image))).await?;
    try_join_all(dockers.iter().map(|it| it.check(&image))).await?;
    check_read_once(&fleet, &image);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_kubelets_way_pulls_through_the_mirror() -> Result<()> {
    let mut lab = Lab::start("kubelets", LabSpec::nodes(2)).await?;
    let fleet = Fleet::start(&mut lab, FleetSpec::private()).await?;
    let image = fleet.publish(&LAYERS).await?;
    let nodes = fleet.containerds().await?;
    try_join_all(nodes.iter().map(|it| it.pull_by_cri(&fleet.registry, &image))).await?;
    nodes.iter().try_for_each(|it| it.check_content(&image))?;
    check_read_once(&fleet, &image);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_pull_on_a_node_comes_from_its_cache() -> Result<()> {
    let mut lab = Lab::start("second-pull", LabSpec::nodes(1)).await?;
    let fleet = Fleet::start(&mut lab, FleetSpec::private()).await?;
    let image = fleet.publish(&LAYERS).await?;
    let (node, sidecar) = (&fleet.containerds().await?[0], &fleet.sidecars[0]);
    node.pull(&fleet.registry, &image).await?;
    let downloaded = sidecar.metric(DOWNLOADED, &[]).await?;

    node.forget(&fleet.registry, &image).await?;
    node.pull(&fleet.registry, &image).await?;
    node.check(&fleet.registry, &image).await?;
    let layers: usize = image.layers.iter().map(|it| it.bytes.len()).sum();
    let from_cache = sidecar.metric(FROM_CACHE, &[]).await?;
    assert!(from_cache >= layers as f64, "{from_cache} bytes of {layers} from the cache");
    let more = sidecar.metric(DOWNLOADED, &[]).await? - downloaded;
    assert!(more < 1.0, "{more} bytes downloaded again");
    check_read_once(&fleet, &image);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_callers_credential_opened_stays_shut_to_a_caller_without() -> Result<()> {
    let mut lab = Lab::start("own-credential", LabSpec::nodes(2)).await?;
    let spec = FleetSpec::before(RegistrySpec::plain().for_user("alice", "s3cret"));
    let fleet = Fleet::start(&mut lab, spec).await?;
    let image = fleet.publish(&LAYERS).await?;
    let nodes = fleet.containerds().await?;
    nodes[0].pull(&fleet.registry, &image).await?;
    nodes[0].check(&fleet.registry, &image).await?;
    check_read_once(&fleet, &image);

    // The first node holds the layer, the second could have it from there.
    for node in 0..2 {
        let answer = fleet.read(node, &image, &image.layers[0], &[]).await?;
        assert_eq!(answer.status, 401);
        assert!(answer.header("www-authenticate").is_some_and(|it| it.starts_with("Basic ")));
    }
    nodes[1].pull(&fleet.registry, &image).await?;
    nodes[1].check(&fleet.registry, &image).await?;
    check_read_once(&fleet, &image);
    Ok(())
}

// === Clients of one sidecar ===

/// A node whose link takes a few seconds for the layer of an image.
async fn slow_node(name: &str) -> Result<(Lab, Fleet, Image)> {
    let mut lab = Lab::start(name, LabSpec::nodes(1).at(Mbit(40))).await?;
    let fleet = Fleet::start(&mut lab, FleetSpec::private()).await?;
    let image = fleet.publish(&[12 << 20]).await?;
    Ok((lab, fleet, image))
}

/// Asks a node's sidecar for a blob, reads the first bytes and goes away.
async fn begin_and_leave(fleet: &Fleet, image: &Image, blob: &Blob) -> Result<()> {
    let client = fleet.sidecars[0].host.client::<Full<Bytes>>();
    let response = client.request(fleet.ask_blob(image, blob).body(Full::default())?).await?;
    let first = response.into_body().frame().await.context("no body")??;
    let first = first.into_data().unwrap_or_default();
    assert_eq!(first, blob.bytes[..first.len()]);
    assert!(first.len() < blob.bytes.len());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn many_clients_of_one_node_share_one_download() -> Result<()> {
    let (_lab, fleet, image) = slow_node("many-clients").await?;
    let layer = &image.layers[0];
    let asking = (0..8).map(async |_| {
        let request = fleet.ask_blob(&image, layer).body(Full::default())?;
        fleet.sidecars[0].host.send(request).await
    });
    for response in try_join_all(asking).await? {
        assert_eq!(response.status(), 200);
        assert!(*response.body() == layer.bytes, "another content");
    }
    let downloaded = fleet.metric(DOWNLOADED, &[]).await?;
    assert!((downloaded - layer.bytes.len() as f64).abs() < 1.0, "{downloaded} bytes downloaded");
    assert!(fleet.registry.front.blob_bytes_sent() <= layer.bytes.len() as u64);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_does_not_lose_the_download() -> Result<()> {
    let (_lab, fleet, image) = slow_node("client-leaves").await?;
    let layer = &image.layers[0];
    begin_and_leave(&fleet, &image, layer).await?;
    let sidecar = &fleet.sidecars[0];
    wait::until("download without a client", DEADLINE, async || {
        let downloaded = sidecar.metric(DOWNLOADED, &[]).await.ok()?;
        let active = sidecar.metric("shoal_sidecar_active_blobs", &[]).await.ok()?;
        (downloaded >= layer.bytes.len() as f64 && active < 1.0).then_some(())
    })
    .await?;

    let request = fleet.ask_blob(&image, layer).body(Full::default())?;
    assert!(*sidecar.host.send(request).await?.body() == layer.bytes, "another content");
    let from_cache = sidecar.metric(FROM_CACHE, &[]).await?;
    assert!((from_cache - layer.bytes.len() as f64).abs() < 1.0, "{from_cache} bytes from the cache");
    Ok(())
}
