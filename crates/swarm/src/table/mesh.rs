//! The mesh: who is whose neighbour for a blob.
//!
//! Mostly near (own rack, else own zone), the rest anywhere, so that most bytes stay within a rack and
//! yet no rack is an island: simulated, 90 to 97 % near costs nothing and 100 % never ends. Edges go
//! both ways, because early members of a blob must also learn of later ones. A mesh of have-bitmaps
//! cannot deadlock, so there is no cycle check, and a choice costs the few members that are drawn for it.

use shoal_model::{BlobKey, NodeId, Place};

use super::{Order, Role, Table, What};

/// A member accepts edges from others up to this many times its own wish.
const CROWDED: usize = 2;
/// Members drawn for one choice.
const SAMPLE: usize = 64;
/// The distance to another zone, or to an unknown place.
const FAR: u8 = 2;

impl Table {
    /// Fills the node's neighbours up, on both sides.
    pub(super) fn find_neighbours(&mut self, key: &BlobKey, node: &NodeId) {
        let Some(place) = self.nodes.get(node).map(|it| it.place.clone()) else { return };
        let Some(blob) = self.blobs.get(key).filter(|it| it.wanting.contains(node)) else { return };
        let Some(member) = blob.member(node) else { return };
        let missing = self.policy.n_neighbours.saturating_sub(member.neighbours.len());
        if missing == 0 {
            return;
        }
        let n_near = member.neighbours.iter().filter(|it| self.distance(&place, it) < FAR).count();
        let mut candidates = self.sample(key, node);
        candidates.sort_by_key(|it| self.distance(&place, it));
        let near_end = candidates.partition_point(|it| self.distance(&place, it) < FAR);
        let near = self.policy.n_near.saturating_sub(n_near).min(near_end);
        let mut chosen: Vec<_> = candidates.drain(..near).collect();
        self.rng.shuffle(&mut candidates);
        chosen.extend(candidates);
        chosen.truncate(missing);
        self.connect(key, node, chosen);
    }

    /// Some members that could become neighbours, in random order.
    fn sample(&mut self, key: &BlobKey, node: &NodeId) -> Vec<NodeId> {
        let Some(blob) = self.blobs.get(key) else { return Vec::new() };
        let crowded = self.policy.n_neighbours * CROWDED;
        let fits = |at: &usize| {
            let (id, it) = blob.nth(*at)?;
            let is_sidecar = self.nodes.get(id).is_some_and(|it| it.role == Role::Sidecar);
            let is_free = it.neighbours.len() < crowded && !it.neighbours.contains(node);
            (id != node && is_sidecar && is_free).then(|| id.clone())
        };
        let n_members = blob.n_members();
        // An interval of the members, which stand in no order, from a random place on.
        let from = self.rng.below(n_members);
        let mut drawn: Vec<_> = (0..n_members.min(SAMPLE)).map(|it| (from + it) % n_members).collect();
        self.rng.shuffle(&mut drawn);
        drawn.iter().filter_map(fits).collect()
    }

    fn connect(&mut self, key: &BlobKey, node: &NodeId, chosen: Vec<NodeId>) {
        let Some(blob) = self.blobs.get_mut(key) else { return };
        for other in chosen {
            for (one, another) in [(node, &other), (&other, node)] {
                if blob.member_mut(one).is_some_and(|it| it.neighbours.insert(another.clone())) {
                    blob.dirty.insert(one.clone());
                }
            }
        }
    }

    /// Tells every wanting member whose list has changed.
    pub(super) fn tell_neighbours(&mut self, key: &BlobKey, out: &mut Vec<Order>) {
        let Some(blob) = self.blobs.get_mut(key) else { return };
        for node in std::mem::take(&mut blob.dirty).intersection(&blob.wanting) {
            let Some(member) = blob.member(node) else { continue };
            let what = What::Neighbours(member.neighbours.iter().cloned().collect());
            out.push(Order { to: node.clone(), key: key.clone(), what });
        }
    }

    /// 0 in the same rack, 1 in the same zone, [`FAR`] elsewhere.
    fn distance(&self, place: &Place, other: &NodeId) -> u8 {
        let Some(other) = self.nodes.get(other).map(|it| &it.place) else { return FAR };
        match (!place.zone.is_empty() && place.zone == other.zone, place.rack == other.rack) {
            (true, true) if !place.rack.is_empty() => 0,
            (true, _) => 1,
            (false, _) => FAR,
        }
    }
}
