//! What the gateway counts about registries.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use http::HeaderMap;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use shoal_oci::RegistryName;
use shoal_ops::metrics::Metrics;

use crate::audit;
use crate::authority::Proof;

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

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabels {
    registry: String,
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DecisionLabels {
    registry: String,
    decision: &'static str,
    proof: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LimitLabels {
    registry: String,
    limit: &'static str,
}

/// Seconds.
pub(crate) type Seconds = Counter<f64, AtomicU64>;
/// Times, one histogram for each registry.
type Times = Family<RegistryLabel, Histogram, fn() -> Histogram>;

/// From a hundredth of a second to half an hour: seeds may be long, and may wait long.
fn times() -> Histogram {
    Histogram::new(exponential_buckets(0.01, 3.0, 12))
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

impl Outcome {
    const ALL: [Self; 6] =
        [Self::Sealed, Self::Poisoned, Self::Failed, Self::Followed, Self::Overtaken, Self::Removed];

    const fn label(self) -> &'static str {
        match self {
            Self::Sealed => "sealed",
            Self::Poisoned => "poisoned",
            Self::Failed => "failed",
            Self::Followed => "followed",
            Self::Overtaken => "overtaken",
            Self::Removed => "removed",
        }
    }
}

/// What a seed is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// It waits in line for the registry.
    Waiting,
    /// It reads.
    Reading,
}

/// What waits for a registry's limits have cost.
#[derive(Clone, Debug, Default)]
pub(crate) struct LimitWaits {
    /// For bytes per second.
    pub(crate) bytes: Seconds,
    /// For requests per second.
    pub(crate) requests: Seconds,
}

/// A seed at one of its stages, until this is dropped.
pub(crate) struct AtStage(Gauge);

impl AtStage {
    fn new(gauge: Gauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for AtStage {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// The counters of all registries.
#[derive(Clone)]
pub(crate) struct RegistryMetrics {
    requests: Family<RequestLabels, Counter>,
    bytes: Family<RegistryLabel, Counter>,
    gathered: Family<RegistryLabel, Counter>,
    sealed_bytes: Family<RegistryLabel, Counter>,
    seed_read_bytes: Family<RegistryLabel, Counter>,
    seeds: Family<OutcomeLabels, Counter>,
    seeding: Family<StateLabels, Gauge>,
    seed_waits: Times,
    seed_times: Times,
    decisions: Family<DecisionLabels, Counter>,
    limit_waits: Family<LimitLabels, Seconds>,
    quota_limit: Family<RegistryLabel, Gauge>,
    quota_remaining: Family<RegistryLabel, Gauge>,
}

impl RegistryMetrics {
    pub(crate) fn register(metrics: &Metrics) -> Self {
        let it = Self {
            requests: Family::default(),
            bytes: Family::default(),
            gathered: Family::default(),
            sealed_bytes: Family::default(),
            seed_read_bytes: Family::default(),
            seeds: Family::default(),
            seeding: Family::default(),
            seed_waits: Times::new_with_constructor(times),
            seed_times: Times::new_with_constructor(times),
            decisions: Family::default(),
            limit_waits: Family::default(),
            quota_limit: Family::default(),
            quota_remaining: Family::default(),
        };
        metrics.register(|registry| {
            registry.register(
                "gateway_registry_requests",
                "Requests to a registry, by the status of its answer",
                it.requests.clone(),
            );
            registry.register(
                "gateway_back_to_source_bytes",
                "Bytes of blobs read from a registry, or from the hub in its place",
                it.bytes.clone(),
            );
            registry.register(
                "gateway_gathered_bytes",
                "Bytes of blobs taken from nodes and other gateways, which the registry need not be asked for",
                it.gathered.clone(),
            );
            registry.register(
                "gateway_sealed_bytes",
                "Bytes of the blobs that were read from a registry, each blob counted once; what was read beyond is waste",
                it.sealed_bytes.clone(),
            );
            registry.register(
                "gateway_seed_read_bytes",
                "Bytes of blobs read from a registry by seeds that have ended",
                it.seed_read_bytes.clone(),
            );
            registry.register(
                "gateway_back_to_source",
                "Seeds of blobs from a registry, by how they ended",
                it.seeds.clone(),
            );
            registry.register(
                "gateway_seeds",
                "Seeds under way, by whether they wait in line for the registry or read it",
                it.seeding.clone(),
            );
            registry.register(
                "gateway_seed_wait_seconds",
                "Time that a seed waited in line for its registry",
                it.seed_waits.clone(),
            );
            registry.register(
                "gateway_seed_seconds",
                "From the beginning of a seed to its seal",
                it.seed_times.clone(),
            );
            registry.register(
                "gateway_decisions",
                "Decisions whether a caller may read a blob, by what they went by",
                it.decisions.clone(),
            );
            registry.register(
                "gateway_limit_wait_seconds",
                "Time that was waited for what a registry may be asked per second, by what is limited",
                it.limit_waits.clone(),
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
        let label = RegistryLabel { registry: registry.to_string() };
        let of = |it: &Family<RegistryLabel, Counter>| it.get_or_create(&label).clone();
        let it = OneRegistry {
            bytes: of(&self.bytes),
            gathered: of(&self.gathered),
            sealed_bytes: of(&self.sealed_bytes),
            seed_read_bytes: of(&self.seed_read_bytes),
            registry: registry.to_string(),
            all: self.clone(),
        };
        // A counter that is not there yet would hide its first step from `rate`.
        for outcome in Outcome::ALL {
            let labels = OutcomeLabels { registry: it.registry.clone(), outcome: outcome.label() };
            drop(self.seeds.get_or_create(&labels));
        }
        for stage in [Stage::Waiting, Stage::Reading] {
            drop(it.at(stage));
        }
        it
    }
}

/// The counters of one registry.
pub(crate) struct OneRegistry {
    bytes: Counter,
    gathered: Counter,
    sealed_bytes: Counter,
    seed_read_bytes: Counter,
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
                family.get_or_create(&self.label()).set(n_pulls);
            }
        }
    }

    fn label(&self) -> RegistryLabel {
        RegistryLabel { registry: self.registry.clone() }
    }

    /// Counts bytes of a blob.
    pub(crate) fn bytes(&self, n_bytes: u64) {
        self.bytes.inc_by(n_bytes);
    }

    /// Counts bytes of a blob that came from somebody else.
    pub(crate) fn gathered(&self, n_bytes: u64) {
        self.gathered.inc_by(n_bytes);
    }

    /// A seed is at this stage from now on.
    pub(crate) fn at(&self, stage: Stage) -> AtStage {
        let state = match stage {
            Stage::Waiting => "waiting",
            Stage::Reading => "reading",
        };
        let labels = StateLabels { registry: self.registry.clone(), state };
        AtStage::new(self.all.seeding.get_or_create(&labels).clone())
    }

    /// A seed has waited in line for so long.
    pub(crate) fn waited(&self, time: Duration) {
        self.all.seed_waits.get_or_create(&self.label()).observe(time.as_secs_f64());
    }

    /// A blob of so many bytes that was read from the registry is sealed, so long after its seed began.
    pub(crate) fn sealed(&self, n_bytes: u64, after: Duration) {
        self.all.seed_times.get_or_create(&self.label()).observe(after.as_secs_f64());
        self.sealed_bytes.inc_by(n_bytes);
    }

    /// A seed has ended that had read so many bytes.
    pub(crate) fn seed_read(&self, n_bytes: u64) {
        self.seed_read_bytes.inc_by(n_bytes);
    }

    /// It was decided whether a caller may read a blob.
    pub(crate) fn decided(&self, outcome: audit::Outcome, proof: Option<Proof>) {
        let decision = match outcome {
            audit::Outcome::Allowed => "allowed",
            audit::Outcome::Refused => "refused",
            audit::Outcome::Undecided => "undecided",
        };
        let proof = match proof {
            Some(Proof::Manifest) => "manifest",
            Some(Proof::BlobHead) => "blob_head",
            Some(Proof::TokenKey) => "token_key",
            Some(Proof::AllowList) => "allow_list",
            None => "",
        };
        let labels = DecisionLabels { registry: self.registry.clone(), decision, proof };
        self.all.decisions.get_or_create(&labels).inc();
    }

    /// What waits for this registry's limits are counted by.
    pub(crate) fn limit_waits(&self) -> LimitWaits {
        let of = |limit| {
            let labels = LimitLabels { registry: self.registry.clone(), limit };
            self.all.limit_waits.get_or_create(&labels).clone()
        };
        LimitWaits { bytes: of("bytes"), requests: of("requests") }
    }

    /// Counts a seed's end.
    pub(crate) fn seed(&self, outcome: Outcome) {
        let labels = OutcomeLabels { registry: self.registry.clone(), outcome: outcome.label() };
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
