//! How many pieces a node asks for at the same time, over all blobs that it fetches.
//!
//! An image has many layers. Were each fetched with all slots, its neighbours would be asked for far more than they
//! can send, and most asks would be refused.

use std::sync::Arc;

use shoal_swarm::fetch::slots_each;
use tokio::sync::watch;

/// The node's slots; clones are of the same.
#[derive(Clone)]
pub(crate) struct Slots {
    all: usize,
    each: Arc<watch::Sender<usize>>,
}

impl Slots {
    /// So many for all blobs together.
    pub(crate) fn new(all: usize) -> Self {
        Self { all, each: Arc::new(watch::Sender::new(all)) }
    }

    /// So many blobs are being fetched from now on.
    pub(super) fn divide_among(&self, n_fetches: usize) {
        self.each.send_replace(slots_each(self.all, n_fetches));
    }

    /// What each of them has, now and as it changes.
    pub(super) fn each(&self) -> watch::Receiver<usize> {
        self.each.subscribe()
    }
}
