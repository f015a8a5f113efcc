//! Who comes in at a listener.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::ServerConfig;
use rustls_pki_types::CertificateDer;
use shoal_ops::serve::{Handshake, Introduction};

use crate::caller::Caller;
use crate::keychain::Keychain;
use crate::material::identify;

/// How long the connection of a client without a certificate may last.
const STRANGERS_STAY: Duration = Duration::from_secs(30);

/// Whom a listener lets in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clients {
    /// Only who shows a certificate of the region.
    WithCertificate,
    /// Anybody, told apart by whether they have one: a gateway also talks with those that have yet to get it.
    Any,
}

/// Introduces the clients of a listener: each request carries an [`Arc<Caller>`].
pub struct Reception {
    tls: Option<Arc<ServerConfig>>,
}

impl Reception {
    /// Under mutual TLS with this process's certificate; without a keychain, in tests, as plain TCP.
    pub fn new(keychain: Option<&Keychain>, clients: Clients) -> Arc<Self> {
        Arc::new(Self { tls: keychain.map(|it| it.server(clients)) })
    }
}

impl Handshake for Reception {
    fn tls(&self) -> Option<Arc<ServerConfig>> {
        self.tls.clone()
    }

    fn introduce(&self, client: SocketAddr, certificate: Option<&CertificateDer<'_>>) -> Introduction {
        // The handshake has read it already; one that cannot be read now proves nothing.
        let identity = certificate.and_then(|it| Some(identify(it).ok()?.1));
        let is_secured = self.tls.is_some();
        let until = match &identity {
            Some(identity) => Some(identity.until),
            // Time enough to ask for a certificate, and no more.
            None => is_secured.then(|| SystemTime::now() + STRANGERS_STAY),
        };
        let mut introduction = Introduction { until, ..Default::default() };
        introduction.extensions.insert(Arc::new(Caller {
            address: client.ip().to_canonical(),
            identity,
            is_secured,
        }));
        introduction
    }
}
