//! A stand-in for systemd's supervision of one service: `Type=notify`, `WatchdogSec=`, `Restart=always`.
//!
//! It speaks the real notification protocol, datagrams of `KEY=VALUE` lines to the socket named in
//! `NOTIFY_SOCKET`. A service that ends is started anew; one whose `WATCHDOG=1` stays away for longer than
//! the watchdog time is killed, as systemd would, and started anew. That time counts from `READY=1` on.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::unistd::Pid;
use tokio::net::UnixDatagram;
use tokio::time::{Instant, sleep_until};
use tokio_util::task::AbortOnDropHandle;

use crate::command::Launch;
use crate::host::Host;
use crate::process::Process;
use crate::wait;

const LONGEST_NOTIFICATION: usize = 4096;

/// What can be seen of a supervised service.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// The pid of the present run.
    pub pid: Pid,
    /// Whether the present run has said `READY=1`.
    pub ready: bool,
    /// How often the service was started anew.
    pub n_restarts: u32,
}

/// A service under supervision. Dropping it ends both.
#[derive(Debug)]
pub struct Supervised {
    name: String,
    seen: Arc<Mutex<Seen>>,
    _supervision: AbortOnDropHandle<Result<()>>,
}

impl Supervised {
    /// Starts a service on a host and keeps it running.
    pub fn start(host: &Host, name: &str, launch: Launch, watchdog: Duration) -> Result<Self> {
        let socket_path = host.dir().join(format!("{name}.notify"));
        let socket = bind(&socket_path).with_context(|| format!("{name}: no notification socket"))?;
        let launch =
            launch.env("NOTIFY_SOCKET", &socket_path).env("WATCHDOG_USEC", watchdog.as_micros().to_string());
        let process = host.start(name, launch)?;
        let seen = Seen { pid: process.pid()?, ready: false, n_restarts: 0 };
        let seen = Arc::new(Mutex::new(seen));
        let supervision = supervise(process, socket, watchdog, Arc::clone(&seen));
        Ok(Self { name: name.into(), seen, _supervision: AbortOnDropHandle::new(tokio::spawn(supervision)) })
    }

    /// What can be seen now.
    pub fn seen(&self) -> Seen {
        *lock(&self.seen)
    }

    /// Waits until a run is ready that was preceded by at least `n_restarts`.
    pub async fn wait_until_ready(&self, n_restarts: u32, deadline: Duration) -> Result<Seen> {
        let what = format!("{}: ready after {n_restarts} restarts", self.name);
        wait::until(&what, deadline, async || {
            let seen = self.seen();
            (seen.ready && seen.n_restarts >= n_restarts).then_some(seen)
        })
        .await
    }
}

async fn supervise(
    mut process: Process,
    socket: UnixDatagram,
    watchdog: Duration,
    seen: Arc<Mutex<Seen>>,
) -> Result<()> {
    let mut buffer = [0; LONGEST_NOTIFICATION];
    loop {
        // None until the service is ready: there is no start limit here, the test has its own deadline.
        let mut due: Option<Instant> = None;
        loop {
            let watchdog_bites = sleep_until(due.unwrap_or_else(Instant::now));
            tokio::select! {
                received = socket.recv(&mut buffer) => {
                    let text = String::from_utf8_lossy(&buffer[..received?]);
                    if text.lines().any(|line| line == "READY=1") {
                        lock(&seen).ready = true;
                        due = Some(Instant::now() + watchdog);
                    }
                    if text.lines().any(|line| line == "WATCHDOG=1") && due.is_some() {
                        due = Some(Instant::now() + watchdog);
                    }
                }
                _ended = process.wait_for_exit(Duration::MAX) => break,
                () = watchdog_bites, if due.is_some() => break,
            }
        }
        process.restart().await?;
        let mut seen = lock(&seen);
        *seen = Seen { pid: process.pid()?, ready: false, n_restarts: seen.n_restarts + 1 };
    }
}

fn bind(path: &Path) -> Result<UnixDatagram> {
    Ok(UnixDatagram::bind(path)?)
}

fn lock(seen: &Mutex<Seen>) -> std::sync::MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}
