//! Whose certificate a registry must show, and which one it is shown.
//!
//! Trusted are the system's roots, and the operator's for registries with a CA of their own. Verification is
//! switched off only for an endpoint that asks for it. A client certificate is for the registry alone: shown
//! to an object store behind a redirect, it would tell a stranger who the operator is.
//!
//! The files are read as a whole before anything is made of them, so that what was read twice can be compared
//! and a file that is just being replaced breaks nothing that works.

use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientConfig, WantsClientCert};
use rustls::crypto::{CryptoProvider, ring};
use rustls::{ConfigBuilder, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use zeroize::Zeroizing;

use crate::{ClientCertificate, Endpoint, EndpointError};

/// The content of an endpoint's files.
#[derive(PartialEq, Eq)]
pub(crate) struct Files {
    ca: Option<Vec<u8>>,
    /// The chain and the key.
    client: Option<(Vec<u8>, Zeroizing<Vec<u8>>)>,
}

impl Files {
    pub(crate) fn read(endpoint: &Endpoint) -> Result<Self, EndpointError> {
        let read = |path: &Path| std::fs::read(path).map_err(|it| unusable(endpoint, path, &it));
        let client = |it: &ClientCertificate| Ok((read(&it.chain)?, Zeroizing::new(read(&it.key)?)));
        Ok(Self {
            ca: endpoint.ca.as_deref().map(read).transpose()?,
            client: endpoint.client_certificate.as_ref().map(client).transpose()?,
        })
    }
}

/// The TLS settings for one endpoint.
pub(crate) struct Configs {
    /// With the client certificate, where there is one: for the registry itself.
    pub(crate) identified: ClientConfig,
    /// Without: for wherever it redirects to, for token services, and for requests in somebody else's name.
    pub(crate) anonymous: ClientConfig,
}

impl Configs {
    pub(crate) fn new(endpoint: &Endpoint, files: &Files) -> Result<Self, EndpointError> {
        let builder = builder(endpoint, files)?;
        let anonymous = builder.clone().with_no_client_auth();
        let identified = match (&endpoint.client_certificate, &files.client) {
            (Some(paths), Some((chain, key))) => {
                let chain = certificates(endpoint, &paths.chain, chain)?;
                let key = PrivateKeyDer::from_pem_slice(key);
                // What the reader says of a file that is no PEM repeats its lines.
                let key = key.map_err(|_| unusable(endpoint, &paths.key, &"holds no private key in PEM"))?;
                let shown = builder.with_client_auth_cert(chain, key);
                shown.map_err(|it| unusable(endpoint, &paths.key, &it))?
            }
            _ => anonymous.clone(),
        };
        Ok(Self { identified, anonymous })
    }
}

#[expect(clippy::expect_used, reason = "input cannot reach it")]
fn builder(
    endpoint: &Endpoint,
    files: &Files,
) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, EndpointError> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .expect("ring supports the default protocol versions");
    Ok(if endpoint.insecure {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(AcceptAnything(provider)))
    } else {
        builder.with_root_certificates(roots(endpoint, files)?)
    })
}

fn roots(endpoint: &Endpoint, files: &Files) -> Result<RootCertStore, EndpointError> {
    let mut roots = RootCertStore::empty();
    // A system certificate that cannot be parsed is as good as absent.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let (Some(path), Some(pem)) = (&endpoint.ca, &files.ca) {
        for certificate in certificates(endpoint, path, pem)? {
            roots.add(certificate).map_err(|it| unusable(endpoint, path, &it))?;
        }
    }
    Ok(roots)
}

/// The certificates in a file; at least one.
fn certificates(
    endpoint: &Endpoint,
    path: &Path,
    pem: &[u8],
) -> Result<Vec<CertificateDer<'static>>, EndpointError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if found.is_empty() => Err(unusable(endpoint, path, &"holds no certificate")),
        found => found.map_err(|it| unusable(endpoint, path, &it)),
    }
}

fn unusable(endpoint: &Endpoint, path: &Path, fault: &dyn std::fmt::Display) -> EndpointError {
    EndpointError::File { registry: endpoint.name.clone(), path: path.to_owned(), fault: fault.to_string() }
}

/// The verifier of an `insecure` endpoint. Signatures are not checked either: without a trusted
/// certificate they prove nothing.
#[derive(Debug)]
struct AcceptAnything(Arc<CryptoProvider>);

impl ServerCertVerifier for AcceptAnything {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
