//! The bodies that Harbor and registries send, as the API describes them. They are read field by field elsewhere, and what
//! else stands in them is left aside.

#![expect(dead_code, reason = "it describes what `jobs`, `notifications` and `webhook` read")]

use std::collections::BTreeMap;

use utoipa::ToSchema;

/// A job as Dragonfly takes it.
#[derive(ToSchema)]
#[schema(as = DragonflyRequest, example = json!({ "type": "preheat", "args": { "type": "image",
    "url": "https://harbor.example.com/v2/production/app/manifests/v2", "scope": "all_peers",
    "headers": { "Authorization": "Bearer a token" }, "username": "robot", "password": "a secret" } }))]
pub(super) struct NewJob {
    /// `preheat`.
    r#type: String,
    #[schema(inline)]
    args: Args,
    /// Taken, and of no effect.
    scheduler_cluster_ids: Option<Vec<u64>>,
    /// The same.
    seed_peer_cluster_ids: Option<Vec<u64>>,
}

/// What it is to do.
#[derive(ToSchema)]
struct Args {
    /// `image`.
    r#type: String,
    /// The URL of a manifest: `https://<host>/v2/<repository>/manifests/<reference>`.
    url: String,
    /// All of the image, unless it is said.
    platform: Option<String>,
    /// `single_seed_peer`, which is the default, `all_seed_peers` or `all_peers`.
    scope: Option<String>,
    /// Addresses of nodes.
    ips: Option<Vec<String>>,
    /// So many nodes.
    count: Option<u64>,
    /// So many of a hundred nodes.
    percentage: Option<u64>,
    /// Blobs at once at a node.
    concurrent_task_count: Option<u64>,
    /// Nodes at once.
    concurrent_peer_count: Option<u64>,
    /// In nanoseconds.
    timeout: Option<u64>,
    /// Of these, `Authorization` is what the registry is shown.
    headers: Option<BTreeMap<String, String>>,
    /// The same as Basic, with `password`.
    username: Option<String>,
    /// See `username`.
    password: Option<String>,
}

/// Notifications as Kraken and distributions have them. Names may be in any case.
#[derive(ToSchema)]
#[schema(as = Notifications, example = json!({ "events": [{ "action": "push", "target": {
    "mediaType": "application/vnd.oci.image.manifest.v1+json", "repository": "production/app", "tag": "v2",
    "digest": "sha256:d500a178c29e1209f014d58901810301c5fa85a3634e45971f65f7d6092114c0",
    "url": "https://harbor.example.com/v2/production/app/manifests/v2" }, "request": { "host": "harbor.example.com" } }] }))]
pub(super) struct Notifications {
    #[schema(inline)]
    events: Vec<Notification>,
}

/// One of them.
#[derive(ToSchema)]
struct Notification {
    /// `push`; others ask for nothing.
    action: String,
    #[schema(inline)]
    target: NotificationTarget,
    #[schema(inline)]
    request: Option<NotificationRequest>,
}

/// What it is about.
#[derive(ToSchema)]
struct NotificationTarget {
    /// Of a manifest; others ask for nothing.
    #[schema(rename = "mediaType")]
    media_type: Option<String>,
    repository: String,
    /// What has none asks for nothing.
    tag: Option<String>,
    digest: String,
    /// Of the manifest; its host is the registry.
    url: Option<String>,
}

/// By whom it was brought about.
#[derive(ToSchema)]
struct NotificationRequest {
    /// The registry, where no URL says it.
    host: Option<String>,
}

/// An event as Harbor has it by default.
#[derive(ToSchema)]
#[schema(as = HarborEvent, example = json!({ "type": "PUSH_ARTIFACT", "event_data": {
    "resources": [{ "digest": "sha256:d500a178c29e1209f014d58901810301c5fa85a3634e45971f65f7d6092114c0", "tag": "v2",
        "resource_url": "harbor.example.com/production/app:v2" }],
    "repository": { "repo_full_name": "production/app" } } }))]
pub(super) struct HarborEvent {
    /// `PUSH_ARTIFACT`; others ask for nothing.
    r#type: String,
    #[schema(inline)]
    event_data: Pushed,
}

/// A CloudEvent of Harbor's, in structured mode. In binary mode the attributes stand in headers, `ce-type` and so on, and
/// `data` is the body. Zot's events have as `data` the fields `name`, `reference` and `digest`.
#[derive(ToSchema)]
#[schema(as = CloudEvent, example = json!({ "specversion": "1.0", "id": "1", "source": "/projects/1/webhook/policies/3",
    "type": "harbor.artifact.pushed", "data": {
        "resources": [{ "digest": "sha256:d500a178c29e1209f014d58901810301c5fa85a3634e45971f65f7d6092114c0", "tag": "v2",
            "resource_url": "harbor.example.com/production/app:v2" }],
        "repository": { "repo_full_name": "production/app" } } }))]
pub(super) struct CloudEvent {
    /// `1.0`.
    specversion: String,
    id: String,
    source: String,
    /// `harbor.artifact.pushed`, or what ends with `.image.updated`; others ask for nothing.
    r#type: String,
    #[schema(inline)]
    data: Pushed,
}

/// What was pushed.
#[derive(ToSchema)]
struct Pushed {
    #[schema(inline)]
    resources: Vec<PushedResource>,
    #[schema(inline)]
    repository: PushedRepository,
}

/// One manifest.
#[derive(ToSchema)]
struct PushedResource {
    digest: String,
    /// The digest again where it has none, which asks for nothing.
    tag: Option<String>,
    /// `host/repository:tag`.
    resource_url: String,
}

/// Where to.
#[derive(ToSchema)]
struct PushedRepository {
    repo_full_name: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::harbor::webhook::{Beside, Event};
    use crate::harbor::{jobs, notifications};
    use crate::management::described;

    #[test]
    fn bodies_are_described_as_they_are_read() {
        described::check::<NewJob, _>(jobs::read);
        described::check::<Notifications, _>(notifications::read);
        described::check::<HarborEvent, _>(|it| Event::read(&Beside::default(), it));
        described::check::<CloudEvent, _>(|it| Event::read(&Beside::default(), it));
    }
}
