//! The line before a registry: a bounded number of blobs is read at once, the others wait in order, those that
//! somebody waits for before the others ([`line`]).
//!
//! Whoever waits is told its position again and again, because nodes take a seed whose position does not
//! move, and which says nothing, for dead, and would all go to the registry that the line protects.

mod line;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

use crate::priority::Urgency;
use line::{Line, Spot};

/// How often a waiting one is told its position, moved or not.
const BEAT: Duration = Duration::from_secs(1);

/// A line, and the places that it waits for; clones are of the same.
#[derive(Clone)]
pub(crate) struct Queue(Arc<Inner>);

struct Inner {
    line: Mutex<Line>,
    /// Somebody else may be next.
    moved: watch::Sender<()>,
    /// Somebody live has come to wait.
    live_waits: watch::Sender<()>,
}

/// A place; given up when dropped.
pub(crate) struct Place(Arc<Inner>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.line().give_back();
        self.0.moved.send_replace(());
    }
}

/// Somebody in the line, who leaves it by getting a place or by going away.
struct InLine<'a> {
    queue: &'a Inner,
    spot: Spot,
}

impl Drop for InLine<'_> {
    fn drop(&mut self) {
        self.queue.line().leave(self.spot);
        self.queue.moved.send_replace(());
    }
}

impl Queue {
    pub(crate) fn new(n_places: usize) -> Self {
        Self(Arc::new(Inner {
            line: Mutex::new(Line::new(n_places)),
            moved: watch::Sender::new(()),
            live_waits: watch::Sender::new(()),
        }))
    }

    /// Waits for a place. `told` gets the position while waiting: 1 for the first in line.
    pub(crate) async fn enter(&self, urgency: &Urgency, mut told: impl FnMut(u32)) -> Place {
        let mut moved = self.0.moved.subscribe();
        let mut in_line = InLine { queue: &self.0, spot: self.0.line().arrive(urgency.now()) };
        let (mut waited, mut was_live) = (false, false);
        loop {
            moved.borrow_and_update();
            let is_live = urgency.is_live();
            let position = {
                let mut line = self.0.line();
                line.change(&mut in_line.spot, urgency.now());
                if line.take(in_line.spot) {
                    return Place(self.0.clone());
                }
                line.position(in_line.spot)
            };
            // Those in a place of the background are to see that.
            if is_live && !std::mem::replace(&mut was_live, is_live) {
                self.0.live_waits.send_replace(());
            }
            if std::mem::replace(&mut waited, true) {
                told(position);
            }
            tokio::select! {
                // The sender lives as long as `self`.
                _ = moved.changed() => {}
                () = urgency.until_live(), if !is_live => {}
                () = sleep(BEAT) => {}
            }
        }
    }

    /// Whether somebody waits who is live, and there is no place.
    pub(crate) fn keeps_live_waiting(&self) -> bool {
        self.0.line().keeps_live_waiting()
    }

    /// Hears of each that is live and comes to wait.
    pub(crate) fn live_waits(&self) -> watch::Receiver<()> {
        self.0.live_waits.subscribe()
    }
}

impl Inner {
    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;
    use crate::priority::Priority;

    #[tokio::test(start_paused = true)]
    async fn those_who_wait_hear_their_position_until_it_is_their_turn() {
        let (queue, live) = (Queue::new(1), Urgency::live());
        let first = queue.enter(&live, |_| panic!("need not wait")).await;
        let (tell, mut told) = mpsc::unbounded_channel();
        for name in ["second", "third"] {
            let (queue, tell, live) = (queue.clone(), tell.clone(), live.clone());
            tokio::spawn(async move {
                let _place = queue.enter(&live, |position| tell.send((name, position)).unwrap()).await;
                tell.send((name, 0)).unwrap();
                std::future::pending::<()>().await;
            });
        }
        let mut until = async |expected| while told.recv().await != Some(expected) {};
        until(("third", 2)).await;
        until(("second", 1)).await;
        until(("third", 2)).await;
        drop(first);
        until(("second", 0)).await;
        until(("third", 1)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_goes_away_leaves_the_line_and_its_place() {
        let (queue, live) = (Queue::new(1), Urgency::live());
        let first = queue.enter(&live, |_| {}).await;
        let mut waiting = Box::pin(queue.enter(&live, |_| {}));
        assert!(futures_util::poll!(&mut waiting).is_pending());
        assert!(queue.keeps_live_waiting());
        drop(waiting);
        assert!(!queue.keeps_live_waiting());
        drop(first);
        let _second = queue.enter(&live, |_| panic!("nobody is before")).await;
    }

    #[tokio::test(start_paused = true)]
    async fn only_the_live_that_come_to_wait_are_told_of_at_once() {
        let queue = Queue::new(1);
        let mut live_waits = queue.live_waits();
        let first = queue.enter(&Urgency::live(), |_| {}).await;
        assert!(!live_waits.has_changed().unwrap(), "it does not wait");
        let urgency = Urgency::new(Priority::Background);
        let mut waiting = Box::pin(queue.enter(&urgency, |_| {}));
        assert!(futures_util::poll!(&mut waiting).is_pending());
        assert!(!live_waits.has_changed().unwrap(), "nor is it live");
        urgency.rise(Priority::Live);
        assert!(futures_util::poll!(&mut waiting).is_pending());
        assert!(live_waits.has_changed().unwrap() && queue.keeps_live_waiting());
        live_waits.borrow_and_update();
        drop(first);
        let _place = waiting.await;
        assert!(!live_waits.has_changed().unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_becomes_live_in_the_line_passes_those_that_are_not() {
        let queue = Queue::new(1);
        let first = queue.enter(&Urgency::live(), |_| {}).await;
        let (tell, mut told) = mpsc::unbounded_channel();
        let urgencies = [(); 2].map(|()| Urgency::new(Priority::Background));
        for (name, urgency) in urgencies.clone().into_iter().enumerate() {
            let (queue, tell) = (queue.clone(), tell.clone());
            tokio::spawn(async move {
                let place = queue.enter(&urgency, |_| {}).await;
                tell.send(name).unwrap();
                drop(place);
            });
        }
        tokio::task::yield_now().await;
        urgencies[1].rise(Priority::Live);
        drop(first);
        assert_eq!((told.recv().await, told.recv().await), (Some(1), Some(0)));
    }
}
