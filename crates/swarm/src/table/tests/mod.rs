//! One rule each of the scheduler's table, told as a script of what happens and what it then orders.

// A report or a lease of one run of pieces is what the scripts are about.
#![allow(clippy::single_range_in_vec_init)]

mod close_up;
mod history;
mod leases;
mod listing;
mod mesh;
mod seeding;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::*;
use shoal_model::{Digest, Rng, TrustGroup};

const PIECES: u32 = 64;

struct Script {
    table: Table,
    now: Tick,
}

fn id(name: &str) -> NodeId {
    NodeId::new(name)
}

fn key() -> BlobKey {
    BlobKey { group: TrustGroup::new("g"), digest: Digest::from_sha256([1; 32]) }
}

fn geometry() -> Geometry {
    Geometry::stated(u64::from(PIECES) << 20, 1 << 20).unwrap()
}

fn report(node: &str, dropped: bool, gained: &[Range<u32>]) -> Report {
    Report { node: id(node), key: key(), geometry: geometry(), dropped, gained: gained.to_vec() }
}

impl Script {
    fn new(policy: Policy) -> Self {
        Self { table: Table::new(policy, Rng::new(3)), now: Tick(0) }
    }

    /// A gateway and these sidecars, all in one zone.
    fn with(nodes: &[&str]) -> Self {
        let mut it = Self::new(Policy::default());
        it.join("gw", Role::Gateway, "");
        nodes.iter().for_each(|node| {
            it.join(node, Role::Sidecar, "");
        });
        it
    }

    fn on(&mut self, event: Event) -> Vec<Order> {
        let mut out = Vec::new();
        self.table.on_event(self.now, event, &mut out);
        out
    }

    fn join(&mut self, node: &str, role: Role, rack: &str) -> Vec<Order> {
        let place = Place { zone: "z".into(), rack: rack.into() };
        self.on(Event::Joined { node: id(node), role, place })
    }

    fn want(&mut self, node: &str) -> Vec<Order> {
        self.want_of(report(node, false, &[]))
    }

    fn want_of(&mut self, report: Report) -> Vec<Order> {
        self.on(Event::Want { report, moved: false })
    }

    /// A wish for the blob just after it has come to this scheduler.
    fn want_moved(&mut self, node: &str) -> Vec<Order> {
        self.on(Event::Want { report: report(node, false, &[]), moved: true })
    }

    fn gain(&mut self, node: &str, gained: Range<u32>) -> Vec<Order> {
        self.on(Event::Progress(report(node, false, &[gained])))
    }

    fn blob(&self) -> &BlobEntry {
        &self.table.blobs[self.table.blobs.number(&key()).unwrap()]
    }

    fn number(&self, node: &str) -> NodeNumber {
        self.table.nodes.number(&id(node)).unwrap()
    }

    fn wait(&mut self, span: Duration) -> Vec<Order> {
        self.now = self.now.after(span);
        self.on(Event::Deadline)
    }
}

fn leases(orders: &[Order], to: &str) -> Vec<u32> {
    let mine = orders.iter().filter(|it| it.to == id(to));
    mine.filter_map(|it| match &it.what {
        What::Lease { pieces, .. } => Some(pieces.iter().cloned().flatten()),
        _ => None,
    })
    .flatten()
    .collect()
}

fn seeds(orders: &[Order]) -> Vec<String> {
    let is_seed = |it: &&Order| matches!(it.what, What::Seed { .. });
    orders.iter().filter(is_seed).map(|it| it.to.to_string()).collect()
}

fn neighbours(orders: &[Order], to: &str) -> Option<Vec<String>> {
    orders.iter().rev().filter(|it| it.to == id(to)).find_map(|it| match &it.what {
        What::Neighbours { near, .. } => Some(near.iter().map(ToString::to_string).collect()),
        _ => None,
    })
}

/// Who is to bring what in from whom, in the order of the orders.
fn imports(orders: &[Order]) -> Vec<(String, String, Vec<u32>)> {
    let lease = |it: &Order| match &it.what {
        What::Lease { from, pieces } => {
            Some((it.to.to_string(), from.to_string(), pieces.iter().cloned().flatten().collect()))
        }
        _ => None,
    };
    orders.iter().filter_map(lease).collect()
}

/// Two racks of so many nodes that want the blob, `a0..` and `b0..`, and a gateway.
fn two_racks(n_nodes: usize) -> Script {
    let mut it = Script::with(&[]);
    for rack in ["a", "b"] {
        for number in 0..n_nodes {
            let node = format!("{rack}{number}");
            it.join(&node, Role::Sidecar, rack);
            it.want(&node);
        }
    }
    it
}

#[test]
fn a_wish_of_a_node_that_holds_everything_is_none() {
    let mut it = Script::with(&["a"]);
    it.gain("a", 0..PIECES);
    it.want("a");
    assert_eq!(it.table.next_deadline(it.now), None);
}

#[test]
fn a_new_cut_replaces_one_that_nobody_wants_any_more() {
    let mut it = Script::with(&["a", "b"]);
    it.gain("a", 0..PIECES);
    let other = Geometry::stated(u64::from(PIECES) << 20, 2 << 20).unwrap();
    let orders = it.want_of(Report { geometry: other, ..report("b", false, &[]) });
    assert_eq!(seeds(&orders), ["gw"]);
    it.gain("a", 0..1);
    it.on(Event::Left(id("a")));
    assert_eq!(it.table.n_blobs(), 1);
}

#[test]
fn only_a_few_nodes_of_a_blob_may_ask_the_registry() {
    let policy = Policy {
        back_to_source_count: 2,
        retry_back_to_source_limit: 1,
        retry_limit: 10,
        ..Policy::default()
    };
    let mut it = Script::new(policy);
    let nodes = ["a", "b", "c", "d"];
    for node in nodes {
        it.join(node, Role::Sidecar, "");
        it.want(node);
    }
    let mut direct = 0;
    for _ in 0..3 {
        it.now = it.now.after(policy.retry_interval);
        for node in nodes {
            let orders = it.on(Event::Stranded { node: id(node), key: key() });
            direct += orders.iter().filter(|it| it.what == What::GoDirect).count();
        }
    }
    assert!(direct >= 2, "{direct}");
    assert_eq!(it.blob().direct.len(), 2);
}

#[test]
fn a_node_that_calls_too_often_is_not_answered_and_one_that_calls_for_long_is_let_go() {
    let policy = Policy { back_to_source_count: 0, retry_limit: 3, ..Policy::default() };
    let mut it = Script::new(policy);
    it.join("a", Role::Sidecar, "");
    it.want("a");
    let call = Event::Stranded { node: id("a"), key: key() };
    let mut answers = Vec::new();
    for _ in 0..4 {
        answers.push(it.on(call.clone()).iter().any(|it| it.what == What::GoDirect));
        assert_eq!(it.on(call.clone()), [], "within the retry interval");
        it.now = it.now.after(policy.retry_interval);
    }
    assert_eq!(answers, [false, false, false, true]);
}

#[test]
fn a_node_that_cuts_the_blob_otherwise_is_left_out() {
    let mut it = Script::with(&["a", "b"]);
    it.want("a");
    let other = Geometry::stated(u64::from(PIECES) << 20, 2 << 20).unwrap();
    assert_eq!(it.want_of(Report { geometry: other, ..report("b", false, &[]) }), []);
}

#[test]
fn a_blob_that_nobody_holds_or_wants_is_forgotten() {
    let mut it = Script::with(&["a"]);
    it.want("a");
    it.on(Event::Unwant { node: id("a"), key: key() });
    assert_eq!(it.table.n_blobs(), 0);
    it.gain("a", 0..3);
    assert_eq!(it.table.n_blobs(), 1);
    it.on(Event::Left(id("a")));
    assert_eq!((it.table.n_blobs(), it.table.n_nodes()), (0, 1));
    assert_eq!(it.table.next_deadline(it.now), None);
}

#[test]
fn unknown_nodes_change_nothing() {
    let mut it = Script::with(&[]);
    assert_eq!(it.want("stranger"), []);
    assert_eq!(it.gain("stranger", 0..4), []);
    assert_eq!(it.table.n_blobs(), 0);
}

#[test]
fn what_a_node_says_that_it_holds_is_kept_up_to_a_limit() {
    let mut it = Script::with(&["a", "b"]);
    let largest = |node: &str, number: u8, dropped, gained: &[Range<u32>]| {
        let key = BlobKey { digest: Digest::from_sha256([number; 32]), ..key() };
        let geometry = Geometry::stated(geometry::MAX_PIECES, 1).unwrap();
        Event::Progress(Report { node: id(node), key, geometry, dropped, gained: gained.to_vec() })
    };
    (2..10).for_each(|number| drop(it.on(largest("a", number, false, &[0..1]))));
    assert_eq!(it.table.n_blobs(), 2);
    it.on(largest("a", 3, false, &[1..2]));
    it.on(largest("b", 9, false, &[0..1]));
    assert_eq!(it.table.n_blobs(), 3, "another node is heard as well");
    it.table.check();

    it.on(largest("a", 2, true, &[]));
    it.on(largest("a", 4, false, &[0..1]));
    it.on(largest("a", 5, false, &[0..1]));
    assert_eq!(it.table.n_blobs(), 3, "there is room where something was dropped");
    assert_ne!(it.want("a"), [], "what it wants it has a ticket for");
    assert_eq!(it.table.n_blobs(), 4);
    it.table.check();
}
