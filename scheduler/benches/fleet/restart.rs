//! A fleet whose scheduler dies and is started again: how long until it knows and leads everybody.
//!
//! The nodes' streams are those of real nodes, which wait and try again by themselves. All of them hold some blobs, and
//! want one more that every tenth node has already. The gateway is there before all others and holds nothing: an order
//! to seed would be a second read of the registry.

use std::net::SocketAddr;
use std::slice;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use shoal_identity::Dialer;
use shoal_model::{BlobKey, Node as Named, NodeId, Rng, Role};
use shoal_peer::schedulers::{Announce, Schedulers};
use shoal_proto::{NodeMessage, SchedulerMessage, Want, WantedBlob};
use shoal_swarm::Bitmap;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::fleet::{PER_MESSAGE, blob_progress, geometry, key, named};
use crate::gateway;
use crate::node::{self, Node};
use crate::scheduler::{Scheduler, until};
use crate::work::Extent;

/// Blobs that each node holds besides.
const HELD: u64 = 10;
/// The blob that is wanted, and of how many nodes one has it.
const WANTED: u64 = HELD;
const TO_ONE: usize = 10;
/// Blobs of which each node tells something.
const TOLD: u64 = HELD + 1;

/// What a restart came to, counted from when the process was started again.
pub(crate) struct Restart {
    /// Until the tables had all that every node holds and wants.
    pub(crate) known: Duration,
    /// Until every node that wants the blob had been told of neighbours.
    pub(crate) led: Duration,
    /// Orders to seed.
    pub(crate) seeds: u64,
}

/// What all nodes together have been told in this round, of which there is one before the restart and one after.
#[derive(Default)]
struct Told {
    round: AtomicU64,
    led: AtomicU64,
}

/// What one node holds, and what it wants, if anything.
struct Holdings {
    held: Vec<BlobKey>,
    wanted: Option<WantedBlob>,
}

/// Restarts a scheduler under a fleet.
pub(crate) async fn restart(extent: &Extent) -> Result<Restart> {
    let mut scheduler = Scheduler::start(gateway::start().await?).await?;
    let (stopping, mut running) = (CancellationToken::new(), JoinSet::new());
    let told = Arc::new(Told::default());
    let mut join = |named: Named, holdings: Holdings| {
        let addresses = watch::channel(vec![format!("http://{}", scheduler.listen)]).1;
        let (dialer, rng) = (Dialer::new(None), Rng::new(rand::random()));
        let (_, orders, driver) = Schedulers::new(named, &dialer, addresses, Arc::new(holdings), rng);
        running.spawn(driver.run(stopping.clone()));
        running.spawn(listen(orders, told.clone()));
    };
    for number in 0..extent.returning {
        let named = named(Role::Sidecar, number);
        let holdings = Holdings::of(&named.id, number);
        join(named, holdings);
    }
    let n_told = TOLD * extent.returning as u64;
    let n_wishes = (extent.returning - extent.returning.div_ceil(TO_ONE)) as u64;
    scheduler.wait_until_heard(n_told).await?;
    told.until_led(n_wishes).await?;

    scheduler.kill()?;
    sleep(extent.away).await;
    told.begin();
    let orders = Arc::new(node::Told::default());
    let gateway = tokio::spawn(first_of_all(scheduler.listen, orders.clone()));
    let began = Instant::now();
    scheduler.restart().await?;
    let known = async { scheduler.wait_until_heard(n_told).await.map(|()| began.elapsed()) };
    let led = async { told.until_led(n_wishes).await.map(|()| began.elapsed()) };
    let (known, led) = tokio::try_join!(known, led)?;
    stopping.cancel();
    while running.join_next().await.is_some() {}
    drop(gateway.await?);
    Ok(Restart { known, led, seeds: orders.orders.load(Ordering::Relaxed) })
}

/// A gateway that has joined as soon as the scheduler can be reached.
async fn first_of_all(scheduler: SocketAddr, told: Arc<node::Told>) -> Node {
    loop {
        match Node::join(scheduler, named(Role::Gateway, 0), told.clone()).await {
            Ok(gateway) => return gateway,
            Err(_) => sleep(Duration::from_millis(1)).await,
        }
    }
}

/// Takes one node's orders; it is led when it first hears of neighbours in a round.
async fn listen(mut orders: mpsc::Receiver<SchedulerMessage>, told: Arc<Told>) {
    let mut led_in = None;
    while let Some(order) = orders.recv().await {
        if matches!(order, SchedulerMessage::Neighbours(it) if !it.near.is_empty()) {
            let round = Some(told.round.load(Ordering::Relaxed));
            if std::mem::replace(&mut led_in, round) != round {
                told.led.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

impl Told {
    /// Begins the next round; nobody is told anything meanwhile.
    fn begin(&self) {
        self.round.fetch_add(1, Ordering::Relaxed);
        self.led.store(0, Ordering::Relaxed);
    }

    async fn until_led(&self, n_wishes: u64) -> Result<()> {
        until("all who want the blob are led", async || self.led.load(Ordering::Relaxed) >= n_wishes).await
    }
}

impl Holdings {
    fn of(node: &NodeId, number: usize) -> Self {
        let (mut held, wanted): (Vec<_>, _) = ((0..HELD).map(key).collect(), key(WANTED));
        if number.is_multiple_of(TO_ONE) {
            held.push(wanted);
            return Self { held, wanted: None };
        }
        let ticket = gateway::tickets(node, slice::from_ref(&wanted)).pop();
        let (geometry, source) = (geometry(), gateway::source());
        let wanted = ticket.map(|ticket| WantedBlob { key: wanted, geometry, source, ticket, trace: None });
        Self { held, wanted }
    }
}

impl Announce for Holdings {
    fn announce(&self, concerns: &dyn Fn(&BlobKey) -> bool) -> Vec<NodeMessage> {
        let whole = || Bitmap::full(geometry().n_pieces()).runs();
        let held = self.held.iter().filter(|key| concerns(key));
        let held: Vec<_> = held.map(|key| blob_progress(key, whole())).collect();
        let wanted = self.wanted.iter().filter(|it| concerns(&it.key)).cloned();
        let wishes = wanted.map(|blob| NodeMessage::Want(Want { blob, held: Vec::new(), moved: false }));
        held.chunks(PER_MESSAGE).map(|it| NodeMessage::Progress(it.to_vec())).chain(wishes).collect()
    }
}
