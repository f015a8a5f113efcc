//! Pieces into the store: hash, claim, write, take.
//!
//! The bytes are hashed once, and the hash decides. They reach the data file before the state and the
//! journal say so, hence whatever is recorded as held was written; and the claim keeps a second writer of the
//! piece away in between.
//!
//! A piece that the disk does not take, or not in time, is kept in memory, until the disk takes another of the blob. A
//! write that is late goes on by itself.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;
use shoal_swarm::PieceIndex;
use tokio::time::Instant;

use crate::content::Content;
use crate::entry::Entry;
use crate::state::{Offer, Origin};
use crate::{Blob, PieceDigest, StoreError, Written};

impl Blob {
    /// Writes a piece that came from another node: it must match the digest that was learned. The chunks
    /// together are the piece. Where the disk does not take it and memory is short, this waits for a few seconds.
    ///
    /// Fails with `Stopping` only.
    pub async fn write(&self, piece: PieceIndex, chunks: Vec<Bytes>) -> Result<Written, StoreError> {
        // Cheaper than to hash bytes that cannot be taken.
        if self.holds(piece) {
            return Ok(Written::AlreadyHeld);
        }
        let (written, _) = self.put(piece, chunks, Origin::Peer).await?;
        Ok(written)
    }

    /// Writes a piece that this node took from the registry itself. Without a learned digest the piece is
    /// provisional: for local readers only, never announced, forgotten at a restart, until a digest is
    /// learned or the whole is [proven](Blob::prove). The digest that comes back is that of these bytes,
    /// whatever became of them. Waits and fails as [`write`](Self::write) does.
    pub async fn write_provisional(
        &self,
        piece: PieceIndex,
        chunks: Vec<Bytes>,
    ) -> Result<(Written, PieceDigest), StoreError> {
        self.put(piece, chunks, Origin::Registry).await
    }

    async fn put(
        &self,
        piece: PieceIndex,
        chunks: Vec<Bytes>,
        origin: Origin,
    ) -> Result<(Written, PieceDigest), StoreError> {
        let len = chunks.iter().map(|it| it.len() as u64).sum();
        let offer = move |digest| Offer { piece, len, digest, origin };
        let digest = match self.store(offer, &chunks).await? {
            Stored { digest, written: Some(written) } => {
                if matches!(written, Written::Held | Written::Provisional) {
                    self.catch_up().await?;
                }
                return Ok((written, digest));
            }
            Stored { digest, written: None } => digest,
        };
        Ok((self.keep(&offer(digest), &chunks).await, digest))
    }

    /// Writes what is in memory to the disk, as far as that takes it by now.
    async fn catch_up(&self) -> Result<(), StoreError> {
        loop {
            let Some((piece, bytes)) = self.entry().state.lock().unstored() else { return Ok(()) };
            let len = bytes.len() as u64;
            let offer = move |digest| Offer { piece, len, digest, origin: Origin::Registry };
            let Stored { written, .. } = self.store(offer, &[bytes]).await?;
            if !matches!(written, Some(Written::Held | Written::Provisional)) {
                return Ok(());
            }
        }
    }

    /// Writes the piece to the disk, unless that does not take it.
    async fn store(
        &self,
        offer: impl Fn(PieceDigest) -> Offer + Send + 'static,
        chunks: &[Bytes],
    ) -> Result<Stored, StoreError> {
        let Some(room) = self.entry().common.disk.room(chunks.iter().map(Bytes::len).sum()).await else {
            return self.hash(chunks).await;
        };
        let written = chunks.to_vec();
        let put = move |it: &Entry| {
            let _room = room;
            Ok(it.put(offer, &written))
        };
        let Some(res) = self.on_disk(put).await else { return self.hash(chunks).await };
        let (digest, written) = res?;
        if let Err(error) = &written {
            self.entry().common.disk.failed(error);
        }
        Ok(Stored { digest, written: written.ok() })
    }

    async fn hash(&self, chunks: &[Bytes]) -> Result<Stored, StoreError> {
        let chunks = chunks.to_vec();
        let digest = self.blocking(move |_| Ok(PieceDigest::of(&chunks))).await?;
        Ok(Stored { digest, written: None })
    }

    /// Keeps a piece in memory that the disk did not take.
    async fn keep(&self, offer: &Offer, chunks: &[Bytes]) -> Written {
        let entry = self.entry();
        let bytes = entry.common.memory.take(chunks).await;
        let mut state = entry.state.lock();
        let written = state.keep(Instant::now(), offer, bytes);
        if written == Written::Kept {
            entry.changed(state);
            entry.common.disk.n_unstored.inc();
            entry.common.memory.is_used_by(entry);
        }
        written
    }
}

/// A piece that was to be stored: its digest, and what became of it unless the disk did not take it.
struct Stored {
    digest: PieceDigest,
    written: Option<Written>,
}

/// The right to write one piece, and where to.
struct Claim {
    data: Arc<Content>,
    generation: u64,
    start: u64,
}

impl Entry {
    fn put(
        &self,
        offer: impl Fn(PieceDigest) -> Offer,
        chunks: &[Bytes],
    ) -> (PieceDigest, Result<Written, StoreError>) {
        let digest = PieceDigest::of(chunks);
        let offer = offer(digest);
        let written = match self.claim(&offer) {
            Ok(Ok(claim)) => {
                let res = write_chunks(&claim.data, claim.start, chunks);
                self.commit(&offer, &claim, res)
            }
            Ok(Err(refused)) => Ok(refused),
            Err(error) => Err(error),
        };
        (digest, written)
    }

    /// Claims a piece, or says why it is not to be written. Bytes of an earlier generation only ever go to that
    /// generation's file.
    fn claim(&self, offer: &Offer) -> Result<Result<Claim, Written>, StoreError> {
        let (data, generation) = self.data()?;
        // What others did before cannot be told any more from what is done here.
        self.look_for_changes(&data, generation);
        let mut state = self.state.lock();
        if state.generation != generation {
            return Ok(Err(Written::NoDigest));
        }
        let start = state.geometry.range_of(offer.piece).start;
        Ok(state.begin(offer).map(|()| Claim { data, generation, start }))
    }

    /// Takes a piece whose bytes were written with this outcome.
    fn commit(&self, offer: &Offer, claim: &Claim, res: io::Result<()>) -> Result<Written, StoreError> {
        self.stamp(&claim.data, claim.generation);
        let mut state = self.state.lock();
        if state.generation != claim.generation {
            return Ok(Written::NoDigest);
        }
        if let Err(source) = res {
            state.abandon(offer.piece);
            return Err(StoreError::io(&self.paths.data)(source));
        }
        let written = state.finish(offer);
        if matches!(written, Written::Held | Written::Provisional) {
            self.changed(state);
            self.common.disk.took();
            self.write_journal(&mut self.files.lock());
        }
        Ok(written)
    }
}

fn write_chunks(data: &File, mut at: u64, chunks: &[Bytes]) -> io::Result<()> {
    for chunk in chunks {
        data.write_all_at(chunk, at)?;
        at += chunk.len() as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    fn offer(bytes: &'static [u8]) -> Offer {
        let digest = PieceDigest::of(&[Bytes::from_static(bytes)]);
        Offer { piece: 0, len: 4, digest, origin: Origin::Registry }
    }

    #[tokio::test]
    async fn a_write_that_outlives_its_generation_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let blob = testing::blob(dir.path(), 8, 4);
        let late = offer(b"late");
        let claim = blob.entry().claim(&late).unwrap().unwrap();
        blob.clear("test");
        blob.write_provisional(0, vec![Bytes::from_static(b"good")]).await.unwrap();
        let res = write_chunks(&claim.data, claim.start, &[Bytes::from_static(b"late")]);
        assert_eq!(blob.entry().commit(&late, &claim, res).unwrap(), Written::NoDigest);
        assert_eq!(blob.read(0..4).await.unwrap(), "good");
    }

    #[tokio::test(start_paused = true)]
    async fn what_waits_too_long_for_other_writes_is_kept_in_memory() {
        let dir = tempfile::tempdir().unwrap();
        let blob = testing::blob(dir.path(), 20, 10);
        let write = async |piece| {
            let chunks = vec![Bytes::from(vec![piece as u8; 10])];
            blob.write_provisional(piece, chunks).await.unwrap().0
        };
        let others = blob.entry().common.disk.room(usize::MAX).await.unwrap();
        assert_eq!(write(0).await, Written::Kept);
        drop(others);
        assert_eq!(write(1).await, Written::Provisional);
        assert!(blob.entry().state.lock().unstored().is_none(), "the first went to the disk with it");
    }

    #[tokio::test]
    async fn a_failed_write_leaves_the_piece_to_the_next_writer() {
        let dir = tempfile::tempdir().unwrap();
        let blob = testing::blob(dir.path(), 8, 4);
        let offer = offer(b"good");
        let claim = blob.entry().claim(&offer).unwrap().unwrap();
        assert_eq!(blob.entry().claim(&offer).unwrap().err(), Some(Written::Busy));
        let full = Err(io::ErrorKind::StorageFull.into());
        let res = blob.entry().commit(&offer, &claim, full);
        assert!(
            matches!(res, Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::StorageFull)
        );
        let res = blob.write_provisional(0, vec![Bytes::from_static(b"good")]).await.unwrap();
        assert_eq!(res, (Written::Provisional, offer.digest));
    }
}
