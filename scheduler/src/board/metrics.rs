//! What the board shows of itself; all shards count together.

use std::sync::atomic::AtomicI64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use shoal_ops::Context;
use shoal_swarm::table::What;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabel {
    kind: &'static str,
}

/// The board's metrics; clones are of the same.
#[derive(Clone)]
pub(super) struct BoardMetrics {
    pub(super) nodes: Gauge<i64, AtomicI64>,
    pub(super) blobs: Gauge<i64, AtomicI64>,
    pub(super) heard: Counter,
    /// Bytes.
    pub(super) arrived: Counter,
    pub(super) cut_off: Counter,
    ordered: Family<KindLabel, Counter>,
    decisions: Histogram,
}

impl BoardMetrics {
    pub(super) fn register(ctx: &Context) -> Self {
        let it = Self {
            nodes: Gauge::default(),
            blobs: Gauge::default(),
            heard: Counter::default(),
            arrived: Counter::default(),
            cut_off: Counter::default(),
            ordered: Family::default(),
            // From a microsecond to a second.
            decisions: Histogram::new(exponential_buckets(1e-6, 4.0, 11)),
        };
        let its = it.clone();
        ctx.metrics.register(|registry| {
            registry.register("scheduler_nodes", "Connected nodes", its.nodes);
            registry.register("scheduler_blobs", "Blobs that some node holds or wants", its.blobs);
            registry.register(
                "scheduler_messages",
                "What nodes said, each blob of a message counted",
                its.heard,
            );
            let help = "What sidecars received of blobs that they wanted, from peers and gateways";
            registry.register("scheduler_arrived_bytes", help, its.arrived);
            let help = "What nodes were ordered, by kind; a list of neighbours may replace one that waits to be sent";
            registry.register("scheduler_orders", help, its.ordered);
            let help = "Time to decide about one thing that a node said, or that was due";
            registry.register("scheduler_decision_seconds", help, its.decisions);
            registry.register("scheduler_cut_off", "Nodes that did not take their orders", its.cut_off);
        });
        it
    }

    /// A node is ordered something.
    pub(super) fn ordered(&self, what: &What) {
        let kind = match what {
            What::Neighbours { .. } => "neighbours",
            What::Lease { .. } => "lease",
            What::Seed { .. } => "seed",
            What::GoDirect => "go_direct",
        };
        self.ordered.get_or_create(&KindLabel { kind }).inc();
    }

    /// Something was decided about.
    pub(super) fn decided(&self, time: Duration) {
        self.decisions.observe(time.as_secs_f64());
    }
}
