//! `/api/v1/tasks`, `/api/v1/nodes` and `/api/v1/regions`: seeing what the region has, and which others there
//! are; and removing what it has.
//!
//! ```text
//! GET /api/v1/tasks         ?state=COMPLETE&registry=&repository=&digest=&after=&per_page=10
//! GET /api/v1/tasks/{id}    DELETE to remove it
//! POST /api/v1/repositories/purge   {"registry": "harbor.example.com", "repository": "team/app"}
//! GET /api/v1/nodes         ?zone=&task=&after=&per_page=10
//! GET /api/v1/regions
//! GET /api/v1/fleet         the region at a glance
//! GET /api/v1/tasks/{id}/swarm
//! ```

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, RawQuery, State as Shared};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use http::{HeaderMap, StatusCode};
use shoal_model::BlobKey;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Fleet;
use super::overview::FleetView;
use super::purge::{Body, Purge, PurgeView};
use super::query::{NodesQuery, TasksQuery};
use super::removal::RemovalView;
use super::swarm::SwarmView;
use super::view::{NodesView, RegionsView, TaskView, TasksView};
use crate::census::{Counted, Silent};
use crate::fields::Mistakes;
use crate::live::Live;
use crate::management::{Errors, Guarded, Message, Reply, Scope, Subject};

/// The routes: for those who may look, and for those who may remove.
pub(crate) fn routes(fleet: Fleet, live: Live) -> [Guarded; 2] {
    let removing =
        OpenApiRouter::new().routes(routes!(remove_task)).routes(routes!(purge)).with_state(fleet.clone());
    let looking = OpenApiRouter::new()
        .routes(routes!(list_tasks))
        .routes(routes!(show_task))
        .routes(routes!(list_nodes))
        .routes(routes!(list_regions))
        .routes(routes!(show_fleet))
        .routes(routes!(show_swarm))
        .layer(Extension(live))
        .with_state(fleet);
    [Guarded::by_token(Scope::Read, looking), Guarded::by_token(Scope::Delete, removing)]
}

/// Blobs that the region holds, wants or seeds, by trust group and digest.
#[utoipa::path(get, path = "/api/v1/tasks", tag = "tasks", params(("state" = Option<String>, Query, description = "FETCHING, COMPLETE or PARTIAL"), ("registry" = Option<String>, Query, description = "the name of a registry, or one of its hosts"), ("repository" = Option<String>, Query, description = "together with registry: blobs that this gateway has opened for it"), ("digest" = Option<String>, Query, description = "sha256:..."), ("after" = Option<String>, Query, description = "the last page's next"), ("per_page" = Option<usize>, Query, description = "up to 100")), security(("token" = [])), responses((status = 200, description = "a page of tasks, what the next one goes on after, and the schedulers that did not answer; as server-sent events for who accepts text/event-stream", body = TasksView), (status = 422, description = "all that is wrong", body = Errors)))]
async fn list_tasks(
    Shared(fleet): Shared<Fleet>,
    Extension(live): Extension<Live>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Result<Response, Mistakes> {
    let query = TasksQuery::read(&query.unwrap_or_default(), |it| fleet.registry_named(it))?;
    let look = move || {
        let (fleet, query) = (fleet.clone(), query.clone());
        async move { Ok(fleet.tasks(query).await) }
    };
    Ok(live.answer(&headers, look).await)
}

/// One task as it is now.
#[utoipa::path(get, path = "/api/v1/tasks/{id}", tag = "tasks", params(("id" = String, Path, description = "<trust group>@sha256:..., percent-encoded")), security(("token" = [])), responses((status = 200, description = "the task", body = TaskView), (status = 404, description = "the region has no such blob", body = Message), (status = 503, description = "a scheduler that may know of it does not answer", body = Message)))]
async fn show_task(Shared(fleet): Shared<Fleet>, Path(id): Path<String>) -> Result<Json<TaskView>, Reply> {
    let key = id.parse().map_err(|_| unknown(&id, &[]))?;
    let counted = fleet.task(&key).await;
    counted.found.into_iter().next().map(Json).ok_or_else(|| unknown(&id, &counted.silent))
}

/// Removes a blob from all nodes and gateways.
#[utoipa::path(delete, path = "/api/v1/tasks/{id}", tag = "tasks", params(("id" = String, Path, description = "<trust group>@sha256:..., percent-encoded")), security(("token" = [])), responses((status = 200, description = "what was done at each node; nothing is left", body = RemovalView), (status = 207, description = "the same, but something may be left", body = RemovalView), (status = 404, description = "no name of a blob", body = Message)))]
async fn remove_task(Shared(fleet): Shared<Fleet>, Path(id): Path<String>) -> Result<Response, Reply> {
    let key = id.parse().map_err(|_| unknown(&id, &[]))?;
    let subject = Extension(Subject(id));
    let (removal, _) = fleet.remove(vec![key]).await;
    let status = if removal.is_whole() { StatusCode::OK } else { StatusCode::MULTI_STATUS };
    Ok((status, subject, Json(removal)).into_response())
}

/// Forgets a repository and removes the blobs that are known as its alone.
#[utoipa::path(post, path = "/api/v1/repositories/purge", tag = "tasks", request_body = Body, security(("token" = [])), responses((status = 200, description = "what was done; nothing is left of what is known", body = PurgeView), (status = 207, description = "the same, but something may be left: ask again", body = PurgeView), (status = 422, description = "all that is wrong", body = Errors)))]
async fn purge(
    Shared(fleet): Shared<Fleet>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Response> {
    let body = body.map_err(|it| Reply::from(it).into_response())?;
    let purge = Purge::read(&body, |it| fleet.registry_named(it)).map_err(IntoResponse::into_response)?;
    let subject = Extension(Subject(purge.subject()));
    let purged = fleet.purge(purge).await;
    let status = if purged.is_whole() { StatusCode::OK } else { StatusCode::MULTI_STATUS };
    Ok((status, subject, Json(purged)).into_response())
}

/// Nodes that have joined, by name.
#[utoipa::path(get, path = "/api/v1/nodes", tag = "nodes", params(("zone" = Option<String>, Query, description = "those in this zone"), ("task" = Option<String>, Query, description = "those that hold something of this one or want it"), ("after" = Option<String>, Query, description = "the last page's next"), ("per_page" = Option<usize>, Query, description = "up to 100")), security(("token" = [])), responses((status = 200, description = "a page of nodes, what the next one goes on after, and the schedulers that did not answer", body = NodesView), (status = 422, description = "all that is wrong", body = Errors)))]
async fn list_nodes(
    Shared(fleet): Shared<Fleet>,
    RawQuery(query): RawQuery,
) -> Result<Json<NodesView>, Response> {
    let query = NodesQuery::read(&query.unwrap_or_default()).map_err(IntoResponse::into_response)?;
    Ok(Json(fleet.nodes(query).await))
}

/// The hub, and the gateways of other regions that are there.
#[utoipa::path(get, path = "/api/v1/regions", tag = "regions", security(("token" = [])), responses((status = 200, description = "the hub, where there is one, and the regions that read registries by way of this gateway", body = RegionsView)))]
async fn list_regions(Shared(fleet): Shared<Fleet>) -> Json<RegionsView> {
    Json(fleet.regions())
}

/// The region at a glance: how many nodes stand where, and which gateways, schedulers and regions answer.
#[utoipa::path(get, path = "/api/v1/fleet", tag = "nodes", security(("token" = [])), responses((status = 200, description = "the region; as server-sent events for who accepts text/event-stream", body = FleetView)))]
async fn show_fleet(
    Shared(fleet): Shared<Fleet>,
    Extension(live): Extension<Live>,
    headers: HeaderMap,
) -> Response {
    let look = move || {
        let fleet = fleet.clone();
        async move { Ok(fleet.overview().await) }
    };
    live.answer(&headers, look).await
}

/// One task closely: what its nodes hold of it, and who is whose neighbour.
#[utoipa::path(get, path = "/api/v1/tasks/{id}/swarm", tag = "tasks", params(("id" = String, Path, description = "<trust group>@sha256:..., percent-encoded")), security(("token" = [])), responses((status = 200, description = "the task with up to 200 nodes; as server-sent events for who accepts text/event-stream", body = SwarmView), (status = 404, description = "no node has such a blob or wants it", body = Message), (status = 503, description = "a scheduler that may know of it does not answer", body = Message)))]
async fn show_swarm(
    Shared(fleet): Shared<Fleet>,
    Extension(live): Extension<Live>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Result<Response, Reply> {
    let key: BlobKey = id.parse().map_err(|_| unknown(&id, &[]))?;
    let look = move || {
        let (fleet, key, id) = (fleet.clone(), key.clone(), id.clone());
        async move {
            let Counted { found, silent, is_known } = fleet.swarm(&key).await;
            if !is_known && silent.is_empty() {
                let text = "there is no scheduler, and nobody else knows what nodes hold";
                return Err(Reply::new(StatusCode::SERVICE_UNAVAILABLE, text));
            }
            found.into_iter().next().ok_or_else(|| unknown(&id, &silent))
        }
    };
    Ok(live.answer(&headers, look).await)
}

/// A blob that nobody who answers knows of, which is as good as none only where all have answered.
fn unknown(id: &str, silent: &[Silent]) -> Reply {
    let shown: String = id.chars().take(120).collect();
    let (status, why) = match silent {
        [] => (StatusCode::NOT_FOUND, "does not exist".to_owned()),
        _ => {
            let silent: Vec<_> = silent.iter().map(|it| format!("{}: {}", it.scheduler, it.cause)).collect();
            let why = format!("is not known to those who answer; no answer of {}", silent.join("; "));
            (StatusCode::SERVICE_UNAVAILABLE, why)
        }
    };
    Reply::new(status, format!("task {shown:?} {why}"))
}
