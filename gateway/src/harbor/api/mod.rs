//! The routes that Harbor calls, and others that speak as it does.

mod bodies;
mod jobs;
mod pushes;

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use crate::fields::Mistakes;
use crate::management::{Guarded, Reply};
use crate::preheat::request::{Asked, Request};
use crate::preheat::{JobView, Preheats, Refused};
use crate::settings::OccasionSettings;
use pushes::Pushes;

/// All routes. Schedules are no route, and stay.
pub(crate) fn routes(preheats: &Preheats, occasions: &OccasionSettings) -> Vec<Guarded> {
    let pushes = Pushes::new(preheats.clone(), occasions);
    let mut routes = vec![jobs::routes(preheats.clone()), pushes.notifications()];
    routes.extend(occasions.authorization.clone().map(|it| pushes.webhook(it)));
    routes
}

/// Why there is no job.
enum NoJob {
    Mistakes(Mistakes),
    Refused(Refused),
}

/// Asks for a job.
async fn ask(preheats: &Preheats, asked: Asked, by: String) -> Result<JobView, NoJob> {
    let request = Request::new(asked, |host| preheats.registry_named(host));
    let request = request.map_err(|it| NoJob::Mistakes(Mistakes(it)))?;
    preheats.submit(request, by).await.map_err(NoJob::Refused)
}

/// All that is wrong, as Dragonfly words it.
#[derive(Serialize, ToSchema)]
struct OneText {
    errors: String,
}

fn one_text(Mistakes(mistakes): Mistakes) -> Response {
    (StatusCode::UNPROCESSABLE_ENTITY, Json(OneText { errors: mistakes.join("; ") })).into_response()
}

impl IntoResponse for NoJob {
    fn into_response(self) -> Response {
        match self {
            Self::Mistakes(mistakes) => one_text(mistakes),
            Self::Refused(refused) => Reply::from(refused).into_response(),
        }
    }
}
