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
fn everybody_who_wants_the_blob_hears_of_the_successor_whether_there_is_a_lease_for_them_or_not() {
    let names: Vec<_> = (0..9).map(|it| format!("n{it}")).collect();
    let mut it = Script::with(&names.iter().map(String::as_str).collect::<Vec<_>>());
    it.join("gw2", Role::Gateway, "");
    let first = seeds(&it.want("n0")).remove(0);
    names.iter().for_each(|name| drop(it.want(name)));
    // All but the last piece is somewhere.
    names.iter().for_each(|name| drop(it.gain(name, 0..PIECES - 1)));
    let orders = it.on(Event::Left(id(&first)));
    let second = seeds(&orders);
    assert_eq!(imports(&orders).len(), 1, "there is one lease to be had");
    for name in &names {
        let gateway = orders.iter().filter(|it| it.to == id(name)).find_map(|it| match &it.what {
            What::Neighbours { gateway, .. } => gateway.as_ref().map(ToString::to_string),
            _ => None,
        });
        assert_eq!(gateway.as_ref(), second.first(), "{name}");
    }
}

#[test]
fn a_gateway_that_does_not_get_on_is_replaced_with_ever_more_patience() {
    let mut it = Script::with(&["a"]);
    it.join("gw2", Role::Gateway, "");
    let mut seeders = seeds(&it.want("a"));
    let mut waited = Vec::new();
    for _ in 0..4 {
        let mut seconds = 0;
        let (orders, next) = loop {
            let orders = it.wait(Duration::from_secs(1));
            seconds += 1;
            if let Some(next) = seeds(&orders).pop() {
                break (orders, next);
            }
        };
        assert_eq!(imports(&orders).first().map(|it| it.1.clone()), Some(next.clone()));
        seeders.push(next);
        waited.push(seconds);
    }
    assert_eq!(
        waited,
        [3, 5, 10, 20],
        "half of a lease's life, by whole seconds, and twice as long each time"
    );
    assert!(seeders.windows(2).all(|it| it[0] != it[1]), "{seeders:?}");
    // Another wish for it begins anew.
    it.on(Event::Unwant { node: id("a"), key: key() });
    let first = seeds(&it.want("a"));
    assert_ne!(seeds(&it.wait(Duration::from_secs(3))), first);
}

#[test]
fn a_gateway_that_gets_on_keeps_the_blob() {
    let mut it = Script::with(&["a"]);
    it.join("gw2", Role::Gateway, "");
    let seeder = seeds(&it.want("a")).remove(0);
    for piece in 0..9 {
        it.gain(&seeder, piece..piece + 1);
        assert_eq!(seeds(&it.wait(Duration::from_secs(2))), [""; 0]);
    }
}

#[test]
fn a_gateway_is_told_who_holds_most_and_never_itself() {
    let holders = |orders: &[Order]| {
        let seed = orders.iter().find_map(|it| match &it.what {
            What::Seed { holders } => Some(holders.iter().map(ToString::to_string).collect::<Vec<_>>()),
            _ => None,
        });
        seed.unwrap()
    };
    let names: Vec<_> = (0..12).map(|it| format!("n{it}")).collect();
    let mut it = Script::with(&names.iter().map(String::as_str).collect::<Vec<_>>());
    for name in ["gw2", "gw3"] {
        it.join(name, Role::Gateway, "");
    }
    assert_eq!(holders(&it.want("n0")), [""; 0]);
    for (held, node) in (1..).zip(&names) {
        it.gain(node, 0..held);
    }
    for name in ["gw", "gw2", "gw3"] {
        it.gain(name, 0..20);
    }
    let first = it.table.nodes.name(it.blob().seeder.unwrap()).clone();
    let orders = it.on(Event::Left(first.clone()));
    let next = it.table.nodes.name(it.blob().seeder.unwrap()).clone();
    let other = ["gw", "gw2", "gw3"].into_iter().find(|it| id(it) != first && id(it) != next).unwrap();
    assert_eq!(holders(&orders), [other, "n11", "n10", "n9", "n8", "n7", "n6", "n5"]);
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
