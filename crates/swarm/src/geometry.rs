//! How a blob is cut into pieces.
//!
//! One rule for all nodes, because a piece number means nothing without it. The gateway states the
//! piece length when a blob is opened, so a fleet may change it without two nodes ever disagreeing
//! about one blob.

use std::ops::Range;

use crate::Bitmap;

/// The number of a piece within its blob, from 0.
pub type PieceIndex = u32;

/// The shortest piece that the rule chooses: below this, requests cost more than the bytes.
pub const MIN_PIECE: u64 = 256 << 10;
/// The longest piece that the rule chooses: above this, a node waits too long before it can share.
pub const MAX_PIECE: u64 = 4 << 20;
/// The number of pieces that the rule aims at. The broadcast bound is (pieces + log2 nodes) * time of
/// one piece, so 500 keeps the overhead of 10,000 nodes below 3 %.
const AIM: u64 = 500;
/// No blob may have more pieces than this, whatever its stated size: bitmaps and digest lists stay bounded.
pub const MAX_PIECES: u64 = 1 << 20;

/// A blob's size and how it is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    size: u64,
    piece_length: u64,
}

impl Geometry {
    /// Cuts a blob of `size` bytes by the rule: a power of two between 256 KiB and 4 MiB aiming at
    /// about 500 pieces; longer only where a blob would otherwise pass the cap on pieces.
    pub fn by_rule(size: u64) -> Self {
        let aimed = (size / AIM).max(1).next_power_of_two();
        let floor = size.div_ceil(MAX_PIECES).next_power_of_two();
        Self { size, piece_length: aimed.clamp(MIN_PIECE, MAX_PIECE).max(floor) }
    }

    /// Takes a stated cut. `None` where the piece length is 0 or the blob would have too many pieces.
    pub fn stated(size: u64, piece_length: u64) -> Option<Self> {
        (piece_length > 0 && size.div_ceil(piece_length) <= MAX_PIECES).then_some(Self { size, piece_length })
    }

    /// The blob's length in bytes.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// The length in bytes of every piece but the last.
    pub const fn piece_length(&self) -> u64 {
        self.piece_length
    }

    /// How many pieces there are; 0 for an empty blob.
    pub const fn n_pieces(&self) -> u32 {
        // Both constructors keep this below MAX_PIECES, which fits.
        self.size.div_ceil(self.piece_length) as u32
    }

    /// The bytes of one piece, as an interval of the blob; empty past the end.
    pub fn range_of(&self, piece: PieceIndex) -> Range<u64> {
        // What is too large for a number lies past the end as well.
        let start = u64::from(piece).saturating_mul(self.piece_length).min(self.size);
        start..start.saturating_add(self.piece_length).min(self.size)
    }

    /// The length of one piece in bytes.
    pub fn len_of(&self, piece: PieceIndex) -> u64 {
        let range = self.range_of(piece);
        range.end - range.start
    }

    /// The length of all these pieces together in bytes.
    pub fn len_of_all(&self, pieces: &Bitmap) -> u64 {
        let last = self.n_pieces().saturating_sub(1);
        let lacking = if pieces.contains(last) { self.piece_length - self.len_of(last) } else { 0 };
        u64::from(pieces.count()) * self.piece_length - lacking
    }

    /// The piece that holds the byte at `offset`.
    pub const fn piece_at(&self, offset: u64) -> PieceIndex {
        (offset / self.piece_length) as PieceIndex
    }

    /// The pieces that together cover `bytes`.
    pub fn pieces_covering(&self, bytes: Range<u64>) -> Range<PieceIndex> {
        if bytes.start >= bytes.end.min(self.size) {
            return 0..0;
        }
        self.piece_at(bytes.start)..self.piece_at(bytes.end.min(self.size) - 1) + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_rule_aims_at_five_hundred_pieces() {
        const MI: u64 = 1 << 20;
        for (size, piece_length, n_pieces) in [
            (0, MIN_PIECE, 0),
            (1, MIN_PIECE, 1),
            (64 * MI, MIN_PIECE, 256),
            (500 * MI, MI, 500),
            (100 << 30, MAX_PIECE, 25_600),
        ] {
            let it = Geometry::by_rule(size);
            assert_eq!((it.piece_length(), it.n_pieces()), (piece_length, n_pieces), "{size}");
        }
        assert!(u64::from(Geometry::by_rule(u64::MAX / 4).n_pieces()) <= MAX_PIECES);
    }

    #[test]
    fn no_size_is_too_large_to_be_cut() {
        for it in [
            Geometry::by_rule(u64::MAX),
            Geometry::stated(u64::MAX, 1 << 63).unwrap(),
            Geometry::stated(5, u64::MAX).unwrap(),
        ] {
            let last = it.range_of(it.n_pieces() - 1);
            assert!(last.end == it.size() && !last.is_empty(), "{it:?} {last:?}");
            for past in [it.n_pieces(), u32::MAX] {
                assert_eq!((it.range_of(past), it.len_of(past)), (it.size()..it.size(), 0), "{it:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn pieces_tile_the_blob(size in 0u64..1 << 30, piece_length in 1u64 << 10..1 << 24) {
            let it = Geometry::stated(size, piece_length).ok_or_else(|| TestCaseError::reject("too many"))?;
            let mut end = 0;
            for piece in 0..it.n_pieces().min(2000) {
                let range = it.range_of(piece);
                prop_assert_eq!(range.start, end);
                prop_assert!(range.end > range.start);
                prop_assert_eq!(it.piece_at(range.start), piece);
                prop_assert_eq!(it.piece_at(range.end - 1), piece);
                end = range.end;
            }
            prop_assert_eq!(it.pieces_covering(0..size), 0..it.n_pieces());
        }
    }
}
