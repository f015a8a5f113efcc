//! What sources hold, and what becomes of those that fail.

use super::*;

#[test]
fn a_neighbour_is_watched_and_asked_for_what_it_offers() {
    let mut it = Script::new(4, two_slots());
    assert_eq!(it.on(neighbours(&["a", "me"])), ["watch a"]);
    assert_eq!(it.on(news("a", 2..3)), ["ask a 2"]);
    assert_eq!(it.on(held(2)), ["cancel a 2"]);
    assert_eq!(it.on(news("a", 0..2)).len(), 2);
}

#[test]
fn a_source_of_wrong_bytes_is_not_asked_again_by_lease_either() {
    let mut it = Script::new(8, two_slots());
    it.on(leased("elsewhere", 0..1));
    it.on(news("elsewhere", 0..1));
    assert_eq!(it.on(failed("elsewhere", 0, Fault::WrongBytes)), ["leave elsewhere"]);
    assert_eq!(it.on(leased("elsewhere", 1..2)), [""; 0]);
    assert_eq!(it.on(news("elsewhere", 0..8)), [""; 0]);
}

#[test]
fn a_gateway_of_wrong_bytes_is_not_asked_again_when_its_turn_comes_back() {
    let mut it = Script::new(8, two_slots());
    it.on(Event::Scheduler(false));
    assert_eq!(it.on(Event::Gateway(id("one"))), ["watch one"]);
    it.on(failed("one", 0, Fault::WrongBytes));
    assert_eq!(it.on(Event::Gateway(id("other"))), ["leave one", "watch other"]);
    assert_eq!(it.on(Event::Gateway(id("one"))), ["leave other"]);
}

#[test]
fn a_source_that_offers_what_nobody_vouched_for_is_heard_anew() {
    let mut it = Script::new(30, two_slots());
    it.on(neighbours(&["a"]));
    it.on(news("a", 0..1));
    assert_eq!(it.on(failed("a", 0, Fault::Unvouched)), [""; 0]);
    assert_eq!(it.until(400_000), ["watch a"]);
    assert_eq!(it.on(news("a", 0..1)), ["ask a 0"]);
}

#[test]
fn a_neighbour_that_is_well_is_watched_again_soon() {
    let mut it = Script::new(30, two_slots());
    it.on(neighbours(&["a"]));
    it.on(Event::Lost { from: id("a"), is_well: true });
    assert_eq!(it.until(400_000), ["watch a"]);
}

#[test]
fn a_damaged_piece_is_fetched_again() {
    let mut it = Script::new(2, two_slots());
    it.on(neighbours(&["a"]));
    it.on(news("a", 0..2));
    it.on(held(0));
    let mut left = Bitmap::new(2);
    assert_eq!(it.on(Event::Have(left.clone())), ["ask a 0"]);
    left.insert(0);
    it.on(held(0));
    assert!(it.on(held(1)).contains(&"finished".to_owned()));
}

#[test]
fn a_broken_neighbour_frees_its_pieces_and_rests() {
    let mut it = Script::new(2, two_slots());
    it.on(neighbours(&["a", "b"]));
    assert_eq!(it.on(news("a", 0..2)), ["ask a 0", "ask a 1"]);
    it.on(news("b", 0..2));
    assert_eq!(it.on(failed("a", 0, Fault::Broken)), ["ask b 0"]);
    assert_eq!(it.on(Event::Lost { from: id("a"), is_well: false }), ["ask b 1"]);
    assert_eq!(it.on(held(0)), ["cancel b 0"]);
    assert!(it.until(9 * SECOND).iter().all(|it| !it.contains("watch a")));
    assert!(it.until(11 * SECOND).contains(&"watch a".to_owned()));
}

#[test]
fn wrong_bytes_end_the_trust_in_a_neighbour() {
    let mut it = Script::new(3, two_slots());
    it.on(neighbours(&["a"]));
    it.on(news("a", 0..3));
    it.on(failed("a", 0, Fault::WrongBytes));
    it.on(failed("a", 1, Fault::WrongBytes));
    assert!(it.until(60 * SECOND).iter().all(|it| !it.starts_with("ask a")));
}

#[test]
fn poisoned_content_is_fetched_anew() {
    let mut it = Script::new(2, two_slots());
    it.on(neighbours(&["a"]));
    it.on(news("a", 0..2));
    it.on(held(0));
    assert!(it.on(Event::Have(Bitmap::new(2))).contains(&"ask a 0".to_owned()));
    it.on(held(0));
    assert!(it.on(held(1)).contains(&"finished".to_owned()));
    assert_eq!(it.on(held(1)), [""; 0], "finished once");
}

#[test]
fn a_node_that_holds_everything_is_finished_at_once() {
    let key = BlobKey { group: TrustGroup::new("g"), digest: Digest::from_sha256([1; 32]) };
    let fetch = Fetch::new(Tick(0), id("me"), key, Bitmap::full(3), Policy::default(), Rng::new(5));
    assert_eq!(Script { fetch, now: 0 }.on(Event::Deadline), ["finished"]);
}

#[test]
fn a_scheduler_that_has_just_come_does_not_take_neighbours_away() {
    let mut it = Script::new(8, two_slots());
    it.on(Event::Scheduler(true));
    it.on(neighbours(&["a"]));
    assert_eq!(it.on(neighbours(&["b"])), ["leave a", "watch b"], "the first one leads from the beginning");
    it.on(news("b", 0..1));
    it.on(Event::Scheduler(false));
    it.on(Event::Scheduler(true));
    assert_eq!(it.on(neighbours(&["c"])), ["watch c"]);
    assert_eq!(it.on(news("b", 1..2)), ["ask b 1"]);
    it.until(4 * SECOND);
    assert_eq!(it.on(neighbours(&["d"])), ["leave c", "watch d"], "what it named itself it may take back");
    it.until(5 * SECOND);
    assert_eq!(it.on(neighbours(&["d"])), ["leave b"]);
}

fn lost(from: &str) -> Event {
    Event::Lost { from: id(from), is_well: false }
}

#[test]
fn a_node_that_was_cut_off_itself_holds_that_against_nobody() {
    let mut it = Script::new(8, two_slots());
    it.on(Event::Gateway(id("gw")));
    it.on(neighbours(&["a", "b"]));
    it.on(news("a", 0..1));
    it.on(news("b", 0..1));
    it.on(lost("a"));
    assert_eq!(it.on(lost("b")), [""; 0]);
    assert_eq!(it.until(3 * SECOND), ["watch gw"]);
    assert_eq!(it.on(news("gw", 0..0)), ["watch a", "watch b"]);
    assert_eq!(it.on(news("a", 0..1)), ["ask a 0"]);
    it.on(lost("b"));
    assert!(!it.until(12 * SECOND).contains(&"watch b".to_owned()), "it alone has failed this time");
}

#[test]
fn one_that_fell_silent_while_this_node_was_cut_off_is_asked_again() {
    for (fault, again) in [(Fault::Silent, true), (Fault::Broken, false)] {
        let mut it = Script::new(8, two_slots());
        it.on(Event::Gateway(id("gw")));
        it.on(neighbours(&["a"]));
        it.on(news("a", 0..1));
        it.on(failed("a", 0, fault));
        it.until(4 * SECOND);
        assert_eq!(it.on(news("gw", 0..0)).contains(&"ask a 0".to_owned()), again, "{fault:?}");
    }
}

#[test]
fn a_scheduler_that_answers_again_is_a_sign_as_well() {
    let mut it = Script::new(8, two_slots());
    it.on(neighbours(&["a"]));
    it.on(news("a", 0..1));
    it.on(lost("a"));
    it.on(Event::Scheduler(false));
    assert_eq!(it.on(Event::Scheduler(true)), ["watch a"]);
}

#[test]
fn one_that_fails_while_others_answer_rests() {
    let mut it = Script::new(8, two_slots());
    it.on(neighbours(&["a", "b"]));
    it.on(news("a", 0..1));
    it.on(news("b", 0..1));
    it.on(lost("a"));
    assert_eq!(it.on(news("b", 1..2)), ["ask b 1"]);
}
