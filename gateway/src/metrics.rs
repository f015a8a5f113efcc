//! What the gateway counts about registries.

use http::HeaderMap;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
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
    /// Another gateway had it or read it, and this one took it from there.
    Followed,
    /// Another gateway took over.
    Overtaken,
    /// Somebody had the blob removed meanwhile.
    Removed,
}

/// The counters of all registries.
#[derive(Clone, Default)]
pub(crate) struct RegistryMetrics {
    requests: Family<RequestLabels, Counter>,
    bytes: Family<RegistryLabel, Counter>,
    gathered: Family<RegistryLabel, Counter>,
    seeds: Family<OutcomeLabels, Counter>,
    quota_limit: Family<RegistryLabel, Gauge>,
    quota_remaining: Family<RegistryLabel, Gauge>,
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
                "gateway_gathered_bytes",
                "Bytes of blobs taken from nodes and other gateways, which the registry need not be asked for",
                it.gathered.clone(),
            );
            registry.register(
                "gateway_back_to_source",
                "Seeds of blobs from a registry, by how they ended",
                it.seeds.clone(),
            );
            registry.register(
                "gateway_registry_quota_limit",
                "Pulls that the registry allows within its window, as it last said to whoever asked",
                it.quota_limit.clone(),
            );
            registry.register(
                "gateway_registry_quota_remaining",
                "Pulls that the registry still allows, as it last said to whoever asked",
                it.quota_remaining.clone(),
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

    /// Notes what an answer says of the pulls that are left. Docker Hub says it about manifests.
    pub(crate) fn quota(&self, headers: &HeaderMap) {
        let RegistryMetrics { quota_limit, quota_remaining, .. } = &self.all;
        for (name, family) in [("ratelimit-limit", quota_limit), ("ratelimit-remaining", quota_remaining)] {
            let said = headers.get(name).and_then(|it| n_pulls(it.to_str().ok()?));
            if let Some(n_pulls) = said {
                family.get_or_create(&RegistryLabel { registry: self.registry.clone() }).set(n_pulls);
            }
        }
    }

    /// Counts bytes of a blob.
    pub(crate) fn bytes(&self, n_bytes: u64) {
        self.all.bytes.get_or_create(&RegistryLabel { registry: self.registry.clone() }).inc_by(n_bytes);
    }

    /// Counts bytes of a blob that came from somebody else.
    pub(crate) fn gathered(&self, n_bytes: u64) {
        let label = RegistryLabel { registry: self.registry.clone() };
        self.all.gathered.get_or_create(&label).inc_by(n_bytes);
    }

    /// Counts a seed's end.
    pub(crate) fn seed(&self, outcome: Outcome) {
        let outcome = match outcome {
            Outcome::Sealed => "sealed",
            Outcome::Poisoned => "poisoned",
            Outcome::Failed => "failed",
            Outcome::Followed => "followed",
            Outcome::Overtaken => "overtaken",
            Outcome::Removed => "removed",
        };
        let labels = OutcomeLabels { registry: self.registry.clone(), outcome };
        self.all.seeds.get_or_create(&labels).inc();
    }
}

/// The number in `100;w=21600`, where `w` is the window in seconds.
fn n_pulls(text: &str) -> Option<i64> {
    let number = text.split(';').next()?.trim();
    number.parse::<u32>().ok().map(i64::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Option<i64>) {
        assert_eq!(n_pulls(text), expected, "{text:?}");
    }

    #[test]
    fn a_quota_is_a_number_before_its_window() {
        check("100;w=21600", Some(100));
        check(" 0 ; w=21600", Some(0));
        check("76", Some(76));
        for bad in ["", ";w=1", "-1;w=21600", "many", "99999999999999999999"] {
            check(bad, None);
        }
    }
}
