//! The mesh: who is whose neighbour for a blob.
//!
//! The neighbours that a node fetches from stand in its *home*, the narrowest circle around it that is an import
//! level: its rack, where that has members enough, else its zone, else the region. What the home lacks comes in by
//! lease. A few neighbours stand elsewhere: nobody fetches from them while all is well, but they are there when the
//! scheduler is not, or when nothing comes. Edges go both ways, because early members of a blob must also learn
//! of later ones. A mesh of have-bitmaps cannot deadlock, so there is no cycle check, and a choice costs the few
//! members that are drawn for it.

use std::collections::BTreeMap;

use shoal_model::NodeId;

use super::numbers::Numbers;
use super::place::{Around, PlaceNumber, REGION};
use super::{BlobNumber, NodeNumber, Order, Table, What};

/// A member accepts edges from others up to this many times its own wish.
const CROWDED: usize = 4;
/// Members that are looked at for one choice.
const DRAWN: usize = 64;
/// Whoever has enough neighbours hears of so many more at a time.
const NEWS: usize = 3;

/// The neighbours of those members that have some.
#[derive(Debug, Default)]
pub(super) struct Mesh(BTreeMap<NodeNumber, Numbers<NodeId>>);

impl Mesh {
    pub(super) fn neighbours(&self, node: NodeNumber) -> &[NodeNumber] {
        self.0.get(&node).map_or(&[], Numbers::as_slice)
    }

    /// Two members are neighbours from now on; true where they were not.
    fn connect(&mut self, one: NodeNumber, other: NodeNumber) -> bool {
        let mut add = |one, other| self.0.entry(one).or_insert_with(Numbers::new).insert(other);
        add(one, other) && add(other, one)
    }

    /// A member leaves; returns whose neighbour it was.
    pub(super) fn remove(&mut self, node: NodeNumber) -> Numbers<NodeId> {
        let left = self.0.remove(&node).unwrap_or_else(Numbers::new);
        for other in left.iter() {
            if let Some(neighbours) = self.0.get_mut(&other) {
                neighbours.remove(node);
            }
        }
        left
    }

    #[cfg(debug_assertions)]
    pub(super) fn members(&self) -> impl Iterator<Item = NodeNumber> {
        self.0.keys().copied()
    }
}

impl Table {
    /// Fills the node's neighbours up, on both sides.
    pub(super) fn find_neighbours(&mut self, blob: BlobNumber, node: NodeNumber) {
        let entry = &self.blobs[blob];
        if !entry.wants(node) {
            return;
        }
        let home = entry.home(self.nodes[node].around);
        let neighbours = entry.mesh.neighbours(node);
        let n_near = neighbours.iter().filter(|it| self.stands_in(**it, home)).count();
        let n_far = neighbours.len() - n_near;
        let (more_near, more_far) =
            (self.policy.n_near.saturating_sub(n_near), self.policy.n_far.saturating_sub(n_far));
        let mut chosen = self.sample(blob, node, (home, more_near), |_| true);
        if home != REGION {
            chosen.extend(self.sample(blob, node, (REGION, more_far), |it| !it.contains(home)));
        }
        self.connect(blob, node, &chosen);
    }

    fn stands_in(&self, node: NodeNumber, place: PlaceNumber) -> bool {
        self.nodes[node].around.contains(place)
    }

    fn names(&self, nodes: impl Iterator<Item = NodeNumber>) -> Vec<NodeId> {
        nodes.map(|it| self.nodes.name(it).clone()).collect()
    }

    /// Up to so many members of a circle that stand where `fits` says and can take one more neighbour, at random.
    fn sample(
        &mut self,
        blob: BlobNumber,
        node: NodeNumber,
        (place, most): (PlaceNumber, usize),
        fits: impl Fn(Around) -> bool,
    ) -> Vec<NodeNumber> {
        let (nodes, entry) = (&self.nodes, &self.blobs[blob]);
        let Some(circle) = entry.circle(place).filter(|_| most > 0) else { return Vec::new() };
        let crowded = self.policy.n_near * CROWDED;
        let neighbours = entry.mesh.neighbours(node);
        let is_free = |it: &NodeNumber| {
            *it != node
                && !neighbours.contains(it)
                && fits(nodes[*it].around)
                && entry.mesh.neighbours(*it).len() < crowded
        };
        circle.draw(DRAWN, &mut self.rng).filter(is_free).take(most).collect()
    }

    /// Whoever has few neighbours hears of another at once. The others have enough to fetch from for a moment: told
    /// of each, they would take a dozen messages for every node that comes, and told at the next refresh only, the
    /// slowest of a burst would end a quarter later.
    fn connect(&mut self, blob: BlobNumber, node: NodeNumber, chosen: &[NodeNumber]) {
        for other in chosen {
            if !self.blobs[blob].mesh.connect(node, *other) {
                continue;
            }
            self.blobs[blob].urgent.insert(node);
            let entry = &self.blobs[blob];
            let home = entry.home(self.nodes[*other].around);
            let is_near = self.stands_in(node, home);
            let like_it =
                entry.mesh.neighbours(*other).iter().filter(|it| self.stands_in(**it, home) == is_near);
            let (n_like_it, policy) = (like_it.count(), self.policy);
            let entry = &mut self.blobs[blob];
            if !entry.wants(*other) || !is_near && n_like_it > policy.n_far {
                // A list names no more elsewhere than these.
                continue;
            }
            let is_due = !is_near || n_like_it <= policy.n_near || n_like_it.is_multiple_of(NEWS);
            let news = if is_due { &mut entry.urgent } else { &mut entry.dirty };
            news.insert(*other);
        }
    }

    /// Tells those of their neighbours who are to know at once.
    pub(super) fn tell_neighbours(&mut self, blob: BlobNumber, out: &mut Vec<Order>) {
        for node in std::mem::take(&mut self.blobs[blob].urgent) {
            self.blobs[blob].dirty.remove(&node);
            let entry = &self.blobs[blob];
            let home = entry.home(self.nodes[node].around);
            let neighbours = entry.mesh.neighbours(node).iter().copied();
            let (near, far): (Vec<_>, Vec<_>) = neighbours.partition(|it| self.stands_in(*it, home));
            let far = far.into_iter().take(self.policy.n_far);
            let (near, far) = (self.names(near.into_iter()), self.names(far));
            let gateway = entry.seeder.map(|it| self.nodes.name(it).clone());
            let what = What::Neighbours { near, far, algorithm: self.policy.algorithm, gateway };
            out.push(self.order(blob, node, what));
        }
    }
}
