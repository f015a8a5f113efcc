//! Whether the process should be sent work: a set of named conditions that must all hold.
//!
//! A condition is unmet from the moment it is declared, so that a part that has not started yet keeps the
//! process from being called ready. A condition can be lost again.

use std::collections::BTreeMap;

use tokio::sync::watch;

/// All conditions of the process; clones see the same ones.
#[derive(Clone, Default)]
pub struct Readiness(watch::Sender<BTreeMap<&'static str, bool>>);

/// One condition, for the part of the process that knows whether it holds.
pub struct Condition {
    name: &'static str,
    readiness: Readiness,
}

impl Readiness {
    /// No condition yet, hence ready.
    pub fn new() -> Self {
        Self::default()
    }

    /// Declares a condition, unmet as yet. Its name is what `/readyz` shows and must be its own.
    pub fn condition(&self, name: &'static str) -> Condition {
        self.0.send_modify(|conditions| {
            conditions.insert(name, false);
        });
        Condition { name, readiness: self.clone() }
    }

    /// The names of the conditions that do not hold.
    pub fn unmet(&self) -> Vec<&'static str> {
        let conditions = self.0.borrow();
        let unmet = conditions.iter().filter(|(_, holds)| !**holds);
        unmet.map(|(name, _)| *name).collect()
    }

    /// Waits until all conditions hold at once.
    pub async fn ready(&self) {
        let all_hold = |conditions: &BTreeMap<_, bool>| conditions.values().all(|it| *it);
        // It can only fail when the sender is gone, and `self` holds it.
        let _ = self.0.subscribe().wait_for(all_hold).await;
    }
}

impl Condition {
    /// Says whether the condition holds.
    pub fn set(&self, holds: bool) {
        self.readiness.0.send_if_modified(|conditions| {
            let changed = conditions.insert(self.name, holds) != Some(holds);
            if changed {
                tracing::info!(condition = self.name, holds, "readiness changed");
            }
            changed
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::{Duration, timeout};

    #[tokio::test(start_paused = true)]
    async fn it_is_ready_when_all_conditions_hold() {
        let readiness = Readiness::new();
        let (store, scheduler) = (readiness.condition("store"), readiness.condition("scheduler"));
        assert_eq!(readiness.unmet(), ["scheduler", "store"]);
        store.set(true);
        assert!(timeout(Duration::from_secs(1), readiness.ready()).await.is_err());
        scheduler.set(true);
        readiness.ready().await;
        assert_eq!(readiness.unmet(), [""; 0]);
        store.set(false);
        assert_eq!(readiness.unmet(), ["store"]);
    }
}
