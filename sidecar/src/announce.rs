//! Everything that schedulers have to know of this node: what it holds, and what it wishes for.

use std::sync::{Arc, OnceLock};

use shoal_model::BlobKey;
use shoal_peer::report::Reporter;
use shoal_peer::schedulers::Announce;
use shoal_proto::NodeMessage;

use crate::pull::Pulls;

/// Tells a scheduler that some blobs have come to.
pub(crate) struct Everything {
    held: Arc<Reporter>,
    /// Set once: what pulls report on has to exist before them.
    pulls: OnceLock<Pulls>,
}

impl Everything {
    /// What `held` reports on; wishes follow with [`Everything::wishes_of`].
    pub(crate) fn new(held: Arc<Reporter>) -> Arc<Self> {
        Arc::new(Self { held, pulls: OnceLock::new() })
    }

    /// What these pulls wish for is told as well.
    pub(crate) fn wishes_of(&self, pulls: Pulls) {
        let _ = self.pulls.set(pulls);
    }
}

impl Announce for Everything {
    fn announce(&self, concerns: &dyn Fn(&BlobKey) -> bool) -> Vec<NodeMessage> {
        let wants = self.pulls.get().map(|it| it.wants(concerns)).unwrap_or_default();
        self.held.announce(concerns).into_iter().chain(wants).collect()
    }
}
