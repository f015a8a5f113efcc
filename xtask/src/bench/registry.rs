//! A real registry with many blobs: CNCF Distribution on the loopback, as its package sets it up.
//!
//! Its directory is filled before it starts, which is faster than pushing and leaves it the same.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use http::Uri;
use shoal_model::Digest;
use shoal_tests::command::Launch;
use shoal_tests::wait;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::process::Child;

use super::blobs;
use super::download::Place;
use crate::region::source::Source;

const START_DEADLINE: Duration = Duration::from_secs(10);
const REPOSITORY: &str = "bench/blobs";

/// A running registry; dropping it ends it.
pub(super) struct Registry {
    address: SocketAddr,
    digests: Vec<Digest>,
    _process: Child,
    _dir: TempDir,
}

impl Registry {
    /// Serves so many blobs of `size` bytes on a free port.
    pub(super) async fn start(n_blobs: usize, size: usize) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("shoal-bench-").tempdir()?;
        let blobs = blobs::make(n_blobs, size).map(|(digest, bytes)| {
            keep(dir.path(), digest, &bytes)?;
            Ok(digest)
        });
        let digests = blobs.collect::<Result<_>>().context("registry: its directory cannot be filled")?;
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let config = dir.path().join("config.yml");
        fs::write(&config, settings(dir.path(), address))?;
        let launch = Launch::new("docker-registry").arg("serve").arg(config).bound_to_us();
        let process = launch.command().spawn().context("docker-registry: cannot be started")?;
        wait::until("docker-registry", START_DEADLINE, async || TcpStream::connect(address).await.ok())
            .await?;
        Ok(Self { address, digests, _process: process, _dir: dir })
    }

    /// Its blobs.
    pub(super) fn digests(&self) -> &[Digest] {
        &self.digests
    }

    /// What Shoal is told of it.
    pub(super) fn source(&self) -> Result<Source> {
        Source::new(Uri::try_from(format!("http://{}", self.address))?, true, REPOSITORY)
    }

    /// Its blobs here, without Shoal.
    pub(super) fn direct(&self) -> Vec<Place> {
        let place = |it| Place { server: self.address, path: path(it) };
        self.digests.iter().map(place).collect()
    }

    /// Its blobs at a mirror.
    pub(super) fn through(&self, mirror: SocketAddr) -> Vec<Place> {
        let place = |it| Place { server: mirror, path: format!("{}?ns={}", path(it), self.address) };
        self.digests.iter().map(place).collect()
    }
}

fn path(digest: &Digest) -> String {
    format!("/v2/{REPOSITORY}/blobs/{digest}")
}

/// Puts a blob, and the link that says that the repository has it, where the registry looks for them.
fn keep(dir: &Path, digest: Digest, bytes: &[u8]) -> Result<()> {
    let text = digest.to_string();
    let (algorithm, hex) = text.split_once(':').context("a digest names its algorithm")?;
    let root = dir.join("docker/registry/v2");
    let blob = root.join("blobs").join(algorithm).join(&hex[..2]).join(hex);
    let link = root.join("repositories").join(REPOSITORY).join("_layers").join(algorithm).join(hex);
    [&blob, &link].into_iter().try_for_each(fs::create_dir_all)?;
    fs::write(blob.join("data"), bytes)?;
    Ok(fs::write(link.join("link"), &text)?)
}

fn settings(dir: &Path, address: SocketAddr) -> String {
    let dir = dir.display();
    format!(
        "version: 0.1
log: {{ level: error, accesslog: {{ disabled: true }} }}
storage: {{ filesystem: {{ rootdirectory: {dir} }}, cache: {{ blobdescriptor: inmemory }} }}
http: {{ addr: \"{address}\" }}
"
    )
}
