//! Which scheduler is told what.
//!
//! What concerns a blob goes to its owner ([`Owners`]). When the owners change, only what moved is told: the new owner
//! hears all that this node holds and wants of those blobs; the one before, if it lives, hears at once that they are
//! no longer wanted, so that no two schedulers direct one blob, and a while later that they are no longer held.
//! Until then the nodes that still ask there find them here.
//!
//! What moved is announced when its turn comes in the queue, and not as it was when it moved: so messages that were
//! queued before are older than the announcement, and those queued after it come after it. One of the latter may
//! already be part of it: each says what is, not how much to add, so hearing it twice changes nothing.
//!
//! Each scheduler's queue has a cap. One that overflows ends its stream, and the next one begins with everything.
//!
//! Knows nothing of: sockets, clocks, locks, what this node holds.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use shoal_model::{BlobKey, Tick};
use shoal_proto::{BlobProgress, Lease, Neighbours, NodeMessage, SchedulerMessage, Want, WantedBlob};
use shoal_swarm::Owners;

use super::ledger::Ledger;

/// The most messages that wait for one scheduler.
const CAPACITY: usize = 1024;
/// How long a blob that has come to a scheduler counts as moved there, and how long the one before goes on hearing
/// that it is held here: within this time all nodes have come, however long they wait between two attempts to join.
const MOVING: Duration = Duration::from_secs(5);

/// All schedulers, and what is yet to be told to each.
#[derive(Debug, Default)]
pub(super) struct Routing {
    owners: Owners,
    /// One for each scheduler that there is a stream to.
    lanes: BTreeMap<Arc<str>, Lane>,
    n_streams: u64,
    n_changes: u64,
    /// The latest changes of the owners, each with those before it.
    changes: Vec<(Tick, Owners)>,
    /// Schedulers that there has been a stream to, and when another one was made in its place, if one was.
    met: BTreeMap<Arc<str>, Option<Tick>>,
}

/// One stream to a scheduler: the latest that was made there is the one that counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stream {
    pub(super) address: Arc<str>,
    number: u64,
}

/// What is yet to be told to one scheduler.
#[derive(Debug)]
struct Lane {
    stream: u64,
    queue: VecDeque<Entry>,
    /// Goes before what is queued: the rest of an announcement, or of what is taken back.
    first: VecDeque<NodeMessage>,
    ledger: Ledger,
    /// When what belongs to others now is taken back.
    take_back_at: Option<Tick>,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// The last word is queued.
    Leaving,
    /// Messages were lost.
    Overflowed,
}

#[derive(Debug)]
enum Entry {
    Message(NodeMessage),
    /// The blobs that did not belong to the scheduler by these owners.
    Announce(Owners),
}

/// What a stream is to do next.
#[derive(Debug)]
pub(super) enum Next {
    /// Ask the node for these blobs, and hand over what it says.
    Announce(Asked),
    Send(NodeMessage),
    /// Wait for a change, or until then.
    Wait(Option<Tick>),
    End,
}

/// Blobs that are to be announced to one scheduler.
#[derive(Debug)]
pub(super) struct Asked {
    address: Arc<str>,
    before: Owners,
    owners: Owners,
    /// How often the owners had changed by then.
    n_changes: u64,
}

impl Asked {
    pub(super) fn concerns(&self, key: &BlobKey) -> bool {
        self.owners.owner(key) == Some(&self.address) && self.before.owner(key) != Some(&self.address)
    }
}

fn is_recent(now: Tick, at: Tick) -> bool {
    now.since(at) < MOVING
}

impl Routing {
    pub(super) const fn owners(&self) -> &Owners {
        &self.owners
    }

    // === Schedulers come and go ===

    /// These are the region's schedulers from now on.
    pub(super) fn listed(&mut self, now: Tick, addresses: impl IntoIterator<Item = Arc<str>>) {
        self.change(now, |owners| owners.list(addresses));
        let all = || self.changes.iter().map(|(_, before)| before).chain([&self.owners]);
        self.met.retain(|it, _| all().any(|owners| owners.is_listed(it)));
    }

    /// A stream to be made; nothing is told on it before it is [joined](Self::joined).
    pub(super) fn open(&mut self, address: &Arc<str>) -> Stream {
        self.n_streams += 1;
        Stream { address: address.clone(), number: self.n_streams }
    }

    /// The scheduler has accepted the stream, and knows nothing yet.
    pub(super) fn joined(&mut self, now: Tick, stream: &Stream) {
        let address = &stream.address;
        // A lane of its own comes only after the change, which therefore tells the others alone.
        self.lanes.remove(address);
        self.change(now, |owners| owners.joined(address));
        self.met.entry(address.clone()).and_modify(|it| *it = Some(now)).or_insert(None);
        self.lanes.insert(address.clone(), Lane::new(stream.number));
    }

    /// The stream broke.
    pub(super) fn lost(&mut self, stream: &Stream) {
        if self.lane(stream).is_some() {
            self.lanes.remove(&stream.address);
            self.owners.lost(&stream.address);
        }
    }

    /// The scheduler could not be joined.
    pub(super) fn failed(&mut self, now: Tick, address: &str) {
        self.change(now, |owners| owners.failed(address));
    }

    /// Says goodbye on this stream, and nothing after it.
    pub(super) fn leave(&mut self, stream: &Stream) {
        if let Some(lane) = self.lane(stream) {
            lane.first.clear();
            lane.queue = [Entry::Message(NodeMessage::Leaving)].into();
            lane.state = State::Leaving;
        }
    }

    fn change(&mut self, now: Tick, change: impl FnOnce(&mut Owners)) {
        let before = self.owners.clone();
        change(&mut self.owners);
        if self.owners == before {
            return;
        }
        let owners = &self.owners;
        // Where somebody goes, each of the others may gain; where somebody comes, they only lose.
        let has_gone = before.candidates().any(|it| owners.candidates().all(|other| other != it));
        let live = self.lanes.iter_mut().filter(|(address, lane)| owners.is_live(address) && lane.is_open());
        for (address, lane) in live {
            let is_others = |key: &BlobKey| owners.owner(key) != Some(address);
            lane.queue.extend(lane.ledger.end_wishes(is_others).into_iter().map(Entry::Message));
            if lane.ledger.knows(is_others) {
                lane.take_back_at = Some(now.after(MOVING));
            }
            if has_gone {
                lane.queue.push_back(Entry::Announce(before.clone()));
            }
        }
        self.n_changes += 1;
        self.changes.retain(|(at, _)| is_recent(now, *at));
        self.changes.push((now, before));
    }

    /// Whether the blob has lately come to this scheduler, from another one that was at work or from before its
    /// restart. What a node finds when it starts has not.
    fn has_moved(&self, now: Tick, address: &str, key: &BlobKey) -> bool {
        let joined_anew = self.met.get(address).copied().flatten().is_some_and(|it| is_recent(now, it));
        let is_other = |it: &Arc<str>| **it != *address && self.met.contains_key(it);
        let recent = self.changes.iter().filter(|(at, _)| is_recent(now, *at));
        joined_anew || recent.filter_map(|(_, before)| before.owner(key)).any(is_other)
    }

    // === What is said ===

    /// Queues a message for whom it concerns; what nobody hears is announced to whoever comes. False where a queue
    /// overflows.
    pub(super) fn push(&mut self, now: Tick, message: NodeMessage) -> bool {
        let mut is_kept = true;
        for (address, part) in self.parts(now, message) {
            is_kept &= self.lanes.get_mut(&address).is_none_or(|it| it.push(part));
        }
        is_kept
    }

    /// The parts of a message, each with the scheduler that it is for and as that is to hear it.
    fn parts(&self, now: Tick, mut message: NodeMessage) -> Vec<(Arc<str>, NodeMessage)> {
        match message {
            NodeMessage::Progress(blobs) => {
                let mut parts: BTreeMap<_, Vec<BlobProgress>> = BTreeMap::new();
                for it in blobs {
                    if let Some(owner) = self.owners.listener(&it.key) {
                        parts.entry(owner).or_default().push(it);
                    }
                }
                let parts = parts.into_iter();
                parts.map(|(owner, part)| (owner.clone(), NodeMessage::Progress(part))).collect()
            }
            NodeMessage::Want(Want { blob: WantedBlob { ref key, .. }, ref mut moved, .. }) => {
                let Some(owner) = self.owners.listener(key).cloned() else { return Vec::new() };
                *moved = self.has_moved(now, &owner, key);
                vec![(owner, message)]
            }
            NodeMessage::Unwant(ref key) | NodeMessage::Stranded(ref key) => {
                let owner = self.owners.listener(key).cloned();
                owner.map(|it| (it, message)).into_iter().collect()
            }
            // Of no blob: a stream begins and ends with these.
            NodeMessage::Hello(_) | NodeMessage::Leaving | NodeMessage::Unknown => Vec::new(),
        }
    }

    /// What this stream is to do next.
    pub(super) fn take(&mut self, now: Tick, stream: &Stream) -> Next {
        let lane = self.lanes.get_mut(&stream.address).filter(|it| it.stream >= stream.number);
        let Some(lane) = lane else { return Next::Wait(None) };
        // One that is being torn down must not swallow anything.
        if lane.stream > stream.number || lane.state == State::Overflowed {
            return Next::End;
        }
        let owners = &self.owners;
        if lane.first.is_empty() && lane.queue.is_empty() && lane.take_back_at.is_some_and(|it| it <= now) {
            lane.take_back_at = None;
            let is_others = |key: &BlobKey| owners.owner(key) != Some(&stream.address);
            lane.first = lane.ledger.take_back(is_others).into();
        }
        if let Some(message) = lane.first.pop_front() {
            return Next::Send(message);
        }
        match lane.queue.pop_front() {
            Some(Entry::Message(message)) => Next::Send(message),
            Some(Entry::Announce(before)) => {
                let (address, owners) = (stream.address.clone(), owners.clone());
                Next::Announce(Asked { address, before, owners, n_changes: self.n_changes })
            }
            None if lane.state == State::Leaving => Next::End,
            None => Next::Wait(lane.take_back_at),
        }
    }

    /// What the node said when it was asked for an announcement: all that it holds and wants of those blobs.
    pub(super) fn announced(&mut self, now: Tick, stream: &Stream, asked: Asked, messages: Vec<NodeMessage>) {
        let parts = messages.into_iter().flat_map(|it| self.parts(now, it));
        let parts: Vec<_> = parts.filter(|(owner, _)| *owner == stream.address).map(|(_, it)| it).collect();
        let n_changes = self.n_changes;
        let Some(lane) = self.lane(stream).filter(|it| it.is_open()) else { return };
        if asked.n_changes != n_changes {
            // Blobs may have gone and come back meanwhile, and not as they were.
            return lane.queue.push_front(Entry::Announce(asked.before));
        }
        // What it held when it was told of the blob before, and holds no longer.
        let announced = Ledger::of(&parts);
        let gone = lane.ledger.held(|key| asked.concerns(key) && !announced.holds(key));
        parts.iter().for_each(|it| lane.ledger.note(it));
        lane.first.extend(gone.into_iter().chain(parts));
    }

    /// Whether messages for this stream were lost, so that another has to be made.
    pub(super) fn has_overflowed(&self, stream: &Stream) -> bool {
        let lane = self.lanes.get(&stream.address).filter(|it| it.stream == stream.number);
        lane.is_some_and(|it| it.state == State::Overflowed)
    }

    fn lane(&mut self, stream: &Stream) -> Option<&mut Lane> {
        self.lanes.get_mut(&stream.address).filter(|it| it.stream == stream.number)
    }
}

impl Lane {
    /// The scheduler is told everything first.
    fn new(stream: u64) -> Self {
        Self {
            stream,
            queue: [Entry::Announce(Owners::default())].into(),
            first: VecDeque::new(),
            ledger: Ledger::default(),
            take_back_at: None,
            state: State::Open,
        }
    }

    fn is_open(&self) -> bool {
        self.state == State::Open
    }

    fn push(&mut self, message: NodeMessage) -> bool {
        if !self.is_open() {
            return true;
        }
        let has_room = self.queue.len() < CAPACITY;
        if has_room {
            self.ledger.note(&message);
            self.queue.push_back(Entry::Message(message));
        } else {
            self.queue.clear();
            self.first.clear();
            self.state = State::Overflowed;
        }
        has_room
    }
}

/// Whether a scheduler may say this: what it says of blobs that belong to another is void. Any may have a gateway seed.
pub(super) fn may_say(owners: &Owners, address: &str, message: &SchedulerMessage) -> bool {
    match message {
        SchedulerMessage::Neighbours(Neighbours { key, .. })
        | SchedulerMessage::Lease(Lease { key, .. })
        | SchedulerMessage::GoDirect(key) => owners.listener(key).is_some_and(|it| **it == *address),
        SchedulerMessage::Seed(_) | SchedulerMessage::Unknown => true,
    }
}
