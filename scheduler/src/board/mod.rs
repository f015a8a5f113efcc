//! Everything that nodes say and are told, and the tables between.
//!
//! All that a table decides, it decides about one blob; only the coming and going of nodes concerns them all.
//! So there are several tables, *shards*, one for each processor: a blob belongs to the shard that its digest
//! names, and every shard knows every node. They need not talk to each other: which gateway seeds a blob is a
//! matter of hashing, and whatever else is counted is counted for each blob.
//!
//! Each shard is one task that owns its table (see [`keeper`]), with one bounded queue for what nodes say, so
//! that the table needs no lock and its decisions have an order. A node's messages about one blob keep theirs.
//! It has a thread of its own: a table that decides for thousands of nodes at once takes its time, and the
//! runtime's threads have connections to serve meanwhile.
//!
//! What all shards tell a node goes into one queue of its own. A node that does not take its orders is cut off
//! rather than waited for: its session ends at all shards, it joins again and tells everything anew.

mod keeper;
mod look;
mod metrics;
mod orders;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::ops::Bound;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::stream::{self, Stream};
use futures_util::{FutureExt as _, StreamExt as _};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use shoal_model::{BlobKey, Node, NodeId, Rng};
use shoal_ops::Context;
use shoal_proto::{
    BlobsRequest, Joined, NodeMessage, NodesRequest, SchedulerMessage, TotalReply, Want, WantedBlob,
};
use shoal_swarm::table::{CloseUp, Policy, Standing};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use keeper::Keeper;
use look::{Look, Stopped};
use metrics::BoardMetrics;
use orders::Orders;

/// Messages of all nodes that wait for one table.
const HEARD: usize = 4096;

/// A handle on the shards.
pub(crate) struct Board {
    shards: Shards,
    n_sessions: AtomicU64,
    nodes: Gauge<i64, AtomicI64>,
    arrived: Counter,
    started: Instant,
    seated: Seated,
}

/// Who has joined, by the newest stream of each.
type Seated = Arc<Mutex<BTreeMap<NodeId, Arc<Seat>>>>;

/// A node's place at the board; the node has left when it is dropped.
pub(crate) struct Session {
    seat: Arc<Seat>,
    shards: Shards,
    nodes: Gauge<i64, AtomicI64>,
    seated: Seated,
}

/// All shards.
#[derive(Clone)]
struct Shards(Arc<[Shard]>);

/// The queues of one.
struct Shard {
    heard: mpsc::Sender<Heard>,
    looks: mpsc::Sender<Look>,
}

/// What a shard hears.
#[derive(Clone)]
enum Heard {
    Joined(Arc<Seat>),
    Said(Arc<Seat>, NodeMessage),
    Left(Arc<Seat>),
}

/// One stream of one node.
struct Seat {
    node: Node,
    /// Of two streams of one node the one with the higher number counts, at every shard.
    number: u64,
    orders: Orders,
    /// Nothing more is heard from this stream, nor told on it.
    over: CancellationToken,
}

impl Board {
    /// Starts so many shards.
    pub(crate) fn start(ctx: &Context, policy: Policy, n_shards: NonZeroUsize) -> Self {
        let metrics = BoardMetrics::register(ctx);
        // A gateway hears from all of them at once.
        let policy = Policy { seeds_at_once: (policy.seeds_at_once / n_shards).max(1), ..policy };
        let shard = |_| {
            let ((heard, hearing), (looks, looking)) = (mpsc::channel(HEARD), mpsc::channel(1));
            let keeper = Keeper::new(policy, Rng::new(rand::random()), metrics.clone());
            let stopping = ctx.tasks.stopping();
            let run = async move { stopping.run_until_cancelled(keeper.run(hearing, looking)).await };
            let (runtime, run) = (Handle::current(), run.map(drop));
            ctx.tasks.spawn("shard", spawn_blocking(move || runtime.block_on(run)));
            Shard { heard, looks }
        };
        let shards = Shards((0..n_shards.get()).map(shard).collect());
        let (nodes, arrived) = (metrics.nodes, metrics.arrived);
        let (n_sessions, started) = (AtomicU64::new(0), Instant::now());
        Self { shards, n_sessions, nodes, arrived, started, seated: Seated::default() }
    }

    /// Seats a node; an older stream of the same node is over.
    pub(crate) async fn join(&self, node: Node) -> Session {
        let number = self.n_sessions.fetch_add(1, Ordering::Relaxed);
        let (orders, over) = (Orders::default(), CancellationToken::new());
        let seat = Arc::new(Seat { node, number, orders, over });
        self.nodes.inc();
        // Before the shards are told: a stream that ends meanwhile takes back what some of them have heard by then.
        let (shards, nodes) = (self.shards.clone(), self.nodes.clone());
        let session = Session { seat: seat.clone(), shards, nodes, seated: self.seated.clone() };
        self.note(&seat);
        if !self.shards.tell_all(Heard::Joined(seat.clone())).await {
            seat.over.cancel();
        }
        session
    }

    fn note(&self, seat: &Arc<Seat>) {
        let mut seated = self.seated.lock().unwrap_or_else(PoisonError::into_inner);
        if seated.get(&seat.node.id).is_none_or(|it| it.number < seat.number) {
            seated.insert(seat.node.id.clone(), seat.clone());
        }
    }

    /// Those who have joined and are asked for, by name.
    pub(crate) async fn nodes(&self, asked: NodesRequest) -> Result<Vec<Joined>, Stopped> {
        let having = match asked.having.clone() {
            Some(key) => Some(self.shards.members(key).await?),
            None => None,
        };
        let nodes = self.seated(&asked, |it| having.as_ref().is_none_or(|having| having.contains(it)));
        match asked.counted {
            true => self.shards.count(nodes).await,
            false => Ok(nodes.into_iter().map(|node| Joined { node, n_blobs: None }).collect()),
        }
    }

    fn seated(&self, asked: &NodesRequest, is_meant: impl Fn(&NodeId) -> bool) -> Vec<Node> {
        let seated = self.seated.lock().unwrap_or_else(PoisonError::into_inner);
        let from = asked.after.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let later = seated.range::<NodeId, _>((from, Bound::Unbounded)).map(|(_, it)| it);
        let is_there = |it: &Seat| asked.zone.as_ref().is_none_or(|zone| *zone == it.node.place.zone);
        let meant = later.filter(|it| !it.over.is_cancelled() && is_there(it) && is_meant(&it.node.id));
        let at_most = if asked.at_most == 0 { usize::MAX } else { asked.at_most as usize };
        meant.take(at_most).map(|it| it.node.clone()).collect()
    }

    /// How those blobs stand that are asked for, by key.
    pub(crate) async fn blobs(&self, asked: BlobsRequest) -> Result<Vec<Standing>, Stopped> {
        self.shards.look(asked).await
    }

    /// One blob with up to so many members; none, where nobody holds it or wants it.
    pub(crate) async fn close_up(
        &self,
        of: BlobKey,
        at_most: usize,
    ) -> Result<Option<CloseUp<Node>>, Stopped> {
        self.shards.close_up(of, at_most).await
    }

    /// What sidecars have received of blobs that they wanted.
    pub(crate) fn arrived(&self) -> TotalReply {
        TotalReply { bytes: self.arrived.get(), counted_for: self.started.elapsed() }
    }
}

impl Session {
    /// Hands on what the node said; false where nothing of it is heard any more.
    pub(crate) async fn hear(&self, message: NodeMessage) -> bool {
        match message {
            NodeMessage::Hello(_) | NodeMessage::Unknown => true,
            NodeMessage::Leaving => false,
            NodeMessage::Progress(blobs) => {
                let mut parts: BTreeMap<_, Vec<_>> = BTreeMap::new();
                for it in blobs {
                    parts.entry(self.shards.index(&it.key)).or_default().push(it);
                }
                for (shard, part) in parts {
                    if !self.tell(&self.shards.shard(shard).heard, NodeMessage::Progress(part)).await {
                        return false;
                    }
                }
                true
            }
            NodeMessage::Want(Want { blob: WantedBlob { ref key, .. }, .. })
            | NodeMessage::Unwant(ref key)
            | NodeMessage::Stranded(ref key) => {
                let shard = self.shards.shard(self.shards.index(key));
                self.tell(&shard.heard, message).await
            }
        }
    }

    /// What the node is told; ends with the session.
    pub(crate) fn orders(&self) -> impl Stream<Item = SchedulerMessage> + use<> {
        let orders = stream::unfold(self.seat.clone(), async |seat| Some((seat.orders.next().await, seat)));
        orders.take_until(self.seat.over.clone().cancelled_owned())
    }

    /// Waits until the board has ended the session, for a newer one of this node or because the node did not
    /// take its orders.
    pub(crate) async fn over(&self) {
        self.seat.over.cancelled().await;
    }

    async fn tell(&self, shard: &mpsc::Sender<Heard>, message: NodeMessage) -> bool {
        shard.send(Heard::Said(self.seat.clone(), message)).await.is_ok()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.nodes.dec();
        self.seat.over.cancel();
        let mut seated = self.seated.lock().unwrap_or_else(PoisonError::into_inner);
        if seated.get(&self.seat.node.id).is_some_and(|it| it.number == self.seat.number) {
            seated.remove(&self.seat.node.id);
        }
        drop(seated);
        let (shards, left) = (self.shards.clone(), Heard::Left(self.seat.clone()));
        tokio::spawn(async move { shards.tell_all(left).await });
    }
}

impl Shards {
    /// Which shard has the blob. Digests are as good as random, so that blobs spread evenly.
    fn index(&self, key: &BlobKey) -> usize {
        let bytes = key.digest.as_bytes();
        usize::from(u16::from_le_bytes([bytes[0], bytes[1]])) % self.0.len()
    }

    #[expect(clippy::indexing_slicing, reason = "numbers come from `index`")]
    fn shard(&self, number: usize) -> &Shard {
        &self.0[number]
    }

    /// False where the shards have stopped.
    async fn tell_all(&self, heard: Heard) -> bool {
        for shard in &*self.0 {
            if shard.heard.send(heard.clone()).await.is_err() {
                return false;
            }
        }
        true
    }
}
