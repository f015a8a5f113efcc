//! The orders that wait for one node.
//!
//! They are bounded, and so is what a slow node can make the scheduler keep. In a burst a node's neighbours change
//! faster than its connection takes the news; a list of neighbours replaces the one before it, so of each blob only
//! the newest waits. So does the order to seed a blob, which is given again where the seed does not get on. A queue that nothing waits in takes no memory: there is one for every node of a fleet.

use std::collections::VecDeque;

use parking_lot::Mutex;
use shoal_proto::SchedulerMessage;
use tokio::sync::Notify;

/// The most that wait.
pub(super) const CAPACITY: usize = 1024;

/// The queue; whoever has it may push, and one may take.
#[derive(Default)]
pub(super) struct Orders {
    waiting: Mutex<VecDeque<SchedulerMessage>>,
    pushed: Notify,
}

impl Orders {
    /// Appends an order; false where too many wait.
    pub(super) fn push(&self, order: SchedulerMessage) -> bool {
        let mut waiting = self.waiting.lock();
        if let Some(older) = waiting.iter_mut().find(|it| is_replaced(it, &order)) {
            *older = order;
            return true;
        }
        let has_room = waiting.len() < CAPACITY;
        if has_room {
            waiting.push_back(order);
        }
        drop(waiting);
        self.pushed.notify_one();
        has_room
    }

    /// Waits for the next order.
    pub(super) async fn next(&self) -> SchedulerMessage {
        loop {
            if let Some(order) = self.take() {
                return order;
            }
            // A push since then is remembered.
            self.pushed.notified().await;
        }
    }

    fn take(&self) -> Option<SchedulerMessage> {
        let mut waiting = self.waiting.lock();
        let order = waiting.pop_front();
        if waiting.is_empty() {
            waiting.shrink_to_fit();
        }
        order
    }
}

fn is_replaced(older: &SchedulerMessage, newer: &SchedulerMessage) -> bool {
    match (older, newer) {
        (SchedulerMessage::Neighbours(older), SchedulerMessage::Neighbours(newer)) => older.key == newer.key,
        (SchedulerMessage::Seed(older), SchedulerMessage::Seed(newer)) => older.blob.key == newer.blob.key,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shoal_model::{BlobKey, Digest, Node, NodeId, Place, Role, TrustGroup};
    use shoal_proto::{Neighbours, SeedOrder, Source, Ticket, WantedBlob};
    use shoal_swarm::Algorithm;
    use shoal_swarm::Geometry;

    fn key(number: u8) -> BlobKey {
        BlobKey { group: TrustGroup::new("g"), digest: Digest::from_sha256([number; 32]) }
    }

    fn neighbours(number: u8, name: &str) -> SchedulerMessage {
        let (id, place) = (NodeId::new(name), Place::default());
        let node = Node { id, address: "a:1".into(), role: Role::Sidecar, place };
        SchedulerMessage::Neighbours(Neighbours {
            key: key(number),
            near: vec![node],
            far: Vec::new(),
            algorithm: Algorithm::Default,
            gateway: None,
        })
    }

    #[tokio::test]
    async fn the_newest_list_of_neighbours_takes_the_place_of_the_one_before() {
        let orders = Orders::default();
        let direct = || SchedulerMessage::GoDirect(key(1));
        for order in [neighbours(1, "a"), direct(), neighbours(2, "a"), direct(), neighbours(1, "b")] {
            assert!(orders.push(order));
        }
        for expected in [neighbours(1, "b"), direct(), neighbours(2, "a"), direct()] {
            assert_eq!(orders.next().await, expected);
        }
        assert!(orders.push(neighbours(1, "c")));
        assert_eq!(orders.next().await, neighbours(1, "c"));
    }

    #[tokio::test]
    async fn an_order_to_seed_waits_once() {
        let orders = Orders::default();
        let seed = |number, ticket: &str| {
            let blob = WantedBlob {
                key: key(number),
                geometry: Geometry::by_rule(1),
                source: Source { registry: "r".into(), repository: "a".into() },
                ticket: Ticket(ticket.into()),
                trace: None,
            };
            SchedulerMessage::Seed(SeedOrder { blob, holders: Vec::new() })
        };
        for order in [seed(1, "old"), seed(2, "old"), seed(1, "new")] {
            assert!(orders.push(order));
        }
        assert_eq!([orders.next().await, orders.next().await], [seed(1, "new"), seed(2, "old")]);
    }

    #[tokio::test]
    async fn whoever_waits_is_woken_by_a_push() {
        let orders = Orders::default();
        let (order, pushed) = tokio::join!(orders.next(), async { orders.push(neighbours(1, "a")) });
        assert_eq!((order, pushed), (neighbours(1, "a"), true));
    }

    #[test]
    fn a_full_queue_takes_only_what_replaces_something() {
        let orders = Orders::default();
        assert!(orders.push(neighbours(1, "a")));
        for _ in 1..CAPACITY {
            assert!(orders.push(SchedulerMessage::GoDirect(key(1))));
        }
        assert!(!orders.push(SchedulerMessage::GoDirect(key(1))));
        assert!(orders.push(neighbours(1, "b")));
        assert!(!orders.push(neighbours(2, "a")));
    }
}
