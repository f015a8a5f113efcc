//! One shard: a table, and the task that feeds it and passes its orders on.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use shoal_model::{BlobKey, NodeId, Rng, Tick};
use shoal_ops::traces::{self, TARGET};
use shoal_proto::{Lease, Neighbours, NodeMessage, SchedulerMessage, SeedOrder, Want, WantedBlob};
use shoal_swarm::table::{Event, Order, Policy, Report, Table, What};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::info_span;

use super::look::Look;
use super::metrics::BoardMetrics;
use super::{Heard, Seat};

/// Messages that are taken in at one go, before others get their turn on the processor.
const BATCH: usize = 64;

pub(super) struct Keeper {
    table: Table,
    seats: BTreeMap<NodeId, Arc<Seat>>,
    /// The latest wish for each blob: what a gateway needs in order to seed it.
    wanted: BTreeMap<BlobKey, WantedBlob>,
    started: Instant,
    metrics: BoardMetrics,
}

impl Keeper {
    pub(super) fn new(policy: Policy, rng: Rng, metrics: BoardMetrics) -> Self {
        Self {
            table: Table::new(policy, rng),
            seats: BTreeMap::new(),
            wanted: BTreeMap::new(),
            started: Instant::now(),
            metrics,
        }
    }

    /// Works until nobody can say anything any more. What is looked up takes its turn with what is heard.
    pub(super) async fn run(mut self, mut heard: mpsc::Receiver<Heard>, mut looks: mpsc::Receiver<Look>) {
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            let wake = self.table.next_deadline(self.now());
            let deadline = async {
                match wake {
                    Some(at) => tokio::time::sleep_until(self.started + Duration::from_micros(at.0)).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                n_heard = heard.recv_many(&mut batch, BATCH) => match n_heard {
                    0 => return,
                    _ => batch.drain(..).for_each(|it| self.hear(it)),
                },
                Some(look) = looks.recv() => look.at(&self.table, &self.seats),
                () = deadline => self.decide(Event::Deadline),
            }
        }
    }

    fn now(&self) -> Tick {
        Tick(u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    fn hear(&mut self, heard: Heard) {
        match heard {
            Heard::Joined(seat) => self.seat(seat),
            Heard::Said(seat, message) if self.is_seated(&seat) => self.said(&seat.node.id, message),
            Heard::Left(seat) if self.is_seated(&seat) => self.unseat(&seat.node.id),
            // What an ended stream still brings is void.
            Heard::Said(..) | Heard::Left(_) => {}
        }
    }

    fn seat(&mut self, seat: Arc<Seat>) {
        let (id, role, place) = (seat.node.id.clone(), seat.node.role, seat.node.place.clone());
        match self.seats.get(&id) {
            // Streams that begin at the same time may come in another order to another shard.
            Some(newer) if newer.number > seat.number => return seat.over.cancel(),
            Some(older) => older.over.cancel(),
            None => {}
        }
        self.seats.insert(id.clone(), seat);
        self.decide(Event::Joined { node: id, role, place });
    }

    fn unseat(&mut self, node: &NodeId) {
        if self.seats.remove(node).is_some() {
            self.decide(Event::Left(node.clone()));
        }
    }

    fn is_seated(&self, seat: &Arc<Seat>) -> bool {
        self.seats.get(&seat.node.id).is_some_and(|it| it.number == seat.number)
    }

    fn said(&mut self, node: &NodeId, message: NodeMessage) {
        let node = node.clone();
        self.metrics.heard.inc_by(match &message {
            NodeMessage::Progress(blobs) => blobs.len() as u64,
            _ => 1,
        });
        match message {
            NodeMessage::Want(Want { mut blob, held, moved }) => {
                let (key, geometry) = (blob.key.clone(), blob.geometry);
                let span = traces::from(
                    blob.trace,
                    || info_span!(target: TARGET, "neighbours", otel.kind = "server", %node, blob = %key),
                );
                // Whoever is to seed it is asked by this, where this records anything.
                blob.trace = traces::place_of(&span).or(blob.trace);
                self.wanted.insert(key.clone(), blob);
                let report = Report { node, key, geometry, dropped: false, gained: held };
                span.in_scope(|| self.decide(Event::Want { report, moved }));
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
            // Of no blob, so of no shard.
            NodeMessage::Hello(_) | NodeMessage::Leaving | NodeMessage::Unknown => {}
        }
    }

    fn decide(&mut self, event: Event) {
        let (n_blobs, n_arrived, began) =
            (self.table.n_blobs(), self.table.n_bytes_arrived(), Instant::now());
        // One that is cut off has left, which others are told of, who may not take that either.
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            let mut orders = Vec::new();
            self.table.on_event(self.now(), event, &mut orders);
            for order in orders {
                self.metrics.ordered(&order.what);
                let to = order.to.clone();
                if let Some(message) = self.message(order)
                    && self.seats.get(&to).is_some_and(|it| !it.orders.push(message))
                {
                    self.cut_off(&to);
                    events.push_back(Event::Left(to));
                }
            }
        }
        if self.wanted.len() > self.table.n_blobs() {
            self.wanted.retain(|key, _| self.table.knows(key));
        }
        self.metrics.blobs.inc_by(self.table.n_blobs() as i64 - n_blobs as i64);
        self.metrics.arrived.inc_by(self.table.n_bytes_arrived() - n_arrived);
        self.metrics.decided(began.elapsed());
    }

    fn cut_off(&mut self, node: &NodeId) {
        // Another shard may have found the same.
        if let Some(seat) = self.seats.remove(node).filter(|it| !it.over.is_cancelled()) {
            seat.over.cancel();
            self.metrics.cut_off.inc();
            tracing::warn!(%node, "did not take its orders, is cut off");
        }
    }

    fn message(&self, Order { key, what, .. }: Order) -> Option<SchedulerMessage> {
        let seated = |it: Vec<NodeId>| {
            it.iter().filter_map(|it| self.seats.get(it)).map(|it| it.node.clone()).collect()
        };
        Some(match what {
            What::Neighbours { near, far, algorithm, gateway } => {
                let gateway = gateway.and_then(|it| self.seats.get(&it)).map(|it| it.node.clone());
                let (near, far) = (seated(near), seated(far));
                SchedulerMessage::Neighbours(Neighbours { key, near, far, algorithm, gateway })
            }
            What::Lease { from, pieces } => {
                let from = self.seats.get(&from)?.node.clone();
                SchedulerMessage::Lease(Lease { key, pieces, from })
            }
            What::Seed { holders } => {
                let (blob, holders) = (self.wanted.get(&key)?.clone(), seated(holders));
                SchedulerMessage::Seed(SeedOrder { blob, holders })
            }
            What::GoDirect => SchedulerMessage::GoDirect(key),
        })
    }
}
