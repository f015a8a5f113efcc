//! A program of the lab that stays: started, watched, hurt and ended.
//!
//! It leads a process group of its own, so that ending it ends its children too, and its output goes to
//! one log file over all restarts. A wait that fails carries the end of that log: the reason is nearly
//! always there.

use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use shoal_model::ByteSize;
use tokio::process::Child;
use tokio::time::timeout;

use crate::command::Launch;
use crate::host::Host;
use crate::wait;

/// How long a program may take until it can be used.
const START_DEADLINE: Duration = Duration::from_secs(30);
const LOG_TAIL_LINES: usize = 30;

/// A running program. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    name: String,
    host: Host,
    launch: Launch,
    log: PathBuf,
    child: Child,
}

impl Process {
    pub(crate) fn start(host: &Host, name: &str, launch: Launch) -> Result<Self> {
        let log = host.dir().join(format!("{name}.log"));
        let child = spawn(&launch, &log).with_context(|| format!("{name}: cannot be started"))?;
        Ok(Self { name: name.into(), host: host.clone(), launch, log, child })
    }

    /// The process id; fails when the program has ended.
    pub fn pid(&self) -> Result<Pid> {
        let pid = self.child.id().with_context(|| format!("{}: has ended", self.name))?;
        Ok(Pid::from_raw(pid.cast_signed()))
    }

    // === Waiting ===

    /// Waits until somebody listens on the host's port, seen from the host itself.
    pub async fn wait_for_port(&mut self, port: u16) -> Result<()> {
        let host = self.host.clone();
        let at = (IpAddr::V4(Ipv4Addr::LOCALHOST), port).into();
        self.wait_for(&format!("port {port}"), async || host.connect(at).await.is_ok()).await
    }

    /// Waits until the log holds a text.
    pub async fn wait_for_log(&mut self, text: &str) -> Result<()> {
        let log = self.log.clone();
        let holds = async || std::fs::read_to_string(&log).is_ok_and(|it| it.contains(text));
        self.wait_for(&format!("log line {text:?}"), holds).await
    }

    /// Waits until `is_there` says so; fails at once when the program ends first.
    pub async fn wait_for(&mut self, what: &str, is_there: impl AsyncFn() -> bool) -> Result<()> {
        let waited = {
            let seen = wait::until(what, START_DEADLINE, async || is_there().await.then_some(()));
            tokio::select! {
                seen = seen => seen,
                status = self.child.wait() => Err(anyhow!("{what}: the program ended first, {}", status?)),
            }
        };
        waited.with_context(|| self.describe())
    }

    /// Waits until the program ends by itself.
    pub async fn wait_for_exit(&mut self, deadline: Duration) -> Result<ExitStatus> {
        match timeout(deadline, self.child.wait()).await {
            Ok(status) => Ok(status?),
            Err(_) => bail!("{}: still running after {deadline:?}", self.describe()),
        }
    }

    /// The log of all runs so far.
    pub fn log(&self) -> Result<String> {
        std::fs::read_to_string(&self.log).with_context(|| format!("{}: log cannot be read", self.name))
    }

    /// The program's name and the end of its log, for errors.
    fn describe(&self) -> String {
        let log = self.log().unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n  ");
        format!("{} on {}, whose log ends\n  {tail}\n", self.name, self.host.name())
    }

    // === Hurting ===

    /// Sends a signal to the program and its children.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        killpg(self.pid()?, signal).with_context(|| format!("{}: cannot send {signal}", self.name))
    }

    /// Freezes the program: its connections stay open, and nothing answers.
    pub fn stop(&self) -> Result<()> {
        self.signal(Signal::SIGSTOP)
    }

    /// Lets a frozen program go on.
    pub fn cont(&self) -> Result<()> {
        self.signal(Signal::SIGCONT)
    }

    /// Ends the program as a crash of it would, with no chance to say goodbye.
    pub async fn kill(&mut self) -> Result<()> {
        self.signal(Signal::SIGKILL)?;
        self.child.wait().await?;
        Ok(())
    }

    /// Asks the program, not its children, to end (SIGTERM) and returns how it did.
    pub async fn terminate(&mut self, deadline: Duration) -> Result<ExitStatus> {
        kill(self.pid()?, Signal::SIGTERM)
            .with_context(|| format!("{}: cannot be asked to end", self.name))?;
        self.wait_for_exit(deadline).await
    }

    /// Starts the program anew, killing it first if it still runs.
    pub async fn restart(&mut self) -> Result<()> {
        if self.child.try_wait()?.is_none() {
            self.kill().await?;
        }
        self.child =
            spawn(&self.launch, &self.log).with_context(|| format!("{}: cannot be restarted", self.name))?;
        Ok(())
    }

    // === Measuring ===

    /// Resident memory of the program, without its children.
    pub fn resident_memory(&self) -> Result<ByteSize> {
        self.memory("VmRSS:")
    }

    /// The most that this has been so far.
    pub fn peak_memory(&self) -> Result<ByteSize> {
        self.memory("VmHWM:")
    }

    fn memory(&self, what: &str) -> Result<ByteSize> {
        let status = std::fs::read_to_string(self.proc_dir()?.join("status"))?;
        let kib = status
            .lines()
            .find_map(|line| line.strip_prefix(what)?.trim().strip_suffix(" kB")?.parse::<u64>().ok())
            .with_context(|| format!("{}: no {what} in its status", self.name))?;
        Ok(ByteSize(kib << 10))
    }

    /// Number of files and sockets that the program holds open.
    pub fn n_open_files(&self) -> Result<usize> {
        Ok(std::fs::read_dir(self.proc_dir()?.join("fd"))?.count())
    }

    fn proc_dir(&self) -> Result<PathBuf> {
        Ok(Path::new("/proc").join(self.pid()?.to_string()))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A program that has been waited for has no pid any more; the group of any other still exists.
        let _already_ended = self.signal(Signal::SIGKILL);
    }
}

fn spawn(launch: &Launch, log: &Path) -> io::Result<Child> {
    let log = File::options().create(true).append(true).open(log)?;
    let mut command = launch.command();
    command.stdout(log.try_clone()?).stderr(log).process_group(0).spawn()
}
