//! A node of the region in the hands of the test: with a certificate and tickets of its own, and none of the product's
//! code.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use bytes::Bytes;
use http::{HeaderName, Request, Response};
use http_body_util::Full;
use shoal_model::{Node, NodeId, Place, Role};
use shoal_proto::{OpenRequest, OpenedBlob, Source};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tonic::transport::Channel;

use crate::fleet::Fleet;
use crate::host::Host;
use crate::image::{Blob, Image};
use crate::intruder::{Ca, Certificate, under_tls};
use crate::shoal::Service;

/// Where nodes serve pieces, by default.
pub const PEER_PORT: u16 = 65002;
const GATEWAY_PORT: u16 = 65003;
const SCHEDULER_PORT: u16 = 65005;

/// The node.
pub struct Member {
    /// Its machine.
    pub host: Host,
    /// Where the region's gateway is.
    pub gateway: SocketAddr,
    /// Where its scheduler is.
    pub scheduler: SocketAddr,
    name: String,
    registry: String,
    ca: Ca,
    identity: String,
}

impl Member {
    /// A node of a fleet's region, by name, on a machine.
    pub fn new(fleet: &Fleet, host: &Host, name: &str) -> Result<Self> {
        let of_a_node = Certificate::kept_in(&fleet.sidecars[0].host.dir().join("shoal-sidecar/identity"))?;
        let of_a_node = of_a_node.identity()?;
        let (role, _) = of_a_node.rsplit_once('/').context("an identity without a node")?;
        Ok(Self {
            host: host.clone(),
            gateway: (fleet.gateway.host.address(), GATEWAY_PORT).into(),
            scheduler: (fleet.scheduler.host.address(), SCHEDULER_PORT).into(),
            name: name.into(),
            registry: fleet.registry.authority().into(),
            ca: Ca::kept_in(&fleet.gateway.host.dir().join("gateway/ca"))?,
            identity: format!("{role}/{name}"),
        })
    }

    /// A certificate for it.
    pub fn certify(&self) -> Result<Certificate> {
        self.ca.certify(&self.identity)
    }

    /// The node as others are to see it.
    pub fn node(&self) -> Node {
        Node {
            id: NodeId::new(&self.name),
            address: format!("{}:{PEER_PORT}", self.host.address()).into(),
            role: Role::Sidecar,
            place: Place::default(),
        }
    }

    /// Where an image comes from.
    pub fn source(&self, image: &Image) -> Source {
        Source { registry: self.registry.clone(), repository: image.repository.clone() }
    }

    /// Has the gateway open a blob.
    pub async fn open(&self, image: &Image, blob: &Blob) -> Result<OpenedBlob> {
        let request = OpenRequest {
            source: self.source(image),
            digests: vec![blob.digest],
            authorization: None,
            node: self.node(),
            traces: Vec::new(),
        };
        self.host.open(self.gateway, self.certify()?, request).await
    }

    /// A connection for gRPC.
    pub async fn channel(&self, to: SocketAddr) -> Result<Channel> {
        self.host.channel(to, self.certify()?).await
    }

    /// Speaks TLS over a connection to another part, as itself.
    pub async fn secure(&self, stream: TcpStream) -> Result<TlsStream<TcpStream>> {
        under_tls(stream, Some(&self.certify()?)).await
    }

    /// Asks a node for the first bytes of a blob.
    pub async fn ask(&self, of: &Service, blob: &OpenedBlob, n_bytes: u64) -> Result<Response<Bytes>> {
        let request = piece_request(blob, n_bytes).body(Full::default())?;
        self.host.ask_under_tls(peer_port(of), Some(&self.certify()?), request).await
    }
}

/// A node's peer port.
pub fn peer_port(of: &Service) -> SocketAddr {
    (of.host.address(), PEER_PORT).into()
}

/// The request for the first bytes of a blob, as one that many wait for.
pub fn piece_request(blob: &OpenedBlob, n_bytes: u64) -> http::request::Builder {
    let group = blob.key.group.as_str().replace(':', "%3A");
    Request::get(format!("/pieces/{group}/{}", blob.key.digest.hex()))
        .header("host", "peer")
        .header("range", format!("bytes=0-{}", n_bytes - 1))
        .header(HeaderName::from_static("shoal-urgent"), "1")
        .header("shoal-ticket", &blob.ticket.0)
}
