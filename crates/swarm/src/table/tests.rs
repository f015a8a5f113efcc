//! One rule each of the scheduler's table.

// A report or a lease of one run of pieces is what the scripts are about.
#![allow(clippy::single_range_in_vec_init)]

use std::collections::BTreeMap;
use std::ops::Range;

use super::*;
use crate::Geometry;
use proptest::prelude::*;
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
        self.on(Event::Want(report(node, false, &[])))
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
    orders.iter().filter(|it| it.what == What::Seed).map(|it| it.to.to_string()).collect()
}

fn neighbours(orders: &[Order], to: &str) -> Option<Vec<String>> {
    orders.iter().rev().filter(|it| it.to == id(to)).find_map(|it| match &it.what {
        What::Neighbours { near, .. } => Some(near.iter().map(ToString::to_string).collect()),
        _ => None,
    })
}

#[test]
fn the_first_wish_has_one_gateway_seed_and_brings_a_lease() {
    let mut it = Script::with(&["a", "b"]);
    it.join("gw2", Role::Gateway, "");
    let first = it.want("a");
    assert_eq!(seeds(&first).len(), 1);
    assert_eq!(leases(&first, "a"), [0, 1, 2, 3]);
    let second = it.want("b");
    assert_eq!(seeds(&second), [""; 0], "it is being seeded");
    assert_eq!(leases(&second, "b"), [0, 4, 5, 6, 7], "each piece but the first has one importer");
}

#[test]
fn the_first_piece_has_a_few_importers_until_one_of_them_holds_it() {
    let imports = |it: &mut Script, node| leases(&it.want(node), node).contains(&0);
    let nodes = ["a", "b", "c", "d", "e"];
    let mut it = Script::with(&nodes);
    assert_eq!(nodes.map(|node| imports(&mut it, node)), [true, true, true, true, false]);
    let mut it = Script::with(&["a", "b"]);
    it.want("a");
    it.gain("a", 0..1);
    assert!(!imports(&mut it, "b"));
}

#[test]
fn neighbours_are_told_both_ways() {
    let mut it = Script::with(&["a", "b"]);
    assert_eq!(neighbours(&it.want("a"), "a").as_deref(), Some(&[][..]), "a wish is answered in any case");
    let orders = it.want("b");
    assert_eq!(neighbours(&orders, "b").as_deref(), Some(&["a".to_owned()][..]));
    assert_eq!(neighbours(&orders, "a").as_deref(), Some(&["b".to_owned()][..]));
    let left = it.on(Event::Left(id("b")));
    assert_eq!(neighbours(&left, "a").as_deref(), Some(&[][..]));
}

#[test]
fn holders_that_want_nothing_serve_and_are_told_nothing() {
    let mut it = Script::with(&["a", "b"]);
    it.gain("a", 0..PIECES);
    let orders = it.want("b");
    assert_eq!(neighbours(&orders, "b").as_deref(), Some(&["a".to_owned()][..]));
    assert_eq!(neighbours(&orders, "a"), None);
    assert_eq!(seeds(&orders), [""; 0], "the sidecars hold all of it");
    assert_eq!(leases(&orders, "b"), [0; 0]);
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

fn far_of(orders: &[Order], to: &str) -> Vec<String> {
    let mine = orders.iter().rev().filter(|it| it.to == id(to));
    mine.filter_map(|it| match &it.what {
        What::Neighbours { far, .. } => Some(far.iter().map(ToString::to_string).collect()),
        _ => None,
    })
    .next()
    .unwrap_or_default()
}

#[test]
fn a_node_fetches_within_its_rack_and_knows_a_few_elsewhere() {
    let mut it = two_racks(20);
    it.join("a", Role::Sidecar, "a");
    let orders = it.want("a");
    let near = neighbours(&orders, "a").unwrap();
    assert_eq!(near.len(), Policy::default().n_near);
    assert!(near.iter().all(|it| it.starts_with('a')), "{near:?}");
    let far = far_of(&orders, "a");
    assert!(!far.is_empty() && far.iter().all(|it| it.starts_with('b')), "{far:?}");
}

#[test]
fn a_few_nodes_in_a_rack_fetch_from_the_whole_zone() {
    let mut it = two_racks(3);
    it.join("c", Role::Sidecar, "c");
    let near = neighbours(&it.want("c"), "c").unwrap();
    assert_eq!(near.len(), 6, "{near:?}");
    // With one more, rack a brings in what it lacks once.
    it.join("a3", Role::Sidecar, "a");
    let near = neighbours(&it.want("a3"), "a0").unwrap();
    assert_eq!(near, ["a1", "a2", "a3"]);
}

#[test]
fn a_piece_comes_into_a_rack_once_and_from_whoever_brought_it_into_another() {
    let mut it = two_racks(6);
    let orders = it.gain("a0", 0..1);
    let [(importer, from, pieces)] = &imports(&orders)[..] else { panic!("{orders:?}") };
    assert!(importer.starts_with('b') && from == "a0" && *pieces == [0], "{orders:?}");
    assert_eq!(imports(&it.gain("a1", 0..1)), [], "it is on its way");
    let importer = importer.clone();
    assert_eq!(imports(&it.gain(&importer, 0..1)), [], "both racks have it");
}

#[test]
fn what_is_brought_into_the_region_needs_no_lease_in_its_own_rack() {
    let mut it = two_racks(6);
    // b0 was leased the piece from the gateway.
    it.gain("b0", 24..25);
    let all: Vec<_> = (0..6).flat_map(|n| imports(&it.gain(&format!("b{n}"), 24..25))).collect();
    assert_eq!(all, []);
}

#[test]
fn an_importer_that_fails_has_a_successor_in_its_rack() {
    let mut it = two_racks(6);
    let orders = it.gain("a0", 0..1);
    let importer = imports(&orders)[0].0.clone();
    let orders = it.on(Event::Left(id(&importer)));
    let mine =
        |orders: &[Order]| imports(orders).into_iter().filter(|(to, ..)| to.starts_with('b')).collect();
    let next: Vec<_> = mine(&orders);
    assert!(next.iter().any(|(to, from, pieces)| *to != importer && from == "a0" && pieces.contains(&0)));
    let late: Vec<_> = mine(&it.wait(Duration::from_secs(6)));
    assert!(late.iter().any(|(_, from, pieces)| from == "a0" && pieces.contains(&0)), "{late:?}");
}

#[test]
fn a_piece_spreads_over_many_racks_from_one_to_the_next() {
    let mut it = Script::with(&[]);
    for node in 0..160 {
        let (node, rack) = (format!("n{node:03}"), format!("r{}", node % 40));
        it.join(&node, Role::Sidecar, &rack);
        it.want(&node);
    }
    let (mut open, mut suppliers) = (vec!["n000".to_owned()], BTreeMap::<String, usize>::new());
    let mut reached = 1;
    while let Some(node) = open.pop() {
        for (importer, from, pieces) in imports(&it.gain(&node, 0..1)) {
            if pieces == [0] && from != "gw" {
                *suppliers.entry(from).or_default() += 1;
                open.push(importer);
                reached += 1;
            }
        }
    }
    assert_eq!(reached, 40, "every rack has it");
    assert!(suppliers.values().all(|it| *it <= 3), "nobody serves them all: {suppliers:?}");
}

#[test]
fn whoever_brings_in_its_pieces_gets_a_larger_window() {
    let mut it = Script::with(&["a"]);
    it.want("a");
    assert_eq!(leases(&it.gain("a", 0..2), "a").len(), 6, "half is in: filled up to twice the window");
    assert_eq!(leases(&it.gain("a", 2..10), "a").len(), 16);
}

#[test]
fn a_lease_ends_when_anybody_holds_the_piece() {
    let mut it = Script::with(&["a", "b"]);
    it.want("a");
    it.want("b");
    assert_eq!(leases(&it.gain("b", 0..4), "b"), [0; 0], "its own lease is untouched");
    assert_eq!(leases(&it.gain("a", 8..9), "a").len(), 8, "the old lease was settled by b");
}

#[test]
fn a_late_piece_goes_to_a_successor_once_the_gateway_holds_it() {
    let mut it = Script::with(&["a", "b"]);
    it.want("a");
    it.want("b");
    let late = it.wait(Duration::from_secs(6));
    assert_eq!(
        leases(&late, "a").len() + leases(&late, "b").len(),
        0,
        "waiting for the registry is no fault"
    );
    it.gain("gw", 0..8);
    it.gain("b", 4..8);
    let late = it.wait(Duration::from_secs(6));
    assert!(leases(&late, "b").starts_with(&[0]) || leases(&late, "a").starts_with(&[0]), "{late:?}");
}

#[test]
fn a_leavers_leases_go_to_the_others() {
    let mut it = Script::with(&["a", "b"]);
    it.want("a");
    it.want("b");
    it.gain("b", 4..8);
    let orders = it.on(Event::Left(id("a")));
    let more = it.gain("b", 8..16);
    let all: Vec<_> = leases(&orders, "b").into_iter().chain(leases(&more, "b")).collect();
    assert!(all.contains(&0) && all.contains(&3), "{all:?}");
}

#[test]
fn what_was_dropped_is_seeded_again() {
    let mut it = Script::with(&["a", "b"]);
    it.gain("a", 0..PIECES);
    assert_eq!(seeds(&it.want("b")), [""; 0]);
    let orders = it.on(Event::Progress(report("a", true, &[])));
    assert_eq!(seeds(&orders), ["gw"]);
    assert_eq!(leases(&orders, "b"), [0, 1, 2, 3]);
}

#[test]
fn what_its_only_holder_took_away_is_leased_again() {
    let mut it = Script::with(&["a", "b"]);
    it.want("a");
    it.want("b");
    it.gain("a", 0..4);
    let orders = it.on(Event::Left(id("a")));
    let more = it.gain("b", 4..8);
    let all: Vec<_> = leases(&orders, "b").into_iter().chain(leases(&more, "b")).collect();
    assert!((0..4).all(|it| all.contains(&it)), "{all:?}");
}

#[test]
fn a_seed_that_does_not_get_on_is_ordered_again() {
    let mut it = Script::with(&["a"]);
    it.want("a");
    assert_eq!(seeds(&it.wait(Duration::from_secs(2))), [""; 0]);
    it.gain("gw", 0..1);
    assert_eq!(seeds(&it.wait(Duration::from_secs(4))), [""; 0], "it has just moved");
    assert_eq!(seeds(&it.wait(Duration::from_secs(4))), ["gw"]);
    it.gain("a", 0..PIECES);
    assert_eq!(seeds(&it.wait(Duration::from_secs(20))), [""; 0]);
}

#[test]
fn the_leases_of_a_dead_gateway_are_given_anew_for_its_successor() {
    let mut it = Script::with(&["a"]);
    it.join("gw2", Role::Gateway, "");
    let first = seeds(&it.want("a")).remove(0);
    let orders = it.on(Event::Left(id(&first)));
    assert_eq!(leases(&orders, "a"), [0, 1, 2, 3]);
    let lease = orders.iter().find(|it| matches!(it.what, What::Lease { .. })).unwrap();
    assert!(matches!(&lease.what, What::Lease { from, .. } if *from != id(&first)));
}

#[test]
fn a_wish_of_a_node_that_holds_everything_is_none() {
    let mut it = Script::with(&["a"]);
    it.gain("a", 0..PIECES);
    it.want("a");
    assert_eq!(it.table.next_deadline(it.now), None);
}

#[test]
fn a_gateway_is_not_flooded_with_all_that_waits() {
    let mut it = Script::new(Policy::default());
    it.join("a", Role::Sidecar, "");
    for number in 0..300_u16 {
        let mut sum = [0; 32];
        sum[..2].copy_from_slice(&number.to_le_bytes());
        let key = BlobKey { digest: Digest::from_sha256(sum), ..key() };
        it.on(Event::Want(Report { key, ..report("a", false, &[]) }));
    }
    let at_once = seeds(&it.join("gw", Role::Gateway, "")).len();
    assert!((1..300).contains(&at_once));
    let later: usize = (0..4).map(|_| seeds(&it.wait(Duration::from_secs(1))).len()).sum();
    assert_eq!(at_once + later, 300);
}

#[test]
fn a_new_cut_replaces_one_that_nobody_wants_any_more() {
    let mut it = Script::with(&["a", "b"]);
    it.gain("a", 0..PIECES);
    let other = Geometry::stated(u64::from(PIECES) << 20, 2 << 20).unwrap();
    let orders = it.on(Event::Want(Report { geometry: other, ..report("b", false, &[]) }));
    assert_eq!(seeds(&orders), ["gw"]);
    it.gain("a", 0..1);
    it.on(Event::Left(id("a")));
    assert_eq!(it.table.n_blobs(), 1);
}

#[test]
fn a_dead_gateway_is_replaced() {
    let mut it = Script::with(&["a"]);
    it.join("gw2", Role::Gateway, "");
    let first = seeds(&it.want("a")).remove(0);
    let second = seeds(&it.on(Event::Left(id(&first))));
    assert_eq!(second.len(), 1);
    assert_ne!(second[0], first);
}

#[test]
fn a_gateway_that_comes_late_seeds_what_waits() {
    let mut it = Script::new(Policy::default());
    it.join("a", Role::Sidecar, "");
    assert_eq!(seeds(&it.want("a")), [""; 0]);
    let orders = it.join("gw", Role::Gateway, "");
    assert_eq!(seeds(&orders), ["gw"]);
    assert_eq!(leases(&orders, "a"), [0, 1, 2, 3]);
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
    assert_eq!(it.on(Event::Want(Report { geometry: other, ..report("b", false, &[]) })), []);
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

/// What can happen to a table, with small numbers for who and what.
#[derive(Clone, Debug)]
enum Step {
    Join(usize, usize),
    Leave(usize),
    Want(usize),
    Unwant(usize),
    Gain(usize, u32, u32),
    Drop(usize),
    Cut(usize),
    Strand(usize),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let node = 0..14_usize;
    prop_oneof![
        2 => (node.clone(), 0..3_usize).prop_map(|(node, rack)| Step::Join(node, rack)),
        1 => node.clone().prop_map(Step::Leave),
        4 => node.clone().prop_map(Step::Want),
        1 => node.clone().prop_map(Step::Unwant),
        8 => (node.clone(), 0..PIECES, 1..6_u32).prop_map(|(node, at, n)| Step::Gain(node, at, n)),
        1 => node.clone().prop_map(|node| Step::Gain(node, 0, PIECES)),
        1 => node.clone().prop_map(Step::Drop),
        1 => node.clone().prop_map(Step::Cut),
        1 => node.prop_map(Step::Strand),
        2 => (0..9_u64).prop_map(Step::Wait),
    ]
}

fn name(number: usize) -> String {
    if number < 2 { format!("gw{number}") } else { format!("n{number:02}") }
}

/// Two gateways, and nodes in three racks of two zones.
fn take(it: &mut Script, step: &Step) -> Vec<Order> {
    let event = match *step {
        Step::Join(number, rack) => {
            let role = if number < 2 { Role::Gateway } else { Role::Sidecar };
            let zone = if rack == 0 { "y" } else { "z" };
            let place = Place { zone: zone.into(), rack: format!("r{rack}").as_str().into() };
            Event::Joined { node: id(&name(number)), role, place }
        }
        Step::Leave(number) => Event::Left(id(&name(number))),
        Step::Want(number) => Event::Want(report(&name(number), false, &[])),
        Step::Unwant(number) => Event::Unwant { node: id(&name(number)), key: key() },
        Step::Gain(number, at, n) => return it.gain(&name(number), at..(at + n).min(PIECES)),
        Step::Drop(number) => Event::Progress(report(&name(number), true, &[])),
        Step::Cut(number) => {
            let geometry = Geometry::stated(u64::from(PIECES) << 20, 2 << 20).unwrap();
            Event::Want(Report { geometry, ..report(&name(number), false, &[]) })
        }
        Step::Strand(number) => Event::Stranded { node: id(&name(number)), key: key() },
        Step::Wait(seconds) => return it.wait(Duration::from_secs(seconds)),
    };
    it.on(event)
}

/// All that an order names: whom it is for, and whom it tells of.
fn named(order: &Order) -> Vec<&NodeId> {
    let others = match &order.what {
        What::Neighbours { near, far, .. } => near.iter().chain(far).collect(),
        What::Lease { from, .. } => vec![from],
        What::Seed | What::GoDirect => Vec::new(),
    };
    others.into_iter().chain([&order.to]).collect()
}

proptest! {
    #[test]
    fn whatever_happens_each_level_knows_what_it_holds_and_brings_in(
        steps in proptest::collection::vec(step(), 0..120),
    ) {
        let mut it = Script::new(Policy::default());
        (0..10).for_each(|number| drop(take(&mut it, &Step::Join(number, number % 3))));
        for step in steps {
            for (importer, from, pieces) in imports(&take(&mut it, &step)) {
                let blob = it.blob();
                prop_assert!(blob.wants(it.number(&importer)));
                if !from.starts_with("gw") {
                    let held = blob.held(it.number(&from)).unwrap();
                    prop_assert!(pieces.iter().all(|it| held.contains(*it)), "{} lacks {:?}", from, pieces);
                }
            }
            it.table.check();
        }
    }

    /// The number of a node that has left is given to the next one, which stands elsewhere and holds nothing.
    #[test]
    fn whoever_is_told_or_told_of_is_there_and_where_it_says(
        steps in proptest::collection::vec(step(), 0..120),
    ) {
        let mut it = Script::new(Policy::default());
        let mut racks = BTreeMap::new();
        for step in (0..10).map(|number| Step::Join(number, number % 3)).chain(steps) {
            let orders = take(&mut it, &step);
            match step {
                Step::Join(number, rack) => drop(racks.insert(id(&name(number)), rack)),
                Step::Leave(number) => drop(racks.remove(&id(&name(number)))),
                _ => {}
            }
            prop_assert_eq!(it.table.n_nodes(), racks.len());
            for order in &orders {
                prop_assert!(named(order).iter().all(|it| racks.contains_key(*it)), "{:?}", order);
                if let What::Neighbours { near, far, .. } = &order.what {
                    let is_mine = |it: &NodeId| racks[it] == racks[&order.to];
                    let home = near.iter().filter(|it| is_mine(it)).count();
                    prop_assert!(near.iter().chain(far).all(|it| *it != order.to), "{:?}", order);
                    prop_assert!(home > 0 || !far.iter().any(is_mine), "near ones are far: {:?}", order);
                }
            }
        }
    }
}
