//! The writing end of a seed: hashes pieces, stores them, signs for them.
//!
//! Pieces come in order, so that the digest of the whole grows with them. Each is stored as provisional and
//! counts as held, hence may be shared, once its digest is signed: a node that hears of a piece can verify
//! it. Signatures keep a distance, so that of a fast registry's pieces each covers several; the first piece
//! after a quiet time, hence the first of all, which every node waits for, is signed at once. The hash of the
//! whole runs on a thread of its own, while the store hashes and writes the piece on another.
//!
//! Before each signature the seed makes sure that no other gateway has taken over: one that was paused publishes
//! nothing that is stale.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use shoal_blobstore::{Blob, Learned, PieceDigest, StoreError, Written};
use shoal_model::Digest;
use shoal_peer::attest::Signer;
use shoal_proto::Statement;
use shoal_swarm::{Geometry, PieceIndex};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::SeedError;
use super::cutter::Piece;
use crate::sisters::Tenure;

/// One signature covers at most this many pieces.
const BATCH: usize = 8;
/// The least time between two signatures, unless a batch is full; a piece waits no longer than this.
const DISTANCE: Duration = Duration::from_millis(20);
/// How much of the stored prefix is read at once when a seed resumes.
const READ: u64 = 4 << 20;

/// What was seen of a blob from its beginning on.
pub(super) struct Writer {
    blob: Blob,
    geometry: Geometry,
    signer: Arc<Signer>,
    tenure: Arc<Tenure>,
    whole: Sha256,
    /// The next piece.
    next: PieceIndex,
    /// The digests of the pieces before `next` that are not signed yet.
    unsigned: Vec<PieceDigest>,
    /// No batch is signed before this unless it is full.
    sign_from: Instant,
}

impl Writer {
    /// Takes up where the store's content ends, having hashed that.
    pub(super) async fn resume(
        blob: Blob,
        signer: Arc<Signer>,
        tenure: Arc<Tenure>,
    ) -> Result<Self, SeedError> {
        let mut it = Self {
            geometry: blob.geometry(),
            blob,
            signer,
            tenure,
            whole: Sha256::new(),
            next: 0,
            unsigned: Vec::new(),
            sign_from: Instant::now(),
        };
        let n_held = it.blob.held().first_missing(0).unwrap_or(it.geometry.n_pieces());
        while it.next < n_held {
            match it.rehash(it.next).await {
                Ok(()) => it.next += 1,
                // The piece turned out damaged: from here on the registry has to be read.
                Err(SeedError::Store(StoreError::NotHeld { .. })) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(it)
    }

    /// The piece that the writer goes on with.
    pub(super) const fn next(&self) -> PieceIndex {
        self.next
    }

    async fn rehash(&mut self, piece: PieceIndex) -> Result<(), SeedError> {
        let mut range = self.geometry.range_of(piece);
        let mut chunks = Vec::new();
        while !range.is_empty() {
            let bytes = self.blob.read_held(range.start..range.end.min(range.start + READ)).await?;
            range.start += bytes.len() as u64;
            chunks.push(bytes);
        }
        self.whole = hashed(self.whole.clone(), chunks).await?;
        Ok(())
    }

    /// Takes pieces in order until there are no more.
    pub(super) async fn run(mut self, mut pieces: mpsc::Receiver<Piece>) -> Result<Self, SeedError> {
        loop {
            tokio::select! {
                piece = pieces.recv() => match piece {
                    Some(piece) => self.take(piece).await?,
                    None => break,
                },
                () = sleep_until(self.sign_from), if !self.unsigned.is_empty() => self.sign().await?,
            }
        }
        self.sign().await?;
        Ok(self)
    }

    async fn take(&mut self, piece: Piece) -> Result<(), SeedError> {
        debug_assert_eq!(piece.index, self.next, "pieces come in order");
        let hashing = hashed(self.whole.clone(), piece.chunks.clone());
        let (whole, res) = tokio::join!(hashing, self.blob.write_provisional(piece.index, piece.chunks));
        let (whole, (written, digest)) = (whole?, res?);
        match written {
            Written::Held | Written::Provisional | Written::Kept | Written::AlreadyHeld => {}
            Written::Mismatch => return Err(SeedError::Contradiction { piece: piece.index }),
            Written::Busy | Written::NoDigest => return Err(SeedError::Interrupted),
        }
        self.whole = whole;
        self.next += 1;
        self.unsigned.push(digest);
        if self.unsigned.len() >= BATCH || Instant::now() >= self.sign_from {
            self.sign().await?;
        }
        Ok(())
    }

    /// Signs for what is not signed yet, which makes it held.
    async fn sign(&mut self) -> Result<(), SeedError> {
        let digests = std::mem::take(&mut self.unsigned);
        if digests.is_empty() {
            return Ok(());
        }
        self.sign_from = Instant::now() + DISTANCE;
        // At most as many as there are pieces, so it fits.
        let first = self.next - digests.len() as PieceIndex;
        let epoch = self.confirmed().await?;
        let attestation = self.attestation(epoch, first, &digests, false);
        match self.blob.learn(first, &digests, attestation)? {
            Learned::Fresh | Learned::Known => Ok(()),
            Learned::Conflict => Err(SeedError::Contradiction { piece: first }),
        }
    }

    /// Compares the digest of the whole, and seals the blob where it matches.
    pub(super) async fn conclude(self) -> Result<(), SeedError> {
        let found = Digest::from_sha256(self.whole.clone().finalize().into());
        if found != self.blob.key().digest {
            return Err(SeedError::Poisoned { found });
        }
        let pieces = 0..self.geometry.n_pieces();
        let digests: Option<Vec<_>> = pieces.map(|it| self.blob.digest_of(it)).collect();
        let digests = digests.ok_or(SeedError::Interrupted)?;
        let epoch = self.confirmed().await?;
        let attestation = self.attestation(epoch, 0, &digests, true);
        match self.blob.seal(&digests, attestation)? {
            Learned::Fresh | Learned::Known => Ok(()),
            Learned::Conflict => Err(SeedError::Interrupted),
        }
    }

    /// The epoch to sign in, which this gateway may do at this moment.
    async fn confirmed(&self) -> Result<u64, SeedError> {
        self.tenure.confirm().await.ok_or(SeedError::Overtaken)
    }

    fn attestation(&self, epoch: u64, first: PieceIndex, digests: &[PieceDigest], sealed: bool) -> Bytes {
        let statement = Statement {
            key: self.blob.key().clone(),
            geometry: self.geometry,
            epoch,
            first,
            digests: digests.iter().map(|it| it.0).collect(),
            sealed,
        };
        self.signer.attest(statement).encode()
    }
}

/// The hash of the whole, with these bytes added.
async fn hashed(mut whole: Sha256, chunks: Vec<Bytes>) -> Result<Sha256, SeedError> {
    let hashing = move || {
        chunks.iter().for_each(|it| whole.update(it));
        whole
    };
    tokio::task::spawn_blocking(hashing).await.map_err(SeedError::stopped)
}

#[cfg(test)]
mod tests {
    use super::*;
    use shoal_blobstore::{Store, StoreSettings};
    use shoal_model::{BlobKey, ByteSize, Node, NodeId, Place, Role, TrustGroup};
    use shoal_proto::Attestation;
    use tempfile::TempDir;

    use crate::sisters::Sisters;

    /// The length of a piece, in bytes.
    const PIECE: u64 = 4;

    fn gateway() -> Node {
        let (id, place) = (NodeId::new("gateway"), Place::default());
        Node { id, address: "127.0.0.1:1".into(), role: Role::Gateway, place }
    }

    fn writer(blob: Blob) -> impl Future<Output = Result<Writer, SeedError>> {
        let tenure = Sisters::none(gateway(), Vec::new()).tenure(blob.key().clone(), false);
        Writer::resume(blob, Arc::new(Signer::new(&[1; 32])), Arc::new(tenure))
    }

    fn blob(n_pieces: u64) -> (TempDir, Blob) {
        let dir = tempfile::tempdir().unwrap();
        let settings = StoreSettings {
            dir: dir.path().to_owned(),
            capacity: ByteSize(1 << 20),
            low_percent: 90,
            free_floor: ByteSize(0),
            expire_after: Duration::from_secs(3600),
        };
        let key = BlobKey { group: TrustGroup::new("g"), digest: Digest::from_sha256([1; 32]) };
        let geometry = Geometry::stated(n_pieces * PIECE, PIECE).unwrap();
        let blob = Store::open(settings).unwrap().create(&key, geometry).unwrap();
        (dir, blob)
    }

    fn piece(index: PieceIndex) -> Piece {
        Piece { index, chunks: vec![Bytes::from(vec![index as u8; PIECE as usize])] }
    }

    /// How many pieces each signature covers.
    fn batches(blob: &Blob) -> Vec<usize> {
        let attestations = blob.attestations();
        let attestations = attestations.iter().map(|it| Attestation::decode(it).unwrap());
        attestations.map(|it| Statement::decode(&it.statement).unwrap().digests.len()).collect()
    }

    // In these the clock is paused and runs ahead only when nothing else is left to do.

    #[tokio::test(start_paused = true)]
    async fn the_first_piece_is_signed_alone_and_those_that_come_with_it_together() {
        let (_dir, blob) = blob(12);
        let writer = writer(blob.clone()).await.unwrap();
        let (pieces, waiting) = mpsc::channel(12);
        for index in 0..12 {
            pieces.send(piece(index)).await.unwrap();
        }
        drop(pieces);
        writer.run(waiting).await.unwrap();
        assert_eq!(batches(&blob), [1, 8, 3]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_piece_waits_for_others_only_soon_after_a_signature() {
        let (_dir, blob) = blob(3);
        let writer = writer(blob.clone()).await.unwrap();
        let (pieces, waiting) = mpsc::channel(1);
        let running = tokio::spawn(writer.run(waiting));
        let mut version = blob.version();
        for (index, quiet, wait) in [
            (0, Duration::ZERO, Duration::ZERO),
            (1, Duration::ZERO, DISTANCE),
            (2, DISTANCE * 2, Duration::ZERO),
        ] {
            tokio::time::advance(quiet).await;
            let came = Instant::now();
            pieces.send(piece(index)).await.unwrap();
            version.wait_for(|_| blob.holds(index)).await.unwrap();
            // Timers have a resolution of a millisecond, also on a paused clock.
            assert!(came.elapsed().abs_diff(wait) <= Duration::from_millis(1), "piece {index}");
        }
        drop(pieces);
        running.await.unwrap().unwrap();
        assert_eq!(batches(&blob), [1, 1, 1]);
    }
}
