//! Scripts of what happens to one node's routing, and what holds after any history.

mod world;

use std::collections::BTreeSet;

use proptest::prelude::*;
use shoal_model::Node;
use shoal_proto::{Hello, SeedOrder};
use shoal_swarm::Algorithm;

use super::*;
use crate::testing::{self, key, wish};
use world::*;

#[test]
fn each_scheduler_hears_of_its_own_blobs_alone() {
    let mut it = World::with(&[0, 1]);
    (0..2).for_each(|which| drop(it.told(which)));
    let blobs = (0..BLOBS).map(|it| progress(&key(it), false, &[0].into()));
    it.say(NodeMessage::Progress(blobs.collect()));
    (0..BLOBS).for_each(|blob| it.want(blob));
    for which in 0..2 {
        let (owned, told) = (it.owned_by(which), it.told(which));
        assert!((5..20).contains(&owned.len()), "{owned:?}");
        assert_eq!(told.len(), 1 + owned.len(), "the report in one piece");
        assert_eq!(words(told), [each("holds", &owned), each("wants", &owned)].concat());
    }
}

#[test]
fn a_stream_begins_with_what_the_scheduler_owns() {
    let mut it = World::with(&[0, 1]);
    (0..BLOBS).for_each(|blob| it.gain(blob, 0));
    (0..2).for_each(|which| drop(it.told(which)));
    for which in 0..2 {
        let owned = it.owned_by(which);
        it.lose(which);
        it.join(which);
        assert_eq!(words(it.told(which)), each("holds", &owned));
        assert!(it.told(1 - which).is_empty(), "a stream that only broke moves nothing");
    }
}

#[test]
fn what_a_lost_scheduler_owned_is_told_to_the_others_and_taken_back_when_it_returns() {
    let mut it = World::with(&[0, 1]);
    (0..BLOBS).for_each(|blob| it.gain(blob, 0));
    (0..BLOBS).for_each(|blob| it.want(blob));
    let moves = it.owned_by(0);
    (0..2).for_each(|which| drop(it.told(which)));
    it.lose(0);
    assert!(it.told(1).is_empty());
    it.fail(0);
    assert_eq!(words(it.told(1)), [each("holds", &moves), each("moved", &moves)].concat());
    it.fail(0);
    assert!(it.told(1).is_empty(), "told once");

    it.join(0);
    assert_eq!(words(it.told(0)), [each("holds", &moves), each("moved", &moves)].concat());
    assert_eq!(words(it.told(1)), each("unwants", &moves));
    it.wait(MOVING - MOMENT);
    assert!(it.told(1).is_empty(), "others may still look for them there");
    it.wait(MOMENT);
    assert_eq!(words(it.told(1)), each("drops", &moves));
    assert!(it.told(0).is_empty());
}

#[test]
fn a_list_moves_blobs_to_and_from_whom_it_names() {
    let mut it = World::with(&[0, 1]);
    (0..BLOBS).for_each(|blob| it.want(blob));
    (0..2).for_each(|which| drop(it.told(which)));
    let before = [it.owned_by(0), it.owned_by(1)];
    it.list(&[0, 1, 2]);
    let moves = it.owned_by(2);
    let of = |which: usize| before[which].iter().copied().filter(|it| moves.contains(it)).collect::<Vec<_>>();
    assert_eq!(words(it.told(0)), each("unwants", &of(0)));
    assert_eq!(words(it.told(1)), each("unwants", &of(1)));
    it.join(2);
    assert_eq!(words(it.told(2)), each("moved", &moves));
    it.list(&[1, 2]);
    let [left, right] = [it.owned_by(1), it.owned_by(2)];
    let gained = |owned: &[u8], had: &[u8]| owned.iter().copied().filter(|it| !had.contains(it)).collect();
    let gained: [Vec<_>; 2] = [gained(&left, &before[1]), gained(&right, &moves)];
    assert_eq!(words(it.told(1)), each("moved", &gained[0]));
    assert_eq!(words(it.told(2)), each("moved", &gained[1]));
}

#[test]
fn a_wish_says_for_a_while_that_its_blob_has_moved() {
    #[track_caller]
    fn check(it: &mut World, which: usize, expected: &'static str) {
        let blob = it.owned_by(which)[0];
        it.told(which);
        it.want(blob);
        assert_eq!(words(it.told(which)), [(expected, blob)]);
    }
    // A node that starts has moved nothing, whichever schedulers are there.
    let mut it = World::new();
    it.join(0);
    it.fail(1);
    it.fail(2);
    check(&mut it, 0, "wants");
    it.lose(0);
    it.wait(MOVING);
    it.join(0);
    check(&mut it, 0, "moved");
    it.wait(MOVING - MOMENT);
    check(&mut it, 0, "moved");
    it.wait(MOMENT);
    check(&mut it, 0, "wants");
    // What has come to another scheduler has moved, and nothing else.
    it.join(1);
    check(&mut it, 0, "wants");
    check(&mut it, 1, "moved");
    it.wait(MOVING);
    check(&mut it, 1, "wants");
}

#[test]
fn what_is_dropped_while_its_blob_is_away_is_not_held_when_it_comes_back() {
    let mut it = World::with(&[0, 1]);
    let blob = it.owned_by(0)[0];
    it.lose(0);
    it.fail(0);
    it.gain(blob, 0);
    it.told(1);
    it.join(0);
    it.lose(0);
    // Nobody listens; the other one was told before.
    it.node.held.clear();
    it.say(NodeMessage::Progress(vec![progress(&key(blob), true, &BTreeSet::new())]));
    it.fail(0);
    assert_eq!(words(it.told(1)), [("drops", blob)]);

    // Nor does an announcement count that was made before the blob went and came back.
    it.gain(blob, 0);
    it.told(1);
    it.lose(1);
    it.join(1);
    it.step(&name(1));
    it.list(&[0, 1]);
    it.node.held.clear();
    it.join(0);
    it.say(NodeMessage::Progress(vec![progress(&key(blob), true, &BTreeSet::new())]));
    it.lose(0);
    it.fail(0);
    assert_eq!(words(it.told(1)), []);
}

#[test]
fn nothing_is_told_before_a_stream_is_accepted_nor_on_one_that_was_replaced() {
    let mut it = World::with(&[0]);
    it.told(0);
    let old = it.schedulers[&name(0)].stream.clone();
    let new = it.routing.open(&name(0));
    it.gain(1, 0);
    assert!(matches!(it.routing.take(it.now, &new), Next::Wait(None)));
    it.routing.joined(it.now, &new);
    assert!(matches!(it.routing.take(it.now, &old), Next::End));
    it.routing.lost(&old);
    assert!(matches!(it.routing.take(it.now, &new), Next::Announce(_)), "the old one's end is its own");
}

#[test]
fn an_overflow_ends_the_stream_and_the_next_one_begins_with_everything() {
    let mut it = World::with(&[0, 1]);
    (0..2).for_each(|which| drop(it.told(which)));
    let blob = it.owned_by(0)[0];
    for _ in 0..CAPACITY {
        it.gain(blob, 0);
    }
    let stream = it.schedulers[&name(0)].stream.clone();
    assert!(!it.routing.has_overflowed(&stream));
    assert!(!it.routing.push(it.now, NodeMessage::Unwant(key(blob))));
    assert!(it.routing.push(it.now, NodeMessage::Unwant(key(blob))), "it is told of once");
    assert!(it.routing.has_overflowed(&stream));
    assert!(matches!(it.routing.take(it.now, &stream), Next::End));
    it.lose(0);
    it.join(0);
    assert_eq!(words(it.told(0)), [("holds", blob)]);
    assert!(it.told(1).is_empty());
}

#[test]
fn leaving_is_the_last_word_and_voids_the_rest() {
    let mut it = World::with(&[0]);
    it.told(0);
    it.gain(1, 0);
    let stream = it.schedulers[&name(0)].stream.clone();
    it.routing.leave(&stream);
    it.gain(2, 0);
    it.list(&[0, 1]);
    assert!(
        matches!(it.routing.take(it.now, &stream), Next::Send(message) if message == NodeMessage::Leaving)
    );
    assert!(matches!(it.routing.take(it.now, &stream), Next::End));
}

#[test]
fn only_its_owner_directs_a_blob_and_anybody_has_it_seeded() {
    let it = World::with(&[0, 1]);
    let mine = it.owned_by(0)[0];
    let neighbours = SchedulerMessage::Neighbours(Neighbours {
        key: key(mine),
        near: Vec::new(),
        far: Vec::new(),
        algorithm: Algorithm::Default,
        gateway: None,
    });
    let NodeMessage::Want(Want { blob, .. }) = wish(mine, None) else { panic!("a wish") };
    let from = testing::node("127.0.0.1:1");
    let lease = SchedulerMessage::Lease(Lease { key: key(mine), pieces: Vec::new(), from });
    for message in [neighbours, lease, SchedulerMessage::GoDirect(key(mine))] {
        let may = [0, 1].map(|which| may_say(&it.routing.owners, SCHEDULERS[which], &message));
        assert_eq!(may, [true, false], "{message:?}");
    }
    let seed = SchedulerMessage::Seed(SeedOrder { blob, holders: Vec::new() });
    assert!([0, 1].iter().all(|which| may_say(&it.routing.owners, SCHEDULERS[*which], &seed)));
    let hello = Hello { node: Node { ..testing::node("127.0.0.1:1") }, protocol: 1 };
    let mut routing = it.routing;
    assert!(routing.push(it.now, NodeMessage::Hello(hello)), "of no blob, so for nobody");
}

/// What can happen.
#[derive(Clone, Debug)]
enum Step {
    List(Vec<usize>),
    Join(usize),
    Lose(usize),
    Fail(usize),
    Gain(u8, u32),
    Drop(u8),
    Want(u8),
    Unwant(u8),
    Take(usize, usize),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let (scheduler, blob) = (0..SCHEDULERS.len(), 0..BLOBS);
    prop_oneof![
        1 => proptest::sample::subsequence(vec![0, 1, 2], 1..=3).prop_map(Step::List),
        4 => scheduler.clone().prop_map(Step::Join),
        2 => scheduler.clone().prop_map(Step::Lose),
        2 => scheduler.clone().prop_map(Step::Fail),
        8 => (blob.clone(), 0..4_u32).prop_map(|(blob, piece)| Step::Gain(blob, piece)),
        2 => blob.clone().prop_map(Step::Drop),
        4 => blob.clone().prop_map(Step::Want),
        2 => blob.prop_map(Step::Unwant),
        8 => (scheduler, 1..6_usize).prop_map(|(which, n)| Step::Take(which, n)),
        2 => (0..7_u64).prop_map(Step::Wait),
    ]
}

fn take(it: &mut World, step: Step) {
    match step {
        Step::List(which) => it.list(&which),
        Step::Join(which) => it.join(which),
        Step::Lose(which) => it.lose(which),
        Step::Fail(which) => it.fail(which),
        Step::Gain(blob, piece) => it.gain(blob, piece),
        Step::Drop(blob) => {
            if it.node.held.remove(&key(blob)).is_some() {
                it.say(NodeMessage::Progress(vec![progress(&key(blob), true, &BTreeSet::new())]));
            }
        }
        Step::Want(blob) => it.want(blob),
        Step::Unwant(blob) => {
            if it.node.wanted.remove(&key(blob)) {
                it.say(NodeMessage::Unwant(key(blob)));
            }
        }
        Step::Take(which, n) => (0..n).for_each(|_| drop(it.step(&name(which)))),
        Step::Wait(seconds) => it.wait(Duration::from_secs(seconds)),
    }
}

proptest! {
    #[test]
    fn whatever_happens_each_scheduler_comes_to_know_its_own_blobs_and_no_others(
        steps in proptest::collection::vec(step(), 0..150),
    ) {
        let mut it = World::new();
        steps.into_iter().for_each(|step| take(&mut it, step));
        it.check_settled();
    }
}
