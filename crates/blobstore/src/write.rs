//! Pieces into the store: hash, claim, write, take.
//!
//! The bytes are hashed once, and the hash decides. They reach the data file before the state and the
//! journal say so, hence whatever is recorded as held was written; and the claim keeps a second writer of the
//! piece away in between.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;
use shoal_swarm::PieceIndex;

use crate::entry::Entry;
use crate::record::Record;
use crate::state::{Offer, Origin};
use crate::{Blob, PieceDigest, StoreError, Written};

impl Blob {
    /// Writes a piece that came from another node: it must match the digest that was learned. The chunks
    /// together are the piece.
    ///
    /// Fails with `Io` when the disk refuses; a full disk shows as `ErrorKind::StorageFull`.
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
    /// whatever became of them. Fails as [`write`](Self::write) does.
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
        self.blocking(move |entry| {
            let len = chunks.iter().map(|it| it.len() as u64).sum();
            let digest = PieceDigest::of(&chunks);
            let written = entry.put(&Offer { piece, len, digest, origin }, &chunks)?;
            Ok((written, digest))
        })
        .await
    }
}

/// The right to write one piece, and where to.
struct Claim {
    data: Arc<File>,
    generation: u64,
    start: u64,
}

impl Entry {
    fn put(&self, offer: &Offer, chunks: &[Bytes]) -> Result<Written, StoreError> {
        match self.claim(offer)? {
            Ok(claim) => {
                let res = write_chunks(&claim.data, claim.start, chunks);
                self.commit(offer, &claim, res)
            }
            Err(refused) => Ok(refused),
        }
    }

    /// Claims a piece, or says why it is not to be written. The file and the generation are taken in one
    /// step, so that bytes of an earlier generation only ever go to that generation's file.
    fn claim(&self, offer: &Offer) -> Result<Result<Claim, Written>, StoreError> {
        let mut files = self.files.lock();
        let data = files.data().map_err(StoreError::io(files.data_path()))?;
        let mut state = self.state.lock();
        let begun = state.begin(offer);
        Ok(begun.map(|()| Claim {
            data,
            generation: state.generation,
            start: state.geometry.range_of(offer.piece).start,
        }))
    }

    /// Takes a piece whose bytes were written with this outcome.
    fn commit(&self, offer: &Offer, claim: &Claim, res: io::Result<()>) -> Result<Written, StoreError> {
        let mut files = self.files.lock();
        let mut state = self.state.lock();
        if state.generation != claim.generation {
            return Ok(Written::NoDigest);
        }
        if let Err(source) = res {
            state.abandon(offer.piece);
            return Err(StoreError::io(files.data_path())(source));
        }
        let written = state.finish(offer);
        drop(state);
        if written == Written::Held {
            let (piece, digest) = (offer.piece, offer.digest);
            self.record(&mut files, &Record::Held { piece, digest });
        }
        drop(files);
        if matches!(written, Written::Held | Written::Provisional) {
            self.changed();
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
    use crate::{Store, StoreSettings};
    use shoal_model::{BlobKey, ByteSize, Digest, TrustGroup};
    use shoal_swarm::Geometry;
    use std::time::Duration;

    /// A blob of two pieces of 4 bytes.
    fn blob(dir: &tempfile::TempDir) -> Blob {
        let settings = StoreSettings {
            dir: dir.path().to_owned(),
            capacity: ByteSize(u64::MAX),
            low_percent: 80,
            free_floor: ByteSize(0),
            expire_after: Duration::MAX,
        };
        let key = BlobKey { group: TrustGroup::new("g"), digest: Digest::from_sha256([0; 32]) };
        Store::open(settings).unwrap().create(&key, Geometry::stated(8, 4).unwrap()).unwrap()
    }

    fn offer(bytes: &'static [u8]) -> Offer {
        let digest = PieceDigest::of(&[Bytes::from_static(bytes)]);
        Offer { piece: 0, len: 4, digest, origin: Origin::Registry }
    }

    #[tokio::test]
    async fn a_write_that_outlives_its_generation_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let blob = blob(&dir);
        let late = offer(b"late");
        let claim = blob.entry().claim(&late).unwrap().unwrap();
        blob.clear("test");
        blob.write_provisional(0, vec![Bytes::from_static(b"good")]).await.unwrap();
        let res = write_chunks(&claim.data, claim.start, &[Bytes::from_static(b"late")]);
        assert_eq!(blob.entry().commit(&late, &claim, res).unwrap(), Written::NoDigest);
        assert_eq!(blob.read(0..4).await.unwrap(), "good");
    }

    #[tokio::test]
    async fn a_failed_write_leaves_the_piece_to_the_next_writer() {
        let dir = tempfile::tempdir().unwrap();
        let blob = blob(&dir);
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
