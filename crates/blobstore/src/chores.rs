//! Work on the disk that nobody waits for.
//!
//! A disk that does not answer keeps every thread that asks it for something. However many blobs have something to be
//! written down then, few threads wait for it, and the others stay for those who read.

use std::collections::VecDeque;
use std::fmt;
use std::mem;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::runtime::Handle;

/// How many chores are done at the same time.
const MOST: usize = 4;

type Chore = Box<dyn FnOnce() + Send>;

/// What is still to be done, in turn; clones are of the same list.
#[derive(Clone, Default)]
pub(crate) struct Chores(Arc<Mutex<List>>);

#[derive(Default)]
struct List {
    waiting: VecDeque<Chore>,
    n_at_work: usize,
}

impl Chores {
    /// Does work that may block where it may: in its own time where there is a runtime, else at once.
    pub(crate) fn add(&self, work: impl FnOnce() + Send + 'static) {
        let Ok(runtime) = Handle::try_current() else { return work() };
        let mut list = self.0.lock();
        list.waiting.push_back(Box::new(work));
        if list.n_at_work < MOST {
            list.n_at_work += 1;
            let it = self.clone();
            drop(runtime.spawn_blocking(move || it.work()));
        }
    }

    fn work(&self) {
        let at_work = AtWork(self);
        while let Some(chore) = self.next() {
            chore();
        }
        // It has been counted as gone together with the look at the list.
        mem::forget(at_work);
    }

    fn next(&self) -> Option<Chore> {
        let mut list = self.0.lock();
        let next = list.waiting.pop_front();
        if next.is_none() {
            list.n_at_work -= 1;
        }
        next
    }
}

/// Whoever panics at a chore leaves his place to another.
struct AtWork<'a>(&'a Chores);

impl Drop for AtWork<'_> {
    fn drop(&mut self) {
        self.0.0.lock().n_at_work -= 1;
    }
}

impl fmt::Debug for Chores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Chores").field(&self.0.lock().waiting.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn chores_that_are_stuck_keep_few_threads() {
        let (chores, (done, is_done)) = (Chores::default(), mpsc::channel());
        let stuck: Vec<_> = (0..MOST)
            .map(|_| {
                let (go_on, goes_on) = mpsc::channel::<()>();
                chores.add(move || assert!(goes_on.recv().is_err()));
                go_on
            })
            .collect();
        for number in 0..100 {
            let done = done.clone();
            chores.add(move || done.send(number).unwrap());
        }
        assert_eq!(chores.0.lock().n_at_work, MOST);
        assert!(is_done.try_recv().is_err());
        drop(stuck);
        let mut numbers: Vec<i32> = is_done.iter().take(100).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, Vec::from_iter(0..100));
    }

    #[tokio::test]
    async fn a_chore_that_panics_keeps_nobody_from_the_others() {
        let (chores, (done, is_done)) = (Chores::default(), mpsc::channel());
        for _ in 0..MOST {
            chores.add(|| panic!("this is what is tested"));
        }
        while chores.0.lock().n_at_work > 0 {
            tokio::task::yield_now().await;
        }
        chores.add(move || done.send(()).unwrap());
        is_done.recv().unwrap();
    }

    #[test]
    fn without_a_runtime_a_chore_is_done_at_once() {
        let mut is_done = Arc::new(Mutex::new(false));
        let done = is_done.clone();
        Chores::default().add(move || *done.lock() = true);
        assert!(*Arc::get_mut(&mut is_done).unwrap().get_mut());
    }
}
