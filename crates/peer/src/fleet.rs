//! Asking schedulers which nodes there are and how blobs stand, and everybody what has moved.

use std::time::Duration;

use shoal_identity::{Dialer, Expected, Role};
use shoal_model::Node;
use shoal_proto::gateway_client::GatewayClient;
use shoal_proto::scheduler_client::SchedulerClient;
use shoal_proto::{BlobsRequest, Joined, NodesRequest, SwarmRequest, TotalReply, TotalRequest};
use shoal_swarm::table::{CloseUp, Standing};
use tokio::time::timeout;
use tonic::Status;
use tonic::transport::Channel;

use crate::channel::endpoint;

/// How long the whole answer may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The most nodes that are taken in.
const MAX_NODES: usize = 100_000;

/// The nodes that have joined the scheduler at `address`, `https://host:port`, and are asked for. An old scheduler
/// names all, and counts no blobs.
///
/// # Errors
/// Where it does not answer, or not in time.
pub async fn nodes(dialer: &Dialer, address: &str, request: NodesRequest) -> Result<Vec<Joined>, Status> {
    within(async {
        let mut answer = client(dialer, address).await?.nodes(request).await?.into_inner();
        let mut nodes = Vec::new();
        while let Some(more) = answer.message().await? {
            nodes.extend(more.0);
            if nodes.len() > MAX_NODES {
                return Err(Status::out_of_range(format!("more than {MAX_NODES} nodes")));
            }
        }
        Ok(nodes)
    })
    .await
}

/// How the blobs stand that are asked for, as the scheduler at `address`, `https://host:port`, knows them.
///
/// # Errors
/// Where it does not answer, or not in time, or with more than was asked for.
pub async fn blobs(dialer: &Dialer, address: &str, request: BlobsRequest) -> Result<Vec<Standing>, Status> {
    within(async {
        let at_most = request.at_most;
        let mut answer = client(dialer, address).await?.blobs(request).await?.into_inner();
        let mut blobs = Vec::new();
        while let Some(more) = answer.message().await? {
            blobs.extend(more.0);
            if blobs.len() > at_most {
                return Err(Status::out_of_range(format!("more than {at_most} blobs")));
            }
        }
        Ok(blobs)
    })
    .await
}

/// One blob closely, as the scheduler at `address`, `https://host:port`, knows it; none, where it does not.
///
/// # Errors
/// Where it does not answer, or not in time.
pub async fn swarm(
    dialer: &Dialer,
    address: &str,
    request: SwarmRequest,
) -> Result<Option<CloseUp<Node>>, Status> {
    within(async { Ok(client(dialer, address).await?.swarm(request).await?.into_inner().0) }).await
}

/// What sidecars have received of blobs that they wanted, by the count of the scheduler at `address`,
/// `https://host:port`.
///
/// # Errors
/// Where it does not answer, or not in time.
pub async fn arrived(dialer: &Dialer, address: &str) -> Result<TotalReply, Status> {
    within(async { Ok(client(dialer, address).await?.total(TotalRequest).await?.into_inner()) }).await
}

/// What a gateway has brought into the region.
///
/// # Errors
/// Where it does not answer, or not in time.
pub async fn brought_in(dialer: &Dialer, gateway: &Node) -> Result<TotalReply, Status> {
    within(async {
        let endpoint = endpoint(format!("https://{}", gateway.address)).map_err(unreachable)?;
        let channel = endpoint.connect_with_connector(dialer.connector(Expected::node(gateway))).await;
        let mut calls = GatewayClient::new(channel.map_err(unreachable)?);
        Ok(calls.total(TotalRequest).await?.into_inner())
    })
    .await
}

async fn within<T>(answer: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    let late = |_| Err(Status::deadline_exceeded(format!("no answer within {} s", PATIENCE.as_secs())));
    timeout(PATIENCE, answer).await.unwrap_or_else(late)
}

#[expect(clippy::needless_pass_by_value, reason = "it is what becomes of an error")]
fn unreachable(error: tonic::transport::Error) -> Status {
    Status::unavailable(error.to_string())
}

async fn client(dialer: &Dialer, address: &str) -> Result<SchedulerClient<Channel>, Status> {
    let endpoint = endpoint(address.to_owned()).map_err(unreachable)?;
    let connector = dialer.connector(Expected::Any(Role::Scheduler));
    let channel = endpoint.connect_with_connector(connector).await.map_err(unreachable)?;
    Ok(SchedulerClient::new(channel))
}
