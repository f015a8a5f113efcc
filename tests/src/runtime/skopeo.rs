//! Skopeo on a node: one copy of an image into a directory, blobs as they came.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use crate::command::Launch;
use crate::host::Host;
use crate::image::Image;
use crate::registry::Registry;
use crate::runtime::{PULL_DEADLINE, registries_conf};

/// Copies an image to a node, through a mirror or directly; fails unless every blob arrived as it was.
pub async fn copy(host: &Host, registry: &Registry, image: &Image, mirror: Option<&str>) -> Result<()> {
    let conf = host.dir().join("skopeo-registries.conf");
    std::fs::write(&conf, registries_conf(registry, mirror))?;
    let into: PathBuf = host.dir().join("skopeo");
    let mut skopeo = Launch::new("skopeo")
        .args(["--insecure-policy", "--registries-conf"])
        .arg(&conf)
        .args(["copy", "--quiet"]);
    if let Some(credentials) = registry.nodes_credentials() {
        skopeo = skopeo.args(["--src-creds", &credentials.pair()]);
    }
    if let Some(ca) = registry.ca().and_then(|it| it.parent()) {
        skopeo = skopeo.arg("--src-cert-dir").arg(ca);
    }
    let skopeo =
        skopeo.arg(format!("docker://{}", registry.reference(image))).arg(format!("dir:{}", into.display()));
    host.run(skopeo, PULL_DEADLINE).await?;

    for blob in image.blobs() {
        let copied = std::fs::read(into.join(blob.digest.hex()))
            .with_context(|| format!("{}: blob {} was not copied", host.name(), blob.digest))?;
        ensure!(copied == blob.bytes, "{}: blob {} differs", host.name(), blob.digest);
    }
    Ok(())
}
