//! Asks for pieces, and how nodes answer them: what `crates/peer/src/pieces.rs` and the sidecar's
//! `pull/ask.rs` are in production.

use shoal_model::Role;
use shoal_swarm::PieceIndex;
use shoal_swarm::fetch::{Event, Fault};

use super::{Happens, ShareId, Simulation};
use crate::network::TransferId;

/// Uploads at once, as the default settings of sidecar and gateway say (`upload.concurrentPieceCount`).
const SIDECAR_SLOTS: u32 = 9;
const GATEWAY_SLOTS: u32 = 64;
/// An answer that makes no progress for this long is given up (`crates/peer/src/client.rs`), and a dial.
const STALLED: u64 = 3_000_000;
const DIAL: u64 = 1_000_000;
/// The least time between two signs that bytes move (`sidecar/src/pull/report.rs`).
const SIGNS: u64 = 100_000;

impl Simulation {
    pub(super) fn ask(&mut self, id: ShareId, from: u32, piece: PieceIndex, is_urgent: bool) {
        let node = self.node_of(id);
        let size = self.world.blobs[self.blob_of(id)].len_of(piece);
        let transfer = self.network.ask(id, node, from, piece, size, is_urgent);
        self.share(id).asks.push(transfer);
        let at = self.queue.now() + self.network.delay(node, from);
        self.queue.plan(at, Happens::AskArrives(transfer));
    }

    pub(super) fn ask_arrives(&mut self, id: TransferId) {
        let transfer = self.network.get(id).clone();
        let from = transfer.from;
        if !transfer.is_awaited {
            self.network.unmention(id);
            return;
        }
        if !self.is_alive(from) {
            let is_linked = self.watched_from(transfer.to, from).is_some();
            return self.fails_after(id, if is_linked { STALLED } else { DIAL }, Fault::Silent);
        }
        let slots = match self.world.sites[from as usize].role {
            Role::Sidecar => SIDECAR_SLOTS,
            Role::Gateway => GATEWAY_SLOTS,
        };
        let source = self.share_of(from, self.blob_of(transfer.to));
        let back = self.network.delay(from, self.node_of(transfer.to));
        if !self.shares[source as usize].held.contains(transfer.piece) {
            self.fails_after(id, back, Fault::NotHeld);
        } else if self.network.start(&mut self.queue, id, slots) {
            self.network.unmention(id);
        } else {
            self.counts.refused += 1;
            self.fails_after(id, back, Fault::Busy);
        }
    }

    pub(super) fn fails_after(&mut self, id: TransferId, delay: u64, fault: Fault) {
        self.queue.plan(self.queue.now() + delay, Happens::AskFails { id, fault });
    }

    pub(super) fn ask_fails(&mut self, id: TransferId, fault: Fault) {
        let transfer = self.network.get(id).clone();
        if transfer.is_awaited {
            self.network.give_up(id);
            self.share(transfer.to).asks.retain(|it| *it != id);
            let from = self.nodes[transfer.from as usize].id.clone();
            self.tell_fetch(transfer.to, Event::Failed { from, piece: transfer.piece, fault });
        }
        self.network.unmention(id);
    }

    pub(super) fn quantum_arrives(&mut self, id: TransferId) {
        let is_whole = self.network.arrives(&mut self.queue, id);
        let transfer = self.network.get(id).clone();
        if transfer.is_awaited && self.is_alive(self.node_of(transfer.to)) {
            if is_whole {
                self.received(id);
            } else {
                self.moved(transfer.to, transfer.from);
            }
        }
        self.network.unmention(id);
    }

    fn received(&mut self, id: TransferId) {
        let transfer = self.network.get(id).clone();
        self.network.give_up(id);
        self.share(transfer.to).asks.retain(|it| *it != id);
        self.count_crossing(self.node_of(transfer.to), transfer.from, transfer.to, transfer.piece);
        self.holds(transfer.to, transfer.piece, Some(transfer.from));
    }

    fn count_crossing(&mut self, to: u32, from: u32, share: ShareId, piece: PieceIndex) {
        let length = self.world.blobs[self.blob_of(share)].len_of(piece);
        let (from, to) = (&self.world.sites[from as usize], &self.world.sites[to as usize]);
        if from.zone != to.zone {
            self.counts.into_zone[to.zone] += length;
        }
        if let Some(rack) = to.rack.filter(|_| from.rack != to.rack) {
            self.counts.into_rack[rack] += length;
        }
    }

    fn moved(&mut self, id: ShareId, from: u32) {
        let now = self.queue.now();
        if self.share(id).moved_at + SIGNS <= now {
            self.share(id).moved_at = now;
            let from = Some(self.nodes[from as usize].id.clone());
            self.tell_fetch(id, Event::Moved { from });
        }
    }

    /// Calls off the asks of a source, all of them or one.
    pub(super) fn cancel(&mut self, id: ShareId, from: u32, piece: Option<PieceIndex>) {
        let mut asks = std::mem::take(&mut self.share(id).asks);
        asks.retain(|ask| {
            let it = self.network.get(*ask);
            let stays = it.from != from || piece.is_some_and(|piece| piece != it.piece);
            if !stays {
                self.call_off(*ask);
            }
            stays
        });
        self.share(id).asks = asks;
    }

    pub(super) fn call_off(&mut self, ask: TransferId) {
        let transfer = self.network.get(ask).clone();
        self.network.give_up(ask);
        self.network.mention(ask);
        let at = self.queue.now() + self.network.delay(self.node_of(transfer.to), transfer.from);
        self.queue.plan(at, Happens::CancelArrives(ask));
    }

    pub(super) fn cancel_arrives(&mut self, id: TransferId) {
        self.network.stop(id);
        self.network.unmention(id);
    }

    /// A node is dead: what was asked of it stands still until the asker's patience is over.
    pub(super) fn cut_transfers(&mut self, node: u32) {
        for id in self.network.cut(node) {
            self.network.mention(id);
            self.fails_after(id, STALLED, Fault::Silent);
        }
    }
}
