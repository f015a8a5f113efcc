//! Asking a scheduler which nodes there are.

use std::time::Duration;

use shoal_identity::{Dialer, Expected, Role};
use shoal_model::Node;
use shoal_proto::NodesRequest;
use shoal_proto::scheduler_client::SchedulerClient;
use tokio::time::timeout;
use tonic::Status;

use crate::channel::endpoint;

/// How long the whole answer may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The most nodes that are taken in.
const MAX_NODES: usize = 100_000;

/// Every node that has joined the scheduler at `address`, `https://host:port`.
///
/// # Errors
/// Where it does not answer, or not in time.
pub async fn nodes(dialer: &Dialer, address: &str) -> Result<Vec<Node>, Status> {
    let late = |_| Err(Status::deadline_exceeded(format!("no answer within {} s", PATIENCE.as_secs())));
    timeout(PATIENCE, ask(dialer, address)).await.unwrap_or_else(late)
}

async fn ask(dialer: &Dialer, address: &str) -> Result<Vec<Node>, Status> {
    let unreachable = |it: tonic::transport::Error| Status::unavailable(it.to_string());
    let endpoint = endpoint(address.to_owned()).map_err(unreachable)?;
    let connector = dialer.connector(Expected::Any(Role::Scheduler));
    let channel = endpoint.connect_with_connector(connector).await.map_err(unreachable)?;
    let mut answer = SchedulerClient::new(channel).nodes(NodesRequest).await?.into_inner();
    let mut nodes = Vec::new();
    while let Some(more) = answer.message().await? {
        nodes.extend(more.0);
        if nodes.len() > MAX_NODES {
            return Err(Status::out_of_range(format!("more than {MAX_NODES} nodes")));
        }
    }
    Ok(nodes)
}
