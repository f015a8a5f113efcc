//! `stats.json`: what the node has pulled since its sidecar started, and where that came from, for those who look at one
//! node without Prometheus.
//!
//! It is shown at the admin listener, and kept in a file beside the store, which is replaced as a whole.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus_client::metrics::counter::Counter;
use serde_json::{Value, json};
use shoal_blobstore::Totals;
use shoal_model::{Nearness, NodeId};
use shoal_ops::Context;
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};

use crate::metrics::{Origin, Outcome, SidecarMetrics, Supply};

const NAME: &str = "stats.json";
/// How old the file may be.
const TURN: Duration = Duration::from_secs(10);

/// What the document is made of; clones are of the same.
#[derive(Clone)]
pub(crate) struct Stats {
    pub(crate) node: NodeId,
    pub(crate) totals: Totals,
    pub(crate) metrics: SidecarMetrics,
    /// Bytes of pieces sent to other nodes.
    pub(crate) uploaded: Counter,
}

impl Stats {
    /// Shows the document, and keeps it in a file in `dir` as a task of the process.
    pub(crate) fn tell(self, dir: &Path, ctx: &Context) {
        let (started, file) = (seconds(SystemTime::now()), dir.join(NAME));
        let shown = self.clone();
        ctx.pages.add("/stats.json", move || shown.document(started));
        let stopping = ctx.tasks.stopping();
        ctx.tasks.spawn_infallible("stats", async move {
            let mut turns = interval(TURN);
            turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut was_kept = true;
            while stopping.run_until_cancelled(turns.tick()).await.is_some() {
                let is_kept = keep(file.clone(), self.document(started)).await;
                if was_kept && !is_kept {
                    tracing::warn!(file = %file.display(), "not written");
                }
                was_kept = is_kept;
            }
        });
    }

    fn document(&self, started: u64) -> Value {
        let Self { node, totals, metrics, uploaded } = self;
        json!({
            "node": node.as_str(),
            "version": env!("CARGO_PKG_VERSION"),
            "startedAt": started,
            "writtenAt": seconds(SystemTime::now()),
            "pulls": {
                "complete": metrics.n_pulls(Outcome::Complete),
                "left": metrics.n_pulls(Outcome::Left),
                "cut": metrics.n_pulls(Outcome::Cut),
                "refused": metrics.n_pulls(Outcome::Refused),
                "passedThrough": metrics.n_pulls(Outcome::PassedThrough),
                "failed": metrics.n_pulls(Outcome::Failed),
            },
            "bytes": {
                "toRuntimes": {
                    "fromCache": metrics.n_served(Supply::Cache),
                    "fromSwarm": metrics.n_served(Supply::Swarm),
                    "fromRegistry": metrics.n_served(Supply::Registry),
                },
                "fetched": {
                    "fromRack": metrics.n_taken(Origin::Peer(Nearness::Rack)),
                    "fromZone": metrics.n_taken(Origin::Peer(Nearness::Zone)),
                    "fromElsewhere": metrics.n_taken(Origin::Peer(Nearness::Elsewhere)),
                    "fromGateway": metrics.n_taken(Origin::Gateway),
                    "fromRegistry": metrics.n_taken(Origin::Registry),
                },
                "toNodes": uploaded.get(),
            },
            "cache": {
                "blobs": totals.blobs.get(),
                "bytes": totals.bytes.get(),
                "damagedPieces": totals.damaged.get(),
            },
            "fetching": metrics.active().get(),
        })
    }
}

/// Puts the document in the place of the last one; false where the disk does not take it.
async fn keep(file: PathBuf, document: Value) -> bool {
    let write = move || {
        let draft = file.with_extension("json.new");
        std::fs::write(&draft, document.to_string())?;
        std::fs::rename(draft, file)
    };
    spawn_blocking(write).await.is_ok_and(|it| it.is_ok())
}

/// Since 1970.
fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |it| it.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_counted_is_shown_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let ctx = Context::new("test", "1");
        let metrics = SidecarMetrics::register(&ctx);
        metrics.pulled(Outcome::Complete);
        metrics.took(Origin::Gateway, 30);
        metrics.took(Origin::Peer(Nearness::Rack), 70);
        for (supply, bytes) in
            [(Supply::Cache, 5), (Supply::Swarm, 100), (Supply::Gateway, 2), (Supply::Registry, 9)]
        {
            metrics.served(supply, bytes);
        }
        let uploaded = Counter::default();
        uploaded.inc_by(11);
        let stats = Stats { node: NodeId::new("node-1"), totals: Totals::default(), metrics, uploaded };
        let document = stats.document(7);
        assert_eq!(document["pulls"]["complete"], 1);
        assert_eq!(
            document["bytes"],
            json!({
                "toRuntimes": { "fromCache": 5, "fromSwarm": 102, "fromRegistry": 9 },
                "fetched": { "fromRack": 70, "fromZone": 0, "fromElsewhere": 0, "fromGateway": 30, "fromRegistry": 0 },
                "toNodes": 11,
            })
        );
        let file = dir.path().join(NAME);
        assert!(keep(file.clone(), document.clone()).await);
        assert_eq!(serde_json::from_slice::<Value>(&std::fs::read(&file).unwrap()).unwrap(), document);
        assert!(!keep(dir.path().join("nowhere").join(NAME), document).await);
    }
}
