//! A sidecar without a region: it starts, and what it cannot serve the registry does.

use anyhow::Result;
use shoal_tests::fleet::{admin, join_token, sidecar_settings};
use shoal_tests::image::{Image, ImageSpec};
use shoal_tests::lab::{Lab, LabSpec};
use shoal_tests::registry::RegistrySpec;
use shoal_tests::runtime::MIRROR;
use shoal_tests::runtime::containerd::Containerd;
use shoal_tests::shoal::{Part, Service};

#[tokio::test(flavor = "multi_thread")]
async fn a_sidecar_that_starts_before_everything_else_holds_no_pull_up() -> Result<()> {
    let mut lab = Lab::start("alone", LabSpec::nodes(1)).await?;
    let registry = lab.registry(RegistrySpec::plain().for_user("robot", "s3cret")).await?;
    // There is a machine, and nothing runs on it.
    let gateway = lab.host("gateway").await?;
    let token = join_token(&gateway, Part::Sidecar);
    std::fs::create_dir_all(token.parent().unwrap_or(&token))?;
    // Well formed, and of a region that there is not yet.
    std::fs::write(&token, format!("shoal-join.{}.{}", "00".repeat(32), "A".repeat(43)))?;
    let node = &lab.nodes()[0];
    let settings = sidecar_settings(node, &gateway, &registry);
    let sidecar = Service::start(node, Part::Sidecar, &settings, admin(Part::Sidecar)).await?;

    let image = Image::build(&ImageSpec::new("team/app", 3 << 20))?;
    registry.push(&image).await?;
    let containerd = Containerd::start(node).await?;
    containerd.go_through(&registry, MIRROR)?;
    containerd.pull(&registry, &image).await?;
    containerd.check(&registry, &image).await?;
    assert!(sidecar.metric("shoal_sidecar_pulls_total", &[]).await? > 0.0, "the mirror was asked");
    Ok(())
}
