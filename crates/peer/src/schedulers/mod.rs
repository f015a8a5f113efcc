//! A node's streams to the schedulers of its region, one to each.
//!
//! Schedulers make pulls better, never possible: nothing here makes anybody wait for one. What the node says goes to
//! the scheduler that it concerns ([`routing`]), over a [`link`] of its own, from a queue with a bound
//! ([`outbox`]). The list of schedulers may change at any time: links come and go with it.

mod ledger;
mod link;
mod outbox;
mod routing;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use prometheus_client::registry::Registry;
use shoal_identity::Dialer;
use shoal_model::{Node, Rng};
use shoal_proto::{Hello, NodeMessage, PROTOCOL, SchedulerMessage};
use shoal_swarm::Owners;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use link::Link;
pub use outbox::Announce;
use outbox::Outbox;

/// Messages of the schedulers that wait for the node; more wait at the schedulers.
const INBOX: usize = 64;

/// The node's side of all links; clones are of the same.
#[derive(Clone)]
pub struct Schedulers(Arc<Outbox>);

impl Schedulers {
    /// Makes links for `node` to all of `addresses` (`https://host:port` each), whatever these come to be. They do
    /// nothing until the [`Driver`] runs. `rng` spreads the reconnects and should differ per node.
    pub fn new(
        node: Node,
        dialer: &Dialer,
        addresses: watch::Receiver<Vec<String>>,
        announce: Arc<dyn Announce>,
        rng: Rng,
    ) -> (Self, mpsc::Receiver<SchedulerMessage>, Driver) {
        let outbox = Arc::new(Outbox::new());
        let (inbox, received) = mpsc::channel(INBOX);
        let schedulers = Self(outbox.clone());
        let driver = Driver {
            hello: Hello { node, protocol: PROTOCOL },
            dialer: dialer.clone(),
            addresses,
            announce,
            rng,
            outbox,
            inbox,
            links: BTreeMap::new(),
            running: JoinSet::new(),
        };
        (schedulers, received, driver)
    }

    /// Tells whoever it concerns something, when they listen. Never waits, and never loses what matters: whoever did
    /// not listen is told the node's whole state when they do.
    pub fn send(&self, message: NodeMessage) {
        self.0.push(message);
    }

    /// Which scheduler each blob belongs to and which of them listen, now and at every change.
    pub fn owners(&self) -> watch::Receiver<Owners> {
        self.0.owners()
    }

    /// Adds its metric.
    pub fn register(&self, registry: &mut Registry) {
        let help = "Whether there is a stream to each scheduler of the region";
        registry.register("peer_scheduler_connected", help, self.0.connected.clone());
    }
}

/// The task behind [`Schedulers`].
pub struct Driver {
    hello: Hello,
    dialer: Dialer,
    addresses: watch::Receiver<Vec<String>>,
    announce: Arc<dyn Announce>,
    rng: Rng,
    outbox: Arc<Outbox>,
    inbox: mpsc::Sender<SchedulerMessage>,
    /// What ends each link.
    links: BTreeMap<Arc<str>, CancellationToken>,
    running: JoinSet<()>,
}

impl Driver {
    /// Keeps the links until `stopping`, then has each say goodbye; ends as well when the receiver of the schedulers'
    /// messages is dropped.
    pub async fn run(mut self, stopping: CancellationToken) {
        let ending = stopping.child_token();
        loop {
            self.follow_list(&ending);
            tokio::select! {
                () = changed(&mut self.addresses) => {}
                () = self.inbox.closed() => break,
                () = stopping.cancelled() => break,
            }
        }
        ending.cancel();
        while self.running.join_next().await.is_some() {}
    }

    /// Begins and ends links as the list says.
    fn follow_list(&mut self, ending: &CancellationToken) {
        let addresses = self.addresses.borrow_and_update();
        let listed: Vec<Arc<str>> = addresses.iter().map(|it| it.as_str().into()).collect();
        drop(addresses);
        // First of all, so that the streams that end are told of nothing that moves.
        self.outbox.listed(&listed);
        self.links.retain(|address, link| {
            let stays = listed.contains(address);
            if !stays {
                link.cancel();
            }
            stays
        });
        for address in listed {
            if self.links.contains_key(&address) {
                continue;
            }
            let stopping = ending.child_token();
            let link = Link {
                address: address.clone(),
                hello: self.hello.clone(),
                dialer: self.dialer.clone(),
                announce: self.announce.clone(),
                rng: Rng::new(self.rng.next_u64()),
                outbox: self.outbox.clone(),
                inbox: self.inbox.clone(),
            };
            self.running.spawn(link.run(stopping.clone()));
            self.links.insert(address, stopping);
        }
        while self.running.try_join_next().is_some() {}
    }
}

/// Waits for another list of addresses; for ever where nobody can change it any more.
async fn changed(addresses: &mut watch::Receiver<Vec<String>>) {
    if addresses.changed().await.is_err() {
        std::future::pending().await
    }
}
