//! A job as Dragonfly's clients know it, Harbor among them.
//!
//! It has three states only, because Harbor takes any other for a failure. Unlike the original it does not repeat what
//! it was given to show the registry.

use std::iter;

use serde::Serialize;
use utoipa::ToSchema;

use crate::preheat::request::Asked;
use crate::preheat::{JobView, Row, State};
use crate::timestamp::Timestamp;

/// A job as Dragonfly's clients know it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DragonflyJob)]
pub(crate) struct Job {
    id: u64,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    updated_at: Timestamp,
    is_del: u64,
    task_id: String,
    bio: &'static str,
    r#type: &'static str,
    state: State,
    args: Args,
    /// None while it goes on.
    result: Option<Outcome>,
    /// Always empty.
    #[schema(value_type = Vec<u64>)]
    scheduler_clusters: [(); 0],
    /// Always empty.
    #[schema(value_type = Vec<u64>)]
    seed_peer_clusters: [(); 0],
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DragonflyArgs)]
struct Args {
    r#type: &'static str,
    url: String,
    platform: String,
    scope: String,
    ips: Vec<String>,
    count: Option<u64>,
    percentage: Option<u64>,
    /// In nanoseconds.
    timeout: u64,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DragonflyOutcome)]
struct Outcome {
    group_uuid: String,
    state: State,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    updated_at: Timestamp,
    job_states: Vec<JobState>,
}

/// One thing that is to be said of a job. Harbor shows the `error` of each where a job failed.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DragonflyJobState)]
struct JobState {
    task_uuid: String,
    task_name: &'static str,
    state: State,
    error: String,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    ttl: u64,
    results: Vec<Rows>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DragonflyRows)]
struct Rows {
    success_tasks: Vec<Row>,
    failure_tasks: Vec<Row>,
    scheduler_cluster_id: u64,
}

impl From<&JobView> for Job {
    fn from(view: &JobView) -> Self {
        let Asked { image, platforms, scope, ips, count, percentage, timeout, .. } = view.request.clone();
        let args = Args {
            r#type: "image",
            url: image,
            platform: platforms.join(","),
            scope: scope.unwrap_or_default(),
            ips,
            count,
            percentage,
            timeout: timeout.map_or(0, |it| u64::try_from(it.as_nanos()).unwrap_or(u64::MAX)),
        };
        Self {
            id: view.id,
            created_at: view.created,
            updated_at: view.updated,
            is_del: 0,
            task_id: group(view),
            bio: "",
            r#type: "preheat",
            state: view.state,
            args,
            result: (view.state != State::Pending).then(|| Outcome::of(view)),
            scheduler_clusters: [],
            seed_peer_clusters: [],
        }
    }
}

impl Outcome {
    fn of(view: &JobView) -> Self {
        let all = || iter::once(&view.held).chain(view.regions.iter().map(|it| &it.held));
        let rows = Rows {
            success_tasks: all().flat_map(|it| it.success.clone()).collect(),
            failure_tasks: all().flat_map(|it| it.failure.clone()).collect(),
            scheduler_cluster_id: 0,
        };
        let n_left_out = all().fold(0_usize, |n, it| n.saturating_add(it.rows_left_out));
        let mut errors = view.errors.clone();
        if n_left_out > 0 {
            errors.push(format!("{n_left_out} more rows are not shown"));
        }
        // One at least, for the rows.
        if errors.is_empty() {
            errors.push(String::new());
        }
        let state = |error: String| JobState {
            task_uuid: group(view),
            task_name: "preheat",
            state: view.state,
            error,
            created_at: view.created,
            ttl: 0,
            results: Vec::new(),
        };
        let mut job_states: Vec<_> = errors.into_iter().map(state).collect();
        if let Some(first) = job_states.first_mut() {
            first.results.push(rows);
        }
        Self {
            group_uuid: group(view),
            state: view.state,
            created_at: view.created,
            updated_at: view.updated,
            job_states,
        }
    }
}

fn group(view: &JobView) -> String {
    format!("group_{}", view.id)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::preheat::{Held, RegionView};

    fn view(state: State) -> JobView {
        let row = |description: Option<&str>| Row {
            url: "https://harbor.example/v2/lib/app/blobs/sha256:aa".to_owned(),
            hostname: "node-1".to_owned(),
            ip: "10.0.0.1".to_owned(),
            description: description.map(str::to_owned),
        };
        let given = json!({ "id": 7, "state": state, "doing": "ended", "askedBy": "harbor", "hasCredential": true,
            "request": Asked { image: "harbor.example/lib/app:v1".to_owned(), ..Asked::default() },
            "created": "2026-06-01T12:00:00Z", "updated": "2026-06-01T12:01:00Z", "progress": { "bytes": 1,
            "bytesHeld": 1, "nodes": 2, "nodesDone": 1, "nodesFailed": 1 }, "errors": [], "layers": [],
            "success": [row(None)], "failure": [row(Some("disk full"))], "rowsLeftOut": 0 });
        serde_json::from_value(given).unwrap()
    }

    fn shown(view: &JobView) -> Value {
        serde_json::to_value(Job::from(view)).unwrap()
    }

    #[test]
    fn a_job_that_goes_on_has_no_result() {
        let job = shown(&view(State::Pending));
        assert_eq!((&job["id"], &job["state"], &job["result"]), (&json!(7), &json!("PENDING"), &Value::Null));
        assert_eq!(job["created_at"], "2026-06-01T12:00:00.000Z");
        assert!(job["args"].get("headers").is_none());
    }

    #[test]
    fn one_that_has_ended_tells_who_has_what_and_why_not() {
        let job = shown(&view(State::Success));
        let first = &job["result"]["job_states"][0];
        assert_eq!((&job["state"], &first["error"]), (&json!("SUCCESS"), &json!("")));
        let row = json!({ "url": "https://harbor.example/v2/lib/app/blobs/sha256:aa", "hostname": "node-1",
            "ip": "10.0.0.1" });
        let mut failed = row.clone();
        failed["description"] = "disk full".into();
        let expected =
            json!([{ "success_tasks": [row], "failure_tasks": [failed], "scheduler_cluster_id": 0 }]);
        assert_eq!(first["results"], expected);
    }

    #[test]
    fn what_other_regions_hold_is_told_with_the_rest() {
        let own = view(State::Success);
        let (name, doing, errors) = ("eu".to_owned(), "ended".to_owned(), Vec::new());
        let region = RegionView { name, state: State::Success, doing, errors, held: own.held.clone() };
        let job = shown(&JobView { regions: vec![region], ..own });
        let rows = &job["result"]["job_states"][0]["results"][0];
        let n_rows = |kind: &str| rows[kind].as_array().map(Vec::len);
        assert_eq!((n_rows("success_tasks"), n_rows("failure_tasks")), (Some(2), Some(2)));
    }

    #[test]
    fn each_error_is_one_that_harbor_shows() {
        let errors = vec!["layer 1: the registry says 404".to_owned(), "no node answers".to_owned()];
        let failed = view(State::Failure);
        let held = Held { rows_left_out: 3, ..failed.held.clone() };
        let job = shown(&JobView { errors: errors.clone(), held, ..failed });
        let states = job["result"]["job_states"].as_array().unwrap();
        let told: Vec<_> = states.iter().map(|it| it["error"].as_str().unwrap()).collect();
        assert_eq!(told, [&errors[0], &errors[1], "3 more rows are not shown"]);
        assert!(states.iter().all(|it| it["state"] == "FAILURE"));
    }
}
