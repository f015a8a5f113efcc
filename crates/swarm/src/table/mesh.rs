//! The mesh: who is whose neighbour for a blob.
//!
//! The neighbours that a node fetches from stand in its *home*, the narrowest circle around it that is an import
//! level: its rack, where that has members enough, else its zone, else the region. What the home lacks comes in by
//! lease. A few neighbours stand elsewhere: nobody fetches from them while all is well, but they are there when the
//! scheduler is not, or when nothing comes. Edges go both ways, because early members of a blob must also learn
//! of later ones. A mesh of have-bitmaps cannot deadlock, so there is no cycle check, and a choice costs the few
//! members that are drawn for it.

use shoal_model::{BlobKey, NodeId, Place};

use super::blob::{BlobEntry, Member, circles};
use super::{Order, Table, What};

/// A member accepts edges from others up to this many times its own wish.
const CROWDED: usize = 4;
/// Members drawn for one choice.
const SAMPLE: usize = 64;

impl Table {
    /// Fills the node's neighbours up, on both sides.
    pub(super) fn find_neighbours(&mut self, key: &BlobKey, node: &NodeId) {
        let Some(blob) = self.blobs.get(key).filter(|it| it.wanting.contains(node)) else { return };
        let Some(member) = blob.member(node) else { return };
        let home = blob.home(&member.place);
        let (near, far) = blob.split(member, &home);
        let n_near = self.policy.n_near.saturating_sub(near.len());
        let n_far = self.policy.n_far.saturating_sub(far.len());
        let mut chosen = self.sample(key, node, (&home, n_near), |_| true);
        if home != Place::default() {
            let is_far = |it: &Member| !circles(&it.place).contains(&home);
            chosen.extend(self.sample(key, node, (&Place::default(), n_far), is_far));
        }
        self.connect(key, node, chosen);
    }

    /// Up to so many members of a circle that `fit` and can take one more neighbour, at random.
    fn sample(
        &mut self,
        key: &BlobKey,
        node: &NodeId,
        (at, most): (&Place, usize),
        fit: impl Fn(&Member) -> bool,
    ) -> Vec<NodeId> {
        let Some(blob) = self.blobs.get(key).filter(|_| most > 0) else { return Vec::new() };
        let crowded = self.policy.n_near * CROWDED;
        let has_room = |it: &Member| it.neighbours.len() < crowded && !it.neighbours.contains(node);
        let is_free = |it: &&NodeId| *it != node && blob.member(it).is_some_and(|it| has_room(it) && fit(it));
        let Some(circle) = blob.circle(at) else { return Vec::new() };
        let mut sample: Vec<_> = circle.draw(SAMPLE, &mut self.rng).filter(is_free).cloned().collect();
        self.rng.shuffle(&mut sample);
        sample.truncate(most);
        sample
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
            let (near, mut far) = blob.split(member, &blob.home(&member.place));
            far.truncate(self.policy.n_far);
            out.push(Order { to: node.clone(), key: key.clone(), what: What::Neighbours { near, far } });
        }
    }
}

impl BlobEntry {
    /// A member's neighbours in its home, and those elsewhere.
    fn split(&self, member: &Member, home: &Place) -> (Vec<NodeId>, Vec<NodeId>) {
        let is_near = |it: &&NodeId| self.member(it).is_some_and(|it| circles(&it.place).contains(home));
        member.neighbours.iter().cloned().partition(|it| is_near(&it))
    }
}
