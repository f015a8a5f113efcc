//! What a job does in another region, as that region tells it.
//!
//! The region carries out a part of the job by itself, and goes on with it while nobody hears of it. Its latest word
//! counts. It is the region's word only: it decides about nothing but what is shown, and how the job ends.
//!
//! Knows nothing of: streams, clocks.

use shoal_proto::{BlobAtNode, OrderProgress};

use crate::regions::{Link, RegionName, Told};

/// The most errors that one region adds to a job's.
const MAX_ERRORS: usize = 4;

/// One region's part in a job.
#[derive(Debug)]
pub(super) struct Branch {
    pub(super) region: RegionName,
    /// None before there is anything to tell.
    link: Option<Link>,
    /// The latest that was told, without its rows, and in whose turn.
    told: Option<(u64, OrderProgress)>,
    rows: Vec<BlobAtNode>,
    /// Why it was not waited for any longer.
    given_up: Option<String>,
}

impl Branch {
    /// One of a region that has not been told yet.
    pub(super) fn new(region: RegionName) -> Self {
        Self { region, link: None, told: None, rows: Vec::new(), given_up: None }
    }

    /// Whether the region has been told.
    pub(super) fn linked(&mut self, link: Link) {
        self.link = Some(link);
    }

    /// What the region tells. Whoever carried the job out there before has nothing more to say.
    pub(super) fn told(&mut self, Told { turn, mut progress, .. }: Told) {
        let is_heard = match &self.told {
            _ if self.is_over() => false,
            Some((last, _)) if *last == turn => true,
            Some((last, _)) => *last < turn && progress.anew,
            None => progress.anew,
        };
        if !is_heard {
            return;
        }
        if progress.anew {
            self.rows.clear();
        }
        self.rows.append(&mut progress.rows);
        let over = self.rows.len().saturating_sub(OrderProgress::MAX_ROWS);
        self.rows.truncate(OrderProgress::MAX_ROWS);
        progress.rows_left_out = progress.rows_left_out.saturating_add(over as u64);
        self.told = Some((turn, progress));
    }

    /// It is not waited for any longer.
    pub(super) fn give_up(&mut self, why: &str) {
        if !self.is_over() {
            self.given_up = Some(match &self.link {
                Some(Link::Absent(absent)) => format!("{why}; {absent}"),
                Some(Link::Told) | None => why.to_owned(),
            });
        }
    }

    /// What was told last.
    pub(super) fn progress(&self) -> Option<&OrderProgress> {
        self.told.as_ref().map(|it| &it.1)
    }

    /// Where blobs have come to their end.
    pub(super) fn rows(&self) -> &[BlobAtNode] {
        &self.rows
    }

    /// Whether nothing more is expected of it.
    pub(super) fn is_over(&self) -> bool {
        self.given_up.is_some() || self.progress().is_some_and(|it| it.succeeded.is_some())
    }

    /// Whether at least one node there holds all that it should.
    pub(super) fn is_of_use(&self) -> bool {
        self.progress().is_some_and(|it| it.nodes_done > 0)
    }

    /// Whether the region has ended its part, and every node there holds all that it should.
    pub(super) fn is_done(&self) -> bool {
        self.given_up.is_none()
            && self.progress().is_some_and(|it| it.succeeded == Some(true) && it.nodes_done == it.nodes)
    }

    /// What it is at.
    pub(super) fn doing(&self) -> &str {
        match (&self.link, self.progress()) {
            _ if self.is_over() => "ended",
            (None, _) => "waiting",
            (Some(Link::Absent(_)), None) => "absent",
            (Some(Link::Absent(_)), Some(_)) => "cut off",
            (Some(Link::Told), None) => "told",
            (Some(Link::Told), Some(it)) => &it.doing,
        }
    }

    /// What is to be said about it.
    pub(super) fn errors(&self) -> Vec<String> {
        let told = self.progress().map(|it| it.errors.clone()).unwrap_or_default();
        let absent = match &self.link {
            Some(Link::Absent(why)) if !self.is_over() => Some(why.clone()),
            _ => None,
        };
        self.given_up.clone().into_iter().chain(absent).chain(told).take(MAX_ERRORS).collect()
    }

    /// The same in a line, where it is not done.
    pub(super) fn fault(&self) -> Option<String> {
        if self.is_done() {
            return None;
        }
        let mut parts = Vec::new();
        if let Some(it) = self.progress().filter(|it| it.nodes > 0) {
            parts.push(format!("{} of {} nodes hold all that they should", it.nodes_done, it.nodes));
        }
        parts.extend(self.errors().into_iter().filter(|it| !parts.contains(it)).take(2).collect::<Vec<_>>());
        Some(format!("region {}: {}", self.region, parts.join("; ")))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn progress(nodes: u64, nodes_done: u64, succeeded: Option<bool>) -> OrderProgress {
        OrderProgress {
            doing: "storing".to_owned(),
            anew: true,
            nodes,
            nodes_done,
            succeeded,
            ..OrderProgress::default()
        }
    }

    pub(in super::super) fn told(region: &str, turn: u64, progress: OrderProgress) -> Told {
        Told { region: region.parse().unwrap(), turn, progress }
    }

    fn row(node: &str) -> BlobAtNode {
        BlobAtNode { blob: 0, node: node.to_owned(), ip: String::new(), failed: None }
    }

    fn nodes(it: &Branch) -> Vec<&str> {
        it.rows().iter().map(|it| it.node.as_str()).collect()
    }

    fn branch() -> Branch {
        Branch::new("eu".parse().unwrap())
    }

    #[test]
    fn rows_add_up_until_a_later_turn_begins_anew() {
        let mut it = branch();
        let say = |anew, rows: &[&str]| OrderProgress {
            anew,
            rows: rows.iter().map(|it| row(it)).collect(),
            ..progress(3, 0, None)
        };
        it.told(told("eu", 4, say(false, &["lost"])));
        assert!(it.progress().is_none(), "what came before that is not known");
        it.told(told("eu", 4, say(true, &["a"])));
        it.told(told("eu", 4, say(false, &["b"])));
        assert_eq!(nodes(&it), ["a", "b"]);
        it.told(told("eu", 7, say(true, &["b", "a", "c"])));
        it.told(told("eu", 4, say(false, &["stale"])));
        it.told(told("eu", 4, say(true, &["stale"])));
        assert_eq!(nodes(&it), ["b", "a", "c"]);
    }

    #[test]
    fn no_more_rows_are_kept_than_one_message_may_have() {
        let mut it = branch();
        for anew in [true, false] {
            let rows = vec![row("a"); OrderProgress::MAX_ROWS];
            it.told(told("eu", 1, OrderProgress { anew, rows, ..progress(1, 0, None) }));
        }
        assert_eq!(it.rows().len(), OrderProgress::MAX_ROWS);
        assert_eq!(it.progress().unwrap().rows_left_out, OrderProgress::MAX_ROWS as u64);
    }

    #[test]
    fn what_it_is_at_tells_one_that_was_never_there_from_one_that_is_cut_off() {
        let mut it = branch();
        let absent = || Link::Absent("none of its gateways is connected".to_owned());
        assert_eq!(it.doing(), "waiting");
        it.linked(Link::Told);
        assert_eq!(it.doing(), "told");
        it.linked(absent());
        assert_eq!((it.doing(), it.errors().len()), ("absent", 1));
        it.linked(Link::Told);
        it.told(told("eu", 1, progress(2, 1, None)));
        assert_eq!((it.doing(), it.errors().len()), ("storing", 0));
        it.linked(absent());
        assert_eq!(it.doing(), "cut off");
        it.give_up("not done within 60 s");
        assert_eq!((it.doing(), it.is_done(), it.is_of_use()), ("ended", false, true));
        let said = "region eu: 1 of 2 nodes hold all that they should; not done within 60 s; none of its \
                    gateways is connected";
        assert_eq!(it.fault().as_deref(), Some(said));
        it.told(told("eu", 2, progress(2, 2, Some(true))));
        assert!(!it.is_done(), "it was not waited for");
    }

    #[test]
    fn it_is_done_where_every_node_is() {
        for (nodes, done, succeeded, expected) in [
            (2, 2, Some(true), true),
            (2, 1, Some(true), false),
            (2, 2, None, false),
            (0, 0, Some(false), false),
        ] {
            let mut it = branch();
            it.told(told("eu", 1, progress(nodes, done, succeeded)));
            assert_eq!((it.is_done(), it.fault().is_none()), (expected, expected), "{nodes} {done}");
        }
    }
}
