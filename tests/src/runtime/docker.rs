//! dockerd on a node. Its `registry-mirrors` apply to Docker Hub only, so the lab plays Docker Hub.
//!
//! A registry of the lab with TLS answers to [`HUB`], the name that dockerd asks for images without a
//! registry in their name; dockerd is told to believe that registry's authority.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;

use crate::command::Launch;
use crate::host::Host;
use crate::image::Image;
use crate::process::Process;
use crate::registry::Registry;
use crate::runtime::PULL_DEADLINE;

/// The name to give [`RegistrySpec::playing`](crate::registry::RegistrySpec::playing).
pub const HUB: &str = "registry-1.docker.io";

/// A running dockerd.
#[derive(Debug)]
pub struct Docker {
    host: Host,
    /// The daemon.
    pub process: Process,
}

impl Docker {
    /// Starts dockerd on a node. `hub` plays Docker Hub, `mirrors` are asked before it.
    pub async fn start(host: &Host, hub: &Registry, mirrors: &[&str]) -> Result<Self> {
        let dir = host.dir().join("docker");
        std::fs::create_dir_all(&dir)?;
        let config = dir.join("daemon.json");
        let settings = json!({
            "data-root": dir.join("root"),
            "exec-root": dir.join("exec"),
            "pidfile": dir.join("pid"),
            "hosts": [format!("unix://{}", socket(host).display())],
            "bridge": "none",
            "iptables": false,
            "registry-mirrors": mirrors,
        });
        std::fs::write(&config, settings.to_string())?;
        let ca = hub.ca().context("Docker Hub speaks TLS, so must the registry that plays it")?;
        let launch = Launch::new("dockerd").arg("--config-file").arg(&config).env("SSL_CERT_FILE", ca);
        let mut process = host.start("dockerd", launch)?;
        process.wait_for_log("API listen on").await?;
        Ok(Self { host: host.clone(), process })
    }

    /// Pulls an image by tag from Docker Hub.
    pub async fn pull(&self, image: &Image) -> Result<()> {
        let pull = self.docker().args(["pull", "--quiet", &reference(image)]);
        self.host.run(pull, PULL_DEADLINE).await.map(drop)
    }

    /// Fails unless the unpacked files are the image's.
    pub async fn check(&self, image: &Image) -> Result<()> {
        // Exporting a container needs it created, never run. Docker adds a few files of its own.
        let script = "into=$(mktemp -d); \"$@\" export $(\"$@\" create $REF) | tar -x -C $into; \
                      cd $into; find data -type f | xargs sha256sum; rm -r $into";
        let launch = self
            .docker()
            .wrapped_by(Launch::shell(script))
            .env("REF", reference(image))
            .env("TMPDIR", self.host.dir());
        image.check_files(&self.host.run(launch, Duration::from_secs(60)).await?)
    }

    fn docker(&self) -> Launch {
        Launch::new("docker").arg("--host").arg(format!("unix://{}", socket(&self.host).display()))
    }
}

/// The image as Docker Hub's: without a registry in its name.
fn reference(image: &Image) -> String {
    format!("{}:{}", image.repository, image.tag)
}

fn socket(host: &Host) -> PathBuf {
    host.dir().join("docker.sock")
}
