//! Somebody in a region's network who speaks its protocols, with whatever certificate and ticket the test gives
//! them.
//!
//! None of the product's own code is used to connect: it would not do what is not allowed. So the intruder looks
//! at nobody's certificate and is particular about nothing.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rcgen::string::Ia5String;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType, date_time_ymd};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, ServerConfig, SignatureScheme};
use shoal_proto::gateway_client::GatewayClient;
use shoal_proto::{JobsNews, JobsRequest, OpenRequest, OpenedBlob};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::task::AbortOnDropHandle;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::host::Host;

const DEADLINE: Duration = Duration::from_secs(10);

/// A certificate with its key.
#[derive(Debug)]
pub struct Certificate {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Certificate {
    /// One that was issued to a node and is kept in a directory.
    pub fn kept_in(dir: &Path) -> Result<Self> {
        let chain = CertificateDer::pem_file_iter(dir.join("node.pem"))?.collect::<Result<_, _>>()?;
        Ok(Self { chain, key: PrivateKeyDer::from_pem_file(dir.join("node.key"))? })
    }

    /// The identity that it names, `spiffe://<trust domain>/<role>/<node>`.
    pub fn identity(&self) -> Result<String> {
        let leaf = self.chain.first().context("an empty chain")?;
        let (_, leaf) = X509Certificate::from_der(leaf)?;
        let names = leaf.subject_alternative_name()?.context("a certificate without names")?;
        let uri = names.value.general_names.iter().find_map(|it| match it {
            GeneralName::URI(uri) => Some((*uri).to_owned()),
            _ => None,
        });
        uri.context("a certificate without an identity")
    }

    /// Settings of a server that shows it and asks its clients for none.
    pub(crate) fn server(&self) -> Result<Arc<ServerConfig>> {
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(self.chain.clone(), self.key.clone_key())?;
        Ok(Arc::new(config))
    }
}

/// A certificate authority in the hands of the test.
pub struct Ca(Issuer<'static, KeyPair>);

impl Ca {
    /// A region's own, kept in a directory.
    pub fn kept_in(dir: &Path) -> Result<Self> {
        let [certificate, key] = ["ca.pem", "ca.key"].map(|it| std::fs::read_to_string(dir.join(it)));
        Ok(Self(Issuer::from_ca_cert_pem(&certificate?, KeyPair::from_pem(&key?)?)?))
    }

    /// One of another region.
    pub fn foreign() -> Result<Self> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Ok(Self(Issuer::new(params, KeyPair::generate()?)))
    }

    /// A certificate for an identity.
    pub fn certify(&self, identity: &str) -> Result<Certificate> {
        self.sign(identity, CertificateParams::default())
    }

    /// The same, which ended long ago.
    pub fn certify_expired(&self, identity: &str) -> Result<Certificate> {
        let mut params = CertificateParams::default();
        (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2020, 1, 2));
        self.sign(identity, params)
    }

    fn sign(&self, identity: &str, mut params: CertificateParams) -> Result<Certificate> {
        params.subject_alt_names = vec![SanType::URI(Ia5String::try_from(identity)?)];
        let key = KeyPair::generate()?;
        let chain = vec![params.signed_by(&key, &self.0)?.der().clone()];
        let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(anyhow::Error::msg)?;
        Ok(Certificate { chain, key })
    }
}

impl Host {
    /// Sends one request under TLS, showing a certificate or none, and reads the whole answer. Fails where the
    /// other side does not want to talk.
    pub async fn ask_under_tls(
        &self,
        to: SocketAddr,
        certificate: Option<&Certificate>,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Bytes>> {
        let exchange = async {
            let stream = self.dial_under_tls(to, certificate).await?;
            let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
            let _driven = AbortOnDropHandle::new(tokio::spawn(connection));
            let (head, body) = sender.send_request(request).await?.into_parts();
            anyhow::Ok(Response::from_parts(head, body.collect().await?.to_bytes()))
        };
        timeout(DEADLINE, exchange).await.with_context(|| format!("{to}: no answer within {DEADLINE:?}"))?
    }

    /// Has a gateway open one blob in the name of a node.
    pub async fn open(
        &self,
        gateway: SocketAddr,
        certificate: Certificate,
        request: OpenRequest,
    ) -> Result<OpenedBlob> {
        let channel = self.channel(gateway, certificate).await?;
        let mut replies = timeout(DEADLINE, GatewayClient::new(channel).open(request)).await??.into_inner();
        let reply = timeout(DEADLINE, replies.message()).await??;
        let opened = reply.and_then(|mut it| it.0.pop()).context("the gateway answered for no blob")?;
        opened.outcome.map_err(|it| anyhow::anyhow!("refused: {it:?}"))
    }

    /// What a gateway tells of its preheat jobs, in its first two words.
    pub async fn jobs_of(&self, gateway: SocketAddr, certificate: Certificate) -> Result<[JobsNews; 2]> {
        let channel = self.channel(gateway, certificate).await?;
        let mut news = timeout(DEADLINE, GatewayClient::new(channel).jobs(JobsRequest)).await??.into_inner();
        let mut told = [JobsNews::default(), JobsNews::default()];
        for word in &mut told {
            *word = timeout(DEADLINE, news.message()).await??.context("the gateway says no more")?;
        }
        Ok(told)
    }

    /// A connection for gRPC under TLS.
    pub(crate) async fn channel(&self, to: SocketAddr, certificate: Certificate) -> Result<Channel> {
        let (host, certificate) = (self.clone(), Arc::new(certificate));
        let dial = service_fn(move |_| {
            let (host, certificate) = (host.clone(), Arc::clone(&certificate));
            async move { host.dial_under_tls(to, Some(&certificate)).await.map(TokioIo::new) }
        });
        // The URI only fills the authority header; the connector decides where it goes.
        let endpoint = Endpoint::from_static("http://region");
        Ok(timeout(DEADLINE, endpoint.connect_with_connector(dial)).await??)
    }

    async fn dial_under_tls(
        &self,
        to: SocketAddr,
        certificate: Option<&Certificate>,
    ) -> Result<TlsStream<TcpStream>> {
        under_tls(self.connect(to).await?, certificate).await
    }
}

/// Speaks TLS over a connection, showing a certificate or none.
pub(crate) async fn under_tls(
    stream: TcpStream,
    certificate: Option<&Certificate>,
) -> Result<TlsStream<TcpStream>> {
    let provider = Arc::new(ring::default_provider());
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(provider)));
    let config = match certificate {
        Some(it) => config.with_client_auth_cert(it.chain.clone(), it.key.clone_key())?,
        None => config.with_no_client_auth(),
    };
    let server = ServerName::from(stream.peer_addr()?.ip());
    Ok(TlsConnector::from(Arc::new(config)).connect(server, stream).await?)
}

/// Takes every server for the right one.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_names_whom_it_was_made_for() {
        let identity = "spiffe://lab/sidecar/node1";
        let ca = Ca::foreign().expect("made");
        for made in [ca.certify(identity), ca.certify_expired(identity)] {
            assert_eq!(made.expect("made").identity().expect("named"), identity);
        }
    }
}
