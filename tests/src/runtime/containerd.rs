//! containerd as the node's runtime, with all its state in the node's directory.
//!
//! A registry's `hosts.toml` is read at each pull, so it can change while containerd runs. In containerd
//! 1.6 a file without any `[host]` table has no effect, hence the table for the direct way too; and there
//! `ctr` itself speaks to the registry, hence `ctr` runs on the node.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::command::Launch;
use crate::host::Host;
use crate::image::Image;
use crate::process::Process;
use crate::registry::{Credentials, Registry};
use crate::runtime::{PULL_DEADLINE, cri};

const COMMAND_DEADLINE: Duration = Duration::from_secs(60);

/// A running containerd.
#[derive(Debug)]
pub struct Containerd {
    /// The node it runs on.
    pub host: Host,
    /// The daemon.
    pub process: Process,
}

impl Containerd {
    /// Starts containerd, CRI included, on a node.
    pub async fn start(host: &Host) -> Result<Self> {
        let config = host.dir().join("containerd.toml");
        std::fs::write(&config, settings(host))?;
        let launch = Launch::new("containerd")
            .arg("--config")
            .arg(&config)
            // Many of them share few cores.
            .env("GOMAXPROCS", "2");
        let process = host.start("containerd", launch)?;
        let mut this = Self { host: host.clone(), process };
        this.wait_until_ready().await?;
        Ok(this)
    }

    async fn wait_until_ready(&mut self) -> Result<()> {
        let version = self.ctr().arg("version");
        let host = self.host.clone();
        let answers = async || host.run(version.clone(), COMMAND_DEADLINE).await.is_ok();
        self.process.wait_for("answers", answers).await
    }

    // === Where it pulls from ===

    /// Pulls of this registry's images go to the registry itself.
    pub fn go_direct(&self, registry: &Registry) -> Result<()> {
        self.write_hosts(registry, &registry.url())
    }

    /// Pulls of this registry's images go to a mirror first, and to the registry when that fails.
    pub fn go_through(&self, registry: &Registry, mirror: &str) -> Result<()> {
        self.write_hosts(registry, mirror)
    }

    fn write_hosts(&self, registry: &Registry, first: &str) -> Result<()> {
        let ca = match registry.ca() {
            Some(file) => format!("ca = {file:?}\n"),
            None => String::new(),
        };
        let url = registry.url();
        let host_ca = if first == url { ca.as_str() } else { "" };
        let text = format!(
            "server = {url:?}\n{ca}\n[host.{first:?}]\ncapabilities = [\"pull\", \"resolve\"]\n{host_ca}"
        );
        let dir = self.hosts_dir().join(registry.authority());
        std::fs::create_dir_all(&dir)?;
        std::fs::write(dir.join("hosts.toml"), text)
            .with_context(|| format!("{}: hosts.toml not written", registry.authority()))
    }

    // === Pulling ===

    /// Pulls and unpacks an image by tag, as its registry's user if it has one; returns the time it took.
    pub async fn pull(&self, registry: &Registry, image: &Image) -> Result<Duration> {
        self.run_timed(self.pull_command(registry, image)).await
    }

    /// The same without unpacking.
    pub async fn fetch(&self, registry: &Registry, image: &Image) -> Result<Duration> {
        self.run_timed(self.fetch_command(registry, image)).await
    }

    /// Pulls an image as a user of its registry, or as nobody in particular.
    pub async fn pull_as(&self, user: Option<&str>, registry: &Registry, image: &Image) -> Result<Duration> {
        let user = user.map(|it| registry.user(it)).transpose()?;
        self.run_timed(self.read_command(["images", "pull"], registry, image, user)).await
    }

    async fn run_timed(&self, command: Launch) -> Result<Duration> {
        let began = Instant::now();
        self.host.run(command, PULL_DEADLINE).await?;
        Ok(began.elapsed())
    }

    /// The command that pulls an image, to be run on the node.
    pub fn pull_command(&self, registry: &Registry, image: &Image) -> Launch {
        self.read_command(["images", "pull"], registry, image, registry.nodes_credentials())
    }

    /// The command that pulls without unpacking, to be run on the node.
    pub fn fetch_command(&self, registry: &Registry, image: &Image) -> Launch {
        self.read_command(["content", "fetch"], registry, image, registry.nodes_credentials())
    }

    fn read_command(
        &self,
        how: [&str; 2],
        registry: &Registry,
        image: &Image,
        user: Option<&Credentials>,
    ) -> Launch {
        let mut ctr = self.ctr().args(how).arg("--hosts-dir").arg(self.hosts_dir());
        if let Some(user) = user {
            ctr = ctr.args(["--user", &user.pair()]);
        }
        ctr.arg(registry.reference(image))
    }

    /// Pulls an image through CRI, as the kubelet does.
    pub async fn pull_by_cri(&self, registry: &Registry, image: &Image) -> Result<Duration> {
        let began = Instant::now();
        cri::pull(&self.socket(), &registry.reference(image), registry.nodes_credentials()).await?;
        Ok(began.elapsed())
    }

    /// Removes an image and its content, so that the next pull begins at nothing.
    pub async fn forget(&self, registry: &Registry, image: &Image) -> Result<()> {
        self.host.run(self.forget_command(registry, image), COMMAND_DEADLINE).await.map(drop)
    }

    /// The command of [`Containerd::forget`], to be run on the node.
    pub fn forget_command(&self, registry: &Registry, image: &Image) -> Launch {
        self.ctr().args(["images", "rm", "--sync"]).arg(registry.reference(image))
    }

    // === Looking ===

    /// Fails unless every blob of the image is in the content store, byte for byte.
    pub fn check_content(&self, image: &Image) -> Result<()> {
        let store = self.root().join("io.containerd.content.v1.content/blobs/sha256");
        for blob in image.blobs().chain([&image.manifest]) {
            let held = std::fs::read(store.join(blob.digest.hex()))
                .with_context(|| format!("{}: blob {} is not there", self.host.name(), blob.digest))?;
            ensure!(held == blob.bytes, "{}: blob {} differs", self.host.name(), blob.digest);
        }
        Ok(())
    }

    /// Fails unless the content and the unpacked files are the image's.
    pub async fn check(&self, registry: &Registry, image: &Image) -> Result<()> {
        self.check_content(image)?;
        let at = self.host.dir().join("mounted");
        // The mount is seen by this shell only; what containerd keeps for it is removed.
        let script = "at=$1; shift; mkdir -p $at; \"$@\" mount $REF $at >&2; \
                      (cd $at && find . -type f -printf '%P\\n' | xargs sha256sum); \
                      \"$@\" unmount --rm $at >&2";
        let launch = self
            .ctr()
            .arg("images")
            .wrapped_by(Launch::shell(script).arg(at))
            .env("REF", registry.reference(image));
        image.check_files(&self.host.run(launch, COMMAND_DEADLINE).await?)
    }

    fn ctr(&self) -> Launch {
        Launch::new("ctr").arg("--address").arg(self.socket())
    }

    fn root(&self) -> PathBuf {
        self.host.dir().join("containerd/root")
    }

    fn hosts_dir(&self) -> PathBuf {
        hosts_dir(&self.host)
    }

    fn socket(&self) -> PathBuf {
        socket(&self.host)
    }
}

fn hosts_dir(host: &Host) -> PathBuf {
    host.dir().join("hosts.d")
}

fn socket(host: &Host) -> PathBuf {
    host.dir().join("containerd.sock")
}

fn settings(host: &Host) -> String {
    let dir = host.dir().join("containerd");
    format!(
        r#"version = 2
root = {root:?}
state = {state:?}
[grpc]
  address = {socket:?}
[plugins."io.containerd.grpc.v1.cri"]
  # Without CAP_SYS_RESOURCE, as in many build machines, no score can be lowered.
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = {hosts:?}
  [plugins."io.containerd.grpc.v1.cri".cni]
    conf_dir = {cni:?}
"#,
        root = dir.join("root"),
        state = dir.join("state"),
        socket = socket(host),
        hosts = hosts_dir(host),
        cni = dir.join("cni"),
    )
}
