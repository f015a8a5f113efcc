//! Which piece is asked of whom, and how many at a time.

use super::*;

#[test]
fn the_rarest_piece_goes_first() {
    let mut it = Script::new(3, Policy { slots: 1, ..Policy::default() });
    it.on(neighbours(&["a", "b"]));
    it.on(news("a", 0..3));
    it.on(held(0));
    it.on(held(1));
    let mut it = Script::new(3, Policy { slots: 1, ..Policy::default() });
    it.on(neighbours(&["a", "b"]));
    // The slot is taken by the first offer; what follows is chosen by rarity.
    let first = it.on(news("b", 0..1));
    assert_eq!(first, ["ask b 0"]);
    it.on(news("b", 1..2));
    it.on(news("a", 1..3));
    assert_eq!(it.on(held(0)), ["ask a 2", "cancel b 0"], "piece 1 has two copies, piece 2 one");
}

#[test]
fn slots_are_divided_among_the_fetches_of_a_node() {
    for (slots, n_fetches, each) in [(8, 0, 8), (8, 1, 8), (8, 2, 4), (8, 3, 3), (8, 100, 2), (1, 5, 1)] {
        assert_eq!(slots_each(slots, n_fetches), each, "{slots} slots, {n_fetches} fetches");
    }
    let mut it = Script::new(100, Policy::default());
    it.on(neighbours(&["a", "b"]));
    it.on(Event::Slots(1));
    assert_eq!(it.on(news("a", 0..50)).len(), 1);
    assert_eq!(it.on(Event::Slots(3)).len(), 2);
    it.on(Event::Slots(1));
    assert_eq!(it.on(held(99)), [""; 0], "what is asked already goes on");
}

#[test]
fn who_has_little_under_way_asks_urgently() {
    let mut it = Script::new(100, Policy { slots: 4, slots_per_source: 2, ..Policy::default() });
    it.on(neighbours(&["a"]));
    it.on(leased("gw", 50..51));
    let mut out = Vec::new();
    it.fetch.on_event(Tick(0), news("a", 0..50), &mut out);
    it.fetch.on_event(Tick(0), Event::Slots(5), &mut out);
    it.fetch.on_event(Tick(0), news("gw", 50..51), &mut out);
    let urgent = out.iter().filter_map(|it| match it {
        Action::Ask { is_urgent, .. } => Some(*is_urgent),
        _ => None,
    });
    let urgent: Vec<_> = urgent.collect();
    assert_eq!(urgent, [true, true, false, false, true], "the last is leased");
}

#[test]
fn each_of_few_neighbours_is_asked_for_more() {
    let asked_of_one = |neighbours: &[&str]| {
        let mut it = Script::new(100, Policy::default());
        it.on(self::neighbours(neighbours));
        neighbours.iter().for_each(|of| {
            it.on(news(of, 0..0));
        });
        it.on(news("a", 0..100)).len()
    };
    assert_eq!(asked_of_one(&["a", "b", "c", "d", "e", "f", "g"]), 4);
    assert_eq!(asked_of_one(&["a", "b", "c", "d", "e", "f", "g", "h"]), 2);
}

#[test]
fn a_reader_gets_its_next_piece_with_half_of_the_slots() {
    let mut it = Script::new(100, Policy { slots: 4, ..Policy::default() });
    it.on(neighbours(&["a"]));
    it.on(Event::Demand(vec![40]));
    let asked = it.on(news("a", 0..100));
    assert_eq!(asked.len(), 4);
    assert!(asked.contains(&"ask a 40".to_owned()) && asked.contains(&"ask a 41".to_owned()), "{asked:?}");
}

#[test]
fn where_nothing_can_be_stored_only_what_readers_need_is_asked_for() {
    let mut it = Script::new(100, Policy { slots: 4, ..Policy::default() });
    it.on(neighbours(&["a"]));
    it.on(Event::Gateway(id("gw")));
    it.on(leased("gw", 50..60));
    it.on(leased("elsewhere", 60..61));
    assert_eq!(it.on(Event::Stored(false)), ["leave elsewhere"]);
    assert_eq!(it.on(leased("gw", 70..71)), [""; 0], "it brings nothing in");
    it.on(news("a", 0..11));
    assert_eq!(it.on(news("gw", 0..100)), [""; 0], "nobody reads");
    assert_eq!(it.on(Event::Demand(vec![10, 11])), ["ask a 10", "ask gw 11"]);
    it.on(held(10));
    it.on(held(11));
    assert_eq!(it.until(20 * SECOND), [""; 0], "it is the reader's turn");

    it.on(Event::Demand(vec![11, 12]));
    it.on(Event::Have(Bitmap::new(100)));
    assert_eq!(it.on(Event::Demand(vec![12])), [""; 0], "what was read is not fetched again");
    let asked = it.on(Event::Stored(true));
    assert!(!asked.is_empty(), "everything is, once it can be stored");
}

#[test]
fn where_nothing_can_be_stored_and_nothing_comes_the_ladder_is_taken_without_leave() {
    let mut it = Script::new(100, two_slots());
    it.on(Event::Gateway(id("gw")));
    it.on(Event::Stored(false));
    it.on(Event::Demand(vec![0]));
    let words = it.until(7 * SECOND);
    assert!(words.contains(&"godirect".into()) && !words.contains(&"strand".into()), "{words:?}");
}

#[test]
fn a_late_answer_is_asked_of_another_and_the_loser_is_cancelled() {
    let mut it =
        Script::new(30, Policy { slots: 2, hedge_after: Duration::from_secs(1), ..Policy::default() });
    it.on(neighbours(&["a", "b"]));
    it.on(news("a", 0..1));
    assert_eq!(it.on(news("b", 0..1)), [""; 0], "not yet late, far from the end");
    assert_eq!(it.until(SECOND), ["ask b 0"]);
    assert_eq!(it.on(held(0)), ["cancel a 0", "cancel b 0"]);
}

#[test]
fn a_late_answer_that_no_reader_needs_and_nothing_stores_is_asked_of_nobody_else() {
    let mut it =
        Script::new(30, Policy { slots: 2, hedge_after: Duration::from_secs(1), ..Policy::default() });
    it.on(neighbours(&["a", "b"]));
    assert_eq!(it.on(news("a", 0..1)), ["ask a 0"]);
    it.on(Event::Stored(false));
    it.on(news("b", 0..1));
    assert_eq!(it.until(2 * SECOND), [""; 0]);
    assert_eq!(it.on(Event::Demand(vec![0])), ["ask b 0"]);
}

/// Two sources hold everything and need so many milliseconds for each piece. Returns the script once `n_pieces` have
/// come, and how many of them came from either.
fn served_by_two(algorithm: Algorithm, millis: [u64; 2], n_pieces: usize) -> (Script, [usize; 2]) {
    let mut it = Script::new(200, two_slots());
    it.on(neighbours_by(algorithm, &["a", "b"]));
    let mut words = it.on(news("a", 0..200));
    words.extend(it.on(news("b", 0..200)));
    let (mut due, mut shares) = (std::collections::BTreeSet::new(), [0; 2]);
    for _ in 0..n_pieces {
        for ask in words.drain(..).filter_map(|it| Some(it.strip_prefix("ask ")?.to_owned())) {
            let (from, piece) = ask.split_once(' ').unwrap();
            let source = usize::from(from == "b");
            due.insert((it.now + millis[source] * 1000, source, piece.parse::<u32>().unwrap()));
        }
        let (at, source, piece) = due.pop_first().unwrap();
        it.now = at;
        shares[source] += 1;
        words = it.on(held(piece));
    }
    (it, shares)
}

#[test]
fn a_slow_source_is_asked_less_often() {
    for algorithm in Algorithm::ALL {
        let (_, [fast, slow]) = served_by_two(algorithm, [10, 100], 100);
        assert!(slow * 4 < fast, "{algorithm}: {fast} and {slow}");
    }
}

#[test]
fn an_ask_that_is_later_than_predicted_holds_no_slot() {
    for (algorithm, frees) in [(Algorithm::Default, false), (Algorithm::Ml, true)] {
        let (mut it, _) = served_by_two(algorithm, [50, 50], 60);
        let until = it.now + SECOND;
        let asks = it.until(until).iter().filter(|it| it.starts_with("ask")).count();
        assert_eq!(asks > 0, frees, "{algorithm}");
        let in_flight = it.fetch.asked.values().flatten().count();
        assert!(in_flight <= 4, "{algorithm}: {in_flight} where there are two slots");
    }
}

/// A blob of which a neighbour alone has the last piece, and has been asked for it; all others are here.
fn last_piece_at_a_neighbour() -> Script {
    let mut it = Script::new(4, two_slots());
    it.on(Event::Gateway(id("gw")));
    it.on(neighbours(&["a", "b"]));
    it.on(news("a", 0..3));
    for piece in 0..3 {
        it.until(it.now + SECOND / 10);
        it.on(held_by("a", piece));
    }
    assert_eq!(it.on(news("b", 3..4)), ["ask b 3"]);
    it
}

#[test]
fn what_a_silent_neighbour_alone_has_is_asked_of_the_gateway() {
    let mut it = last_piece_at_a_neighbour();
    let asked = it.now;
    assert_eq!(it.until(asked + 2 * SECOND), ["watch gw"]);
    it.on(news("gw", 0..4));
    it.until(asked + 3 * SECOND);
    assert!(it.fetch.asked[&3].iter().any(|it| it.from == id("gw")), "by its rank");
    assert_eq!(it.fetch.rung(), Rung::Swarm);
}

#[test]
fn what_a_neighbour_brings_much_more_slowly_than_others_is_asked_of_the_gateway() {
    let mut it = last_piece_at_a_neighbour();
    let asked = it.now;
    let mut words = Vec::new();
    while it.now < asked + 2 * SECOND {
        words.extend(it.until(it.now + SECOND / 10));
        it.on(Event::Moved { from: Some(id("b")) });
    }
    assert_eq!(words, ["watch gw"]);
}

#[test]
fn where_all_are_slow_nothing_is_asked_twice_for_that() {
    let mut it = Script::new(40, two_slots());
    it.on(Event::Gateway(id("gw")));
    it.on(neighbours(&["a", "b"]));
    it.on(news("a", 0..40));
    it.on(news("b", 0..40));
    let mut words = Vec::new();
    while it.now < 9 * SECOND {
        words.extend(it.until(it.now + SECOND / 10));
        for node in ["a", "b"] {
            it.on(Event::Moved { from: Some(id(node)) });
        }
    }
    assert_eq!(words, [""; 0]);
}

#[test]
fn an_ask_that_waits_at_this_node_is_not_held_against_its_source() {
    let silent_for = |is_queued: bool| {
        let mut it = Script::new(2, two_slots());
        it.on(Event::Gateway(id("gw")));
        it.on(neighbours(&["a", "b"]));
        it.on(news("a", 0..2));
        it.on(news("b", 0..0));
        let mut words = Vec::new();
        for half in 1..=10 {
            words.extend(it.until(half * SECOND / 2));
            if is_queued {
                (0..2).for_each(|piece| words.extend(it.on(Event::Queued { from: id("a"), piece })));
            }
        }
        (words, it.fetch.rung())
    };
    assert_eq!(silent_for(true), (Vec::new(), Rung::Swarm));
    assert_ne!(silent_for(false).0, [""; 0], "others are asked");
}
