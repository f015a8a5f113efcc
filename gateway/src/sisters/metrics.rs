//! What is counted about the other gateways.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use shoal_ops::metrics::Metrics;

use super::claim::Matter;

/// What became of a question for a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// This gateway has it now.
    Taken,
    /// It had it before, and goes on.
    Renewed,
    /// Another gateway has it.
    Another,
    /// It had it before, and now another has.
    Lost,
    /// Redis did not answer.
    Unanswered,
}

/// Numbers about the region's gateways.
#[derive(Clone, Default)]
pub(super) struct SisterMetrics {
    /// Others that answer.
    pub(super) answering: Gauge,
    /// By how many gateways limits are divided.
    pub(super) sharing: Gauge,
    /// 1 while Redis answers.
    pub(super) redis_up: Gauge,
    leases: Family<[(&'static str, &'static str); 1], Counter>,
    job_leases: Family<[(&'static str, &'static str); 1], Counter>,
    lots: Family<[(&'static str, &'static str); 1], Counter>,
}

impl SisterMetrics {
    /// Adds them to the process's metrics, what is of Redis only where there is one: a gauge at 0 would say that it is
    /// down.
    pub(super) fn register(metrics: &Metrics, has_redis: bool) -> Self {
        let it = Self::default();
        metrics.register(|registry| {
            let help = "Other gateways of the region that answer";
            registry.register("gateway_sisters", help, it.answering.clone());
            let help = "Gateways that a registry's limits are divided by";
            registry.register("gateway_sharing_limits", help, it.sharing.clone());
            if has_redis {
                let help = "Whether Redis answers";
                registry.register("gateway_redis_up", help, it.redis_up.clone());
            }
            let help = "Questions for the lease on a blob, by what became of them";
            registry.register("gateway_seed_leases", help, it.leases.clone());
            let help = "Questions for the lease on a preheat job, by what became of them";
            registry.register("gateway_preheat_leases", help, it.job_leases.clone());
            let help = "Questions for a part of what gateways may ask of a registry together";
            registry.register("gateway_lots", help, it.lots.clone());
        });
        it
    }

    /// Counts a question for a lot.
    pub(super) fn borrowed(&self, is_lent: bool) {
        let outcome = if is_lent { "lent" } else { "unanswered" };
        self.lots.get_or_create(&[("outcome", outcome)]).inc();
    }

    /// Counts a question for a lease.
    pub(super) fn asked(&self, matter: &Matter, asked: Asked) {
        let outcome = match asked {
            Asked::Taken => "taken",
            Asked::Renewed => "renewed",
            Asked::Another => "another",
            Asked::Lost => "lost",
            Asked::Unanswered => "unanswered",
        };
        let leases = match matter {
            Matter::Blob(_) => &self.leases,
            Matter::Job(_) => &self.job_leases,
        };
        leases.get_or_create(&[("outcome", outcome)]).inc();
    }
}
