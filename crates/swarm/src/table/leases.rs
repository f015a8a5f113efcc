//! Import leases: who brings which piece from the gateway into the region.
//!
//! Each piece is leased to one wanting node, so that the gateway sends it about once, also while nodes
//! are still joining. Leases are handed out in windows: a node that brings its pieces in quickly gets a
//! larger one next time, so the uplinks that are free do more. A piece that does not arrive goes to a
//! successor, but only once the gateway holds it: waiting for a slow registry is not a fault.

use shoal_model::{BlobKey, NodeId, Tick};

use super::blob::BlobEntry;
use super::{Order, Table, What};
use crate::{Bitmap, PieceIndex};

/// Pieces in a node's first window.
pub(super) const FIRST_WINDOW: u32 = 4;
/// Pieces in the largest window: a node that dies with it costs the swarm a lease's life for so many.
const LAST_WINDOW: u32 = 64;

/// The leases of one blob.
#[derive(Debug)]
pub(super) struct Leases {
    holders: Vec<Option<(NodeId, Tick)>>,
    /// Every piece before this is leased, or some sidecar holds it.
    next: PieceIndex,
}

impl Leases {
    pub(super) fn new(n_pieces: u32) -> Self {
        Self { holders: vec![None; n_pieces as usize], next: 0 }
    }

    /// The piece has come in, by whatever way; returns whose lease that ends.
    pub(super) fn settle(&mut self, piece: PieceIndex) -> Option<NodeId> {
        self.holders.get_mut(piece as usize)?.take().map(|(holder, _)| holder)
    }

    /// Nobody holds the piece any more.
    pub(super) fn reopen(&mut self, piece: PieceIndex) {
        self.next = self.next.min(piece);
    }
}

impl BlobEntry {
    fn lease(&mut self, node: &NodeId, most: u32, until: Tick) -> Bitmap {
        let mut leased = Bitmap::new(self.geometry.n_pieces());
        while leased.count() < most && (self.leases.next as usize) < self.copies.len() {
            let piece = self.leases.next;
            let lease = &mut self.leases.holders[piece as usize];
            if self.copies[piece as usize] == 0 && lease.is_none() {
                *lease = Some((node.clone(), until));
                leased.insert(piece);
            }
            self.leases.next += 1;
        }
        leased
    }

    /// Takes back the leases that lapsed; true where there were any.
    pub(super) fn lapse_leases(&mut self, now: Tick) -> bool {
        let seeder = self.seeder.as_ref().and_then(|it| self.member(it));
        let Some(at_gateway) = seeder.map(|it| it.held.clone()) else { return false };
        let lapsed: Vec<_> = (0..)
            .zip(&self.leases.holders)
            .filter_map(|(piece, lease)| lease.as_ref().map(|(holder, until)| (piece, holder, until)))
            .filter(|(piece, _, until)| **until <= now && at_gateway.contains(*piece))
            .map(|(piece, holder, _)| (piece, holder.clone()))
            .collect();
        for (piece, holder) in &lapsed {
            self.leases.settle(*piece);
            self.leases.reopen(*piece);
            if let Some(member) = self.member_mut(holder) {
                member.n_leased = member.n_leased.saturating_sub(1);
                member.lease_window = (member.lease_window / 2).max(1);
            }
        }
        !lapsed.is_empty()
    }

    /// Takes back all leases of a node; true where it had any.
    fn release(&mut self, node: &NodeId) -> bool {
        let mut released = false;
        for piece in 0..self.copies.len() {
            if self.leases.holders[piece].as_ref().is_some_and(|(holder, _)| holder == node) {
                self.leases.settle(piece as PieceIndex);
                self.leases.reopen(piece as PieceIndex);
                released = true;
            }
        }
        if let Some(member) = self.member_mut(node) {
            member.n_leased = 0;
        }
        released
    }
}

impl Table {
    /// Grants the node's next window, once it has brought in half of the last.
    pub(super) fn grant_leases(&mut self, now: Tick, key: &BlobKey, node: &NodeId, out: &mut Vec<Order>) {
        let until = now.after(self.policy.lease_lives);
        let Some(blob) = self.blobs.get_mut(key).filter(|it| it.wanting.contains(node)) else { return };
        let (Some(from), Some(member)) = (blob.seeder.clone(), blob.member(node)) else { return };
        if member.n_leased * 2 > member.lease_window {
            return;
        }
        let is_first = member.n_leased == 0 && member.held.is_empty();
        let window = if is_first { member.lease_window } else { (member.lease_window * 2).min(LAST_WINDOW) };
        let leased = blob.lease(node, window - member.n_leased, until);
        if leased.is_empty() {
            return;
        }
        if let Some(member) = blob.member_mut(node) {
            member.lease_window = window;
            member.n_leased += leased.count();
        }
        let what = What::Lease { from, pieces: leased.runs() };
        out.push(Order { to: node.clone(), key: key.clone(), what });
    }

    /// Grants to everybody who wants the blob and is due.
    pub(super) fn grant_all(&mut self, now: Tick, key: &BlobKey, out: &mut Vec<Order>) {
        let wanting = self.blobs.get(key).map(|it| it.wanting.clone()).unwrap_or_default();
        wanting.iter().for_each(|it| self.grant_leases(now, key, it, out));
    }

    /// The node is gone or wants no more: its leases go to the others.
    pub(super) fn release_leases(&mut self, now: Tick, key: &BlobKey, node: &NodeId, out: &mut Vec<Order>) {
        if self.blobs.get_mut(key).is_some_and(|it| it.release(node)) {
            self.grant_all(now, key, out);
        }
    }
}
