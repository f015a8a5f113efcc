//! Import leases: who brings which piece into the region, into a zone, into a rack.
//!
//! At each level one wanting member at a time holds the lease on a piece, so that the gateway sends it about once
//! and every boundary within the region carries it about once, also while nodes are still joining. A piece that
//! does not arrive goes to a successor, which is not one that was late itself where there are others. Late is what
//! takes much longer than it takes others.
//!
//! Into the *region* pieces come from the gateway, and their leases are given ahead of time, in windows: a node
//! that brings its pieces in quickly gets a larger one next time, so the uplinks that are free do more. What lies
//! at the gateway and in nobody's window is granted with the gateway's next report. The first piece, which every
//! reader waits for, is brought in by the first few nodes, so that the start is not serial. Leases lapse only once
//! the gateway holds the piece: waiting for a slow registry is not a fault.
//!
//! Into the levels *within* pieces come from a member of another one, as soon as that is known to hold them. So the
//! lease names it. Each supplies a piece to a few only, and those supply it to the next: a piece is in all racks
//! after a number of steps that grows with the logarithm of their number.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use shoal_model::{Rng, Tick};

use super::blob::{BlobEntry, Brought, Wish};
use super::circle::{Circle, Level};
use super::place::{PlaceNumber, REGION};
use super::{BlobNumber, NodeNumber, Order, Policy, Table, What};
use crate::PieceIndex;
use crate::bitmap::runs;

/// Pieces in a node's first window.
pub(super) const FIRST_WINDOW: u32 = 4;
/// Pieces in the largest window: a node that dies with it costs the swarm a lease's life for so many.
const LAST_WINDOW: u32 = 64;
/// How many nodes bring in the first piece, where none holds it yet.
const STARTERS: usize = 4;
/// In a blob of fewer pieces these copies would cost the gateway more than a tenth.
const LONG: u32 = 32;
/// A node with so many leases gets none within the region: more than it fetches at once.
const MOST_IMPORTS: u32 = 16;
/// Members that are looked at for one importer, or for a supplier that has not made itself known.
const DRAWN: usize = 64;
/// The least busy of so many is as good as the least busy of all (Mitzenmacher, 2001).
const COMPARED: usize = 4;
/// A lease is late that takes so many times as long as they do on average: the last piece of a full window takes
/// about twice as long.
const LATE: u32 = 4;
/// Pieces that one event lets come into one level.
const AT_ONCE: usize = 64;

impl Policy {
    /// How long a lease may take where one takes `as_a_rule`, if any has brought its piece in yet.
    pub(super) fn lease_lives(&self, as_a_rule: Option<Duration>) -> Duration {
        let late = as_a_rule.map_or(self.lease_lives, |it| it * LATE);
        late.max(self.lease_lives_least).min(self.lease_lives)
    }
}

/// How much a member has to bring in, where it can bring in more.
fn imports(_: NodeNumber, wish: &Wish) -> Option<u32> {
    (wish.n_leased < MOST_IMPORTS).then_some(wish.n_leased)
}

/// Leases of one event, gathered so that each importer hears of each supplier once.
#[derive(Default)]
struct Grants(BTreeMap<(NodeNumber, NodeNumber), BTreeSet<PieceIndex>>);

impl Grants {
    fn add(&mut self, importer: NodeNumber, from: NodeNumber, piece: PieceIndex) {
        self.0.entry((importer, from)).or_default().insert(piece);
    }
}

impl BlobEntry {
    /// Leases that lapsed go back to those that are to be had; true where there were any.
    /// `lives` says how long a lease may take at a level.
    pub(super) fn lapse_leases(&mut self, now: Tick, lives: impl Fn(&Level) -> Duration) -> bool {
        let at_gateway = self.seeder.and_then(|it| self.held(it)).cloned();
        let inner: Vec<_> = self.inner_levels().collect();
        let mut lapsed = false;
        for place in [REGION].into_iter().chain(inner) {
            let Some(lives) = self.level(place).map(&lives) else { continue };
            let mut late = Vec::new();
            lapsed |= self.take_back(place, |piece, it| {
                let comes = place != REGION || at_gateway.as_ref().is_some_and(|it| it.contains(piece));
                let ends = it.since.after(lives) <= now && comes;
                late.extend(ends.then_some(it.holder));
                ends
            });
            for holder in late {
                if let Some(wish) = self.wish_mut(holder) {
                    wish.lease_window = (wish.lease_window / 2).max(1);
                    wish.is_late = true;
                }
            }
        }
        lapsed
    }

    /// Who is to bring a piece into a level that lacks it: among a few, whoever has the least to do. `load` says how
    /// much that is, or nothing where a member has enough.
    fn importer(
        &self,
        place: PlaceNumber,
        piece: PieceIndex,
        load: impl Fn(NodeNumber, &Wish) -> Option<u32>,
        rng: &mut Rng,
    ) -> Option<NodeNumber> {
        let lacks = |it: &&Circle| it.level.as_ref().is_some_and(|it| it.open().contains(piece));
        let circle = self.circle(place).filter(lacks)?;
        let able = circle.draw(DRAWN, rng).filter_map(|it| {
            let wish = self.wish(it)?;
            Some(((wish.is_late, load(it, wish)?), it))
        });
        able.take(COMPARED).min_by_key(|(load, _)| *load).map(|(_, it)| it)
    }

    /// Some member of a level that is found to hold the piece.
    fn any_holder(&self, place: PlaceNumber, piece: PieceIndex, rng: &mut Rng) -> Option<NodeNumber> {
        let holds = |it: &NodeNumber| self.held(*it).is_some_and(|it| it.contains(piece));
        self.circle(place)?.draw(DRAWN, rng).find(holds)
    }
}

impl Table {
    /// Grants the node's next window from the gateway, once it has brought in half of the last.
    pub(super) fn grant_leases(
        &mut self,
        now: Tick,
        blob: BlobNumber,
        node: NodeNumber,
        out: &mut Vec<Order>,
    ) {
        let entry = &mut self.blobs[blob];
        let (Some(from), Some(wish), Some(held)) = (entry.seeder, entry.wish(node), entry.held(node)) else {
            return;
        };
        let has_better = || entry.wishes().any(|it| !it.is_late);
        if wish.n_leased * 2 > wish.lease_window || (wish.is_late && has_better()) {
            return;
        }
        let is_first = wish.n_leased == 0 && held.is_empty();
        let window = if is_first { wish.lease_window } else { (wish.lease_window * 2).min(LAST_WINDOW) };
        let most = (window - wish.n_leased) as usize;
        let Some(region) = entry.level(REGION) else { return };
        // Alone, a node takes what its reader needs first. With others, each takes pieces from all over the blob, so
        // that what the gateway has first is soon in many hands, each of which can pass it on.
        let is_alone = entry.wanting().len() <= 1;
        let apart = if is_alone { 1 } else { (region.open().count() as usize / most).max(1) };
        let mut pieces: BTreeSet<_> = region.open().iter().step_by(apart).take(most).collect();
        if pieces.is_empty() {
            return;
        }
        let is_long = entry.geometry.n_pieces() >= LONG;
        let starts =
            is_first && is_long && entry.wanting().len() <= STARTERS && !region.covered().contains(0);
        pieces.iter().for_each(|it| entry.lease(REGION, *it, node, now));
        if starts {
            // The lease is still its first holder's.
            pieces.insert(0);
        }
        if let Some(wish) = entry.wish_mut(node) {
            wish.lease_window = window;
        }
        out.push(self.lease(blob, (node, from), pieces));
    }

    /// Grants what the gateway has told of before and nobody is to bring in: no node has to be due for that.
    pub(super) fn grant_waiting(&mut self, now: Tick, blob: BlobNumber, out: &mut Vec<Order>) {
        let entry = &mut self.blobs[blob];
        let Some((from, held)) = entry.seeder.and_then(|it| Some((it, entry.held(it)?))) else { return };
        let Some(mut waiting) = entry.level(REGION).map(|it| it.open().clone()) else { return };
        waiting.intersect(held);
        if waiting.is_empty() {
            return;
        }
        // What a node has yet to wait for does not keep it busy; and a slow one gets no more than its window.
        let mut busy: BTreeMap<NodeNumber, u32> = BTreeMap::new();
        let leases = entry.level(REGION).into_iter().flat_map(Level::leases);
        for (_, holder) in leases.filter(|(piece, _)| held.contains(*piece)) {
            *busy.entry(holder).or_default() += 1;
        }
        let mut grants = Grants::default();
        for piece in waiting.iter().take(AT_ONCE) {
            let load = |node, wish: &Wish| {
                Some(busy.get(&node).copied().unwrap_or(0)).filter(|it| *it < wish.lease_window)
            };
            let Some(importer) = entry.importer(REGION, piece, load, &mut self.rng) else { break };
            *busy.entry(importer).or_default() += 1;
            entry.lease(REGION, piece, importer, now);
            grants.add(importer, from, piece);
        }
        self.tell_grants(blob, grants, out);
    }

    /// Grants to everybody who wants the blob and is due.
    pub(super) fn grant_all(&mut self, now: Tick, blob: BlobNumber, out: &mut Vec<Order>) {
        let wanting: Vec<_> = self.blobs[blob].wanting().collect();
        wanting.into_iter().for_each(|it| self.grant_leases(now, blob, it, out));
        self.import_all(now, blob, out);
    }

    /// Has what is open in any level within the region brought in, where somebody now has it.
    pub(super) fn import_all(&mut self, now: Tick, blob: BlobNumber, out: &mut Vec<Order>) {
        let inner: Vec<_> = self.blobs[blob].inner_levels().collect();
        let mut grants = Grants::default();
        inner.into_iter().for_each(|it| self.import(now, blob, it, &mut grants));
        self.tell_grants(blob, grants, out);
    }

    /// A node has come, or has brought pieces in: it may bring in more, and supply others with what it has.
    pub(super) fn pass_on(
        &mut self,
        now: Tick,
        blob: BlobNumber,
        (node, brought): (NodeNumber, &[Brought]),
        out: &mut Vec<Order>,
    ) {
        if !self.wanted.contains(&blob) {
            return;
        }
        let mut grants = Grants::default();
        brought.iter().for_each(|it| self.supply(now, blob, (node, it), &mut grants));
        let inner: Vec<_> = self.blobs[blob].levels(self.nodes[node].around).skip(1).collect();
        inner.into_iter().for_each(|it| self.import(now, blob, it, &mut grants));
        self.tell_grants(blob, grants, out);
    }

    fn supply(
        &mut self,
        now: Tick,
        blob: BlobNumber,
        (node, brought): (NodeNumber, &Brought),
        grants: &mut Grants,
    ) {
        let entry = &mut self.blobs[blob];
        for piece in &brought.pieces {
            let Some(level) = entry.level_mut(brought.within) else { return };
            level.add_supplier(*piece, node);
            let mut takers = level.children.clone();
            self.rng.shuffle(&mut takers);
            for place in takers {
                let Some(importer) = entry.importer(place, *piece, imports, &mut self.rng) else { continue };
                let supplier = entry.level_mut(brought.within).and_then(|it| it.supplier(*piece));
                let Some(from) = supplier else { break };
                entry.lease(place, *piece, importer, now);
                grants.add(importer, from, *piece);
            }
        }
    }

    /// Has what the wider level holds brought into this one, as far as its members have room.
    fn import(&mut self, now: Tick, blob: BlobNumber, place: PlaceNumber, grants: &mut Grants) {
        let entry = &mut self.blobs[blob];
        let Some(level) = entry.level(place).filter(|it| !it.open().is_empty()) else { return };
        let Some((wider, source)) = level.wider.and_then(|it| Some((it, entry.level(it)?))) else { return };
        let mut there = level.open().clone();
        there.intersect(source.covered());
        for piece in there.iter().take(AT_ONCE) {
            let Some(importer) = entry.importer(place, piece, imports, &mut self.rng) else { return };
            let known = entry.level_mut(wider).and_then(|it| it.supplier(piece));
            let Some(from) = known.or_else(|| entry.any_holder(wider, piece, &mut self.rng)) else {
                continue;
            };
            entry.lease(place, piece, importer, now);
            grants.add(importer, from, piece);
        }
    }

    fn tell_grants(&self, blob: BlobNumber, grants: Grants, out: &mut Vec<Order>) {
        out.extend(grants.0.into_iter().map(|(parties, pieces)| self.lease(blob, parties, pieces)));
    }

    fn lease(
        &self,
        blob: BlobNumber,
        (importer, from): (NodeNumber, NodeNumber),
        pieces: BTreeSet<PieceIndex>,
    ) -> Order {
        let from = self.nodes.name(from).clone();
        self.order(blob, importer, What::Lease { from, pieces: runs(pieces) })
    }
}
