//! How nodes hear what others hold: what `crates/peer/src/watch.rs` is in production.
//!
//! Messages that bring pieces keep a distance ([`news`]) and carry all that came since the last one; the first after
//! a quiet time goes out at once. A message is planned once, for when it arrives, and holds what its sender
//! had when it left.

use std::time::Duration;

use shoal_model::Role;
use shoal_swarm::bitmap::runs;
use shoal_swarm::fetch::Event;
use shoal_swarm::news;

use super::{Happens, ShareId, Simulation};

/// A silent connection is found to be dead after 10 s to the next ping and 5 s for its answer
/// (`crates/peer/src/channel.rs`).
const PING: usize = 10_000_000;
const PONG: u64 = 5_000_000;
/// A dial of a machine that does not answer.
const DIAL: u64 = 1_000_000;

pub(super) type WatchId = u32;

/// One watch; its number is never used again.
pub(super) struct Watch {
    by: ShareId,
    pub from: u32,
    is_on: bool,
    /// How much of the source's log was told.
    n_told: usize,
    /// When the last message with pieces left.
    last: Option<u64>,
    /// No message leaves before this.
    quiet_until: u64,
    /// When the message that is planned leaves.
    leaves_at: Option<u64>,
}

impl Simulation {
    pub(super) fn watch(&mut self, by: ShareId, from: u32) {
        self.unwatch(by, from);
        let id = self.watches.len() as WatchId;
        let watch = Watch { by, from, is_on: true, n_told: 0, last: None, quiet_until: 0, leaves_at: None };
        self.watches.push(watch);
        self.share(by).watching.push(id);
        let at = self.queue.now() + self.network.delay(self.node_of(by), from);
        self.queue.plan(at, Happens::WatchArrives(id));
    }

    pub(super) fn watched_from(&self, by: ShareId, from: u32) -> Option<WatchId> {
        self.shares[by as usize].watching.iter().copied().find(|it| self.watches[*it as usize].from == from)
    }

    pub(super) fn unwatch(&mut self, by: ShareId, from: u32) {
        if let Some(id) = self.watched_from(by, from) {
            self.share(by).watching.retain(|it| *it != id);
            self.end_watch(id);
        }
    }

    pub(super) fn end_watch(&mut self, id: WatchId) {
        let Watch { by, from, .. } = self.watches[id as usize];
        self.watches[id as usize].is_on = false;
        let source = self.share_of(from, self.blob_of(by));
        self.share(source).watchers.retain(|it| *it != id);
    }

    pub(super) fn watch_arrives(&mut self, id: WatchId) {
        let Watch { by, from, is_on, .. } = self.watches[id as usize];
        if !is_on {
            return;
        }
        let now = self.queue.now();
        if !self.is_alive(from) {
            return self.queue.plan(now + DIAL, Happens::WatchEnds { id, is_well: false });
        }
        let source = self.share_of(from, self.blob_of(by));
        if self.world.sites[from as usize].role == Role::Gateway {
            // Who shows a ticket for a blob that is not there has it seeded.
            self.seed(source);
        } else if self.shares[source as usize].fetch.is_none() && self.shares[source as usize].log.is_empty()
        {
            let back = self.network.delay(from, self.node_of(by));
            return self.queue.plan(now + back, Happens::WatchEnds { id, is_well: true });
        }
        self.share(source).watchers.push(id);
        self.plan_news(id, now);
    }

    pub(super) fn watch_ends(&mut self, id: WatchId, is_well: bool) {
        let Watch { by, from, is_on, .. } = self.watches[id as usize];
        if is_on {
            self.forget(by, from);
            let from = self.nodes[from as usize].id.clone();
            self.tell_fetch(by, Event::Lost { from, is_well });
        }
    }

    /// The source has something new for every watcher.
    pub(super) fn tell_watchers(&mut self, source: ShareId) {
        let now = self.queue.now();
        let watchers = std::mem::take(&mut self.share(source).watchers);
        for id in &watchers {
            if self.watches[*id as usize].leaves_at.is_none() {
                self.plan_news(*id, now);
            }
        }
        self.share(source).watchers = watchers;
    }

    fn plan_news(&mut self, id: WatchId, at: u64) {
        let watch = &mut self.watches[id as usize];
        let Watch { by, from, .. } = *watch;
        let leaves_at = at.max(watch.quiet_until);
        watch.leaves_at = Some(leaves_at);
        let delay = self.network.delay(from, self.node_of(by));
        // One that left while the last was under way does not overtake it.
        let arrives_at = (leaves_at + delay).max(self.queue.now());
        self.queue.plan(arrives_at, Happens::News(id));
    }

    /// A message arrives.
    pub(super) fn news(&mut self, id: WatchId) {
        let watch = &mut self.watches[id as usize];
        let Some(left_at) = watch.leaves_at.take().filter(|_| watch.is_on) else { return };
        let Watch { by, from, n_told, .. } = *watch;
        let source = self.share_of(from, self.blob_of(by));
        if self.died_before(from, left_at) {
            return;
        }
        let log = &self.shares[source as usize].log;
        let untold = &log[n_told..];
        let n_new = untold.iter().take_while(|(_, at)| *at <= left_at).count();
        let gained = runs(untold[..n_new].iter().map(|(piece, _)| *piece));
        let alive = self.shares[source as usize].seed.as_ref().is_some_and(|it| it.is_at_work());
        let next = untold.get(n_new).map(|(_, at)| *at);
        let n_pieces = self.world.blobs[self.blob_of(by)].n_pieces();
        let watch = &mut self.watches[id as usize];
        watch.n_told += n_new;
        if n_new > 0 {
            let since = Duration::from_micros(watch.last.replace(left_at).map_or(0, |it| left_at - it));
            let distance = news::distance(watch.n_told as u32, n_pieces, n_new as u32, since);
            watch.quiet_until = left_at + distance.as_micros() as u64;
        }
        if let Some(at) = next {
            self.plan_news(id, at);
        }
        let from = self.nodes[from as usize].id.clone();
        self.tell_fetch(by, Event::News { from, dropped: false, lost: Vec::new(), gained, alive });
    }

    /// The machine is dead: who watches it finds out by its silence.
    pub(super) fn orphan_watchers(&mut self, source: ShareId) {
        for id in self.shares[source as usize].watchers.clone() {
            let at = self.queue.now() + self.rng.below(PING) as u64 + PONG;
            self.queue.plan(at, Happens::WatchEnds { id, is_well: false });
        }
    }
}
