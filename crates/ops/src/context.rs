//! What a service is given to live in.

use crate::admin::Pages;
use crate::metrics::Metrics;
use crate::readiness::Readiness;
use crate::serve::{HttpService, Limits, Listener, ServeMetrics, serve};
use crate::tasks::Tasks;

/// The process as its parts see it; clones are of the same process.
#[derive(Clone)]
pub struct Context {
    /// The group that every task belongs to.
    pub tasks: Tasks,
    /// What must hold before the process is sent work.
    pub readiness: Readiness,
    /// The numbers that the process shows.
    pub metrics: Metrics,
    /// What it shows besides.
    pub pages: Pages,
    serving: ServeMetrics,
}

impl Context {
    /// A fresh process, or a test's.
    pub fn new(service: &'static str, version: &'static str) -> Self {
        let metrics = Metrics::new(service, version);
        Self {
            tasks: Tasks::new(),
            readiness: Readiness::new(),
            pages: Pages::default(),
            serving: ServeMetrics::register(&metrics),
            metrics,
        }
    }

    /// The same process with a group of tasks of its own, for what has to outlive the others.
    pub(crate) fn apart(&self) -> Self {
        Self { tasks: Tasks::new(), ..self.clone() }
    }

    /// Serves on `listener` as a task of the process.
    pub fn serve<S: HttpService>(&self, listener: Listener, service: S, limits: Limits) {
        let (serving, stopping) = (self.serving.clone(), self.tasks.stopping());
        self.tasks.spawn_infallible(listener.name(), async move {
            serve(listener, service, limits, &serving, stopping).await;
        });
    }
}
