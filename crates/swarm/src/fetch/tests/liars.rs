//! Neighbours that say they hold everything, and bring nothing.

use super::*;

/// A blob of four pieces that a neighbour offers, and by now the gateway as well, which nobody leases from.
fn offered_by_a_liar() -> Script {
    let mut it = Script::new(4, Policy { slots: 4, ..Policy::default() });
    it.on(Event::Gateway(id("gw")));
    it.on(neighbours(&["liar"]));
    it.on(news("liar", 0..4));
    it
}

fn busy(from: &str) -> Vec<Event> {
    (0..4).map(|piece| failed(from, piece, Fault::Busy)).collect()
}

fn offers_anew(from: &str) -> Vec<Event> {
    let anew = Event::News { from: id(from), dropped: true, lost: vec![], gained: vec![0..4], alive: false };
    (0..4).map(|piece| failed(from, piece, Fault::NotHeld)).chain([anew]).collect()
}

/// Has something happen every tenth of a second, for so many seconds or until the fetch leaves its rung.
fn again_and_again(it: &mut Script, seconds: u64, happens: impl Fn() -> Vec<Event>) {
    let (until, rung) = (it.now + seconds * SECOND, it.fetch.rung());
    while it.now < until && it.fetch.rung() == rung {
        it.until(it.now + SECOND / 10);
        happens().into_iter().for_each(|event| drop(it.on(event)));
    }
}

#[test]
fn what_a_failed_neighbour_offers_keeps_nobody_from_the_gateway() {
    for fault in [Fault::WrongBytes, Fault::Broken, Fault::NotHeld] {
        let mut it = offered_by_a_liar();
        (0..4).for_each(|piece| drop(it.on(failed("liar", piece, fault))));
        assert_eq!(it.until(3 * SECOND), ["watch gw"], "{fault:?}");
        it.on(news("gw", 0..4));
        it.until(4 * SECOND);
        assert!(it.fetch.asked.values().flatten().all(|ask| ask.from == id("gw")), "{fault:?}");
        assert_eq!(it.fetch.asked.len(), 4, "{fault:?}");
    }
}

#[test]
fn what_a_neighbour_says_that_brings_nothing_holds_nothing_up() {
    type Says = fn() -> Vec<Event>;
    let lies: [(&str, Says); 3] = [
        ("busy", || busy("liar")),
        ("bytes, and never a piece", || vec![Event::Moved { from: Some(id("liar")) }]),
        ("everything anew", || offers_anew("liar")),
    ];
    for (lie, says) in lies {
        let mut it = offered_by_a_liar();
        again_and_again(&mut it, 14, says);
        assert_eq!(it.fetch.rung(), Rung::Gateway, "{lie}");
        it.on(news("gw", 0..4));
        again_and_again(&mut it, 1, says);
        let asked_of_gateway = it.fetch.asked.values().flatten().filter(|it| it.from == id("gw"));
        assert_eq!(asked_of_gateway.count(), 4, "{lie}");
    }
}

#[test]
fn nobody_but_the_gateway_is_a_seed() {
    let mut it = offered_by_a_liar();
    let at_work =
        || vec![Event::News { from: id("liar"), dropped: false, lost: vec![], gained: vec![], alive: true }];
    again_and_again(&mut it, 4, at_work);
    assert_eq!(it.fetch.rung(), Rung::Gateway);
}

#[test]
fn a_neighbour_that_brings_pieces_is_believed_however_busy() {
    let mut it = Script::new(100, two_slots());
    it.on(Event::Gateway(id("gw")));
    it.on(neighbours(&["a"]));
    it.on(news("a", 0..100));
    for _ in 0..8 {
        it.until(it.now + SECOND / 10);
        let piece = *it.fetch.asked.keys().next().expect("asked again by now");
        it.on(held_by("a", piece));
        again_and_again(&mut it, 9, || (0..100).map(|piece| failed("a", piece, Fault::Busy)).collect());
        assert_eq!(it.fetch.rung(), Rung::Swarm);
    }
}

#[test]
fn slow_pieces_make_for_patience() {
    let mut it = Script::new(100, two_slots());
    it.on(Event::Gateway(id("gw")));
    it.on(neighbours(&["a"]));
    it.on(news("a", 0..100));
    let moves = || vec![Event::Moved { from: Some(id("a")) }];
    again_and_again(&mut it, 9, moves);
    let piece = *it.fetch.asked.keys().next().expect("asked");
    it.on(held_by("a", piece));
    again_and_again(&mut it, 30, moves);
    assert_eq!(it.fetch.rung(), Rung::Swarm);
}

#[test]
fn whose_offers_come_to_nothing_again_and_again_rests() {
    let mut it = Script::new(40, two_slots());
    it.on(neighbours(&["liar"]));
    it.on(news("liar", 0..40));
    for _ in 0..12 {
        let piece = *it.fetch.asked.keys().next().expect("asked again at once");
        it.on(failed("liar", piece, Fault::NotHeld));
    }
    let rests = it.now;
    assert!(it.until(rests + 9 * SECOND).iter().all(|it| !it.starts_with("ask")));
}

#[test]
fn where_the_gateway_helped_nothing_is_waited_for_that_long_again() {
    let mut it = offered_by_a_liar();
    (0..4).for_each(|piece| drop(it.on(failed("liar", piece, Fault::WrongBytes))));
    it.until(3 * SECOND);
    it.on(news("gw", 0..1));
    it.until(4 * SECOND);
    it.on(held_by("gw", 0));
    it.on(neighbours(&["liar", "a"]));
    it.on(news("a", 1..2));
    assert_eq!(it.fetch.rung(), Rung::Swarm, "a neighbour has something");
    it.on(held_by("a", 1));
    it.until(it.now + SECOND);
    assert_eq!(it.fetch.rung(), Rung::Gateway);

    it.on(news("a", 2..3));
    it.on(leased("gw", 3..4));
    it.until(it.now + 2 * SECOND);
    assert_eq!(it.fetch.rung(), Rung::Swarm, "the scheduler leads again");
}
