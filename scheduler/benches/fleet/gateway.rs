//! The gateway of the bench's region: it says whose tickets count and issues them, and has nothing to open.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use anyhow::Result;
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use shoal_model::{BlobKey, NodeId};
use shoal_peer::attest::Signer;
use shoal_peer::ticket::{Issuer, MAX_LIVES, TicketClaims};
use shoal_proto::gateway_server::{Gateway, GatewayServer};
use shoal_proto::{
    JobReply, JobRequest, JobsNews, JobsRequest, OpenReply, OpenRequest, RegionRequest, RegionState,
    RegionalNews, RegionalOrders, RenewReply, RenewRequest, Source, Ticket, TotalReply, TotalRequest,
};
use tokio::net::TcpListener;
use tokio::time::{Instant, interval_at};
use tokio_stream::wrappers::{IntervalStream, TcpListenerStream};
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

/// The secret of its signing key.
const SECRET: [u8; 32] = [7; 32];
/// How often the region's state is told, as gateways do.
const AGAIN: Duration = Duration::from_secs(5);

struct Region;

/// Starts it; it lives until the bench ends.
pub(crate) async fn start() -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let server = Server::builder().add_service(GatewayServer::new(Region));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    Ok(address)
}

/// Where all blobs are from.
pub(crate) fn source() -> Source {
    Source { registry: "registry.example".into(), repository: "bench/blob".into() }
}

/// Tickets of a node for blobs.
pub(crate) fn tickets(node: &NodeId, keys: &[BlobKey]) -> Vec<Ticket> {
    let (issuer, granted) = (Issuer::new(&SECRET), SystemTime::now());
    let claims = |key: &BlobKey| TicketClaims {
        source: source(),
        key: key.clone(),
        geometry: None,
        node: node.clone(),
        granted,
        expires: granted + MAX_LIVES,
    };
    keys.iter().map(|key| issuer.issue(&claims(key))).collect()
}

#[tonic::async_trait]
impl Gateway for Region {
    type OpenStream = BoxStream<'static, Result<OpenReply, Status>>;
    type AttendStream = BoxStream<'static, Result<RegionalOrders, Status>>;
    type RegionStream = BoxStream<'static, Result<RegionState, Status>>;
    type JobsStream = BoxStream<'static, Result<JobsNews, Status>>;

    async fn region(&self, _: Request<RegionRequest>) -> Result<Response<Self::RegionStream>, Status> {
        let state = RegionState {
            verifying_keys: vec![Signer::new(&SECRET).verifying_key()],
            ..RegionState::default()
        };
        let again = IntervalStream::new(interval_at(Instant::now(), AGAIN));
        Ok(Response::new(again.zip(stream::repeat(state)).map(|(_, it)| Ok(it)).boxed()))
    }

    async fn attend(
        &self,
        _: Request<Streaming<RegionalNews>>,
    ) -> Result<Response<Self::AttendStream>, Status> {
        Err(Status::unimplemented("nothing to order here"))
    }

    async fn open(&self, _: Request<OpenRequest>) -> Result<Response<Self::OpenStream>, Status> {
        Err(Status::unimplemented("nothing to open here"))
    }

    async fn renew(&self, _: Request<RenewRequest>) -> Result<Response<RenewReply>, Status> {
        Err(Status::unimplemented("nothing to renew here"))
    }

    async fn jobs(&self, _: Request<JobsRequest>) -> Result<Response<Self::JobsStream>, Status> {
        Err(Status::unimplemented("no jobs here"))
    }

    async fn job(&self, _: Request<JobRequest>) -> Result<Response<JobReply>, Status> {
        Err(Status::unimplemented("no jobs here"))
    }

    async fn total(&self, _: Request<TotalRequest>) -> Result<Response<TotalReply>, Status> {
        Err(Status::unimplemented("nothing is counted here"))
    }
}
