//! The routes that Harbor calls, and others that speak as it does.

mod jobs;
mod pushes;

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde_json::json;
use shoal_ops::tasks::Tasks;
use tokio::sync::oneshot;

use super::fields::Mistakes;
use crate::management::{Guarded, Reply};
use crate::preheat::request::{Asked, Request};
use crate::preheat::{JobView, Preheats, Refused};
use crate::settings::OccasionSettings;
use pushes::Pushes;

/// All routes. Schedules are no route, and stay.
pub(crate) fn routes(preheats: &Preheats, occasions: &OccasionSettings, tasks: &Tasks) -> Vec<Guarded> {
    let jobs = Jobs { preheats: preheats.clone(), tasks: tasks.clone() };
    let pushes = Pushes::new(jobs.clone(), occasions);
    let mut routes = vec![jobs::routes(jobs), pushes.notifications()];
    routes.extend(occasions.authorization.clone().map(|it| pushes.webhook(it)));
    routes
}

/// Where jobs are asked for; clones are of the same.
#[derive(Clone)]
struct Jobs {
    preheats: Preheats,
    tasks: Tasks,
}

/// Why there is no job.
enum NoJob {
    Mistakes(Mistakes),
    Refused(Refused),
    /// The process is ending.
    Ending,
}

impl Jobs {
    /// Asks for a job. It is asked for also where its caller has gone before it is written down.
    async fn ask(&self, asked: Asked, by: String) -> Result<JobView, NoJob> {
        let request = Request::new(asked, |host| self.preheats.registry_named(host));
        let request = request.map_err(|it| NoJob::Mistakes(Mistakes(it)))?;
        let (tell, told) = oneshot::channel();
        let preheats = self.preheats.clone();
        self.tasks.spawn_infallible("preheat request", async move {
            // Whoever asked may have gone.
            let _ = tell.send(preheats.submit(request, by).await);
        });
        told.await.map_err(|_| NoJob::Ending)?.map_err(NoJob::Refused)
    }
}

/// As Dragonfly words it: one text.
impl IntoResponse for Mistakes {
    fn into_response(self) -> Response {
        (StatusCode::UNPROCESSABLE_ENTITY, Json(json!({ "errors": self.0.join("; ") }))).into_response()
    }
}

impl IntoResponse for NoJob {
    fn into_response(self) -> Response {
        match self {
            Self::Mistakes(mistakes) => mistakes.into_response(),
            Self::Refused(refused) => Reply::from(refused).into_response(),
            Self::Ending => {
                Reply::new(StatusCode::SERVICE_UNAVAILABLE, "the gateway is ending").into_response()
            }
        }
    }
}
