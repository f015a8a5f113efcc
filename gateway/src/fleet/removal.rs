//! Removing blobs from the whole region.
//!
//! Every node that has joined is asked, sidecars before gateways: a node that still fetches a blob would have a gateway
//! seed it anew. Those that a scheduler knows to have it come first, and the others all the same: what a scheduler knows of
//! a node may be little. Whoever asks for a blob meanwhile or afterwards gets it anew, too; removing is no ban.
//!
//! Many are asked at a time, and all within the time that a caller waits. Whoever was not reached in it is named, and
//! asked by the next call; what is gone already costs that nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream;
use serde::Serialize;
use shoal_model::{BlobKey, Node, NodeId, Role};
use shoal_peer::remove::Remover as _;
use shoal_proto::{NodesRequest, Removal, RemoveRequest};
use tokio::time::{Instant, timeout, timeout_at};
use utoipa::ToSchema;

use super::Fleet;
use crate::census::{Counted, Silent};

/// How many nodes are asked at the same time.
const AT_ONCE: usize = 128;
/// How long nodes, and how long gateways after them, have from the beginning of the call.
const NODES_BY: Duration = Duration::from_secs(22);
const GATEWAYS_BY: Duration = Duration::from_secs(27);
/// How long it may take to find out whom to ask first.
const HOLDERS: Duration = Duration::from_secs(2);
/// Why a node that has run out of time is named.
const LATE: &str = "not reached in time: ask again";
/// The most rows of either list.
const MAX_ROWS: usize = 1000;

/// What came of it at one node: what it did about each blob, or why it did nothing.
type Answer = Result<Vec<Removal>, String>;

/// What was done where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Removal)]
pub(super) struct RemovalView {
    nodes: Tally,
    /// The nodes from which something was removed, and those at which something may be left.
    removed: Vec<Row>,
    failed: Vec<Row>,
    /// Rows of either list beyond the most that are shown.
    rows_left_out: usize,
    /// The schedulers that did not answer: who has joined them alone was not asked.
    incomplete: Vec<Silent>,
}

/// How many nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = RemovalNodes)]
struct Tally {
    asked: usize,
    removed: usize,
    /// That had nothing of it.
    nothing: usize,
    failed: usize,
}

/// One node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = RemovalRow)]
struct Row {
    id: String,
    address: String,
    /// Blobs that were removed.
    blobs: usize,
    /// Why something may be left.
    cause: Option<String>,
}

impl RemovalView {
    /// Whether something may be left anywhere.
    pub(super) fn is_whole(&self) -> bool {
        self.nodes.failed == 0 && self.incomplete.is_empty()
    }

    fn new(answers: Vec<(Node, Answer)>, silent: Vec<Silent>) -> Self {
        let mut nodes = Tally { asked: answers.len(), ..Tally::default() };
        let (mut removed, mut failed) = (Vec::new(), Vec::new());
        for (node, answer) in answers {
            let n_removed = answer.iter().flatten().filter(|it| **it == Removal::Removed).count();
            let row = Row {
                id: node.id.to_string(),
                address: node.address.to_string(),
                blobs: n_removed,
                cause: cause(answer),
            };
            match (&row.cause, n_removed) {
                (Some(_), _) => {
                    nodes.failed += 1;
                    failed.push(row);
                }
                (None, 0) => nodes.nothing += 1,
                (None, _) => {
                    nodes.removed += 1;
                    removed.push(row);
                }
            }
        }
        let mut rows_left_out = 0;
        for rows in [&mut removed, &mut failed] {
            rows.sort_by(|one, other| one.id.cmp(&other.id));
            rows_left_out += rows.len().saturating_sub(MAX_ROWS);
            rows.truncate(MAX_ROWS);
        }
        Self { nodes, removed, failed, rows_left_out, incomplete: silent }
    }
}

/// The first reason why something may be left at a node.
fn cause(answer: Answer) -> Option<String> {
    match answer {
        Err(why) => Some(why),
        Ok(removals) => removals.into_iter().find_map(|it| match it {
            Removal::Failed(why) => Some(why),
            Removal::Removed | Removal::Nothing => None,
        }),
    }
}

impl Fleet {
    /// Removes these blobs, of which there are no more than one request names, wherever they are; and says which are
    /// gone everywhere.
    pub(super) async fn remove(&self, keys: Vec<BlobKey>) -> (RemovalView, Vec<BlobKey>) {
        let began = Instant::now();
        let Counted { found, silent, .. } = self.0.census.nodes(&NodesRequest::default()).await;
        let (mut sidecars, gateways) = self.parted(found.into_iter().map(|it| it.node));
        let holders = self.holders(&keys).await;
        sidecars.sort_by_key(|it| !holders.contains(&it.id));
        let mut answers = self.ask(sidecars, &keys, began + NODES_BY).await;
        let by = began + GATEWAYS_BY;
        let (gateways, here) = tokio::join!(self.ask(gateways, &keys, by), self.remove_here(&keys, by));
        answers.extend(gateways);
        answers.push((self.0.sisters.myself(), here));
        let gone = if silent.is_empty() { gone(keys, &answers) } else { Vec::new() };
        (RemovalView::new(answers, silent), gone)
    }

    /// The nodes that are known to have the blob, where it is one.
    async fn holders(&self, keys: &[BlobKey]) -> BTreeSet<NodeId> {
        let [key] = keys else { return BTreeSet::new() };
        let request = NodesRequest { having: Some(key.clone()), counted: true, ..NodesRequest::default() };
        let asked = timeout(HOLDERS, self.0.census.nodes(&request)).await;
        asked.map(|it| it.found.into_iter().map(|it| it.node.id).collect()).unwrap_or_default()
    }

    /// The sidecars, and the gateways that answer, whether a scheduler knows them or not; without this one.
    fn parted(&self, joined: impl Iterator<Item = Node>) -> (Vec<Node>, Vec<Node>) {
        let (sidecars, gateways): (Vec<_>, Vec<_>) = joined.partition(|it| it.role == Role::Sidecar);
        let gateways: BTreeMap<NodeId, Node> =
            gateways.into_iter().chain(self.0.sisters.answering()).map(|it| (it.id.clone(), it)).collect();
        let me = self.0.sisters.me();
        (sidecars, gateways.into_values().filter(|it| it.id != me).collect())
    }

    async fn ask(&self, nodes: Vec<Node>, keys: &[BlobKey], by: Instant) -> Vec<(Node, Answer)> {
        let (peers, request) = (self.0.peers.clone(), RemoveRequest(keys.to_vec()));
        let ask = move |node: Node| {
            let (peers, request) = (peers.clone(), request.clone());
            async move {
                let answer = match timeout_at(by, peers.remove(&node, request)).await {
                    Ok(answer) => answer.map_err(|it| it.to_string()),
                    Err(_) => Err(LATE.to_owned()),
                };
                (node, answer)
            }
        };
        stream::iter(nodes).map(ask).buffer_unordered(AT_ONCE).collect().await
    }

    async fn remove_here(&self, keys: &[BlobKey], by: Instant) -> Answer {
        let mut removals = Vec::with_capacity(keys.len());
        for key in keys {
            let removal = timeout_at(by, self.0.shelf.remove(key.clone())).await;
            removals.push(removal.map_err(|_| LATE.to_owned())?);
        }
        Ok(removals)
    }
}

/// The blobs of which nothing is left at any of those who were asked.
fn gone(keys: Vec<BlobKey>, answers: &[(Node, Answer)]) -> Vec<BlobKey> {
    let is_left = |number: usize| {
        answers.iter().any(|(_, answer)| match answer {
            Ok(removals) => matches!(removals.get(number), Some(Removal::Failed(_)) | None),
            Err(_) => true,
        })
    };
    keys.into_iter().enumerate().filter(|(number, _)| !is_left(*number)).map(|(_, key)| key).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use shoal_model::{Digest, Place, TrustGroup};

    fn node(name: &str) -> Node {
        Node { id: NodeId::new(name), address: "a:1".into(), role: Role::Sidecar, place: Place::default() }
    }

    #[test]
    fn it_says_of_each_node_what_was_done_or_why_not() {
        let failed = Removal::Failed("the disk refuses".to_owned());
        let view = RemovalView::new(
            vec![
                (node("d"), Err("unreachable".to_owned())),
                (node("b"), Ok(vec![Removal::Removed, Removal::Nothing])),
                (node("c"), Ok(vec![Removal::Removed, failed])),
                (node("a"), Ok(vec![Removal::Nothing, Removal::Nothing])),
            ],
            Vec::new(),
        );
        let row = |id, blobs, cause: Option<&str>| json!({ "id": id, "address": "a:1", "blobs": blobs, "cause": cause });
        let expected = json!({
            "nodes": { "asked": 4, "removed": 1, "nothing": 1, "failed": 2 },
            "removed": [row("b", 1, None)],
            "failed": [row("c", 1, Some("the disk refuses")), row("d", 0, Some("unreachable"))],
            "rowsLeftOut": 0,
            "incomplete": [],
        });
        assert!(!view.is_whole());
        assert_eq!(serde_json::to_value(view).unwrap(), expected);
    }

    #[test]
    fn a_blob_is_gone_where_nobody_has_failed_to_remove_it() {
        let key = |byte| BlobKey { group: TrustGroup::new("g"), digest: Digest::from_sha256([byte; 32]) };
        let keys = || vec![key(1), key(2)];
        let failed = || Removal::Failed("the disk refuses".to_owned());
        let well = (node("a"), Ok(vec![Removal::Removed, Removal::Nothing]));
        let half = (node("b"), Ok(vec![Removal::Removed, failed()]));
        assert_eq!(gone(keys(), std::slice::from_ref(&well)), keys());
        assert_eq!(gone(keys(), &[well.clone(), half]), [key(1)]);
        assert_eq!(gone(keys(), &[well, (node("c"), Err("unreachable".to_owned()))]), []);
    }

    #[test]
    fn it_is_whole_where_all_that_there_are_have_answered() {
        let done = || vec![(node("a"), Ok(vec![Removal::Removed]))];
        assert!(RemovalView::new(done(), Vec::new()).is_whole());
        let silent = Silent { scheduler: "https://s:1".to_owned(), cause: "refused".to_owned() };
        assert!(!RemovalView::new(done(), vec![silent]).is_whole());
    }

    #[test]
    fn rows_have_a_cap_and_those_left_out_are_counted() {
        let answers = (0..MAX_ROWS + 5).map(|it| (node(&format!("n{it}")), Err("no".to_owned())));
        let view = RemovalView::new(answers.collect(), Vec::new());
        assert_eq!((view.failed.len(), view.rows_left_out, view.nodes.failed), (MAX_ROWS, 5, MAX_ROWS + 5));
    }
}
