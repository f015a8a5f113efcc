//! The scheduler's table: which node holds which pieces of which blob, and what follows from that.
//!
//! Soft state, rebuilt from what nodes announce. For every blob that some node wants, the table keeps
//! a mesh of neighbours ([`mesh`]), grants import leases ([`leases`]) and has exactly one gateway seed
//! what no node holds ([`seeding`]). It never sees bytes or tickets and is never asked per piece: a
//! pull costs a constant number of messages and batched progress.
//!
//! Outside, nodes, blobs and places have their names ([`message`]); inside, numbers ([`numbers`]).
//!
//! What a node says that it holds is believed, and kept up to a limit: a node can say what it likes. For a blob that it
//! wants it has shown a ticket, so a wish is heard in any case.

mod blob;
mod circle;
mod close_up;
mod leases;
mod listing;
mod mesh;
mod message;
mod numbers;
mod place;
mod seeding;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::time::Duration;

use shoal_model::{BlobKey, NodeId, Place, Rng, Role, Tick};

use crate::{Algorithm, Bitmap, Geometry, geometry};
use blob::{BlobEntry, Brought};
use circle::Level;
use numbers::{Number, Numbers, Register};
use place::{Around, Places, REGION};

pub use close_up::{CloseUp, Member};
pub use listing::{Found, Sought, Stage, Standing};
pub use message::{Event, Order, Report, What};

/// How the table decides.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// How nodes compare the neighbours that they are given.
    pub algorithm: Algorithm,
    /// Neighbours that a node is given for a blob where it fetches it from: in its own rack, else its own zone.
    pub n_near: usize,
    /// Neighbours elsewhere, for when nothing comes from there.
    pub n_far: usize,
    /// A leased piece that has not arrived for this long, though the gateway holds it, goes to a successor.
    pub lease_lives: Duration,
    /// The same, where others bring theirs in much faster; longer where that is not much faster.
    pub lease_lives_least: Duration,
    /// Nodes of one blob that may ask the registry at the same time.
    pub back_to_source_count: usize,
    /// So often a stranded node is given fresh neighbours before it may ask the registry.
    pub retry_back_to_source_limit: u32,
    /// After this many calls a stranded node may ask the registry whatever the count: a pull must not fail.
    pub retry_limit: u32,
    /// A stranded node's calls are answered no more often than this.
    pub retry_interval: Duration,
    /// Neighbour lists that lack members are filled up this often.
    pub refresh_interval: Duration,
    /// For so long a blob that has just come to this scheduler is not seeded, where the gateway would have to read it:
    /// some node may hold it.
    pub settle: Duration,
    /// Blobs whose seeding is ordered in one go when a gateway comes; the others follow at the next refresh.
    pub seeds_at_once: usize,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            algorithm: Algorithm::default(),
            n_near: 12,
            n_far: 2,
            lease_lives: Duration::from_secs(5),
            lease_lives_least: Duration::from_secs(1),
            back_to_source_count: 3,
            retry_back_to_source_limit: 1,
            retry_limit: 20,
            retry_interval: Duration::from_millis(500),
            refresh_interval: Duration::from_secs(1),
            settle: Duration::from_secs(1),
            seeds_at_once: 128,
        }
    }
}

type NodeNumber = Number<NodeId>;
type BlobNumber = Number<BlobKey>;

/// A blob weighs as much as so many pieces, besides its own: of a piece that nobody else speaks of, a few bytes are kept.
const PIECES_OF_BLOB: u64 = 256;
/// No more is heard of what a sidecar holds once its blobs weigh so much: two of the largest, or some 6,000 layers of 20 MiB.
const MOST_PIECES: u64 = 2 * (geometry::MAX_PIECES + PIECES_OF_BLOB);

#[derive(Debug)]
struct NodeEntry {
    role: Role,
    around: Around,
    /// The blobs that it is a member of.
    blobs: Numbers<BlobKey>,
    /// What they weigh.
    n_pieces: u64,
}

impl NodeEntry {
    fn enter(&mut self, blob: BlobNumber, geometry: Geometry) {
        if self.blobs.insert(blob) {
            self.n_pieces += weight(geometry);
        }
    }

    fn leave(&mut self, blob: BlobNumber, geometry: Geometry) {
        if self.blobs.remove(blob) {
            self.n_pieces -= weight(geometry);
        }
    }

    /// Whether it may become a member of one more blob by its word alone. A gateway's is good.
    fn has_room(&self, geometry: Geometry) -> bool {
        self.role == Role::Gateway || self.n_pieces + weight(geometry) <= MOST_PIECES
    }
}

const fn weight(geometry: Geometry) -> u64 {
    geometry.n_pieces() as u64 + PIECES_OF_BLOB
}

/// The scheduler's table.
#[derive(Debug)]
pub struct Table {
    policy: Policy,
    rng: Rng,
    places: Places,
    nodes: Register<NodeId, NodeEntry>,
    blobs: Register<BlobKey, BlobEntry>,
    /// The blobs that some node wants: all that there is to do for.
    wanted: BTreeSet<BlobNumber>,
    refreshed_at: Tick,
    /// What a lease took to bring its piece into the region, on average of the blob that was last in motion.
    import_time: Option<Duration>,
    /// When the first of the blobs has settled that have yet to.
    settled_at: Option<Tick>,
    /// What sidecars received of what they wanted.
    n_bytes_arrived: u64,
}

impl Table {
    /// An empty table.
    pub fn new(policy: Policy, rng: Rng) -> Self {
        Self {
            policy,
            rng,
            places: Places::new(),
            nodes: Register::new(),
            blobs: Register::new(),
            wanted: BTreeSet::new(),
            refreshed_at: Tick(0),
            import_time: None,
            settled_at: None,
            n_bytes_arrived: 0,
        }
    }

    /// What sidecars have received of blobs that they wanted, since the table began; in bytes. What they held already when
    /// they said so is not among it.
    pub const fn n_bytes_arrived(&self) -> u64 {
        self.n_bytes_arrived
    }

    /// Connected nodes.
    pub fn n_nodes(&self) -> usize {
        self.nodes.len()
    }

    /// Blobs that some node holds or wants.
    pub fn n_blobs(&self) -> usize {
        self.blobs.len()
    }

    /// Whether some node holds or wants the blob.
    pub fn knows(&self, key: &BlobKey) -> bool {
        self.blobs.number(key).is_some()
    }

    /// Takes in what was said and appends what to tell.
    pub fn on_event(&mut self, now: Tick, event: Event, out: &mut Vec<Order>) {
        match event {
            Event::Joined { node, role, place } => self.on_joined(now, (&node, role, &place), out),
            Event::Left(node) => self.on_left(now, &node, out),
            Event::Want { report, moved } => self.on_want(now, &report, moved, out),
            Event::Progress(report) => self.on_progress(now, &report, out),
            Event::Unwant { node, key } => {
                if let Some((node, blob)) = self.known(&node, &key) {
                    self.wants_no_more(now, blob, node, out);
                    self.drop_if_idle(blob, node);
                }
            }
            Event::Stranded { node, key } => {
                if let Some((node, blob)) = self.known(&node, &key) {
                    self.on_stranded(now, blob, node, out);
                }
            }
            Event::Deadline => self.on_deadline(now, out),
        }
    }

    /// Wake the table no later than this, with [`Event::Deadline`].
    pub fn next_deadline(&self, now: Tick) -> Option<Tick> {
        let due = self.refreshed_at.after(self.policy.refresh_interval);
        let due = self.settled_at.map_or(due, |it| it.min(due)).max(Tick(now.0 + 1));
        (!self.wanted.is_empty()).then_some(due)
    }

    fn known(&self, node: &NodeId, key: &BlobKey) -> Option<(NodeNumber, BlobNumber)> {
        Some((self.nodes.number(node)?, self.blobs.number(key)?))
    }

    fn order(&self, blob: BlobNumber, to: NodeNumber, what: What) -> Order {
        Order { to: self.nodes.name(to).clone(), key: self.blobs.name(blob).clone(), what }
    }

    fn on_joined(&mut self, now: Tick, (node, role, place): (&NodeId, Role, &Place), out: &mut Vec<Order>) {
        self.on_left(now, node, out);
        let around = self.places.enter(place);
        self.nodes.enter(node, || NodeEntry { role, around, blobs: Numbers::new(), n_pieces: 0 });
        if role == Role::Gateway {
            self.seed_waiting(now, out);
        }
    }

    fn on_want(&mut self, now: Tick, report: &Report, moved: bool, out: &mut Vec<Order>) {
        let Some(node) = self.nodes.number(&report.node) else { return };
        // A gateway has what it seeds from its registry.
        if self.nodes[node].role == Role::Gateway {
            return;
        }
        self.make_way(node, report);
        let Some((blob, brought)) = self.take_report(now, node, report) else { return };
        let entry = &mut self.blobs[blob];
        if entry.held(node).is_none_or(Bitmap::is_full) {
            self.wants_no_more(now, blob, node, out);
            return self.pass_on(now, blob, (node, &brought), out);
        }
        entry.wanted_by(node);
        // A renewal is answered as well: the node may have lost something since, and have begun anew.
        entry.urgent.insert(node);
        self.wanted.insert(blob);
        if moved {
            self.let_settle(now, blob);
        }
        self.find_neighbours(blob, node);
        self.seed(now, blob, out);
        self.grant_leases(now, blob, node, out);
        self.pass_on(now, blob, (node, &brought), out);
        self.tell_neighbours(blob, out);
    }

    fn on_progress(&mut self, now: Tick, report: &Report, out: &mut Vec<Order>) {
        let Some(node) = self.nodes.number(&report.node).filter(|it| self.is_heard(*it, report)) else {
            return;
        };
        if let Some(blob) = self.blobs.number(&report.key).filter(|it| self.blobs[*it].seeder == Some(node)) {
            self.grant_waiting(now, blob, out);
        }
        let Some((blob, brought)) = self.take_report(now, node, report) else { return };
        if self.nodes[node].role == Role::Gateway && self.blobs[blob].is_settling(now) {
            self.seed(now, blob, out);
        }
        let entry = &mut self.blobs[blob];
        if let Some(wish) = entry.wish_mut(node) {
            wish.n_stranded = 0;
        }
        if entry.held(node).is_some_and(Bitmap::is_full) {
            self.wants_no_more(now, blob, node, out);
        }
        if report.dropped {
            self.seed(now, blob, out);
            self.grant_all(now, blob, out);
        } else {
            self.grant_leases(now, blob, node, out);
        }
        if !brought.is_empty() {
            self.pass_on(now, blob, (node, &brought), out);
        }
        self.drop_if_idle(blob, node);
    }

    /// Whether it is kept what a node says that it holds: of a blob that it is a member of, or may become one of.
    fn is_heard(&self, node: NodeNumber, report: &Report) -> bool {
        let is_member = |it: BlobNumber| self.blobs[it].held(node).is_some();
        self.blobs.number(&report.key).is_some_and(is_member) || self.nodes[node].has_room(report.geometry)
    }

    /// A wish for a blob that is known under another cut, which nobody else wishes for, counts anew.
    fn make_way(&mut self, node: NodeNumber, report: &Report) {
        let Some(blob) = self.blobs.number(&report.key) else { return };
        let entry = &self.blobs[blob];
        if entry.geometry != report.geometry && entry.wanting().all(|it| it == node) {
            self.forget_blob(blob);
        }
    }

    /// Makes the node a member of the blob, takes in what it holds and returns what it can supply others with.
    /// `None` where it cuts the blob otherwise than those before it.
    fn take_report(
        &mut self,
        now: Tick,
        node: NodeNumber,
        report: &Report,
    ) -> Option<(BlobNumber, Vec<Brought>)> {
        let blob = self.blobs.enter(&report.key, || BlobEntry::new(report.geometry));
        let entry = &mut self.blobs[blob];
        if entry.geometry != report.geometry {
            return None;
        }
        // With its first wish a node says what it holds already, and its wish counts from then on.
        let had = entry.wanted_bytes(node);
        let NodeEntry { role, around, .. } = self.nodes[node];
        let stands = (role == Role::Sidecar).then_some(around);
        if entry.join(node, stands) {
            self.nodes[node].enter(blob, report.geometry);
        }
        if report.dropped {
            entry.dropped(node, stands);
        }
        let brought = match role {
            Role::Sidecar => {
                let brought = entry.gained(now, node, around, &report.gained);
                self.import_time = entry.level(REGION).and_then(Level::import_time).or(self.import_time);
                brought
            }
            Role::Gateway => {
                entry.seeded(now, node, &report.gained);
                Vec::new()
            }
        };
        let has = self.blobs[blob].wanted_bytes(node);
        self.n_bytes_arrived += has.zip(had).map_or(0, |(has, had)| has.saturating_sub(had));
        Some((blob, brought))
    }

    /// The node's wish has ended. The last one's end lets the seeder rest: whoever wants the blob next has
    /// it seeded afresh, where need be.
    fn wants_no_more(&mut self, now: Tick, blob: BlobNumber, node: NodeNumber, out: &mut Vec<Order>) {
        let entry = &mut self.blobs[blob];
        if !entry.wants(node) {
            return;
        }
        let had_leases = entry.unwanted_by(node, self.nodes[node].around);
        if entry.wanting().len() == 0 {
            entry.rest(now);
            self.wanted.remove(&blob);
        } else if had_leases {
            self.grant_all(now, blob, out);
        }
    }

    fn on_left(&mut self, now: Tick, node: &NodeId, out: &mut Vec<Order>) {
        let Some(node) = self.nodes.number(node) else { return };
        let NodeEntry { role, around, .. } = self.nodes[node];
        let stands = (role == Role::Sidecar).then_some(around);
        // A gateway may have been told to seed a blob of which it holds nothing yet.
        let seeded = self.wanted.iter().copied().filter(|it| self.blobs[*it].seeder == Some(node));
        let blobs: BTreeSet<_> = seeded.chain(self.nodes[node].blobs.iter()).collect();
        let mut left = Vec::new();
        for blob in blobs {
            // First of all, so that nobody is told to fetch anything there.
            self.blobs[blob].dropped(node, stands);
            self.wants_no_more(now, blob, node, out);
            let entry = &mut self.blobs[blob];
            if entry.seeder == Some(node) {
                entry.seeded_by(now, None);
            }
            if self.part(blob, node) {
                left.push(blob);
            }
        }
        self.nodes.remove(node);
        self.places.leave(around);
        for blob in left {
            self.seed(now, blob, out);
            self.grant_all(now, blob, out);
            self.tell_neighbours(blob, out);
        }
    }

    /// The node is no member of the blob any more; true where others are.
    fn part(&mut self, blob: BlobNumber, node: NodeNumber) -> bool {
        let geometry = self.blobs[blob].geometry;
        self.nodes[node].leave(blob, geometry);
        self.blobs[blob].part(node, self.nodes[node].around);
        let has_others = self.blobs[blob].has_members();
        if !has_others {
            self.forget_blob(blob);
        }
        has_others
    }

    fn forget_blob(&mut self, blob: BlobNumber) {
        self.wanted.remove(&blob);
        let entry = self.blobs.remove(blob);
        for node in entry.members() {
            self.nodes[node].leave(blob, entry.geometry);
        }
    }

    /// A member that neither holds nor wants anything is none.
    fn drop_if_idle(&mut self, blob: BlobNumber, node: NodeNumber) {
        let entry = &self.blobs[blob];
        if !entry.wants(node) && entry.held(node).is_some_and(Bitmap::is_empty) {
            self.part(blob, node);
        }
    }

    fn on_stranded(&mut self, now: Tick, blob: BlobNumber, node: NodeNumber, out: &mut Vec<Order>) {
        let policy = self.policy;
        let entry = &mut self.blobs[blob];
        let n_direct = entry.direct.len();
        let Some(wish) = entry.wish_mut(node) else { return };
        if wish.stranded_at.is_some_and(|it| now.since(it) < policy.retry_interval) {
            return;
        }
        wish.stranded_at = Some(now);
        wish.n_stranded += 1;
        let is_patient = wish.n_stranded > policy.retry_back_to_source_limit;
        let is_desperate = wish.n_stranded > policy.retry_limit;
        if (is_patient && n_direct < policy.back_to_source_count) || is_desperate {
            entry.direct.insert(node);
            out.push(self.order(blob, node, What::GoDirect));
            return;
        }
        // Told in any case: the answer says that the scheduler lives.
        entry.urgent.insert(node);
        self.find_neighbours(blob, node);
        self.tell_neighbours(blob, out);
    }

    fn on_deadline(&mut self, now: Tick, out: &mut Vec<Order>) {
        self.seed_settled(now, out);
        if self.refreshed_at.after(self.policy.refresh_interval) > now {
            return;
        }
        self.refreshed_at = now;
        self.seed_waiting(now, out);
        for blob in self.wanted.clone() {
            self.seed_again(now, blob, out);
            let entry = &mut self.blobs[blob];
            let lives = |it: &Level| self.policy.lease_lives(it.import_time().or(self.import_time));
            let lapsed = entry.lapse_leases(now, lives);
            let wanting: Vec<_> = entry.wanting().collect();
            wanting.into_iter().for_each(|it| self.find_neighbours(blob, it));
            if lapsed {
                // What has been waited for goes first, and to whoever is least busy.
                self.grant_waiting(now, blob, out);
                self.grant_all(now, blob, out);
            } else {
                // Nobody may have been found to have a piece that is rare.
                self.import_all(now, blob, out);
            }
            let entry = &mut self.blobs[blob];
            entry.urgent.append(&mut entry.dirty);
            self.tell_neighbours(blob, out);
        }
    }
}

#[cfg(debug_assertions)]
impl Table {
    /// Panics where something does not hold that has to hold after every event. Looks at everything, so it is for
    /// tests, and only there where assertions are.
    #[track_caller]
    pub fn check(&self) {
        for (name, entry) in self.nodes.iter() {
            let node = self.nodes.number(name);
            for (key, blob) in self.blobs.iter() {
                let is_listed = self.blobs.number(key).is_some_and(|it| entry.blobs.as_slice().contains(&it));
                assert_eq!(is_listed, blob.members().any(|it| Some(it) == node), "{name} and {key}");
            }
        }
        for (key, blob) in self.blobs.iter() {
            blob.check();
            let is_wanted = self.blobs.number(key).is_some_and(|it| self.wanted.contains(&it));
            assert_eq!(is_wanted, blob.wanting().len() > 0, "{key}");
        }
    }
}
