//! Whom a handshake lets through: whoever shows a certificate of this region's authority, and of this
//! trust domain.
//!
//! Host names play no part: who dials compares the identity with the one that it expects once the
//! handshake is done ([`dial`](crate::dial)). Roots are looked up at each handshake, so that new ones hold
//! at once.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, ring, verify_tls13_signature};
use rustls::server::ParsedCertificate;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use sha2::{Digest as _, Sha256};

use crate::keychain::Keychain;
use crate::material::{Material, identify};
use crate::reception::Clients;
use crate::spiffe::Role;

/// What both traits of verifiers ask for beside the certificates: signatures of TLS 1.3 and of no other.
macro_rules! signatures_of_tls13 {
    () => {
        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Err(Error::General("only TLS 1.3 is spoken".to_owned()))
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.provider.signature_verification_algorithms.supported_schemes()
        }
    };
}

/// Both ends' verifier.
#[derive(Debug)]
pub(crate) struct RegionVerifier {
    keychain: Keychain,
    clients: Clients,
    provider: CryptoProvider,
}

impl RegionVerifier {
    pub(crate) fn new(keychain: Keychain, clients: Clients) -> Self {
        Self { keychain, clients, provider: ring::default_provider() }
    }

    fn material(&self) -> Result<Arc<Material>, Error> {
        self.keychain
            .current()
            .ok_or_else(|| Error::General("this process has no certificate yet".to_owned()))
    }
}

/// A certificate of another trust domain is refused even under a shared root.
fn same_domain(own: &Material, other: &CertificateDer<'_>) -> Result<(), Error> {
    let (id, _) = identify(other)?;
    if id.domain == own.id.domain {
        return Ok(());
    }
    Err(CertificateError::ApplicationVerificationFailure.into())
}

impl ServerCertVerifier for RegionVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let own = self.material()?;
        anchored(&self.provider, &own.roots, end_entity, intermediates, now)?;
        same_domain(&own, end_entity)?;
        Ok(ServerCertVerified::assertion())
    }

    signatures_of_tls13!();
}

impl ClientCertVerifier for RegionVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.clients == Clients::WithCertificate
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // Whoever belongs to the region knows its one certificate.
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let own = self.material()?;
        let verified = own.clients.verify_client_cert(end_entity, intermediates, now)?;
        same_domain(&own, end_entity)?;
        Ok(verified)
    }

    signatures_of_tls13!();
}

pub(crate) fn anchored(
    provider: &CryptoProvider,
    roots: &RootCertStore,
    end_entity: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    now: UnixTime,
) -> Result<(), Error> {
    let parsed = ParsedCertificate::try_from(end_entity)?;
    let algorithms = provider.signature_verification_algorithms.all;
    verify_server_cert_signed_by_trust_anchor(&parsed, roots, intermediates, now, algorithms)
}

/// Lets a process that has no certificate yet recognise a gateway: by the roots that it was given, or by the
/// SHA-256 of the region's root, which the gateway then sends along.
#[derive(Debug)]
pub(crate) struct GatewayVerifier {
    pub(crate) trusted: Trusted,
    pub(crate) provider: CryptoProvider,
}

/// How the region's authority is recognised by whoever has no certificate of it.
#[derive(Clone, Debug)]
pub(crate) enum Trusted {
    Roots(Arc<RootCertStore>),
    Pin([u8; 32]),
}

impl Trusted {
    /// Whether one of these roots is meant.
    pub(crate) fn includes(&self, roots: &[CertificateDer<'_>]) -> bool {
        match self {
            Self::Pin(pin) => roots.iter().any(|it| Sha256::digest(it).as_slice() == pin),
            Self::Roots(trusted) => roots.iter().any(|it| {
                let mut one = RootCertStore::empty();
                one.add(it.clone().into_owned()).is_ok()
                    && one.roots.iter().all(|it| trusted.roots.contains(it))
            }),
        }
    }
}

impl GatewayVerifier {
    fn roots(&self, sent: &[CertificateDer<'_>]) -> Result<Arc<RootCertStore>, Error> {
        let pin = match &self.trusted {
            Trusted::Roots(roots) => return Ok(roots.clone()),
            Trusted::Pin(pin) => pin,
        };
        let root = sent.iter().find(|it| Sha256::digest(it).as_slice() == pin);
        let root = root.ok_or(CertificateError::UnknownIssuer)?;
        let mut roots = RootCertStore::empty();
        roots.add(root.clone().into_owned())?;
        Ok(Arc::new(roots))
    }
}

impl ServerCertVerifier for GatewayVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        anchored(&self.provider, &*self.roots(intermediates)?, end_entity, intermediates, now)?;
        let (id, _) = identify(end_entity)?;
        if id.role != Role::Gateway {
            return Err(CertificateError::ApplicationVerificationFailure.into());
        }
        Ok(ServerCertVerified::assertion())
    }

    signatures_of_tls13!();
}
