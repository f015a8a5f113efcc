//! What is known of one blob: who holds which pieces of it, who wants it, who brings what in.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use shoal_model::{NodeId, Place, Tick};

use super::circle::{Circle, Level};
use super::leases::FIRST_WINDOW;
use crate::{Bitmap, Geometry, PieceIndex};

/// One node's part in one blob.
#[derive(Debug)]
pub(super) struct Member {
    pub held: Bitmap,
    pub neighbours: BTreeSet<NodeId>,
    pub lease_window: u32,
    pub n_leased: u32,
    /// How often it called, without progress in between, and when last.
    pub n_stranded: u32,
    pub stranded_at: Option<Tick>,
    /// Where it stands.
    pub place: Place,
}

#[derive(Debug)]
pub(super) struct BlobEntry {
    pub geometry: Geometry,
    members: BTreeMap<NodeId, Member>,
    circles: BTreeMap<Place, Circle>,
    /// Members that wish to hold the blob.
    pub wanting: BTreeSet<NodeId>,
    /// Members that may ask the registry.
    pub direct: BTreeSet<NodeId>,
    /// Members whose neighbours have changed since they were last told.
    pub dirty: BTreeSet<NodeId>,
    pub seeder: Option<NodeId>,
    /// When the seeder was named, or last gained a piece.
    pub seed_moved_at: Tick,
}

/// A piece that a member can now supply within a level to the levels in it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Brought {
    pub piece: PieceIndex,
    pub within: Place,
}

impl BlobEntry {
    pub(super) fn new(geometry: Geometry) -> Self {
        let region = Circle { level: Some(Level::new(geometry.n_pieces())), ..Circle::default() };
        Self {
            geometry,
            members: BTreeMap::new(),
            circles: [(Place::default(), region)].into_iter().collect(),
            wanting: BTreeSet::new(),
            direct: BTreeSet::new(),
            dirty: BTreeSet::new(),
            seeder: None,
            seed_moved_at: Tick(0),
        }
    }

    pub(super) fn member(&self, node: &NodeId) -> Option<&Member> {
        self.members.get(node)
    }

    pub(super) fn member_mut(&mut self, node: &NodeId) -> Option<&mut Member> {
        self.members.get_mut(node)
    }

    pub(super) fn n_members(&self) -> usize {
        self.members.len()
    }

    pub(super) fn circle(&self, place: &Place) -> Option<&Circle> {
        self.circles.get(place)
    }

    pub(super) fn level(&self, place: &Place) -> Option<&Level> {
        self.circles.get(place)?.level.as_ref()
    }

    pub(super) fn level_mut(&mut self, place: &Place) -> Option<&mut Level> {
        self.circles.get_mut(place)?.level.as_mut()
    }

    /// The levels that a place lies in, from the widest: the region always is one.
    pub(super) fn levels_around(&self, place: &Place) -> Vec<Place> {
        circles(place).into_iter().filter(|it| self.level(it).is_some()).collect()
    }

    /// The narrowest level that a place lies in: whom its nodes fetch from without a lease.
    pub(super) fn home(&self, place: &Place) -> Place {
        self.levels_around(place).pop().unwrap_or_default()
    }

    /// The level that is wider than this one by a step; `None` for the region.
    pub(super) fn wider(&self, level: &Place) -> Option<Place> {
        self.levels_around(level).into_iter().rev().find(|it| it != level)
    }

    /// Every level but the region.
    pub(super) fn inner_levels(&self) -> Vec<Place> {
        let inner =
            self.circles.iter().filter(|(place, it)| it.level.is_some() && **place != Place::default());
        inner.map(|(place, _)| place.clone()).collect()
    }

    /// Whether the sidecars together hold every piece.
    pub(super) fn is_covered(&self) -> bool {
        self.level(&Place::default()).is_some_and(|it| it.covered().is_full())
    }

    /// The node, a gateway or a sidecar, is a member from now on.
    pub(super) fn join(&mut self, node: &NodeId, place: &Place, is_sidecar: bool) -> &mut Member {
        if !self.members.contains_key(node) {
            let member = Member {
                held: Bitmap::new(self.geometry.n_pieces()),
                neighbours: BTreeSet::new(),
                lease_window: FIRST_WINDOW,
                n_leased: 0,
                n_stranded: 0,
                stranded_at: None,
                place: place.clone(),
            };
            self.members.insert(node.clone(), member);
            if is_sidecar {
                self.enter_circles(node, place);
            }
        }
        self.members.get_mut(node).expect("inserted above, where it was not there")
    }

    fn enter_circles(&mut self, node: &NodeId, place: &Place) {
        for at in circles(place) {
            let circle = self.circles.entry(at.clone()).or_default();
            circle.crowd.push(node.clone());
            if circle.is_due() {
                self.open_level(&at);
            }
        }
    }

    /// Makes a circle a level: what was free to its members takes a lease from now on.
    fn open_level(&mut self, at: &Place) {
        let mut level = Level::new(self.geometry.n_pieces());
        let Some(circle) = self.circles.get_mut(at) else { return };
        for node in &circle.crowd {
            let held = self.members.get(node).map(|it| &it.held);
            held.into_iter().flat_map(Bitmap::iter).for_each(|it| drop(level.gained(it)));
            self.dirty.insert(node.clone());
        }
        circle.level = Some(level);
        if let Some(wider) = self.wider(at).and_then(|it| self.level_mut(&it)) {
            wider.children.push(at.clone());
        }
    }

    /// The node is a member no longer; its neighbours lose it.
    pub(super) fn part(&mut self, node: &NodeId) {
        let Some(member) = self.members.remove(node) else { return };
        for at in circles(&member.place) {
            let Some(circle) = self.circles.get_mut(&at) else { continue };
            circle.crowd.iter().position(|it| it == node).map(|at| circle.crowd.swap_remove(at));
            if circle.crowd.is_empty() && at != Place::default() {
                if let Some(wider) = self.wider(&at).and_then(|it| self.level_mut(&it)) {
                    wider.children.retain(|it| *it != at);
                }
                self.circles.remove(&at);
            }
        }
        for other in member.neighbours {
            if self.members.get_mut(&other).is_some_and(|it| it.neighbours.remove(node)) {
                self.dirty.insert(other);
            }
        }
        for set in [&mut self.wanting, &mut self.direct, &mut self.dirty] {
            set.remove(node);
        }
    }

    /// The node, a sidecar, holds more pieces. Returns what others can be supplied with by that.
    pub(super) fn gained(&mut self, node: &NodeId, pieces: &[Range<PieceIndex>]) -> Vec<Brought> {
        let Some(member) = self.members.get_mut(node) else { return Vec::new() };
        let fresh: Vec<_> = pieces.iter().cloned().flatten().filter(|it| member.held.insert(*it)).collect();
        let place = member.place.clone();
        let levels = self.levels_around(&place);
        let mut brought = Vec::new();
        for piece in fresh {
            let firsts: Vec<_> = levels.iter().map(|it| self.settle(it, piece)).collect();
            // A level gains a supplier when a level within it, or else a member of its own, has it first.
            let is_new = firsts.iter().skip(1).chain(firsts.last());
            let within = levels.iter().zip(is_new).filter(|(_, is_new)| **is_new).map(|(at, _)| at);
            let within = within.filter(|it| self.level(it).is_some_and(|it| !it.children.is_empty()));
            brought.extend(within.map(|it| Brought { piece, within: it.clone() }));
        }
        brought
    }

    /// One more member of a level holds the piece; true where it is the first.
    fn settle(&mut self, at: &Place, piece: PieceIndex) -> bool {
        let Some(lease) = self.level_mut(at).and_then(|it| it.gained(piece)) else { return false };
        if let Some(holder) = lease.and_then(|it| self.members.get_mut(&it)) {
            holder.n_leased = holder.n_leased.saturating_sub(1);
        }
        true
    }

    /// The node, a sidecar, holds nothing any more. What it alone held has to be brought in again.
    pub(super) fn dropped(&mut self, node: &NodeId) {
        let Some(member) = self.members.get_mut(node) else { return };
        let held = std::mem::replace(&mut member.held, Bitmap::new(self.geometry.n_pieces()));
        let place = member.place.clone();
        for at in self.levels_around(&place) {
            let Some(level) = self.level_mut(&at) else { continue };
            held.iter().for_each(|it| level.lost(it));
        }
    }

    /// Another gateway seeds, or none: the leases were to be taken up with the last one.
    pub(super) fn seeded_by(&mut self, now: Tick, seeder: Option<NodeId>) {
        self.seeder = seeder;
        self.seed_moved_at = now;
        self.take_back(&Place::default(), |_, _, _| true);
    }

    /// Who has lately brought the piece into a level within this one and may supply another with it.
    pub(super) fn supplier(&mut self, within: &Place, piece: PieceIndex) -> Option<NodeId> {
        let Self { members, circles, .. } = self;
        let level = circles.get_mut(within)?.level.as_mut()?;
        level.supplier(piece, |it| members.get(it).is_some_and(|it| it.held.contains(piece)))
    }

    /// Leases an open piece of a level to a member.
    pub(super) fn lease(&mut self, at: &Place, piece: PieceIndex, importer: &NodeId, until: Tick) {
        if let (Some(level), Some(member)) =
            (self.circles.get_mut(at).and_then(|it| it.level.as_mut()), self.members.get_mut(importer))
        {
            level.lease(piece, importer, until);
            member.n_leased += 1;
        }
    }

    /// Takes back the leases of a level for which `ends` says so; true where there were any.
    pub(super) fn take_back(
        &mut self,
        at: &Place,
        ends: impl FnMut(PieceIndex, &NodeId, Tick) -> bool,
    ) -> bool {
        let ended = self.level_mut(at).map(|it| it.take_back(ends)).unwrap_or_default();
        for holder in &ended {
            if let Some(member) = self.members.get_mut(holder) {
                member.n_leased = member.n_leased.saturating_sub(1);
            }
        }
        !ended.is_empty()
    }
}

#[cfg(test)]
impl BlobEntry {
    /// What has to hold after every event.
    #[track_caller]
    pub(super) fn check(&self) {
        let mut leased: BTreeMap<&NodeId, u32> = BTreeMap::new();
        for (at, circle) in &self.circles {
            let Some(level) = &circle.level else { continue };
            let mut covered = Bitmap::new(self.geometry.n_pieces());
            circle.crowd.iter().for_each(|it| covered.unite(&self.members[it].held));
            assert_eq!(*level.covered(), covered, "{at:?}");
            let mut known = level.open().clone();
            known.unite(&covered);
            for (piece, holder) in level.leases() {
                assert!(known.insert(piece), "{at:?}: {piece} is leased, and open or held");
                assert!(circle.crowd.contains(holder), "{at:?}: {holder} stands elsewhere");
                *leased.entry(holder).or_default() += 1;
            }
            assert!(known.is_full(), "{at:?}: forgotten pieces");
        }
        for (node, member) in &self.members {
            assert_eq!(member.n_leased, leased.get(node).copied().unwrap_or(0), "leases of {node}");
        }
    }
}

/// The circles that a place lies in, from the widest: everywhere, its zone, its rack.
pub(super) fn circles(place: &Place) -> Vec<Place> {
    let zone = Place { zone: place.zone.clone(), rack: Place::default().rack };
    let mut circles = vec![Place::default(), zone, place.clone()];
    circles.dedup();
    circles
}
