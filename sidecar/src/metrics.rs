//! What the sidecar counts.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use shoal_model::{Nearness, Node, Role};
use shoal_ops::Context;
use shoal_swarm::fetch::Rung;

/// Where bytes that the store took in came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Another sidecar, and how near that is.
    Peer(Nearness),
    /// The region's gateway.
    Gateway,
    /// The registry, without the swarm.
    Registry,
}

/// Where a runtime's bytes of a blob come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Supply {
    /// The blob was whole in the store before it was asked for.
    Cache,
    /// It is fetched, by way of the store.
    Swarm,
    /// It is small and came with the gateway's answer.
    Gateway,
    /// Passed straight through from the registry.
    Registry,
}

/// How a request for a blob ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// All bytes were handed over.
    Complete,
    /// The runtime went away before the end.
    Left,
    /// The stream was ended early, for the runtime to resume.
    Cut,
    /// Refused, as the registry would.
    Refused,
    /// Passed straight through to the registry.
    PassedThrough,
    /// Neither the swarm nor the registry gave it; the runtime goes elsewhere.
    Failed,
    /// The runtime asked only whether it is there.
    Probed,
}

/// Why a piece that was asked for did not come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The other side had no slot free, and is well.
    Busy,
    /// It does not hold the piece.
    NotHeld,
    /// It did not accept the ticket, or refuses for good.
    Refused,
    /// No connection came about.
    Unreachable,
    /// It sent nothing, or next to nothing, for long.
    Stalled,
    /// The transfer broke.
    Broken,
    /// The bytes were wrong.
    WrongBytes,
    /// Nobody has vouched for the piece.
    Unvouched,
}

/// A step of the fallback ladder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The gateway, for pieces that no neighbour offers.
    Gateway,
    /// The registry, with the caller's own credential.
    Registry,
    /// The registry's own answer, since no gateway opened the blob.
    PassedThrough,
    /// Nothing is left to try.
    GivenUp,
}

impl Origin {
    /// All of them.
    pub(crate) const ALL: [Self; 5] = [
        Self::Peer(Nearness::Rack),
        Self::Peer(Nearness::Zone),
        Self::Peer(Nearness::Elsewhere),
        Self::Gateway,
        Self::Registry,
    ];

    /// What `node` sends, as `me` sees it.
    pub(crate) fn of(node: &Node, me: &Node) -> Self {
        match node.role {
            Role::Gateway => Self::Gateway,
            Role::Sidecar => Self::Peer(me.place.nearness(&node.place)),
        }
    }

    const fn labels(self) -> OriginLabels {
        let (source, nearness) = match self {
            Self::Peer(Nearness::Rack) => ("peer", "rack"),
            Self::Peer(Nearness::Zone) => ("peer", "zone"),
            Self::Peer(Nearness::Elsewhere) => ("peer", "elsewhere"),
            Self::Gateway => ("gateway", ""),
            Self::Registry => ("registry", ""),
        };
        OriginLabels { source, nearness }
    }
}

impl Supply {
    const ALL: [Self; 4] = [Self::Cache, Self::Swarm, Self::Gateway, Self::Registry];

    /// Its word in labels and the log.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Cache => "cache",
            Self::Swarm => "swarm",
            Self::Gateway => "gateway",
            Self::Registry => "registry",
        }
    }
}

impl Outcome {
    const ALL: [Self; 7] = [
        Self::Complete,
        Self::Left,
        Self::Cut,
        Self::Refused,
        Self::PassedThrough,
        Self::Failed,
        Self::Probed,
    ];

    /// Its word in labels and the log.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Left => "left",
            Self::Cut => "cut",
            Self::Refused => "refused",
            Self::PassedThrough => "passed_through",
            Self::Failed => "failed",
            Self::Probed => "probed",
        }
    }
}

impl Cause {
    const ALL: [Self; 8] = [
        Self::Busy,
        Self::NotHeld,
        Self::Refused,
        Self::Unreachable,
        Self::Stalled,
        Self::Broken,
        Self::WrongBytes,
        Self::Unvouched,
    ];

    const fn label(self) -> &'static str {
        match self {
            Self::Busy => "busy",
            Self::NotHeld => "not_held",
            Self::Refused => "refused",
            Self::Unreachable => "unreachable",
            Self::Stalled => "stalled",
            Self::Broken => "broken",
            Self::WrongBytes => "wrong_bytes",
            Self::Unvouched => "unvouched",
        }
    }
}

impl Step {
    /// All of them, from the top.
    pub(crate) const ALL: [Self; 4] = [Self::Gateway, Self::Registry, Self::PassedThrough, Self::GivenUp];

    /// The step down that a fetch has made by coming to this rung.
    pub(crate) const fn to(rung: Rung) -> Option<Self> {
        match rung {
            // A stranded fetch has not turned to anybody yet.
            Rung::Swarm | Rung::Stranded => None,
            Rung::Gateway => Some(Self::Gateway),
            Rung::Direct => Some(Self::Registry),
            Rung::GivenUp => Some(Self::GivenUp),
        }
    }

    /// Its word in labels and the log.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Registry => "registry",
            Self::PassedThrough => "passed_through",
            Self::GivenUp => "given_up",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OriginLabels {
    source: &'static str,
    nearness: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SupplyLabel {
    supply: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FailureLabels {
    source: &'static str,
    cause: &'static str,
}

impl FailureLabels {
    const fn of(origin: Origin, cause: Cause) -> Self {
        Self { source: origin.labels().source, cause: cause.label() }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StepLabel {
    step: &'static str,
}

/// Times, one histogram for each set of labels.
type Times<L> = Family<L, Histogram, fn() -> Histogram>;

/// Up to what pulls and pieces take on slow links; few, since there are many nodes.
const BUCKETS: [f64; 12] = [0.001, 0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

fn times() -> Histogram {
    Histogram::new(BUCKETS)
}

/// The counters; clones are of the same.
#[derive(Clone)]
pub(crate) struct SidecarMetrics {
    taken: Family<OriginLabels, Counter>,
    pulls: Family<OutcomeLabel, Counter>,
    served: Counter,
    from_cache: Counter,
    passed_through: Counter,
    active: Gauge,
    streams: Gauge,
    first_bytes: Times<SupplyLabel>,
    blob_times: Times<SupplyLabel>,
    piece_times: Times<OriginLabels>,
    failures: Family<FailureLabels, Counter>,
    steps: Family<StepLabel, Counter>,
}

impl SidecarMetrics {
    /// Registers them with the process's metrics.
    pub(crate) fn register(ctx: &Context) -> Self {
        let it = Self {
            taken: Family::default(),
            pulls: Family::default(),
            served: Counter::default(),
            from_cache: Counter::default(),
            passed_through: Counter::default(),
            active: Gauge::default(),
            streams: Gauge::default(),
            first_bytes: Times::new_with_constructor(times),
            blob_times: Times::new_with_constructor(times),
            piece_times: Times::new_with_constructor(times),
            failures: Family::default(),
            steps: Family::default(),
        };
        it.begin_at_zero();
        let its = it.clone();
        ctx.metrics.register(|registry| {
            let help = "Bytes that the store took in, by source and how near that is";
            registry.register("sidecar_download_bytes", help, its.taken);
            registry.register("sidecar_pulls", "Requests for blobs, by outcome", its.pulls);
            registry.register("sidecar_served_bytes", "Bytes of blobs handed to runtimes", its.served);
            let help = "Bytes of blobs handed to runtimes that were complete in the store before the request";
            registry.register("sidecar_cache_bytes", help, its.from_cache);
            let help = "Bytes of blobs handed to runtimes straight from the registry, without the swarm";
            registry.register("sidecar_passed_through_bytes", help, its.passed_through);
            registry.register("sidecar_active_blobs", "Blobs being fetched", its.active);
            registry.register("sidecar_streams", "Requests for blobs being answered", its.streams);
            let help = "From a request for a blob to its first byte, by what supplies the bytes";
            registry.register("sidecar_first_byte_seconds", help, its.first_bytes);
            let help = "From a request for a blob to its last byte, by what supplied the bytes";
            registry.register("sidecar_blob_seconds", help, its.blob_times);
            let help = "From asking for a piece to having it in the store, by source and how near that is";
            registry.register("sidecar_piece_seconds", help, its.piece_times);
            let help = "Pieces, and reads from a registry, that were asked for and did not come, by source and cause";
            registry.register("sidecar_failed_pieces", help, its.failures);
            let help = "Steps down the fallback ladder, by where they led";
            registry.register("sidecar_fallbacks", help, its.steps);
        });
        it
    }

    /// A counter that is not there yet would hide its first step from `rate`.
    fn begin_at_zero(&self) {
        for origin in Origin::ALL {
            drop(self.taken.get_or_create(&origin.labels()));
            // From a registry pieces come in a row, and none is asked for by itself.
            if origin != Origin::Registry {
                drop(self.piece_times.get_or_create(&origin.labels()));
            }
            for cause in Cause::ALL {
                drop(self.failures.get_or_create(&FailureLabels::of(origin, cause)));
            }
        }
        for supply in Supply::ALL {
            drop(self.first_bytes.get_or_create(&SupplyLabel { supply: supply.label() }));
            drop(self.blob_times.get_or_create(&SupplyLabel { supply: supply.label() }));
        }
        for outcome in Outcome::ALL {
            drop(self.pulls.get_or_create(&OutcomeLabel { outcome: outcome.label() }));
        }
        for step in Step::ALL {
            drop(self.steps.get_or_create(&StepLabel { step: step.label() }));
        }
    }

    /// A piece came in.
    pub(crate) fn took(&self, origin: Origin, bytes: u64) {
        self.taken.get_or_create(&origin.labels()).inc_by(bytes);
    }

    /// A piece came in so long after it was asked for.
    pub(crate) fn piece_took(&self, origin: Origin, time: Duration) {
        self.piece_times.get_or_create(&origin.labels()).observe(time.as_secs_f64());
    }

    /// A piece did not come.
    pub(crate) fn failed(&self, origin: Origin, cause: Cause) {
        self.failures.get_or_create(&FailureLabels::of(origin, cause)).inc();
    }

    /// A pull has come down the ladder.
    pub(crate) fn fell_back(&self, step: Step) {
        self.steps.get_or_create(&StepLabel { step: step.label() }).inc();
    }

    /// A request for a blob ended.
    pub(crate) fn pulled(&self, outcome: Outcome) {
        self.pulls.get_or_create(&OutcomeLabel { outcome: outcome.label() }).inc();
    }

    /// The first byte went to a runtime so long after it had asked.
    pub(crate) fn first_byte(&self, supply: Supply, after: Duration) {
        self.first_bytes.get_or_create(&SupplyLabel { supply: supply.label() }).observe(after.as_secs_f64());
    }

    /// The last byte went to a runtime so long after it had asked.
    pub(crate) fn last_byte(&self, supply: Supply, after: Duration) {
        self.blob_times.get_or_create(&SupplyLabel { supply: supply.label() }).observe(after.as_secs_f64());
    }

    /// Bytes went to a runtime.
    pub(crate) fn served(&self, supply: Supply, bytes: u64) {
        match supply {
            Supply::Registry => self.passed_through.inc_by(bytes),
            Supply::Cache | Supply::Swarm | Supply::Gateway => self.served.inc_by(bytes),
        };
        if supply == Supply::Cache {
            self.from_cache.inc_by(bytes);
        }
    }

    /// How many requests ended so.
    pub(crate) fn n_pulls(&self, outcome: Outcome) -> u64 {
        self.pulls.get_or_create(&OutcomeLabel { outcome: outcome.label() }).get()
    }

    /// How many bytes the store took in from there.
    pub(crate) fn n_taken(&self, origin: Origin) -> u64 {
        self.taken.get_or_create(&origin.labels()).get()
    }

    /// How many bytes went to runtimes from there; what came with a gateway's answer counts for the swarm.
    pub(crate) fn n_served(&self, supply: Supply) -> u64 {
        match supply {
            Supply::Cache => self.from_cache.get(),
            Supply::Swarm | Supply::Gateway => self.served.get().saturating_sub(self.from_cache.get()),
            Supply::Registry => self.passed_through.get(),
        }
    }

    /// Blobs being fetched.
    pub(crate) const fn active(&self) -> &Gauge {
        &self.active
    }

    /// Requests being answered.
    pub(crate) const fn streams(&self) -> &Gauge {
        &self.streams
    }
}

/// The bytes that one download took in, by origin, and the steps that it made down the ladder.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    taken: [AtomicU64; Origin::ALL.len()],
    steps: [AtomicBool; Step::ALL.len()],
}

impl Tally {
    /// A piece came in.
    pub(crate) fn took(&self, origin: Origin, bytes: u64) {
        for (other, sum) in Origin::ALL.into_iter().zip(&self.taken) {
            if other == origin {
                sum.fetch_add(bytes, Ordering::Relaxed);
            }
        }
    }

    /// So many bytes came from there; `None` where there were none.
    pub(crate) fn of(&self, origin: Origin) -> Option<u64> {
        let mut all = Origin::ALL.into_iter().zip(&self.taken);
        let sum = all.find(|(it, _)| *it == origin)?.1.load(Ordering::Relaxed);
        (sum > 0).then_some(sum)
    }

    /// The download has come down the ladder.
    pub(crate) fn stepped(&self, step: Step) {
        for (other, made) in Step::ALL.into_iter().zip(&self.steps) {
            if other == step {
                made.store(true, Ordering::Relaxed);
            }
        }
    }

    /// The steps that it has made, from the top.
    pub(crate) fn steps(&self) -> impl Iterator<Item = Step> {
        let all = Step::ALL.into_iter().zip(&self.steps);
        all.filter(|(_, made)| made.load(Ordering::Relaxed)).map(|(step, _)| step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tally_keeps_origins_apart() {
        let tally = Tally::default();
        for (number, origin) in (0..).zip(Origin::ALL) {
            tally.took(origin, number);
            tally.took(origin, number);
        }
        assert_eq!(Origin::ALL.map(|it| tally.of(it)), [None, Some(2), Some(4), Some(6), Some(8)]);
        assert_eq!(tally.steps().collect::<Vec<_>>(), []);
        for step in [Step::GivenUp, Step::Gateway, Step::Gateway] {
            tally.stepped(step);
        }
        assert_eq!(tally.steps().collect::<Vec<_>>(), [Step::Gateway, Step::GivenUp]);
    }
}
