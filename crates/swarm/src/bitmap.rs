//! Which pieces of a blob are there.
//!
//! Most sets that are kept for long are of blobs that lie whole in a store, or of which nothing is there yet. A
//! scheduler keeps one for each blob of each node, so these two take no memory beyond their two counts.

use std::ops::Range;

use crate::PieceIndex;

/// Pieces in a word.
const WORD: u32 = u64::BITS;

/// A set of piece numbers below a fixed length.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bitmap {
    /// A bit for each piece; none where the set is empty or full.
    words: Box<[u64]>,
    len: u32,
    ones: u32,
}

impl Bitmap {
    /// An empty set that can hold the pieces `0..len`.
    pub fn new(len: u32) -> Self {
        Self { words: Box::default(), len, ones: 0 }
    }

    /// The set of all pieces `0..len`.
    pub fn full(len: u32) -> Self {
        Self { words: Box::default(), len, ones: len }
    }

    /// How many pieces the set could hold.
    pub const fn len(&self) -> u32 {
        self.len
    }

    /// How many pieces it holds.
    pub const fn count(&self) -> u32 {
        self.ones
    }

    /// Whether it holds no piece.
    pub const fn is_empty(&self) -> bool {
        self.ones == 0
    }

    /// Whether it holds every piece.
    pub const fn is_full(&self) -> bool {
        self.ones == self.len
    }

    /// Whether `piece` is held; never for a piece past the end.
    pub fn contains(&self, piece: PieceIndex) -> bool {
        match self.words.get((piece / WORD) as usize) {
            Some(word) => word & bit(piece) != 0,
            None => piece < self.len && self.is_full(),
        }
    }

    /// Adds a piece and says whether that changed anything; a piece past the end is ignored.
    #[expect(clippy::indexing_slicing, reason = "unfolded, it has a word for each piece that it can hold")]
    pub fn insert(&mut self, piece: PieceIndex) -> bool {
        let fresh = piece < self.len && !self.contains(piece);
        if fresh {
            self.unfold();
            self.words[(piece / WORD) as usize] |= bit(piece);
            self.ones += 1;
            self.fold();
        }
        fresh
    }

    /// Adds an interval of pieces.
    pub fn insert_range(&mut self, pieces: Range<PieceIndex>) {
        if pieces.start == 0 && pieces.end >= self.len {
            *self = Self::full(self.len);
            return;
        }
        for piece in pieces.start..pieces.end.min(self.len) {
            self.insert(piece);
        }
    }

    /// Takes a piece out and says whether it was held.
    #[expect(clippy::indexing_slicing, reason = "unfolded, it has a word for each piece that it can hold")]
    pub fn remove(&mut self, piece: PieceIndex) -> bool {
        let held = self.contains(piece);
        if held {
            self.unfold();
            self.words[(piece / WORD) as usize] &= !bit(piece);
            self.ones -= 1;
            self.fold();
        }
        held
    }

    /// How many of these pieces are held.
    pub fn count_in(&self, pieces: Range<PieceIndex>) -> u32 {
        let Some(last) = pieces.end.min(self.len).checked_sub(1).filter(|it| *it >= pieces.start) else {
            return 0;
        };
        let (first, last_word) = (pieces.start / WORD, last / WORD);
        let held_in = |at: u32| {
            let from = if at == first { u64::MAX << (pieces.start % WORD) } else { u64::MAX };
            let to = if at == last_word { lowest(last % WORD + 1) } else { u64::MAX };
            (self.word(at as usize) & from & to).count_ones()
        };
        (first..=last_word).map(held_in).sum()
    }

    /// The held pieces in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = PieceIndex> + '_ {
        (0..self.n_words()).flat_map(|at| {
            let mut left = self.word(at);
            std::iter::from_fn(move || {
                (left != 0).then(|| {
                    let bit = left.trailing_zeros();
                    left &= left - 1;
                    at as u32 * WORD + bit
                })
            })
        })
    }

    /// The first piece from `from` on that is not held.
    pub fn first_missing(&self, from: PieceIndex) -> Option<PieceIndex> {
        let mut mask = u64::MAX << (from % WORD);
        for at in (from / WORD) as usize..self.n_words() {
            let missing = !self.word(at) & mask;
            if missing != 0 {
                let piece = at as u32 * WORD + missing.trailing_zeros();
                return (piece < self.len).then_some(piece);
            }
            mask = u64::MAX;
        }
        None
    }

    /// The maximal runs of held pieces, as the wire and the scheduler's reports carry them.
    pub fn runs(&self) -> Vec<Range<PieceIndex>> {
        runs(self.iter())
    }

    /// Adds what `other` holds; both are of the same length.
    pub fn unite(&mut self, other: &Self) {
        if self.is_full() || other.is_empty() {
            return;
        }
        self.combine(other, |own, other| own | other);
    }

    /// Takes out what `other` holds; both are of the same length.
    pub fn subtract(&mut self, other: &Self) {
        if self.is_empty() || other.is_empty() {
            return;
        }
        self.combine(other, |own, other| own & !other);
    }

    /// Keeps what `other` holds as well; both are of the same length.
    pub fn intersect(&mut self, other: &Self) {
        if self.is_empty() || other.is_full() {
            return;
        }
        self.combine(other, |own, other| own & other);
    }

    fn combine(&mut self, other: &Self, with: impl Fn(u64, u64) -> u64) {
        debug_assert_eq!(self.len, other.len, "two sets of pieces of one blob");
        self.unfold();
        self.ones = 0;
        for (at, own) in self.words.iter_mut().enumerate() {
            *own = with(*own, other.word(at));
            self.ones += own.count_ones();
        }
        self.fold();
    }

    /// Whether any piece held here is lacking in `other`.
    pub fn has_beyond(&self, other: &Self) -> bool {
        (0..self.n_words()).any(|at| self.word(at) & !other.word(at) != 0)
    }

    /// The pieces held here that `other` lacks.
    pub fn minus(&self, other: &Self) -> Self {
        let words: Box<[u64]> = (0..self.n_words()).map(|at| self.word(at) & !other.word(at)).collect();
        let ones = words.iter().map(|word| word.count_ones()).sum();
        let mut it = Self { words, len: self.len, ones };
        it.fold();
        it
    }

    const fn n_words(&self) -> usize {
        self.len.div_ceil(WORD) as usize
    }

    /// The bits of 64 pieces, whether they are written down or not.
    fn word(&self, at: usize) -> u64 {
        match self.words.get(at) {
            Some(word) => *word,
            None if self.is_full() => lowest(self.len.saturating_sub(at as u32 * WORD)),
            None => 0,
        }
    }

    /// Writes the bits down, so that they can be changed.
    fn unfold(&mut self) {
        if self.words.is_empty() {
            self.words = (0..self.n_words()).map(|at| self.word(at)).collect();
        }
    }

    /// Forgets the bits where the counts say it all.
    fn fold(&mut self) {
        if self.is_empty() || self.is_full() {
            self.words = Box::default();
        }
    }
}

const fn bit(piece: PieceIndex) -> u64 {
    1 << (piece % WORD)
}

/// A word with its lowest bits set, so many of them.
const fn lowest(n_bits: u32) -> u64 {
    if n_bits < WORD { (1 << n_bits) - 1 } else { u64::MAX }
}

/// The maximal runs of pieces that come in ascending order.
pub fn runs(pieces: impl IntoIterator<Item = PieceIndex>) -> Vec<Range<PieceIndex>> {
    let mut runs: Vec<Range<PieceIndex>> = Vec::new();
    for piece in pieces {
        match runs.last_mut() {
            Some(run) if run.end == piece => run.end += 1,
            _ => runs.push(piece..piece + 1),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn it_behaves_like_a_set(len in 0u32..300, steps: Vec<(bool, u16)>) {
            let (mut map, mut set) = (Bitmap::new(len), BTreeSet::new());
            for (add, piece) in steps {
                let piece = u32::from(piece) % 320;
                if add {
                    prop_assert_eq!(map.insert(piece), piece < len && set.insert(piece));
                } else {
                    prop_assert_eq!(map.remove(piece), set.remove(&piece));
                }
            }
            prop_assert_eq!(map.count() as usize, set.len());
            prop_assert_eq!(map.iter().collect::<Vec<_>>(), set.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!(map.runs().into_iter().flatten().collect::<BTreeSet<_>>(), set.clone());
            for from in 0..len {
                prop_assert_eq!(map.first_missing(from), (from..len).find(|it| !set.contains(it)));
                let pieces = from..from + 70;
                prop_assert_eq!(map.count_in(pieces.clone()) as usize, set.range(pieces).count());
            }
            prop_assert!(Bitmap::full(len).minus(&map).iter().all(|it| !set.contains(&it)));
            let mut both = map.clone();
            both.unite(&Bitmap::full(len).minus(&map));
            prop_assert_eq!(&both, &Bitmap::full(len));
            let mut common = both.clone();
            common.intersect(&map);
            prop_assert_eq!(&common, &map);
            both.subtract(&map);
            prop_assert_eq!(both, Bitmap::full(len).minus(&map));
            prop_assert!(Bitmap::full(len).is_full());
            prop_assert_eq!(Bitmap::full(len).has_beyond(&map), !map.is_full());
            prop_assert!(!map.has_beyond(&Bitmap::full(len)));
        }
    }
}
