//! What is still to happen, earliest first.
//!
//! Things of the same microsecond happen in the order in which they were planned, so that a run depends on
//! nothing but its seed and messages of one stream keep their order.
//!
//! A large fleet has hundreds of thousands of things planned, nearly all of them for the next half second,
//! and one heap of all would spend its time in cache misses. So they wait in a wheel of short slots of time;
//! only what lies in the present slot, or beyond the wheel, is kept in order.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// Microseconds in a slot.
const SLOT: u64 = 128;
/// Slots of the wheel.
const SLOTS: usize = 4096;

/// The clock and what is to come.
pub(crate) struct Queue<T> {
    now: u64,
    n_planned: u64,
    /// What lies in the present slot.
    present: BinaryHeap<Planned<T>>,
    /// Which slot that is, counted from the beginning of time.
    slot: u64,
    /// What lies in the slots after it, each at its number modulo the wheel's size.
    wheel: Vec<Vec<Planned<T>>>,
    n_on_wheel: usize,
    /// What lies beyond the wheel.
    beyond: BinaryHeap<Planned<T>>,
}

struct Planned<T> {
    at: u64,
    number: u64,
    what: T,
}

impl<T> Queue<T> {
    pub(crate) fn new() -> Self {
        Self {
            now: 0,
            n_planned: 0,
            present: BinaryHeap::new(),
            slot: 0,
            wheel: (0..SLOTS).map(|_| Vec::new()).collect(),
            n_on_wheel: 0,
            beyond: BinaryHeap::new(),
        }
    }

    /// The time, in microseconds since the beginning.
    pub(crate) const fn now(&self) -> u64 {
        self.now
    }

    /// How much was ever planned.
    pub(crate) const fn n_planned(&self) -> u64 {
        self.n_planned
    }

    /// Plans something; what lies in the past happens at once.
    pub(crate) fn plan(&mut self, at: u64, what: T) {
        self.n_planned += 1;
        self.put(Planned { at: at.max(self.now), number: self.n_planned, what });
    }

    /// Moves the clock to the next thing and hands it out.
    pub(crate) fn next(&mut self) -> Option<T> {
        while self.present.is_empty() {
            if self.n_on_wheel > 0 {
                self.slot += 1;
            } else {
                self.slot = self.beyond.peek()?.at / SLOT;
            }
            self.open_slot();
        }
        let Planned { at, what, .. } = self.present.pop()?;
        self.now = at;
        Some(what)
    }

    fn put(&mut self, planned: Planned<T>) {
        let slot = planned.at / SLOT;
        if slot <= self.slot {
            self.present.push(planned);
        } else if slot - self.slot < SLOTS as u64 {
            self.wheel[slot as usize % SLOTS].push(planned);
            self.n_on_wheel += 1;
        } else {
            self.beyond.push(planned);
        }
    }

    /// The present slot is a new one: takes in what was put there, and what the wheel reaches by now.
    fn open_slot(&mut self) {
        let came = &mut self.wheel[self.slot as usize % SLOTS];
        self.n_on_wheel -= came.len();
        self.present.extend(came.drain(..));
        while self.beyond.peek().is_some_and(|it| it.at / SLOT < self.slot + SLOTS as u64) {
            let Some(planned) = self.beyond.pop() else { return };
            self.put(planned);
        }
    }
}

// The heap hands out its greatest: the earliest is that.
impl<T> Ord for Planned<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

impl<T> PartialOrd for Planned<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> PartialEq for Planned<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<T> Eq for Planned<T> {}

#[cfg(test)]
mod tests {
    use super::*;
    use shoal_model::Rng;

    #[test]
    fn things_happen_in_the_order_of_their_time_and_then_of_their_planning() {
        let (mut queue, mut rng) = (Queue::new(), Rng::new(1));
        let mut happened = Vec::new();
        let mut plan = |queue: &mut Queue<(u64, u64)>, number: u64| {
            // Within the slot, on the wheel, and beyond it.
            let span = [3, 100, 90_000, 2_000_000][rng.below(4)];
            let at = queue.now() + rng.below(span) as u64;
            queue.plan(at, (at, number));
        };
        (0..100).for_each(|it| plan(&mut queue, it));
        while let Some(it) = queue.next() {
            assert_eq!(queue.now(), it.0);
            happened.push(it);
            if happened.len() < 2000 {
                plan(&mut queue, 100 + happened.len() as u64);
            }
        }
        assert_eq!(happened.len(), 2099);
        assert!(happened.is_sorted(), "a later number was planned later");
    }
}
