//! The scheduler's table: which node holds which pieces of which blob, and what follows from that.
//!
//! Soft state, rebuilt from what nodes announce. For every blob that some node wants, the table keeps
//! a mesh of neighbours ([`mesh`]), grants import leases ([`leases`]) and has exactly one gateway seed
//! what no node holds ([`seeding`]). It never sees bytes or tickets and is never asked per piece: a
//! pull costs a constant number of messages and batched progress.

mod blob;
mod circle;
mod leases;
mod mesh;
mod seeding;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::Duration;

use shoal_model::{BlobKey, NodeId, Place, Rng, Role, Tick};

use crate::{Bitmap, Geometry, PieceIndex};
use blob::{BlobEntry, Brought};

/// How the table decides.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// Neighbours that a node is given for a blob where it fetches it from: in its own rack, else its own zone.
    pub n_near: usize,
    /// Neighbours elsewhere, for when nothing comes from there.
    pub n_far: usize,
    /// A leased piece that has not arrived for this long, though the gateway holds it, goes to a successor.
    pub lease_lives: Duration,
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
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            n_near: 12,
            n_far: 2,
            lease_lives: Duration::from_secs(5),
            back_to_source_count: 3,
            retry_back_to_source_limit: 1,
            retry_limit: 20,
            retry_interval: Duration::from_millis(500),
            refresh_interval: Duration::from_secs(1),
        }
    }
}

/// What a node said, or what became of it.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A node's stream began; what it announced before is void.
    Joined {
        /// Who.
        node: NodeId,
        /// What it is for.
        role: Role,
        /// Where it stands.
        place: Place,
    },
    /// A node's stream ended, or it said that it goes.
    Left(NodeId),
    /// A node wishes to hold a blob.
    Want(Report),
    /// What a node newly holds.
    Progress(Report),
    /// A node no longer wishes a blob.
    Unwant {
        /// Who.
        node: NodeId,
        /// Which blob.
        key: BlobKey,
    },
    /// Nothing comes to this node from neighbours or gateway.
    Stranded {
        /// Who.
        node: NodeId,
        /// Which blob.
        key: BlobKey,
    },
    /// The time that [`Table::next_deadline`] named has come.
    Deadline,
}

/// What a node says that it holds of a blob.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// Who.
    pub node: NodeId,
    /// Which blob.
    pub key: BlobKey,
    /// How it is cut.
    pub geometry: Geometry,
    /// What it held before is gone.
    pub dropped: bool,
    /// The pieces that were not told before.
    pub gained: Vec<Range<PieceIndex>>,
}

/// What the scheduler is to tell a node.
#[derive(Clone, Debug, PartialEq)]
pub struct Order {
    /// Whom.
    pub to: NodeId,
    /// About which blob.
    pub key: BlobKey,
    /// What.
    pub what: What,
}

/// The content of an [`Order`].
#[derive(Clone, Debug, PartialEq)]
pub enum What {
    /// Ask these from now on.
    Neighbours {
        /// For everything.
        near: Vec<NodeId>,
        /// For what does not come from there.
        far: Vec<NodeId>,
    },
    /// Bring these pieces in.
    Lease {
        /// From the gateway that seeds, or from a member that holds them.
        from: NodeId,
        /// Which pieces.
        pieces: Vec<Range<PieceIndex>>,
    },
    /// To a gateway: seed the blob.
    Seed,
    /// Ask the registry yourself.
    GoDirect,
}

#[derive(Debug)]
struct NodeEntry {
    role: Role,
    place: Place,
    blobs: BTreeSet<BlobKey>,
}

/// The scheduler's table.
#[derive(Debug)]
pub struct Table {
    policy: Policy,
    rng: Rng,
    nodes: BTreeMap<NodeId, NodeEntry>,
    blobs: BTreeMap<BlobKey, BlobEntry>,
    /// The blobs that some node wants: all that there is to do for.
    wanted: BTreeSet<BlobKey>,
    refreshed_at: Tick,
}

impl Table {
    /// An empty table.
    pub const fn new(policy: Policy, rng: Rng) -> Self {
        Self {
            policy,
            rng,
            nodes: BTreeMap::new(),
            blobs: BTreeMap::new(),
            wanted: BTreeSet::new(),
            refreshed_at: Tick(0),
        }
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
        self.blobs.contains_key(key)
    }

    /// Takes in what was said and appends what to tell.
    pub fn on_event(&mut self, now: Tick, event: Event, out: &mut Vec<Order>) {
        match event {
            Event::Joined { node, role, place } => {
                self.forget_node(now, &node, out);
                self.nodes.insert(node, NodeEntry { role, place, blobs: BTreeSet::new() });
                if role == Role::Gateway {
                    self.seed_waiting(now, out);
                }
            }
            Event::Left(node) => self.forget_node(now, &node, out),
            Event::Want(report) => self.on_want(now, report, out),
            Event::Progress(report) => self.on_progress(now, report, out),
            Event::Unwant { node, key } => {
                self.wants_no_more(now, &key, &node, out);
                self.drop_if_idle(&key, &node);
            }
            Event::Stranded { node, key } => self.on_stranded(now, &node, &key, out),
            Event::Deadline => self.on_deadline(now, out),
        }
    }

    /// Wake the table no later than this, with [`Event::Deadline`].
    pub fn next_deadline(&self, now: Tick) -> Option<Tick> {
        let due = self.refreshed_at.after(self.policy.refresh_interval).max(Tick(now.0 + 1));
        (!self.wanted.is_empty()).then_some(due)
    }

    fn on_want(&mut self, now: Tick, report: Report, out: &mut Vec<Order>) {
        // A gateway has what it seeds from its registry.
        if self.nodes.get(&report.node).is_none_or(|it| it.role == Role::Gateway) {
            return;
        }
        self.make_way(&report);
        let (node, key) = (report.node.clone(), report.key.clone());
        let Some(brought) = self.take_report(now, &report) else { return };
        let Some(blob) = self.blobs.get_mut(&key) else { return };
        if blob.member(&node).is_none_or(|it| it.held.is_full()) {
            return self.wants_no_more(now, &key, &node, out);
        }
        if blob.wanting.insert(node.clone()) {
            // A wish, not the renewal of one.
            blob.dirty.insert(node.clone());
        }
        self.wanted.insert(key.clone());
        self.find_neighbours(&key, &node);
        self.seed(now, &key, out);
        self.grant_leases(now, &key, &node, out);
        self.pass_on(now, &key, (&node, &brought), out);
        self.tell_neighbours(&key, out);
    }

    fn on_progress(&mut self, now: Tick, report: Report, out: &mut Vec<Order>) {
        let (node, key) = (report.node.clone(), report.key.clone());
        let Some(brought) = self.take_report(now, &report) else { return };
        let Some(member) = self.blobs.get_mut(&key).and_then(|it| it.member_mut(&node)) else { return };
        member.n_stranded = 0;
        if member.held.is_full() {
            self.wants_no_more(now, &key, &node, out);
        }
        if report.dropped {
            self.seed(now, &key, out);
            self.grant_all(now, &key, out);
        } else {
            self.grant_leases(now, &key, &node, out);
        }
        if !brought.is_empty() {
            self.pass_on(now, &key, (&node, &brought), out);
        }
        self.drop_if_idle(&key, &node);
    }

    /// A wish for a blob that is known under another cut, which nobody else wishes for, counts anew.
    fn make_way(&mut self, report: &Report) {
        let Some(blob) = self.blobs.get(&report.key) else { return };
        if blob.geometry != report.geometry && blob.wanting.iter().all(|it| *it == report.node) {
            self.blobs.insert(report.key.clone(), BlobEntry::new(report.geometry));
        }
    }

    /// Makes the node a member of the blob, takes in what it holds and returns what it can supply others with.
    /// `None` for a node that never joined, or where it cuts the blob otherwise than those before it.
    fn take_report(&mut self, now: Tick, report: &Report) -> Option<Vec<Brought>> {
        let Report { node, key, geometry, dropped, gained } = report;
        let entry = self.nodes.get_mut(node)?;
        let blob = self.blobs.entry(key.clone()).or_insert_with(|| BlobEntry::new(*geometry));
        if blob.geometry != *geometry {
            return None;
        }
        entry.blobs.insert(key.clone());
        match entry.role {
            Role::Sidecar => {
                blob.join(node, &entry.place, true);
                if *dropped {
                    blob.dropped(node);
                }
                Some(blob.gained(node, gained))
            }
            Role::Gateway => {
                let member = blob.join(node, &entry.place, false);
                if *dropped {
                    member.held = Bitmap::new(geometry.n_pieces());
                }
                gained.iter().for_each(|it| member.held.insert_range(it.clone()));
                if blob.seeder.as_ref() == Some(node) {
                    blob.seed_moved_at = now;
                }
                Some(Vec::new())
            }
        }
    }

    /// The node's wish has ended. The last one's end lets the seeder rest: whoever wants the blob next has
    /// it seeded afresh, where need be.
    fn wants_no_more(&mut self, now: Tick, key: &BlobKey, node: &NodeId, out: &mut Vec<Order>) {
        let Some(blob) = self.blobs.get_mut(key) else { return };
        blob.direct.remove(node);
        if !blob.wanting.remove(node) {
            return;
        }
        let had_leases = blob.release(node);
        if blob.wanting.is_empty() {
            blob.seeded_by(now, None);
            self.wanted.remove(key);
        } else if had_leases {
            self.grant_all(now, key, out);
        }
    }

    fn forget_node(&mut self, now: Tick, node: &NodeId, out: &mut Vec<Order>) {
        let Some(entry) = self.nodes.remove(node) else { return };
        // A gateway may have been told to seed a blob of which it holds nothing yet.
        let seeded = self.wanted.iter().filter(|it| self.blobs[*it].seeder.as_ref() == Some(node));
        let keys: BTreeSet<_> = seeded.cloned().chain(entry.blobs).collect();
        for key in keys {
            // First of all, so that nobody is told to fetch anything there.
            if let Some(blob) = self.blobs.get_mut(&key).filter(|_| entry.role == Role::Sidecar) {
                blob.dropped(node);
            }
            self.wants_no_more(now, &key, node, out);
            let Some(blob) = self.blobs.get_mut(&key) else { continue };
            if blob.seeder.as_ref() == Some(node) {
                blob.seeded_by(now, None);
            }
            blob.part(node);
            if blob.n_members() == 0 {
                self.blobs.remove(&key);
                continue;
            }
            self.seed(now, &key, out);
            self.grant_all(now, &key, out);
            self.tell_neighbours(&key, out);
        }
    }

    /// A member that neither holds nor wants anything is none.
    fn drop_if_idle(&mut self, key: &BlobKey, node: &NodeId) {
        let Some(blob) = self.blobs.get_mut(key).filter(|it| !it.wanting.contains(node)) else { return };
        if !blob.member(node).is_some_and(|it| it.held.is_empty()) {
            return;
        }
        blob.part(node);
        if blob.n_members() == 0 {
            self.blobs.remove(key);
        }
        if let Some(entry) = self.nodes.get_mut(node) {
            entry.blobs.remove(key);
        }
    }

    fn on_stranded(&mut self, now: Tick, node: &NodeId, key: &BlobKey, out: &mut Vec<Order>) {
        let policy = self.policy;
        let Some(blob) = self.blobs.get_mut(key).filter(|it| it.wanting.contains(node)) else { return };
        let n_direct = blob.direct.len();
        let Some(member) = blob.member_mut(node) else { return };
        if member.stranded_at.is_some_and(|it| now.since(it) < policy.retry_interval) {
            return;
        }
        member.stranded_at = Some(now);
        member.n_stranded += 1;
        let is_patient = member.n_stranded > policy.retry_back_to_source_limit;
        let is_desperate = member.n_stranded > policy.retry_limit;
        if (is_patient && n_direct < policy.back_to_source_count) || is_desperate {
            blob.direct.insert(node.clone());
            out.push(Order { to: node.clone(), key: key.clone(), what: What::GoDirect });
            return;
        }
        // Told in any case: the answer says that the scheduler lives.
        blob.dirty.insert(node.clone());
        self.find_neighbours(key, node);
        self.tell_neighbours(key, out);
    }

    fn on_deadline(&mut self, now: Tick, out: &mut Vec<Order>) {
        if self.refreshed_at.after(self.policy.refresh_interval) > now {
            return;
        }
        self.refreshed_at = now;
        self.seed_waiting(now, out);
        for key in self.wanted.clone() {
            self.seed_again(now, &key, out);
            let Some(blob) = self.blobs.get_mut(&key) else { continue };
            let lapsed = blob.lapse_leases(now);
            for node in blob.wanting.clone() {
                self.find_neighbours(&key, &node);
            }
            if lapsed {
                self.grant_all(now, &key, out);
            }
            self.tell_neighbours(&key, out);
        }
    }
}
