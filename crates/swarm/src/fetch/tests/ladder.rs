//! What is done where nothing comes.

use super::*;

#[test]
fn far_neighbours_are_asked_where_nothing_comes_from_the_near() {
    let far = || Event::Neighbours { near: ids(&["a"]), far: ids(&["b"]), algorithm: Algorithm::Default };
    let mut it = Script::new(8, two_slots());
    assert_eq!(it.on(far()), ["watch a"]);
    assert_eq!(it.on(Event::Scheduler(false)), ["watch b"], "nobody leases any more");
    assert_eq!(it.on(news("b", 2..3)), ["ask b 2"]);

    let mut it = Script::new(8, two_slots());
    it.on(Event::Gateway(id("gw")));
    it.on(far());
    it.on(news("a", 0..0));
    assert_eq!(it.until(4 * SECOND), ["watch b", "watch gw"]);
    assert_eq!(it.on(news("b", 2..3)), ["ask b 2"]);
}

#[test]
fn a_scheduler_that_answers_is_waited_for() {
    let mut it = Script::new(4, two_slots());
    it.on(Event::Gateway(id("gw")));
    it.on(leased("gw", 0..4));
    it.on(Event::Lost { from: id("gw"), is_well: false });
    for second in 1..20 {
        let words = it.until(second * SECOND);
        assert!(!words.contains(&"godirect".to_owned()), "{words:?}");
        it.on(neighbours(&[]));
    }
    assert_eq!(it.on(Event::MayGoDirect), ["godirect"]);
}

#[test]
fn busy_means_ask_the_others_and_is_no_step_down() {
    let mut it = Script::new(1, two_slots());
    it.on(neighbours(&["a", "b"]));
    it.on(news("a", 0..1));
    // The end game doubles the ask.
    assert_eq!(it.on(news("b", 0..1)), ["ask b 0"]);
    assert_eq!(it.on(failed("a", 0, Fault::Busy)), [""; 0]);
    assert_eq!(it.on(failed("b", 0, Fault::Busy)), [""; 0]);
    assert_eq!(it.until(SECOND / 10), ["ask a 0", "ask b 0"]);
    assert_eq!(it.fetch.rung(), Rung::Swarm);
}

#[test]
fn without_a_scheduler_a_node_imports_in_its_turn() {
    let mut it = Script::new(40, two_slots());
    it.on(Event::Gateway(id("gw")));
    it.on(neighbours(&["a", "b", "c"]));
    assert_eq!(it.on(Event::Scheduler(false)), ["watch gw"]);
    let first = it.on(news("gw", 0..40));
    assert!(!first.is_empty() && first.iter().all(|it| it.starts_with("ask gw")), "first by rank: {first:?}");
    let asked = |it: &Script| it.fetch.asked.len();
    assert_eq!(asked(&it), 2);
    let mut others = Script::new(1, two_slots());
    others.on(Event::Gateway(id("gw")));
    others.on(neighbours(&["a", "b", "c"]));
    others.on(Event::Scheduler(false));
    let rank = crate::rendezvous::rank(&others.fetch.key, 0, &id("me"), ids(&["a", "b", "c"]).iter());
    let at_once = others.on(news("gw", 0..1));
    assert_eq!(at_once.is_empty(), rank > 0);
    let mut all = at_once;
    all.extend(others.until(u64::from(rank) * 200_000 + 1));
    assert_eq!(all, ["ask gw 0"]);
}

#[test]
fn with_a_silent_swarm_the_gateway_is_asked_without_a_lease() {
    let mut it = Script::new(1, two_slots());
    it.on(Event::Gateway(id("gw")));
    it.on(neighbours(&["a"]));
    it.on(Event::News { from: id("a"), dropped: false, lost: vec![], gained: vec![], alive: false });
    assert_eq!(it.until(3 * SECOND), ["watch gw"]);
    assert_eq!(it.fetch.rung(), Rung::Gateway);
    it.on(news("gw", 0..1));
    let words = it.until(4 * SECOND);
    assert!(words.is_empty() || words == ["ask gw 0"], "{words:?}");
    assert_eq!(it.fetch.asked.len(), 1);
}

#[test]
fn a_seed_at_work_is_progress_however_slow() {
    let mut it = Script::new(4, two_slots());
    it.on(Event::Gateway(id("gw")));
    it.on(leased("gw", 0..4));
    for second in 1..60 {
        it.until(second * SECOND);
        it.on(Event::News { from: id("gw"), dropped: false, lost: vec![], gained: vec![], alive: true });
        assert_eq!(it.fetch.rung(), Rung::Swarm);
    }
}

#[test]
fn a_stranded_node_asks_for_leave_and_goes_direct_with_it() {
    let mut it = Script::new(4, two_slots());
    it.on(Event::Gateway(id("gw")));
    it.on(leased("gw", 0..4));
    it.on(Event::Lost { from: id("gw"), is_well: false });
    let words = it.until(SECOND - 1);
    assert_eq!(words, ["strand"]);
    assert_eq!(it.fetch.rung(), Rung::Stranded);
    assert_eq!(it.on(Event::MayGoDirect), ["godirect"]);
    assert_eq!(it.on(Event::MayGoDirect), [""; 0], "once is enough");
}

#[test]
fn a_gateway_that_falls_silent_is_waited_for_once() {
    let mut it = Script::new(4, two_slots());
    it.on(Event::Gateway(id("gw")));
    it.on(leased("gw", 0..4));
    it.until(SECOND);
    assert_eq!(it.on(news("gw", 0..4)), ["ask gw 0", "ask gw 1"]);
    // It moved last before it was asked, so that its time is up a little later than the swarm's.
    it.until(2 * SECOND);
    it.on(held_by("gw", 0));
    assert_eq!(it.fetch.rung(), Rung::Swarm);
    let words = it.until(5 * SECOND + SECOND / 2);
    assert_eq!(words.last().map(String::as_str), Some("strand"), "{words:?}");
    assert!(
        it.until(7 * SECOND).contains(&"godirect".to_owned()),
        "nor is the scheduler waited for any longer"
    );
}

#[test]
fn a_scheduler_that_does_not_answer_does_not_hold_a_pull_up() {
    let mut it = Script::new(4, two_slots());
    it.on(Event::Gateway(id("gw")));
    it.on(leased("gw", 0..4));
    it.on(Event::Lost { from: id("gw"), is_well: false });
    let words = it.until(5 * SECOND);
    assert_eq!(words.iter().filter(|it| *it == "godirect").count(), 1, "{words:?}");
}

#[test]
fn without_a_scheduler_a_stranded_node_waits_a_random_moment_only() {
    let mut it = Script::new(4, two_slots());
    it.on(Event::Scheduler(false));
    let words = it.until(2 * SECOND);
    assert_eq!(words, ["godirect"]);
}

#[test]
fn a_sign_of_life_takes_a_stranded_node_back() {
    let mut it = Script::new(4, two_slots());
    it.on(neighbours(&["a"]));
    it.until(700_000);
    assert_eq!(it.fetch.rung(), Rung::Stranded);
    assert_eq!(it.on(news("a", 0..1)), ["ask a 0"]);
    assert_eq!(it.fetch.rung(), Rung::Swarm);
}

#[test]
fn when_the_registry_fails_too_the_stream_is_given_up() {
    let mut it = Script::new(4, two_slots());
    it.on(Event::Scheduler(false));
    it.until(2 * SECOND);
    assert_eq!(it.on(Event::DirectFailed), [""; 0]);
    assert_eq!(it.until(4 * SECOND), ["giveup"]);
    assert_eq!(it.fetch.next_deadline(Tick(it.now)), None);
}

#[test]
fn bytes_that_nobody_vouches_for_keep_no_fetch_from_the_next_rung() {
    let mut it = Script::new(1, two_slots());
    it.on(Event::Gateway(id("gw")));
    let mut words = it.on(neighbours(&["a"]));
    let mut now = 0;
    while it.fetch.rung() == Rung::Swarm {
        if words.contains(&"watch a".to_owned()) && it.on(news("a", 0..1)) == ["ask a 0"] {
            it.on(Event::Moved { from: Some(id("a")) });
            it.on(failed("a", 0, Fault::Unvouched));
        }
        now += SECOND / 10;
        assert!(now < 10 * SECOND, "still where it began");
        words = it.until(now);
    }
    assert_eq!(it.fetch.rung(), Rung::Gateway);
}

#[test]
fn a_node_that_nobody_answers_gives_the_gateway_a_moment() {
    let cut_off = || {
        let mut it = Script::new(8, two_slots());
        it.on(Event::Gateway(id("gw")));
        it.on(neighbours(&["a"]));
        it.on(news("a", 0..1));
        it.on(Event::Lost { from: id("a"), is_well: false });
        assert_eq!(it.until(3 * SECOND), ["watch gw"]);
        it
    };
    assert_eq!(cut_off().until(4 * SECOND), ["strand"]);

    let mut it = cut_off();
    it.on(news("gw", 0..0));
    it.on(Event::Lost { from: id("a"), is_well: false });
    assert_eq!(it.until(5 * SECOND), [""; 0], "it is there, and may have something soon");
    assert_eq!(it.until(6 * SECOND), ["strand"]);
}

#[test]
fn what_comes_back_for_a_moment_is_not_waited_for_as_long_again() {
    // How long after the last news the node is stranded.
    let stranded_after = |pause: u64| {
        let mut it = Script::new(4, two_slots());
        it.on(Event::Gateway(id("gw")));
        it.on(neighbours(&["a"]));
        it.on(news("a", 0..0));
        it.until(3 * SECOND);
        assert_eq!(it.fetch.rung(), Rung::Gateway);
        it.until((3 + pause) * SECOND);
        it.on(news("a", 0..1));
        it.on(held_by("a", 0));
        assert_eq!(it.fetch.rung(), Rung::Swarm);
        let back = it.now;
        while it.fetch.rung() == Rung::Swarm {
            it.until(it.now + SECOND / 10);
        }
        it.now - back
    };
    assert_eq!(stranded_after(1), 3 * SECOND / 2);
}
