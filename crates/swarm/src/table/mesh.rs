//! The mesh: who is whose neighbour for a blob.
//!
//! Mostly near (own rack, else own zone), the rest anywhere, so that most bytes stay within a rack and
//! yet no rack is an island: simulated, 90 to 97 % near costs nothing and 100 % never ends. Edges go
//! both ways, because early members of a blob must also learn of later ones. A mesh of have-bitmaps
//! cannot deadlock, so there is no cycle check, and a choice costs the few members that are drawn for it.

use shoal_model::{BlobKey, NodeId, Place};

use super::blob::{Member, circles};
use super::{Order, Role, Table, What};

/// A member accepts edges from others up to this many times its own wish.
const CROWDED: usize = 4;
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
        let near = self.policy.n_near.saturating_sub(n_near).min(missing);
        let mut chosen = Vec::new();
        // The narrowest circle first; the widest is everywhere.
        for circle in circles(&place).iter().rev() {
            let is_widest = *circle == Place::default();
            let wished = if is_widest { missing } else { near };
            for id in self.sample(key, node, circle) {
                if chosen.len() < wished && !chosen.contains(&id) {
                    chosen.push(id);
                }
            }
        }
        self.connect(key, node, chosen);
    }

    /// Some members of a circle that could become neighbours, in random order.
    fn sample(&mut self, key: &BlobKey, node: &NodeId, circle: &Place) -> Vec<NodeId> {
        let Some(blob) = self.blobs.get(key) else { return Vec::new() };
        let crowded = self.policy.n_neighbours * CROWDED;
        let fits = |id: &NodeId| {
            let is_sidecar = self.nodes.get(id).is_some_and(|it| it.role == Role::Sidecar);
            let has_room = |it: &Member| it.neighbours.len() < crowded && !it.neighbours.contains(node);
            id != node && is_sidecar && blob.member(id).is_some_and(has_room)
        };
        let crowd = blob.crowd(circle);
        // An interval of the crowd, which stands in no order, from a random place on.
        let from = self.rng.below(crowd.len());
        let mut drawn: Vec<_> = (0..crowd.len().min(SAMPLE)).map(|it| (from + it) % crowd.len()).collect();
        self.rng.shuffle(&mut drawn);
        drawn.into_iter().map(|it| &crowd[it]).filter(|it| fits(it)).cloned().collect()
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
