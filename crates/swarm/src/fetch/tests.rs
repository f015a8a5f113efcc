//! One rule each, told as a script of what happens and what the machine then does.

// A lease or an offer of one run of pieces is what the scripts are about.
#![allow(clippy::single_range_in_vec_init)]

use super::*;
use crate::Algorithm;
use shoal_model::{Digest, TrustGroup};

const SECOND: u64 = 1_000_000;

struct Script {
    fetch: Fetch,
    now: u64,
}

fn id(name: &str) -> NodeId {
    NodeId::new(name)
}

fn ids(names: &[&str]) -> Vec<NodeId> {
    names.iter().map(|it| id(it)).collect()
}

fn news(from: &str, gained: Range<u32>) -> Event {
    Event::News { from: id(from), dropped: false, gained: vec![gained], alive: false }
}

fn neighbours(near: &[&str]) -> Event {
    neighbours_by(Algorithm::Default, near)
}

fn neighbours_by(algorithm: Algorithm, near: &[&str]) -> Event {
    Event::Neighbours { near: ids(near), far: Vec::new(), algorithm }
}

/// A lease from a gateway, which is called so, or from a node.
fn leased(from: &str, pieces: Range<u32>) -> Event {
    let role = if from == "gw" { Role::Gateway } else { Role::Sidecar };
    Event::Leased { from: id(from), role, pieces: vec![pieces] }
}

fn failed(from: &str, piece: u32, fault: Fault) -> Event {
    Event::Failed { from: id(from), piece, fault }
}

impl Script {
    /// A blob of `n_pieces`, one slot more than asked of a source, no scheduler trouble.
    fn new(n_pieces: u32, policy: Policy) -> Self {
        let key = BlobKey { group: TrustGroup::new("g"), digest: Digest::from_sha256([1; 32]) };
        let fetch = Fetch::new(Tick(0), id("me"), key, Bitmap::new(n_pieces), policy, Rng::new(5));
        Self { fetch, now: 0 }
    }

    /// What the machine does on an event, in words.
    fn on(&mut self, event: Event) -> Vec<String> {
        let mut out = Vec::new();
        self.fetch.on_event(Tick(self.now), event, &mut out);
        let mut words: Vec<_> = out
            .into_iter()
            .map(|it| match it {
                Action::Watch(node) => format!("watch {node}"),
                Action::Leave(node) => format!("leave {node}"),
                Action::Ask { from, piece, .. } => format!("ask {from} {piece}"),
                Action::Cancel { from, piece } => format!("cancel {from} {piece}"),
                other => format!("{other:?}").to_lowercase(),
            })
            .collect();
        words.sort();
        words
    }

    /// Lets time pass up to `micros`, waking the machine when it wants, and collects what it does.
    fn until(&mut self, micros: u64) -> Vec<String> {
        let mut words = Vec::new();
        while let Some(at) = self.fetch.next_deadline(Tick(self.now)).filter(|it| it.0 <= micros) {
            assert!(at.0 > self.now, "a deadline that is not ahead");
            self.now = at.0;
            words.extend(self.on(Event::Deadline));
        }
        self.now = micros;
        words
    }
}

fn two_slots() -> Policy {
    Policy { slots: 2, ..Policy::default() }
}

#[test]
fn a_neighbour_is_watched_and_asked_for_what_it_offers() {
    let mut it = Script::new(4, two_slots());
    assert_eq!(it.on(neighbours(&["a", "me"])), ["watch a"]);
    assert_eq!(it.on(news("a", 2..3)), ["ask a 2"]);
    assert_eq!(it.on(Event::Held(2)), ["cancel a 2"]);
    assert_eq!(it.on(news("a", 0..2)).len(), 2);
}

#[test]
fn the_rarest_piece_goes_first() {
    let mut it = Script::new(3, Policy { slots: 1, ..Policy::default() });
    it.on(neighbours(&["a", "b"]));
    it.on(news("a", 0..3));
    it.on(Event::Held(0));
    it.on(Event::Held(1));
    let mut it = Script::new(3, Policy { slots: 1, ..Policy::default() });
    it.on(neighbours(&["a", "b"]));
    // The slot is taken by the first offer; what follows is chosen by rarity.
    let first = it.on(news("b", 0..1));
    assert_eq!(first, ["ask b 0"]);
    it.on(news("b", 1..2));
    it.on(news("a", 1..3));
    assert_eq!(it.on(Event::Held(0)), ["ask a 2", "cancel b 0"], "piece 1 has two copies, piece 2 one");
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
    assert_eq!(it.on(Event::Held(99)), [""; 0], "what is asked already goes on");
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
    assert_eq!(it.on(Event::Held(2)), ["cancel elsewhere 2"], "nothing else is asked there");
    assert_eq!(it.on(Event::Held(3)), ["cancel elsewhere 3", "leave elsewhere"]);
    assert_eq!(it.on(leased("elsewhere", 4..5)), ["watch elsewhere"], "what it held is forgotten");
}

#[test]
fn a_lease_of_a_neighbour_leaves_it_one() {
    let mut it = Script::new(8, two_slots());
    it.on(neighbours(&["a"]));
    assert_eq!(it.on(leased("a", 2..3)), [""; 0]);
    assert_eq!(it.on(news("a", 2..3)), ["ask a 2"]);
    assert_eq!(it.on(Event::Held(2)), ["cancel a 2"]);
    // The scheduler named others; the last lease holds on to it.
    it.on(leased("a", 3..4));
    assert_eq!(it.on(neighbours(&["b"])), ["watch b"]);
    assert_eq!(it.on(news("a", 3..5)), ["ask a 3"]);
    assert_eq!(it.on(Event::Held(3)), ["cancel a 3", "leave a"]);
}

#[test]
fn a_lease_that_is_given_again_does_not_leave_its_source() {
    let mut it = Script::new(8, two_slots());
    it.on(leased("elsewhere", 2..3));
    assert_eq!(it.on(leased("elsewhere", 2..3)), [""; 0]);
    assert_eq!(it.on(news("elsewhere", 2..3)), ["ask elsewhere 2"]);
    assert_eq!(it.on(Event::Held(2)), ["cancel elsewhere 2", "leave elsewhere"]);
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
fn a_gateway_that_answered_an_open_does_not_end_the_leases_of_another() {
    let mut it = Script::new(8, two_slots());
    it.on(leased("gw", 0..1));
    it.on(news("gw", 0..8));
    assert_eq!(it.on(Event::Gateway(id("gw2"))), [""; 0]);
    assert_eq!(it.fetch.n_leased(), 1);
    it.on(Event::Held(0));
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
fn another_gateway_takes_the_place_of_the_one_before() {
    let mut it = Script::new(8, two_slots());
    it.on(leased("gw", 0..1));
    it.on(news("gw", 0..8));
    let other = Event::Leased { from: id("gw2"), role: Role::Gateway, pieces: vec![3..4] };
    assert_eq!(it.on(other), ["leave gw", "watch gw2"]);
    assert_eq!(it.on(news("gw2", 0..8)), ["ask gw2 3"]);
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
    it.on(Event::Held(0));
    let mut left = Bitmap::new(2);
    assert_eq!(it.on(Event::Have(left.clone())), ["ask a 0"]);
    left.insert(0);
    it.on(Event::Held(0));
    assert!(it.on(Event::Held(1)).contains(&"finished".to_owned()));
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
fn a_broken_neighbour_frees_its_pieces_and_rests() {
    let mut it = Script::new(2, two_slots());
    it.on(neighbours(&["a", "b"]));
    assert_eq!(it.on(news("a", 0..2)), ["ask a 0", "ask a 1"]);
    it.on(news("b", 0..2));
    assert_eq!(it.on(failed("a", 0, Fault::Broken)), ["ask b 0"]);
    assert_eq!(it.on(Event::Lost { from: id("a"), is_well: false }), ["ask b 1"]);
    assert_eq!(it.on(Event::Held(0)), ["cancel b 0"]);
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
fn a_late_answer_is_asked_of_another_and_the_loser_is_cancelled() {
    let mut it =
        Script::new(30, Policy { slots: 2, hedge_after: Duration::from_secs(1), ..Policy::default() });
    it.on(neighbours(&["a", "b"]));
    it.on(news("a", 0..1));
    assert_eq!(it.on(news("b", 0..1)), [""; 0], "not yet late, far from the end");
    assert_eq!(it.until(SECOND), ["ask b 0"]);
    assert_eq!(it.on(Event::Held(0)), ["cancel a 0", "cancel b 0"]);
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
    it.on(Event::News { from: id("a"), dropped: false, gained: vec![], alive: false });
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
        it.on(Event::News { from: id("gw"), dropped: false, gained: vec![], alive: true });
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
fn poisoned_content_is_fetched_anew() {
    let mut it = Script::new(2, two_slots());
    it.on(neighbours(&["a"]));
    it.on(news("a", 0..2));
    it.on(Event::Held(0));
    assert!(it.on(Event::Have(Bitmap::new(2))).contains(&"ask a 0".to_owned()));
    it.on(Event::Held(0));
    assert!(it.on(Event::Held(1)).contains(&"finished".to_owned()));
    assert_eq!(it.on(Event::Held(1)), [""; 0], "finished once");
}

#[test]
fn a_node_that_holds_everything_is_finished_at_once() {
    let key = BlobKey { group: TrustGroup::new("g"), digest: Digest::from_sha256([1; 32]) };
    let fetch = Fetch::new(Tick(0), id("me"), key, Bitmap::full(3), Policy::default(), Rng::new(5));
    assert_eq!(Script { fetch, now: 0 }.on(Event::Deadline), ["finished"]);
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
        words = it.on(Event::Held(piece));
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
