//! What the sidecar counts.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use shoal_model::Nearness;
use shoal_ops::Context;

/// Where bytes that runtimes were given, or that the store took in, came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Another sidecar, and how near that is.
    Peer(Nearness),
    /// The region's gateway.
    Gateway,
    /// The registry, without the swarm.
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
}

impl From<Origin> for OriginLabels {
    fn from(origin: Origin) -> Self {
        let (source, nearness) = match origin {
            Origin::Peer(Nearness::Rack) => ("peer", "rack"),
            Origin::Peer(Nearness::Zone) => ("peer", "zone"),
            Origin::Peer(Nearness::Elsewhere) => ("peer", "elsewhere"),
            Origin::Gateway => ("gateway", ""),
            Origin::Registry => ("registry", ""),
        };
        Self { source, nearness }
    }
}

impl Outcome {
    const fn label(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Left => "left",
            Self::Cut => "cut",
            Self::Refused => "refused",
            Self::PassedThrough => "passed_through",
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

/// The counters; clones are of the same.
#[derive(Clone, Default)]
pub(crate) struct SidecarMetrics {
    taken: Family<OriginLabels, Counter>,
    pulls: Family<OutcomeLabel, Counter>,
    served: Counter,
    from_cache: Counter,
    active: Gauge,
}

impl SidecarMetrics {
    /// Registers them with the process's metrics.
    pub(crate) fn register(ctx: &Context) -> Self {
        let it = Self::default();
        let its = it.clone();
        ctx.metrics.register(|registry| {
            let help = "Bytes that the store took in, by source and how near that is";
            registry.register("sidecar_download_bytes", help, its.taken);
            registry.register("sidecar_pulls", "Requests for blobs, by outcome", its.pulls);
            registry.register("sidecar_served_bytes", "Bytes of blobs handed to runtimes", its.served);
            let help = "Bytes of blobs handed to runtimes that were complete in the store before the request";
            registry.register("sidecar_cache_bytes", help, its.from_cache);
            registry.register("sidecar_active_blobs", "Blobs being fetched", its.active);
        });
        it
    }

    /// A piece came in.
    pub(crate) fn took(&self, source: Origin, bytes: u64) {
        self.taken.get_or_create(&source.into()).inc_by(bytes);
    }

    /// A request for a blob ended.
    pub(crate) fn pulled(&self, outcome: Outcome) {
        self.pulls.get_or_create(&OutcomeLabel { outcome: outcome.label() }).inc();
    }

    /// Bytes went to a runtime.
    pub(crate) fn served(&self, bytes: u64, from_cache: bool) {
        self.served.inc_by(bytes);
        if from_cache {
            self.from_cache.inc_by(bytes);
        }
    }

    /// Blobs being fetched.
    pub(crate) const fn active(&self) -> &Gauge {
        &self.active
    }
}
