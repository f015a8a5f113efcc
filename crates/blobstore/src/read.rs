//! Bytes out of the store.
//!
//! The bytes of a piece that is unverified are hashed first. A piece that does not match, or cannot be
//! read, is dropped and is then a miss like any other: the caller fetches it. Only a disk that fails on
//! good pieces is an error.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use bytes::{Bytes, BytesMut};
use shoal_swarm::PieceIndex;

use crate::entry::Entry;
use crate::state::{Access, Reader};
use crate::{Blob, PieceDigest, StoreError};

/// The most bytes that one read returns.
pub const MAX_READ: u64 = 16 << 20;

/// The buffer for hashing what lies on disk: large enough that a read call costs nothing beside the hash,
/// small enough to stay in the cache between the two.
const HASH_BUFFER: u64 = 256 << 10;

impl Blob {
    /// Reads bytes for this node's own runtime, from held and provisional pieces, at most [`MAX_READ`].
    ///
    /// Fails with `NotHeld` where a piece is missing or was found damaged, with `PastEnd` and `TooLong` for
    /// a range that the caller must not ask, with `Io` when the disk fails.
    pub async fn read(&self, range: Range<u64>) -> Result<Bytes, StoreError> {
        self.blocking(move |it| it.read(range, Reader::Local)).await
    }

    /// Reads bytes for another node, from held pieces only. Fails as [`read`](Self::read) does.
    pub async fn read_held(&self, range: Range<u64>) -> Result<Bytes, StoreError> {
        self.blocking(move |it| it.read(range, Reader::Peer)).await
    }
}

impl Entry {
    fn read(&self, range: Range<u64>, reader: Reader) -> Result<Bytes, StoreError> {
        let (data, generation) = self.data()?;
        let pieces = self.pieces_of(&range)?;
        self.settle(&data, generation, pieces.clone(), reader)?;
        let mut bytes = BytesMut::zeroed((range.end - range.start) as usize);
        if let Err(source) = data.read_exact_at(&mut bytes, range.start) {
            return Err(self.read_failed(&data, generation, pieces, source));
        }
        // A blob cleared during the read must not have its bytes served after that.
        if self.state.lock().generation != generation {
            return Err(self.not_held(pieces.start));
        }
        Ok(bytes.freeze())
    }

    fn pieces_of(&self, range: &Range<u64>) -> Result<Range<PieceIndex>, StoreError> {
        let geometry = self.state.lock().geometry;
        let asked = range.end.saturating_sub(range.start);
        if range.end > geometry.size() || range.start > range.end {
            return Err(StoreError::PastEnd {
                key: self.key.clone(),
                end: range.end.max(range.start),
                size: geometry.size(),
            });
        }
        if asked > MAX_READ {
            return Err(StoreError::TooLong { key: self.key.clone(), asked, allowed: MAX_READ });
        }
        Ok(geometry.pieces_covering(range.clone()))
    }

    /// Verifies what is unverified among `pieces`, until all may be read or one is missing.
    pub(crate) fn settle(
        &self,
        data: &File,
        generation: u64,
        pieces: Range<PieceIndex>,
        reader: Reader,
    ) -> Result<(), StoreError> {
        while let Some((piece, digest, bytes)) = self.next_unverified(generation, pieces.clone(), reader)? {
            let good = digest_at(data, bytes).is_ok_and(|it| it == digest);
            self.verified(generation, piece, good);
        }
        Ok(())
    }

    /// The first piece that has to be hashed, what it must match and where it lies.
    fn next_unverified(
        &self,
        generation: u64,
        pieces: Range<PieceIndex>,
        reader: Reader,
    ) -> Result<Option<(PieceIndex, PieceDigest, Range<u64>)>, StoreError> {
        let state = self.state.lock();
        if state.generation != generation {
            return Err(self.not_held(pieces.start));
        }
        match state.access(pieces, reader) {
            Access::Ready => Ok(None),
            Access::Missing(piece) => Err(self.not_held(piece)),
            Access::Unverified(piece, digest) => Ok(Some((piece, digest, state.geometry.range_of(piece)))),
        }
    }

    fn verified(&self, generation: u64, piece: PieceIndex, good: bool) {
        let dropped = {
            let mut state = self.state.lock();
            state.generation == generation && state.verified(piece, good)
        };
        if dropped {
            self.damaged(piece);
        }
    }

    /// Finds out whether a failed read is the fault of damaged pieces, which are then dropped, or the disk's.
    pub(crate) fn read_failed(
        &self,
        data: &File,
        generation: u64,
        pieces: Range<PieceIndex>,
        source: io::Error,
    ) -> StoreError {
        self.state.lock().mark_suspect();
        match self.settle(data, generation, pieces, Reader::Local) {
            Err(missing) => missing,
            Ok(()) => StoreError::io(self.files.lock().data_path())(source),
        }
    }

    fn not_held(&self, piece: PieceIndex) -> StoreError {
        StoreError::NotHeld { key: self.key.clone(), piece }
    }
}

/// Hands the bytes in `range` to `take`, a buffer at a time.
pub(crate) fn stream(data: &File, mut range: Range<u64>, mut take: impl FnMut(&[u8])) -> io::Result<()> {
    let len = (range.end - range.start).min(HASH_BUFFER);
    let mut buffer = vec![0; len as usize];
    while !range.is_empty() {
        let len = (range.end - range.start).min(HASH_BUFFER);
        let chunk = &mut buffer[..len as usize];
        data.read_exact_at(chunk, range.start)?;
        take(chunk);
        range.start += len;
    }
    Ok(())
}

fn digest_at(data: &File, range: Range<u64>) -> io::Result<PieceDigest> {
    let mut hasher = blake3::Hasher::new();
    stream(data, range, |chunk| {
        hasher.update(chunk);
    })?;
    Ok(PieceDigest(*hasher.finalize().as_bytes()))
}
