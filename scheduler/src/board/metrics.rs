//! What the board shows of itself; all shards count together.

use std::sync::atomic::AtomicI64;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use shoal_ops::Context;

/// The board's metrics; clones are of the same.
#[derive(Clone, Default)]
pub(super) struct BoardMetrics {
    pub(super) nodes: Gauge<i64, AtomicI64>,
    pub(super) blobs: Gauge<i64, AtomicI64>,
    pub(super) heard: Counter,
    pub(super) ordered: Counter,
    pub(super) cut_off: Counter,
}

impl BoardMetrics {
    pub(super) fn register(ctx: &Context) -> Self {
        let it = Self::default();
        let its = it.clone();
        ctx.metrics.register(|registry| {
            registry.register("scheduler_nodes", "Connected nodes", its.nodes);
            registry.register("scheduler_blobs", "Blobs that some node holds or wants", its.blobs);
            registry.register(
                "scheduler_messages",
                "What nodes said, each blob of a message counted",
                its.heard,
            );
            let help = "What nodes were ordered; a list of neighbours may replace one that waits to be sent";
            registry.register("scheduler_orders", help, its.ordered);
            registry.register("scheduler_cut_off", "Nodes that did not take their orders", its.cut_off);
        });
        it
    }
}
