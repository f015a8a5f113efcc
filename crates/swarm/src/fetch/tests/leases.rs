//! Pieces that this node brings in.

use super::*;

#[test]
fn the_gateway_is_asked_for_leased_pieces_only() {
    let mut it = Script::new(8, two_slots());
    assert_eq!(it.on(Event::Gateway(id("gw"))), [""; 0]);
    let lease = leased("gw", 3..4);
    assert_eq!(it.on(lease), ["watch gw"]);
    assert_eq!(it.on(news("gw", 0..8)), ["ask gw 3"]);
}

#[test]
fn a_lease_from_a_node_lasts_until_the_piece_is_here() {
    let mut it = Script::new(8, two_slots());
    it.on(neighbours(&["a"]));
    assert_eq!(it.on(leased("elsewhere", 2..4)), ["watch elsewhere"]);
    assert_eq!(it.on(news("elsewhere", 0..8)), ["ask elsewhere 2", "ask elsewhere 3"]);
    assert_eq!(it.on(held(2)), ["cancel elsewhere 2"], "nothing else is asked there");
    assert_eq!(it.on(held(3)), ["cancel elsewhere 3", "leave elsewhere"]);
    assert_eq!(it.on(leased("elsewhere", 4..5)), ["watch elsewhere"], "what it held is forgotten");
}

#[test]
fn a_lease_of_a_neighbour_leaves_it_one() {
    let mut it = Script::new(8, two_slots());
    it.on(neighbours(&["a"]));
    assert_eq!(it.on(leased("a", 2..3)), [""; 0]);
    assert_eq!(it.on(news("a", 2..3)), ["ask a 2"]);
    assert_eq!(it.on(held(2)), ["cancel a 2"]);
    // The scheduler named others; the last lease holds on to it.
    it.on(leased("a", 3..4));
    assert_eq!(it.on(neighbours(&["b"])), ["watch b"]);
    assert_eq!(it.on(news("a", 3..5)), ["ask a 3"]);
    assert_eq!(it.on(held(3)), ["cancel a 3", "leave a"]);
}

#[test]
fn a_lease_that_is_given_again_does_not_leave_its_source() {
    let mut it = Script::new(8, two_slots());
    it.on(leased("elsewhere", 2..3));
    assert_eq!(it.on(leased("elsewhere", 2..3)), [""; 0]);
    assert_eq!(it.on(news("elsewhere", 2..3)), ["ask elsewhere 2"]);
    assert_eq!(it.on(held(2)), ["cancel elsewhere 2", "leave elsewhere"]);
}

#[test]
fn a_gateway_that_answered_an_open_does_not_end_the_leases_of_another() {
    let mut it = Script::new(8, two_slots());
    it.on(leased("gw", 0..1));
    it.on(news("gw", 0..8));
    assert_eq!(it.on(Event::Gateway(id("gw2"))), [""; 0]);
    assert_eq!(it.fetch.n_leased(), 1);
    it.on(held(0));
    assert_eq!(it.on(Event::Gateway(id("gw2"))), ["leave gw"], "nothing is leased from it any more");
}

#[test]
fn a_lease_ends_with_its_source() {
    for end in [
        failed("elsewhere", 0, Fault::Broken),
        failed("elsewhere", 0, Fault::NotHeld),
        Event::Lost { from: id("elsewhere"), is_well: true },
    ] {
        let mut it = Script::new(8, two_slots());
        it.on(leased("elsewhere", 0..1));
        it.on(news("elsewhere", 0..1));
        assert_eq!(it.on(end), ["leave elsewhere"]);
        assert_eq!(it.fetch.n_leased(), 0);
    }
    let mut it = Script::new(8, two_slots());
    it.on(leased("elsewhere", 0..1));
    it.on(news("elsewhere", 0..1));
    assert_eq!(it.on(failed("elsewhere", 0, Fault::Busy)), [""; 0]);
    assert_eq!(it.until(SECOND / 10), ["ask elsewhere 0"], "busy is not sick");
}

#[test]
fn another_gateway_takes_the_place_of_the_one_before() {
    let mut it = Script::new(8, two_slots());
    it.on(leased("gw", 0..1));
    it.on(news("gw", 0..8));
    let other = Event::Leased { from: id("gw2"), role: Role::Gateway, pieces: vec![3..4] };
    assert_eq!(it.on(other), ["leave gw", "watch gw2"]);
    assert_eq!(it.on(news("gw2", 0..8)), ["ask gw2 3"]);
}
