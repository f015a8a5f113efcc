//! The line before a registry: a bounded number of blobs is read at once, the others wait in order.
//!
//! Whoever waits is told its position again and again, because nodes take a seed whose position does not
//! move, and which says nothing, for dead, and would all go to the registry that the line protects.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::sleep;

/// How often a waiting one is told its position, moved or not.
const BEAT: Duration = Duration::from_secs(1);

/// A line, and the places that it waits for.
pub(crate) struct Queue {
    places: Arc<Semaphore>,
    n_arrived: AtomicU64,
    /// How many have left the line, by getting a place or by going away.
    n_left: watch::Sender<u64>,
}

/// A place; given up when dropped.
pub(crate) type Place = OwnedSemaphorePermit;

/// Counts one as having left the line, however it does.
struct InLine<'a>(&'a watch::Sender<u64>);

impl Drop for InLine<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|it| *it += 1);
    }
}

impl Queue {
    pub(crate) fn new(n_places: usize) -> Self {
        Self {
            places: Arc::new(Semaphore::new(n_places)),
            n_arrived: AtomicU64::new(0),
            n_left: watch::Sender::new(0),
        }
    }

    /// Waits for a place. `told` gets the position while waiting: 1 for the first in line.
    #[expect(clippy::expect_used, reason = "input cannot reach it")]
    pub(crate) async fn enter(&self, mut told: impl FnMut(u32)) -> Place {
        let number = self.n_arrived.fetch_add(1, Ordering::Relaxed);
        let mut n_left = self.n_left.subscribe();
        let in_line = InLine(&self.n_left);
        let mut place = std::pin::pin!(self.places.clone().acquire_owned());
        loop {
            tokio::select! {
                biased;
                place = &mut place => {
                    drop(in_line);
                    return place.expect("the places are never closed");
                }
                // The sender lives as long as `self`.
                _ = n_left.changed() => {}
                () = sleep(BEAT) => {}
            }
            let before = number.saturating_sub(*n_left.borrow_and_update());
            told(u32::try_from(before).unwrap_or(u32::MAX).saturating_add(1));
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn those_who_wait_hear_their_position_until_it_is_their_turn() {
        let queue = Arc::new(Queue::new(1));
        let first = queue.enter(|_| panic!("need not wait")).await;
        let (tell, mut told) = mpsc::unbounded_channel();
        for name in ["second", "third"] {
            let (queue, tell) = (queue.clone(), tell.clone());
            tokio::spawn(async move {
                let _place = queue.enter(|position| tell.send((name, position)).unwrap()).await;
                tell.send((name, 0)).unwrap();
                std::future::pending::<()>().await;
            });
        }
        assert_eq!(told.recv().await, Some(("second", 1)));
        assert_eq!(told.recv().await, Some(("third", 2)));
        assert_eq!(told.recv().await, Some(("second", 1)));
        drop(first);
        let mut moved = told.recv().await;
        while moved == Some(("third", 2)) {
            moved = told.recv().await;
        }
        assert_eq!(moved, Some(("second", 0)));
        assert_eq!(told.recv().await, Some(("third", 1)));
    }

    #[tokio::test]
    async fn one_that_goes_away_leaves_the_line_and_its_place() {
        let queue = Queue::new(1);
        let first = queue.enter(|_| {}).await;
        let mut waiting = Box::pin(queue.enter(|_| {}));
        assert!(futures_util::poll!(&mut waiting).is_pending());
        drop(waiting);
        drop(first);
        let _second = queue.enter(|_| panic!("nobody is before")).await;
        assert_eq!(*queue.n_left.borrow(), 3);
    }
}
