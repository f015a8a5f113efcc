//! Circles: those members of a blob that stand together, in a rack, in a zone, in the region.
//!
//! A circle of enough members is an *import level*: its members fetch from each other, and each piece is
//! brought into it about once, by whoever holds the lease on it ([`super::leases`]). So the links between racks
//! and zones carry about one copy. A circle of a few is none, for there each piece would be leased to save
//! hardly a copy; its members belong to the next wider one. The region is a level always. What has become a level
//! stays one until its last member leaves, so that neighbours do not change with each who comes and goes.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use shoal_model::{Rng, Tick};

use super::NodeNumber;
use super::place::PlaceNumber;
use crate::average::averaged;
use crate::{Bitmap, PieceIndex};

/// A circle with so many members is a level.
const LEVEL: usize = 4;
/// A member that brought a piece into one circle supplies so many others with it, who then do the same: so
/// the circles that have it multiply, and nobody has to serve them all.
const CREDIT: u8 = 3;
/// Suppliers that are kept in mind for one piece; later ones are found among those that hold it.
const SUPPLIERS: usize = 16;

/// One circle of a blob.
#[derive(Debug, Default)]
pub(super) struct Circle {
    /// The sidecars in it, in no order.
    pub crowd: Vec<NodeNumber>,
    pub level: Option<Level>,
}

/// What the members of a circle hold between them, and bring in.
#[derive(Debug)]
pub(super) struct Level {
    /// Members that hold every piece: most do, of most blobs.
    n_whole: u32,
    /// How many others hold each piece; left out where members hold all or nothing.
    copies: Box<[u32]>,
    /// The pieces that some member holds.
    covered: Bitmap,
    /// The pieces that no member holds and none brings in.
    open: Bitmap,
    leases: BTreeMap<PieceIndex, Lease>,
    /// Moving average of how long a lease took to bring its piece in, in microseconds; 0 before the first.
    import_time: u64,
    /// The level just around this one; none for the region.
    pub wider: Option<PlaceNumber>,
    /// The levels just within this one.
    pub children: Vec<PlaceNumber>,
    /// Holders of a piece that may supply it to those, and how often yet.
    suppliers: BTreeMap<PieceIndex, Vec<(NodeNumber, u8)>>,
}

/// A piece that one member brings in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lease {
    pub holder: NodeNumber,
    /// Since when the holder could take the piece up.
    pub since: Tick,
}

impl Circle {
    /// Whether the circle has become large enough to be a level, and is none yet.
    pub(super) const fn is_due(&self) -> bool {
        self.level.is_none() && self.crowd.len() >= LEVEL
    }

    /// Up to `most` members, at random: from some place in the crowd on, by steps of some length that comes to
    /// everybody before it comes to anybody twice.
    pub(super) fn draw(&self, most: usize, rng: &mut Rng) -> impl Iterator<Item = NodeNumber> {
        let n_members = self.crowd.len();
        let mut at = rng.below(n_members);
        let mut step = 1 + rng.below(n_members);
        while !are_coprime(step, n_members) {
            step = 1 + rng.below(n_members);
        }
        (0..n_members.min(most)).filter_map(move |_| {
            at = (at + step) % n_members;
            self.crowd.get(at).copied()
        })
    }
}

/// By Euclid; nobody has anything in common with an empty crowd.
const fn are_coprime(one: usize, other: usize) -> bool {
    let (mut large, mut small) = (one, other);
    while small != 0 {
        (large, small) = (small, large % small);
    }
    large == 1
}

impl Level {
    /// A level whose members hold nothing.
    pub(super) fn new(n_pieces: u32, wider: Option<PlaceNumber>) -> Self {
        Self {
            n_whole: 0,
            copies: Box::default(),
            covered: Bitmap::new(n_pieces),
            open: Bitmap::full(n_pieces),
            leases: BTreeMap::new(),
            import_time: 0,
            wider,
            children: Vec::new(),
            suppliers: BTreeMap::new(),
        }
    }

    pub(super) const fn covered(&self) -> &Bitmap {
        &self.covered
    }

    pub(super) const fn open(&self) -> &Bitmap {
        &self.open
    }

    /// One more member holds the piece. `Some` where none did before, with the lease that ends by that.
    #[expect(clippy::indexing_slicing, reason = "`copies` counts every piece that a bitmap can hold")]
    pub(super) fn gained(&mut self, piece: PieceIndex) -> Option<Option<Lease>> {
        self.count_pieces();
        let copies = &mut self.copies[piece as usize];
        *copies += 1;
        (*copies == 1 && self.n_whole == 0).then(|| {
            self.covered.insert(piece);
            self.open.remove(piece);
            self.leases.remove(&piece)
        })
    }

    /// A lease took so long to bring its piece in.
    pub(super) fn imported(&mut self, took: Duration) {
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
        self.import_time = averaged(self.import_time, took);
    }

    /// What a lease takes to bring its piece in, where one has.
    pub(super) fn import_time(&self) -> Option<Duration> {
        (self.import_time > 0).then(|| Duration::from_micros(self.import_time))
    }

    /// One more member holds every piece, and held none before; false where it is the first, whose pieces count.
    pub(super) const fn gained_whole(&mut self) -> bool {
        if self.n_whole == 0 {
            return false;
        }
        self.n_whole += 1;
        true
    }

    /// A member has gained the last piece that it lacked.
    pub(super) fn completed(&mut self) {
        self.n_whole += 1;
        self.copies.iter_mut().for_each(|it| *it -= 1);
        if self.copies.iter().all(|it| *it == 0) {
            self.copies = Box::default();
        }
    }

    /// The member holds nothing any more of what it held; what nobody holds has to be brought in again.
    pub(super) fn dropped(&mut self, node: NodeNumber, held: &Bitmap) {
        if held.is_empty() {
            return;
        }
        self.count_pieces();
        if held.is_full() {
            self.n_whole -= 1;
            self.copies.iter_mut().for_each(|it| *it += 1);
        }
        held.iter().for_each(|it| self.lost(it, node));
    }

    #[expect(clippy::indexing_slicing, reason = "`copies` counts every piece that a bitmap can hold")]
    fn lost(&mut self, piece: PieceIndex, node: NodeNumber) {
        let copies = &mut self.copies[piece as usize];
        *copies -= 1;
        if *copies == 0 && self.n_whole == 0 {
            self.covered.remove(piece);
            self.open.insert(piece);
        }
        if let Some(suppliers) = self.suppliers.get_mut(&piece) {
            suppliers.retain(|(it, _)| *it != node);
        }
    }

    fn count_pieces(&mut self) {
        if self.copies.is_empty() {
            self.copies = vec![0; self.covered.len() as usize].into();
        }
    }

    pub(super) fn lease(&mut self, piece: PieceIndex, holder: NodeNumber, since: Tick) {
        self.open.remove(piece);
        self.leases.insert(piece, Lease { holder, since });
    }

    /// The pieces that are being brought in, and by whom.
    pub(super) fn leases(&self) -> impl Iterator<Item = (PieceIndex, NodeNumber)> {
        self.leases.iter().map(|(piece, it)| (*piece, it.holder))
    }

    /// Leases on these pieces can be taken up from now on.
    pub(super) fn begin_leases(&mut self, pieces: Range<PieceIndex>, now: Tick) {
        if !pieces.is_empty() {
            self.leases.range_mut(pieces).for_each(|(_, it)| it.since = it.since.max(now));
        }
    }

    /// Takes back the leases for which `ends` says so; returns whose they were.
    pub(super) fn take_back(&mut self, mut ends: impl FnMut(PieceIndex, Lease) -> bool) -> Vec<NodeNumber> {
        let mut holders = Vec::new();
        self.leases.retain(|piece, it| {
            let ends = ends(*piece, *it);
            if ends {
                self.open.insert(*piece);
                holders.push(it.holder);
            }
            !ends
        });
        holders
    }

    /// The member brought the piece into a circle within this one, and may supply the others.
    pub(super) fn add_supplier(&mut self, piece: PieceIndex, node: NodeNumber) {
        let suppliers = self.suppliers.entry(piece).or_default();
        if suppliers.len() < SUPPLIERS {
            suppliers.push((node, CREDIT));
        }
    }

    /// Nobody is to be supplied any more.
    pub(super) fn forget_suppliers(&mut self) {
        self.suppliers = BTreeMap::new();
    }

    /// One who may supply the piece: the one with most credit left, a part of which is used up.
    pub(super) fn supplier(&mut self, piece: PieceIndex) -> Option<NodeNumber> {
        let suppliers = self.suppliers.get_mut(&piece)?;
        let best = suppliers.iter_mut().max_by_key(|(_, credit)| *credit);
        let best = best.map(|(node, credit)| {
            *credit -= 1;
            *node
        });
        suppliers.retain(|(_, credit)| *credit > 0);
        if suppliers.is_empty() {
            self.suppliers.remove(&piece);
        }
        best
    }
}

#[cfg(debug_assertions)]
impl Level {
    pub(super) fn suppliers(&self) -> impl Iterator<Item = (PieceIndex, NodeNumber)> {
        self.suppliers.iter().flat_map(|(piece, all)| all.iter().map(|(node, _)| (*piece, *node)))
    }
}
