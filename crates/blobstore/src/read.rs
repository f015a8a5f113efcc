//! Bytes out of the store.
//!
//! The bytes of a piece that is unverified are hashed first. A piece that does not match, or cannot be
//! read, is dropped and is then a miss like any other: the caller fetches it. Only a disk that fails on
//! good pieces is an error.
//!
//! What was verified stays so as long as it cannot have changed: while it lies in the page cache, and nobody else has
//! written to the file. Bytes that come from the disk once more may have rotted there, and are hashed again. A piece
//! in memory was verified when it came, and stays what it was.
//!
//! What is verified and in the page cache, as most reads are, is read at once on the caller's thread: to hand
//! it to another one costs more than the copy, and takes the bytes out of the processor's cache. Whatever may
//! block goes to a thread for that, and what does not come back in time is a miss, too. Bytes that need not pass through this process are [lent](Blob::lend) as a
//! place in the file.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;
use shoal_swarm::PieceIndex;
use tokio::time::Instant;

use crate::buffer::Buffer;
use crate::content::Content;
use crate::entry::Entry;
use crate::state::{Access, Reader};
use crate::{Blob, StoreError};

/// The most bytes that one read returns.
pub const MAX_READ: u64 = 16 << 20;

/// Verified bytes of a blob, where they lie.
#[derive(Clone, Debug)]
pub struct Lent {
    /// Keeps its bytes as long as it is open, whatever becomes of the blob.
    pub file: Arc<File>,
    /// Where in it.
    pub range: Range<u64>,
    /// Which of the contents that the blob has had it is.
    generation: u64,
    /// How often others had changed that by then.
    n_changes: u64,
}

impl Blob {
    /// Reads bytes for this node's own runtime, from held and provisional pieces, at most [`MAX_READ`]. Where some of
    /// the pieces are in memory, no more may come than lie in the first.
    ///
    /// Fails with `NotHeld` where a piece is missing or was found damaged, with `PastEnd` and `TooLong` for
    /// a range that the caller must not ask, with `Io` when the disk fails.
    pub async fn read(&self, range: Range<u64>) -> Result<Bytes, StoreError> {
        self.read_as(range, Reader::Local).await
    }

    /// Reads bytes for another node, from held pieces only. Fails as [`read`](Self::read) does.
    pub async fn read_held(&self, range: Range<u64>) -> Result<Bytes, StoreError> {
        self.read_as(range, Reader::Peer).await
    }

    /// The place of bytes that may be sent from the file as they are: held, verified, and in the page cache.
    /// `None` where any of that is not so; [`read`](Self::read) then does what has to be done.
    pub fn lend(&self, range: Range<u64>) -> Option<Lent> {
        self.entry().lend(range)
    }

    /// Whether what was lent may still be sent: nobody else has changed the file since.
    pub fn still_lends(&self, lent: &Lent) -> bool {
        let entry = self.entry();
        entry.look_for_changes(&lent.file, lent.generation);
        entry.n_changes() == lent.n_changes && entry.state.lock().generation == lent.generation
    }

    async fn read_as(&self, range: Range<u64>, reader: Reader) -> Result<Bytes, StoreError> {
        if let Some(bytes) = self.entry().read_at_once(&range, reader) {
            return Ok(bytes);
        }
        let wanted = range.clone();
        match self.on_disk(move |it| it.read(range, reader)).await {
            Some(res) => res,
            None => Err(self.entry().unreachable(&wanted)),
        }
    }
}

impl Entry {
    pub(crate) fn read(&self, mut range: Range<u64>, reader: Reader) -> Result<Bytes, StoreError> {
        loop {
            if let Some(bytes) = self.read_memory(&range, reader) {
                return Ok(bytes);
            }
            match self.read_disk(&range, reader)? {
                Ok(bytes) => return Ok(bytes),
                // Otherwise that piece has just come, and is to be read alone.
                Err(in_memory) if in_memory > range.start => range.end = in_memory,
                Err(_) => {}
            }
        }
    }

    /// Reads what lies on the disk, or says where what lies in memory begins.
    fn read_disk(&self, range: &Range<u64>, reader: Reader) -> Result<Result<Bytes, u64>, StoreError> {
        let pieces = self.pieces_of(range)?;
        // A disk that has nothing to do with it is not to be waited for.
        let state = self.state.lock();
        match state.access(pieces.clone(), reader) {
            Access::Missing(piece) => return Err(self.not_held(piece)),
            Access::InMemory(piece) if piece == pieces.start => {
                return Ok(Err(state.geometry.range_of(piece).start));
            }
            _ => drop(state),
        }
        let (data, generation) = self.data_for(pieces.clone())?;
        let mut buffer = Buffer::take((range.end - range.start) as usize);
        self.look_for_changes(&data, generation);
        if data.is_cached(range.clone()) == Some(false) {
            self.state.lock().mark_suspect(pieces.clone());
        }
        if let Some(in_memory) = self.settle(&data, generation, pieces.clone(), reader)? {
            return Ok(Err(in_memory));
        }
        if let Err(source) = data.read_exact_at(buffer.bytes(), range.start) {
            return Err(self.read_failed(&data, generation, pieces, source));
        }
        // A blob cleared during the read must not have its bytes served after that.
        if self.state.lock().generation != generation {
            return Err(self.not_held(pieces.start));
        }
        Ok(Ok(buffer.freeze()))
    }

    /// The content file, to read these pieces from. Where it cannot be opened they are dropped: the disk has lost them.
    fn data_for(&self, pieces: Range<PieceIndex>) -> Result<(Arc<Content>, u64), StoreError> {
        let error = match self.data() {
            Err(error) if !error.is_shortage() => error,
            res => return res,
        };
        self.common.disk.failed(&error);
        for piece in pieces.clone() {
            let mut state = self.state.lock();
            if state.lose(piece) {
                self.damaged(state, piece);
            }
        }
        Err(self.not_held(pieces.start))
    }

    /// Reads without blocking; `None` where that cannot be done, for whatever reason.
    fn read_at_once(&self, range: &Range<u64>, reader: Reader) -> Option<Bytes> {
        if let Some(bytes) = self.read_memory(range, reader) {
            return Some(bytes);
        }
        let (data, generation) = self.ready(range, reader)?;
        let mut buffer = Buffer::take((range.end - range.start) as usize);
        let is_whole = data.read_cached(buffer.bytes(), range.start);
        // Somebody may have cleared or changed it meanwhile.
        let is_good = is_whole && self.may_be_read(&data, generation, range, reader);
        is_good.then(|| buffer.freeze())
    }

    /// Reads from the first of the pieces, where that is in memory.
    fn read_memory(&self, range: &Range<u64>, reader: Reader) -> Option<Bytes> {
        let pieces = self.pieces_of(range).ok()?;
        let mut state = self.state.lock();
        if pieces.is_empty() || state.access(pieces.clone(), reader) != Access::InMemory(pieces.start) {
            return None;
        }
        let whole = state.geometry.range_of(pieces.start);
        let end = range.end.min(whole.end);
        let bytes = state.in_memory(Instant::now(), pieces.start, end)?;
        let part = bytes.get((range.start - whole.start) as usize..(end - whole.start) as usize)?;
        let mut buffer = Buffer::take(part.len());
        buffer.bytes().copy_from_slice(part);
        drop(state);
        if end == whole.end {
            self.common.memory.was_read();
        }
        Some(buffer.freeze())
    }

    fn lend(&self, range: Range<u64>) -> Option<Lent> {
        let n_changes = self.n_changes();
        let (data, generation) = self.ready(&range, Reader::Peer)?;
        let is_cached = data.is_cached(range.clone()) == Some(true);
        is_cached.then(|| Lent { file: Arc::clone(&data), range, generation, n_changes })
    }

    /// The file, if it is open and `range`, which is not empty, may be read from it as it is.
    fn ready(&self, range: &Range<u64>, reader: Reader) -> Option<(Arc<Content>, u64)> {
        let generation = self.state.lock().generation;
        let data = self.opened(generation)?;
        self.may_be_read(&data, generation, range, reader).then_some((data, generation))
    }

    /// Whether `range`, which is not empty, may be read as it is from the file of this generation.
    fn may_be_read(&self, data: &File, generation: u64, range: &Range<u64>, reader: Reader) -> bool {
        let Some(pieces) = self.pieces_of(range).ok().filter(|it| !it.is_empty()) else { return false };
        self.look_for_changes(data, generation);
        let state = self.state.lock();
        state.generation == generation && state.access(pieces, reader) == Access::Ready
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

    /// Verifies what is unverified among `pieces`, until all may be read, or one is missing or in memory; where that
    /// begins is returned.
    fn settle(
        &self,
        data: &Content,
        generation: u64,
        pieces: Range<PieceIndex>,
        reader: Reader,
    ) -> Result<Option<u64>, StoreError> {
        loop {
            let (piece, digest, bytes) = {
                let state = self.state.lock();
                if state.generation != generation {
                    return Err(self.not_held(pieces.start));
                }
                match state.access(pieces.clone(), reader) {
                    Access::Ready => return Ok(None),
                    Access::InMemory(piece) => return Ok(Some(state.geometry.range_of(piece).start)),
                    Access::Missing(piece) => return Err(self.not_held(piece)),
                    Access::Unverified(piece, digest) => (piece, digest, state.geometry.range_of(piece)),
                }
            };
            let good = data.digest(bytes).is_ok_and(|it| it == digest);
            self.verified(generation, piece, good);
        }
    }

    fn verified(&self, generation: u64, piece: PieceIndex, good: bool) {
        let mut state = self.state.lock();
        if state.generation == generation && state.verified(piece, good) {
            self.damaged(state, piece);
        }
    }

    /// Finds out whether a failed read is the fault of damaged pieces, which are then dropped, or the disk's.
    fn read_failed(
        &self,
        data: &Content,
        generation: u64,
        pieces: Range<PieceIndex>,
        source: io::Error,
    ) -> StoreError {
        self.state.lock().mark_suspect(pieces.clone());
        match self.settle(data, generation, pieces.clone(), Reader::Local) {
            Err(missing) => missing,
            Ok(None) => StoreError::io(&self.paths.data)(source),
            Ok(Some(_)) => self.not_held(pieces.start),
        }
    }

    /// The disk does not answer for these bytes: what lies there is lost, as far as it can be had elsewhere.
    fn unreachable(&self, range: &Range<u64>) -> StoreError {
        let pieces = match self.pieces_of(range) {
            Ok(pieces) => pieces,
            Err(error) => return error,
        };
        for piece in pieces.clone() {
            let mut state = self.state.lock();
            if state.lose(piece) {
                self.changed(state);
            }
        }
        self.not_held(pieces.start)
    }

    fn not_held(&self, piece: PieceIndex) -> StoreError {
        StoreError::NotHeld { key: self.key.clone(), piece }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[tokio::test]
    #[expect(clippy::await_holding_lock, reason = "this stands for a disk that does not answer")]
    async fn what_a_disk_does_not_answer_for_is_missing() {
        let dir = tempfile::tempdir().unwrap();
        let blob = testing::blob(dir.path(), 8, 4);
        let write = async |piece, bytes| blob.write_provisional(piece, vec![Bytes::from_static(bytes)]).await;
        write(0, b"disk").await.unwrap();

        // Whoever opens a file of a disk that does not answer has this lock for as long.
        let entry = blob.entry();
        let stuck = entry.files.lock();
        assert!(
            matches!(blob.read(4..8).await, Err(StoreError::NotHeld { piece: 1, .. })),
            "it never was there"
        );
        assert!(!entry.common.disk.is_stuck());

        *entry.opened.lock() = None;
        assert!(matches!(blob.read(0..4).await, Err(StoreError::NotHeld { piece: 0, .. })));
        assert!(entry.common.disk.is_stuck());
        write(1, b"kept").await.unwrap();
        assert_eq!(blob.read(4..8).await.unwrap(), "kept", "it is in memory");
        assert_eq!(blob.readable().iter().collect::<Vec<_>>(), [1]);
        drop(stuck);
    }
}
