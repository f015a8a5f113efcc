//! The `Gateway` service: opening blobs, what the region consists of, and preheat jobs as gateways tell each other.

use std::fmt::Display;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::stream::{self, BoxStream, StreamExt as _};
use shoal_identity::Caller;
use shoal_proto::gateway_server::Gateway;
use shoal_proto::{
    JobReply, JobRequest, JobsNews, JobsRequest, OpenReply, OpenRequest, RegionRequest, RegionState,
    RenewReply, RenewRequest,
};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use crate::open::Opener;
use crate::preheat::Preheats;
use crate::regions::{self, Roll};
use crate::tickets::{Fresh, Tickets};
use crate::timestamp::Timestamp;

/// How often the region's state is told again; nodes expect it at least every 10 s.
const AGAIN: Duration = Duration::from_secs(5);

/// What nodes ask of a gateway.
pub(crate) struct GatewayService {
    opener: Arc<Opener>,
    tickets: Arc<Tickets>,
    regions: Roll,
    preheats: Preheats,
    region: watch::Receiver<RegionState>,
    stopping: CancellationToken,
}

impl GatewayService {
    pub(crate) fn new(
        opener: Arc<Opener>,
        tickets: Arc<Tickets>,
        regions: Roll,
        preheats: Preheats,
        (region, stopping): (watch::Receiver<RegionState>, CancellationToken),
    ) -> Self {
        Self { opener, tickets, regions, preheats, region, stopping }
    }
}

#[tonic::async_trait]
impl Gateway for GatewayService {
    type OpenStream = BoxStream<'static, Result<OpenReply, Status>>;
    type RegionStream = BoxStream<'static, Result<RegionState, Status>>;
    type JobsStream = BoxStream<'static, Result<JobsNews, Status>>;

    async fn open(&self, request: Request<OpenRequest>) -> Result<Response<Self::OpenStream>, Status> {
        let (_, from, request) = request.into_parts();
        let caller = Caller::of(&from).map_err(refused)?;
        let replies = self.opener.clone().open(caller, request).await.map_err(refused)?;
        Ok(Response::new(replies.map(Ok).boxed()))
    }

    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<RenewReply>, Status> {
        let (_, from, RenewRequest { key, ticket }) = request.into_parts();
        let caller = Caller::of(&from).map_err(refused)?;
        let renewed = self.tickets.renew(SystemTime::now(), &key, &ticket, caller);
        if renewed.is_err() {
            self.opener.not_renewed(caller).await;
        }
        let Fresh { ticket, lives } = renewed.map_err(refused)?;
        Ok(Response::new(RenewReply { ticket, ticket_lives: lives }))
    }

    async fn region(&self, request: Request<RegionRequest>) -> Result<Response<Self::RegionStream>, Status> {
        let (_, from, RegionRequest { regional }) = request.into_parts();
        let attending = match (regions::identity(&from), regional) {
            (Some(id), Some(regional)) => {
                Some(self.regions.enter(id, regional, Timestamp::now()).map_err(refused)?)
            }
            (Some(_), None) => return Err(Status::invalid_argument("region: it does not say which it is")),
            (None, _) => None,
        };
        let mut again = interval(AGAIN);
        again.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let state = (self.region.clone(), again, attending);
        let states = stream::unfold(state, async |(mut region, mut again, attending)| {
            tokio::select! {
                _ = again.tick() => {}
                Ok(()) = region.changed() => {}
            }
            let state = region.borrow_and_update().clone();
            // What this region consists of is nothing to another one.
            let state = if attending.is_some() { RegionState::default() } else { state };
            Some((Ok(state), (region, again, attending)))
        });
        Ok(Response::new(states.take_until(self.stopping.clone().cancelled_owned()).boxed()))
    }

    // The port lets nobody but gateways ask for either.
    async fn jobs(&self, _: Request<JobsRequest>) -> Result<Response<Self::JobsStream>, Status> {
        let news = self.preheats.tell().take_until(self.stopping.clone().cancelled_owned());
        Ok(Response::new(news.boxed()))
    }

    async fn job(&self, request: Request<JobRequest>) -> Result<Response<JobReply>, Status> {
        Ok(Response::new(self.preheats.answer(request.into_inner()).await))
    }
}

fn refused(why: impl Display) -> Status {
    Status::permission_denied(why.to_string())
}
