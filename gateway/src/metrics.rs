//! What the gateway counts about registries.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use shoal_oci::RegistryName;
use shoal_ops::metrics::Metrics;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    registry: String,
    /// The HTTP status, or `none` where there was no answer.
    status: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RegistryLabel {
    registry: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    registry: String,
    outcome: &'static str,
}

/// How a seed ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The whole digest matched.
    Sealed,
    /// It did not.
    Poisoned,
    /// The registry or the disk gave no whole blob.
    Failed,
}

/// The counters of all registries.
#[derive(Clone, Default)]
pub(crate) struct RegistryMetrics {
    requests: Family<RequestLabels, Counter>,
    bytes: Family<RegistryLabel, Counter>,
    seeds: Family<OutcomeLabels, Counter>,
}

impl RegistryMetrics {
    pub(crate) fn register(metrics: &Metrics) -> Self {
        let it = Self::default();
        metrics.register(|registry| {
            registry.register(
                "gateway_registry_requests",
                "Requests to a registry, by the status of its answer",
                it.requests.clone(),
            );
            registry.register(
                "gateway_back_to_source_bytes",
                "Bytes of blobs read from a registry",
                it.bytes.clone(),
            );
            registry.register(
                "gateway_back_to_source",
                "Seeds of blobs from a registry, by how they ended",
                it.seeds.clone(),
            );
        });
        it
    }

    /// The counters of one registry.
    pub(crate) fn of(&self, registry: &RegistryName) -> OneRegistry {
        OneRegistry { registry: registry.to_string(), all: self.clone() }
    }
}

/// The counters of one registry.
pub(crate) struct OneRegistry {
    registry: String,
    all: RegistryMetrics,
}

impl OneRegistry {
    /// Counts a request, answered with `status` or not at all.
    pub(crate) fn request(&self, status: Option<u16>) {
        let status = status.map_or_else(|| "none".to_owned(), |it| it.to_string());
        self.all.requests.get_or_create(&RequestLabels { registry: self.registry.clone(), status }).inc();
    }

    /// Counts bytes of a blob.
    pub(crate) fn bytes(&self, n_bytes: u64) {
        self.all.bytes.get_or_create(&RegistryLabel { registry: self.registry.clone() }).inc_by(n_bytes);
    }

    /// Counts a seed's end.
    pub(crate) fn seed(&self, outcome: Outcome) {
        let outcome = match outcome {
            Outcome::Sealed => "sealed",
            Outcome::Poisoned => "poisoned",
            Outcome::Failed => "failed",
        };
        let labels = OutcomeLabels { registry: self.registry.clone(), outcome };
        self.all.seeds.get_or_create(&labels).inc();
    }
}
