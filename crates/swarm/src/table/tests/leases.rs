//! Who brings what in, and from whom.

use super::*;

#[test]
fn the_first_wish_has_one_gateway_seed_and_brings_a_lease() {
    let mut it = Script::with(&["a", "b"]);
    it.join("gw2", Role::Gateway, "");
    let first = it.want("a");
    assert_eq!(seeds(&first).len(), 1);
    assert_eq!(leases(&first, "a"), [0, 1, 2, 3]);
    let second = it.want("b");
    assert_eq!(seeds(&second), [""; 0], "it is being seeded");
    assert_eq!(leases(&second, "b"), [0, 4, 19, 34, 49], "apart, and each but the first has one importer");
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
fn what_lies_at_the_gateway_in_nobodys_window_is_granted_with_its_next_report() {
    let mut it = Script::with(&["a", "b"]);
    it.want("a");
    it.want("b");
    let granted = |orders: &[Order]| [leases(orders, "a"), leases(orders, "b")].concat();
    assert_eq!(granted(&it.gain("gw", 0..8)), [0; 0], "somebody may be due for it");
    let mut waiting = granted(&it.gain("gw", 8..9));
    waiting.sort_unstable();
    assert_eq!(waiting, [5, 6, 7], "0 to 4 are in windows");
}

#[test]
fn a_lease_lives_from_when_the_gateway_has_the_piece() {
    let mut it = Script::with(&["a"]);
    it.want("a");
    it.wait(Duration::from_secs(6));
    it.gain("gw", 0..1);
    let granted_again = |orders: &[Order]| leases(orders, "a").contains(&0);
    assert!(!granted_again(&it.wait(Duration::from_secs(4))));
    assert!(granted_again(&it.wait(Duration::from_secs(2))), "there is nobody else");
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

/// After how many seconds a piece that `a` does not bring in goes to `b`, which takes so long for each of its own.
fn goes_on_after(b_takes: Duration) -> u64 {
    let mut it = Script::with(&["a", "b"]);
    it.want("a");
    let mut its = leases(&it.want("b"), "b");
    it.gain("gw", 0..PIECES);
    let began = it.now;
    while it.now.since(began) < Duration::from_secs(60) {
        let mut orders = it.wait(b_takes);
        if let Some(piece) = its.pop() {
            orders.extend(it.gain("b", piece..piece + 1));
        }
        its.extend(leases(&orders, "b"));
        if its.contains(&1) {
            return it.now.since(began).as_secs();
        }
    }
    panic!("not within a minute");
}

#[test]
fn late_is_what_takes_much_longer_than_it_takes_others() {
    assert_eq!(goes_on_after(Duration::from_millis(50)), 2);
    assert!(goes_on_after(Duration::from_secs(2)) >= 5);
}

#[test]
fn who_was_late_brings_nothing_in_while_others_can() {
    let mut it = Script::with(&["a", "b"]);
    it.want("a");
    let its = leases(&it.want("b"), "b");
    it.gain("gw", 0..PIECES);
    bring_in_all(&mut it, "b", its);
    let orders = [it.wait(Duration::from_secs(2)), it.gain("a", 0..1)].concat();
    assert_eq!(leases(&orders, "a"), [0; 0]);
    assert!(!leases(&orders, "b").is_empty());
    let alone = it.on(Event::Left(id("b")));
    assert!(!leases(&alone, "a").is_empty(), "nobody else is left");
}

/// The node brings in what it was leased, and what it is leased for that; returns all of it, in order.
fn bring_in_all(it: &mut Script, node: &str, leased: Vec<u32>) -> Vec<u32> {
    let (mut waiting, mut all) = (leased, BTreeSet::new());
    while let Some(piece) = waiting.pop() {
        all.insert(piece);
        waiting.extend(leases(&it.gain(node, piece..piece + 1), node));
    }
    all.into_iter().collect()
}

#[test]
fn a_leavers_leases_go_to_the_others() {
    let mut it = Script::with(&["a", "b"]);
    it.want("a");
    let mut leased = leases(&it.want("b"), "b");
    leased.extend(leases(&it.on(Event::Left(id("a"))), "b"));
    assert_eq!(bring_in_all(&mut it, "b", leased), (0..PIECES).collect::<Vec<_>>());
}

#[test]
fn what_its_only_holder_took_away_is_leased_again() {
    let mut it = Script::with(&["a", "b"]);
    it.want("a");
    let mut leased = leases(&it.want("b"), "b");
    it.gain("a", 0..4);
    leased.extend(leases(&it.on(Event::Left(id("a"))), "b"));
    assert_eq!(bring_in_all(&mut it, "b", leased), (0..PIECES).collect::<Vec<_>>());
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
