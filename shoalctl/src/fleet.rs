//! What the region holds and which nodes there are, as the management API tells it and as it is printed.
//!
//! A field that an older gateway does not send is empty here, and one that a newer one adds is passed over.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::fault::{Exit, Fault};
use crate::gateway::Gateway;
use crate::job::Jobs;
use crate::preheat;
use crate::table::{Table, bytes, count, percent, plain};

pub(crate) const TASKS: &str = "/api/v1/tasks";
pub(crate) const NODES: &str = "/api/v1/nodes";
/// How far back is looked for what was saved.
const HOURS: u32 = 24;

/// A list of tasks.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Tasks {
    tasks: Vec<Task>,
    next: Option<String>,
    incomplete: Vec<Silent>,
}

/// A blob that the region holds, wants or seeds.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Task {
    pub(crate) id: String,
    state: String,
    /// Bytes of the whole, and of every piece but the last.
    pub(crate) content_length: u64,
    piece_length: u64,
    pieces: u64,
    pub(crate) nodes: Having,
    gateway: String,
    sources: Vec<Source>,
    more_sources: bool,
    pub(crate) seed: Option<Seed>,
    traffic: Option<Traffic>,
}

/// How many nodes have it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Having {
    pub(crate) whole: u64,
    pub(crate) part: u64,
    pub(crate) wanting: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Source {
    registry: String,
    repository: String,
}

/// A gateway's read of it.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Seed {
    /// Bytes that are read.
    pub(crate) offset: u64,
    queue_position: u64,
}

/// Bytes that a gateway has read and sent since it started.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Traffic {
    pub(crate) registry: u64,
    pub(crate) hub: u64,
    pub(crate) peers: u64,
    pub(crate) sent: u64,
}

/// A scheduler that did not answer.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Silent {
    scheduler: String,
    cause: String,
}

/// A list of nodes.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Nodes {
    nodes: Vec<Node>,
    next: Option<String>,
    incomplete: Vec<Silent>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Node {
    id: String,
    address: String,
    role: String,
    zone: String,
    rack: String,
    blobs: Option<u64>,
}

/// The regions that a gateway has to do with.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Regions {
    hub: Option<Hub>,
    regions: Vec<Region>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Hub {
    region: String,
    answers: bool,
    gateway: Option<String>,
    since: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Region {
    name: String,
}

/// How many nodes there are, and where.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Fleet {
    nodes: NodeCounts,
    zones: Vec<Zone>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct NodeCounts {
    sidecars: usize,
    gateways: usize,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Zone {
    zone: String,
}

/// A region as it is at one moment.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Look {
    regions: Regions,
    pub(crate) fleet: Fleet,
    pub(crate) tasks: Tasks,
    pub(crate) savings: Savings,
    /// Preheat jobs under way.
    pub(crate) preheat: Jobs,
}

/// What moved in the last hours.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Savings {
    total: Moved,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Moved {
    arrived_bytes: u64,
    registry_bytes: u64,
}

/// The document of a [`Look`].
///
/// # Errors
/// Where the gateway does not tell all of it.
pub async fn look(gateway: &Gateway) -> Result<Value, Fault> {
    Ok(json!({
        "regions": gateway.get("/api/v1/regions").await?,
        "fleet": gateway.get("/api/v1/fleet").await?,
        "tasks": gateway.list(TASKS, "tasks", &[]).await?,
        "savings": gateway.get(&format!("/api/v1/savings?hours={HOURS}")).await?,
        "preheat": preheat::list(gateway, Some("PENDING")).await?,
    }))
}

impl Tasks {
    pub(crate) fn all(&self) -> impl Iterator<Item = &Task> {
        self.tasks.iter()
    }

    /// What the gateway has moved of all of them.
    pub(crate) fn traffic(&self) -> Traffic {
        self.tasks.iter().filter_map(|it| it.traffic).fold(Traffic::default(), |sum, it| Traffic {
            registry: sum.registry.saturating_add(it.registry),
            hub: sum.hub.saturating_add(it.hub),
            peers: sum.peers.saturating_add(it.peers),
            sent: sum.sent.saturating_add(it.sent),
        })
    }
}

impl Task {
    /// Whether somebody waits for it, or it is being read.
    pub(crate) const fn is_on_its_way(&self) -> bool {
        self.nodes.wanting > 0 || self.seed.is_some()
    }
}

impl Traffic {
    /// What was moved since, per second; `None` where no time has gone by.
    pub(crate) fn per_second_since(self, before: Self, time: Duration) -> Option<Self> {
        let millis = time.as_millis();
        let rate = |after: u64, before: u64| {
            // Less than before: the gateway has started again, or forgotten a blob.
            let moved = u128::from(after.saturating_sub(before)).saturating_mul(1000);
            u64::try_from(moved.checked_div(millis)?).ok()
        };
        Some(Self {
            registry: rate(self.registry, before.registry)?,
            hub: rate(self.hub, before.hub)?,
            peers: rate(self.peers, before.peers)?,
            sent: rate(self.sent, before.sent)?,
        })
    }
}

/// Reads a document of the API.
///
/// # Errors
/// Where it is not what it should be.
pub fn read<T: DeserializeOwned>(document: &Value) -> Result<T, Fault> {
    T::deserialize(document).map_err(|error| {
        let fix = "is --gateway the address of a gateway's management.listen, and of about the same version?";
        Fault::new(Exit::Unreachable, format!("the answer is not understood: {error}"), fix)
    })
}

/// Tasks, one a line.
pub fn tasks(all: &Tasks) -> String {
    let mut table =
        Table::new(&["TASK", "STATE", "SIZE", "WHOLE", "PART", "WANTING", "SEEDED", "REPOSITORY"]);
    for task in &all.tasks {
        let seeded = task.seed.as_ref().map(|it| percent(it.offset, task.content_length));
        table.row([
            task.id.clone(),
            task.state.clone(),
            bytes(task.content_length),
            task.nodes.whole.to_string(),
            task.nodes.part.to_string(),
            task.nodes.wanting.to_string(),
            seeded.unwrap_or_default(),
            sources(task, 1),
        ]);
    }
    let end =
        end(all.tasks.len(), "task", all.next.is_some(), "--state, --registry, --repository or --digest");
    format!("{table}{end}{}", silent(&all.incomplete))
}

/// All about one task.
pub fn task(task: &Task) -> String {
    let Having { whole, part, wanting } = task.nodes;
    let mut table = Table::bare();
    let mut line = |name: &str, value: String| table.row([name.to_owned(), value]);
    line("task", task.id.clone());
    line("state", task.state.clone());
    line(
        "size",
        format!("{} in {} pieces of {}", bytes(task.content_length), task.pieces, bytes(task.piece_length)),
    );
    line("nodes", format!("{whole} hold it, {part} hold a part, {wanting} want it"));
    line("gateway", task.gateway.clone());
    line("opened for", sources(task, usize::MAX));
    if let Some(Seed { offset, queue_position }) = task.seed {
        let queue = if queue_position > 0 { format!(", {queue_position} before it") } else { String::new() };
        line("seed", format!("{} read, {}{queue}", bytes(offset), percent(offset, task.content_length)));
    }
    if let Some(traffic) = &task.traffic {
        line("traffic", moved(traffic));
    }
    table.to_string()
}

/// Nodes, one a line.
pub fn nodes(all: &Nodes) -> String {
    let mut table = Table::new(&["NODE", "ROLE", "ADDRESS", "ZONE", "RACK", "BLOBS"]);
    for Node { id, address, role, zone, rack, blobs } in &all.nodes {
        let blobs = blobs.map(|it| it.to_string()).unwrap_or_default();
        table.row([id, role, address, zone, rack, &blobs].map(String::clone));
    }
    let end = end(all.nodes.len(), "node", all.next.is_some(), "--zone or --task");
    format!("{table}{end}{}", silent(&all.incomplete))
}

/// The region on one screen.
pub fn status(Look { regions, fleet, tasks, savings, preheat: jobs }: &Look) -> String {
    let mut table = Table::bare();
    let mut line = |name: &str, value: String| table.row([name.to_owned(), value]);
    if let Some(hub) = &regions.hub {
        line("hub", hub_line(hub));
    }
    line("regions", region_line(regions));
    line("nodes", node_line(fleet));
    line("tasks", task_line(tasks));
    line("held", held_line(tasks));
    line("traffic", moved(&tasks.traffic()));
    line("saved", saved_line(savings));
    line("preheat", format!("{} under way", count(jobs.under_way().count(), "job")));
    let jobs: String = jobs.under_way().map(|it| format!("  {}\n", plain(&it.line()))).collect();
    format!("{table}{jobs}{}", silent(&tasks.incomplete))
}

pub(crate) fn saved_line(
    Savings { total: Moved { arrived_bytes: arrived, registry_bytes: read } }: &Savings,
) -> String {
    if *arrived == 0 {
        return format!("nothing of a blob arrived at a node in the last {HOURS} h");
    }
    let saved = arrived.saturating_sub(*read);
    let share = percent(saved, *arrived);
    format!(
        "{share} of the {} that arrived in the last {HOURS} h; registries sent {}",
        bytes(*arrived),
        bytes(*read)
    )
}

fn hub_line(Hub { region, answers, gateway, since }: &Hub) -> String {
    match (answers, gateway) {
        (true, Some(gateway)) => {
            format!(
                "{gateway} answers since {}; this region is {region} there",
                since.as_deref().unwrap_or("?")
            )
        }
        _ => format!("does not answer; this region is {region} there"),
    }
}

fn region_line(Regions { regions, .. }: &Regions) -> String {
    let names: BTreeSet<_> = regions.iter().map(|it| it.name.as_str()).collect();
    if names.is_empty() {
        return "no other".to_owned();
    }
    format!("{} other: {}", names.len(), names.into_iter().collect::<Vec<_>>().join(", "))
}

pub(crate) fn node_line(Fleet { nodes, zones }: &Fleet) -> String {
    let n_zones = zones.iter().filter(|it| !it.zone.is_empty()).count();
    let parts = [count(nodes.sidecars, "sidecar"), count(nodes.gateways, "gateway"), count(n_zones, "zone")];
    parts.join(", ")
}

pub(crate) fn task_line(Tasks { tasks, next, .. }: &Tasks) -> String {
    let mut states: BTreeMap<&str, usize> = BTreeMap::new();
    for task in tasks {
        let n = states.entry(&task.state).or_default();
        *n = n.saturating_add(1);
    }
    let states: Vec<_> = states.into_iter().map(|(state, n)| format!("{n} {state}")).collect();
    let size = tasks.iter().fold(0, |sum: u64, it| sum.saturating_add(it.content_length));
    let states = if states.is_empty() { String::new() } else { format!(" ({})", states.join(", ")) };
    format!("{}{}{states}, {}", at_least(next.is_some()), count(tasks.len(), "blob"), bytes(size))
}

/// What whole copies come to. Parts are not counted: nobody tells how large they are.
pub(crate) fn held_line(Tasks { tasks, .. }: &Tasks) -> String {
    let held = tasks.iter().map(|it| it.nodes.whole.saturating_mul(it.content_length));
    let copies = tasks.iter().fold(0, |sum: u64, it| sum.saturating_add(it.nodes.whole));
    format!("{} in {copies} whole copies at nodes and gateways", bytes(held.fold(0, u64::saturating_add)))
}

/// What a gateway has read and sent. What nodes send each other no gateway sees.
fn moved(Traffic { registry, hub, peers, sent }: &Traffic) -> String {
    format!(
        "this gateway read {} from registries, {} from the hub, {} from peers, and sent {}",
        bytes(*registry),
        bytes(*hub),
        bytes(*peers),
        bytes(*sent)
    )
}

/// For what a blob was opened, up to so many.
pub(crate) fn sources(task: &Task, at_most: usize) -> String {
    let named = task.sources.iter().take(at_most).map(|it| format!("{}/{}", it.registry, it.repository));
    let mut text = named.collect::<Vec<_>>().join(", ");
    if task.more_sources || task.sources.len() > at_most {
        text += ", ...";
    }
    text
}

const fn at_least(there_is_more: bool) -> &'static str {
    if there_is_more { "more than " } else { "" }
}

/// The last line of a list.
fn end(n: usize, what: &str, there_is_more: bool, narrow: &str) -> String {
    let more =
        if there_is_more { format!(", and there are more: narrow them by {narrow}") } else { String::new() };
    format!("{}{more}\n", count(n, what))
}

fn silent(all: &[Silent]) -> String {
    all.iter().map(silent_line).collect()
}

fn silent_line(Silent { scheduler, cause }: &Silent) -> String {
    format!("incomplete: no answer of scheduler {}: {}\n", plain(scheduler), plain(cause))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

    fn a_task() -> Value {
        json!({
            "id": format!("h.example@{DIGEST}"),
            "trustGroup": "h.example",
            "digest": DIGEST,
            "state": "FETCHING",
            "contentLength": 4_194_304,
            "pieceLength": 1_048_576,
            "pieces": 4,
            "nodes": { "whole": 2, "part": 1, "wanting": 3 },
            "gateway": "gw-1",
            "sources": [{ "registry": "h.example", "repository": "a/b" }, { "registry": "h.example", "repository": "c" }],
            "moreSources": false,
            "seed": { "offset": 1_048_576, "queuePosition": 2 },
            "traffic": { "registry": 1_048_576, "hub": 0, "peers": 0, "sent": 2_097_152 },
        })
    }

    fn silent_one() -> Value {
        json!({ "scheduler": "https://s:1", "cause": "connection refused" })
    }

    #[test]
    fn tasks_are_listed() {
        let all = json!({ "tasks": [a_task()], "next": null, "incomplete": [silent_one()] });
        let text = tasks(&read(&all).unwrap());
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[0].starts_with("TASK ") && lines[0].ends_with("REPOSITORY"), "{text}");
        let expected = format!(
            "h.example@{DIGEST}  FETCHING  4.00 MiB  2      1     3        25 %    h.example/a/b, ..."
        );
        assert_eq!(lines[1], expected);
        assert_eq!(
            lines[2..],
            ["1 task", "incomplete: no answer of scheduler https://s:1: connection refused"]
        );
        let more = json!({ "tasks": [], "next": "x", "incomplete": [] });
        assert!(tasks(&read(&more).unwrap()).ends_with(
            "0 tasks, and there are more: narrow them by --state, --registry, --repository or --digest\n"
        ));
    }

    #[test]
    fn a_task_is_shown_with_all_that_is_known() {
        let text = task(&read(&a_task()).unwrap());
        for part in [
            "size        4.00 MiB in 4 pieces of 1.00 MiB",
            "nodes       2 hold it, 1 hold a part, 3 want it",
            "opened for  h.example/a/b, h.example/c",
            "seed        1.00 MiB read, 25 %, 2 before it",
            "read 1.00 MiB from registries, 0 B from the hub, 0 B from peers, and sent 2.00 MiB",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        let quiet = json!({ "id": "x", "seed": null, "traffic": null });
        let text = task(&read(&quiet).unwrap());
        assert!(
            !text.contains("seed") && !text.contains("traffic") && text.contains("opened for  -"),
            "{text}"
        );
    }

    #[test]
    fn nodes_are_listed() {
        let all = json!({
            "nodes": [
                { "id": "gw-1", "address": "10.0.0.1:65003", "role": "gateway", "zone": "", "rack": "", "blobs": null },
                { "id": "n-1", "address": "10.0.1.1:65002", "role": "sidecar", "zone": "a", "rack": "r1", "blobs": 7 },
            ],
            "next": null,
            "incomplete": [],
        });
        let expected = "NODE  ROLE     ADDRESS         ZONE  RACK  BLOBS\n\
                        gw-1  gateway  10.0.0.1:65003  -     -     -\n\
                        n-1   sidecar  10.0.1.1:65002  a     r1    7\n\
                        2 nodes\n";
        assert_eq!(nodes(&read(&all).unwrap()), expected);
    }

    #[test]
    fn a_region_is_one_screen() {
        let regions = json!({
            "hub": { "region": "eu", "answers": true, "gateway": "hub-1", "since": "2027-01-01T00:00:00Z", "registries": [] },
            "regions": [{ "id": "a", "name": "ap", "address": "x", "streams": 1 }, { "id": "b", "name": "ap" }],
        });
        let fleet = json!({
            "nodes": { "sidecars": 2, "gateways": 1 }, "zones": [{ "zone": "a", "racks": [] }, { "zone": "" }],
        });
        let all_tasks = json!({ "tasks": [a_task(), a_task()], "next": "x", "incomplete": [silent_one()] });
        let jobs = json!({ "jobs": [
            { "id": 7, "state": "PENDING", "doing": "storing", "request": { "image": "h.example/a:v1" },
              "progress": { "bytes": 100, "bytesHeld": 40 } },
        ], "total": 1 });
        let saved =
            json!({ "every": 600, "total": { "arrivedBytes": 200 << 20, "registryBytes": 10 << 20 } });
        let all = json!({
            "regions": regions, "fleet": fleet, "tasks": all_tasks, "preheat": jobs, "savings": saved,
        });
        let text = status(&read(&all).unwrap());
        let expected = "hub      hub-1 answers since 2027-01-01T00:00:00Z; this region is eu there\n\
                        regions  1 other: ap\n\
                        nodes    2 sidecars, 1 gateway, 1 zone\n\
                        tasks    more than 2 blobs (2 FETCHING), 8.00 MiB\n\
                        held     16.00 MiB in 4 whole copies at nodes and gateways\n\
                        traffic  this gateway read 2.00 MiB from registries, 0 B from the hub, 0 B from peers, and sent 4.00 MiB\n\
                        saved    95 % of the 200.00 MiB that arrived in the last 24 h; registries sent 10.00 MiB\n\
                        preheat  1 job under way\n  7 h.example/a:v1: storing, 40 %\n\
                        incomplete: no answer of scheduler https://s:1: connection refused\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn what_is_no_document_is_told() {
        let fault = read::<Tasks>(&json!({ "tasks": 7 })).unwrap_err();
        assert_eq!(fault.exit, Exit::Unreachable);
        assert!(fault.what.contains("not understood"), "{fault}");
    }
}
