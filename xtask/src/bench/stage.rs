//! A region that is ready for downloads from the bench's registry.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};

use super::cpu;
use crate::region::fleet::{Fleet, Security};
use crate::region::processes::Processes;
use crate::region::source::Source;

/// The region.
pub(super) struct Stage {
    fleet: Fleet,
    processes: Processes,
}

impl Stage {
    /// Starts a gateway, a scheduler and sidecars whose stores are empty.
    pub(super) async fn start(source: &Source, n_nodes: u16, security: Security) -> Result<Self> {
        let fleet = Fleet::new(n_nodes, security)?;
        let mut processes = Processes::new()?;
        fleet.start(&mut processes, source).await?;
        tokio::select! {
            ready = fleet.wait_until_ready() => ready?,
            error = processes.first_death() => return Err(error),
        }
        Ok(Self { fleet, processes })
    }

    /// Where runtimes ask the nodes.
    pub(super) fn mirrors(&self) -> impl Iterator<Item = SocketAddr> {
        self.fleet.nodes.iter().map(|it| it.mirror)
    }

    /// CPU time of all services so far.
    pub(super) fn cpu_used(&self) -> Result<Duration> {
        cpu::used(&self.processes.ids())
    }

    /// The gateway's address for nodes.
    pub(super) fn gateway(&self) -> String {
        self.fleet.gateway_url()
    }

    /// Where a process keeps its files.
    pub(super) fn dir(&self, name: &str) -> PathBuf {
        self.processes.dir().join(name)
    }

    /// The id of a process.
    pub(super) fn process(&self, name: &str) -> Result<u32> {
        self.processes.id_of(name).with_context(|| format!("{name} has ended"))
    }

    /// The memory of a process that lies in no page cache, in MiB.
    pub(super) fn resident_mib(&self, name: &str) -> Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process(name)?))?;
        let kib = status.lines().find_map(|it| it.strip_prefix("RssAnon:")?.trim().strip_suffix(" kB"));
        Ok(kib.context("no RssAnon")?.trim().parse::<f64>()? / 1024.0)
    }

    /// Ends it.
    pub(super) async fn end(self) -> Result<()> {
        self.processes.end().await
    }
}
