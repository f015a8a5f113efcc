//! Which nodes there are and how blobs stand, as all schedulers of the region together know it.
//!
//! Every node keeps a stream to each scheduler, but one that has just restarted knows few. A blob is one scheduler's,
//! and for a moment after schedulers came or went some nodes tell one of it and some another. So all are asked, and what
//! they say of the same is added up. Those that do not answer are named to whoever asks.

use std::cmp::Ordering;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use serde::Serialize;
use shoal_identity::Dialer;
use shoal_model::Node;
use shoal_peer::fleet;
use shoal_proto::{BlobsRequest, Joined, NodesRequest, SwarmRequest, TotalReply};
use shoal_swarm::table::{CloseUp, Standing};
use tokio::sync::Mutex;
use tokio::time::Instant;
use tonic::{Code, Status};
use utoipa::ToSchema;

/// For so long all nodes are not asked for again by those who look on: ten thousand are a megabyte.
const GLANCE: Duration = Duration::from_secs(2);

/// Asks the schedulers.
pub(crate) struct Census {
    dialer: Dialer,
    /// Their addresses, `https://host:port`.
    schedulers: Vec<String>,
    /// All nodes as they were seen last, and when.
    seen: Mutex<Option<(Instant, Arc<Counted<Joined>>)>>,
}

/// What those say that answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Counted<T> {
    /// In the order of names or keys, each once.
    pub(crate) found: Vec<T>,
    /// Those that do not: what they alone know is missing.
    pub(crate) silent: Vec<Silent>,
    /// Whether any answers.
    pub(crate) is_known: bool,
}

/// A scheduler that has given no answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct Silent {
    pub(crate) scheduler: String,
    pub(crate) cause: String,
}

impl Census {
    pub(crate) fn new(dialer: Dialer, schedulers: Vec<String>) -> Self {
        Self { dialer, schedulers, seen: Mutex::default() }
    }

    /// Those that are asked, by address.
    pub(crate) fn schedulers(&self) -> &[String] {
        &self.schedulers
    }

    /// Whether there is anybody to be asked.
    pub(crate) const fn has_schedulers(&self) -> bool {
        !self.schedulers.is_empty()
    }

    /// All nodes, as they are or were a moment ago.
    pub(crate) async fn glance(&self) -> Arc<Counted<Joined>> {
        let mut seen = self.seen.lock().await;
        match &*seen {
            Some((when, nodes)) if when.elapsed() < GLANCE => nodes.clone(),
            _ => {
                let nodes = Arc::new(self.nodes(&NodesRequest::default()).await);
                *seen = Some((Instant::now(), nodes.clone()));
                nodes
            }
        }
    }

    /// The nodes that are asked for.
    pub(crate) async fn nodes(&self, request: &NodesRequest) -> Counted<Joined> {
        let asked = self.schedulers.iter().map(|it| fleet::nodes(&self.dialer, it, request.clone()));
        let answers = join_all(asked).await;
        let mut counted = self.counted(answers, |one, other| one.node.id.cmp(&other.node.id), add_joined);
        // An old scheduler names all, and cannot count.
        counted.found.retain(|it| {
            let is_later = request.after.as_ref().is_none_or(|after| *after < it.node.id);
            let is_there = request.zone.as_ref().is_none_or(|zone| *zone == it.node.place.zone);
            is_later && is_there && (request.having.is_none() || it.n_blobs.is_some())
        });
        if request.at_most > 0 {
            counted.found.truncate(request.at_most as usize);
        }
        counted
    }

    /// How those blobs stand that are asked for.
    pub(crate) async fn blobs(&self, request: &BlobsRequest) -> Counted<Standing> {
        let asked = self.schedulers.iter().map(|it| fleet::blobs(&self.dialer, it, request.clone()));
        let answers = join_all(asked).await;
        let mut counted = self.counted(answers, |one, other| one.key.cmp(&other.key), add_standing);
        counted.found.truncate(request.at_most);
        counted
    }

    /// One blob closely, by whoever knows most of its members. It is one scheduler's, but for a moment after they came or
    /// went.
    pub(crate) async fn swarm(&self, request: &SwarmRequest) -> Counted<CloseUp<Node>> {
        let asked = self.schedulers.iter().map(|it| fleet::swarm(&self.dialer, it, request.clone()));
        let answers = join_all(asked).await.into_iter().map(|it| it.map(Vec::from_iter));
        self.counted(answers.collect(), |one, other| one.standing.key.cmp(&other.standing.key), keep_larger)
    }

    /// What sidecars have received of blobs that they wanted, by each scheduler that answers.
    pub(crate) async fn arrived(&self) -> Vec<(String, TotalReply)> {
        let asked = self.schedulers.iter().map(async |it| {
            let total = fleet::arrived(&self.dialer, it).await;
            total.map(|total| (it.clone(), total))
        });
        join_all(asked).await.into_iter().flatten().collect()
    }

    fn counted<T>(
        &self,
        answers: Vec<Result<Vec<T>, Status>>,
        compare: impl Fn(&T, &T) -> Ordering,
        add: impl Fn(&mut T, &mut T),
    ) -> Counted<T> {
        let (mut found, mut silent, mut is_known) = (Vec::new(), Vec::new(), false);
        for (scheduler, answer) in self.schedulers.iter().zip(answers) {
            match answer {
                Ok(more) => {
                    found.extend(more);
                    is_known = true;
                }
                Err(status) => silent.push(Silent { scheduler: scheduler.clone(), cause: cause(&status) }),
            }
        }
        found.sort_by(&compare);
        found.dedup_by(|later, kept| {
            let is_same = compare(later, kept).is_eq();
            if is_same {
                add(kept, later);
            }
            is_same
        });
        Counted { found, silent, is_known }
    }
}

fn cause(status: &Status) -> String {
    match status.code() {
        Code::Unimplemented => "it is older than this gateway, and cannot tell".to_owned(),
        _ => status.message().to_owned(),
    }
}

fn add_joined(kept: &mut Joined, other: &mut Joined) {
    kept.n_blobs = match (kept.n_blobs, other.n_blobs) {
        (Some(one), Some(other)) => Some(one.saturating_add(other)),
        (one, other) => one.or(other),
    };
}

fn keep_larger(kept: &mut CloseUp<Node>, other: &mut CloseUp<Node>) {
    let n_members = |it: &CloseUp<Node>| it.members.len() + it.n_more as usize;
    if n_members(other) > n_members(kept) {
        std::mem::swap(kept, other);
    }
}

fn add_standing(kept: &mut Standing, other: &mut Standing) {
    for (sum, more) in [
        (&mut kept.n_whole, other.n_whole),
        (&mut kept.n_part, other.n_part),
        (&mut kept.n_wanting, other.n_wanting),
    ] {
        *sum = sum.saturating_add(more);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shoal_model::{BlobKey, Digest, Node, NodeId, Place, Role, TrustGroup};
    use shoal_swarm::Geometry;

    fn census() -> Census {
        Census::new(Dialer::new(None), vec!["http://a:1".to_owned(), "http://b:1".to_owned()])
    }

    fn joined(name: &str, n_blobs: Option<u32>) -> Joined {
        let (id, place) = (NodeId::new(name), Place::default());
        Joined { node: Node { id, address: "a:1".into(), role: Role::Sidecar, place }, n_blobs }
    }

    #[test]
    fn what_schedulers_say_of_the_same_adds_up() {
        let by_name = |one: &Joined, other: &Joined| one.node.id.cmp(&other.node.id);
        let answers = vec![
            Ok(vec![joined("a", Some(1)), joined("c", Some(2)), joined("d", None)]),
            Ok(vec![joined("b", Some(4)), joined("c", Some(8)), joined("d", Some(16))]),
        ];
        let counted = census().counted(answers, by_name, add_joined);
        let found: Vec<_> = counted.found.iter().map(|it| (it.node.id.as_str(), it.n_blobs)).collect();
        assert_eq!(found, [("a", Some(1)), ("b", Some(4)), ("c", Some(10)), ("d", Some(16))]);
        assert!(counted.is_known && counted.silent.is_empty());

        let key = BlobKey { group: TrustGroup::new("g"), digest: Digest::from_sha256([1; 32]) };
        let standing = |n_whole, n_part, n_wanting| Standing {
            key: key.clone(),
            geometry: Geometry::by_rule(1),
            n_whole,
            n_part,
            n_wanting,
        };
        let answers = vec![Ok(vec![standing(1, 2, 3)]), Ok(vec![standing(10, 20, u32::MAX)])];
        let counted = census().counted(answers, |one, other| one.key.cmp(&other.key), add_standing);
        assert_eq!(counted.found, [standing(11, 22, u32::MAX)]);
    }

    #[test]
    fn whoever_gives_no_answer_is_named_with_the_cause() {
        let by_name = |one: &Joined, other: &Joined| one.node.id.cmp(&other.node.id);
        let check = |second: Result<Vec<Joined>, Status>, is_known, causes: &[&str]| {
            let first = Err(Status::unimplemented(""));
            let counted = census().counted(vec![first, second], by_name, add_joined);
            let silent: Vec<_> = counted.silent.iter().map(|it| it.cause.as_str()).collect();
            assert_eq!((counted.is_known, silent.as_slice()), (is_known, causes));
            assert_eq!(counted.silent[0].scheduler, "http://a:1");
        };
        let old = "it is older than this gateway, and cannot tell";
        check(Ok(Vec::new()), true, &[old]);
        check(Err(Status::unavailable("refused")), false, &[old, "refused"]);
    }
}
