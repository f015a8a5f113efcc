//! Memory for pieces on their way from the network to the store, of all blobs together.
//!
//! A piece is received as a whole before it is written, because only then is it known to be right. On a slow disk each
//! of many downloads would have some waiting for that, and nothing but their number would bound what they take. A write
//! that the disk is late with takes its room for as long as it lasts; the store begins no more of them than half of it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// How many bytes there are: those of four of the longest pieces.
const ALL: u32 = 16 << 20;
/// How often whoever waits says so.
const SIGN: Duration = Duration::from_millis(500);

/// The node's room; clones are of the same.
#[derive(Clone)]
pub(crate) struct Room(Arc<Semaphore>);

/// Room for one piece, until this is dropped.
pub(super) struct Taken {
    _permit: Option<OwnedSemaphorePermit>,
}

impl Taken {
    /// Stays taken until nobody has these bytes any more, be it a write that nobody waits for.
    pub(super) fn until_dropped(self, bytes: Bytes) -> Bytes {
        Bytes::from_owner(Held { bytes, _taken: self })
    }
}

/// Bytes, and the room for them.
struct Held {
    bytes: Bytes,
    _taken: Taken,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Room {
    /// All of it is free.
    pub(crate) fn new() -> Self {
        Self(Arc::new(Semaphore::new(ALL as usize)))
    }

    /// Waits until there is room for a piece of so many bytes, in the order in which it is asked for, and says so
    /// meanwhile. A piece that is longer than all the room gets all of it.
    pub(super) async fn take(&self, n_bytes: u64, mut waiting: impl FnMut()) -> Taken {
        let n_bytes = u32::try_from(n_bytes).unwrap_or(ALL).min(ALL);
        let mut taking = std::pin::pin!(self.0.clone().acquire_many_owned(n_bytes));
        loop {
            if let Ok(permit) = timeout(SIGN, &mut taking).await {
                // The semaphore is never closed.
                return Taken { _permit: permit.ok() };
            }
            waiting();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;

    #[tokio::test]
    async fn room_is_taken_until_the_last_copy_of_what_it_was_taken_for_is_gone() {
        let room = Room::new();
        let taken = room.take(u64::MAX, || {}).await;
        let content = taken.until_dropped(Bytes::from_static(b"piece"));
        let being_written = content.clone();
        drop(content);
        assert!(room.take(1, || {}).now_or_never().is_none());
        drop(being_written);
        assert!(room.take(1, || {}).now_or_never().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn what_finds_no_room_waits_for_its_turn_and_says_so() {
        let (room, mut n_signs) = (Room::new(), 0);
        let half = room.take(u64::from(ALL / 2), || {}).await;
        let mut long = Box::pin(room.take(u64::MAX, || n_signs += 1));
        assert!((&mut long).now_or_never().is_none());
        assert!(room.take(1, || {}).now_or_never().is_none(), "it would overtake");
        assert!(timeout(SIGN * 3, &mut long).await.is_err());
        drop(half);
        drop(long.await);
        assert!((2..=3).contains(&n_signs), "{n_signs}");
        assert!(room.take(1, || {}).now_or_never().is_some());
    }
}
