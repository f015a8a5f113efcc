//! A node's routing and the schedulers that it talks to, for the rules to be tried on.

use std::collections::BTreeSet;

use super::super::*;
use crate::testing::{geometry, key, wish};

pub(super) const SCHEDULERS: [&str; 3] = ["https://a:1", "https://b:1", "https://c:1"];
pub(super) const BLOBS: u8 = 24;
pub(super) const MOMENT: Duration = Duration::from_millis(10);

/// A node and the schedulers that it talks to, as far as they took in what they were told.
pub(super) struct World {
    pub(super) routing: Routing,
    pub(super) now: Tick,
    pub(super) node: State,
    pub(super) schedulers: BTreeMap<Arc<str>, Scheduler>,
}

/// What a node holds and wants, or is believed to.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct State {
    pub(super) held: BTreeMap<BlobKey, BTreeSet<u32>>,
    pub(super) wanted: BTreeSet<BlobKey>,
}

/// A scheduler's end of a stream.
pub(super) struct Scheduler {
    pub(super) stream: Stream,
    pub(super) knows: State,
    /// What the node said when it was asked, on its way.
    pub(super) announcement: Option<(Asked, Vec<NodeMessage>)>,
}

pub(super) fn name(which: usize) -> Arc<str> {
    SCHEDULERS[which].into()
}

pub(super) fn progress(key: &BlobKey, dropped: bool, gained: &BTreeSet<u32>) -> BlobProgress {
    let gained = gained.iter().map(|it| *it..it + 1).collect();
    BlobProgress { key: key.clone(), geometry: geometry(), dropped, gained }
}

impl State {
    /// As [`super::super::Announce`] has it.
    pub(super) fn announce(&self, asked: &Asked) -> Vec<NodeMessage> {
        let held = self.held.iter().filter(|(key, _)| asked.concerns(key));
        let held: Vec<_> = held.map(|(key, pieces)| progress(key, true, pieces)).collect();
        let wanted = self.wanted.iter().filter(|it| asked.concerns(it));
        let wishes = wanted.map(|it| wish(it.digest.as_bytes()[0], None));
        held.chunks(8).map(|it| NodeMessage::Progress(it.to_vec())).chain(wishes).collect()
    }

    pub(super) fn hear(&mut self, message: NodeMessage) {
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
    pub(super) fn of(&self, concerns: impl Fn(&BlobKey) -> bool) -> Self {
        let mut it = self.clone();
        it.held.retain(|key, _| concerns(key));
        it.wanted.retain(|key| concerns(key));
        it
    }
}

impl World {
    /// All schedulers are listed, and there is a stream to none of them.
    pub(super) fn new() -> Self {
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
    pub(super) fn with(which: &[usize]) -> Self {
        let mut it = Self::new();
        it.list(which);
        which.iter().for_each(|it_is| it.join(*it_is));
        it.wait(MOVING);
        it
    }

    pub(super) fn list(&mut self, which: &[usize]) {
        self.routing.listed(self.now, which.iter().map(|it| name(*it)));
        self.schedulers.retain(|it, _| which.iter().any(|which| name(*which) == *it));
    }

    pub(super) fn join(&mut self, which: usize) {
        if self.routing.owners.is_listed(SCHEDULERS[which]) {
            let stream = self.routing.open(&name(which));
            self.routing.joined(self.now, &stream);
            let scheduler = Scheduler { stream, knows: State::default(), announcement: None };
            self.schedulers.insert(name(which), scheduler);
        }
    }

    pub(super) fn lose(&mut self, which: usize) {
        if let Some(scheduler) = self.schedulers.remove(&name(which)) {
            self.routing.lost(&scheduler.stream);
        }
    }

    pub(super) fn fail(&mut self, which: usize) {
        if !self.schedulers.contains_key(&name(which)) {
            self.routing.failed(self.now, SCHEDULERS[which]);
        }
    }

    pub(super) fn wait(&mut self, span: Duration) {
        self.now = self.now.after(span);
    }

    pub(super) fn say(&mut self, message: NodeMessage) {
        assert!(self.routing.push(self.now, message));
    }

    pub(super) fn gain(&mut self, blob: u8, piece: u32) {
        self.node.held.entry(key(blob)).or_default().insert(piece);
        self.say(NodeMessage::Progress(vec![progress(&key(blob), false, &[piece].into())]));
    }

    pub(super) fn want(&mut self, blob: u8) {
        self.node.wanted.insert(key(blob));
        self.say(wish(blob, None));
    }

    /// One step of a stream; what was taken, if that was a message, and whether there was anything.
    pub(super) fn step(&mut self, which: &Arc<str>) -> (Option<NodeMessage>, bool) {
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
    pub(super) fn told(&mut self, which: usize) -> Vec<NodeMessage> {
        let mut told = Vec::new();
        while let (message, true) = self.step(&name(which)) {
            told.extend(message);
        }
        told
    }

    pub(super) fn owned_by(&self, which: usize) -> Vec<u8> {
        let owner = name(which);
        (0..BLOBS).filter(|it| self.routing.owners.owner(&key(*it)) == Some(&owner)).collect()
    }

    #[track_caller]
    pub(super) fn check_settled(&mut self) {
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
pub(super) fn words(messages: Vec<NodeMessage>) -> Vec<(&'static str, u8)> {
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

pub(super) fn each(word: &'static str, blobs: &[u8]) -> Vec<(&'static str, u8)> {
    blobs.iter().map(|it| (word, *it)).collect()
}
