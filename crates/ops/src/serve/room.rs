//! The open connections of a listener, and which of them gives way when there are as many as there may be.
//!
//! Whoever opens connections and lets them rest would keep everybody else out. So once the cap is reached, a new one
//! takes the place of that which has rested the longest: whose client has brought no request, or takes nothing of a
//! response. One that waits for this process never gives way.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::{AbortHandle, Id, JoinSet};
use tokio::time::Instant;

use super::requests::Requests;

/// A client has at least so long for its request, or for its next byte, however many others want in.
const GRACE: Duration = Duration::from_millis(100);

/// Since when a socket has taken nothing of what was to be written; clones are of the same socket.
#[derive(Clone, Default)]
pub(super) struct Blocked(Arc<Mutex<Option<Instant>>>);

impl Blocked {
    pub(super) fn since(&self) -> Option<Instant> {
        *self.0.lock()
    }

    pub(super) fn set(&self, since: Option<Instant>) {
        *self.0.lock() = since;
    }
}

/// What tells whether a connection rests; clones are of the same connection.
#[derive(Clone, Default)]
pub(super) struct Rest {
    pub requests: Requests,
    pub blocked: Blocked,
}

impl Rest {
    /// Since when the client has been to act.
    fn since(&self) -> Option<Instant> {
        self.requests.rest_since().or_else(|| self.blocked.since())
    }
}

/// The open connections.
pub(super) struct Room {
    most: usize,
    tasks: JoinSet<()>,
    seats: BTreeMap<Id, Seat>,
}

struct Seat {
    rest: Rest,
    task: AbortHandle,
}

impl Room {
    /// For at most so many.
    pub(super) fn new(most: usize) -> Self {
        Self { most, tasks: JoinSet::new(), seats: BTreeMap::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.tasks.len()
    }

    pub(super) fn is_full(&self) -> bool {
        self.len() >= self.most
    }

    /// Runs one more connection.
    pub(super) fn open(&mut self, rest: Rest, connection: impl Future<Output = ()> + Send + 'static) {
        let task = self.tasks.spawn(connection);
        self.seats.insert(task.id(), Seat { rest, task });
    }

    /// Cuts the connection that has rested the longest, if any has for long enough.
    pub(super) fn make(&mut self) -> bool {
        let resting = self.seats.iter().filter_map(|(id, seat)| Some((seat.rest.since()?, *id)));
        let longest = resting.min().filter(|(since, _)| since.elapsed() >= GRACE);
        let seat = longest.and_then(|(_, id)| self.seats.remove(&id));
        seat.inspect(|it| it.task.abort()).is_some()
    }

    /// Waits until a connection has ended; `None` where there is none.
    pub(super) async fn ended(&mut self) -> Option<()> {
        let id = match self.tasks.join_next_with_id().await? {
            Ok((id, ())) => id,
            Err(error) => error.id(),
        };
        self.seats.remove(&id);
        Some(())
    }
}
