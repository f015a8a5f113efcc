//! The shell around a scheduler's table: what `scheduler/src/board.rs` is in production.
//!
//! The table's own time is not simulated: it answers at once.

use shoal_model::{Place, Rng};
use shoal_swarm::table::{Event, Order, Policy, Table, What};
use shoal_swarm::{Algorithm, fetch};

use super::{Happens, ShareId, Simulation, number};
use crate::journal::Entry;

/// One region's scheduler.
pub(super) struct Scheduler {
    table: Table,
    wakes_at: Option<u64>,
}

/// What a node said in one message.
pub(crate) struct Heard {
    pub(super) node: u32,
    pub(super) events: Vec<Event>,
}

impl Scheduler {
    pub(super) fn new(algorithm: Algorithm, rng: Rng) -> Self {
        let policy = Policy { algorithm, ..Policy::default() };
        Self { table: Table::new(policy, rng), wakes_at: None }
    }
}

impl Simulation {
    /// The node's stream to its scheduler stands, before anybody asks for anything.
    pub(super) fn connect(&mut self, node: u32) {
        let site = &self.world.sites[node as usize];
        let rack = site.rack.map_or(String::new(), |it| format!("r{it}"));
        let place = Place { zone: format!("z{}", site.zone).as_str().into(), rack: rack.as_str().into() };
        let joined = Event::Joined { node: self.nodes[node as usize].id.clone(), role: site.role, place };
        self.tell_table(site.region, vec![joined]);
    }

    /// Sends a message to the node's scheduler.
    pub(super) fn say(&mut self, node: u32, heard: Heard) {
        self.counts.scheduler_messages += 1;
        let delay = self.delay_to_scheduler(node);
        let seat = &mut self.nodes[node as usize];
        seat.said_until = seat.said_until.max(self.queue.now() + delay);
        self.queue.plan(seat.said_until, Happens::Heard(Box::new(heard)));
    }

    pub(super) fn want(&mut self, id: ShareId) {
        let node = self.node_of(id);
        let report = self.statement(id, self.shares[id as usize].held.runs());
        self.say(node, Heard { node, events: vec![Event::Want { report, moved: false }] });
    }

    pub(super) fn unwant(&mut self, id: ShareId) {
        let (node, key) = (self.node_of(id), self.keys[self.blob_of(id)].clone());
        let event = Event::Unwant { node: self.nodes[node as usize].id.clone(), key };
        self.say(node, Heard { node, events: vec![event] });
    }

    pub(super) fn strand(&mut self, id: ShareId) {
        let (node, key) = (self.node_of(id), self.keys[self.blob_of(id)].clone());
        let event = Event::Stranded { node: self.nodes[node as usize].id.clone(), key };
        self.say(node, Heard { node, events: vec![event] });
    }

    pub(super) fn heard(&mut self, heard: Heard) {
        // What was on its way when its sender died still arrives; a node that was missed is not heard.
        let region = self.world.sites[heard.node as usize].region;
        self.tell_table(region, heard.events);
    }

    pub(super) fn table_wakes(&mut self, region: usize) {
        let now = self.queue.now();
        if let Some(scheduler) = self.schedulers[region].as_mut().filter(|it| it.wakes_at == Some(now)) {
            scheduler.wakes_at = None;
            self.tell_table(region, vec![Event::Deadline]);
        }
    }

    pub(super) fn tell_table(&mut self, region: usize, events: Vec<Event>) {
        let now = self.now();
        let Some(scheduler) = &mut self.schedulers[region] else { return };
        let mut orders = Vec::new();
        for event in events {
            self.journal.iter_mut().for_each(|it| {
                it.entries.push(Entry::TableHears { region, now, event: event.clone() });
            });
            scheduler.table.on_event(now, event, &mut orders);
        }
        let wakes_at = scheduler.wakes_at;
        let due = scheduler.table.next_deadline(now).filter(|it| wakes_at.is_none_or(|at| it.0 < at));
        if let Some(at) = due {
            scheduler.wakes_at = Some(at.0);
            self.queue.plan(at.0, Happens::TableWakes(region));
        }
        orders.into_iter().for_each(|it| self.send(it));
    }

    fn send(&mut self, order: Order) {
        self.counts.scheduler_messages += 1;
        let node = number(&order.to);
        let delay = self.delay_to_scheduler(node);
        let seat = &mut self.nodes[node as usize];
        seat.told_until = seat.told_until.max(self.queue.now() + delay);
        self.queue.plan(seat.told_until, Happens::Ordered(Box::new(order)));
    }

    /// A node hears from its scheduler.
    pub(super) fn ordered(&mut self, order: Order) {
        let node = number(&order.to);
        if !self.is_alive(node) {
            return;
        }
        let id = self.share_called(node, &order);
        match order.what {
            What::Neighbours { near, far, algorithm, .. } => {
                self.tell_fetch(id, fetch::Event::Neighbours { near, far, algorithm });
            }
            What::Lease { from, pieces } => {
                let role = self.world.sites[number(&from) as usize].role;
                self.tell_fetch(id, fetch::Event::Leased { from, role, pieces });
            }
            // The gateways of simulated regions lose nothing, so whoever else holds pieces is nothing to them.
            What::Seed { .. } => self.seed(id),
            What::GoDirect => self.tell_fetch(id, fetch::Event::MayGoDirect),
        }
    }

    fn share_called(&self, node: u32, order: &Order) -> ShareId {
        let blob = self.keys.iter().position(|it| *it == order.key);
        self.share_of(node, blob.expect("schedulers only know the blobs that were asked for"))
    }

    /// The scheduler stands beside the region's gateway.
    fn delay_to_scheduler(&mut self, node: u32) -> u64 {
        let gateway = self.gateway_of(node);
        self.network.delay(node, gateway)
    }
}
