//! What is counted about preheat jobs.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use shoal_ops::metrics::Metrics;

use super::view::{JobView, State};

/// How a job ended that somebody had end: it counts as no failure.
const CANCELLED: &str = "CANCELLED";
/// Which way a job went.
const HERE: &str = "here";
const AWAY: &str = "away";

type Label = [(&'static str, &'static str); 1];

#[derive(Clone, Default)]
pub(super) struct PreheatMetrics {
    going_on: Family<Label, Gauge>,
    ended: Family<Label, Counter>,
    refused: Counter,
    moved: Family<Label, Counter>,
}

impl PreheatMetrics {
    pub(super) fn register(metrics: &Metrics) -> Self {
        let it = Self::default();
        metrics.register(|registry| {
            let help = "Preheat jobs that go on, by whether they wait for their turn";
            registry.register("gateway_preheat_jobs", help, it.going_on.clone());
            let help = "Preheat jobs that have ended, by how";
            registry.register("gateway_preheat_jobs_ended", help, it.ended.clone());
            let help = "Preheat jobs that were not taken in, because too many wait";
            registry.register("gateway_preheat_jobs_refused", help, it.refused.clone());
            let help = "Preheat jobs that went to another gateway or came from one, by which";
            registry.register("gateway_preheat_jobs_moved", help, it.moved.clone());
        });
        // A counter that is not there yet would hide its first step from `rate`.
        let outcomes = [CANCELLED, State::Success.as_str(), State::Failure.as_str()];
        for outcome in outcomes {
            drop(it.ended.get_or_create(&[("outcome", outcome)]));
        }
        for direction in [HERE, AWAY] {
            drop(it.moved.get_or_create(&[("direction", direction)]));
        }
        it.going_on(0, 0);
        it
    }

    pub(super) fn going_on(&self, n_queued: usize, n_running: usize) {
        self.going_on.get_or_create(&[("state", "queued")]).set(n_queued as i64);
        self.going_on.get_or_create(&[("state", "running")]).set(n_running as i64);
    }

    pub(super) fn ended(&self, job: &JobView) {
        let outcome = if job.cancelled_by.is_some() { CANCELLED } else { job.state.as_str() };
        self.ended.get_or_create(&[("outcome", outcome)]).inc();
    }

    pub(super) fn refused(&self) {
        self.refused.inc();
    }

    pub(super) fn taken_over(&self) {
        self.moved.get_or_create(&[("direction", HERE)]).inc();
    }

    pub(super) fn handed_over(&self) {
        self.moved.get_or_create(&[("direction", AWAY)]).inc();
    }
}
