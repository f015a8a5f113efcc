//! The driver of a node's fetch: what `sidecar/src/pull/driver.rs` is in production.

use shoal_model::Rng;
use shoal_swarm::fetch::{Action, Event, Fetch, Policy, Rung, next_needed, slots_each};
use shoal_swarm::{Algorithm, Bitmap, PieceIndex};

use super::{Happens, ShareId, Simulation, number};
use crate::journal::Entry;

/// Nodes that the gateway names to whoever opens a blob.
const HOLDERS: usize = 12;

impl Simulation {
    /// A runtime on the node asks for every blob; the gateway is asked first.
    pub(super) fn joins(&mut self, node: u32) {
        if !self.is_alive(node) {
            self.n_unfinished -= self.keys.len();
            return;
        }
        let now = self.queue.now();
        for blob in 0..self.keys.len() {
            let share = self.share_of(node, blob);
            self.share(share).joined_at = Some(now);
            let gateway = self.gateway_of(node);
            let round_trip = self.network.delay(node, gateway) + self.network.delay(gateway, node);
            self.queue.plan(now + round_trip, Happens::Opened(share));
        }
    }

    /// The gateway has granted the blob: the fetch begins.
    pub(super) fn opened(&mut self, id: ShareId) {
        let (node, blob) = (self.node_of(id), self.blob_of(id));
        if !self.is_alive(node) {
            return;
        }
        let me = self.nodes[node as usize].id.clone();
        let region = self.world.sites[node as usize].region;
        let rng = Rng::new(Rng::new(self.seed ^ u64::from(id)).next_u64());
        let (now, key) = (self.now(), self.keys[blob].clone());
        self.note(Entry::FetchBegins { now, node: me.clone(), key: key.clone(), rng: rng.clone() });
        let held = Bitmap::new(self.world.blobs[blob].n_pieces());
        let fetch = Fetch::new(now, me.clone(), key, held, Policy::default(), rng);
        self.share(id).fetch = Some(fetch);
        let has_scheduler = self.schedulers[region].is_some();
        self.want(id);
        let gateway = self.nodes[self.gateway_of(node) as usize].id.clone();
        let holders = &mut self.holders[region * self.keys.len() + blob];
        let known: Vec<_> = holders.iter().cloned().collect();
        holders.push_back(me);
        if holders.len() > HOLDERS {
            holders.pop_front();
        }
        self.tell_fetch(id, Event::Scheduler(has_scheduler));
        self.tell_fetch(id, Event::Gateway(gateway));
        if !has_scheduler {
            self.tell_fetch(
                id,
                Event::Neighbours { near: known, far: Vec::new(), algorithm: Algorithm::Default },
            );
        }
        self.tell_demand(id);
        self.divide_slots(node);
    }

    /// As the sidecar's `pull/slots.rs`.
    fn divide_slots(&mut self, node: u32) {
        let shares = (0..self.keys.len()).map(|it| self.share_of(node, it));
        let fetching: Vec<_> = shares.filter(|it| self.shares[*it as usize].fetch.is_some()).collect();
        let slots = slots_each(Policy::default().slots, fetching.len());
        fetching.into_iter().for_each(|it| self.tell_fetch(it, Event::Slots(slots)));
    }

    pub(super) fn wakes(&mut self, id: ShareId) {
        let now = self.queue.now();
        // Another, earlier plan may have taken this one's place.
        if self.share(id).wakes_at == Some(now) {
            self.share(id).wakes_at = None;
            self.tell_fetch(id, Event::Deadline);
        }
    }

    /// Hands an event to the machine and does what it says.
    pub(super) fn tell_fetch(&mut self, id: ShareId, event: Event) {
        let now = self.now();
        if self.journal.is_some() {
            self.note_fetch_hears(id, &event);
        }
        let share = &mut self.shares[id as usize];
        let Some(fetch) = &mut share.fetch else { return };
        let mut actions = Vec::new();
        fetch.on_event(now, event, &mut actions);
        if let Some(at) = fetch.next_deadline(now).filter(|it| share.wakes_at.is_none_or(|at| it.0 < at)) {
            share.wakes_at = Some(at.0);
            self.queue.plan(at.0, Happens::Wakes(id));
        }
        actions.into_iter().for_each(|it| self.act(id, it));
    }

    fn note_fetch_hears(&mut self, id: ShareId, event: &Event) {
        let (now, event) = (self.now(), event.clone());
        let node = self.nodes[self.node_of(id) as usize].id.clone();
        let key = self.keys[self.blob_of(id)].clone();
        if self.shares[id as usize].fetch.is_some() {
            self.note(Entry::FetchHears { now, node, key, event });
        }
    }

    fn act(&mut self, id: ShareId, action: Action) {
        match action {
            Action::Watch(from) => self.watch(id, number(&from)),
            Action::Leave(from) => self.forget(id, number(&from)),
            Action::Ask { from, piece, is_urgent } => self.ask(id, number(&from), piece, is_urgent),
            Action::Cancel { from, piece } => self.cancel(id, number(&from), Some(piece)),
            Action::Strand => self.strand(id),
            Action::GoDirect => self.go_direct(id),
            Action::GiveUp => self.give_up(id),
            Action::Finished => self.finish(id),
        }
    }

    /// The runtime reads in order.
    fn tell_demand(&mut self, id: ShareId) {
        let geometry = self.world.blobs[self.blob_of(id)];
        let Some(fetch) = &self.shares[id as usize].fetch else { return };
        let demand = next_needed(&geometry, fetch.held(), 0);
        self.tell_fetch(id, Event::Demand(demand.into_iter().collect()));
    }

    /// A piece is in the node's store.
    pub(super) fn holds(&mut self, id: ShareId, piece: PieceIndex, from: Option<u32>) {
        let now = self.queue.now();
        let share = self.share(id);
        if !share.held.insert(piece) {
            self.counts.wasted += 1;
            return;
        }
        share.log.push((piece, now));
        self.tell_watchers(id);
        self.changed(self.node_of(id));
        self.fetched(id, piece, from);
    }

    /// The machine hears of a piece; it may still be provisional.
    pub(super) fn fetched(&mut self, id: ShareId, piece: PieceIndex, from: Option<u32>) {
        let n_leased = self.n_leased(id);
        let from = from.map(|it| self.nodes[it as usize].id.clone());
        self.tell_fetch(id, Event::Held { piece, from });
        self.tell_demand(id);
        if self.n_leased(id) < n_leased {
            self.hurry(self.node_of(id));
        }
    }

    fn n_leased(&self, id: ShareId) -> usize {
        self.shares[id as usize].fetch.as_ref().map_or(0, Fetch::n_leased)
    }

    /// Ends the watch on a source and all asks of it.
    pub(super) fn forget(&mut self, id: ShareId, source: u32) {
        self.unwatch(id, source);
        self.cancel(id, source, None);
    }

    fn finish(&mut self, id: ShareId) {
        let now = self.queue.now();
        let share = self.share(id);
        if share.done_at.replace(now).is_none() && !share.has_given_up {
            self.n_unfinished -= 1;
        }
        self.end_fetch(id);
    }

    fn give_up(&mut self, id: ShareId) {
        self.share(id).has_given_up = true;
        self.n_unfinished -= 1;
        self.unwant(id);
        self.end_fetch(id);
    }

    /// The driver's tasks end with it.
    pub(super) fn end_fetch(&mut self, id: ShareId) {
        self.share(id).fetch = None;
        for watch in std::mem::take(&mut self.share(id).watching) {
            self.end_watch(watch);
        }
        for ask in std::mem::take(&mut self.share(id).asks) {
            self.call_off(ask);
        }
        self.hurry(self.node_of(id));
        if self.is_alive(self.node_of(id)) {
            self.divide_slots(self.node_of(id));
        }
    }

    // === The registry ===

    fn go_direct(&mut self, id: ShareId) {
        let n_pieces = self.shares[id as usize].held.len();
        self.share(id).provisional.get_or_insert_with(|| Bitmap::new(n_pieces));
        self.read_on(id, 0);
    }

    /// Reads the next missing piece; the registry is as fast as the node's own link.
    fn read_on(&mut self, id: ShareId, from: PieceIndex) {
        let Some(fetch) = self.shares[id as usize].fetch.as_ref() else { return };
        let Some(piece) = fetch.held().first_missing(from).filter(|_| fetch.rung() == Rung::Direct) else {
            return;
        };
        let length = self.world.blobs[self.blob_of(id)].len_of(piece);
        let rate = self.world.sites[self.node_of(id) as usize].down;
        self.counts.registry += length;
        let at = self.queue.now() + crate::network::time_of(length, rate);
        self.queue.plan(at, Happens::DirectRead { share: id, piece });
    }

    pub(super) fn direct_read(&mut self, id: ShareId, piece: PieceIndex) {
        let share = self.share(id);
        if share.fetch.is_none() {
            return;
        }
        let Some(provisional) = &mut share.provisional else { return };
        provisional.insert(piece);
        let (provisional, held) = (provisional.clone(), share.held.clone());
        self.fetched(id, piece, None);
        if provisional.minus(&held).count() + held.count() == held.len() {
            provisional.minus(&held).iter().for_each(|it| self.holds(id, it, None));
        }
        self.read_on(id, piece + 1);
    }
}
