//! `cargo xtask lab`: the tests' own lab, for a person to play with.

use std::process::ExitCode;

use anyhow::{Context, Result};
use futures_util::future::try_join_all;
use shoal_model::ByteSize;
use shoal_tests::image::{Image, ImageSpec};
use shoal_tests::lab::{Lab, LabSpec};
use shoal_tests::link::Mbit;
use shoal_tests::registry::{Registry, RegistrySpec};
use shoal_tests::runtime::containerd::Containerd;

use crate::packages;

/// What lab to start.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Number of nodes.
    #[arg(long, default_value_t = 3)]
    nodes: u16,
    /// Rate of each node's link, such as 200mbit; as fast as this machine when left out.
    #[arg(long)]
    rate: Option<Mbit>,
    /// Size of the image in the registry.
    #[arg(long, default_value = "64Mi")]
    image_size: ByteSize,
}

/// Runs the command: starts the lab and keeps it until Ctrl-C.
#[tokio::main]
pub(crate) async fn run(args: &Args) -> Result<ExitCode> {
    packages::ensure_installed(&packages::LAB)?;
    let mut lab = Lab::start("play", LabSpec { rate: args.rate, ..LabSpec::nodes(args.nodes) }).await?;
    let registry = lab.registry(RegistrySpec::plain()).await?;
    let size = usize::try_from(args.image_size.0).context("image larger than this machine can address")?;
    let image = Image::build(&ImageSpec::new("team/app", size))?;
    registry.push(&image).await?;
    let nodes = try_join_all(lab.nodes().iter().map(Containerd::start)).await?;
    for node in &nodes {
        node.go_direct(&registry)?;
    }

    explain(&registry, &image, &nodes);
    tokio::signal::ctrl_c().await.context("cannot wait for Ctrl-C")?;
    println!("\nremoving the lab");
    Ok(ExitCode::SUCCESS)
}

fn explain(registry: &Registry, image: &Image, nodes: &[Containerd]) {
    println!("registry: {}, reached as {}", registry.host.address(), registry.url());
    println!("image: {} of {} bytes\n", registry.reference(image), image.n_bytes());
    for node in nodes {
        let (host, pull) = (&node.host, node.pull_command(registry, image));
        println!("{} ({}), to pull:\n  {} {pull}", host.name(), host.address(), host.enter().display());
    }
    println!(
        "\nAny program runs on a node the same way. Logs lie beside `enter`, and a changed hosts.d counts at \
         the next pull.\nCtrl-C ends the lab and removes it."
    );
}
