//! What happens with an accepted stream before its first request.
//!
//! A listener may want TLS, and a service may want to know whom it talks to. Both are decided once per
//! connection: what is found out about a client travels with each of its requests as an extension.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use http::Extensions;
use rustls::ServerConfig;
use rustls_pki_types::CertificateDer;

/// Secures and introduces the clients of a listener.
pub trait Handshake: Send + Sync + 'static {
    /// The TLS settings; `None` where streams are served as they are.
    fn tls(&self) -> Option<Arc<ServerConfig>>;

    /// What is known of a client that came in. `certificate` is its own, which it has proven to have.
    fn introduce(&self, client: SocketAddr, certificate: Option<&CertificateDer<'_>>) -> Introduction;
}

/// What is known of the client of a connection.
#[derive(Clone, Default)]
pub struct Introduction {
    /// Given to each request.
    pub extensions: Extensions,
    /// When the connection has to end; whoever is still welcome then connects anew.
    pub until: Option<SystemTime>,
}

/// Anybody is served, and nothing is known of them.
pub(super) struct Plain;

impl Handshake for Plain {
    fn tls(&self) -> Option<Arc<ServerConfig>> {
        None
    }

    fn introduce(&self, _: SocketAddr, _: Option<&CertificateDer<'_>>) -> Introduction {
        Introduction::default()
    }
}
