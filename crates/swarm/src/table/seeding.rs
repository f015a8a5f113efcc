//! Seeding: exactly one gateway fetches a blob that the sidecars do not hold between them.
//!
//! The gateway is chosen by rendezvous hashing, so that every scheduler names the same one. A dead one
//! is replaced; its successor goes on from what the nodes hold. One that does not get on is told again:
//! its seed may have failed, and the order costs nothing where it has not.

use shoal_model::Tick;

use super::{BlobNumber, Order, Role, Table, What};
use crate::rendezvous;

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
        self.blobs[blob].seeded_by(now, Some(gateway));
        out.push(self.order(blob, gateway, What::Seed));
        self.grant_all(now, blob, out);
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
        let waits = |it: &BlobNumber| self.blobs[*it].seeder.is_none() && !self.blobs[*it].is_covered();
        let waiting: Vec<_> =
            self.wanted.iter().copied().filter(waits).take(self.policy.seeds_at_once).collect();
        waiting.into_iter().for_each(|it| self.seed(now, it, out));
    }
}
