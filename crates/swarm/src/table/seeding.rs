//! Seeding: exactly one gateway fetches a blob that the sidecars do not hold between them.
//!
//! The gateway is chosen by rendezvous hashing, so that every scheduler names the same one. A dead one
//! is replaced; its successor goes on from what the nodes hold. One that does not get on is told again:
//! its seed may have failed, and the order costs nothing where it has not.

use shoal_model::{BlobKey, Tick};

use super::blob::BlobEntry;
use super::{Order, Role, Table, What};
use crate::rendezvous;

/// Blobs whose seeding is ordered in one go when a gateway comes; the others follow at the next refresh.
const AT_ONCE: usize = 128;

impl Table {
    /// Names a gateway for the blob, where it needs one and has none, and lets it start.
    pub(super) fn seed(&mut self, now: Tick, key: &BlobKey, out: &mut Vec<Order>) {
        let waits = |it: &&mut BlobEntry| it.seeder.is_none() && !it.is_covered() && !it.wanting.is_empty();
        let Some(blob) = self.blobs.get_mut(key).filter(waits) else { return };
        let gateways = self.nodes.iter().filter(|(_, it)| it.role == Role::Gateway).map(|(id, _)| id);
        let Some(gateway) = rendezvous::winner(key, gateways).cloned() else { return };
        blob.seeded_by(now, Some(gateway.clone()));
        out.push(Order { to: gateway, key: key.clone(), what: What::Seed });
        self.grant_all(now, key, out);
    }

    /// Tells a gateway again whose seed has not moved for the life of a lease.
    pub(super) fn seed_again(&mut self, now: Tick, key: &BlobKey, out: &mut Vec<Order>) {
        let still =
            |it: &&mut BlobEntry| !it.is_covered() && it.seed_moved_at.after(self.policy.lease_lives) <= now;
        let Some(blob) = self.blobs.get_mut(key).filter(still) else { return };
        let Some(gateway) = blob.seeder.clone() else { return };
        blob.seed_moved_at = now;
        out.push(Order { to: gateway, key: key.clone(), what: What::Seed });
    }

    /// A gateway has come: blobs that waited for one get it.
    pub(super) fn seed_waiting(&mut self, now: Tick, out: &mut Vec<Order>) {
        let waits = |it: &&BlobKey| self.blobs.get(*it).is_some_and(|it| it.seeder.is_none());
        let waiting: Vec<_> = self.wanted.iter().filter(waits).take(AT_ONCE).cloned().collect();
        waiting.iter().for_each(|key| self.seed(now, key, out));
    }
}
