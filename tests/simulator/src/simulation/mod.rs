//! One run: the machines of all nodes and schedulers, and what passes between them.
//!
//! The decisions are those of `swarm::fetch` and `swarm::table`. What stands here is what the services do
//! around them, as the services do it: a node reports and tells its watchers in batches, a server refuses
//! for want of a slot, a dead machine says nothing. Constants that belong to a service name it.

mod finished;
mod gateway;
mod node;
mod outage;
mod report;
mod scheduler;
mod transfer;
mod watch;

use std::collections::VecDeque;

use shoal_model::{BlobKey, Digest, NodeId, Rng, Tick, TrustGroup};
use shoal_swarm::fetch::{Fault as AskFault, Fetch};
use shoal_swarm::table::Order;
use shoal_swarm::{Bitmap, PieceIndex};

use crate::journal::{Entry, Journal};
use crate::network::{Hop, Network, TransferId};
use crate::queue::Queue;
use crate::world::{Fault, World};
pub use finished::Finished;
use gateway::Seed;
use report::Reporter;
use scheduler::{Heard, Scheduler};
use watch::{Watch, WatchId};

/// One node's part in one blob: its number is node * blobs + blob.
pub(crate) type ShareId = u32;

/// A run that takes longer is at fault itself.
const LONGEST: u64 = 600_000_000;

/// Something that happens.
pub(crate) enum Happens {
    Joins(u32),
    Opened(ShareId),
    Wakes(ShareId),
    AskArrives(TransferId),
    AskFails { id: TransferId, fault: AskFault },
    CancelArrives(TransferId),
    Sent(u32),
    Passes { id: TransferId, hop: Hop, end: u64 },
    Arrives(TransferId),
    WatchArrives(WatchId),
    WatchEnds { id: WatchId, is_well: bool },
    News(WatchId),
    Gathered { node: u32, cycle: u32 },
    Heard(Box<Heard>),
    Ordered(Box<Order>),
    TableWakes(usize),
    SeedRead(ShareId),
    SeedSigns { share: ShareId, batch: u32 },
    DirectRead { share: ShareId, piece: PieceIndex },
    Breaks(Fault),
    NodeMissed(u32),
    SchedulerLost(ShareId),
}

/// A machine.
struct Node {
    id: NodeId,
    is_alive: bool,
    reporter: Reporter,
    died_at: Option<u64>,
    /// Messages to and from its scheduler keep their order: none arrives before these.
    said_until: u64,
    told_until: u64,
}

/// A node's part in a blob: its store of it, and its fetch of it.
struct Share {
    fetch: Option<Fetch>,
    /// For when the fetch has planned to be woken.
    wakes_at: Option<u64>,
    held: Bitmap,
    /// The pieces held, in the order in which they came, and when.
    log: Vec<(PieceIndex, u64)>,
    /// How many of them the scheduler was told.
    n_reported: usize,
    /// Read from the registry, and not to be shared before all is there.
    provisional: Option<Bitmap>,
    asks: Vec<TransferId>,
    watching: Vec<WatchId>,
    watchers: Vec<WatchId>,
    /// Heard that bytes move, last.
    moved_at: u64,
    joined_at: Option<u64>,
    done_at: Option<u64>,
    has_given_up: bool,
    seed: Option<Seed>,
}

/// Bytes and messages counted on the way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Bytes that registries sent.
    pub registry: u64,
    /// Messages that schedulers heard and sent.
    pub scheduler_messages: u64,
    /// Asks refused for want of an upload slot.
    pub refused: u64,
    /// Pieces that came twice.
    pub wasted: u64,
    /// Bytes that entered each zone and each rack from outside.
    pub into_zone: Vec<u64>,
    pub into_rack: Vec<u64>,
}

/// A world at work.
pub struct Simulation {
    world: World,
    seed: u64,
    queue: Queue<Happens>,
    network: Network,
    rng: Rng,
    keys: Vec<BlobKey>,
    nodes: Vec<Node>,
    shares: Vec<Share>,
    watches: Vec<Watch>,
    schedulers: Vec<Option<Scheduler>>,
    /// The last nodes that opened each blob in each region, as the gateway tells them.
    holders: Vec<VecDeque<NodeId>>,
    counts: Counts,
    /// Until when each gateway's seeds use what comes in.
    seeds_until: Vec<u64>,
    n_unfinished: usize,
    journal: Option<Journal>,
}

impl Share {
    fn new(n_pieces: u32) -> Self {
        Self {
            fetch: None,
            wakes_at: None,
            held: Bitmap::new(n_pieces),
            log: Vec::new(),
            n_reported: 0,
            provisional: None,
            asks: Vec::new(),
            watching: Vec::new(),
            watchers: Vec::new(),
            moved_at: 0,
            joined_at: None,
            done_at: None,
            has_given_up: false,
            seed: None,
        }
    }
}

impl Simulation {
    /// A world at its beginning; the same seed gives the same run.
    pub fn new(world: World, seed: u64) -> Self {
        Self::noting(world, seed, None)
    }

    fn noting(world: World, seed: u64, journal: Option<Journal>) -> Self {
        let mut rng = Rng::new(seed);
        let n_regions = world.sites.iter().map(|it| it.region + 1).max().unwrap_or(0);
        let n_zones = world.sites.iter().map(|it| it.zone + 1).max().unwrap_or(0);
        let key = |at: usize| {
            let mut sum = [0; 32];
            sum[..8].copy_from_slice(&(at as u64).to_be_bytes());
            BlobKey { group: TrustGroup::new("registry"), digest: Digest::from_sha256(sum) }
        };
        let mut it = Self {
            network: Network::new(&world, Rng::new(rng.next_u64())),
            keys: (0..world.blobs.len()).map(key).collect(),
            nodes: (0..world.sites.len()).map(Node::new).collect(),
            shares: world
                .sites
                .iter()
                .flat_map(|_| &world.blobs)
                .map(|it| Share::new(it.n_pieces()))
                .collect(),
            watches: Vec::new(),
            schedulers: Vec::new(),
            holders: vec![VecDeque::new(); n_regions * world.blobs.len()],
            counts: Counts {
                into_zone: vec![0; n_zones],
                into_rack: vec![0; world.racks.len()],
                ..Counts::default()
            },
            seeds_until: vec![0; world.sites.len()],
            n_unfinished: world.joins.len() * world.blobs.len(),
            queue: Queue::new(),
            journal,
            rng,
            seed,
            world,
        };
        it.network.asked = it.journal.as_ref().map(|_| Vec::new());
        (0..n_regions).for_each(|region| it.open_scheduler(region));
        it.begin();
        it
    }

    /// The same, and writes down what the machines hear and the network carries, for a test to compare.
    pub fn with_journal(world: World, seed: u64) -> Self {
        Self::noting(world, seed, Some(Journal::default()))
    }

    /// Runs to the end, or for as long as `goes_on` says, which is asked now and then with the simulated
    /// time in microseconds and the number of blobs that are still being pulled.
    pub fn run(mut self, mut goes_on: impl FnMut(u64, usize) -> bool) -> Finished {
        let mut n_steps = 0_u64;
        while self.n_unfinished > 0 && self.queue.now() < LONGEST {
            n_steps += 1;
            if n_steps.is_multiple_of(1 << 18) && !goes_on(self.queue.now(), self.n_unfinished) {
                break;
            }
            let Some(what) = self.queue.next() else { break };
            self.happen(what);
        }
        Finished::of(self)
    }

    fn begin(&mut self) {
        for node in 0..self.nodes.len() as u32 {
            self.connect(node);
        }
        for (at, node) in &self.world.joins {
            self.queue.plan(*at, Happens::Joins(*node as u32));
        }
        for (at, fault) in &self.world.faults {
            self.queue.plan(*at, Happens::Breaks(*fault));
        }
    }

    fn happen(&mut self, what: Happens) {
        match what {
            Happens::Joins(node) => self.joins(node),
            Happens::Opened(share) => self.opened(share),
            Happens::Wakes(share) => self.wakes(share),
            Happens::AskArrives(id) => self.ask_arrives(id),
            Happens::AskFails { id, fault } => self.ask_fails(id, fault),
            Happens::CancelArrives(id) => self.cancel_arrives(id),
            Happens::Sent(node) => self.network.sent(&mut self.queue, node),
            Happens::Passes { id, hop, end } => self.network.passes(&mut self.queue, id, hop, end),
            Happens::Arrives(id) => self.quantum_arrives(id),
            Happens::WatchArrives(id) => self.watch_arrives(id),
            Happens::WatchEnds { id, is_well } => self.watch_ends(id, is_well),
            Happens::News(id) => self.news(id),
            Happens::Gathered { node, cycle } => self.gathered(node, cycle),
            Happens::Heard(heard) => self.heard(*heard),
            Happens::Ordered(order) => self.ordered(*order),
            Happens::TableWakes(region) => self.table_wakes(region),
            Happens::SeedRead(share) => self.seed_read(share),
            Happens::SeedSigns { share, batch } => self.seed_signs(share, batch),
            Happens::DirectRead { share, piece } => self.direct_read(share, piece),
            Happens::Breaks(fault) => self.breaks(fault),
            Happens::NodeMissed(node) => self.node_missed(node),
            Happens::SchedulerLost(share) => self.scheduler_lost(share),
        }
    }

    fn open_scheduler(&mut self, region: usize) {
        let rng = Rng::new(self.rng.next_u64());
        self.note(Entry::TableBegins { region, rng: rng.clone() });
        self.schedulers.push(Some(Scheduler::new(self.world.algorithm, rng)));
    }

    fn note(&mut self, entry: Entry) {
        self.journal.iter_mut().for_each(|it| it.entries.push(entry.clone()));
    }

    // === Numbers ===

    fn share_of(&self, node: u32, blob: usize) -> ShareId {
        node * self.world.blobs.len() as u32 + blob as u32
    }

    fn node_of(&self, share: ShareId) -> u32 {
        share / self.world.blobs.len() as u32
    }

    fn blob_of(&self, share: ShareId) -> usize {
        share as usize % self.world.blobs.len()
    }

    fn share(&mut self, id: ShareId) -> &mut Share {
        &mut self.shares[id as usize]
    }

    fn is_alive(&self, node: u32) -> bool {
        self.nodes[node as usize].is_alive
    }

    const fn now(&self) -> Tick {
        Tick(self.queue.now())
    }
}

impl Node {
    fn new(number: usize) -> Self {
        Self {
            id: NodeId::new(&format!("{number:06}")),
            is_alive: true,
            died_at: None,
            reporter: Reporter::default(),
            said_until: 0,
            told_until: 0,
        }
    }
}

/// The number of the node that is called so.
fn number(id: &NodeId) -> u32 {
    id.as_str().parse().expect("every node here is named by its number")
}
