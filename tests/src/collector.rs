//! A collector of traces: what a service sends by OTLP over gRPC, kept.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use futures_util::stream;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::{self, ResourceSpans, status::StatusCode};
use shoal_model::TraceParent;
use tokio_util::task::AbortOnDropHandle;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

use crate::host::Host;
use crate::lab::Lab;

const PORT: u16 = 4317;

/// A running collector.
#[derive(Debug)]
pub struct Collector {
    host: Host,
    spans: Arc<Mutex<Vec<Span>>>,
    _server: AbortOnDropHandle<()>,
}

/// A span as it was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// The program that it is from.
    pub service: String,
    /// What was done.
    pub name: String,
    /// In hex, as are the other ids.
    pub trace: String,
    /// Its own id.
    pub id: String,
    /// The span that it is part of; empty where it is the first of its trace.
    pub parent: String,
    /// What is said about it.
    pub attributes: BTreeMap<String, String>,
    /// Whether it failed.
    pub is_error: bool,
    /// The traces that have a part in it.
    pub links: Vec<String>,
}

impl Collector {
    /// Starts one on a machine of its own.
    pub async fn start(lab: &mut Lab) -> Result<Self> {
        let host = lab.host("collector").await?;
        let spans = Arc::<Mutex<Vec<Span>>>::default();
        let incoming = stream::unfold(host.listen(PORT)?, async |listener| {
            Some((listener.accept().await.map(|(stream, _)| stream), listener))
        });
        let service = TraceServiceServer::new(Receiver(spans.clone()));
        let server = tokio::spawn(async move {
            // It ends with the collector.
            let _ = Server::builder().add_service(service).serve_with_incoming(incoming).await;
        });
        Ok(Self { host, spans, _server: AbortOnDropHandle::new(server) })
    }

    /// What services are told of it.
    pub fn endpoint(&self) -> String {
        endpoint(self.host.address())
    }

    /// What has come of a trace.
    pub fn trace(&self, id: &str) -> Vec<Span> {
        let spans = self.spans.lock().unwrap_or_else(PoisonError::into_inner);
        spans.iter().filter(|it| it.trace == id).cloned().collect()
    }
}

/// Where a collector would be on this machine.
pub fn endpoint(address: Ipv4Addr) -> String {
    format!("http://{address}:{PORT}")
}

impl Span {
    /// Whether it is a part of what this asks for.
    pub fn is_part_of(&self, asker: TraceParent) -> bool {
        self.trace == asker.trace_id() && self.parent == format!("{:016x}", asker.span())
    }
}

struct Receiver(Arc<Mutex<Vec<Span>>>);

#[tonic::async_trait]
impl TraceService for Receiver {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let spans = request.into_inner().resource_spans.into_iter().flat_map(seen);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(spans);
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

fn seen(it: ResourceSpans) -> Vec<Span> {
    let mut resource = texts(it.resource.unwrap_or_default().attributes);
    let service = resource.remove("service.name").unwrap_or_default();
    let spans = it.scope_spans.into_iter().flat_map(|it| it.spans);
    spans.map(|it| span(service.clone(), it)).collect()
}

fn span(service: String, it: v1::Span) -> Span {
    Span {
        service,
        name: it.name,
        trace: hex(&it.trace_id),
        id: hex(&it.span_id),
        parent: hex(&it.parent_span_id),
        attributes: texts(it.attributes),
        is_error: it.status.is_some_and(|it| it.code() == StatusCode::Error),
        links: it.links.iter().map(|it| hex(&it.trace_id)).collect(),
    }
}

fn texts(attributes: Vec<KeyValue>) -> BTreeMap<String, String> {
    let text = |value: Value| match value {
        Value::StringValue(it) => it,
        Value::BoolValue(it) => it.to_string(),
        Value::IntValue(it) => it.to_string(),
        Value::DoubleValue(it) => it.to_string(),
        other => format!("{other:?}"),
    };
    let pair = |it: KeyValue| Some((it.key, text(it.value?.value?)));
    attributes.into_iter().filter_map(pair).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|it| format!("{it:02x}")).collect()
}
