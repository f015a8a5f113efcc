//! The lab's runtimes, proved by real pulls straight from the lab's registries.

use anyhow::Result;
use futures_util::future::try_join_all;
use shoal_tests::image::{Image, ImageSpec, Packing};
use shoal_tests::lab::{Lab, LabSpec};
use shoal_tests::registry::{Registry, RegistrySpec};
use shoal_tests::runtime::MIRROR;
use shoal_tests::runtime::containerd::Containerd;
use shoal_tests::runtime::docker::{Docker, HUB};
use shoal_tests::runtime::podman::Podman;
use shoal_tests::runtime::skopeo;

async fn pushed(registry: &Registry) -> Result<Image> {
    let image = Image::build(&ImageSpec { layers: vec![3 << 20, 1 << 20], ..ImageSpec::new("team/app", 0) })?;
    registry.push(&image).await?;
    Ok(image)
}

fn private() -> RegistrySpec {
    RegistrySpec::plain().for_user("alice", "s3cret")
}

#[tokio::test(flavor = "multi_thread")]
async fn four_containerds_pull_from_a_private_registry() -> Result<()> {
    let mut lab = Lab::start("four-containerds", LabSpec::nodes(4)).await?;
    let registry = lab.registry(private()).await?;
    let image = pushed(&registry).await?;
    let nodes = try_join_all(lab.nodes().iter().map(Containerd::start)).await?;
    for node in &nodes {
        node.go_direct(&registry)?;
    }
    try_join_all(nodes.iter().map(|it| it.pull(&registry, &image))).await?;
    try_join_all(nodes.iter().map(|it| it.check(&registry, &image))).await?;

    assert_eq!(registry.front.blob_bytes_sent(), 4 * image.n_bytes());
    assert!(registry.host.traffic().await?.sent > 4 * image.n_bytes());
    let reads = registry.front.seen().into_iter().filter(|it| it.is_blob_read() && it.status == 200);
    assert!(reads.into_iter().all(|it| it.authorization.as_deref() == Some("Basic")));

    nodes[0].forget(&registry, &image).await?;
    assert!(nodes[0].check_content(&image).is_err());
    nodes[0].fetch(&registry, &image).await?;
    nodes[0].check_content(&image)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_kubelets_way_pulls_over_tls_past_a_dead_mirror() -> Result<()> {
    let mut lab = Lab::start("cri", LabSpec::nodes(1)).await?;
    let registry = lab.registry(private().with_tls()).await?;
    let image = pushed(&registry).await?;
    let node = Containerd::start(&lab.nodes()[0]).await?;
    node.go_through(&registry, MIRROR)?;
    node.pull_by_cri(&registry, &image).await?;
    node.check_content(&image)
}

#[tokio::test(flavor = "multi_thread")]
async fn podman_and_skopeo_pull() -> Result<()> {
    let mut lab = Lab::start("podman", LabSpec::nodes(1)).await?;
    let registry = lab.registry(private().with_tls()).await?;
    let image = pushed(&registry).await?;
    let node = &lab.nodes()[0];
    let podman = Podman::new(node, &registry, None)?;
    podman.pull(&registry, &image).await?;
    podman.check(&registry, &image).await?;
    skopeo::copy(node, &registry, &image, Some(MIRROR)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn docker_pulls_from_what_plays_docker_hub() -> Result<()> {
    let mut lab = Lab::start("docker", LabSpec::nodes(1)).await?;
    let hub = lab.registry(RegistrySpec::plain().named("hub").with_tls().playing(HUB)).await?;
    let image = Image::build(&ImageSpec { packing: Packing::Tar, ..ImageSpec::new("team/app", 1 << 20) })?;
    hub.push(&image).await?;
    let docker = Docker::start(&lab.nodes()[0], &hub, &[MIRROR]).await?;
    docker.pull(&image).await?;
    docker.check(&image).await
}
