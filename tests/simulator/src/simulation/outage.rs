//! What breaks, and how the others find out.

use shoal_swarm::fetch;
use shoal_swarm::table::Event;

use super::{Happens, ShareId, Simulation};
use crate::world::Fault;

/// A scheduler finds a silent stream to be dead after 10 s to the next ping and 5 s for its answer
/// (`crates/ops/src/serve/connection.rs`).
const PING: usize = 10_000_000;
const PONG: u64 = 5_000_000;

impl Simulation {
    pub(super) fn breaks(&mut self, fault: Fault) {
        match fault {
            Fault::Dies(node) => self.dies(node as u32),
            Fault::SendsAt(node, rate) => self.network.send_at(node as u32, rate),
            Fault::SchedulerDies(region) => self.scheduler_dies(region),
        }
    }

    fn dies(&mut self, node: u32) {
        if !std::mem::replace(&mut self.nodes[node as usize].is_alive, false) {
            return;
        }
        self.nodes[node as usize].died_at = Some(self.queue.now());
        for blob in 0..self.keys.len() {
            let id = self.share_of(node, blob);
            let share = self.share(id);
            if share.joined_at.is_some() && share.done_at.is_none() && !share.has_given_up {
                self.n_unfinished -= 1;
            }
            self.end_silently(id);
            self.orphan_watchers(id);
        }
        self.cut_transfers(node);
        let at = self.queue.now() + self.rng.below(PING) as u64 + PONG;
        self.queue.plan(at, Happens::NodeMissed(node));
    }

    /// Nobody hears of it.
    fn end_silently(&mut self, id: ShareId) {
        self.share(id).fetch = None;
        for watch in std::mem::take(&mut self.share(id).watching) {
            self.end_watch(watch);
        }
        for ask in std::mem::take(&mut self.share(id).asks) {
            self.network.give_up(ask);
        }
    }

    pub(super) fn node_missed(&mut self, node: u32) {
        let region = self.world.sites[node as usize].region;
        let left = Event::Left(self.nodes[node as usize].id.clone());
        self.tell_table(region, vec![left]);
    }

    fn scheduler_dies(&mut self, region: usize) {
        self.schedulers[region] = None;
        let now = self.queue.now();
        for id in 0..self.shares.len() as ShareId {
            let node = self.node_of(id);
            if self.world.sites[node as usize].region == region && self.shares[id as usize].fetch.is_some() {
                let at = now + self.network.delay(node, self.gateway_of(node));
                self.queue.plan(at, Happens::SchedulerLost(id));
            }
        }
    }

    pub(super) fn scheduler_lost(&mut self, id: ShareId) {
        self.tell_fetch(id, fetch::Event::Scheduler(false));
    }

    /// Whether the machine was dead before this.
    pub(super) fn died_before(&self, node: u32, at: u64) -> bool {
        self.nodes[node as usize].died_at.is_some_and(|it| it < at)
    }
}
