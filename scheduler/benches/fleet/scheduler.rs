//! The scheduler's process, and what is seen of it from outside.

use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command};
use std::time::Duration;
use std::{fs, io};

use anyhow::{Context, Result, bail, ensure};
use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;
use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

/// How long anything may take that is waited for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(300);
/// How often it is looked for. Each look at its metrics costs the scheduler a little, which counts as its own.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What it reads and what it writes.
const CONFIG: &str = "scheduler.yaml";
const LOG: &str = "scheduler.log";

/// A scheduler's process; it is killed when dropped.
pub(crate) struct Scheduler {
    child: Child,
    /// Where nodes connect.
    pub(crate) listen: SocketAddr,
    admin: SocketAddr,
    dir: TempDir,
}

impl Scheduler {
    /// Starts the release binary and waits until it is ready. It proves nothing and encrypts nothing.
    pub(crate) async fn start(gateway: SocketAddr) -> Result<Self> {
        // Both are held until both are chosen, so that they differ.
        let free = [TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?];
        let [listen, admin] = [free[0].local_addr()?, free[1].local_addr()?];
        drop(free);
        let dir = tempfile::tempdir().context("no temporary directory")?;
        let settings = json!({
            "listen": listen,
            "admin": { "listen": admin },
            "gateways": [format!("http://{gateway}")],
            "security": { "mtls": false },
        });
        fs::write(dir.path().join(CONFIG), settings.to_string())?;
        let mut it = Self { child: spawn(&dir)?, listen, admin, dir };
        it.wait_until_ready().await?;
        Ok(it)
    }

    async fn wait_until_ready(&mut self) -> Result<()> {
        let mut ended = None;
        until("the scheduler is ready", async || {
            ended = self.child.try_wait().ok().flatten();
            ended.is_some() || self.get("/readyz").await.is_ok()
        })
        .await?;
        match ended {
            Some(status) => bail!("the scheduler has ended, {status}: {}", self.last_words()),
            None => Ok(()),
        }
    }

    /// Ends the process as a crash of it would.
    pub(crate) fn kill(&mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(drop)
    }

    /// Starts the process anew where it was.
    pub(crate) async fn restart(&mut self) -> Result<()> {
        self.child = spawn(&self.dir)?;
        self.wait_until_ready().await
    }

    fn last_words(&self) -> String {
        let log = fs::read_to_string(self.dir.path().join(LOG)).unwrap_or_default();
        log.lines().next_back().unwrap_or("it said nothing").to_owned()
    }

    /// CPU time of all its threads so far, in the kernel included.
    pub(crate) fn cpu_used(&self) -> Result<Duration> {
        let clock = clock_getcpuclockid(Pid::from_raw(self.child.id().try_into()?))?;
        Ok(clock_gettime(clock)?.into())
    }

    /// Its resident memory, in bytes.
    pub(crate) fn resident(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|it| it.strip_prefix("VmRSS:"));
        let kib = line.and_then(|it| it.trim().strip_suffix(" kB")).context("no VmRSS")?;
        Ok(kib.parse::<u64>()? << 10)
    }

    /// What nodes have said of blobs and the tables have taken in.
    pub(crate) async fn n_heard(&self) -> Result<u64> {
        self.metric("shoal_scheduler_messages_total").await
    }

    /// Waits until the tables have taken in so much in all.
    pub(crate) async fn wait_until_heard(&self, n_heard: u64) -> Result<()> {
        let what = format!("{n_heard} messages taken in");
        until(&what, async || self.n_heard().await.is_ok_and(|it| it >= n_heard)).await
    }

    async fn metric(&self, name: &str) -> Result<u64> {
        let text = self.get("/metrics").await?;
        let value = text.lines().find_map(|it| it.strip_prefix(name)?.strip_prefix(' '));
        Ok(value.with_context(|| format!("no metric {name}"))?.parse()?)
    }

    async fn get(&self, path: &str) -> Result<String> {
        timeout(PATIENCE, self.ask(path)).await.with_context(|| format!("GET {path}: no answer"))?
    }

    async fn ask(&self, path: &str) -> Result<String> {
        let mut stream = TcpStream::connect(self.admin).await?;
        let req = format!("GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.admin);
        stream.write_all(req.as_bytes()).await?;
        let mut response = String::new();
        stream.read_to_string(&mut response).await?;
        ensure!(
            response.starts_with("HTTP/1.1 200 "),
            "GET {path}: {}",
            response.lines().next().unwrap_or("")
        );
        Ok(response)
    }
}

impl Drop for Scheduler {
    fn drop(&mut self) {
        // One that has ended already cannot be killed, and needs not.
        let _: io::Result<_> = self.kill();
    }
}

fn spawn(dir: &TempDir) -> Result<Child> {
    let log = fs::File::create(dir.path().join(LOG))?;
    let mut command = Command::new(env!("CARGO_BIN_EXE_shoal-scheduler"));
    command.arg("--config").arg(dir.path().join(CONFIG)).stdout(log.try_clone()?).stderr(log);
    command.spawn().context("the scheduler cannot be started")
}

/// Looks until something is so.
pub(crate) async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) -> Result<()> {
    let looking = async {
        while !is_so().await {
            sleep(LOOK_EVERY).await;
        }
    };
    timeout(PATIENCE, looking).await.with_context(|| format!("{what}: not so within {PATIENCE:?}"))
}
