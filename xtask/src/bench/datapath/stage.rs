//! A region that is ready for downloads of the bench's blob.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;

use crate::bench::cpu;
use crate::bench::origin::Origin;
use crate::region::fleet::{Fleet, Security};
use crate::region::processes::Processes;

/// The region.
pub(super) struct Stage {
    fleet: Fleet,
    processes: Processes,
}

impl Stage {
    /// Starts a gateway, a scheduler and sidecars whose stores are empty.
    pub(super) async fn start(origin: &Origin, n_nodes: u16, security: Security) -> Result<Self> {
        let fleet = Fleet::new(n_nodes, security)?;
        let mut processes = Processes::new()?;
        fleet.start(&mut processes, &origin.source()?).await?;
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

    /// CPU time of one node's sidecar so far.
    pub(super) fn cpu_used_by(&self, node: &str) -> Result<Duration> {
        cpu::used(&self.processes.id_of(node).into_iter().collect::<Vec<_>>())
    }

    /// Ends it.
    pub(super) async fn end(self) -> Result<()> {
        self.processes.end().await
    }
}
