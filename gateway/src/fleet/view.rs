//! How the region is shown.

use serde::Serialize;
use shoal_model::{BlobKey, Node, NodeId, Role};
use shoal_proto::{Joined, Regional, SeedProgress};
use shoal_swarm::table::{Stage, Standing};
use utoipa::ToSchema;

use crate::census::{Counted, Silent};
use crate::hub::Answering;
use crate::ledger::{Account, Traffic, Use};
use crate::regions::Attended;
use crate::timestamp::Timestamp;

/// The words for how far the region is with a blob.
pub(super) const STATES: [(Stage, &str); 3] =
    [(Stage::Fetching, "FETCHING"), (Stage::Complete, "COMPLETE"), (Stage::Partial, "PARTIAL")];

/// A blob that the region holds, wants or seeds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Task)]
pub(super) struct TaskView {
    /// Trust group and digest.
    id: String,
    trust_group: String,
    digest: String,
    state: &'static str,
    /// Bytes of the whole, and of every piece but the last.
    content_length: u64,
    piece_length: u64,
    pieces: u32,
    nodes: Having,
    /// The gateway that owns it.
    gateway: String,
    /// The repositories that this gateway has opened it for; `moreSources` where there were more than are kept.
    sources: Vec<SourceView>,
    more_sources: bool,
    /// This gateway's seed, while one is at work.
    seed: Option<SeedView>,
    /// What this gateway has read and sent of it since it started; null where it knows nothing of the blob.
    traffic: Option<Traffic>,
}

/// How many nodes have a blob.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = TaskNodes)]
struct Having {
    whole: u32,
    part: u32,
    wanting: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = TaskSource)]
struct SourceView {
    registry: String,
    repository: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = TaskSeed)]
struct SeedView {
    offset: u64,
    queue_position: u32,
}

/// A page of tasks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = Tasks)]
pub(super) struct TasksView {
    pub(super) tasks: Vec<TaskView>,
    /// What the next page goes on after, if there is one.
    pub(super) next: Option<String>,
    /// The schedulers that did not answer, whose blobs may be missing.
    pub(super) incomplete: Vec<Silent>,
}

/// A page of nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = Nodes)]
pub(super) struct NodesView {
    nodes: Vec<NodeView>,
    next: Option<String>,
    /// The schedulers that did not answer, whose blobs are not counted.
    incomplete: Vec<Silent>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = Node)]
struct NodeView {
    id: String,
    address: String,
    role: &'static str,
    zone: String,
    rack: String,
    /// Of how many it holds something or wants it; null where no scheduler says so.
    blobs: Option<u32>,
}

/// The regions that this gateway has to do with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = Regions)]
pub(super) struct RegionsView {
    /// The one by way of which this gateway reads registries, if it does.
    pub(super) hub: Option<HubView>,
    /// Those that read registries by way of this gateway and are there at present.
    pub(super) regions: Vec<RegionView>,
}

/// The hub as this gateway sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Hub)]
pub(super) struct HubView {
    /// What this region is called there.
    region: String,
    answers: bool,
    /// The one of its gateways that answers, and since when.
    gateway: Option<String>,
    #[schema(value_type = Option<String>)]
    since: Option<Timestamp>,
    /// The registries that are read by way of it.
    registries: Vec<String>,
}

/// A gateway of another region.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = Region)]
pub(super) struct RegionView {
    /// As its certificate says.
    id: String,
    /// As it says itself.
    name: String,
    address: String,
    /// Streams that it keeps to this gateway, and since when it has had one.
    streams: usize,
    #[schema(value_type = String)]
    since: Timestamp,
}

impl RegionsView {
    pub(super) fn new(hub: Option<HubView>, attended: Vec<Attended>) -> Self {
        Self { hub, regions: attended.into_iter().map(Into::into).collect() }
    }
}

impl HubView {
    pub(super) fn new(region: &str, answering: Option<Answering>, registries: Vec<String>) -> Self {
        let (gateway, since) = answering.map(|it| (it.gateway, it.since)).unzip();
        Self { region: region.to_owned(), answers: gateway.is_some(), gateway, since, registries }
    }
}

impl From<Attended> for RegionView {
    fn from(Attended { id, regional, n_streams, since }: Attended) -> Self {
        let Regional { region, address } = regional;
        Self { id: id.to_string(), name: region, address, streams: n_streams, since }
    }
}

impl TaskView {
    pub(super) fn new(
        standing: Standing,
        owner: NodeId,
        account: Option<Account>,
        seed: Option<SeedProgress>,
    ) -> Self {
        let stage = standing.stage();
        let Standing { key, geometry, n_whole, n_part, n_wanting } = standing;
        let traffic = account.as_ref().map(|it| it.traffic);
        let Account { uses, has_more, .. } = account.unwrap_or_default();
        let source = |(registry, repository): Use| SourceView {
            registry: registry.to_string(),
            repository: repository.to_string(),
        };
        Self {
            id: key.to_string(),
            trust_group: key.group.to_string(),
            digest: key.digest.to_string(),
            state: state(stage),
            content_length: geometry.size(),
            piece_length: geometry.piece_length(),
            pieces: geometry.n_pieces(),
            nodes: Having { whole: n_whole, part: n_part, wanting: n_wanting },
            gateway: owner.to_string(),
            sources: uses.into_iter().map(source).collect(),
            more_sources: has_more,
            seed: seed.map(|it| SeedView { offset: it.offset, queue_position: it.queue_position }),
            traffic,
        }
    }
}

impl From<Joined> for NodeView {
    fn from(Joined { node: Node { id, address, role, place }, n_blobs }: Joined) -> Self {
        Self {
            id: id.to_string(),
            address: address.to_string(),
            role: self::role(role),
            zone: place.zone.to_string(),
            rack: place.rack.to_string(),
            blobs: n_blobs,
        }
    }
}

pub(super) const fn role(role: Role) -> &'static str {
    match role {
        Role::Sidecar => "sidecar",
        Role::Gateway => "gateway",
    }
}

fn state(stage: Stage) -> &'static str {
    STATES.iter().find(|(it, _)| *it == stage).map_or("", |(_, word)| word)
}

/// A page of so many blobs, of which there was one more where there is another page. Where that was not looked for among
/// all, it goes on after `left_at`.
pub(super) fn tasks(
    counted: Counted<Standing>,
    (per_page, left_at): (usize, Option<BlobKey>),
    show: impl Fn(Standing) -> TaskView,
) -> TasksView {
    let Counted { mut found, silent, .. } = counted;
    let last = last_of(&mut found, per_page).map(|it| it.key.clone());
    let next = last.or(left_at).map(|it| it.to_string());
    TasksView { tasks: found.into_iter().map(show).collect(), next, incomplete: silent }
}

/// The same of nodes.
pub(super) fn nodes(counted: Counted<Joined>, per_page: usize) -> NodesView {
    let Counted { mut found, silent, .. } = counted;
    let next = last_of(&mut found, per_page).map(|it| it.node.id.to_string());
    NodesView { nodes: found.into_iter().map(Into::into).collect(), next, incomplete: silent }
}

/// Leaves a page, and returns its last entry where there is another page.
fn last_of<T>(found: &mut Vec<T>, per_page: usize) -> Option<&T> {
    let has_more = found.len() > per_page;
    found.truncate(per_page);
    found.last().filter(|_| has_more)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use shoal_model::{Digest, Place, TrustGroup};
    use shoal_swarm::Geometry;

    fn standing(byte: u8) -> Standing {
        Standing {
            key: BlobKey { group: TrustGroup::new("a.example"), digest: Digest::from_sha256([byte; 32]) },
            geometry: Geometry::stated(1000, 300).unwrap(),
            n_whole: 2,
            n_part: 1,
            n_wanting: 0,
        }
    }

    fn counted<T>(found: Vec<T>) -> Counted<T> {
        let silent = vec![Silent { scheduler: "https://s:1".to_owned(), cause: "refused".to_owned() }];
        Counted { found, silent, is_known: true }
    }

    #[test]
    fn a_task_shows_what_is_known_of_it() {
        let digest = format!("sha256:{}", "01".repeat(32));
        let plain = TaskView::new(standing(1), NodeId::new("gw"), None, None);
        let mut expected = json!({
            "id": format!("a.example@{digest}"),
            "trustGroup": "a.example",
            "digest": digest,
            "state": "COMPLETE",
            "contentLength": 1000,
            "pieceLength": 300,
            "pieces": 4,
            "nodes": { "whole": 2, "part": 1, "wanting": 0 },
            "gateway": "gw",
            "sources": [],
            "moreSources": false,
            "seed": null,
            "traffic": null,
        });
        assert_eq!(serde_json::to_value(plain).unwrap(), expected);

        let account = Account {
            uses: vec![("a.example".parse().unwrap(), "team/app".parse().unwrap())],
            has_more: true,
            traffic: Traffic { registry: 1, hub: 2, peers: 3, sent: 4 },
        };
        let seed = SeedProgress { queue_position: 5, offset: 6, heartbeat: 7 };
        let full = TaskView::new(standing(1), NodeId::new("gw"), Some(account), Some(seed));
        expected["sources"] = json!([{ "registry": "a.example", "repository": "team/app" }]);
        expected["moreSources"] = json!(true);
        expected["seed"] = json!({ "offset": 6, "queuePosition": 5 });
        expected["traffic"] = json!({ "registry": 1, "hub": 2, "peers": 3, "sent": 4 });
        assert_eq!(serde_json::to_value(full).unwrap(), expected);
    }

    #[test]
    fn a_page_that_others_follow_says_where_they_begin() {
        let show = |it| TaskView::new(it, NodeId::new("gw"), None, None);
        let page = |n_found: u8, left_at: Option<u8>| {
            let found = counted((0..n_found).map(standing).collect());
            tasks(found, (2, left_at.map(|it| standing(it).key)), show)
        };
        let (last, more, looked_on) = (page(2, None), page(3, Some(7)), page(1, Some(7)));
        assert_eq!((last.tasks.len(), &last.next), (2, &None));
        assert_eq!((more.tasks.len(), &more.next), (2, &Some(standing(1).key.to_string())));
        assert_eq!((looked_on.tasks.len(), looked_on.next), (1, Some(standing(7).key.to_string())));
        assert_eq!(more.incomplete[0].cause, "refused");
    }

    #[test]
    fn a_node_shows_where_it_stands_and_what_it_has() {
        let place = Place { zone: "z".into(), rack: "r".into() };
        let node = |name: &str, role| Node {
            id: NodeId::new(name),
            address: "a:1".into(),
            role,
            place: place.clone(),
        };
        let found = vec![
            Joined { node: node("a", Role::Sidecar), n_blobs: Some(3) },
            Joined { node: node("b", Role::Gateway), n_blobs: None },
            Joined { node: node("c", Role::Sidecar), n_blobs: None },
        ];
        let expected = json!({
            "nodes": [
                { "id": "a", "address": "a:1", "role": "sidecar", "zone": "z", "rack": "r", "blobs": 3 },
                { "id": "b", "address": "a:1", "role": "gateway", "zone": "z", "rack": "r", "blobs": null },
            ],
            "next": "b",
            "incomplete": [{ "scheduler": "https://s:1", "cause": "refused" }],
        });
        assert_eq!(serde_json::to_value(nodes(counted(found), 2)).unwrap(), expected);
    }

    #[test]
    fn a_region_shows_its_hub_and_a_hub_its_regions() {
        let since = Timestamp::of_millis(1_700_000_000_000);
        let attended = Attended {
            id: NodeId::new("eu-1"),
            regional: Regional { region: "eu".to_owned(), address: "10.1.0.10:65003".to_owned() },
            n_streams: 2,
            since,
        };
        let hub = |answering| HubView::new("us", answering, vec!["a.example".to_owned()]);
        let silent = serde_json::to_value(RegionsView::new(Some(hub(None)), vec![attended])).unwrap();
        let mut expected = json!({
            "hub": { "region": "us", "answers": false, "gateway": null, "since": null, "registries": ["a.example"] },
            "regions": [{
                "id": "eu-1", "name": "eu", "address": "10.1.0.10:65003", "streams": 2,
                "since": "2023-11-14T22:13:20.000Z",
            }],
        });
        assert_eq!(silent, expected);
        let answering = Answering { gateway: "https://hub:1".to_owned(), since };
        let well = serde_json::to_value(RegionsView::new(Some(hub(Some(answering))), Vec::new())).unwrap();
        let hub = &mut expected["hub"];
        (hub["answers"], hub["gateway"], hub["since"]) =
            (json!(true), json!("https://hub:1"), json!("2023-11-14T22:13:20.000Z"));
        expected["regions"] = json!([]);
        assert_eq!(well, expected);
    }
}
