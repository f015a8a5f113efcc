//! A gateway's seed: what `gateway/src/seed` is in production.
//!
//! It reads the blob once, in order, from the registry or from the hub's gateway, and may share a piece once
//! that is signed, which happens at once after a quiet time and in batches else.

use shoal_model::Role;
use shoal_swarm::PieceIndex;

use super::{Happens, ShareId, Simulation};
use crate::network::time_of;

/// The most pieces under one signature, and the least time between two that cover fewer
/// (`gateway/src/seed/writer.rs`).
const BATCH: u32 = 8;
const DISTANCE: u64 = 20_000;

/// A seed.
#[derive(Debug, Default)]
pub(super) struct Seed {
    n_read: PieceIndex,
    n_signed: PieceIndex,
    /// Counts the signatures.
    batch: u32,
    /// No batch is signed before this unless it is full.
    sign_from: u64,
    n_pieces: PieceIndex,
    /// It waits for the hub's gateway to hold the next piece.
    is_waiting: bool,
}

impl Seed {
    pub(super) const fn is_at_work(&self) -> bool {
        self.n_signed < self.n_pieces
    }
}

impl Simulation {
    /// The gateway of a node's region, dead or alive.
    pub(super) fn gateway_of(&self, node: u32) -> u32 {
        let region = self.world.sites[node as usize].region;
        let gateways = self.world.sites.iter().position(|it| it.role == Role::Gateway && it.region == region);
        gateways.expect("every region has a gateway") as u32
    }

    /// Starts the seed of a blob, where it has not begun.
    pub(super) fn seed(&mut self, id: ShareId) {
        let n_pieces = self.shares[id as usize].held.len();
        if self.shares[id as usize].seed.is_none() && self.is_alive(self.node_of(id)) {
            self.share(id).seed = Some(Seed { n_pieces, ..Seed::default() });
            if let Some(hub) = self.hub_of(id) {
                self.seed(hub);
            }
            self.read_next(id);
        }
    }

    /// The same blob at the gateway that this one reads from, where that is not the registry.
    fn hub_of(&self, id: ShareId) -> Option<ShareId> {
        let hub = self.world.sites[self.node_of(id) as usize].upstream?;
        Some(self.share_of(hub as u32, self.blob_of(id)))
    }

    fn read_next(&mut self, id: ShareId) {
        let hub = self.hub_of(id);
        let (node, geometry) = (self.node_of(id), self.world.blobs[self.blob_of(id)]);
        let Some(seed) = &mut self.shares[id as usize].seed else { return };
        let piece = seed.n_read;
        if piece == seed.n_pieces {
            return;
        }
        if hub.is_some_and(|it| !self.shares[it as usize].held.contains(piece)) {
            if let Some(seed) = &mut self.share(id).seed {
                seed.is_waiting = true;
            }
            return;
        }
        if hub.is_none() {
            self.counts.registry += geometry.len_of(piece);
        }
        // Several seeds at once share what comes in.
        let took = time_of(geometry.len_of(piece), self.world.sites[node as usize].seed_rate);
        let free_at = &mut self.seeds_until[node as usize];
        *free_at = (*free_at).max(self.queue.now()) + took;
        self.queue.plan(*free_at, Happens::SeedRead(id));
    }

    pub(super) fn seed_read(&mut self, id: ShareId) {
        if !self.is_alive(self.node_of(id)) {
            return;
        }
        let now = self.queue.now();
        let Some(seed) = &mut self.shares[id as usize].seed else { return };
        seed.n_read += 1;
        let (n_unsigned, batch, sign_from) = (seed.n_read - seed.n_signed, seed.batch, seed.sign_from);
        if n_unsigned == BATCH || seed.n_read == seed.n_pieces || now >= sign_from {
            self.seed_signs(id, batch);
        } else if n_unsigned == 1 {
            self.queue.plan(sign_from, Happens::SeedSigns { share: id, batch });
        }
        self.read_next(id);
    }

    pub(super) fn seed_signs(&mut self, id: ShareId, batch: u32) {
        let is_alive = self.is_alive(self.node_of(id));
        let sign_from = self.queue.now() + DISTANCE;
        let Some(seed) = self.share(id).seed.as_mut().filter(|it| it.batch == batch && is_alive) else {
            return;
        };
        let pieces = seed.n_signed..seed.n_read;
        (seed.n_signed, seed.batch, seed.sign_from) = (seed.n_read, batch + 1, sign_from);
        pieces.for_each(|it| self.holds(id, it, None));
        self.wake_regional_seeds(id);
    }

    fn wake_regional_seeds(&mut self, hub: ShareId) {
        for node in 0..self.nodes.len() as u32 {
            let id = self.share_of(node, self.blob_of(hub));
            if self.hub_of(id) != Some(hub) {
                continue;
            }
            let waits = self.share(id).seed.as_mut().is_some_and(|it| std::mem::take(&mut it.is_waiting));
            if waits {
                self.read_next(id);
            }
        }
    }
}
