//! Whose certificate a registry must show.
//!
//! The system's roots, and the operator's for registries with a CA of their own. Verification is
//! switched off only for an endpoint that asks for it.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::{Endpoint, EndpointError};

/// The TLS settings for one endpoint; reads files.
pub(crate) fn client_config(endpoint: &Endpoint) -> Result<ClientConfig, EndpointError> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .expect("ring supports the default protocol versions");
    if endpoint.insecure {
        let verifier = Arc::new(AcceptAnything(provider));
        return Ok(builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth());
    }
    Ok(builder.with_root_certificates(roots(endpoint)?).with_no_client_auth())
}

fn roots(endpoint: &Endpoint) -> Result<RootCertStore, EndpointError> {
    let mut roots = RootCertStore::empty();
    // A system certificate that cannot be parsed is as good as absent.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let Some(path) = &endpoint.ca else {
        return Ok(roots);
    };
    let unusable =
        |fault: String| EndpointError::Ca { registry: endpoint.name.clone(), path: path.clone(), fault };
    let certificates = CertificateDer::pem_file_iter(path).map_err(|it| unusable(it.to_string()))?;
    let before = roots.len();
    for certificate in certificates {
        let certificate = certificate.map_err(|it| unusable(it.to_string()))?;
        roots.add(certificate).map_err(|it| unusable(it.to_string()))?;
    }
    if roots.len() == before {
        return Err(unusable("holds no certificate".to_owned()));
    }
    Ok(roots)
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
