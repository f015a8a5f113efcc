//! The numbers that one process shows to Prometheus.
//!
//! There is no global registry: a service makes one and hands it to its parts, so that a test has its own.
//! Every name begins with `shoal_`.

use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::encoding::text;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

/// The media type of [`Metrics::encode`].
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The process's metrics; clones are of the same registry.
#[derive(Clone)]
pub struct Metrics(Arc<Mutex<Registry>>);

impl Metrics {
    /// A registry with `shoal_build_info` in it.
    pub fn new(service: &'static str, version: &'static str) -> Self {
        let mut registry = Registry::with_prefix("shoal");
        let build = Info::new([("service", service), ("version", version)]);
        registry.register("build", "What runs here", build);
        Self(Arc::new(Mutex::new(registry)))
    }

    /// Lets a part of the service add its metrics; a name can be added once.
    pub fn register<T>(&self, add: impl FnOnce(&mut Registry) -> T) -> T {
        add(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// All metrics in the OpenMetrics text format.
    #[expect(clippy::expect_used, reason = "input cannot reach it")]
    pub fn encode(&self) -> String {
        let mut out = String::new();
        self.register(|registry| text::encode(&mut out, registry)).expect("writing to a string cannot fail");
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::metrics::counter::Counter;

    #[test]
    fn metrics_are_shown_with_their_prefix() {
        let metrics = Metrics::new("sidecar", "1.2.3");
        let pulls = Counter::<u64>::default();
        metrics.register(|it| it.register("pulls", "Pulls", pulls.clone()));
        pulls.inc();
        let text = metrics.encode();
        assert!(text.contains("shoal_build_info{service=\"sidecar\",version=\"1.2.3\"} 1"));
        assert!(text.contains("shoal_pulls_total 1"));
    }
}
