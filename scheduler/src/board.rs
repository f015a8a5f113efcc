//! The one task that owns the table and knows every node's stream.
//!
//! Everything that nodes say arrives on one bounded queue, so that the table needs no lock and its
//! decisions have an order. A node that does not take its orders is cut off rather than waited for: its
//! stream ends, it joins again and tells everything anew.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicI64;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use shoal_model::{BlobKey, Node, NodeId, Rng, Tick};
use shoal_ops::Context;
use shoal_proto::{Lease, Neighbours, NodeMessage, SchedulerMessage, Want, WantedBlob};
use shoal_swarm::table::{Event, Order, Policy, Report, Table, What};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

/// Messages of all nodes that wait for the table.
const HEARD: usize = 4096;
/// Orders that wait for one node.
const ORDERS: usize = 1024;

/// A handle on the task.
#[derive(Clone)]
pub(crate) struct Board(mpsc::Sender<Heard>);

/// A node's place at the board; the node has left when it is dropped.
pub(crate) struct Session {
    node: NodeId,
    number: u64,
    board: mpsc::Sender<Heard>,
}

enum Heard {
    Joined { node: Node, protocol: u32, reply: oneshot::Sender<(u64, mpsc::Receiver<SchedulerMessage>)> },
    Said { node: NodeId, session: u64, message: NodeMessage },
    Left { node: NodeId, session: u64 },
}

struct Seat {
    node: Node,
    session: u64,
    orders: mpsc::Sender<SchedulerMessage>,
}

struct Keeper {
    table: Table,
    seats: BTreeMap<NodeId, Seat>,
    /// The latest wish for each blob: what a gateway needs in order to seed it.
    wanted: BTreeMap<BlobKey, WantedBlob>,
    n_sessions: u64,
    started: Instant,
    metrics: BoardMetrics,
}

#[derive(Clone, Default)]
struct BoardMetrics {
    nodes: Gauge<i64, AtomicI64>,
    blobs: Gauge<i64, AtomicI64>,
    heard: Counter,
    ordered: Counter,
    cut_off: Counter,
}

impl Board {
    /// Starts the task.
    pub(crate) fn start(ctx: &Context, policy: Policy) -> Self {
        let (board, heard) = mpsc::channel(HEARD);
        let keeper = Keeper {
            table: Table::new(policy, Rng::new(rand::random())),
            seats: BTreeMap::new(),
            wanted: BTreeMap::new(),
            n_sessions: 0,
            started: Instant::now(),
            metrics: BoardMetrics::register(ctx),
        };
        let stopping = ctx.tasks.stopping();
        ctx.tasks.spawn_infallible("board", async move {
            stopping.run_until_cancelled(keeper.run(heard)).await;
        });
        Self(board)
    }

    /// Seats a node; an older stream of the same node is closed. Orders for it come out of the receiver,
    /// which ends at once where the scheduler is stopping.
    pub(crate) async fn join(
        &self,
        node: Node,
        protocol: u32,
    ) -> (Session, mpsc::Receiver<SchedulerMessage>) {
        let (reply, seated) = oneshot::channel();
        let id = node.id.clone();
        // A refused send drops `reply`, which the next line sees.
        let _ = self.0.send(Heard::Joined { node, protocol, reply }).await;
        let (number, orders) = seated.await.unwrap_or_else(|_| (0, mpsc::channel(1).1));
        (Session { node: id, number, board: self.0.clone() }, orders)
    }
}

impl Session {
    /// Hands on what the node said; false where the board is gone.
    pub(crate) async fn hear(&self, message: NodeMessage) -> bool {
        let said = Heard::Said { node: self.node.clone(), session: self.number, message };
        self.board.send(said).await.is_ok()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let (board, left) =
            (self.board.clone(), Heard::Left { node: self.node.clone(), session: self.number });
        tokio::spawn(async move { board.send(left).await.ok() });
    }
}

impl Keeper {
    async fn run(mut self, mut heard: mpsc::Receiver<Heard>) {
        loop {
            let wake = self.table.next_deadline(self.now());
            let deadline = async {
                match wake {
                    Some(at) => tokio::time::sleep_until(self.started + Duration::from_micros(at.0)).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                it = heard.recv() => match it {
                    Some(it) => self.hear(it),
                    None => return,
                },
                () = deadline => self.decide(Event::Deadline),
            }
        }
    }

    fn now(&self) -> Tick {
        Tick(u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    fn hear(&mut self, heard: Heard) {
        self.metrics.heard.inc();
        match heard {
            Heard::Joined { node, protocol, reply } => self.seat(node, protocol, reply),
            Heard::Said { node, session, message } if self.is_seated(&node, session) => {
                self.said(node, message)
            }
            Heard::Left { node, session } if self.is_seated(&node, session) => {
                self.unseat(&node, "stream ended")
            }
            Heard::Said { .. } | Heard::Left { .. } => {}
        }
    }

    fn seat(
        &mut self,
        node: Node,
        protocol: u32,
        reply: oneshot::Sender<(u64, mpsc::Receiver<SchedulerMessage>)>,
    ) {
        self.n_sessions += 1;
        let (orders, receiver) = mpsc::channel(ORDERS);
        let (id, role, place) = (node.id.clone(), node.role, node.place.clone());
        tracing::info!(node = %id, address = %node.address, ?role, protocol, "node joined");
        self.seats.insert(id.clone(), Seat { node, session: self.n_sessions, orders });
        // Where the stream is gone already, its session tells so in a moment.
        let _ = reply.send((self.n_sessions, receiver));
        self.decide(Event::Joined { node: id, role, place });
    }

    fn unseat(&mut self, node: &NodeId, why: &'static str) {
        if self.seats.remove(node).is_some() {
            tracing::info!(%node, why, "node left");
            self.decide(Event::Left(node.clone()));
        }
    }

    fn is_seated(&self, node: &NodeId, session: u64) -> bool {
        self.seats.get(node).is_some_and(|it| it.session == session)
    }

    fn said(&mut self, node: NodeId, message: NodeMessage) {
        match message {
            NodeMessage::Hello(_) => {}
            NodeMessage::Want(Want { blob, held }) => {
                let (key, geometry) = (blob.key.clone(), blob.geometry);
                self.wanted.insert(key.clone(), blob);
                self.decide(Event::Want(Report { node, key, geometry, dropped: false, gained: held }));
            }
            NodeMessage::Progress(blobs) => {
                for it in blobs {
                    let (node, key, geometry) = (node.clone(), it.key, it.geometry);
                    let (dropped, gained) = (it.dropped, it.gained);
                    self.decide(Event::Progress(Report { node, key, geometry, dropped, gained }));
                }
            }
            NodeMessage::Unwant(key) => self.decide(Event::Unwant { node, key }),
            NodeMessage::Stranded(key) => self.decide(Event::Stranded { node, key }),
            NodeMessage::Leaving => self.unseat(&node, "leaving"),
        }
    }

    fn decide(&mut self, event: Event) {
        let mut orders = Vec::new();
        self.table.on_event(self.now(), event, &mut orders);
        let mut cut_off = Vec::new();
        for order in orders {
            self.metrics.ordered.inc();
            let to = order.to.clone();
            if let Some(message) = self.message(order)
                && let Some(seat) = self.seats.get(&to)
                && seat.orders.try_send(message).is_err()
            {
                cut_off.push(to);
            }
        }
        for node in cut_off {
            self.metrics.cut_off.inc();
            self.unseat(&node, "did not take its orders");
        }
        if self.wanted.len() > self.table.n_blobs() {
            self.wanted.retain(|key, _| self.table.knows(key));
        }
        self.metrics.nodes.set(self.table.n_nodes() as i64);
        self.metrics.blobs.set(self.table.n_blobs() as i64);
    }

    fn message(&self, Order { key, what, .. }: Order) -> Option<SchedulerMessage> {
        Some(match what {
            What::Neighbours { near, far } => {
                let seated = |it: Vec<NodeId>| {
                    it.iter().filter_map(|it| self.seats.get(it)).map(|it| it.node.clone()).collect()
                };
                SchedulerMessage::Neighbours(Neighbours { key, near: seated(near), far: seated(far) })
            }
            What::Lease { from, pieces } => {
                let from = self.seats.get(&from)?.node.clone();
                SchedulerMessage::Lease(Lease { key, pieces, from })
            }
            What::Seed => SchedulerMessage::Seed(self.wanted.get(&key)?.clone()),
            What::GoDirect => SchedulerMessage::GoDirect(key),
        })
    }
}

impl BoardMetrics {
    fn register(ctx: &Context) -> Self {
        let it = Self::default();
        let its = it.clone();
        ctx.metrics.register(|registry| {
            registry.register("scheduler_nodes", "Connected nodes", its.nodes);
            registry.register("scheduler_blobs", "Blobs that some node holds or wants", its.blobs);
            registry.register("scheduler_messages", "Messages received from nodes", its.heard);
            registry.register("scheduler_orders", "Messages sent to nodes", its.ordered);
            registry.register("scheduler_cut_off", "Nodes that did not take their orders", its.cut_off);
        });
        it
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shoal_model::{Digest, Place, Role, TrustGroup};
    use shoal_proto::{PROTOCOL, Source, Ticket};
    use shoal_swarm::Geometry;

    fn board() -> Board {
        Board::start(&Context::new("test", "0"), Policy::default())
    }

    fn node(name: &str, role: Role) -> Node {
        let address = format!("{name}:1").as_str().into();
        Node { id: NodeId::new(name), address, role, place: Place::default() }
    }

    fn want(sum: u8) -> NodeMessage {
        let blob = WantedBlob {
            key: BlobKey { group: TrustGroup::new("g"), digest: Digest::from_sha256([sum; 32]) },
            geometry: Geometry::by_rule(10 << 20),
            source: Source { registry: "r".into(), repository: "a".into() },
            ticket: Ticket("t".into()),
        };
        NodeMessage::Want(Want { blob, held: vec![] })
    }

    async fn until<T>(
        orders: &mut mpsc::Receiver<SchedulerMessage>,
        wanted: impl Fn(SchedulerMessage) -> Option<T>,
    ) -> T {
        loop {
            let order = orders.recv().await.expect("the stream goes on");
            if let Some(found) = wanted(order) {
                return found;
            }
        }
    }

    #[tokio::test]
    async fn a_wish_reaches_the_gateway_and_brings_a_lease_from_it() {
        let board = board();
        let (_gateway, mut seeds) = board.join(node("gw", Role::Gateway), PROTOCOL).await;
        let (sidecar, mut orders) = board.join(node("a", Role::Sidecar), PROTOCOL).await;
        assert!(sidecar.hear(want(1)).await);
        let seeded = until(&mut seeds, |it| match it {
            SchedulerMessage::Seed(blob) => Some(blob),
            _ => None,
        });
        assert_eq!(seeded.await.ticket, Ticket("t".into()));
        let leased = until(&mut orders, |it| match it {
            SchedulerMessage::Lease(lease) => Some(lease.from.address),
            _ => None,
        });
        assert_eq!(&*leased.await, "gw:1");
    }

    #[tokio::test]
    async fn a_node_that_joins_again_takes_the_place_of_its_old_stream() {
        let board = board();
        let (old, mut old_orders) = board.join(node("a", Role::Sidecar), PROTOCOL).await;
        let (new, mut orders) = board.join(node("a", Role::Sidecar), PROTOCOL).await;
        assert_eq!(old_orders.recv().await, None);
        drop(old);
        assert!(new.hear(want(1)).await);
        until(&mut orders, |it| matches!(it, SchedulerMessage::Neighbours(_)).then_some(())).await;
    }

    #[tokio::test]
    async fn a_node_that_does_not_take_its_orders_is_cut_off() {
        let board = board();
        let (session, mut orders) = board.join(node("a", Role::Sidecar), PROTOCOL).await;
        for round in 0..=ORDERS {
            // Each wish for another blob is answered.
            assert!(session.hear(want(round as u8)).await);
            assert!(
                session
                    .hear(NodeMessage::Unwant(match want(round as u8) {
                        NodeMessage::Want(it) => it.blob.key,
                        _ => unreachable!("made by want()"),
                    }))
                    .await
            );
        }
        // Answered after all that was said before it.
        board.join(node("b", Role::Sidecar), PROTOCOL).await;
        let mut n_orders = 0;
        while orders.recv().await.is_some() {
            n_orders += 1;
        }
        assert_eq!(n_orders, ORDERS);
    }
}
