//! The pieces of a blob that the disk did not take.

use bytes::Bytes;
use shoal_swarm::PieceIndex;
use tokio::time::Instant;

use super::State;
use crate::memory::Roomed;

#[derive(Debug)]
pub(super) struct InMemory {
    pub(super) bytes: Roomed,
    /// When it came or was last read.
    pub(super) used: Instant,
    /// Somebody has read it to its end.
    pub(super) is_read: bool,
}

/// What of a blob in memory is needed least, as these compare: what was read, then what was used least recently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Spare {
    pub(crate) is_unread: bool,
    pub(crate) used: Instant,
    pub(crate) piece: PieceIndex,
}

impl State {
    /// The bytes of a piece that is in memory, and that is read at `now` up to the byte `end` of the blob.
    pub(crate) fn in_memory(&mut self, now: Instant, piece: PieceIndex, end: u64) -> Option<&[u8]> {
        let is_read = end >= self.geometry.range_of(piece).end;
        let kept = self.memory.get_mut(&piece)?;
        kept.used = now;
        kept.is_read |= is_read;
        Some(&kept.bytes)
    }

    /// A piece in memory that nobody is writing to the disk.
    pub(crate) fn unstored(&self) -> Option<(PieceIndex, Bytes)> {
        let (piece, kept) = self.memory.iter().find(|(piece, _)| !self.writing.contains(*piece))?;
        Some((*piece, kept.bytes.share()))
    }

    /// What in memory can go first.
    pub(crate) fn spare(&self) -> Option<Spare> {
        let spare = |(piece, it): (&PieceIndex, &InMemory)| Spare {
            is_unread: !it.is_read,
            used: it.used,
            piece: *piece,
        };
        self.memory.iter().map(spare).min()
    }

    /// Drops a piece that lies on the disk, if there is one.
    pub(crate) fn lose(&mut self, piece: PieceIndex) -> bool {
        let is_there = self.lies_on_disk(piece);
        if is_there {
            self.drop_piece(piece);
        }
        is_there
    }

    /// Drops a piece from memory, if it is there.
    pub(crate) fn forget(&mut self, piece: PieceIndex) -> bool {
        let is_there = self.memory.contains_key(&piece);
        if is_there {
            self.drop_piece(piece);
        }
        is_there
    }

    /// Drops all pieces in memory, since nobody uses the blob any more; true where there were any.
    pub(crate) fn forget_all(&mut self) -> bool {
        self.is_stored = true;
        let pieces: Vec<_> = self.memory.keys().copied().collect();
        pieces.iter().for_each(|it| self.drop_piece(*it));
        !pieces.is_empty()
    }
}
