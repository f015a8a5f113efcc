//! What the listeners of a process show of their connections.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

use crate::metrics::Metrics;

type ByListener<M> = Family<[(&'static str, &'static str); 1], M>;

/// The connection metrics of all listeners; register them once per process.
#[derive(Clone, Default)]
pub struct ServeMetrics {
    open: ByListener<Gauge>,
    full: ByListener<Counter>,
    cut: ByListener<Counter>,
    refused: ByListener<Counter>,
}

/// Those of one listener.
#[derive(Clone)]
pub(super) struct ListenerMetrics {
    pub(super) open: Gauge,
    pub(super) full: Counter,
    pub(super) cut: Counter,
    pub(super) refused: Counter,
}

impl ServeMetrics {
    /// Adds them to the process's metrics.
    pub fn register(metrics: &Metrics) -> Self {
        let it = Self::default();
        metrics.register(|registry| {
            registry.register("connections", "Open connections", it.open.clone());
            registry.register(
                "connections_full",
                "How often the cap of connections was reached",
                it.full.clone(),
            );
            registry.register(
                "connections_cut",
                "Connections that gave way to new ones, because the cap was reached and they rested the longest",
                it.cut.clone(),
            );
            registry.register(
                "connections_refused",
                "Connections whose TLS handshake failed, for want of a good certificate among others",
                it.refused.clone(),
            );
        });
        it
    }

    pub(super) fn of(&self, listener: &'static str) -> ListenerMetrics {
        let labels = [("listener", listener)];
        ListenerMetrics {
            open: self.open.get_or_create_owned(&labels),
            full: self.full.get_or_create_owned(&labels),
            cut: self.cut.get_or_create_owned(&labels),
            refused: self.refused.get_or_create_owned(&labels),
        }
    }
}
