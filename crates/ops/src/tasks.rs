//! The group that every long-running task of a process belongs to.
//!
//! A task nobody waits for is cut in the middle of its work when the process ends; a task whose failure
//! nobody sees leaves a process that looks alive and is not. So each has a name, sees one stop signal, and
//! stops the whole group when it fails or panics. The signal is a level, not an edge: whoever asks after it
//! was given sees it at once. Waiting for the end is bounded, and what did not end in time is cut and named.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A task of the group that failed.
#[derive(Debug, thiserror::Error)]
#[error("task {name}: {reason:#}")]
pub struct TaskError {
    /// Which task.
    pub name: &'static str,
    /// Why.
    pub reason: anyhow::Error,
}

/// How a group ended.
#[derive(Debug)]
pub struct Ended {
    /// The first failure, which stopped the group.
    pub failure: Option<TaskError>,
    /// The tasks that were cut because they did not end in time.
    pub cut: Vec<&'static str>,
}

/// A handle on the group; clones are of the same group.
#[derive(Clone, Default)]
pub struct Tasks(Arc<Group>);

#[derive(Default)]
struct Group {
    stopping: CancellationToken,
    /// Ends the tasks that have not heeded `stopping`.
    cut: CancellationToken,
    tracker: TaskTracker,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    n_spawned: u64,
    running: BTreeMap<u64, &'static str>,
    failure: Option<TaskError>,
}

impl Tasks {
    /// An empty group.
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs a task until it ends. It should end soon after [`Tasks::stopping`]; when it fails, all must.
    pub fn spawn<E: Into<anyhow::Error>>(
        &self,
        name: &'static str,
        task: impl Future<Output = Result<(), E>> + Send + 'static,
    ) {
        let running = self.enter(name);
        let cut = self.0.cut.clone();
        self.0.tracker.spawn(async move {
            let ended = cut.run_until_cancelled(task).await;
            if let Some(Err(reason)) = ended {
                running.fail(reason.into());
            }
        });
    }

    /// Runs a task that cannot fail, though it may panic, as [`Tasks::spawn`] does.
    pub fn spawn_infallible(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.spawn(name, async move {
            task.await;
            Ok::<_, Infallible>(())
        });
    }

    /// The stop signal of the group, for tasks to watch.
    pub fn stopping(&self) -> CancellationToken {
        // A child, so that a task that cancels its own token does not stop everybody.
        self.0.stopping.child_token()
    }

    /// Tells every task to stop.
    pub fn stop(&self) {
        self.0.stopping.cancel();
    }

    /// Stops the group and waits at most `grace` for its tasks; cuts those that have not ended then.
    pub async fn shut_down(&self, grace: Duration) -> Ended {
        self.stop();
        self.0.tracker.close();
        // The result is in the names that are left, not in how the wait ended.
        let _ = tokio::time::timeout(grace, self.0.tracker.wait()).await;
        let mut state = self.0.lock();
        self.0.cut.cancel();
        Ended { failure: state.failure.take(), cut: state.running.values().copied().collect() }
    }

    fn enter(&self, name: &'static str) -> Running {
        let mut state = self.0.lock();
        let id = state.n_spawned;
        state.n_spawned += 1;
        state.running.insert(id, name);
        Running { group: Arc::clone(&self.0), id, name }
    }
}

impl Group {
    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is consistent between any two statements, so a panic elsewhere cannot have spoilt it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A task's place in the group, given up when the task ends in whatever way.
struct Running {
    group: Arc<Group>,
    id: u64,
    name: &'static str,
}

impl Running {
    fn fail(&self, reason: anyhow::Error) {
        let name = self.name;
        let mut state = self.group.lock();
        if state.failure.is_none() {
            state.failure = Some(TaskError { name, reason });
        } else {
            // Only the first failure is returned, so this is the last place that can tell of another.
            tracing::warn!(task = name, error = format!("{reason:#}"), "task failed as well");
        }
        self.group.stopping.cancel();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.fail(anyhow::anyhow!("panicked"));
        }
        self.group.lock().running.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::pending;

    const GRACE: Duration = Duration::from_secs(10);

    /// A task that ends when the group stops.
    fn obedient(tasks: &Tasks) {
        let stopping = tasks.stopping();
        tasks.spawn_infallible("obedient", async move { stopping.cancelled().await });
    }

    #[tokio::test(start_paused = true)]
    async fn a_stopped_group_ends_without_leftovers() {
        let tasks = Tasks::new();
        obedient(&tasks);
        tasks.spawn_infallible("short", async {});
        let ended = tasks.shut_down(GRACE).await;
        assert!(ended.failure.is_none());
        assert_eq!(ended.cut, [""; 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_late_asker_sees_the_stop() {
        let tasks = Tasks::new();
        tasks.stop();
        obedient(&tasks);
        tasks.stopping().cancelled().await;
        assert_eq!(tasks.shut_down(GRACE).await.cut, [""; 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_deaf_task_is_cut_and_named() {
        let tasks = Tasks::new();
        let (held, mut dropped) = tokio::sync::oneshot::channel::<()>();
        tasks.spawn_infallible("deaf", async move {
            let _held = held;
            pending().await
        });
        assert_eq!(tasks.shut_down(GRACE).await.cut, ["deaf"]);
        assert!((&mut dropped).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_task_stops_the_others_and_is_told() {
        let tasks = Tasks::new();
        obedient(&tasks);
        tasks.spawn("weak", async { Err(anyhow::anyhow!("disk").context("write")) });
        tasks.stopping().cancelled().await;
        let ended = tasks.shut_down(GRACE).await;
        assert_eq!(ended.failure.map(|it| it.to_string()), Some("task weak: write: disk".into()));
        assert_eq!(ended.cut, [""; 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_is_a_failure() {
        let tasks = Tasks::new();
        tasks.spawn_infallible("clumsy", async { panic!("on purpose") });
        tasks.stopping().cancelled().await;
        let ended = tasks.shut_down(GRACE).await;
        assert_eq!(ended.failure.map(|it| it.to_string()), Some("task clumsy: panicked".into()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_cannot_stop_the_group_through_its_token() {
        let tasks = Tasks::new();
        tasks.stopping().cancel();
        assert!(!tasks.stopping().is_cancelled());
    }
}
