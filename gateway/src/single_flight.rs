//! Equal questions that are asked at the same time are asked once.
//!
//! A burst of nodes asks the same of a registry within milliseconds. The first asker's work is shared by
//! those who come while it runs; nothing is remembered once it is done. An asker that goes away does not
//! take the work from the others; when all are gone, the work stops, unless it is worth finishing for those who
//! come later.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared, WeakShared};
use shoal_ops::tasks::Tasks;

type Work<V> = BoxFuture<'static, V>;

/// Work in flight, by what it is about. Holds as much as there are askers.
pub(crate) struct SingleFlight<K, V>(Mutex<HashMap<K, WeakShared<Work<V>>>>)
where
    V: Clone;

impl<K, V> SingleFlight<K, V>
where
    K: Clone + Eq + Hash,
    V: Clone + Send + Sync + 'static,
{
    pub(crate) fn new() -> Self {
        Self(Mutex::new(HashMap::new()))
    }

    /// The outcome of the work on `key`: of that in flight, or else of `work`.
    pub(crate) async fn run(&self, key: K, work: impl Future<Output = V> + Send + 'static) -> V {
        // Dropped after the asker's share of the work, also when the asker goes away early.
        let _landing = Landing { flights: self, key: key.clone() };
        let (flight, _) = self.join(key, work);
        flight.await
    }

    /// The same for work that goes on, as one of `tasks`, when all askers have gone away. It must have an end of
    /// its own.
    pub(crate) async fn run_to_end(
        self: &Arc<Self>,
        tasks: &Tasks,
        key: K,
        work: impl Future<Output = V> + Send + 'static,
    ) -> V
    where
        K: Send + 'static,
    {
        let _landing = Landing { flights: self, key: key.clone() };
        let (flight, is_new) = self.join(key.clone(), work);
        if is_new {
            let (flights, flight, stopping) = (self.clone(), flight.clone(), tasks.stopping());
            tasks.spawn_infallible("single-flight", async move {
                let _landing = Landing { flights: &flights, key };
                stopping.run_until_cancelled(flight).await;
            });
        }
        flight.await
    }

    /// The work in flight, and whether it began just now.
    fn join(&self, key: K, work: impl Future<Output = V> + Send + 'static) -> (Shared<Work<V>>, bool) {
        let mut flights = self.flights();
        // Finished work is not an answer to a question that came later.
        let running = flights.get(&key).and_then(in_flight);
        if let Some(running) = running {
            return (running, false);
        }
        let shared = work.boxed().shared();
        if let Some(weak) = shared.downgrade() {
            flights.insert(key, weak);
        }
        (shared, true)
    }
}

impl<K, V: Clone> SingleFlight<K, V> {
    fn flights(&self) -> MutexGuard<'_, HashMap<K, WeakShared<Work<V>>>> {
        // A map of futures is consistent between any two statements, so a panic elsewhere cannot have
        // spoilt it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The work, unless it is finished or was given up.
fn in_flight<V: Clone>(work: &WeakShared<Work<V>>) -> Option<Shared<Work<V>>> {
    work.upgrade().filter(|it| it.peek().is_none())
}

/// Forgets the work on `key` once it is over.
struct Landing<'a, K: Eq + Hash, V: Clone> {
    flights: &'a SingleFlight<K, V>,
    key: K,
}

impl<K: Eq + Hash, V: Clone> Drop for Landing<'_, K, V> {
    fn drop(&mut self) {
        let mut flights = self.flights.flights();
        if flights.get(&self.key).is_some_and(|it| in_flight(it).is_none()) {
            flights.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use tokio::sync::Barrier;

    use super::*;

    #[tokio::test]
    async fn askers_at_the_same_time_share_one_work_and_later_ones_get_their_own() {
        let flights = Arc::new(SingleFlight::new());
        let (n_runs, gate) = (Arc::new(AtomicU32::new(0)), Arc::new(Barrier::new(2)));
        let ask = || {
            let (flights, n_runs, gate) = (flights.clone(), n_runs.clone(), gate.clone());
            async move {
                let work = async move {
                    gate.wait().await;
                    n_runs.fetch_add(1, Ordering::SeqCst) + 1
                };
                flights.run("blob", work).await
            }
        };
        let (a, b, c, _) = tokio::join!(ask(), ask(), ask(), gate.wait());
        assert_eq!((a, b, c), (1, 1, 1));
        let (later, _) = tokio::join!(ask(), gate.wait());
        assert_eq!(later, 2);
        assert!(flights.flights().is_empty());
    }

    #[tokio::test]
    async fn an_asker_that_leaves_does_not_take_the_work_along() {
        let flights = SingleFlight::new();
        let gate = Arc::new(Barrier::new(2));
        let work = |gate: Arc<Barrier>| async move {
            gate.wait().await;
            7
        };
        let mut first = Box::pin(flights.run("blob", work(gate.clone())));
        assert!(futures_util::poll!(&mut first).is_pending());
        let mut second = Box::pin(flights.run("blob", std::future::pending()));
        assert!(futures_util::poll!(&mut second).is_pending());
        drop(first);
        let (outcome, _) = tokio::join!(second, gate.wait());
        assert_eq!(outcome, 7);
        assert!(flights.flights().is_empty());
    }

    #[tokio::test]
    async fn work_that_is_worth_finishing_goes_on_when_everybody_has_left() {
        let (flights, tasks) = (Arc::new(SingleFlight::new()), Tasks::new());
        let gate = Arc::new(Barrier::new(2));
        let work = |gate: Arc<Barrier>| async move {
            gate.wait().await;
            7
        };
        let mut first = Box::pin(flights.run_to_end(&tasks, "login", work(gate.clone())));
        assert!(futures_util::poll!(&mut first).is_pending());
        drop(first);
        let second = flights.run_to_end(&tasks, "login", std::future::pending());
        let (outcome, _) = tokio::join!(second, gate.wait());
        assert_eq!(outcome, 7);
        assert!(tasks.shut_down(Duration::from_secs(10)).await.cut.is_empty());
        assert!(flights.flights().is_empty());
    }

    #[tokio::test]
    async fn work_that_everybody_left_is_forgotten() {
        let flights = SingleFlight::<_, u32>::new();
        let mut only = Box::pin(flights.run("blob", std::future::pending()));
        assert!(futures_util::poll!(&mut only).is_pending());
        drop(only);
        assert!(flights.flights().is_empty());
    }
}
