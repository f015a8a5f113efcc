//! Traces: what a request led to, in this process and in others, as spans that a collector gets by OTLP.
//!
//! A span is one of `tracing` with the target [`TARGET`], which logs never show. Without a collector
//! (`traces.endpoint`) nobody takes spans of that target, so that they are not made and cost nothing. What asks
//! another process tells it where it stands ([`here`]), and that goes on from there ([`from`]); a process that is
//! told nothing makes no span, so that whoever begins a trace decides for all whether there is one.
//!
//! ```
//! use shoal_ops::traces;
//! use tracing::{Instrument as _, info_span};
//!
//! # async fn answer() {}
//! # async fn example(headers: &http::HeaderMap) {
//! let asker = traces::of_headers(headers);
//! let span = traces::from(asker, || info_span!(target: traces::TARGET, "answer", otel.kind = "server"));
//! answer().instrument(span).await;
//! # }
//! ```

mod export;

use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState};
use shoal_model::TraceParent;
use tracing::Span;
use tracing::field::display;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

pub(crate) use export::{TraceSettings, Traces};

/// The target of spans that are for traces.
pub const TARGET: &str = "traces";

/// A span that goes on from where `asker` stands, and begins a trace where that is nowhere. `make` makes it, without a
/// parent.
pub fn begin(asker: Option<TraceParent>, make: impl FnOnce() -> Span) -> Span {
    let span = make();
    if let Some(asker) = asker {
        // Where nobody takes spans there is nothing to go on.
        let _ = span.set_parent(Context::new().with_remote_span_context(context_of(asker)));
    }
    span
}

/// A span that goes on from where `asker` stands; none where that is nowhere.
pub fn from(asker: Option<TraceParent>, make: impl FnOnce() -> Span) -> Span {
    match asker {
        Some(_) => begin(asker, make),
        None => Span::none(),
    }
}

/// Where a span stands, for whoever is asked on its behalf; `None` where it is not recorded.
pub fn place_of(span: &Span) -> Option<TraceParent> {
    if span.is_disabled() {
        return None;
    }
    let context = span.context();
    let context = context.span().span_context().clone();
    let (trace, id) = (u128::from_be_bytes(context.trace_id().to_bytes()), context.span_id().to_bytes());
    TraceParent::new(trace, u64::from_be_bytes(id), context.is_sampled()).filter(TraceParent::is_sampled)
}

/// Where the work at hand stands.
pub fn here() -> Option<TraceParent> {
    place_of(&Span::current())
}

/// Something that is done in another trace serves this span as well.
pub fn link(span: &Span, other: TraceParent) {
    span.add_link(context_of(other));
}

/// Where the sender of a request stands.
pub fn of_headers(headers: &HeaderMap) -> Option<TraceParent> {
    headers.get(TraceParent::HEADER)?.to_str().ok()?.parse().ok()
}

/// Has a request tell where its sender stands, where that is anywhere.
pub fn tell(place: Option<TraceParent>, headers: &mut HeaderMap) {
    let value = place.and_then(|it| HeaderValue::try_from(it.to_string()).ok());
    headers.extend(value.map(|it| (HeaderName::from_static(TraceParent::HEADER), it)));
}

/// What the span is about came to nothing. It needs a field `error`.
pub fn failed(span: &Span, why: impl fmt::Display) {
    span.record("error", display(why));
    span.record("otel.status_code", "ERROR");
}

fn context_of(place: TraceParent) -> SpanContext {
    let flags = if place.is_sampled() { TraceFlags::SAMPLED } else { TraceFlags::default() };
    let (trace, span) = (place.trace().to_be_bytes(), place.span().to_be_bytes());
    SpanContext::new(TraceId::from_bytes(trace), SpanId::from_bytes(span), flags, true, TraceState::NONE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider};
    use tracing::info_span;
    use tracing::level_filters::LevelFilter;
    use tracing_subscriber::Layer as _;
    use tracing_subscriber::layer::SubscriberExt as _;
    use tracing_subscriber::util::SubscriberInitExt as _;

    fn recording() -> (Traces, InMemorySpanExporter) {
        let exporter = InMemorySpanExporter::default();
        let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
        (Traces(provider), exporter)
    }

    fn asker(flags: &str) -> TraceParent {
        format!("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-{flags}").parse().unwrap()
    }

    #[test]
    fn a_span_goes_on_from_its_asker_and_tells_where_it_stands() {
        let (traces, spans) = recording();
        let _guard = tracing_subscriber::registry().with(traces.layer()).set_default();
        let span = from(Some(asker("01")), || info_span!(target: TARGET, "answer"));
        let place = place_of(&span).unwrap();
        assert_eq!(place.trace(), asker("01").trace());
        assert_eq!(span.in_scope(here), Some(place));
        let mut headers = HeaderMap::new();
        tell(Some(place), &mut headers);
        assert_eq!(of_headers(&headers), Some(place));
        drop(span);
        let [answer] = &spans.get_finished_spans().unwrap()[..] else { panic!("one span") };
        assert_eq!(answer.parent_span_id.to_bytes(), asker("01").span().to_be_bytes());
        assert_eq!(answer.span_context.span_id().to_bytes(), place.span().to_be_bytes());
    }

    #[test]
    fn who_is_told_nothing_or_not_to_record_records_nothing() {
        let (traces, spans) = recording();
        let _guard = tracing_subscriber::registry().with(traces.layer()).set_default();
        for asker in [None, Some(asker("00"))] {
            let span = from(asker, || info_span!(target: TARGET, "answer"));
            assert_eq!(place_of(&span), None);
        }
        assert_eq!(here(), None);
        assert!(spans.get_finished_spans().unwrap().is_empty());
    }

    #[test]
    fn without_a_collector_no_span_is_made() {
        let logs =
            tracing_subscriber::fmt::layer().with_filter(crate::telemetry::targets(LevelFilter::TRACE));
        let _guard = tracing_subscriber::registry().with(logs).set_default();
        let span = from(Some(asker("01")), || info_span!(target: TARGET, "answer"));
        assert!(span.is_disabled());
        assert_eq!(place_of(&span), None);
    }
}
