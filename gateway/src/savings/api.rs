//! `GET /api/v1/savings?hours=24`: what arrived at nodes, and what was read from outside for that.

use std::time::Duration;

use axum::Json;
use axum::extract::{RawQuery, State as Shared};
use serde::Serialize;
use url::form_urlencoded;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Savings;
use super::series::{Moved, STEP};
use crate::fields::Mistakes;
use crate::management::{Errors, Guarded, Scope};
use crate::timestamp::Timestamp;

/// How far back is looked, unless it is said, and at the most, in hours.
const HOURS: u64 = 24;
const MAX_HOURS: u64 = 30 * 24;

/// What moved within a time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = Savings)]
struct View {
    /// Since when this gateway has taken notes.
    #[schema(value_type = String, format = DateTime)]
    since: Timestamp,
    /// Seconds of a step.
    every: u64,
    total: MovedView,
    /// By time; those in which nothing moved are left out.
    steps: Vec<StepView>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = SavingsStep)]
struct StepView {
    /// When it began.
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
    #[serde(flatten)]
    moved: MovedView,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = SavingsMoved)]
struct MovedView {
    /// What nodes received of blobs that they wanted, from peers and gateways. The smallest come with the answer to a
    /// question, and are not among it.
    arrived_bytes: u64,
    /// What the region's gateways read of blobs, from registries and from the hub.
    registry_bytes: u64,
}

impl From<Moved> for MovedView {
    fn from(Moved { arrived, read }: Moved) -> Self {
        Self { arrived_bytes: arrived, registry_bytes: read }
    }
}

/// The routes, for those who may look.
pub(crate) fn routes(savings: Savings) -> Guarded {
    Guarded::by_token(Scope::Read, OpenApiRouter::new().routes(routes!(show)).with_state(savings))
}

/// What arrived at nodes and what was read for that, over time.
#[utoipa::path(get, path = "/api/v1/savings", tag = "nodes", params(("hours" = Option<u64>, Query, description = "how far back, from 1 to 720; 24 unless it is said")), security(("token" = [])), responses((status = 200, description = "totals and steps", body = View), (status = 422, description = "all that is wrong", body = Errors)))]
async fn show(Shared(savings): Shared<Savings>, RawQuery(query): RawQuery) -> Result<Json<View>, Mistakes> {
    let hours = hours(&query.unwrap_or_default())?;
    Ok(Json(savings.view(hours, Timestamp::now())))
}

impl Savings {
    fn view(&self, hours: u64, now: Timestamp) -> View {
        let back = Duration::from_secs(hours * 60 * 60);
        let from = Timestamp::of_millis(now.millis().saturating_sub(back.as_millis() as u64));
        let series = self.series();
        let mut total = Moved::default();
        let steps = series.from(from).map(|(at, moved)| {
            total += moved;
            StepView { at, moved: moved.into() }
        });
        let steps = steps.collect();
        View { since: series.since(), every: STEP.as_secs(), total: total.into(), steps }
    }
}

fn hours(query: &str) -> Result<u64, Mistakes> {
    let (mut hours, mut mistakes) = (HOURS, Mistakes::default());
    for (key, value) in form_urlencoded::parse(query.as_bytes()) {
        match (&*key, value.parse().ok().filter(|it| (1..=MAX_HOURS).contains(it))) {
            ("hours", Some(number)) => hours = number,
            ("hours", None) => mistakes.add(format!("hours is not from 1 to {MAX_HOURS}")),
            _ => mistakes.add("there is no parameter but hours"),
        }
    }
    mistakes.or(hours)
}

#[cfg(test)]
mod tests {
    use super::super::series::Series;
    use super::*;
    use serde_json::json;
    use std::sync::{Arc, Mutex};

    #[test]
    fn what_moved_within_the_time_is_shown_and_added_up() {
        let at = |hour: u64| Timestamp::of_millis(1_700_000_400_000 + hour * 3_600_000);
        let mut series = Series::new(at(0));
        for (hour, arrived, read) in [(0, 100, 10), (5, 200, 20), (6, 300, 0)] {
            series.add(at(hour), Moved { arrived, read });
        }
        let savings = Savings(Arc::new(Mutex::new(series)));
        let view = serde_json::to_value(savings.view(2, at(7))).unwrap();
        assert_eq!(view["total"], json!({ "arrivedBytes": 500, "registryBytes": 20 }));
        let first = json!({ "at": "2023-11-15T03:20:00.000Z", "arrivedBytes": 200, "registryBytes": 20 });
        assert_eq!((&view["steps"][0], view["every"].as_u64()), (&first, Some(600)));
        assert_eq!(savings.view(720, at(7)).steps.len(), 3);
    }

    #[test]
    fn the_time_is_asked_for_in_hours() {
        assert_eq!((hours(""), hours("hours=720")), (Ok(24), Ok(720)));
        for bad in ["hours=0", "hours=721", "hours=x", "days=1"] {
            assert!(hours(bad).is_err(), "{bad}");
        }
    }
}
