//! The `Gateway` service: opening blobs, and what the region consists of.

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{BoxStream, StreamExt as _};
use shoal_proto::gateway_server::Gateway;
use shoal_proto::{OpenReply, OpenRequest, RegionRequest, RegionState};
use tokio::time::{MissedTickBehavior, interval};
use tokio_stream::wrappers::IntervalStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use crate::open::Opener;

/// How often the region's state is told again; nodes expect it at least every 10 s.
const AGAIN: Duration = Duration::from_secs(5);

/// What nodes ask of a gateway.
pub(crate) struct GatewayService {
    opener: Arc<Opener>,
    region: Arc<RegionState>,
    stopping: CancellationToken,
}

impl GatewayService {
    pub(crate) fn new(opener: Opener, region: RegionState, stopping: CancellationToken) -> Self {
        Self { opener: Arc::new(opener), region: Arc::new(region), stopping }
    }
}

#[tonic::async_trait]
impl Gateway for GatewayService {
    type RegionStream = BoxStream<'static, Result<RegionState, Status>>;

    async fn open(&self, request: Request<OpenRequest>) -> Result<Response<OpenReply>, Status> {
        Ok(Response::new(self.opener.open(request.into_inner()).await))
    }

    async fn region(&self, _: Request<RegionRequest>) -> Result<Response<Self::RegionStream>, Status> {
        let mut again = interval(AGAIN);
        again.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let region = self.region.clone();
        let states = IntervalStream::new(again).map(move |_| Ok((*region).clone()));
        Ok(Response::new(states.take_until(self.stopping.clone().cancelled_owned()).boxed()))
    }
}
