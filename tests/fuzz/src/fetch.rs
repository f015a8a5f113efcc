//! A node's fetch under any history of events that its driver may tell it of. A model beside it knows what was
//! asked, what is watched and what each source has said, and holds every action against that.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::Duration;

use arbitrary::{Arbitrary, Result, Unstructured};
use shoal_model::{BlobKey, Digest, NodeId, Rng, Role, Tick, TrustGroup};
use shoal_swarm::fetch::{Action, Event, Fault, Fetch, Policy, Rung};
use shoal_swarm::{Algorithm, Bitmap, PieceIndex};

const ME: u8 = 0;
/// With this one.
const NODES: u8 = 7;
/// From here on numbers are those of gateways.
const GATEWAY: u8 = 0x80;
const GATEWAYS: u8 = 2;
/// No piece is asked of more sources at once: two neighbours and the gateway.
const MOST_ASKS: usize = 3;
/// Pieces of the largest blob.
const PIECES: u32 = 40;
const STEPS: usize = 300;

/// What happens, with small numbers for who and what.
#[derive(Arbitrary, Debug)]
enum Step {
    Neighbours {
        near: Vec<u8>,
        far: Vec<u8>,
        ml: bool,
    },
    Gateway(u8),
    Leased {
        from: u8,
        pieces: Vec<(u8, u8)>,
    },
    News {
        from: u8,
        dropped: bool,
        lost: Vec<(u8, u8)>,
        gained: Vec<(u8, u8)>,
        alive: bool,
    },
    Lost {
        from: u8,
        is_well: bool,
    },
    Held(u8),
    /// The ask of this number has ended well.
    Arrived(u8),
    Shrunk(Vec<(u8, u8)>),
    Failed {
        from: u8,
        piece: u8,
        fault: Failure,
    },
    /// The ask of this number has come to nothing.
    Broke(u8, Failure),
    Moved,
    /// Bytes have come by the ask of this number.
    Sent(u8),
    Demand(Vec<u8>),
    Stored(bool),
    Scheduler(bool),
    Slots(u8),
    MayGoDirect,
    DirectFailed,
    /// Time passes, and the machine is woken when it wishes.
    Wait(u16),
    /// The same, in seconds.
    WaitLong(u8),
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Failure {
    Busy,
    NotHeld,
    Broken,
    WrongBytes,
    Unvouched,
}

/// Takes choices.
pub fn check(data: &[u8]) {
    let mut u = Unstructured::new(data);
    let Ok(mut history) = History::new(&mut u) else { return };
    for _ in 0..STEPS {
        match u.is_empty() {
            false => u.arbitrary().map(|step| history.take(step)).unwrap_or_default(),
            true => return history.end(),
        }
    }
}

struct History {
    fetch: Fetch,
    now: Tick,
    slots: usize,
    n_pieces: u32,
    asked: Vec<(NodeId, PieceIndex)>,
    /// What those say who are watched.
    told: BTreeMap<NodeId, Bitmap>,
    banned: BTreeSet<NodeId>,
    /// Each neighbour, and until when it stays one whatever the scheduler says.
    neighbours: BTreeMap<NodeId, Tick>,
    newly_led: Duration,
    /// Gateways, and sources of leases.
    others: BTreeSet<NodeId>,
    demand: Vec<PieceIndex>,
    is_stored: bool,
    finished: bool,
}

impl History {
    fn new(u: &mut Unstructured<'_>) -> Result<Self> {
        let n_pieces = u.int_in_range(0..=PIECES)?;
        let policy = Policy { slots: u.int_in_range(1..=8)?, ..Policy::default() };
        let mut held = Bitmap::new(n_pieces);
        u.arbitrary::<Vec<(u8, u8)>>()?.into_iter().take(2).for_each(|it| held.insert_range(range(it)));
        let key = BlobKey { group: TrustGroup::new("g"), digest: Digest::from_sha256([1; 32]) };
        Ok(Self {
            fetch: Fetch::new(Tick(0), id(ME), key, held, policy, Rng::new(u.arbitrary()?)),
            now: Tick(0),
            slots: policy.slots,
            n_pieces,
            asked: Vec::new(),
            told: BTreeMap::new(),
            banned: BTreeSet::new(),
            neighbours: BTreeMap::new(),
            newly_led: policy.newly_led,
            others: BTreeSet::new(),
            demand: Vec::new(),
            is_stored: true,
            finished: false,
        })
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Wait(millis) => self.wait(Duration::from_millis(millis.into())),
            Step::WaitLong(seconds) => self.wait(Duration::from_secs(seconds.into())),
            step => {
                if let Some(event) = self.event(step) {
                    self.feed(event);
                }
            }
        }
    }

    /// The driver tells nothing of sources that it does not watch, nor of asks that it has not made.
    fn event(&self, step: Step) -> Option<Event> {
        // No scheduler names a gateway as a neighbour.
        let ids = |it: Vec<u8>| it.into_iter().take(8).map(|it| id(it & !GATEWAY)).collect::<Vec<_>>();
        let ask = |number: u8| self.asked.get(usize::from(number) % self.asked.len().max(1)).cloned();
        Some(match step {
            Step::Neighbours { near, far, ml } => {
                let algorithm = if ml { Algorithm::Ml } else { Algorithm::Default };
                Event::Neighbours { near: ids(near), far: ids(far), algorithm }
            }
            Step::Gateway(number) => Event::Gateway(id(GATEWAY | number)),
            Step::Leased { from, pieces } => {
                let role = if from >= GATEWAY { Role::Gateway } else { Role::Sidecar };
                Event::Leased { from: id(from), role, pieces: ranges(pieces) }
            }
            Step::News { from, dropped, lost, gained, alive } => {
                let from = id(from);
                self.told.contains_key(&from).then_some(Event::News {
                    from,
                    dropped,
                    lost: ranges(lost),
                    gained: ranges(gained),
                    alive,
                })?
            }
            Step::Lost { from, is_well } => {
                let from = id(from);
                self.told.contains_key(&from).then_some(Event::Lost { from, is_well })?
            }
            Step::Held(piece) => {
                Event::Held { piece: PieceIndex::from(piece) % self.n_pieces.max(1), from: None }
            }
            Step::Arrived(number) => {
                let (from, piece) = ask(number)?;
                Event::Held { piece, from: Some(from) }
            }
            Step::Shrunk(gone) => {
                let mut lost = Bitmap::new(self.n_pieces);
                gone.into_iter().take(4).for_each(|it| lost.insert_range(range(it)));
                Event::Have(self.fetch.held().minus(&lost))
            }
            Step::Failed { from, piece, fault } => {
                Event::Failed { from: id(from), piece: piece.into(), fault: fault.into() }
            }
            Step::Broke(number, fault) => {
                let (from, piece) = ask(number)?;
                Event::Failed { from, piece, fault: fault.into() }
            }
            Step::Moved => Event::Moved { from: None },
            Step::Sent(number) => Event::Moved { from: Some(ask(number)?.0) },
            Step::Demand(pieces) => Event::Demand(pieces.into_iter().take(4).map(PieceIndex::from).collect()),
            Step::Stored(is_stored) => Event::Stored(is_stored),
            Step::Scheduler(connected) => Event::Scheduler(connected),
            Step::Slots(slots) => Event::Slots(usize::from(slots % 16)),
            Step::MayGoDirect => Event::MayGoDirect,
            Step::DirectFailed => Event::DirectFailed,
            Step::Wait(_) | Step::WaitLong(_) => Event::Deadline,
        })
    }

    fn feed(&mut self, event: Event) {
        self.note(&event);
        let mut actions = Vec::new();
        self.fetch.on_event(self.now, event, &mut actions);
        actions.into_iter().for_each(|it| self.act(it));
        assert_eq!(self.finished, self.fetch.held().is_full(), "who holds everything has said so");
        let deadline = self.fetch.next_deadline(self.now);
        assert!(deadline.is_none_or(|it| it > self.now), "{deadline:?} is not ahead of {}", self.now);
        let waits = matches!(self.fetch.rung(), Rung::Swarm | Rung::Gateway | Rung::Stranded);
        assert!(deadline.is_some() || self.finished || !waits, "nothing would ever happen");
    }

    /// What an event says before the machine acts on it.
    fn note(&mut self, event: &Event) {
        match event {
            Event::Neighbours { near, far, .. } => {
                self.neighbours.retain(|_, until| *until > self.now);
                for node in near.iter().chain(far) {
                    self.neighbours.entry(node.clone()).or_insert(self.now);
                }
            }
            Event::Gateway(from) | Event::Leased { from, .. } => {
                self.others.insert(from.clone());
            }
            Event::Scheduler(true) => {
                let until = self.now.after(self.newly_led);
                self.neighbours.values_mut().for_each(|it| *it = until);
            }
            Event::News { from, dropped, lost, gained, .. } => {
                let told = self.told.entry(from.clone()).or_default();
                if *dropped {
                    *told = Bitmap::new(self.n_pieces);
                }
                let mut gone = Bitmap::new(self.n_pieces);
                lost.iter().for_each(|it| gone.insert_range(it.clone()));
                told.subtract(&gone);
                gained.iter().for_each(|it| told.insert_range(it.clone()));
            }
            Event::Lost { from, .. } | Event::Failed { from, fault: Fault::Unvouched, .. } => self.left(from),
            Event::Failed { from, piece, fault } => {
                self.asked.retain(|it| (&it.0, it.1) != (from, *piece));
                if *fault == Fault::NotHeld {
                    let told = self.told.get_mut(from);
                    told.map(|it| it.remove(*piece));
                }
                if *fault == Fault::WrongBytes && self.told.contains_key(from) {
                    self.banned.insert(from.clone());
                }
            }
            Event::Have(_) => self.finished = false,
            Event::Demand(pieces) => self.demand.clone_from(pieces),
            Event::Stored(is_stored) => self.is_stored = *is_stored,
            Event::Slots(slots) => self.slots = *slots,
            _ => {}
        }
    }

    fn left(&mut self, node: &NodeId) {
        self.told.remove(node);
        self.asked.retain(|(from, _)| from != node);
    }

    fn act(&mut self, action: Action) {
        let held = self.fetch.held();
        match action {
            Action::Watch(node) => {
                let known = self.neighbours.contains_key(&node) || self.others.contains(&node);
                assert!(known && node != id(ME), "{node} is nobody to watch");
                assert!(!self.banned.contains(&node), "{node} has sent wrong bytes");
                let before = self.told.insert(node.clone(), Bitmap::new(self.n_pieces));
                assert_eq!(before, None, "{node} is watched");
            }
            Action::Leave(node) => self.left(&node),
            Action::Ask { from, piece, .. } => {
                assert!(piece < self.n_pieces && !held.contains(piece), "{piece} is not missing");
                assert!(
                    self.told.get(&from).is_some_and(|it| it.contains(piece)),
                    "{from} has not said {piece}"
                );
                assert!(!self.banned.contains(&from), "{from} has sent wrong bytes");
                assert!(self.is_stored || self.demand.contains(&piece), "no reader needs {piece}");
                let of_piece = self.asked.iter().filter(|it| it.1 == piece);
                assert!(
                    of_piece.clone().count() < MOST_ASKS && of_piece.clone().all(|it| it.0 != from),
                    "{piece}"
                );
                let most = 2 * self.slots;
                assert!(self.asked.len() < most, "more than {most} asks");
                self.asked.push((from, piece));
            }
            Action::Cancel { from, piece } => {
                let ask = (from, piece);
                let at = self.asked.iter().position(|it| *it == ask);
                self.asked.remove(at.unwrap_or_else(|| panic!("{ask:?} was not asked")));
            }
            Action::Strand => assert_eq!(self.fetch.rung(), Rung::Stranded),
            Action::GoDirect => assert!(self.fetch.rung() == Rung::Direct && !held.is_full()),
            Action::GiveUp => assert!(self.fetch.rung() == Rung::GivenUp && !held.is_full()),
            Action::Finished => {
                assert!(!self.finished && held.is_full());
                assert!(self.asked.is_empty(), "asked for what is held: {:?}", self.asked);
                self.finished = true;
            }
        }
    }

    fn wait(&mut self, span: Duration) {
        let until = self.now.after(span);
        // As often as a driver at most, which has other things to do as well.
        for _ in 0..64 {
            let Some(at) = self.fetch.next_deadline(self.now).filter(|it| *it <= until) else { break };
            self.now = at;
            self.feed(Event::Deadline);
        }
        self.now = until;
    }

    /// Nobody says anything any more, and readers need everything: every fetch comes to an end, or to the registry.
    fn end(&mut self) {
        self.feed(Event::Demand((0..self.n_pieces).collect()));
        for _ in 0..1000 {
            let Some(at) = self.fetch.next_deadline(self.now) else { return };
            self.now = at;
            self.feed(Event::Deadline);
            if !matches!(self.fetch.rung(), Rung::Swarm | Rung::Gateway | Rung::Stranded) {
                return;
            }
        }
        panic!("a fetch that waits for ever on {:?}", self.fetch.rung());
    }
}

impl From<Failure> for Fault {
    fn from(it: Failure) -> Self {
        match it {
            Failure::Busy => Self::Busy,
            Failure::NotHeld => Self::NotHeld,
            Failure::Broken => Self::Broken,
            Failure::WrongBytes => Self::WrongBytes,
            Failure::Unvouched => Self::Unvouched,
        }
    }
}

fn id(number: u8) -> NodeId {
    NodeId::new(&match number {
        GATEWAY.. => format!("g{}", (number - GATEWAY) % GATEWAYS),
        _ => format!("n{}", number % NODES),
    })
}

/// So many pieces from one on.
fn range((first, count): (u8, u8)) -> Range<PieceIndex> {
    let first = u32::from(first) % (PIECES + 2);
    first..first + u32::from(count) % (PIECES + 2)
}

fn ranges(pieces: Vec<(u8, u8)>) -> Vec<Range<PieceIndex>> {
    pieces.into_iter().take(4).map(range).collect()
}
