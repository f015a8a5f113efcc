//! The scheduler's table under any history of what nodes may say, of several blobs and cuts. What it orders is held
//! against a model that knows who is there and what each has said that it holds.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::Duration;

use arbitrary::{Arbitrary, Result, Unstructured};
use shoal_model::{BlobKey, Digest, NodeId, Place, Rng, Role, Tick, TrustGroup};
use shoal_swarm::table::{Event, Order, Policy, Report, Table, What};
use shoal_swarm::{Bitmap, Geometry, PieceIndex};

const GATEWAYS: u8 = 2;
const NODES: u8 = 20;
const BLOBS: u8 = 3;
const STEPS: usize = 400;

/// What happens, with small numbers for who and what.
#[derive(Arbitrary, Debug)]
enum Step {
    Joined {
        node: u8,
        place: u8,
    },
    Left(u8),
    Want {
        said: Said,
        moved: bool,
    },
    Progress(Said),
    Unwant {
        node: u8,
        blob: u8,
    },
    Stranded {
        node: u8,
        blob: u8,
    },
    /// Time passes, and the table is woken when it wishes.
    Wait(u16),
}

#[derive(Arbitrary, Debug)]
struct Said {
    node: u8,
    blob: u8,
    /// Another cut than the usual one, by a few.
    cut: bool,
    dropped: bool,
    gained: Vec<(u8, u8)>,
}

/// Takes choices.
pub fn check(data: &[u8]) {
    let mut u = Unstructured::new(data);
    let Ok(mut history) = History::new(&mut u) else { return };
    for _ in 0..STEPS {
        match u.is_empty() {
            false => u.arbitrary().map(|step| history.take(step)).unwrap_or_default(),
            true => break,
        }
    }
    history.end();
}

struct History {
    table: Table,
    policy: Policy,
    now: Tick,
    nodes: BTreeMap<NodeId, (Role, Place)>,
    /// Pieces that nodes have said to hold, under any cut.
    held: BTreeMap<(NodeId, BlobKey), BTreeSet<PieceIndex>>,
    /// Who has said to want which blob; the table may know better.
    wanted: BTreeSet<(NodeId, BlobKey)>,
}

impl History {
    fn new(u: &mut Unstructured<'_>) -> Result<Self> {
        let policy = Policy {
            n_near: u.int_in_range(2..=12)?,
            back_to_source_count: u.int_in_range(0..=3)?,
            retry_back_to_source_limit: u.int_in_range(0..=2)?,
            retry_limit: u.int_in_range(0..=5)?,
            seeds_at_once: u.int_in_range(1..=3)?,
            ..Policy::default()
        };
        let table = Table::new(policy, Rng::new(u.arbitrary()?));
        let (nodes, held, wanted) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
        let mut it = Self { table, policy, now: Tick(0), nodes, held, wanted };
        let n_nodes = u.int_in_range(0..=NODES)?;
        (0..n_nodes).for_each(|node| it.take(Step::Joined { node, place: node }));
        Ok(it)
    }

    fn take(&mut self, step: Step) {
        let event = match step {
            Step::Joined { node, place } => {
                let role = if node % NODES < GATEWAYS { Role::Gateway } else { Role::Sidecar };
                Event::Joined { node: id(node), role, place: self::place(place) }
            }
            Step::Left(node) => Event::Left(id(node)),
            Step::Want { said, moved } => Event::Want { report: report(said), moved },
            Step::Progress(said) => Event::Progress(report(said)),
            Step::Unwant { node, blob } => Event::Unwant { node: id(node), key: key(blob) },
            Step::Stranded { node, blob } => Event::Stranded { node: id(node), key: key(blob) },
            Step::Wait(millis) => return self.wait(Duration::from_millis(millis.into())),
        };
        self.feed(event);
    }

    fn feed(&mut self, event: Event) {
        self.note(&event);
        let mut orders = Vec::new();
        self.table.on_event(self.now, event, &mut orders);
        orders.iter().for_each(|it| self.ordered(it));
        assert_eq!(self.table.n_nodes(), self.nodes.len());
        let deadline = self.table.next_deadline(self.now);
        assert!(deadline.is_none_or(|it| it > self.now), "{deadline:?} is not ahead of {}", self.now);
        #[cfg(debug_assertions)]
        self.table.check();
    }

    fn note(&mut self, event: &Event) {
        match event {
            Event::Joined { node, role, place } => {
                self.forget(node);
                self.nodes.insert(node.clone(), (*role, place.clone()));
            }
            Event::Left(node) => {
                self.forget(node);
                self.nodes.remove(node);
            }
            Event::Want { report: it, .. } | Event::Progress(it) => {
                let held = self.held.entry((it.node.clone(), it.key.clone())).or_default();
                if it.dropped {
                    held.clear();
                }
                held.extend(it.gained.iter().cloned().flatten());
                if matches!(event, Event::Want { .. }) {
                    self.wanted.insert((it.node.clone(), it.key.clone()));
                }
            }
            Event::Unwant { node, key } => drop(self.wanted.remove(&(node.clone(), key.clone()))),
            Event::Stranded { .. } | Event::Deadline => {}
        }
    }

    fn forget(&mut self, node: &NodeId) {
        self.held.retain(|(it, _), _| it != node);
        self.wanted.retain(|(it, _)| it != node);
    }

    fn ordered(&self, order: &Order) {
        let Order { to, key, what } = order;
        let role = |node: &NodeId| {
            self.nodes.get(node).unwrap_or_else(|| panic!("{node} is not there: {order:?}")).0
        };
        let wants = self.wanted.contains(&(to.clone(), key.clone()));
        match what {
            What::Seed { holders } => {
                assert_eq!(role(to), Role::Gateway, "{order:?}");
                assert!(holders.iter().all(|it| it != to && self.nodes.contains_key(it)), "{order:?}");
            }
            What::GoDirect => assert!(role(to) == Role::Sidecar && wants, "{order:?}"),
            What::Lease { from, pieces } => {
                assert!(role(to) == Role::Sidecar && wants && from != to, "{order:?}");
                assert!(!pieces.is_empty() && pieces.iter().all(|it| it.start < it.end), "{order:?}");
                assert!(pieces.is_sorted_by(|one, next| one.end < next.start), "{order:?}");
                assert!(pieces.iter().all(|it| it.end <= most_pieces(key)), "{order:?}");
                let held = self.held.get(&(from.clone(), key.clone()));
                let has = |it: PieceIndex| held.is_some_and(|held| held.contains(&it));
                let is_gateway = role(from) == Role::Gateway;
                assert!(is_gateway || pieces.iter().cloned().flatten().all(has), "not held there: {order:?}");
            }
            What::Neighbours { near, far, gateway, .. } => {
                assert!(role(to) == Role::Sidecar && wants, "{order:?}");
                assert!(gateway.iter().all(|it| role(it) == Role::Gateway), "{order:?}");
                let all: Vec<_> = near.iter().chain(far).collect();
                assert!(all.iter().all(|it| role(it) == Role::Sidecar && *it != to), "{order:?}");
                assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len(), "named twice: {order:?}");
                assert!(far.len() <= self.policy.n_far, "{order:?}");
            }
        }
    }

    fn wait(&mut self, span: Duration) {
        let until = self.now.after(span);
        for _ in 0..64 {
            let Some(at) = self.table.next_deadline(self.now).filter(|it| *it <= until) else { break };
            self.now = at;
            self.feed(Event::Deadline);
        }
        self.now = until;
    }

    /// When everybody has gone, nothing is left.
    fn end(&mut self) {
        let nodes: Vec<_> = self.nodes.keys().cloned().collect();
        nodes.into_iter().for_each(|it| self.feed(Event::Left(it)));
        assert_eq!((self.table.n_blobs(), self.table.next_deadline(self.now)), (0, None));
    }
}

fn id(number: u8) -> NodeId {
    NodeId::new(&format!("n{:02}", number % NODES))
}

/// Two zones of two racks, one of which has no name.
fn place(number: u8) -> Place {
    let zone = ["", "y", "z", "z"][usize::from(number % 4)];
    let rack = ["", "r", "r", "s"][usize::from(number / 4 % 4)];
    Place { zone: zone.into(), rack: rack.into() }
}

fn key(number: u8) -> BlobKey {
    BlobKey { group: TrustGroup::new("g"), digest: Digest::from_sha256([number % BLOBS; 32]) }
}

/// Blobs differ in their number of pieces, of which one has none.
fn geometry(key: &BlobKey, cut: bool) -> Geometry {
    let size = [40, 5, 0][usize::from(key.digest.as_bytes()[0])];
    Geometry::stated(size, if cut { 2 } else { 1 }).expect("a few pieces")
}

fn most_pieces(key: &BlobKey) -> u32 {
    geometry(key, false).n_pieces()
}

fn report(said: Said) -> Report {
    let Said { node, blob, cut, dropped, gained } = said;
    let key = key(blob);
    let geometry = geometry(&key, cut);
    // The wire contracts let nothing but this pass.
    let mut all = Bitmap::new(64);
    gained.into_iter().take(4).for_each(|it| all.insert_range(range(it)));
    Report { node: id(node), key, geometry, dropped, gained: all.runs() }
}

fn range((first, count): (u8, u8)) -> Range<PieceIndex> {
    let first = u32::from(first) % 48;
    first..first + u32::from(count) % 48
}
