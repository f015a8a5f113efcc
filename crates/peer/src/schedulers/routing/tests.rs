//! Scripts of what happens to one node's routing, and what holds after any history.

use std::collections::BTreeSet;

use proptest::prelude::*;
use shoal_model::Node;
use shoal_proto::{Hello, SeedOrder};
use shoal_swarm::Algorithm;

use super::*;
use crate::testing::{self, geometry, key, wish};

const SCHEDULERS: [&str; 3] = ["https://a:1", "https://b:1", "https://c:1"];
const BLOBS: u8 = 24;
const MOMENT: Duration = Duration::from_millis(10);

/// A node and the schedulers that it talks to, as far as they took in what they were told.
struct World {
    routing: Routing,
    now: Tick,
    node: State,
    schedulers: BTreeMap<Arc<str>, Scheduler>,
}

/// What a node holds and wants, or is believed to.
#[derive(Clone, Debug, Default, PartialEq)]
struct State {
    held: BTreeMap<BlobKey, BTreeSet<u32>>,
    wanted: BTreeSet<BlobKey>,
}

/// A scheduler's end of a stream.
struct Scheduler {
    stream: Stream,
    knows: State,
    /// What the node said when it was asked, on its way.
    announcement: Option<(Asked, Vec<NodeMessage>)>,
}

fn name(which: usize) -> Arc<str> {
    SCHEDULERS[which].into()
}

fn progress(key: &BlobKey, dropped: bool, gained: &BTreeSet<u32>) -> BlobProgress {
    let gained = gained.iter().map(|it| *it..it + 1).collect();
    BlobProgress { key: key.clone(), geometry: geometry(), dropped, gained }
}

impl State {
    /// As [`super::super::Announce`] has it.
    fn announce(&self, asked: &Asked) -> Vec<NodeMessage> {
        let held = self.held.iter().filter(|(key, _)| asked.concerns(key));
        let held: Vec<_> = held.map(|(key, pieces)| progress(key, true, pieces)).collect();
        let wanted = self.wanted.iter().filter(|it| asked.concerns(it));
        let wishes = wanted.map(|it| wish(it.digest.as_bytes()[0], None));
        held.chunks(8).map(|it| NodeMessage::Progress(it.to_vec())).chain(wishes).collect()
    }

    fn hear(&mut self, message: NodeMessage) {
        match message {
            NodeMessage::Progress(blobs) => {
                for it in blobs {
                    let held = self.held.entry(it.key.clone()).or_default();
                    if it.dropped {
                        held.clear();
                    }
                    held.extend(it.gained.into_iter().flatten());
                    if held.is_empty() {
                        self.held.remove(&it.key);
                    }
                }
            }
            NodeMessage::Want(it) => drop(self.wanted.insert(it.blob.key)),
            NodeMessage::Unwant(key) => drop(self.wanted.remove(&key)),
            other => panic!("{other:?}"),
        }
    }

    /// What of it concerns such blobs.
    fn of(&self, concerns: impl Fn(&BlobKey) -> bool) -> Self {
        let mut it = self.clone();
        it.held.retain(|key, _| concerns(key));
        it.wanted.retain(|key| concerns(key));
        it
    }
}

impl World {
    /// All schedulers are listed, and there is a stream to none of them.
    fn new() -> Self {
        let mut it = Self {
            routing: Routing::default(),
            now: Tick(0),
            node: State::default(),
            schedulers: BTreeMap::new(),
        };
        it.list(&[0, 1, 2]);
        it
    }

    /// There is a stream to each of these alone.
    fn with(which: &[usize]) -> Self {
        let mut it = Self::new();
        it.list(which);
        which.iter().for_each(|it_is| it.join(*it_is));
        it.wait(MOVING);
        it
    }

    fn list(&mut self, which: &[usize]) {
        self.routing.listed(self.now, which.iter().map(|it| name(*it)));
        self.schedulers.retain(|it, _| which.iter().any(|which| name(*which) == *it));
    }

    fn join(&mut self, which: usize) {
        if self.routing.owners.is_listed(SCHEDULERS[which]) {
            let stream = self.routing.open(&name(which));
            self.routing.joined(self.now, &stream);
            let scheduler = Scheduler { stream, knows: State::default(), announcement: None };
            self.schedulers.insert(name(which), scheduler);
        }
    }

    fn lose(&mut self, which: usize) {
        if let Some(scheduler) = self.schedulers.remove(&name(which)) {
            self.routing.lost(&scheduler.stream);
        }
    }

    fn fail(&mut self, which: usize) {
        if !self.schedulers.contains_key(&name(which)) {
            self.routing.failed(self.now, SCHEDULERS[which]);
        }
    }

    fn wait(&mut self, span: Duration) {
        self.now = self.now.after(span);
    }

    fn say(&mut self, message: NodeMessage) {
        assert!(self.routing.push(self.now, message));
    }

    fn gain(&mut self, blob: u8, piece: u32) {
        self.node.held.entry(key(blob)).or_default().insert(piece);
        self.say(NodeMessage::Progress(vec![progress(&key(blob), false, &[piece].into())]));
    }

    fn want(&mut self, blob: u8) {
        self.node.wanted.insert(key(blob));
        self.say(wish(blob, None));
    }

    /// One step of a stream; what was taken, if that was a message, and whether there was anything.
    fn step(&mut self, which: &Arc<str>) -> (Option<NodeMessage>, bool) {
        let Some(scheduler) = self.schedulers.get_mut(which) else { return (None, false) };
        if let Some((asked, said)) = scheduler.announcement.take() {
            self.routing.announced(self.now, &scheduler.stream, asked, said);
            return (None, true);
        }
        match self.routing.take(self.now, &scheduler.stream) {
            Next::Send(message) => {
                scheduler.knows.hear(message.clone());
                (Some(message), true)
            }
            Next::Announce(asked) => {
                let said = self.node.announce(&asked);
                scheduler.announcement = Some((asked, said));
                (None, true)
            }
            Next::Wait(_) => (None, false),
            Next::End => panic!("a stream ends"),
        }
    }

    /// All that a scheduler is told now.
    fn told(&mut self, which: usize) -> Vec<NodeMessage> {
        let mut told = Vec::new();
        while let (message, true) = self.step(&name(which)) {
            told.extend(message);
        }
        told
    }

    fn owned_by(&self, which: usize) -> Vec<u8> {
        let owner = name(which);
        (0..BLOBS).filter(|it| self.routing.owners.owner(&key(*it)) == Some(&owner)).collect()
    }

    #[track_caller]
    fn check_settled(&mut self) {
        (0..SCHEDULERS.len()).for_each(|it| drop(self.told(it)));
        for which in 0..SCHEDULERS.len() {
            let owned: BTreeSet<_> = self.owned_by(which).into_iter().map(key).collect();
            if let Some(scheduler) = self.schedulers.get(&name(which)) {
                assert_eq!(scheduler.knows.wanted, self.node.of(|it| owned.contains(it)).wanted, "{which}");
            }
        }
        self.wait(MOVING);
        for which in 0..SCHEDULERS.len() {
            drop(self.told(which));
            let owned: BTreeSet<_> = self.owned_by(which).into_iter().map(key).collect();
            if let Some(scheduler) = self.schedulers.get(&name(which)) {
                assert_eq!(scheduler.knows, self.node.of(|it| owned.contains(it)), "{which}");
            }
        }
    }
}

/// The blobs that messages are about, in words.
fn words(messages: Vec<NodeMessage>) -> Vec<(&'static str, u8)> {
    let blob = |it: &BlobKey| it.digest.as_bytes()[0];
    let words = messages.into_iter().flat_map(|it| match it {
        NodeMessage::Progress(blobs) => {
            let word = |it: &BlobProgress| if it.gained.is_empty() { "drops" } else { "holds" };
            blobs.iter().map(|it| (word(it), blob(&it.key))).collect()
        }
        NodeMessage::Want(Want { blob: WantedBlob { key, .. }, moved, .. }) => {
            vec![(if moved { "moved" } else { "wants" }, blob(&key))]
        }
        NodeMessage::Unwant(key) => vec![("unwants", blob(&key))],
        NodeMessage::Leaving => vec![("leaves", 0)],
        other => panic!("{other:?}"),
    });
    let mut words: Vec<_> = words.collect();
    words.sort_unstable();
    words
}

fn each(word: &'static str, blobs: &[u8]) -> Vec<(&'static str, u8)> {
    blobs.iter().map(|it| (word, *it)).collect()
}

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
