//! Who is told of whom.

use super::*;

#[test]
fn a_wish_is_answered_however_often_it_comes() {
    let mut it = Script::with(&["a", "b"]);
    it.gain("b", 0..PIECES);
    for _ in 0..2 {
        assert_eq!(neighbours(&it.want("a"), "a").as_deref(), Some(&["b".to_owned()][..]));
    }
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
