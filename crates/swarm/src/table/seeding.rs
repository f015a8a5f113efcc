//! Seeding: exactly one gateway fetches a blob that the sidecars do not hold between them.
//!
//! The gateway is chosen by rendezvous hashing, so that every scheduler names the same one. A dead one
//! is replaced; its successor goes on from what the nodes hold. One that does not get on is told again:
//! its seed may have failed, and the order costs nothing where it has not.
//!
//! After a scheduler has come or gone, wishes may be heard before those who hold the blob: the nodes come to its owner
//! one by one. A gateway that has nothing of the blob would then read the registry for what lies next door. So such a
//! blob *settles* first: wishes are answered with neighbours, and seeded a moment later if need be.

use shoal_model::Tick;

use super::{BlobNumber, Order, Role, Table, What};
use crate::{Bitmap, rendezvous};

impl Table {
    /// Names a gateway for the blob, where it needs one and has none, and lets it start.
    pub(super) fn seed(&mut self, now: Tick, blob: BlobNumber, out: &mut Vec<Order>) {
        let entry = &self.blobs[blob];
        if entry.seeder.is_some() || entry.is_covered() || entry.wanting().len() == 0 {
            return;
        }
        let gateways = self.nodes.iter().filter(|(_, it)| it.role == Role::Gateway).map(|(name, _)| name);
        let winner = rendezvous::winner(self.blobs.name(blob), gateways);
        let Some(gateway) = winner.and_then(|it| self.nodes.number(it)) else { return };
        // What the gateway holds, or is fetching, it need not read again.
        if entry.is_settling(now) && entry.held(gateway).is_none_or(Bitmap::is_empty) {
            return;
        }
        self.blobs[blob].seeded_by(now, Some(gateway));
        out.push(self.order(blob, gateway, What::Seed));
        self.grant_all(now, blob, out);
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

    /// Tells a gateway again whose seed has not moved for the life of a lease.
    pub(super) fn seed_again(&mut self, now: Tick, blob: BlobNumber, out: &mut Vec<Order>) {
        let entry = &mut self.blobs[blob];
        if entry.is_covered() || entry.seed_moved_at.after(self.policy.lease_lives) > now {
            return;
        }
        let Some(gateway) = entry.seeder else { return };
        entry.seed_moved_at = now;
        out.push(self.order(blob, gateway, What::Seed));
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
