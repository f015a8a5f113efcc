//! This process's certificate, wherever it is used.
//!
//! A certificate is replaced while connections live: each handshake takes the one that is there, and no
//! stream notices. Sessions are not resumed: a resumed one would go on with a certificate that has ended.

#![expect(clippy::expect_used, reason = "ring speaks TLS 1.3")]

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::ring;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{ClientConfig, ServerConfig, SignatureScheme};
use tokio::sync::watch;

use crate::material::Material;
use crate::reception::Clients;
use crate::verify::{GatewayVerifier, RegionVerifier, Trusted};

/// The certificate of this process, once it has one; clones are of the same.
#[derive(Clone, Default)]
pub struct Keychain(Arc<Inner>);

#[derive(Default)]
struct Inner {
    material: ArcSwapOption<Material>,
    n_replaced: watch::Sender<u64>,
}

impl Keychain {
    /// Without a certificate: every handshake fails until there is one.
    pub fn empty() -> Self {
        Self::default()
    }

    /// What is there now.
    pub fn current(&self) -> Option<Arc<Material>> {
        self.0.material.load_full()
    }

    /// From now on handshakes are made with this.
    pub fn replace(&self, material: Material) {
        self.0.material.store(Some(Arc::new(material)));
        self.0.n_replaced.send_modify(|it| *it += 1);
    }

    /// Hears of each replacement from now on.
    pub fn replacements(&self) -> watch::Receiver<u64> {
        self.0.n_replaced.subscribe()
    }

    /// TLS for a listener.
    pub fn server(&self, clients: Clients) -> Arc<ServerConfig> {
        let verifier = RegionVerifier::new(self.clone(), clients);
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&TLS13])
            .expect("ring speaks TLS 1.3")
            .with_client_cert_verifier(Arc::new(verifier))
            .with_cert_resolver(Arc::new(self.clone()));
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Arc::new(config)
    }

    /// TLS for dialling others of the region.
    pub fn client(&self) -> Arc<ClientConfig> {
        let verifier = RegionVerifier::new(self.clone(), Clients::WithCertificate);
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&TLS13])
            .expect("ring speaks TLS 1.3")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_cert_resolver(Arc::new(self.clone()));
        config.resumption = Resumption::disabled();
        // Names are not looked at, and need not be told to anybody who listens.
        config.enable_sni = false;
        Arc::new(config)
    }
}

/// TLS for dialling a gateway before there is a certificate.
pub(crate) fn newcomer(trusted: Trusted) -> Arc<ClientConfig> {
    let verifier = GatewayVerifier { trusted, provider: ring::default_provider() };
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&TLS13])
        .expect("ring speaks TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    Arc::new(config)
}

impl ResolvesServerCert for Keychain {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.current().map(|it| it.certified.clone())
    }
}

impl ResolvesClientCert for Keychain {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.current().map(|it| it.certified.clone())
    }

    fn has_certs(&self) -> bool {
        self.current().is_some()
    }
}

impl fmt::Debug for Keychain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Keychain").field(&self.current().map(|it| it.id.to_string())).finish()
    }
}
