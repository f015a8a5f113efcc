//! What is known of one blob: who holds which pieces of it, who wants it, who brings what in.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use shoal_model::{BlobKey, Tick};

use super::NodeNumber;
use super::circle::{Circle, Lease, Level};
use super::leases::FIRST_WINDOW;
use super::listing::Standing;
use super::mesh::Mesh;
use super::place::{Around, PlaceNumber, REGION};
use crate::{Bitmap, Geometry, PieceIndex};

/// A member's wish to hold the blob, and what it does about it.
#[derive(Debug)]
pub(super) struct Wish {
    pub lease_window: u32,
    pub n_leased: u32,
    /// A lease of it has lapsed, and none has brought its piece in since: others are to be asked first.
    pub is_late: bool,
    /// How often the member called, without progress in between, and when last.
    pub n_stranded: u32,
    pub stranded_at: Option<Tick>,
}

#[derive(Debug)]
pub(super) struct BlobEntry {
    pub geometry: Geometry,
    /// The members, each with what it holds. Most want nothing and are nobody's neighbours, so no more stands here.
    held: BTreeMap<NodeNumber, Bitmap>,
    circles: BTreeMap<PlaceNumber, Circle>,
    /// Of those members that have one.
    wishes: BTreeMap<NodeNumber, Wish>,
    /// Members that may ask the registry.
    pub direct: BTreeSet<NodeNumber>,
    /// Wanting members who are to be told of their neighbours at once.
    pub urgent: BTreeSet<NodeNumber>,
    /// Wanting members whose neighbours have become more since they were last told.
    pub dirty: BTreeSet<NodeNumber>,
    pub seeder: Option<NodeNumber>,
    /// When the seeder was named, or last gained a piece.
    pub seed_moved_at: Tick,
    /// How many gateways did not get on, since somebody first wanted the blob.
    pub n_passed_on: u32,
    /// Until when holders are waited for before a gateway reads the blob; set with the first wish that asks for it.
    pub settled_at: Option<Tick>,
    pub mesh: Mesh,
}

/// Pieces that a member can now supply within a level to the levels in it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Brought {
    pub within: PlaceNumber,
    pub pieces: Vec<PieceIndex>,
}

impl BlobEntry {
    pub(super) fn new(geometry: Geometry) -> Self {
        let region = Circle { level: Some(Level::new(geometry.n_pieces(), None)), ..Circle::default() };
        Self {
            geometry,
            held: BTreeMap::new(),
            circles: [(REGION, region)].into_iter().collect(),
            wishes: BTreeMap::new(),
            direct: BTreeSet::new(),
            urgent: BTreeSet::new(),
            dirty: BTreeSet::new(),
            seeder: None,
            seed_moved_at: Tick(0),
            n_passed_on: 0,
            settled_at: None,
            mesh: Mesh::default(),
        }
    }

    /// What a member holds.
    pub(super) fn held(&self, node: NodeNumber) -> Option<&Bitmap> {
        self.held.get(&node)
    }

    pub(super) fn members(&self) -> impl Iterator<Item = NodeNumber> {
        self.held.keys().copied()
    }

    pub(super) fn n_members(&self) -> usize {
        self.held.len()
    }

    /// How many bytes a member that wants it holds.
    pub(super) fn wanted_bytes(&self, node: NodeNumber) -> Option<u64> {
        let held = self.held(node).filter(|_| self.wants(node))?;
        Some(self.geometry.len_of_all(held))
    }

    /// The whole, as it is counted.
    pub(super) fn standing(&self, key: &BlobKey) -> Standing {
        let (n_whole, n_part) = self.n_holding();
        // There are no more nodes than fit.
        let n_wanting = self.wishes.len() as u32;
        Standing { key: key.clone(), geometry: self.geometry, n_whole, n_part, n_wanting }
    }

    /// How many members hold all of it, and how many some.
    fn n_holding(&self) -> (u32, u32) {
        let (mut n_whole, mut n_part) = (0, 0);
        for held in self.held.values() {
            if held.is_full() {
                n_whole += 1;
            } else if !held.is_empty() {
                n_part += 1;
            }
        }
        (n_whole, n_part)
    }

    pub(super) fn has_members(&self) -> bool {
        !self.held.is_empty()
    }

    pub(super) fn wish(&self, node: NodeNumber) -> Option<&Wish> {
        self.wishes.get(&node)
    }

    pub(super) fn wish_mut(&mut self, node: NodeNumber) -> Option<&mut Wish> {
        self.wishes.get_mut(&node)
    }

    /// The members that wish to hold the blob.
    pub(super) fn wanting(&self) -> impl ExactSizeIterator<Item = NodeNumber> {
        self.wishes.keys().copied()
    }

    pub(super) fn wishes(&self) -> impl Iterator<Item = &Wish> {
        self.wishes.values()
    }

    pub(super) fn wants(&self, node: NodeNumber) -> bool {
        self.wishes.contains_key(&node)
    }

    pub(super) fn circle(&self, place: PlaceNumber) -> Option<&Circle> {
        self.circles.get(&place)
    }

    pub(super) fn level(&self, place: PlaceNumber) -> Option<&Level> {
        self.circles.get(&place)?.level.as_ref()
    }

    pub(super) fn level_mut(&mut self, place: PlaceNumber) -> Option<&mut Level> {
        self.circles.get_mut(&place)?.level.as_mut()
    }

    /// The levels among these places, from the widest: the region always is one.
    pub(super) fn levels(&self, around: Around) -> impl DoubleEndedIterator<Item = PlaceNumber> {
        around.iter().filter(|it| self.level(*it).is_some())
    }

    /// The narrowest level among these places: whom the nodes there fetch from without a lease.
    pub(super) fn home(&self, around: Around) -> PlaceNumber {
        self.levels(around).next_back().unwrap_or(REGION)
    }

    /// Every level but the region.
    pub(super) fn inner_levels(&self) -> impl Iterator<Item = PlaceNumber> {
        let inner = self.circles.iter().filter(|(place, it)| it.level.is_some() && **place != REGION);
        inner.map(|(place, _)| *place)
    }

    /// Whether holders are waited for.
    pub(super) fn is_settling(&self, now: Tick) -> bool {
        self.settled_at.is_some_and(|it| it > now)
    }

    /// Whether the sidecars together hold every piece.
    pub(super) fn is_covered(&self) -> bool {
        self.level(REGION).is_some_and(|it| it.covered().is_full())
    }

    /// The node is a member from now on; true where it was none. A gateway is in no circle.
    pub(super) fn join(&mut self, node: NodeNumber, around: Option<Around>) -> bool {
        if self.held.contains_key(&node) {
            return false;
        }
        self.held.insert(node, Bitmap::new(self.geometry.n_pieces()));
        if let Some(around) = around {
            self.enter_circles(node, around);
        }
        true
    }

    fn enter_circles(&mut self, node: NodeNumber, around: Around) {
        for place in around.iter() {
            let circle = self.circles.entry(place).or_default();
            circle.crowd.push(node);
            if circle.is_due() {
                // A wider circle has as many members, so it is a level by now.
                self.open_level(place, self.home(around));
            }
        }
    }

    /// Makes a circle a level: what was free to its members takes a lease from now on.
    fn open_level(&mut self, place: PlaceNumber, wider: PlaceNumber) {
        let mut level = Level::new(self.geometry.n_pieces(), Some(wider));
        let Some(circle) = self.circles.get_mut(&place) else { return };
        for node in &circle.crowd {
            let Some(held) = self.held.get(node) else { continue };
            for piece in held.iter() {
                level.gained(piece);
            }
            if held.is_full() && !held.is_empty() {
                level.completed();
            }
        }
        self.urgent.extend(circle.crowd.iter().filter(|it| self.wishes.contains_key(it)));
        circle.level = Some(level);
        if let Some(wider) = self.level_mut(wider) {
            wider.children.push(place);
        }
    }

    /// The node, which wishes and holds nothing, is a member no longer; its neighbours lose it.
    pub(super) fn part(&mut self, node: NodeNumber, around: Around) {
        self.held.remove(&node);
        around.iter().for_each(|it| self.leave_circle(node, it));
        let left = self.mesh.remove(node);
        self.urgent.extend(left.iter().filter(|it| self.wishes.contains_key(it)));
    }

    fn leave_circle(&mut self, node: NodeNumber, place: PlaceNumber) {
        let Some(circle) = self.circles.get_mut(&place) else { return };
        circle.crowd.iter().position(|it| *it == node).map(|at| circle.crowd.swap_remove(at));
        if !circle.crowd.is_empty() || place == REGION {
            return;
        }
        let wider = self.circles.remove(&place).and_then(|it| it.level?.wider);
        if let Some(wider) = wider.and_then(|it| self.level_mut(it)) {
            wider.children.retain(|it| *it != place);
        }
    }

    /// The gateway holds more pieces. Whoever has the lease on one can take it up from now on.
    pub(super) fn seeded(&mut self, now: Tick, gateway: NodeNumber, pieces: &[Range<PieceIndex>]) {
        if let Some(held) = self.held.get_mut(&gateway) {
            pieces.iter().for_each(|it| held.insert_range(it.clone()));
        }
        if self.seeder == Some(gateway) {
            self.seed_moved_at = now;
            if let Some(level) = self.level_mut(REGION) {
                pieces.iter().for_each(|it| level.begin_leases(it.clone(), now));
            }
        }
    }

    /// The node, a sidecar, holds more pieces. Returns what others can be supplied with by that.
    pub(super) fn gained(
        &mut self,
        now: Tick,
        node: NodeNumber,
        around: Around,
        pieces: &[Range<PieceIndex>],
    ) -> Vec<Brought> {
        let Some(held) = self.held.get_mut(&node) else { return Vec::new() };
        let mut fresh = Vec::new();
        for pieces in pieces {
            fresh.extend((pieces.start..pieces.end.min(held.len())).filter(|it| !held.contains(*it)));
            held.insert_range(pieces.clone());
        }
        let is_whole = held.is_full() && !fresh.is_empty();
        let levels: Vec<_> = self.levels(around).collect();
        let firsts: Vec<_> =
            levels.iter().map(|it| self.settle(now, *it, (node, &fresh), is_whole)).collect();
        // A level gains a supplier when a level within it, or else a member of its own, has a piece first.
        let new_in_it = firsts.iter().skip(1).chain(firsts.last());
        let brought = levels.into_iter().zip(new_in_it).filter(|(_, pieces)| !pieces.is_empty());
        brought
            .filter(|(within, _)| self.level(*within).is_some_and(|it| !it.children.is_empty()))
            .map(|(within, pieces)| Brought { within, pieces: pieces.clone() })
            .collect()
    }

    /// A member of a level holds more pieces, perhaps the last ones; returns those that it is the first to hold.
    fn settle(
        &mut self,
        now: Tick,
        place: PlaceNumber,
        (node, fresh): (NodeNumber, &[PieceIndex]),
        is_whole: bool,
    ) -> Vec<PieceIndex> {
        let Some(level) = self.circles.get_mut(&place).and_then(|it| it.level.as_mut()) else {
            return Vec::new();
        };
        if fresh.len() == self.geometry.n_pieces() as usize && level.gained_whole() {
            return Vec::new();
        }
        let mut firsts = Vec::new();
        for piece in fresh {
            let Some(lease) = level.gained(*piece) else { continue };
            firsts.push(*piece);
            let Some(Lease { holder, since }) = lease else { continue };
            let is_its_own = holder == node;
            if is_its_own {
                level.imported(now.since(since));
            }
            if let Some(wish) = self.wishes.get_mut(&holder) {
                wish.n_leased = wish.n_leased.saturating_sub(1);
                wish.is_late &= !is_its_own;
            }
        }
        if is_whole {
            level.completed();
        }
        firsts
    }

    /// The node holds nothing any more. What it, a sidecar, alone held has to be brought in again.
    pub(super) fn dropped(&mut self, node: NodeNumber, around: Option<Around>) {
        let Some(held) = self.held.get_mut(&node) else { return };
        let held = std::mem::replace(held, Bitmap::new(self.geometry.n_pieces()));
        for place in around.into_iter().flat_map(Around::iter) {
            let Some(level) = self.level_mut(place) else { continue };
            level.dropped(node, &held);
        }
    }

    /// The node wishes to hold the blob.
    pub(super) fn wanted_by(&mut self, node: NodeNumber) {
        self.wishes.entry(node).or_insert_with(|| Wish {
            lease_window: FIRST_WINDOW,
            n_leased: 0,
            is_late: false,
            n_stranded: 0,
            stranded_at: None,
        });
    }

    /// The node wishes it no longer; true where it had leases, which are taken back.
    pub(super) fn unwanted_by(&mut self, node: NodeNumber, around: Around) -> bool {
        let levels: Vec<_> = self.levels(around).collect();
        let ended = levels.iter().map(|it| self.take_back(*it, |_, it| it.holder == node));
        let had_leases = ended.fold(false, |any, it| any | it);
        self.wishes.remove(&node);
        for set in [&mut self.direct, &mut self.urgent, &mut self.dirty] {
            set.remove(&node);
        }
        had_leases
    }

    /// Nobody wants the blob any more: nobody seeds it, and nobody is supplied.
    pub(super) fn rest(&mut self, now: Tick) {
        self.seeded_by(now, None);
        self.n_passed_on = 0;
        self.circles.values_mut().filter_map(|it| it.level.as_mut()).for_each(Level::forget_suppliers);
    }

    /// Another gateway seeds, or none: the leases were to be taken up with the last one.
    pub(super) fn seeded_by(&mut self, now: Tick, seeder: Option<NodeNumber>) {
        self.seeder = seeder;
        self.seed_moved_at = now;
        self.take_back(REGION, |_, _| true);
    }

    /// Leases an open piece of a level to a member that wants the blob.
    pub(super) fn lease(&mut self, place: PlaceNumber, piece: PieceIndex, importer: NodeNumber, now: Tick) {
        if let (Some(level), Some(wish)) =
            (self.circles.get_mut(&place).and_then(|it| it.level.as_mut()), self.wishes.get_mut(&importer))
        {
            level.lease(piece, importer, now);
            wish.n_leased += 1;
        }
    }

    /// Takes back the leases of a level for which `ends` says so; true where there were any.
    pub(super) fn take_back(
        &mut self,
        place: PlaceNumber,
        ends: impl FnMut(PieceIndex, Lease) -> bool,
    ) -> bool {
        let ended = self.level_mut(place).map(|it| it.take_back(ends)).unwrap_or_default();
        for holder in &ended {
            if let Some(wish) = self.wishes.get_mut(holder) {
                wish.n_leased = wish.n_leased.saturating_sub(1);
            }
        }
        !ended.is_empty()
    }
}

#[cfg(debug_assertions)]
#[expect(clippy::indexing_slicing, reason = "it is there to panic")]
impl BlobEntry {
    /// What has to hold after every event.
    #[track_caller]
    pub(super) fn check(&self) {
        let mut leased: BTreeMap<NodeNumber, u32> = BTreeMap::new();
        for (place, circle) in &self.circles {
            let Some(level) = &circle.level else { continue };
            let mut covered = Bitmap::new(self.geometry.n_pieces());
            circle.crowd.iter().for_each(|it| covered.unite(&self.held[it]));
            assert_eq!(*level.covered(), covered, "{place:?}");
            let mut known = level.open().clone();
            known.unite(&covered);
            for (piece, holder) in level.leases() {
                assert!(known.insert(piece), "{place:?}: {piece} is leased, and open or held");
                assert!(circle.crowd.contains(&holder), "{place:?}: {holder:?} stands elsewhere");
                *leased.entry(holder).or_default() += 1;
            }
            assert!(known.is_full(), "{place:?}: forgotten pieces");
            for (piece, supplier) in level.suppliers() {
                assert!(circle.crowd.contains(&supplier), "{place:?}: {supplier:?} stands elsewhere");
                assert!(self.held[&supplier].contains(piece), "{supplier:?} lacks {piece}");
            }
            let is_within = |it: &PlaceNumber| self.level(*it).is_some_and(|it| it.wider == Some(*place));
            assert!(level.children.iter().all(is_within), "{place:?}: {:?}", level.children);
        }
        let wishes: BTreeMap<_, _> = self.wishes.iter().map(|(node, it)| (*node, it.n_leased)).collect();
        assert!(leased.iter().all(|(node, n_leased)| wishes[node] == *n_leased), "{leased:?} {wishes:?}");
        assert_eq!(leased.values().sum::<u32>(), wishes.values().sum::<u32>());
        for node in self.members() {
            let mutual = |it: &NodeNumber| *it != node && self.mesh.neighbours(*it).contains(&node);
            assert!(self.mesh.neighbours(node).iter().all(mutual), "{node:?}: {:?}", self.mesh);
        }
        assert!(self.mesh.members().all(|it| self.held.contains_key(&it)), "{:?}", self.mesh);
        for node in [&self.direct, &self.urgent, &self.dirty].into_iter().flatten() {
            assert!(self.held.contains_key(node) && self.wants(*node), "{node:?} wants nothing");
        }
        assert!(self.wanting().all(|it| self.held.contains_key(&it)), "{:?}", self.wishes);
    }
}
