//! Going on with jobs that another process began: this gateway's before its restart, and those of gateways that are gone.
//!
//! Such a job begins anew, which costs nothing where nodes hold the image already. It has no credential any more. With a
//! lease alone is it taken over, and one that has lost its lease is left to whoever has it.

use std::sync::Arc;

use shoal_model::NodeId;

use super::book::Sameness;
use super::request::Request;
use super::view::JobView;
use super::{GoingOn, Preheats};
use crate::mode::Asker;
use crate::sisters::Tenure;
use crate::timestamp::Timestamp;

impl Preheats {
    /// Goes on with the jobs of before. Whoever else may have them should be known by now.
    pub(crate) async fn resume(&self) {
        let lost = "the gateway was restarted before the job had ended, and the credential that came with it is not \
                    kept: ask again";
        loop {
            let claimed = {
                let mut state = self.state();
                let id = state.left.keys().find(|it| !state.claimed.contains(it)).copied();
                id.and_then(|it| state.claim(it))
            };
            let Some(view) = claimed else { break };
            let tenure = self.0.means.sisters.job(view.id);
            self.take_up(view, tenure, lost).await;
        }
        self.begin_more();
    }

    /// Goes on with a job that has no credential any more; `lost` is what is said where it needs it.
    async fn take_up(&self, view: Arc<JobView>, tenure: Tenure, lost: &str) {
        let id = view.id;
        let asked = view.request.clone();
        let request = Request::new(asked, |it| self.registry_named(it)).map_err(|it| it.join("; "));
        let needs_credential = |it: &Request| view.has_credential && self.asker(it) != Some(Asker::Gateway);
        let request = match request {
            Ok(request) if needs_credential(&request) => Err(lost.to_owned()),
            request => request,
        };
        match request {
            Ok(request) => {
                let sameness = Sameness::of(&request, self.holder(&request));
                tracing::info!(id, image = view.request.image, "preheat job begins anew");
                let going_on = GoingOn::new(view, request, tenure);
                self.mind(id, &going_on);
                let mut state = self.state();
                state.unleave(id);
                state.book.resume(id, sameness);
                state.going_on.insert(id, going_on);
            }
            Err(why) => {
                self.end(view.failed(why, Timestamp::now()), &tenure).await;
                self.state().unleave(id);
            }
        }
        self.changed();
    }

    /// Goes on with the jobs of gateways that are gone, for as long as there is room.
    pub(super) async fn take_over(&self) {
        let sisters = &self.0.means.sisters;
        // Without a lease two could take up the same job.
        if !sisters.has_redis() {
            return;
        }
        for (gateway, view) in self.0.exchange.orphans() {
            let id = view.id;
            if self.look(id, |_| (), |_| ()).is_some() {
                continue;
            }
            if !self.state().book.has_room_for(id) {
                return;
            }
            let tenure = sisters.job(id);
            if tenure.win().await {
                self.inherit(&gateway, &view, tenure).await;
            }
        }
    }

    async fn inherit(&self, gateway: &NodeId, view: &JobView, tenure: Tenure) {
        tracing::warn!(id = view.id, %gateway, "preheat job taken over from a gateway that is gone");
        self.0.metrics.taken_over();
        let view = Arc::new(view.anew());
        if !self.keep(view.clone()).await {
            // It goes on all the same, and is lost if this gateway ends as well.
            tracing::warn!(id = view.id, "preheat job that was taken over is not written down");
        }
        let lost = format!(
            "the gateway {gateway} is gone, and the credential that came with the job was there alone: ask again"
        );
        self.take_up(view, tenure, &lost).await;
        self.begin_more();
    }

    /// Leaves a job to the gateway that has it now.
    pub(super) async fn hand_over(&self, id: u64) {
        tracing::warn!(id, "preheat job is another gateway's by now, and left to it");
        self.0.metrics.handed_over();
        self.forget(id);
        self.begin_more();
        self.unkeep(vec![id]).await;
    }
}
