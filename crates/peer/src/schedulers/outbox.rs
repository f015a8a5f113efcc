//! What a node still has to tell its schedulers: the routing, shared by those who push and the streams that send.
//!
//! Nothing here makes a pull wait. What the node holds is asked for outside of the lock, because its owner has locks of
//! its own.

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, Stream as Messages};
use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use shoal_model::{BlobKey, Tick};
use shoal_proto::{Hello, NodeMessage};
use shoal_swarm::Owners;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until};

use super::routing::{Next, Routing, Stream};

/// Tells what a scheduler has to know of a node.
pub trait Announce: Send + Sync + 'static {
    /// All that the node holds and wants of these blobs at this moment, as messages that a scheduler which knows
    /// nothing of them can start from; progress in them says `dropped`, so that nothing older survives.
    fn announce(&self, concerns: &dyn Fn(&BlobKey) -> bool) -> Vec<NodeMessage>;
}

/// Whether there is a stream to each scheduler.
pub(super) type Connected = Family<SchedulerLabels, Gauge>;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct SchedulerLabels {
    scheduler: String,
}

pub(super) struct Outbox {
    routing: Mutex<Routing>,
    changed: Notify,
    overflow: Notify,
    owners: watch::Sender<Owners>,
    pub(super) connected: Connected,
    began: Instant,
}

impl Outbox {
    pub(super) fn new() -> Self {
        Self {
            routing: Mutex::default(),
            changed: Notify::new(),
            overflow: Notify::new(),
            owners: watch::Sender::default(),
            connected: Connected::default(),
            began: Instant::now(),
        }
    }

    /// Who owns blobs, as that changes.
    pub(super) fn owners(&self) -> watch::Receiver<Owners> {
        self.owners.subscribe()
    }

    /// The schedulers that there is a stream to, for people.
    pub(super) fn live(&self) -> String {
        let owners = self.owners.borrow();
        owners.live().map(AsRef::as_ref).collect::<Vec<&str>>().join(", ")
    }

    /// Queues a message.
    pub(super) fn push(&self, message: NodeMessage) {
        let is_kept = self.routing.lock().push(self.now(), message);
        self.changed.notify_waiters();
        if !is_kept {
            self.overflow.notify_waiters();
        }
    }

    // === Schedulers come and go; see the routing ===

    pub(super) fn listed(&self, addresses: &[Arc<str>]) {
        self.change(|routing, now| routing.listed(now, addresses.iter().cloned()));
    }

    pub(super) fn joined(&self, stream: &Stream) {
        self.change(|routing, now| routing.joined(now, stream));
    }

    pub(super) fn lost(&self, stream: &Stream) {
        self.change(|routing, _| routing.lost(stream));
    }

    pub(super) fn failed(&self, address: &str) {
        self.change(|routing, now| routing.failed(now, address));
    }

    pub(super) fn leave(&self, stream: &Stream) {
        self.change(|routing, _| routing.leave(stream));
    }

    fn change(&self, change: impl FnOnce(&mut Routing, Tick)) {
        let mut routing = self.routing.lock();
        change(&mut routing, self.now());
        // Before anybody else can change them again.
        self.publish(routing.owners());
        drop(routing);
        self.changed.notify_waiters();
    }

    fn publish(&self, owners: &Owners) {
        let labels = |it: &Arc<str>| SchedulerLabels { scheduler: it.as_ref().into() };
        self.owners.send_if_modified(|it| {
            let has_changed = it != owners;
            if has_changed {
                for address in it.listed().filter(|it| !owners.is_listed(it)) {
                    self.connected.remove(&labels(address));
                }
                for address in owners.listed() {
                    self.connected.get_or_create(&labels(address)).set(owners.is_live(address).into());
                }
                it.clone_from(owners);
            }
            has_changed
        });
    }

    // === Streams ===

    /// A stream to a scheduler: `hello`, and, once it has been [joined](Self::joined), all that concerns that
    /// scheduler. It ends when the next one begins there.
    pub(super) fn stream(
        self: &Arc<Self>,
        address: &Arc<str>,
        hello: Hello,
        announce: Arc<dyn Announce>,
    ) -> (Stream, impl Messages<Item = NodeMessage> + Send + 'static) {
        let stream = self.routing.lock().open(address);
        let (outbox, its) = (self.clone(), stream.clone());
        let outgoing = Outgoing { hello: Some(NodeMessage::Hello(hello)), stream: its, outbox, announce };
        (stream, stream::unfold(outgoing, Outgoing::next))
    }

    /// Waits until messages for this stream were lost.
    pub(super) async fn overflowed(&self, stream: &Stream) {
        loop {
            let overflow = self.overflow.notified();
            if self.routing.lock().has_overflowed(stream) {
                return;
            }
            overflow.await;
        }
    }

    fn now(&self) -> Tick {
        Tick(u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX))
    }
}

/// One stream's end of the outbox.
struct Outgoing {
    hello: Option<NodeMessage>,
    stream: Stream,
    outbox: Arc<Outbox>,
    announce: Arc<dyn Announce>,
}

impl Outgoing {
    async fn next(mut self) -> Option<(NodeMessage, Self)> {
        if let Some(hello) = self.hello.take() {
            return Some((hello, self));
        }
        let outbox = self.outbox.clone();
        loop {
            // Taken before the look at the queue, so that no change falls in between.
            let changed = outbox.changed.notified();
            let next = outbox.routing.lock().take(outbox.now(), &self.stream);
            match next {
                Next::Send(message) => return Some((message, self)),
                Next::Announce(asked) => {
                    let said = self.announce.announce(&|key| asked.concerns(key));
                    outbox.routing.lock().announced(outbox.now(), &self.stream, asked, said);
                }
                Next::Wait(None) => changed.await,
                Next::Wait(Some(until)) => tokio::select! {
                    () = changed => {}
                    () = sleep_until(outbox.began + Duration::from_micros(until.0)) => {}
                },
                Next::End => return None,
            }
        }
    }
}
