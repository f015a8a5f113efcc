//! The reference and the registry in one: nginx, which sends a blob from the page cache with `sendfile`.
//!
//! To Shoal it is a registry with one blob; to the bench's client a server of the same bytes without Shoal.

use std::fs::{self, File};
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use http::Uri;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use shoal_model::Digest;
use shoal_tests::command::Launch;
use shoal_tests::wait;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::process::Child;

use super::download::Place;
use super::{blobs, cpu};
use crate::region::source::Source;

const START_DEADLINE: Duration = Duration::from_secs(10);
const REPOSITORY: &str = "bench/blob";

/// A running nginx with one blob.
pub(super) struct Origin {
    address: SocketAddr,
    digest: Digest,
    nginx: Child,
    _dir: TempDir,
}

impl Origin {
    /// Makes a blob of `size` random bytes and serves it on a free port.
    pub(super) async fn start(size: usize) -> Result<Self> {
        let dir =
            tempfile::Builder::new().prefix("shoal-bench-").tempdir().context("no temporary directory")?;
        let digest = write_blob(&dir.path().join("www/v2").join(REPOSITORY).join("blobs"), size)?;
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let config = dir.path().join("nginx.conf");
        fs::write(&config, settings(dir.path(), address))?;
        // Its workers end with it only when it is asked to end.
        let nginx = Launch::new("setpriv").args(["--pdeathsig", "TERM", "--", "nginx", "-c"]).arg(config);
        let nginx = nginx.command().kill_on_drop(false).spawn().context("nginx: cannot be started")?;
        wait::until("nginx", START_DEADLINE, async || TcpStream::connect(address).await.ok()).await?;
        Ok(Self { address, digest, nginx, _dir: dir })
    }

    /// The blob here, without Shoal.
    pub(super) fn direct(&self) -> Place {
        Place { server: self.address, path: self.path() }
    }

    /// The blob at a mirror.
    pub(super) fn through(&self, mirror: SocketAddr) -> Place {
        Place { server: mirror, path: format!("{}?ns={}", self.path(), self.address) }
    }

    /// What Shoal is told of it.
    pub(super) fn source(&self) -> Result<Source> {
        Source::new(Uri::try_from(format!("http://{}", self.address))?, true, REPOSITORY)
    }

    /// The processes that it consists of.
    pub(super) fn processes(&self) -> Result<Vec<u32>> {
        cpu::family(self.nginx.id().context("nginx has ended")?)
    }

    fn path(&self) -> String {
        format!("/v2/{REPOSITORY}/blobs/{}", self.digest)
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        // One that has ended needs no signal.
        let _ = self.nginx.id().map(|it| kill(Pid::from_raw(it as i32), Signal::SIGTERM));
    }
}

fn write_blob(dir: &Path, size: usize) -> Result<Digest> {
    let (digest, bytes) = blobs::make(1, size).next().context("one blob is made")?;
    fs::create_dir_all(dir)?;
    File::create(dir.join(digest.to_string()))?.write_all(&bytes)?;
    Ok(digest)
}

fn settings(dir: &Path, address: SocketAddr) -> String {
    let dir = dir.display();
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    let temporary = temporary.map(|it| format!("{it}_temp_path {dir}/{it};")).join(" ");
    format!(
        "daemon off; user root; worker_processes 2; pid {dir}/nginx.pid; error_log {dir}/error.log;
        events {{ worker_connections 256; }}
        http {{
            {temporary} access_log off; sendfile on; tcp_nopush on; default_type application/octet-stream;
            server {{
                listen {address}; root {dir}/www;
                location = /v2/ {{ return 200; }}
            }}
        }}"
    )
}
