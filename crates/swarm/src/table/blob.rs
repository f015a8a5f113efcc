//! What is known of one blob: who holds which pieces of it, who wants it, who brings what in.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use shoal_model::{NodeId, Place, Tick};

use super::leases::{FIRST_WINDOW, Leases};
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
    place: Place,
}

#[derive(Debug)]
pub(super) struct BlobEntry {
    pub geometry: Geometry,
    members: BTreeMap<NodeId, Member>,
    /// The members to draw from, in no order: all of them, those of each zone, those of each rack.
    crowds: BTreeMap<Place, Vec<NodeId>>,
    /// Members that wish to hold the blob.
    pub wanting: BTreeSet<NodeId>,
    /// Members that may ask the registry.
    pub direct: BTreeSet<NodeId>,
    /// Members whose neighbours have changed since they were last told.
    pub dirty: BTreeSet<NodeId>,
    /// How many sidecars hold each piece.
    pub copies: Vec<u32>,
    /// Pieces that at least one sidecar holds.
    n_covered: u32,
    pub leases: Leases,
    pub seeder: Option<NodeId>,
    /// When the seeder was named, or last gained a piece.
    pub seed_moved_at: Tick,
}

impl BlobEntry {
    pub(super) fn new(geometry: Geometry) -> Self {
        let n_pieces = geometry.n_pieces();
        Self {
            geometry,
            members: BTreeMap::new(),
            crowds: BTreeMap::new(),
            wanting: BTreeSet::new(),
            direct: BTreeSet::new(),
            dirty: BTreeSet::new(),
            copies: vec![0; n_pieces as usize],
            n_covered: 0,
            leases: Leases::new(n_pieces),
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

    /// The members of a rack, of a zone where no rack is named, or all where no zone is; in no order.
    pub(super) fn crowd(&self, place: &Place) -> &[NodeId] {
        self.crowds.get(place).map_or(&[], Vec::as_slice)
    }

    /// Whether the sidecars together hold every piece.
    pub(super) fn is_covered(&self) -> bool {
        self.n_covered == self.geometry.n_pieces()
    }

    /// The node is a member from now on.
    pub(super) fn join(&mut self, node: &NodeId, place: &Place) -> &mut Member {
        let (n_pieces, crowds) = (self.geometry.n_pieces(), &mut self.crowds);
        self.members.entry(node.clone()).or_insert_with(|| {
            for circle in circles(place) {
                crowds.entry(circle).or_default().push(node.clone());
            }
            Member {
                held: Bitmap::new(n_pieces),
                neighbours: BTreeSet::new(),
                lease_window: FIRST_WINDOW,
                n_leased: 0,
                n_stranded: 0,
                stranded_at: None,
                place: place.clone(),
            }
        })
    }

    /// The node is a member no longer; its neighbours lose it.
    pub(super) fn part(&mut self, node: &NodeId) {
        let Some(member) = self.members.remove(node) else { return };
        for circle in circles(&member.place) {
            let Some(crowd) = self.crowds.get_mut(&circle) else { continue };
            crowd.iter().position(|it| it == node).map(|at| crowd.swap_remove(at));
            if crowd.is_empty() {
                self.crowds.remove(&circle);
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

    /// The node, a sidecar, holds more pieces.
    pub(super) fn gained(&mut self, node: &NodeId, pieces: &[Range<PieceIndex>]) {
        let mut fresh = Vec::new();
        if let Some(member) = self.members.get_mut(node) {
            fresh.extend(pieces.iter().cloned().flatten().filter(|it| member.held.insert(*it)));
        }
        for piece in fresh {
            let copies = &mut self.copies[piece as usize];
            *copies += 1;
            self.n_covered += u32::from(*copies == 1);
            if let Some(holder) = self.leases.settle(piece)
                && let Some(member) = self.members.get_mut(&holder)
            {
                member.n_leased = member.n_leased.saturating_sub(1);
            }
        }
    }

    /// The node, a sidecar, holds nothing any more. What it alone held has to be brought in again.
    pub(super) fn dropped(&mut self, node: &NodeId) {
        let Some(member) = self.members.get_mut(node) else { return };
        let held = std::mem::replace(&mut member.held, Bitmap::new(self.geometry.n_pieces()));
        for piece in held.iter() {
            let copies = &mut self.copies[piece as usize];
            *copies -= 1;
            if *copies == 0 {
                self.n_covered -= 1;
                self.leases.reopen(piece);
            }
        }
    }

    /// Another gateway seeds, or none: the leases were to be taken up with the last one.
    pub(super) fn seeded_by(&mut self, now: Tick, seeder: Option<NodeId>) {
        self.seeder = seeder;
        self.seed_moved_at = now;
        self.leases = Leases::new(self.geometry.n_pieces());
        self.members.values_mut().for_each(|it| it.n_leased = 0);
    }
}

/// The circles that a place lies in, from the widest: everywhere, its zone, its rack.
pub(super) fn circles(place: &Place) -> Vec<Place> {
    let zone = Place { zone: place.zone.clone(), rack: Place::default().rack };
    let mut circles = vec![Place::default(), zone, place.clone()];
    circles.dedup();
    circles
}
