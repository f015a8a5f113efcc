//! The `Gateway` service: opening blobs, what the region consists of, and preheat jobs as gateways tell each other.

use std::fmt::Display;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::stream::{self, BoxStream, StreamExt as _};
use shoal_identity::{Caller, Role};
use shoal_model::NodeId;
use shoal_proto::gateway_server::Gateway;
use shoal_proto::{
    JobReply, JobRequest, JobsNews, JobsRequest, OpenReply, OpenRequest, RegionRequest, RegionState,
    RegionalNews, RegionalOrders, RenewReply, RenewRequest, TotalReply, TotalRequest,
};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use crate::ledger::Ledger;
use crate::open::Opener;
use crate::preheat::Preheats;
use crate::regions::{self, Desk, RegionName, Roll};
use crate::tickets::{Fresh, Tickets};
use crate::timestamp::Timestamp;

/// How often the region's state is told again; nodes expect it at least every 10 s.
const AGAIN: Duration = Duration::from_secs(5);

/// How long another region may take to say who it is.
const HELLO: Duration = Duration::from_secs(5);

/// What nodes ask of a gateway.
pub(crate) struct GatewayService {
    opener: Arc<Opener>,
    tickets: Arc<Tickets>,
    regions: Roll,
    preheats: Preheats,
    desk: Desk,
    ledger: Arc<Ledger>,
    started: Instant,
    region: watch::Receiver<RegionState>,
    stopping: CancellationToken,
}

impl GatewayService {
    pub(crate) fn new(
        opener: Arc<Opener>,
        tickets: Arc<Tickets>,
        (regions, desk): (Roll, Desk),
        preheats: Preheats,
        ledger: Arc<Ledger>,
        (region, stopping): (watch::Receiver<RegionState>, CancellationToken),
    ) -> Self {
        let started = Instant::now();
        Self { opener, tickets, regions, preheats, desk, ledger, started, region, stopping }
    }
}

#[tonic::async_trait]
impl Gateway for GatewayService {
    type OpenStream = BoxStream<'static, Result<OpenReply, Status>>;
    type AttendStream = BoxStream<'static, Result<RegionalOrders, Status>>;
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

    // The port lets nobody but gateways ask for these.
    async fn total(&self, _: Request<TotalRequest>) -> Result<Response<TotalReply>, Status> {
        let bytes = self.ledger.total().brought_in();
        Ok(Response::new(TotalReply { bytes, counted_for: self.started.elapsed() }))
    }

    async fn jobs(&self, _: Request<JobsRequest>) -> Result<Response<Self::JobsStream>, Status> {
        let news = self.preheats.tell().take_until(self.stopping.clone().cancelled_owned());
        Ok(Response::new(news.boxed()))
    }

    async fn job(&self, request: Request<JobRequest>) -> Result<Response<JobReply>, Status> {
        Ok(Response::new(self.preheats.answer(request.into_inner()).await))
    }

    async fn attend(
        &self,
        request: Request<Streaming<RegionalNews>>,
    ) -> Result<Response<Self::AttendStream>, Status> {
        let (_, from, mut news) = request.into_parts();
        let caller = Caller::of(&from).map_err(refused)?;
        caller.must_be_one_of(&[Role::Region]).map_err(refused)?;
        let first = timeout(HELLO, news.message()).await;
        let first = first.map_err(|_| Status::deadline_exceeded("attend: it does not say who it is"))??;
        let regional = first.and_then(|it| it.regional);
        let regional =
            regional.ok_or_else(|| Status::invalid_argument("attend: it does not say who it is"))?;
        let region = regional.region.parse::<RegionName>();
        let region = region
            .map_err(|it| Status::invalid_argument(format!("attend: region {:?} {it}", regional.region)))?;
        // Without certificates, in tests, it is who it says.
        let gateway = regions::identity(&from).unwrap_or_else(|| NodeId::new(region.as_str()));
        let orders = self.desk.attend(gateway, region, news).map_err(refused)?;
        Ok(Response::new(orders.take_until(self.stopping.clone().cancelled_owned()).boxed()))
    }
}

fn refused(why: impl Display) -> Status {
    Status::permission_denied(why.to_string())
}
