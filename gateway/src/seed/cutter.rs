//! Cuts a stream of bytes into pieces.
//!
//! The bytes are not copied: a piece is the list of the chunks that it came in.

use bytes::Bytes;
use shoal_swarm::{Geometry, PieceIndex};

/// A whole piece.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) index: PieceIndex,
    pub(super) chunks: Vec<Bytes>,
}

/// The stream so far.
pub(super) struct Cutter {
    geometry: Geometry,
    /// How many bytes have been taken, from the blob's beginning.
    offset: u64,
    /// The last piece as far as it has come.
    chunks: Vec<Bytes>,
}

impl Cutter {
    /// For a stream that begins with the piece `first`.
    pub(super) fn new(geometry: Geometry, first: PieceIndex) -> Self {
        Self { geometry, offset: geometry.range_of(first).start, chunks: Vec::new() }
    }

    /// How many bytes there are, from the blob's beginning.
    pub(super) const fn offset(&self) -> u64 {
        self.offset
    }

    /// Takes bytes off the front of `stream`, up to the end of a piece, and returns that piece where it is
    /// whole. What lies past the blob's end is left.
    pub(super) fn take(&mut self, stream: &mut Bytes) -> Option<Piece> {
        let index = self.geometry.piece_at(self.offset);
        let end = self.geometry.range_of(index).end;
        let missing = end.saturating_sub(self.offset).min(stream.len() as u64);
        // At most the length of `stream`, so it fits.
        let chunk = stream.split_to(missing as usize);
        if chunk.is_empty() {
            return None;
        }
        self.offset += missing;
        self.chunks.push(chunk);
        (self.offset == end).then(|| Piece { index, chunks: std::mem::take(&mut self.chunks) })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn however_the_stream_is_chunked_the_pieces_are_the_same(
            len in 0usize..300,
            piece_length in 1u64..50,
            chunk_lengths in proptest::collection::vec(1usize..60, 1..20),
        ) {
            let content = Bytes::from_iter((0..len).map(|it| it as u8));
            let geometry = Geometry::stated(len as u64, piece_length).unwrap();
            let mut cutter = Cutter::new(geometry, 0);
            let mut pieces = Vec::new();
            let mut stream = content.clone();
            for chunk_length in chunk_lengths.into_iter().cycle() {
                if stream.is_empty() {
                    break;
                }
                let mut chunk = stream.split_to(chunk_length.min(stream.len()));
                while !chunk.is_empty() {
                    pieces.extend(cutter.take(&mut chunk));
                }
            }
            prop_assert_eq!(cutter.offset(), len as u64);
            prop_assert_eq!(pieces.len() as u32, geometry.n_pieces());
            for (index, piece) in (0..).zip(pieces) {
                prop_assert_eq!(piece.index, index);
                let range = geometry.range_of(index);
                prop_assert_eq!(piece.chunks.concat(), &content[range.start as usize..range.end as usize]);
            }
        }
    }

    #[test]
    fn a_stream_that_goes_on_past_the_end_is_left() {
        let geometry = Geometry::stated(10, 4).unwrap();
        let mut cutter = Cutter::new(geometry, 2);
        let mut stream = Bytes::from_static(b"89more");
        assert_eq!(cutter.take(&mut stream).map(|it| it.index), Some(2));
        assert_eq!(cutter.take(&mut stream), None);
        assert_eq!((stream, cutter.offset()), (Bytes::from_static(b"more"), 10));
    }
}
