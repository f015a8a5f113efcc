//! The scheduler's orders to this gateway: what to seed.

use std::sync::Arc;
use std::time::SystemTime;

use shoal_ops::traces::{self, TARGET};
use shoal_peer::ticket::Verifier;
use shoal_proto::{SchedulerMessage, SeedOrder, WantedBlob};
use tokio::sync::mpsc;
use tracing::info_span;

use crate::priority::Priority;
use crate::seed::Wanting;
use crate::shelf::SeedingShelf;

/// Seeds what the scheduler orders, where the ticket that it shows proves that a node was granted it.
pub(crate) async fn obey(
    mut orders: mpsc::Receiver<SchedulerMessage>,
    shelf: Arc<SeedingShelf>,
    verifier: Arc<Verifier>,
) {
    while let Some(order) = orders.recv().await {
        // Neighbours and leases are for nodes that fetch from others; a gateway does not.
        let SchedulerMessage::Seed(SeedOrder { blob, holders }) = order else { continue };
        let WantedBlob { key, geometry, ticket, trace, .. } = blob;
        match verifier.check(SystemTime::now(), &ticket, &key) {
            // From where is what the ticket says: that is signed, the order is not.
            Ok(claims) => {
                let by = (Wanting::Scheduler { holders }, Priority::Live);
                let order = traces::from(trace, || info_span!(target: TARGET, "order", blob = %key));
                order.in_scope(|| drop(shelf.seed(&key, Some(geometry), &claims.source, by)));
            }
            Err(error) => tracing::warn!(blob = %key, %error, "order to seed without a good ticket"),
        }
    }
}
