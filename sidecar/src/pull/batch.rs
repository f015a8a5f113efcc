//! What is asked of the gateway at the same time goes in one request.
//!
//! The blobs of an image are asked for in bursts, and where they are small, a request for each costs both sides
//! more than the question does. Nobody waits for company: a request goes out as soon as this process has seen to
//! whatever else was ready, and takes along what the same caller has asked of the same repository by then. Nor
//! does anybody wait for another's answer: each comes as soon as the gateway has decided it.
//!
//! A request lasts as long as somebody waits for one of its answers, and so does the caller's credential. It needs
//! no deadline of its own, since each asker has one.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared, WeakShared};
use shoal_model::{Authorization, Digest, Node, TraceParent};
use shoal_ops::traces;
use shoal_proto::gateway_client::GatewayClient;
use shoal_proto::{OpenReply, OpenRequest, Opened, OpenedBlob, Refusal, Source};
use tokio::sync::oneshot;
use tokio::task::yield_now;
use tonic::Status;
use tonic::transport::Channel;

/// What the gateway says about one blob.
pub(super) type Answer = Result<OpenedBlob, Refusal>;

type Sending = BoxFuture<'static, Result<(), Status>>;

/// Asks in the name of one node.
pub(super) struct Batches {
    node: Node,
    latest: Mutex<Option<Latest>>,
}

/// The batch that was begun last, which only those who wait for its answers keep alive.
struct Latest {
    batch: Weak<Batch>,
    sending: WeakShared<Sending>,
}

/// Questions of one caller about one repository.
struct Batch {
    source: Source,
    authorization: Option<Authorization>,
    /// None once they are on their way.
    questions: Mutex<Option<Vec<Question>>>,
}

struct Question {
    digest: Digest,
    /// Where the asker stands in a trace.
    trace: Option<TraceParent>,
    asker: oneshot::Sender<Answer>,
}

impl Batches {
    /// Nothing is asked yet.
    pub(super) const fn new(node: Node) -> Self {
        Self { node, latest: Mutex::new(None) }
    }

    /// Asks about one blob; `None` where the gateway answered for others only.
    ///
    /// # Errors
    /// The status with which the request failed that the question went along with.
    pub(super) async fn ask(
        &self,
        gateway: &GatewayClient<Channel>,
        source: &Source,
        authorization: Option<&Authorization>,
        digest: Digest,
    ) -> Result<Option<Answer>, Status> {
        let (asker, mut answer) = oneshot::channel();
        let question = Question { digest, trace: traces::here(), asker };
        let sending = self.join(gateway, source, authorization, question);
        // Whoever is ready to ask as well does so before this goes on. Each asker has to wait for that by itself:
        // a wait within the shared future would be over as soon as a second one polled it.
        yield_now().await;
        tokio::select! {
            biased;
            Ok(answer) = &mut answer => Ok(Some(answer)),
            // The answer may have been the last one.
            sent = sending => sent.map(|()| answer.try_recv().ok()),
        }
    }

    /// Adds a question to a batch that was not sent yet, or begins another. Whoever waits for the returned future
    /// sees to the whole batch.
    fn join(
        &self,
        gateway: &GatewayClient<Channel>,
        source: &Source,
        authorization: Option<&Authorization>,
        question: Question,
    ) -> Shared<Sending> {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((batch, sending)) = latest.as_ref().and_then(Latest::alive)
            && batch.source == *source
            && batch.authorization.as_ref() == authorization
            && let Some(questions) = batch.questions().as_mut().filter(|it| it.len() < OpenRequest::AT_ONCE)
        {
            questions.push(question);
            return sending;
        }
        let batch = Arc::new(Batch {
            source: source.clone(),
            authorization: authorization.cloned(),
            questions: Mutex::new(Some(vec![question])),
        });
        let weak = Arc::downgrade(&batch);
        let sending = batch.send(gateway.clone(), self.node.clone()).boxed().shared();
        *latest = sending.downgrade().map(|sending| Latest { batch: weak, sending });
        sending
    }
}

impl Latest {
    fn alive(&self) -> Option<(Arc<Batch>, Shared<Sending>)> {
        Some((self.batch.upgrade()?, self.sending.upgrade()?))
    }
}

impl Batch {
    /// Sends the questions and hands the answers out as they come.
    async fn send(self: Arc<Self>, mut gateway: GatewayClient<Channel>, node: Node) -> Result<(), Status> {
        let mut questions = self.questions().take().unwrap_or_default();
        questions.retain(|it| !it.asker.is_closed());
        let request = OpenRequest {
            source: self.source.clone(),
            digests: questions.iter().map(|it| it.digest).collect(),
            authorization: self.authorization.clone(),
            node,
            traces: questions.iter().map(|it| it.trace).collect(),
        };
        let mut askers: Vec<_> = questions.into_iter().map(|it| Some(it.asker)).collect();
        let mut replies = gateway.open(request).await?.into_inner();
        while let Some(OpenReply(answers)) = replies.message().await? {
            for Opened { index, outcome } in answers {
                if let Some(asker) = askers.get_mut(index).and_then(Option::take) {
                    // One that has gone away needs no answer.
                    let _ = asker.send(outcome);
                }
            }
        }
        Ok(())
    }

    fn questions(&self) -> MutexGuard<'_, Option<Vec<Question>>> {
        self.questions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;
    use futures_util::stream::{self, BoxStream, StreamExt as _};
    use shoal_proto::gateway_server::{Gateway, GatewayServer};
    use shoal_proto::{
        JobReply, JobRequest, JobsNews, JobsRequest, RegionRequest, RegionState, RegionalNews,
        RegionalOrders, RenewReply, RenewRequest, TotalReply, TotalRequest,
    };
    use tonic::{Request, Response, Streaming};

    use super::*;
    use crate::pull::testing::{grant, key, node, online, soon, source};

    /// Of this one the gateway never says anything.
    const UNDECIDED: u8 = 100;
    /// A request for this one fails.
    const BROKEN: u8 = 101;

    /// Grants one and the same blob for whatever it is asked, and notes the sizes of the requests.
    #[derive(Clone, Default)]
    struct FakeGateway(Arc<Mutex<Vec<usize>>>);

    #[tonic::async_trait]
    impl Gateway for FakeGateway {
        type OpenStream = BoxStream<'static, Result<OpenReply, Status>>;
        type AttendStream = BoxStream<'static, Result<RegionalOrders, Status>>;
        type RegionStream = BoxStream<'static, Result<RegionState, Status>>;
        type JobsStream = BoxStream<'static, Result<JobsNews, Status>>;

        async fn open(&self, request: Request<OpenRequest>) -> Result<Response<Self::OpenStream>, Status> {
            let digests = request.into_inner().digests;
            self.0.lock().unwrap().push(digests.len());
            if digests.contains(&digest(BROKEN)) {
                return Err(Status::unavailable("broken"));
            }
            let decided = digests.iter().enumerate().filter(|(_, it)| **it != digest(UNDECIDED));
            let answers = decided.map(|(index, _)| Opened { index, outcome: Ok(grant().blob) });
            // The last comes first, since the order means nothing.
            let reply = OpenReply(answers.rev().collect());
            let is_decided = !digests.contains(&digest(UNDECIDED));
            let rest = if is_decided { stream::empty().boxed() } else { stream::pending().boxed() };
            Ok(Response::new(stream::iter([Ok(reply)]).chain(rest).boxed()))
        }

        async fn region(&self, _: Request<RegionRequest>) -> Result<Response<Self::RegionStream>, Status> {
            Err(Status::unimplemented("region"))
        }

        async fn attend(
            &self,
            _: Request<Streaming<RegionalNews>>,
        ) -> Result<Response<Self::AttendStream>, Status> {
            Err(Status::unimplemented("attend"))
        }

        async fn renew(&self, _: Request<RenewRequest>) -> Result<Response<RenewReply>, Status> {
            Err(Status::unimplemented("renew"))
        }

        async fn jobs(&self, _: Request<JobsRequest>) -> Result<Response<Self::JobsStream>, Status> {
            Err(Status::unimplemented("jobs"))
        }

        async fn job(&self, _: Request<JobRequest>) -> Result<Response<JobReply>, Status> {
            Err(Status::unimplemented("job"))
        }

        async fn total(&self, _: Request<TotalRequest>) -> Result<Response<TotalReply>, Status> {
            Err(Status::unimplemented("total"))
        }
    }

    fn digest(number: u8) -> Digest {
        Digest::from_sha256([number; 32])
    }

    struct Asking {
        gateway: FakeGateway,
        calls: GatewayClient<Channel>,
        batches: Batches,
    }

    impl Asking {
        async fn new() -> Self {
            let gateway = FakeGateway::default();
            let at = online(GatewayServer::new(gateway.clone())).await.address;
            let calls = GatewayClient::connect(format!("http://{at}")).await.unwrap();
            Self { gateway, calls, batches: Batches::new(node("me")) }
        }

        async fn ask(&self, who: Option<&Authorization>, number: u8) -> Result<Option<Answer>, Status> {
            self.batches.ask(&self.calls, &source(), who, digest(number)).await
        }

        fn sizes(&self) -> Vec<usize> {
            let mut sizes = self.gateway.0.lock().unwrap().clone();
            sizes.sort_unstable();
            sizes
        }
    }

    /// Tickets differ with the second in which they are issued.
    fn is_granted(answer: Result<Option<Answer>, Status>) -> bool {
        answer.unwrap().is_some_and(|it| it.is_ok_and(|it| it.key == key()))
    }

    #[tokio::test]
    async fn what_a_caller_asks_at_once_goes_in_one_request_as_far_as_it_has_room() {
        let asking = Asking::new().await;
        let answers = soon(join_all((0..20).map(|it| asking.ask(None, it)))).await;
        assert!(answers.into_iter().all(is_granted));
        assert_eq!(asking.sizes(), [4, 16]);
    }

    #[tokio::test]
    async fn callers_do_not_share_a_request_and_neither_do_repositories() {
        let asking = Asking::new().await;
        let ann = Authorization::new("Bearer ann".into());
        let elsewhere = Source { repository: "other".into(), ..source() };
        let other = asking.batches.ask(&asking.calls, &elsewhere, Some(&ann), digest(3));
        let (anonymous, her, other) =
            soon(async { tokio::join!(asking.ask(None, 1), asking.ask(Some(&ann), 2), other) }).await;
        assert!([anonymous, her, other].into_iter().all(is_granted));
        assert_eq!(asking.sizes(), [1, 1, 1]);
    }

    #[tokio::test]
    async fn an_answer_does_not_wait_for_another() {
        let asking = Asking::new().await;
        let mut undecided = Box::pin(asking.ask(None, UNDECIDED));
        assert!(futures_util::poll!(&mut undecided).is_pending());
        assert!(is_granted(soon(asking.ask(None, 1)).await));
        assert_eq!(asking.sizes(), [2]);
        assert!(futures_util::poll!(&mut undecided).is_pending());
    }

    #[tokio::test]
    async fn an_asker_that_leaves_takes_nothing_from_the_others() {
        let asking = Asking::new().await;
        let mut leaving = Box::pin(asking.ask(None, BROKEN));
        assert!(futures_util::poll!(&mut leaving).is_pending());
        let mut staying = Box::pin(asking.ask(None, 1));
        assert!(futures_util::poll!(&mut staying).is_pending());
        drop(leaving);
        assert!(is_granted(soon(staying).await));
        assert_eq!(asking.sizes(), [1]);
    }

    #[tokio::test]
    async fn a_request_that_fails_has_failed_for_all_that_went_along_and_for_nobody_later() {
        let asking = Asking::new().await;
        let (broken, along) =
            soon(async { tokio::join!(asking.ask(None, BROKEN), asking.ask(None, 1)) }).await;
        for failed in [broken, along] {
            assert_eq!(failed.unwrap_err().message(), "broken");
        }
        assert!(is_granted(soon(asking.ask(None, 1)).await));
    }
}
