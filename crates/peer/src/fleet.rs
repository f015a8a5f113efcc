//! Asking a scheduler which nodes there are, and how blobs stand.

use std::time::Duration;

use shoal_identity::{Dialer, Expected, Role};
use shoal_proto::scheduler_client::SchedulerClient;
use shoal_proto::{BlobsRequest, Joined, NodesRequest};
use shoal_swarm::table::Standing;
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

async fn within<T>(answer: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    let late = |_| Err(Status::deadline_exceeded(format!("no answer within {} s", PATIENCE.as_secs())));
    timeout(PATIENCE, answer).await.unwrap_or_else(late)
}

async fn client(dialer: &Dialer, address: &str) -> Result<SchedulerClient<Channel>, Status> {
    let unreachable = |it: tonic::transport::Error| Status::unavailable(it.to_string());
    let endpoint = endpoint(address.to_owned()).map_err(unreachable)?;
    let connector = dialer.connector(Expected::Any(Role::Scheduler));
    let channel = endpoint.connect_with_connector(connector).await.map_err(unreachable)?;
    Ok(SchedulerClient::new(channel))
}
