//! What the tasks of a download tell its driver.

use std::time::Duration;

use shoal_blobstore::{Blob, StoreError, Written};
use shoal_model::NodeId;
use shoal_swarm::fetch::Event;
use tokio::sync::mpsc;
use tokio::task;
use tokio::time::{Instant, timeout};

/// The least time between two signs of life of one task.
const DISTANCE: Duration = Duration::from_millis(100);
/// How long another writer of a piece is waited for at once: one that fails says nothing.
const TURN: Duration = Duration::from_millis(50);

/// What a task tells.
#[derive(Debug)]
pub(super) enum Report {
    /// Something that the machine has to know.
    Event(Event),
    /// The same, from a watch, which says which one it is: another may have taken its place.
    Watched(task::Id, Event),
    /// The store cannot take the blob in, so there is no use in fetching it.
    NoStore(StoreError),
}

/// Says that bytes come, and not too often.
pub(super) struct Signs {
    reports: mpsc::Sender<Report>,
    /// Whose bytes; none for the registry's.
    from: Option<NodeId>,
    quiet_until: Instant,
}

impl Signs {
    pub(super) fn new(reports: mpsc::Sender<Report>, from: Option<NodeId>) -> Self {
        Self { reports, from, quiet_until: Instant::now() }
    }

    /// Bytes came.
    pub(super) fn moved(&mut self) {
        let now = Instant::now();
        if now >= self.quiet_until {
            self.quiet_until = now + DISTANCE;
            // Where the driver is behind, it has signs enough.
            let _ = self.reports.try_send(Report::Event(Event::Moved { from: self.from.clone() }));
        }
    }
}

/// Repeats a write for as long as somebody else is writing the same piece: only then is it known whether
/// that one's bytes were good. The other writer is at this node's own disk, so its turn ends.
pub(super) async fn write_in_turn<T>(blob: &Blob, write: impl Fn() -> T) -> Result<Written, StoreError>
where
    T: Future<Output = Result<Written, StoreError>>,
{
    let mut version = blob.version();
    loop {
        version.borrow_and_update();
        match write().await? {
            // Either way the next look decides.
            Written::Busy => drop(timeout(TURN, version.changed()).await),
            written => return Ok(written),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pull::testing;
    use std::cell::Cell;

    #[tokio::test(start_paused = true)]
    async fn signs_of_life_keep_a_distance() {
        let (reports, mut told) = mpsc::channel(8);
        let mut signs = Signs::new(reports, None);
        let mut n_told = async |after| {
            tokio::time::advance(after).await;
            signs.moved();
            std::iter::from_fn(|| told.try_recv().ok()).count()
        };
        assert_eq!(n_told(Duration::ZERO).await, 1);
        assert_eq!(n_told(DISTANCE / 2).await, 0);
        assert_eq!(n_told(DISTANCE / 2).await, 1);
    }

    #[tokio::test]
    async fn a_piece_that_somebody_else_writes_is_waited_for() {
        let (_dir, store) = testing::store();
        let blob = testing::blob(&store);
        let left = Cell::new(3);
        let written = write_in_turn(&blob, || {
            left.set(left.get() - 1);
            let written = if left.get() == 0 { Written::AlreadyHeld } else { Written::Busy };
            std::future::ready(Ok(written))
        });
        assert_eq!(written.await.unwrap(), Written::AlreadyHeld);
        assert_eq!(left.get(), 0);
    }
}
