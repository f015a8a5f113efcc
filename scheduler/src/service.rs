//! The gRPC edge: one stream for each node.

use std::convert::Infallible;
use std::pin::Pin;
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use shoal_ops::tasks::Tasks;
use shoal_proto::scheduler_server::Scheduler;
use shoal_proto::{Hello, NodeMessage, SchedulerMessage};
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::board::{Board, Session};

/// How long a node may take to say who it is.
const HELLO: Duration = Duration::from_secs(5);

/// Answers `Scheduler.Join`.
pub(crate) struct Service {
    board: Board,
    tasks: Tasks,
}

impl Service {
    /// Serves the board until the tasks are stopped.
    pub(crate) const fn new(board: Board, tasks: Tasks) -> Self {
        Self { board, tasks }
    }
}

#[tonic::async_trait]
impl Scheduler for Service {
    type JoinStream = Pin<Box<dyn Stream<Item = Result<SchedulerMessage, Status>> + Send>>;

    async fn join(&self, req: Request<Streaming<NodeMessage>>) -> Result<Response<Self::JoinStream>, Status> {
        let mut messages = req.into_inner();
        let first = timeout(HELLO, messages.message()).await;
        let first = first.map_err(|_| Status::deadline_exceeded("join: no Hello came"))??;
        let Some(NodeMessage::Hello(Hello { node, protocol })) = first else {
            return Err(Status::failed_precondition("join: the first message must be Hello"));
        };
        let (session, orders) = self.board.join(node, protocol).await;
        let (stopping, listening) = (self.tasks.stopping(), listen(session, messages));
        self.tasks.spawn("node", async move {
            stopping.run_until_cancelled(listening).await;
            Ok::<_, Infallible>(())
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(orders).map(Ok))))
    }
}

/// Hands on what the node says. It ends with the node's stream, or when the board has closed the session
/// because the node did not keep up; the board learns of the end when `session` is dropped.
async fn listen(session: Session, mut messages: Streaming<NodeMessage>) {
    while let Ok(Some(message)) = messages.message().await {
        if !session.hear(message).await {
            return;
        }
    }
}
