//! What is asked of the region, read from a query's text.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::str::FromStr;
use std::sync::Arc;

use shoal_model::{BlobKey, NodeId};
use shoal_oci::{RegistryName, Repository};
use shoal_proto::BlobsRequest;
use shoal_swarm::table::{Sought, Stage};
use url::form_urlencoded;

use super::view;
use crate::fields::Mistakes;

/// How many entries a page has, unless it is said, and at the most.
const PER_PAGE: usize = 10;
const MAX_PER_PAGE: usize = 100;
/// The longest name of a zone or node, in bytes.
const MAX_NAME: usize = 512;

/// Which tasks are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TasksQuery {
    pub(super) sought: Sought,
    pub(super) within: Option<Within>,
    pub(super) per_page: usize,
}

/// A registry, or one of its repositories.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Within {
    pub(super) registry: RegistryName,
    pub(super) repository: Option<Repository>,
}

/// Which nodes are asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NodesQuery {
    pub(super) after: Option<NodeId>,
    pub(super) zone: Option<Arc<str>>,
    pub(super) task: Option<BlobKey>,
    pub(super) per_page: usize,
}

impl TasksQuery {
    /// `named` says which registry a name means.
    pub(super) fn read(query: &str, named: impl Fn(&str) -> Option<RegistryName>) -> Result<Self, Mistakes> {
        let (mut sought, mut per_page) = (Sought::default(), PER_PAGE);
        let (mut registry, mut repository) = (None, None);
        let mut mistakes = read(query, |key, value| {
            match key {
                "state" => sought.stage = Some(stage(value)?),
                "digest" => sought.digest = Some(parsed(key, value)?),
                "after" => sought.after = Some(parsed(key, value)?),
                "per_page" => per_page = entries(value)?,
                "registry" => {
                    registry = Some(named(value).ok_or("registry is none that this gateway serves")?);
                }
                "repository" => {
                    repository = Some(value.parse::<Repository>().map_err(|it| it.message)?);
                }
                _ => return Err(no_parameter(key, "state, digest, registry, repository, after, per_page")),
            }
            Ok(())
        });
        let within = match (registry, repository) {
            (None, None) => None,
            (Some(registry), repository) => {
                let full = repository.map(|it| it.within(&registry)).transpose();
                let repository = full.map_err(|it| mistakes.add(it.message)).ok().flatten();
                Some(Within { registry, repository })
            }
            (None, Some(_)) => {
                mistakes.add("repository is only good together with registry");
                None
            }
        };
        mistakes.or(Self { sought, within, per_page })
    }
}

impl NodesQuery {
    pub(super) fn read(query: &str) -> Result<Self, Mistakes> {
        let mut it = Self { after: None, zone: None, task: None, per_page: PER_PAGE };
        let mistakes = read(query, |key, value| {
            match key {
                "zone" => it.zone = Some(name(key, value)?.into()),
                "task" => it.task = Some(parsed(key, value)?),
                "after" => it.after = Some(NodeId::new(name(key, value)?)),
                "per_page" => it.per_page = entries(value)?,
                _ => return Err(no_parameter(key, "zone, task, after, per_page")),
            }
            Ok(())
        });
        mistakes.or(it)
    }
}

fn read(query: &str, mut take: impl FnMut(&str, &str) -> Result<(), String>) -> Mistakes {
    let parameters = form_urlencoded::parse(query.as_bytes());
    Mistakes(parameters.filter_map(|(key, value)| take(&key, &value).err()).collect())
}

fn no_parameter(key: &str, all: &str) -> String {
    let shown: String = key.chars().take(40).collect();
    format!("{shown:?} is none of {all}")
}

fn parsed<T: FromStr<Err: Display>>(key: &str, value: &str) -> Result<T, String> {
    value.parse().map_err(|it| format!("{key}: {it}"))
}

fn stage(value: &str) -> Result<Stage, String> {
    let known = view::STATES.into_iter().find(|(_, word)| *word == value);
    known.map(|(stage, _)| stage).ok_or("state is none of FETCHING, COMPLETE, PARTIAL".to_owned())
}

fn entries(value: &str) -> Result<usize, String> {
    let number = value.parse().ok().filter(|it| (1..=MAX_PER_PAGE).contains(it));
    number.ok_or(format!("per_page is not from 1 to {MAX_PER_PAGE}"))
}

fn name<'a>(key: &str, value: &'a str) -> Result<&'a str, String> {
    match value.len() {
        1..=MAX_NAME => Ok(value),
        n_bytes => Err(format!("{key} has {n_bytes} bytes, 1 to {MAX_NAME} are allowed")),
    }
}

/// As many of these blobs as may be asked for at once, after the one that the last page ended with; and the last of them,
/// where there are more.
pub(super) fn next(
    blobs: BTreeSet<BlobKey>,
    after: Option<&BlobKey>,
) -> (BTreeSet<BlobKey>, Option<BlobKey>) {
    let mut later = blobs.into_iter().filter(|it| after.is_none_or(|after| after < it));
    let next: BTreeSet<_> = later.by_ref().take(BlobsRequest::MAX).collect();
    let left_at = later.next().and_then(|_| next.last().cloned());
    (next, left_at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use shoal_model::{Digest, TrustGroup};

    fn key(byte: u8) -> BlobKey {
        BlobKey { group: TrustGroup::new("a.example:5000"), digest: Digest::from_sha256([byte; 32]) }
    }

    fn tasks(query: &str) -> Result<TasksQuery, Mistakes> {
        let known = ["a.example:5000", "docker.io"];
        TasksQuery::read(query, |it| known.contains(&it).then(|| it.parse().unwrap()))
    }

    #[test]
    fn a_query_says_which_tasks_are_meant() {
        let within = |registry: &str, repository: Option<&str>| {
            let repository = repository.map(|it| it.parse().unwrap());
            Some(Within { registry: registry.parse().unwrap(), repository })
        };
        let all = || TasksQuery { sought: Sought::default(), within: None, per_page: PER_PAGE };
        assert_eq!(tasks(""), Ok(all()));
        let digest = key(1).digest;
        let sought = Sought {
            stage: Some(Stage::Fetching),
            digest: Some(digest),
            after: Some(key(2)),
            ..Sought::default()
        };
        let text = format!("state=FETCHING&digest={digest}&after={}&per_page=100", key(2));
        assert_eq!(tasks(&text), Ok(TasksQuery { sought, per_page: 100, ..all() }));
        let registry = "registry=a.example%3A5000";
        assert_eq!(tasks(registry), Ok(TasksQuery { within: within("a.example:5000", None), ..all() }));
        let in_repository = TasksQuery { within: within("docker.io", Some("library/alpine")), ..all() };
        assert_eq!(tasks("registry=docker.io&repository=alpine"), Ok(in_repository));
    }

    #[test]
    fn all_that_is_wrong_with_a_query_is_said() {
        let Err(Mistakes(mistakes)) = tasks("state=DONE&page=2&per_page=101&registry=b.example&after=x")
        else {
            panic!("taken")
        };
        let expected = [
            "state is none of FETCHING, COMPLETE, PARTIAL",
            "\"page\" is none of state, digest, registry, repository, after, per_page",
            "per_page is not from 1 to 100",
            "registry is none that this gateway serves",
            "after: \"x\" is not of the form <trust group>@sha256:<64 lower-case hex digits>",
        ];
        assert_eq!(mistakes, expected);
        for bad in ["repository=app", "registry=docker.io&repository=App", "digest=sha256:ab", "per_page=0"] {
            assert!(tasks(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_query_says_which_nodes_are_meant() {
        let all = NodesQuery { after: None, zone: None, task: None, per_page: PER_PAGE };
        assert_eq!(NodesQuery::read(""), Ok(all));
        let (after, zone, task) = (Some(NodeId::new("n 1")), Some("z".into()), Some(key(1)));
        let some = NodesQuery { after, zone, task, per_page: 2 };
        let text = format!("zone=z&after=n+1&per_page=2&task={}", key(1));
        assert_eq!(NodesQuery::read(&text), Ok(some));
        for bad in ["zone=", "rack=r", "task=x", &format!("after={}", "x".repeat(MAX_NAME + 1))] {
            assert!(NodesQuery::read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_page_of_known_blobs_goes_on_after_the_last() {
        let blobs: BTreeSet<_> = (0..4).map(key).collect();
        assert_eq!(next(blobs.clone(), None), (blobs.clone(), None));
        assert_eq!(next(blobs, Some(&key(1))), ([key(2), key(3)].into(), None));
        let numbered = |number: u32| {
            let mut sum = [0; 32];
            sum[..4].copy_from_slice(&number.to_be_bytes());
            BlobKey { digest: Digest::from_sha256(sum), ..key(0) }
        };
        let most = BlobsRequest::MAX as u32;
        for (n_blobs, left_at) in [(most, None), (most + 1, Some(numbered(most - 1)))] {
            let (first, left) = next((0..n_blobs).map(numbered).collect(), None);
            assert_eq!((first.len(), left), (BlobsRequest::MAX, left_at));
        }
    }
}
