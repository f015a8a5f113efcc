//! Import leases: who brings which piece into the region, into a zone, into a rack.
//!
//! At each level one wanting member at a time holds the lease on a piece, so that the gateway sends it about once
//! and every boundary within the region carries it about once, also while nodes are still joining. A piece that
//! does not arrive goes to a successor.
//!
//! Into the *region* pieces come from the gateway, and their leases are given ahead of time, in windows: a node
//! that brings its pieces in quickly gets a larger one next time, so the uplinks that are free do more. The first
//! piece, which every reader waits for, is brought in by the first few nodes, so that the start is not serial. Leases
//! lapse only once the gateway holds the piece: waiting for a slow registry is not a fault.
//!
//! Into the levels *within* pieces come from a member of another one, as soon as that is known to hold them. So the
//! lease names it. Each supplies a piece to a few only, and those supply it to the next: a piece is in all racks
//! after a number of steps that grows with the logarithm of their number.

use std::collections::{BTreeMap, BTreeSet};

use shoal_model::{BlobKey, NodeId, Place, Rng, Tick};

use super::blob::{BlobEntry, Brought};
use super::{Order, Table, What};
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
/// Pieces that one event lets come into one level.
const AT_ONCE: usize = 64;

/// Leases of one event, gathered so that each importer hears of each supplier once.
#[derive(Default)]
struct Grants(BTreeMap<(NodeId, NodeId), BTreeSet<PieceIndex>>);

impl Grants {
    fn add(&mut self, importer: NodeId, from: NodeId, piece: PieceIndex) {
        self.0.entry((importer, from)).or_default().insert(piece);
    }

    fn tell(self, key: &BlobKey, out: &mut Vec<Order>) {
        out.extend(self.0.into_iter().map(|((to, from), pieces)| Order {
            to,
            key: key.clone(),
            what: What::Lease { from, pieces: runs(pieces) },
        }));
    }
}

impl BlobEntry {
    /// Leases that lapsed go back to those that are to be had; true where there were any.
    pub(super) fn lapse_leases(&mut self, now: Tick) -> bool {
        let seeder = self.seeder.as_ref().and_then(|it| self.member(it));
        let at_gateway = seeder.map(|it| it.held.clone());
        let mut lapsed = false;
        for at in [Place::default()].into_iter().chain(self.inner_levels()) {
            let is_region = at == Place::default();
            let mut late = Vec::new();
            lapsed |= self.take_back(&at, |piece, holder, until| {
                let comes = !is_region || at_gateway.as_ref().is_some_and(|it| it.contains(piece));
                let ends = until <= now && comes;
                late.extend(ends.then(|| holder.clone()));
                ends
            });
            for holder in late {
                if let Some(member) = self.member_mut(&holder) {
                    member.lease_window = (member.lease_window / 2).max(1);
                }
            }
        }
        lapsed
    }

    /// Takes back all leases of a node; true where it had any.
    pub(super) fn release(&mut self, node: &NodeId) -> bool {
        let Some(member) = self.member(node) else { return false };
        let levels = self.levels_around(&member.place);
        let ended = levels.iter().map(|at| self.take_back(at, |_, holder, _| holder == node));
        ended.fold(false, |any, it| any | it)
    }

    /// Who is to bring a piece into a level that lacks it.
    fn importer(&self, at: &Place, piece: PieceIndex, rng: &mut Rng) -> Option<NodeId> {
        let circle =
            self.circle(at).filter(|it| it.level.as_ref().is_some_and(|it| it.open().contains(piece)))?;
        let able = circle.draw(DRAWN, rng).filter(|it| self.wanting.contains(*it));
        let able = able.filter_map(|it| Some((self.member(it)?.n_leased, it)));
        let able = able.filter(|(n_leased, _)| *n_leased < MOST_IMPORTS).take(COMPARED);
        able.min_by_key(|(n_leased, _)| *n_leased).map(|(_, it)| it.clone())
    }

    /// Some member of a level that is found to hold the piece.
    fn any_holder(&self, at: &Place, piece: PieceIndex, rng: &mut Rng) -> Option<NodeId> {
        let holds = |it: &&NodeId| self.member(it).is_some_and(|it| it.held.contains(piece));
        self.circle(at)?.draw(DRAWN, rng).find(holds).cloned()
    }
}

impl Table {
    /// Grants the node's next window from the gateway, once it has brought in half of the last.
    pub(super) fn grant_leases(&mut self, now: Tick, key: &BlobKey, node: &NodeId, out: &mut Vec<Order>) {
        let until = now.after(self.policy.lease_lives);
        let Some(blob) = self.blobs.get_mut(key).filter(|it| it.wanting.contains(node)) else { return };
        let (Some(from), Some(member)) = (blob.seeder.clone(), blob.member(node)) else { return };
        if member.n_leased * 2 > member.lease_window {
            return;
        }
        let is_first = member.n_leased == 0 && member.held.is_empty();
        let window = if is_first { member.lease_window } else { (member.lease_window * 2).min(LAST_WINDOW) };
        let most = (window - member.n_leased) as usize;
        let Some(region) = blob.level(&Place::default()) else { return };
        let mut pieces: BTreeSet<_> = region.open().iter().take(most).collect();
        if pieces.is_empty() {
            return;
        }
        let is_long = blob.geometry.n_pieces() >= LONG;
        let starts = is_first && is_long && blob.wanting.len() <= STARTERS && !region.covered().contains(0);
        pieces.iter().for_each(|it| blob.lease(&Place::default(), *it, node, until));
        if starts {
            // The lease is still its first holder's.
            pieces.insert(0);
        }
        if let Some(member) = blob.member_mut(node) {
            member.lease_window = window;
        }
        let what = What::Lease { from, pieces: runs(pieces) };
        out.push(Order { to: node.clone(), key: key.clone(), what });
    }

    /// Grants to everybody who wants the blob and is due.
    pub(super) fn grant_all(&mut self, now: Tick, key: &BlobKey, out: &mut Vec<Order>) {
        let wanting = self.blobs.get(key).map(|it| it.wanting.clone()).unwrap_or_default();
        wanting.iter().for_each(|it| self.grant_leases(now, key, it, out));
        let inner = self.blobs.get(key).map(BlobEntry::inner_levels).unwrap_or_default();
        let mut grants = Grants::default();
        inner.iter().for_each(|it| self.import(now, key, it, &mut grants));
        grants.tell(key, out);
    }

    /// A node has come, or has brought pieces in: it may bring in more, and supply others with what it has.
    pub(super) fn pass_on(
        &mut self,
        now: Tick,
        key: &BlobKey,
        (node, brought): (&NodeId, &[Brought]),
        out: &mut Vec<Order>,
    ) {
        let mut grants = Grants::default();
        self.supply(now, key, (node, brought), &mut grants);
        let blob = self.blobs.get(key);
        let around = blob.and_then(|blob| Some(blob.levels_around(&blob.member(node)?.place)));
        around.iter().flatten().skip(1).for_each(|it| self.import(now, key, it, &mut grants));
        grants.tell(key, out);
    }

    fn supply(
        &mut self,
        now: Tick,
        key: &BlobKey,
        (node, brought): (&NodeId, &[Brought]),
        grants: &mut Grants,
    ) {
        for Brought { piece, within } in brought {
            let Some(level) = self.blobs.get_mut(key).and_then(|it| it.level_mut(within)) else { continue };
            level.add_supplier(*piece, node);
            let mut takers = level.children.clone();
            self.rng.shuffle(&mut takers);
            for at in takers {
                let Some(blob) = self.blobs.get_mut(key) else { return };
                let Some(importer) = blob.importer(&at, *piece, &mut self.rng) else { continue };
                let Some(from) = blob.supplier(within, *piece) else { break };
                blob.lease(&at, *piece, &importer, now.after(self.policy.lease_lives));
                grants.add(importer, from, *piece);
            }
        }
    }

    /// Has what the wider level holds brought into this one, as far as its members have room.
    fn import(&mut self, now: Tick, key: &BlobKey, at: &Place, grants: &mut Grants) {
        let Some(blob) = self.blobs.get(key) else { return };
        let Some(wider) = blob.wider(at) else { return };
        let (Some(level), Some(source)) = (blob.level(at), blob.level(&wider)) else { return };
        let mut there = level.open().clone();
        there.intersect(source.covered());
        for piece in there.iter().take(AT_ONCE) {
            let Some(blob) = self.blobs.get_mut(key) else { return };
            let Some(importer) = blob.importer(at, piece, &mut self.rng) else { return };
            let known = blob.supplier(&wider, piece);
            let Some(from) = known.or_else(|| blob.any_holder(&wider, piece, &mut self.rng)) else {
                continue;
            };
            blob.lease(at, piece, &importer, now.after(self.policy.lease_lives));
            grants.add(importer, from, piece);
        }
    }
}
