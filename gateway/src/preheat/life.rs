//! How jobs begin and end at this gateway.
//!
//! Nobody sees the end of a job before it is certain to be the only one: its lease is held while the ending is written
//! down, and for a day after that.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::sleep;

use super::exchange::Answer;
use super::request::{Elsewhere, MAX_REGIONS};
use super::run::{Origin, Runner};
use super::view::{JobView, State};
use super::{GoingOn, OutOfReach, Preheats};
use crate::regions::RegionName;
use crate::sisters::Tenure;
use crate::timestamp::Timestamp;

/// How long nobody takes up a job that is just being ended, and one that has ended.
const ENDING: Duration = Duration::from_secs(60);
const ENDED: Duration = Duration::from_secs(24 * 60 * 60);

impl Preheats {
    /// Has a job end, in the name of `by`, whatever gateway has it. One that has ended stays as it is.
    ///
    /// # Errors
    /// Where that gateway does not answer, and this one cannot take the job over.
    pub(crate) async fn cancel(&self, id: u64, by: &str) -> Result<Option<JobView>, OutOfReach> {
        if let Some(job) = self.cancel_own(id, by).await {
            return Ok(Some(job));
        }
        match self.0.exchange.ask(id, Some(by)).await {
            Answer::AsTold(job) if job.state == State::Pending => Err(OutOfReach(id)),
            Answer::Now(job) | Answer::AsTold(job) => Ok(Some(Arc::unwrap_or_clone(job))),
            Answer::Unknown => Ok(None),
        }
    }

    /// The same of a job that this gateway has.
    pub(super) async fn cancel_own(&self, id: u64, by: &str) -> Option<JobView> {
        if let Some((view, tenure)) = self.cancel_begun(id, by) {
            let (tell, told) = oneshot::channel();
            let (this, view) = (self.clone(), view.cancelled(by, Timestamp::now()));
            self.0.tasks.spawn_infallible("preheat end", async move {
                this.end(view, &tenure).await;
                this.state().unleave(id);
                // Whoever wanted it may have gone.
                let _ = tell.send(());
            });
            // Where nothing is told, the gateway is ending.
            let _ = told.await;
        }
        self.get_own(id)
    }

    /// Has a job that is at work end by itself. One that waits is returned: nobody else ends it.
    fn cancel_begun(&self, id: u64, by: &str) -> Option<(Arc<JobView>, Arc<Tenure>)> {
        let mut state = self.state();
        if let Some(view) = state.claim(id) {
            return Some((view, Arc::new(self.0.means.sisters.job(id))));
        }
        let GoingOn { view, progressing, tenure } = state.going_on.get(&id)?.clone();
        if state.book.unqueue(id) {
            return Some((view, tenure));
        }
        progressing.cancel(by);
        None
    }

    /// This gateway has no such job any more.
    pub(super) fn forget(&self, id: u64) {
        let mut state = self.state();
        state.book.forget(id);
        state.unleave(id);
        if let Some(it) = state.going_on.remove(&id) {
            it.progressing.end();
        }
        drop(state);
        self.changed();
    }

    pub(super) fn begin_more(&self) {
        loop {
            let begun = {
                let mut state = self.state();
                let id = state.book.begin();
                let begun = id.and_then(|id| state.going_on.get(&id).cloned());
                self.count(&state);
                begun
            };
            self.changed();
            let Some(going_on) = begun else { return };
            let this = self.clone();
            self.0.tasks.spawn_infallible("preheat", async move { this.run(going_on).await });
        }
    }

    async fn run(&self, going_on: GoingOn) {
        let stopping = self.0.tasks.stopping();
        let regions = self.regions(&going_on.progressing.request.elsewhere);
        let GoingOn { view, progressing, tenure } = &going_on;
        let running = async {
            tenure.confirm().await?;
            progressing.begin(going_on.waited(), regions);
            let origin = Origin::Here(view.id);
            tokio::select! {
                () = Runner::run(self.0.means.clone(), progressing.clone(), origin) => Some(()),
                () = tenure.keep() => None,
            }
        };
        // One that is cut short goes on after the restart.
        match stopping.run_until_cancelled(running).await {
            None => {}
            Some(Some(())) => self.ended(going_on.outcome()).await,
            Some(None) => self.hand_over(view.id).await,
        }
    }

    /// The other regions that a job is for.
    fn regions(&self, elsewhere: &Elsewhere) -> Vec<RegionName> {
        match elsewhere {
            Elsewhere::In(regions) => regions.clone(),
            Elsewhere::Everywhere => self.0.means.desk.regions().into_iter().take(MAX_REGIONS).collect(),
        }
    }

    /// A job that went on has come to its end.
    async fn ended(&self, view: JobView) {
        let going_on = self.state().going_on.get(&view.id).cloned();
        if let Some(GoingOn { tenure, .. }) = going_on {
            self.end(view, &tenure).await;
        }
    }

    /// Ends a job, unless it is another gateway's by now. Nobody sees the end before it is certain to be the only one.
    pub(super) async fn end(&self, view: JobView, tenure: &Tenure) {
        let JobView { id, state: outcome, .. } = view;
        let view = Arc::new(view);
        // Should this gateway die while it writes, another may go on soon.
        if !tenure.hold_for(ENDING).await {
            return self.hand_over(id).await;
        }
        self.keep(view.clone()).await;
        if !tenure.hold_for(ENDED).await {
            return self.hand_over(id).await;
        }
        tracing::info!(
            id, image = view.request.image, outcome = outcome.as_str(), nodes = view.held.progress.nodes,
            nodes_done = view.held.progress.nodes_done, regions = view.regions.len(), errors = ?view.errors, "preheat job ended"
        );
        self.0.metrics.ended(&view);
        let gone = {
            let mut state = self.state();
            let gone = state.book.ended(Timestamp::now(), view);
            if let Some(it) = state.going_on.remove(&id) {
                it.progressing.end();
            }
            gone
        };
        self.begin_more();
        self.unkeep(gone).await;
    }

    /// Takes back a job that could not be written down.
    pub(super) fn drop_job(&self, id: u64) {
        let mut state = self.state();
        if state.book.unqueue(id) {
            drop(state);
            self.forget(id);
        } else if let Some(it) = state.going_on.get(&id) {
            it.progressing.cancel("the gateway, which cannot write it down");
        }
    }

    /// Ends a job that is not begun in time.
    pub(super) fn mind(&self, id: u64, going_on: &GoingOn) {
        let timeout = going_on.progressing.request.timeout;
        let (this, view) = (self.clone(), going_on.view.clone());
        let (left, stopping) = (timeout.saturating_sub(going_on.waited()), self.0.tasks.stopping());
        let over = going_on.progressing.over();
        self.0.tasks.spawn_infallible("preheat queue", async move {
            tokio::select! {
                () = stopping.cancelled() => {}
                () = over => {}
                () = sleep(left) => {
                    let is_queued = this.state().book.unqueue(id);
                    if is_queued {
                        let why = format!("did not get its turn within {} s", timeout.as_secs());
                        this.ended(view.failed(why, Timestamp::now())).await;
                    }
                }
            }
        });
    }
}
