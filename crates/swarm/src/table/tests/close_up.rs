//! What the table says of one blob, and of what has arrived.

use super::*;

/// The gateway seeds; `a` holds all, `b` and `c` want it and hold parts.
fn table() -> Script {
    let mut it = Script::with(&["a", "b", "c"]);
    it.gain("a", 0..PIECES);
    it.want("b");
    it.want("c");
    it.gain("b", 0..PIECES / 2);
    it
}

#[test]
fn those_that_want_a_blob_are_shown_first_each_with_what_it_holds_and_its_neighbours() {
    let CloseUp { standing, members, n_more, .. } = table().table.close_up(&key(), 10).unwrap();
    assert_eq!((standing.n_whole, standing.n_part, standing.n_wanting, n_more), (1, 1, 2, 0));
    let shown: Vec<_> = members.iter().map(|it| (it.node.as_str(), it.wants, it.n_held)).collect();
    assert_eq!(shown, [("b", true, PIECES / 2), ("c", true, 0), ("a", false, PIECES)]);
    assert_eq!(members[0].fill[..], [[255; 32], [0; 32]].concat());
    let neighbours: Vec<_> = members.iter().map(|it| it.neighbours.clone()).collect();
    assert_eq!(neighbours, [vec![1, 2], vec![0, 2], vec![0, 1]].map(|it: Vec<u32>| it));
}

#[test]
fn members_beyond_so_many_are_counted() {
    let it = table().table.close_up(&key(), 1).unwrap();
    assert_eq!((it.members.len(), it.n_more), (1, 2));
    // Of neighbours only those that are shown have a place.
    assert_eq!(it.members[0].neighbours, []);
    assert_eq!(Script::with(&["a"]).table.close_up(&key(), 1), None);
}

#[test]
fn the_gateway_that_seeds_is_named() {
    let mut it = Script::with(&["a"]);
    it.want("a");
    assert_eq!(it.table.close_up(&key(), 10).unwrap().seeder, Some(id("gw")));
}

#[test]
fn what_arrived_is_what_was_wanted_and_not_there_before() {
    let mut it = Script::with(&["a", "b"]);
    let last = Geometry::stated((2 << 20) + 5, 1 << 20).unwrap();
    let of_last =
        |node, dropped, gained: Range<u32>| Report { geometry: last, ..report(node, dropped, &[gained]) };
    // Told without a wish: it was on the disk.
    it.on(Event::Progress(of_last("a", false, 0..3)));
    // Held when it is wished for.
    it.want_of(of_last("b", false, 0..1));
    assert_eq!(it.table.n_bytes_arrived(), 0);
    it.on(Event::Progress(of_last("b", false, 0..2)));
    assert_eq!(it.table.n_bytes_arrived(), 1 << 20);
    it.on(Event::Progress(of_last("b", false, 2..3)));
    it.on(Event::Progress(of_last("b", false, 2..3)));
    assert_eq!(it.table.n_bytes_arrived(), (1 << 20) + 5);
    // What is lost does not go back to where it came from.
    it.on(Event::Progress(of_last("b", true, 0..0)));
    assert_eq!(it.table.n_bytes_arrived(), (1 << 20) + 5);
}
