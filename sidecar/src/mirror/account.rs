//! What is told of each request for a blob: numbers, and one line in the log and on `pulls.json` when it has ended.

use std::time::{Duration, SystemTime};

use http::{Method, Request, header};
use shoal_model::{Nearness, TraceParent};
use shoal_ops::traces::{self, TARGET};
use tokio::time::Instant;
use tracing::field::Empty;
use tracing::{Span, info_span};

use super::route::WantedBlob;
use crate::metrics::{Origin, Outcome, SidecarMetrics, Step, Supply, Tally};
use crate::pull::Download;
use crate::recent::{Recent, Told};

/// The most of a client's own name that is logged, in bytes.
const MAX_CLIENT: usize = 100;

/// One request for a blob, from its arrival on. It ends when this is dropped.
pub(super) struct Account {
    metrics: SidecarMetrics,
    recent: Recent,
    wanted: WantedBlob,
    /// What the runtime calls itself.
    client: String,
    arrived: SystemTime,
    began: Instant,
    supply: Option<Supply>,
    first_byte: Option<Duration>,
    n_bytes: u64,
    outcome: Outcome,
    /// What fetches the blob.
    download: Option<Download>,
    span: Span,
    /// The trace that the request belongs to, recorded or not.
    trace: Option<TraceParent>,
}

impl Account {
    /// A request has come.
    pub(super) fn open(
        wanted: WantedBlob,
        asked: &Request<()>,
        metrics: SidecarMetrics,
        recent: Recent,
    ) -> Self {
        metrics.streams().inc();
        let asker = traces::of_headers(asked.headers());
        let span = traces::begin(asker, || {
            info_span!(
                target: TARGET, parent: None, "pull", otel.kind = "server", method = %asked.method(),
                registry = %wanted.registry, repository = %wanted.repository, digest = %wanted.digest,
                outcome = Empty, supply = Empty, bytes = Empty, first_byte_millis = Empty
            )
        });
        let client = asked.headers().get(header::USER_AGENT).and_then(|it| it.to_str().ok());
        let mut client = client.unwrap_or_default().to_owned();
        // What is visible in a header is ASCII.
        client.truncate(MAX_CLIENT);
        Self {
            metrics,
            recent,
            wanted,
            client,
            arrived: SystemTime::now(),
            began: Instant::now(),
            supply: None,
            first_byte: None,
            n_bytes: 0,
            outcome: if asked.method() == Method::HEAD { Outcome::Probed } else { Outcome::Left },
            download: None,
            trace: traces::place_of(&span).or(asker),
            span,
        }
    }

    /// Its span in a trace, within which all is done for it.
    pub(super) const fn span(&self) -> &Span {
        &self.span
    }

    /// Its bytes come from there.
    pub(super) const fn supplied_by(mut self, supply: Supply) -> Self {
        self.supply = Some(supply);
        self
    }

    /// So many bytes go to the runtime.
    pub(super) fn sent(&mut self, n_bytes: usize) {
        let Some(supply) = self.supply else { return };
        if self.first_byte.is_none() {
            let after = self.began.elapsed();
            self.first_byte = Some(after);
            self.metrics.first_byte(supply, after);
        }
        self.n_bytes += n_bytes as u64;
        self.metrics.served(supply, n_bytes as u64);
    }

    /// How it ends. Whoever has asked only for the head gets no more, whatever there would be.
    pub(super) fn ends(&mut self, outcome: Outcome) {
        if self.outcome != Outcome::Probed {
            self.outcome = outcome;
        }
    }

    /// The registry's own answer serves it. Whoever asks only for the head is served by that in any case.
    pub(super) fn falls_back(&self) {
        if self.outcome != Outcome::Probed {
            self.metrics.fell_back(Step::PassedThrough);
        }
    }

    /// Whether so many bytes have gone to the runtime.
    pub(super) const fn has_sent(&self, n_bytes: u64) -> bool {
        self.n_bytes >= n_bytes
    }

    /// This has brought the bytes, or what of them was not here.
    pub(super) fn fetched_by(&mut self, download: Option<Download>) {
        self.download = download;
    }

    /// What became of it, at its end.
    fn told(&self, took: Duration) -> Told {
        let tally = self.download.as_ref().map(Download::tally);
        let fetched = |origin| Some((origin, tally?.of(origin)?));
        let passed = (self.supply == Some(Supply::Registry)).then_some(Step::PassedThrough);
        Told {
            at: self.arrived,
            wanted: self.wanted.clone(),
            client: self.client.clone(),
            outcome: self.outcome,
            supply: self.supply,
            n_bytes: self.n_bytes,
            fetched: Origin::ALL.into_iter().filter_map(fetched).collect(),
            steps: tally.into_iter().flat_map(Tally::steps).chain(passed).collect(),
            first_byte: self.first_byte,
            took,
            trace: self.trace,
        }
    }

    fn end_span(&self, outcome: &str) {
        self.span.record("outcome", outcome);
        self.span.record("supply", self.supply.map(Supply::label));
        self.span.record("bytes", self.n_bytes);
        self.span.record("first_byte_millis", self.first_byte.map(|it| it.as_millis() as u64));
        if matches!(self.outcome, Outcome::Failed | Outcome::Cut) {
            self.span.record("otel.status_code", "ERROR");
        }
        // What another pull has begun is in the trace of that one.
        let download = self.download.as_ref().and_then(Download::trace);
        if let Some(place) = download.filter(|it| self.trace.is_some_and(|own| own.trace() != it.trace())) {
            traces::link(&self.span, place);
        }
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.metrics.streams().dec();
        self.metrics.pulled(self.outcome);
        let took = self.began.elapsed();
        if let (Outcome::Complete | Outcome::PassedThrough, Some(supply)) = (self.outcome, self.supply) {
            self.metrics.last_byte(supply, took);
        }
        let WantedBlob { registry, repository, digest } = &self.wanted;
        let outcome = self.outcome.label();
        self.end_span(outcome);
        let trace = self.trace.map(|it| it.trace_id());
        if self.outcome == Outcome::Probed {
            tracing::debug!(%registry, %repository, %digest, client = self.client, outcome, trace, "pull");
            return;
        }
        let told = self.told(took);
        let steps: Vec<_> = told.steps().collect();
        tracing::info!(
            %registry,
            %repository,
            %digest,
            client = self.client,
            outcome,
            supply = self.supply.map(Supply::label),
            bytes = self.n_bytes,
            from_rack = told.bytes_from(Origin::Peer(Nearness::Rack)),
            from_zone = told.bytes_from(Origin::Peer(Nearness::Zone)),
            from_elsewhere = told.bytes_from(Origin::Peer(Nearness::Elsewhere)),
            from_gateway = told.bytes_from(Origin::Gateway),
            from_registry = told.bytes_from(Origin::Registry),
            steps = (!steps.is_empty()).then(|| steps.join(" ")),
            first_byte_millis = self.first_byte.map(|it| it.as_millis() as u64),
            millis = took.as_millis() as u64,
            trace,
            "pull"
        );
        self.recent.note(told);
    }
}
