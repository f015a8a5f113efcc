//! Where spans go: a collector that takes OTLP over gRPC.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use hyper_rustls::HttpsConnectorBuilder;
use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{SpanExporter, WithTonicConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use tonic::transport::{Channel, Endpoint};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::registry::LookupSpan;

use super::TARGET;
use crate::settings::{Reader, Setting};

/// How long the collector may take for what is left when the process ends.
const LAST_SPANS: Duration = Duration::from_secs(2);

/// Where traces go: the keys `traces.endpoint` and `traces.oneIn`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TraceSettings {
    endpoint: Collector,
    /// Of the traces begun here one in so many is recorded.
    one_in: u32,
}

/// The collector's address; `None` where there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Collector(Option<String>);

impl Setting for Collector {
    fn read(text: &str) -> Result<Self, String> {
        let is_address = ["http://", "https://"].iter().any(|it| text.starts_with(it))
            && text.parse::<http::Uri>().is_ok_and(|it| it.authority().is_some());
        match text {
            "" => Ok(Self(None)),
            _ if is_address => Ok(Self(Some(text.to_owned()))),
            _ => Err("is not the address of an OTLP collector, such as http://collector:4317".into()),
        }
    }
}

impl TraceSettings {
    /// Reads the settings.
    pub(crate) fn read(reader: &Reader) -> Self {
        Self { endpoint: reader.get("traces.endpoint"), one_in: reader.get_in("traces.oneIn", 1..=1_000_000) }
    }
}

/// Sends spans to the collector, for as long as the process runs.
pub(crate) struct Traces(pub(super) SdkTracerProvider);

impl Traces {
    /// `None` where there is no collector. Needs the runtime, on which spans are sent.
    pub(crate) fn start(
        settings: &TraceSettings,
        service: &'static str,
        version: &'static str,
    ) -> anyhow::Result<Option<Self>> {
        let Some(endpoint) = &settings.endpoint.0 else { return Ok(None) };
        let channel = channel(endpoint, rustls_native_certs::load_native_certs().certs);
        let exporter =
            channel.and_then(|it| Ok(SpanExporter::builder().with_tonic().with_channel(it).build()?));
        let exporter = exporter.with_context(|| format!("traces to {endpoint}"))?;
        let node = nix::unistd::gethostname().ok().and_then(|it| it.into_string().ok()).unwrap_or_default();
        // OTEL_RESOURCE_ATTRIBUTES adds to these.
        let resource = Resource::builder()
            .with_service_name(service)
            .with_attributes([KeyValue::new("service.version", version), KeyValue::new("host.name", node)]);
        let sampler =
            Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(1.0 / f64::from(settings.one_in))));
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_resource(resource.build())
            .with_sampler(sampler);
        Ok(Some(Self(provider.build())))
    }

    /// What takes the spans.
    pub(crate) fn layer<S>(&self) -> impl Layer<S> + Send + Sync + use<S>
    where
        S: tracing::Subscriber + Send + Sync + for<'a> LookupSpan<'a>,
    {
        tracing_opentelemetry::layer()
            .with_tracer(self.0.tracer("shoal"))
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_tracked_inactivity(false)
            .with_filter(Targets::new().with_target(TARGET, LevelFilter::INFO))
    }

    /// Sends what is left. Blocks, and needs the runtime.
    pub(crate) fn end(self) {
        if let Err(error) = self.0.shutdown_with_timeout(LAST_SPANS) {
            tracing::warn!(error = &error as &dyn std::error::Error, "the last spans were not sent");
        }
    }
}

/// A connection to the collector, made when it is first used. Its certificate is to be from one of `roots`.
fn channel(endpoint: &str, roots: Vec<CertificateDer<'_>>) -> anyhow::Result<Channel> {
    let mut trusted = RootCertStore::empty();
    trusted.add_parsable_certificates(roots);
    let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(trusted)
        .with_no_client_auth();
    let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http2().build();
    Ok(Endpoint::from_shared(endpoint.to_owned())?.connect_with_connector_lazy(connector))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::ServerConfig;
    use rustls_pki_types::PrivateKeyDer;
    use std::future::poll_fn;
    use tokio::io::AsyncReadExt as _;
    use tokio::net::TcpListener;
    use tokio::time::timeout;
    use tokio_rustls::TlsAcceptor;
    use tower::Service as _;

    #[track_caller]
    fn check(user: &str, expected: Result<(Option<&str>, u32), &str>) {
        let reader = Reader::new(user, "traces: {endpoint: '', oneIn: 1}", |_| None);
        let settings = TraceSettings::read(&reader);
        match expected {
            Ok((endpoint, one_in)) => {
                assert_eq!(reader.finish(), Ok(()));
                assert_eq!((settings.endpoint.0.as_deref(), settings.one_in), (endpoint, one_in));
            }
            Err(why) => assert!(reader.finish().unwrap_err().to_string().contains(why)),
        }
    }

    #[test]
    fn settings_name_a_collector_and_a_part() {
        check("", Ok((None, 1)));
        let address = "http://collector:4317";
        check(&format!("traces: {{endpoint: '{address}', oneIn: 100}}"), Ok((Some(address), 100)));
        for bad in ["collector:4317", "http://", "grpc://collector:4317"] {
            check(&format!("traces: {{endpoint: '{bad}'}}"), Err("is not the address of an OTLP collector"));
        }
        check("traces: {oneIn: 0}", Err("traces.oneIn"));
    }

    /// The first bytes that a collector with this certificate gets.
    async fn greeting(trusted: bool) -> Option<[u8; 14]> {
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let (chain, key) = (made.cert.der().clone(), made.signing_key.serialize_der());
        let mut tls = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![chain.clone()], PrivateKeyDer::Pkcs8(key.into()))
            .unwrap();
        tls.alpn_protocols = vec![b"h2".to_vec()];
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let endpoint = format!("https://{}", listener.local_addr().unwrap());
        let roots = if trusted { vec![chain] } else { Vec::new() };
        let mut channel = channel(&endpoint, roots).unwrap();
        let request = http::Request::new(tonic::body::Body::empty());
        let asking = tokio::spawn(async move {
            poll_fn(|cx| channel.poll_ready(cx)).await?;
            channel.call(request).await
        });
        let (stream, _) = listener.accept().await.unwrap();
        let mut greeting = [0; 14];
        let mut stream = TlsAcceptor::from(Arc::new(tls)).accept(stream).await.ok()?;
        let came = stream.read_exact(&mut greeting).await;
        asking.abort();
        came.is_ok().then_some(greeting)
    }

    #[tokio::test]
    async fn a_collector_is_reached_over_tls_where_it_is_trusted() {
        let soon = async |it| timeout(Duration::from_secs(10), it).await.unwrap();
        assert_eq!(soon(greeting(true)).await.as_ref(), Some(b"PRI * HTTP/2.0"));
        assert_eq!(soon(greeting(false)).await, None);
    }
}
