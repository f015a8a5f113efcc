//! A fleet in miniature: the table and the fetches of some nodes, joined by an event heap.
//!
//! Bytes are lengths and links are queues; every decision is the crate's own.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::ops::Range;

use shoal_model::{BlobKey, Digest, NodeId, Place, Rng, Role, Tick, TrustGroup};
use shoal_swarm::fetch::{self, Action, Fault, Fetch};
use shoal_swarm::table::{self, Order, Table, What};
use shoal_swarm::{Bitmap, Geometry, PieceIndex};

const DELAY: u64 = 500;
const BATCH: u64 = 50_000;
const GATEWAY: usize = 0;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Happens {
    Join(usize),
    Order(usize),
    Report(usize),
    Wake(usize),
    Arrives { at: usize, from: usize, piece: PieceIndex },
    News { at: usize, from: usize },
    Broken { at: usize, from: usize, piece: PieceIndex },
    Lost { at: usize, from: usize },
    Seeded(PieceIndex),
    Dies(usize),
    Table,
    SchedulerDies,
}

struct Peer {
    fetch: Option<Fetch>,
    holds: Bitmap,
    /// Taken from the registry, and nobody vouches for it until all is there.
    provisional: Bitmap,
    told: Bitmap,
    watchers: BTreeMap<usize, Bitmap>,
    up_free: u64,
    sent: u64,
    alive: bool,
    done_at: Option<u64>,
    direct: bool,
}

struct World {
    now: u64,
    heap: BinaryHeap<Reverse<(u64, u64, Happens)>>,
    n_events: u64,
    geometry: Geometry,
    piece_time: u64,
    table: Option<Table>,
    peers: Vec<Peer>,
    orders: BTreeMap<u64, Order>,
    gateway_alive: bool,
}

fn id(index: usize) -> NodeId {
    NodeId::new(&format!("{index:04}"))
}

fn index(id: &NodeId) -> usize {
    id.as_str().parse().expect("made by id()")
}

fn key() -> BlobKey {
    BlobKey { group: TrustGroup::new("g"), digest: Digest::from_sha256([3; 32]) }
}

impl World {
    /// `n` nodes and one gateway, links that carry a piece in `piece_time` microseconds, joins spread
    /// evenly over `spread`.
    fn new(n: usize, n_pieces: u64, piece_time: u64, spread: u64) -> Self {
        let geometry = Geometry::stated(n_pieces << 20, 1 << 20).expect("a small blob");
        let mut table = Table::new(table::Policy::default(), Rng::new(1));
        let place = |it: usize| Place { zone: format!("z{}", it % 2).as_str().into(), rack: "".into() };
        let mut orders = Vec::new();
        for it in 0..=n {
            let role = if it == GATEWAY { Role::Gateway } else { Role::Sidecar };
            table.on_event(
                Tick(0),
                table::Event::Joined { node: id(it), role, place: place(it) },
                &mut orders,
            );
        }
        let peer = |_| Peer {
            fetch: None,
            holds: Bitmap::new(geometry.n_pieces()),
            provisional: Bitmap::new(geometry.n_pieces()),
            told: Bitmap::new(geometry.n_pieces()),
            watchers: BTreeMap::new(),
            up_free: 0,
            sent: 0,
            alive: true,
            done_at: None,
            direct: false,
        };
        let mut world = Self {
            now: 0,
            heap: BinaryHeap::new(),
            n_events: 0,
            geometry,
            piece_time,
            table: Some(table),
            peers: (0..=n).map(peer).collect(),
            orders: BTreeMap::new(),
            gateway_alive: true,
        };
        (1..=n).for_each(|it| world.push(spread * it as u64 / n as u64, Happens::Join(it)));
        world
    }

    fn push(&mut self, at: u64, what: Happens) {
        self.n_events += 1;
        self.heap.push(Reverse((at.max(self.now), self.n_events, what)));
    }

    fn run(&mut self) -> &mut Self {
        while let Some(Reverse((at, _, what))) = self.heap.pop() {
            self.now = at;
            assert!(at < 600_000_000 && self.n_events < 20_000_000, "the fleet does not come to an end");
            self.happen(what);
        }
        self
    }

    fn happen(&mut self, what: Happens) {
        match what {
            Happens::Join(node) => {
                let rng = Rng::new(node as u64);
                let held = self.peers[node].holds.clone();
                let held_runs = held.runs();
                self.peers[node].fetch =
                    Some(Fetch::new(Tick(self.now), id(node), key(), held, fetch::Policy::default(), rng));
                self.tell_fetch(node, fetch::Event::Gateway(id(GATEWAY)));
                if self.table.is_none() {
                    self.tell_fetch(node, fetch::Event::Scheduler(false));
                }
                let geometry = self.geometry;
                let wish =
                    table::Report { node: id(node), key: key(), geometry, dropped: false, gained: held_runs };
                self.tell_table(table::Event::Want(wish));
                self.push(self.now + BATCH, Happens::Report(node));
            }
            Happens::Order(node) => self.deliver_orders(node),
            Happens::Report(node) => self.report(node, true),
            Happens::Wake(node) => self.tell_fetch(node, fetch::Event::Deadline),
            Happens::Arrives { at, from, piece } => {
                if from == at {
                    self.hold_provisionally(at, piece);
                } else if self.peers[from].alive {
                    self.hold(at, piece);
                } else {
                    self.happen(Happens::Broken { at, from, piece });
                }
            }
            Happens::News { at, from } => self.news(at, from),
            Happens::Broken { at, from, piece } => {
                self.tell_fetch(at, fetch::Event::Failed { from: id(from), piece, fault: Fault::Broken });
            }
            Happens::Lost { at, from } => {
                self.tell_fetch(at, fetch::Event::Lost { from: id(from), is_well: false })
            }
            Happens::Seeded(piece) => {
                if self.gateway_alive && piece < self.geometry.n_pieces() {
                    self.hold(GATEWAY, piece);
                    self.push(self.now + self.piece_time, Happens::Seeded(piece + 1));
                }
            }
            Happens::Dies(node) => self.die(node),
            Happens::Table => self.tell_table(table::Event::Deadline),
            Happens::SchedulerDies => {
                self.table = None;
                let nodes: Vec<NodeId> = (1..self.peers.len()).map(id).collect();
                for node in 1..self.peers.len() {
                    self.tell_fetch(node, fetch::Event::Scheduler(false));
                    self.tell_fetch(node, fetch::Event::Neighbours(nodes.iter().take(12).cloned().collect()));
                }
            }
        }
    }

    fn die(&mut self, node: usize) {
        self.peers[node].alive = false;
        self.peers[node].fetch = None;
        if node == GATEWAY {
            self.gateway_alive = false;
        }
        let watchers: Vec<_> = self.peers[node].watchers.keys().copied().collect();
        for at in watchers {
            self.push(self.now + 1_000_000, Happens::Lost { at, from: node });
        }
        self.tell_table(table::Event::Left(id(node)));
    }

    fn hold(&mut self, node: usize, piece: PieceIndex) {
        if !self.peers[node].alive || !self.peers[node].holds.insert(piece) {
            return;
        }
        self.tell_fetch(node, fetch::Event::Held(piece));
        let watchers: Vec<_> = self.peers[node].watchers.keys().copied().collect();
        for at in watchers {
            self.push(self.now + 20_000, Happens::News { at, from: node });
        }
        let few_leased = self.peers[node].fetch.as_ref().is_some_and(|it| it.n_leased() < 3);
        if node == GATEWAY || few_leased {
            self.report(node, false);
        }
        if self.peers[node].holds.is_full() {
            self.peers[node].done_at.get_or_insert(self.now);
        }
    }

    /// A piece from the registry: for the node itself, until the whole digest has matched.
    fn hold_provisionally(&mut self, node: usize, piece: PieceIndex) {
        self.peers[node].provisional.insert(piece);
        self.tell_fetch(node, fetch::Event::Held(piece));
        let peer = &self.peers[node];
        let n_pieces = self.geometry.n_pieces();
        if (0..n_pieces).all(|it| peer.holds.contains(it) || peer.provisional.contains(it)) {
            (0..n_pieces).for_each(|it| self.hold(node, it));
        }
    }

    fn news(&mut self, at: usize, from: usize) {
        if !self.peers[from].alive {
            return;
        }
        let holds = self.peers[from].holds.clone();
        let told =
            self.peers[from].watchers.insert(at, holds.clone()).unwrap_or_else(|| Bitmap::new(holds.len()));
        let gained: Vec<Range<u32>> = holds.minus(&told).runs();
        let alive = from == GATEWAY;
        self.tell_fetch(at, fetch::Event::News { from: id(from), dropped: false, gained, alive });
    }

    fn report(&mut self, node: usize, again: bool) {
        let peer = &mut self.peers[node];
        let gained = peer.holds.minus(&peer.told).runs();
        peer.told = peer.holds.clone();
        let done = peer.holds.is_full() || !peer.alive;
        if !gained.is_empty() {
            let geometry = self.geometry;
            let report = table::Report { node: id(node), key: key(), geometry, dropped: false, gained };
            self.tell_table(table::Event::Progress(report));
        }
        if again && !done {
            self.push(self.now + BATCH, Happens::Report(node));
        }
    }

    fn tell_table(&mut self, event: table::Event) {
        let Some(table) = &mut self.table else { return };
        let mut out = Vec::new();
        table.on_event(Tick(self.now), event, &mut out);
        if let Some(at) = table.next_deadline(Tick(self.now)) {
            self.push(at.0, Happens::Table);
        }
        for order in out {
            let to = index(&order.to);
            let at = self.now + 2 * DELAY;
            self.orders.insert(self.n_events, order);
            self.push(at, Happens::Order(to));
        }
    }

    fn deliver_orders(&mut self, node: usize) {
        let mine: Vec<u64> =
            self.orders.iter().filter(|(_, it)| index(&it.to) == node).map(|(at, _)| *at).collect();
        for at in mine {
            let Some(order) = self.orders.remove(&at) else {
                continue;
            };
            match order.what {
                What::Neighbours(nodes) => self.tell_fetch(node, fetch::Event::Neighbours(nodes)),
                What::Lease { from, pieces } => {
                    self.tell_fetch(node, fetch::Event::Leased { from, pieces });
                }
                What::Seed => self.happen(Happens::Seeded(0)),
                What::GoDirect => self.tell_fetch(node, fetch::Event::MayGoDirect),
            }
        }
    }

    fn tell_fetch(&mut self, node: usize, event: fetch::Event) {
        let now = Tick(self.now);
        let Some(fetch) = &mut self.peers[node].fetch else {
            return;
        };
        let mut out = Vec::new();
        fetch.on_event(now, event, &mut out);
        if let Some(at) = fetch.next_deadline(now) {
            self.push(at.0, Happens::Wake(node));
        }
        out.into_iter().for_each(|it| self.act(node, it));
    }

    fn act(&mut self, node: usize, action: Action) {
        match action {
            Action::Watch(from) => {
                let from = index(&from);
                if self.peers[from].alive {
                    if from == GATEWAY && self.table.is_none() && self.peers[GATEWAY].holds.is_empty() {
                        self.push(self.now, Happens::Seeded(0));
                    }
                    self.push(self.now + 2 * DELAY, Happens::News { at: node, from });
                } else {
                    self.push(self.now + 1_000_000, Happens::Lost { at: node, from });
                }
            }
            Action::Ask { from, piece } => {
                let from = index(&from);
                if !self.peers[from].alive {
                    self.push(self.now + 1_000_000, Happens::Broken { at: node, from, piece });
                    return;
                }
                assert!(self.peers[from].holds.contains(piece), "asked for a piece that was never offered");
                let start = (self.now + DELAY).max(self.peers[from].up_free);
                self.peers[from].up_free = start + self.piece_time;
                self.peers[from].sent += 1;
                self.push(start + self.piece_time + DELAY, Happens::Arrives { at: node, from, piece });
            }
            Action::GoDirect => {
                self.peers[node].direct = true;
                let missing: Vec<_> = (0..self.geometry.n_pieces())
                    .filter(|it| !self.peers[node].holds.contains(*it))
                    .collect();
                for (at, piece) in missing.into_iter().enumerate() {
                    let at_time = self.now + self.piece_time * (at as u64 + 1);
                    self.push(at_time, Happens::Arrives { at: node, from: node, piece });
                }
            }
            Action::GiveUp => panic!("node {node} gave up"),
            Action::Cancel { .. } | Action::Strand | Action::Finished => {
                if action == Action::Strand {
                    self.tell_table(table::Event::Stranded { node: id(node), key: key() });
                }
            }
        }
    }

    fn unfinished(&self) -> Vec<usize> {
        (1..self.peers.len())
            .filter(|it| self.peers[*it].alive && self.peers[*it].done_at.is_none())
            .collect()
    }

    /// Copies that the gateway sent of each piece, on average, in hundredths.
    fn gateway_copies(&self) -> u64 {
        self.peers[GATEWAY].sent * 100 / u64::from(self.geometry.n_pieces())
    }

    fn last_done(&self) -> u64 {
        self.peers.iter().filter_map(|it| it.done_at).max().unwrap_or(0)
    }

    fn n_direct(&self) -> usize {
        self.peers.iter().filter(|it| it.direct).count()
    }
}

#[test]
fn the_gateway_sends_about_one_copy_and_the_nodes_the_rest() {
    for n in [1, 2, 8, 50] {
        let mut world = World::new(n, 100, 10_000, 200_000);
        world.run();
        assert_eq!(world.unfinished(), [], "{n} nodes");
        assert!(world.gateway_copies() <= 150, "{n} nodes: {} hundredths of a copy", world.gateway_copies());
        assert_eq!(world.n_direct(), 0);
        // The bound: all pieces through one link, and a logarithmic start; joins are spread over 200 ms.
        let bound = (100 + u64::from((n as u64).ilog2())) * 10_000 + 200_000;
        println!(
            "{n} nodes: {} ms, bound {} ms, copies {}",
            world.last_done() / 1000,
            bound / 1000,
            world.gateway_copies()
        );
        assert!(world.last_done() < bound * 2, "{n} nodes: {} over {bound}", world.last_done());
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = || {
        let mut world = World::new(20, 64, 5_000, 100_000);
        world.run();
        (world.n_events, world.last_done())
    };
    assert_eq!(run(), run());
}

#[test]
fn dead_neighbours_cost_time_and_nothing_else() {
    let mut world = World::new(20, 100, 10_000, 0);
    for dead in [3, 7, 11, 15] {
        world.push(400_000, Happens::Dies(dead));
    }
    world.run();
    assert_eq!(world.unfinished(), []);
    assert_eq!(world.n_direct(), 0);
    assert!(world.gateway_copies() <= 200, "{}", world.gateway_copies());
}

#[test]
fn without_a_scheduler_nodes_import_by_rank() {
    let mut world = World::new(8, 60, 10_000, 0);
    world.push(150_000, Happens::SchedulerDies);
    world.run();
    assert_eq!(world.unfinished(), []);
    assert_eq!(world.n_direct(), 0);
    assert!(world.gateway_copies() <= 300, "{}", world.gateway_copies());
}

#[test]
fn without_the_gateway_a_few_nodes_ask_the_registry_and_share() {
    let mut world = World::new(12, 100, 10_000, 0);
    world.push(300_000, Happens::Dies(GATEWAY));
    world.run();
    assert_eq!(world.unfinished(), []);
    // As many as may at once; the others wait for them, because the scheduler lives.
    assert_eq!(world.n_direct(), table::Policy::default().back_to_source_count);
}

#[test]
fn with_everything_dead_each_node_goes_to_the_registry() {
    let mut world = World::new(3, 50, 10_000, 0);
    world.push(100_000, Happens::SchedulerDies);
    world.push(100_001, Happens::Dies(GATEWAY));
    world.push(100_002, Happens::Dies(2));
    world.run();
    assert_eq!(world.unfinished(), []);
    assert!(world.n_direct() >= 1);
}
