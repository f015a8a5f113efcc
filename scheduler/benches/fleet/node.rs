//! One simulated node: a connection, a stream, and what it takes in of what the scheduler tells it.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};
use shoal_model::{Node as Named, NodeId};
use shoal_proto::scheduler_client::SchedulerClient;
use shoal_proto::{Hello, NodeMessage, PROTOCOL, SchedulerMessage};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::scheduler::PATIENCE;

/// Messages that wait for the connection. Few, so that what is sent soon is on its way.
const OUTGOING: usize = 2;

/// What all nodes together have been told.
#[derive(Default)]
pub(crate) struct Told {
    /// Wishes that were answered with neighbours.
    pub(crate) answers: AtomicU64,
    /// Orders of any kind.
    pub(crate) orders: AtomicU64,
    /// Streams that ended, which none should.
    pub(crate) ended: AtomicU64,
}

/// A node's end of its stream.
pub(crate) struct Node {
    pub(crate) id: NodeId,
    outgoing: mpsc::Sender<NodeMessage>,
}

impl Node {
    /// Connects to the scheduler and joins.
    pub(crate) async fn join(scheduler: SocketAddr, node: Named, told: Arc<Told>) -> Result<Self> {
        let connecting = SchedulerClient::connect(format!("http://{scheduler}"));
        let mut client = timeout(PATIENCE, connecting).await??;
        let (outgoing, messages) = mpsc::channel(OUTGOING);
        let id = node.id.clone();
        outgoing.send(NodeMessage::Hello(Hello { node, protocol: PROTOCOL })).await?;
        let incoming = timeout(PATIENCE, client.join(ReceiverStream::new(messages))).await??.into_inner();
        tokio::spawn(listen(incoming, told));
        Ok(Self { id, outgoing })
    }

    /// Says something, once the connection takes it.
    pub(crate) async fn say(&self, message: NodeMessage) -> Result<()> {
        let said = timeout(PATIENCE, self.outgoing.send(message)).await;
        let said = said.with_context(|| format!("{}: not heard within {PATIENCE:?}", self.id))?;
        said.ok().with_context(|| format!("{}: lost its stream", self.id))
    }
}

/// Takes orders until there are no more. The first list of neighbours for a blob is the answer to the wish.
async fn listen(mut incoming: Streaming<SchedulerMessage>, told: Arc<Told>) {
    let mut answered = BTreeSet::new();
    while let Ok(Some(message)) = incoming.message().await {
        told.orders.fetch_add(1, Ordering::Relaxed);
        if let SchedulerMessage::Neighbours(it) = message
            && answered.insert(it.key)
        {
            told.answers.fetch_add(1, Ordering::Relaxed);
        }
    }
    told.ended.fetch_add(1, Ordering::Relaxed);
}
