//! Reaching another part of the region, and making sure that it is the one that was meant.
//!
//! Addresses come from schedulers and gateways, and go stale: whoever answers there may be somebody else by
//! now. So the identity that is proven in the handshake is compared with the expected one before anything
//! is sent.

use std::future::Future;
use std::io;
use std::net::Ipv4Addr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use shoal_model::{Node, NodeId};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tower::{Service, ServiceExt as _};

use crate::caller::Identity;
use crate::keychain::Keychain;
use crate::material::identify;
use crate::spiffe::Role;

/// How long the TCP connection may take to come about, and then its handshake.
const DIAL: Duration = Duration::from_secs(1);

/// Who is meant to answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Whoever has this role.
    Any(Role),
    /// This one and no other.
    Exactly(Role, NodeId),
}

impl Expected {
    /// This node and no other.
    pub fn node(node: &Node) -> Self {
        Self::Exactly(node.role.into(), node.id.clone())
    }

    fn is_met_by(&self, identity: &Identity) -> bool {
        match self {
            Self::Any(role) => identity.role == *role,
            Self::Exactly(role, node) => identity.role == *role && identity.node == *node,
        }
    }
}

impl std::fmt::Display for Expected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Any(role) => write!(f, "a {role}"),
            Self::Exactly(role, node) => write!(f, "the {role} {node}"),
        }
    }
}

/// Why nobody was reached.
#[derive(Debug, thiserror::Error)]
#[error("dial {address}: {fault}")]
pub struct DialError {
    address: String,
    fault: Fault,
}

#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error("{0}")]
    Connect(io::Error),
    #[error("no connection within {DIAL:?}")]
    Slow,
    #[error("TLS: {0}")]
    Handshake(io::Error),
    #[error("is not a host and a port")]
    Address,
    #[error("there answers the {} {}, not {expected}", seen.role, seen.node)]
    Other { seen: Identity, expected: Expected },
    #[error("who answers there shows no certificate")]
    Nobody,
}

/// Dials; clones are of the same.
#[derive(Clone)]
pub struct Dialer {
    tls: Option<Arc<ClientConfig>>,
    replacements: Option<watch::Receiver<u64>>,
}

impl Dialer {
    /// By mutual TLS with this process's certificate; without a keychain, in tests, by plain TCP.
    pub fn new(keychain: Option<&Keychain>) -> Self {
        Self { tls: keychain.map(Keychain::client), replacements: keychain.map(Keychain::replacements) }
    }

    pub(crate) fn with(tls: Arc<ClientConfig>) -> Self {
        Self { tls: Some(tls), replacements: None }
    }

    /// Which certificate this process has: another number for each.
    pub fn generation(&self) -> u64 {
        self.replacements.as_ref().map_or(0, |it| *it.borrow())
    }

    /// Waits until this process has another certificate than that: a connection that is to last has to be made
    /// anew, since the one with the old certificate ends with it.
    pub async fn renewed(&self, generation: u64) {
        if let Some(mut replacements) = self.replacements.clone()
            && replacements.wait_for(|it| *it != generation).await.is_ok()
        {
            return;
        }
        std::future::pending().await
    }

    /// Dials on behalf of an HTTP client, always for the same party.
    pub fn connector(&self, expected: Expected) -> Connector {
        Connector { dialer: self.clone(), expected }
    }

    /// Reaches `expected` at `host:port`.
    pub async fn dial(&self, address: &str, expected: &Expected) -> Result<Stream, DialError> {
        let dialled = self.reach(address, expected).await;
        dialled.map_err(|fault| DialError { address: address.to_owned(), fault })
    }

    async fn reach(&self, address: &str, expected: &Expected) -> Result<Stream, Fault> {
        let uri = format!("http://{address}").parse().map_err(|_| Fault::Address)?;
        let tcp = tcp().oneshot(uri).await.map_err(|it| Fault::Connect(io::Error::other(it)))?.into_inner();
        let Some(tls) = &self.tls else { return Ok(Stream::Plain(tcp)) };
        let shaken = timeout(DIAL, TlsConnector::from(tls.clone()).connect(nobody(), tcp)).await;
        let stream = shaken.map_err(|_| Fault::Slow)?.map_err(Fault::Handshake)?;
        let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let (_, seen) = certificate.and_then(|it| identify(it).ok()).ok_or(Fault::Nobody)?;
        if !expected.is_met_by(&seen) {
            return Err(Fault::Other { seen, expected: expected.clone() });
        }
        Ok(Stream::Tls(Box::new(stream)))
    }
}

/// Resolves names and connects: the addresses of a name share the time, and those of the second family are
/// tried soon after the first.
fn tcp() -> HttpConnector {
    let mut connector = HttpConnector::new();
    connector.set_connect_timeout(Some(DIAL));
    connector.set_nodelay(true);
    connector
}

/// A name to connect to, which TLS wants to have and nobody looks at.
fn nobody() -> ServerName<'static> {
    ServerName::IpAddress(Ipv4Addr::UNSPECIFIED.into())
}

/// Dials for an HTTP client.
#[derive(Clone)]
pub struct Connector {
    dialer: Dialer,
    expected: Expected,
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Stream>;
    type Error = DialError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, DialError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), DialError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let it = self.clone();
        Box::pin(async move {
            let authority = uri.authority().map(http::uri::Authority::as_str).unwrap_or_default();
            Ok(TokioIo::new(it.dialer.dial(authority, &it.expected).await?))
        })
    }
}

/// A connection to another part of the region.
#[derive(Debug)]
pub enum Stream {
    /// As it is.
    Plain(TcpStream),
    /// Under mutual TLS.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

/// The same call on whichever stream it is.
macro_rules! forward {
    ($self:ident.$method:ident($($argument:expr),*)) => {
        match $self.get_mut() {
            Stream::Plain(it) => Pin::new(it).$method($($argument),*),
            Stream::Tls(it) => Pin::new(it).$method($($argument),*),
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        forward!(self.poll_read(cx, buf))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        forward!(self.poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        forward!(self.poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(it) => it.is_write_vectored(),
            Self::Tls(it) => it.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        forward!(self.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        forward!(self.poll_shutdown(cx))
    }
}
