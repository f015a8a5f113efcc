//! Seeding: exactly one gateway fetches a blob that the sidecars do not hold between them.
//!
//! The gateway is chosen by rendezvous hashing, so that every scheduler names the same one. A dead one
//! is replaced; its successor goes on from what the nodes hold, and is told some who hold pieces. So is one that does
//! not get on: it may hang. The order costs little where it does not, since gateways know of each other who reads a
//! blob; but the nodes have to turn to another each time, so the patience doubles. Where there is no other, the one
//! that there is is told again: its seed may have failed.
//!
//! After a scheduler has come or gone, wishes may be heard before those who hold the blob: the nodes come to its owner
//! one by one. A gateway that has nothing of the blob would then read the registry for what lies next door. So such a
//! blob *settles* first: wishes are answered with neighbours, and seeded a moment later if need be.

use std::cmp::Reverse;
use std::time::Duration;

use shoal_model::{NodeId, Tick};

use super::{BlobNumber, NodeNumber, Order, Role, Table, What};
use crate::{Bitmap, rendezvous};

/// So many who hold pieces are named to a gateway.
const MAX_HOLDERS: usize = 8;
/// After so many gateways that did not get on the patience doubles no more.
const MAX_DOUBLED: u32 = 5;

impl Table {
    /// Names a gateway for the blob, where it needs one and has none, and lets it start.
    pub(super) fn seed(&mut self, now: Tick, blob: BlobNumber, out: &mut Vec<Order>) {
        let entry = &self.blobs[blob];
        if entry.seeder.is_some() || entry.is_covered() || entry.wanting().len() == 0 {
            return;
        }
        let winner = rendezvous::winner(self.blobs.name(blob), self.gateways());
        let Some(gateway) = winner.and_then(|it| self.nodes.number(it)) else { return };
        // What the gateway holds, or is fetching, it need not read again.
        if entry.is_settling(now) && entry.held(gateway).is_none_or(Bitmap::is_empty) {
            return;
        }
        self.name_seeder(now, blob, gateway, out);
    }

    /// Holders of the blob may be yet to come: it is given a while from the first wish of this kind on.
    pub(super) fn let_settle(&mut self, now: Tick, blob: BlobNumber) {
        let entry = &mut self.blobs[blob];
        if entry.seeder.is_none() && entry.settled_at.is_none() {
            let until = now.after(self.policy.settle);
            entry.settled_at = Some(until);
            self.settled_at = Some(self.settled_at.map_or(until, |it| it.min(until)));
        }
    }

    /// Blobs that have settled and are not covered by then are seeded.
    pub(super) fn seed_settled(&mut self, now: Tick, out: &mut Vec<Order>) {
        if self.settled_at.is_some_and(|it| it <= now) {
            let settling = self.wanted.iter().filter_map(|it| self.blobs[*it].settled_at);
            self.settled_at = settling.filter(|it| *it > now).min();
            self.seed_waiting(now, out);
        }
    }

    /// Passes a blob whose seed does not move on to the next gateway, or tells the only one again.
    pub(super) fn seed_again(&mut self, now: Tick, blob: BlobNumber, out: &mut Vec<Order>) {
        let entry = &self.blobs[blob];
        let Some(gateway) = entry.seeder.filter(|_| !entry.is_covered()) else { return };
        let (still, patience) = (now.since(entry.seed_moved_at), self.patience(entry.n_passed_on));
        if still < patience.min(self.policy.lease_lives) {
            return;
        }
        let next = rendezvous::successor(self.blobs.name(blob), self.nodes.name(gateway), self.gateways());
        match next.and_then(|it| self.nodes.number(it)).filter(|it| *it != gateway) {
            Some(next) if still >= patience => {
                self.blobs[blob].n_passed_on += 1;
                self.name_seeder(now, blob, next, out);
            }
            None if still >= self.policy.lease_lives => {
                self.blobs[blob].seed_moved_at = now;
                out.push(self.seed_order(blob, gateway));
            }
            _ => {}
        }
    }

    /// For how long a seed may stand still after so many gateways did not get on.
    fn patience(&self, n_passed_on: u32) -> Duration {
        self.policy.lease_lives / 2 * (1 << n_passed_on.min(MAX_DOUBLED))
    }

    fn gateways(&self) -> impl Iterator<Item = &NodeId> + Clone {
        self.nodes.iter().filter(|(_, it)| it.role == Role::Gateway).map(|(name, _)| name)
    }

    fn name_seeder(&mut self, now: Tick, blob: BlobNumber, gateway: NodeNumber, out: &mut Vec<Order>) {
        let entry = &mut self.blobs[blob];
        entry.seeded_by(now, Some(gateway));
        // Those for whom there is no lease have to know as well where to turn.
        entry.urgent.extend(entry.wanting().collect::<Vec<_>>());
        out.push(self.seed_order(blob, gateway));
        self.grant_all(now, blob, out);
    }

    fn seed_order(&self, blob: BlobNumber, gateway: NodeNumber) -> Order {
        let entry = &self.blobs[blob];
        let n_held = |it: &NodeNumber| entry.held(*it).map_or(0, Bitmap::count);
        let mut holders: Vec<_> =
            entry.members().filter(|it| *it != gateway).map(|it| (n_held(&it), it)).collect();
        holders.retain(|(n_held, _)| *n_held > 0);
        holders.sort_unstable_by_key(|(n_held, _)| Reverse(*n_held));
        let named = holders.into_iter().take(MAX_HOLDERS).map(|(_, it)| self.nodes.name(it).clone());
        let holders = named.collect();
        self.order(blob, gateway, What::Seed { holders })
    }

    /// A gateway has come: blobs that waited for one get it.
    pub(super) fn seed_waiting(&mut self, now: Tick, out: &mut Vec<Order>) {
        let waits = |it: &BlobNumber| {
            let entry = &self.blobs[*it];
            entry.seeder.is_none() && !entry.is_settling(now) && !entry.is_covered()
        };
        let waiting = self.wanted.iter().copied().filter(waits).take(self.policy.seeds_at_once);
        let waiting: Vec<_> = waiting.collect();
        waiting.into_iter().for_each(|it| self.seed(now, it, out));
    }
}
