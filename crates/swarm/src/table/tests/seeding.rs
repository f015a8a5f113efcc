//! Which gateway seeds, and when.

use super::*;

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
fn a_gateway_is_not_flooded_with_all_that_waits() {
    let mut it = Script::new(Policy::default());
    it.join("a", Role::Sidecar, "");
    for number in 0..300_u16 {
        let mut sum = [0; 32];
        sum[..2].copy_from_slice(&number.to_le_bytes());
        let key = BlobKey { digest: Digest::from_sha256(sum), ..key() };
        it.want_of(Report { key, ..report("a", false, &[]) });
    }
    let at_once = seeds(&it.join("gw", Role::Gateway, "")).len();
    assert!((1..300).contains(&at_once));
    let later: usize = (0..4).map(|_| seeds(&it.wait(Duration::from_secs(1))).len()).sum();
    assert_eq!(at_once + later, 300);
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

// === After a scheduler has come or gone ===

const MOMENT: Duration = Duration::from_millis(100);

#[test]
fn a_blob_that_has_just_come_is_not_read_again_where_nodes_hold_it() {
    let mut it = Script::with(&["a", "b", "c"]);
    let orders = it.want_moved("b");
    assert_eq!((seeds(&orders), neighbours(&orders, "b")), (vec![], Some(vec![])));
    it.gain("a", 0..PIECES);
    let orders = it.wait(MOMENT);
    assert_eq!(seeds(&orders), [""; 0]);
    assert_eq!(neighbours(&it.want_moved("c"), "c").map(|it| it.len()), Some(2));
    assert_eq!(seeds(&it.wait(Duration::from_secs(9))), [""; 0]);
}

#[test]
fn a_blob_that_has_just_come_and_that_nobody_holds_is_seeded_when_it_has_settled() {
    let mut it = Script::with(&["a", "b"]);
    // The table refreshes at other times.
    it.now = Tick(123_456);
    let settled = it.now.after(Policy::default().settle);
    assert_eq!(seeds(&it.want_moved("a")), [""; 0]);
    it.wait(MOMENT * 9);
    // Neither another such wish nor one of another kind puts it off, or hurries it.
    assert_eq!(seeds(&it.want_moved("b")), [""; 0]);
    assert_eq!(seeds(&it.want("b")), [""; 0]);
    let mut orders = Vec::new();
    while orders.is_empty() {
        it.now = it.table.next_deadline(it.now).unwrap();
        orders = seeds(&it.on(Event::Deadline));
    }
    assert_eq!((orders, it.now), (vec!["gw".to_owned()], settled));
    assert_eq!(seeds(&it.want_moved("b")), [""; 0], "once");
}

#[test]
fn what_the_gateway_holds_is_seeded_at_once_wherever_it_came_from() {
    let mut it = Script::with(&["a", "b"]);
    it.gain("gw", 0..1);
    assert_eq!(seeds(&it.want_moved("a")), ["gw"]);

    let mut it = Script::with(&["a"]);
    it.want_moved("a");
    let orders = it.gain("gw", 0..1);
    assert_eq!((seeds(&orders), leases(&orders, "a")), (vec!["gw".to_owned()], vec![0, 1, 2, 3]));
}

#[test]
fn a_wish_that_did_not_move_is_seeded_at_once() {
    let mut it = Script::with(&["a", "b"]);
    assert_eq!(seeds(&it.want("a")), ["gw"]);
    assert_eq!(seeds(&it.want_moved("b")), [""; 0], "it is being fetched");
}
