//! Podman on a node. It has no daemon; all its state is in the node's directory.
//!
//! It chooses mirror or registry once per pull, at the manifest.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;

use crate::command::Launch;
use crate::host::Host;
use crate::image::Image;
use crate::registry::Registry;
use crate::runtime::{PULL_DEADLINE, registries_conf};

/// Podman's state on a node.
#[derive(Debug)]
pub struct Podman {
    host: Host,
}

impl Podman {
    /// Sets podman up on a node, to pull this registry's images through a mirror, or directly without one.
    pub fn new(host: &Host, registry: &Registry, mirror: Option<&str>) -> Result<Self> {
        std::fs::write(conf(host), registries_conf(registry, mirror))?;
        Ok(Self { host: host.clone() })
    }

    /// Pulls an image by tag.
    pub async fn pull(&self, registry: &Registry, image: &Image) -> Result<()> {
        let mut podman = self.podman().args(["pull", "--quiet"]);
        if let Some(credentials) = registry.nodes_credentials() {
            podman = podman.args(["--creds", &credentials.pair()]);
        }
        if let Some(ca) = registry.ca().and_then(|it| it.parent()) {
            podman = podman.arg("--cert-dir").arg(ca);
        }
        self.host.run(podman.arg(registry.reference(image)), PULL_DEADLINE).await.map(drop)
    }

    /// Fails unless the unpacked files are the image's.
    pub async fn check(&self, registry: &Registry, image: &Image) -> Result<()> {
        let script = "cd $(\"$@\" image mount $REF) && find . -type f -printf '%P\\n' | xargs sha256sum";
        let launch = self.podman().wrapped_by(Launch::shell(script)).env("REF", registry.reference(image));
        image.check_files(&self.host.run(launch, Duration::from_secs(60)).await?)
    }

    fn podman(&self) -> Launch {
        let dir = self.host.dir().join("podman");
        Launch::new("podman")
            .env("CONTAINERS_REGISTRIES_CONF", conf(&self.host))
            .arg("--root")
            .arg(dir.join("root"))
            .arg("--runroot")
            .arg(dir.join("run"))
            .arg("--tmpdir")
            .arg(dir.join("tmp"))
            .args(["--storage-driver", "overlay", "--cgroup-manager", "cgroupfs", "--events-backend", "file"])
    }
}

fn conf(host: &Host) -> PathBuf {
    host.dir().join("podman-registries.conf")
}
