//! A blob that a node does not have: from the registry through gateway and scheduler to all nodes at once, or
//! from a neighbour.

use std::pin::pin;
use std::time::Duration;

use anyhow::Result;
use tokio::time::sleep;

use crate::bench::download::{self, Download};
use crate::bench::origin::Origin;
use crate::bench::stage::Stage;
use crate::region::fleet::Security;

/// One round.
pub(super) struct Cold {
    /// CPU seconds of all services per GiB that clients got.
    pub(super) cpu_per_gib: f64,
    /// Until the last client had all of it.
    pub(super) whole: Duration,
    /// The same with all clients at nginx.
    pub(super) direct: Duration,
    /// Until each client had its first byte.
    pub(super) first_bytes: Vec<Duration>,
    /// The memory of the sidecar that had the most meanwhile, in MiB.
    pub(super) resident_mib: f64,
}

/// How often the memory is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// Starts a region, has a client on each node download the blob at the same time, and as many from nginx.
pub(super) async fn round(origin: &Origin, n_nodes: u16, security: Security) -> Result<Cold> {
    let direct = download::all((0..n_nodes).map(|_| origin.direct())).await?;
    let stage = Stage::start(&origin.source()?, n_nodes, security).await?;
    let before = stage.cpu_used()?;
    let pulling = download::all(stage.mirrors().map(|it| origin.through(it)));
    let (pulled, resident_mib) = with_memory(&stage, n_nodes, pulling).await?;
    let cpu = stage.cpu_used()?.saturating_sub(before);
    stage.end().await?;
    let slowest = |all: &[Download]| all.iter().map(|it| it.whole).max().unwrap_or_default();
    Ok(Cold {
        cpu_per_gib: cpu.as_secs_f64() / download::gib(&pulled),
        whole: slowest(&pulled),
        direct: slowest(&direct),
        first_bytes: pulled.iter().map(|it| it.first_byte).collect(),
        resident_mib,
    })
}

/// Waits for downloads, and returns the most memory that a sidecar had meanwhile.
async fn with_memory(
    stage: &Stage,
    n_nodes: u16,
    pulling: impl Future<Output = Result<Vec<Download>>>,
) -> Result<(Vec<Download>, f64)> {
    let (mut pulling, mut most) = (pin!(pulling), 0.0_f64);
    loop {
        tokio::select! {
            pulled = &mut pulling => return Ok((pulled?, most)),
            () = sleep(LOOK) => for node in 1..=n_nodes {
                most = most.max(stage.resident_mib(&format!("node{node}"))?);
            },
        }
    }
}

/// Starts a region of two nodes, has one fetch the blob, and returns how long a client of the other then waits
/// for its first byte.
pub(super) async fn from_neighbour(origin: &Origin) -> Result<Duration> {
    let stage = Stage::start(&origin.source()?, 2, Security::Mtls).await?;
    let mirrors: Vec<_> = stage.mirrors().collect();
    // The scheduler hears of what the node has while that sends it once more.
    for _ in 0..2 {
        download::all([origin.through(mirrors[0])]).await?;
    }
    let pulled = download::all([origin.through(mirrors[1])]).await?;
    stage.end().await?;
    Ok(pulled[0].first_byte)
}
