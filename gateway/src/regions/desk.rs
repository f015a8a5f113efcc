//! The orders that jobs of this gateway give to other regions.
//!
//! Such a region's gateway keeps a stream to each gateway of its hub: this one may have no way to it. By that stream it
//! is told all orders that stand for it, again at each change, and tells how far it is. So nothing has to be taken back
//! one by one: what does not stand any more when a link is back, the region stops.
//!
//! Each blob of an order comes with a ticket for the gateway that is told it, because the job was decided about with a
//! right of its own, which nobody else is shown.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use futures_util::stream::{self, Stream};
use shoal_model::{BlobKey, NodeId};
use shoal_proto::{
    OrderProgress, OrderedBlob, PreheatOrder, PreheatWish, RegionalNews, RegionalOrders, Source,
};
use shoal_swarm::Geometry;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tonic::{Status, Streaming};

use super::assignments::{Assignments, TooMany};
use super::name::RegionName;
use super::roll::Roll;
use crate::tickets::{Fresh, Tickets};

/// A region speaks at least every 5 s.
const SILENCE: Duration = Duration::from_secs(10);
/// The least time between two times that tickets are given.
const LEAST_AGAIN: Duration = Duration::from_secs(1);
/// What was told of an order and not taken in yet.
const TOLD: usize = 64;

/// What jobs order of other regions; clones are of the same.
#[derive(Clone)]
pub(crate) struct Desk(Arc<Inner>);

struct Inner {
    tickets: Arc<Tickets>,
    roll: Roll,
    state: Mutex<State>,
    /// Something is ordered otherwise, or of others.
    changed: watch::Sender<()>,
}

#[derive(Default)]
struct State {
    assignments: Assignments,
    orders: BTreeMap<u64, Standing>,
}

struct Standing {
    order: Arc<Order>,
    told: mpsc::Sender<Told>,
}

/// What a job wants done.
pub(crate) struct Order {
    pub(crate) wish: PreheatWish,
    pub(crate) source: Source,
    pub(crate) blobs: Vec<(BlobKey, Geometry)>,
    /// For how long it is worth the while.
    pub(crate) until: Instant,
    /// The most rows of either kind that a region is to tell.
    pub(crate) max_rows: u32,
}

/// What a region told by the gateway that carries the order out.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    pub(crate) region: RegionName,
    /// Another gateway, or the same by another stream, has another number; a later one a higher.
    pub(crate) turn: u64,
    pub(crate) progress: OrderProgress,
}

/// Whether a region has been told an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Link {
    /// It has.
    Told,
    /// It has not, or is cut off; and why.
    Absent(String),
}

/// An order that stands until this is dropped.
pub(crate) struct Placed {
    desk: Desk,
    job: u64,
    regions: Vec<RegionName>,
    links: Option<Vec<Link>>,
    changed: watch::Receiver<()>,
    told: mpsc::Receiver<Told>,
}

/// What comes of an order.
pub(crate) enum Reply {
    /// Who has been told of it, of all its regions in their order.
    Links(Vec<Link>),
    Told(Told),
}

impl Desk {
    pub(crate) fn new(tickets: Arc<Tickets>, roll: Roll) -> Self {
        Self(Arc::new(Inner { tickets, roll, state: Mutex::default(), changed: watch::Sender::new(()) }))
    }

    /// The regions that can be told of orders.
    pub(crate) fn regions(&self) -> Vec<RegionName> {
        self.state().assignments.regions().into_iter().collect()
    }

    /// Orders something of these regions in the name of a job.
    pub(crate) fn place(&self, job: u64, order: Order, regions: Vec<RegionName>) -> Placed {
        let (told, heard) = mpsc::channel(TOLD);
        let changed = self.0.changed.subscribe();
        {
            let mut state = self.state();
            state.orders.insert(job, Standing { order: Arc::new(order), told });
            state.assignments.place(job, regions.iter().cloned());
        }
        self.0.changed.send_replace(());
        Placed { desk: self.clone(), job, regions, links: None, changed, told: heard }
    }

    /// The gateway of another region has opened a stream: what it is told by that.
    pub(crate) fn attend(
        &self,
        gateway: NodeId,
        region: RegionName,
        news: Streaming<RegionalNews>,
    ) -> Result<impl Stream<Item = Result<RegionalOrders, Status>> + Send + use<>, TooMany> {
        let stream = self.state().assignments.enter(gateway.clone(), region)?;
        self.0.changed.send_replace(());
        let attending = Attending {
            desk: self.clone(),
            gateway,
            stream,
            news,
            changed: self.0.changed.subscribe(),
            ordered: None,
            again_at: Instant::now(),
            heard_at: Instant::now(),
        };
        Ok(stream::unfold(Some(attending), async |attending| {
            let mut attending = attending?;
            match attending.next().await {
                Ok(orders) => orders.map(|it| (Ok(it), Some(attending))),
                Err(status) => Some((Err(status), None)),
            }
        }))
    }

    fn link(&self, job: u64, region: &RegionName) -> Link {
        let (is_told, there) = {
            let state = self.state();
            (state.assignments.carrier(job, region).is_some(), state.assignments.regions())
        };
        if is_told {
            return Link::Told;
        }
        let attends = self.0.roll.list().iter().any(|it| it.regional.region == region.as_str());
        let there: Vec<_> = there.iter().map(RegionName::as_str).collect();
        Link::Absent(match (attends, there.is_empty()) {
            (true, _) => {
                "its gateway takes no orders at present, or its release is older than this one's".to_owned()
            }
            (false, true) => "no region is connected".to_owned(),
            (false, false) => format!("none of its gateways is connected: those of {} are", there.join(", ")),
        })
    }

    /// The orders of these jobs as a gateway is told them.
    fn orders(&self, gateway: &NodeId, jobs: &[(u64, bool)]) -> RegionalOrders {
        let standing: Vec<_> = {
            let state = self.state();
            let order = |job: &u64| state.orders.get(job).map(|it| it.order.clone());
            jobs.iter().filter_map(|(job, carry_out)| Some((*job, *carry_out, order(job)?))).collect()
        };
        let now = SystemTime::now();
        let blob = |order: &Order, (key, geometry): &(BlobKey, Geometry)| {
            let cut = (key.clone(), *geometry);
            let Fresh { ticket, lives } =
                self.0.tickets.give(now, order.source.clone(), cut, gateway.clone());
            OrderedBlob { digest: key.digest, size: geometry.size(), ticket, ticket_lives: lives }
        };
        let told = standing.into_iter().map(|(job, carry_out, order)| PreheatOrder {
            job,
            wish: order.wish.clone(),
            blobs: order.blobs.iter().map(|it| blob(&order, it)).collect(),
            left: order.until.saturating_duration_since(Instant::now()),
            carry_out,
            max_rows: order.max_rows,
        });
        RegionalOrders(told.take(RegionalOrders::MAX).collect())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Placed {
    /// What comes of it next.
    pub(crate) async fn next(&mut self) -> Reply {
        loop {
            self.changed.borrow_and_update();
            let links: Vec<_> = self.regions.iter().map(|it| self.desk.link(self.job, it)).collect();
            if self.links.as_ref() != Some(&links) {
                self.links = Some(links.clone());
                return Reply::Links(links);
            }
            tokio::select! {
                // `desk` keeps both senders.
                Some(told) = self.told.recv() => return Reply::Told(told),
                _ = self.changed.changed() => {}
            }
        }
    }
}

impl Drop for Placed {
    fn drop(&mut self) {
        {
            let mut state = self.desk.state();
            state.orders.remove(&self.job);
            state.assignments.withdraw(self.job);
        }
        self.desk.0.changed.send_replace(());
    }
}

/// One stream of another region's gateway.
struct Attending {
    desk: Desk,
    gateway: NodeId,
    stream: u64,
    news: Streaming<RegionalNews>,
    changed: watch::Receiver<()>,
    /// The jobs that it was told of, and whether it is to carry them out.
    ordered: Option<Vec<(u64, bool)>>,
    /// When the tickets are given anew.
    again_at: Instant,
    heard_at: Instant,
}

impl Attending {
    /// What it is told next; `None` where the gateway has gone, or has opened another stream.
    async fn next(&mut self) -> Result<Option<RegionalOrders>, Status> {
        loop {
            self.changed.borrow_and_update();
            let Some(standing) = self.desk.state().assignments.standing(self.stream) else { return Ok(None) };
            if self.ordered.as_ref() != Some(&standing) || Instant::now() >= self.again_at {
                let orders = self.desk.orders(&self.gateway, &standing);
                self.again_at = Instant::now() + (self.desk.0.tickets.lives() / 2).max(LEAST_AGAIN);
                self.ordered = Some(standing);
                return Ok(Some(orders));
            }
            tokio::select! {
                news = self.news.message() => {
                    let Some(RegionalNews { orders, .. }) = news? else { return Ok(None) };
                    self.heard_at = Instant::now();
                    for progress in orders {
                        self.told(progress).await;
                    }
                }
                // `desk` keeps the sender.
                _ = self.changed.changed() => {}
                () = sleep_until(self.again_at) => {}
                () = sleep_until(self.heard_at + SILENCE) => {
                    return Err(Status::deadline_exceeded("region: nothing was heard of it in time"));
                }
            }
        }
    }

    /// Hands on what the region says of an order that it carries out.
    async fn told(&self, progress: OrderProgress) {
        let found = {
            let state = self.desk.state();
            let carried = state.assignments.carried(progress.job, self.stream);
            let carried = carried.map(|(region, turn)| (region.clone(), turn));
            carried.zip(state.orders.get(&progress.job).map(|it| it.told.clone()))
        };
        let Some(((region, turn), job)) = found else { return };
        // The job has ended where nobody takes it.
        let _ = job.send(Told { region, turn, progress }).await;
    }
}

impl Drop for Attending {
    fn drop(&mut self) {
        self.desk.state().assignments.leave(self.stream);
        self.desk.0.changed.send_replace(());
    }
}
