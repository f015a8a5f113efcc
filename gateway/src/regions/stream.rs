//! A blob on its way to another region: piece after piece, while its seed reads it here.
//!
//! Where the next piece is not there yet, the reader hears that the seed lives, as often as it gives a sign of that. When
//! a seed ends without the piece, so does the stream, before its length; the reader asks again for the rest.

use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, Stream};
use shoal_blobstore::{Blob, StoreError};
use shoal_model::BlobKey;
use shoal_peer::shelf::ShelfBlob;
use shoal_proto::SeedProgress;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::frames::{self, Part};

/// The least time between two signs of life.
const BEAT: Duration = Duration::from_millis(500);

/// Why a stream ends before its length.
#[derive(Debug, thiserror::Error)]
pub(super) enum StreamError {
    #[error("blob {0}: its seed ended without it")]
    Unseeded(BlobKey),
    #[error(transparent)]
    Store(#[from] StoreError),
}

struct Reading {
    blob: Blob,
    seed: Option<watch::Receiver<SeedProgress>>,
    version: watch::Receiver<u64>,
    left: Range<u64>,
    /// The next sign of life is due no sooner.
    beat_from: Instant,
}

/// This part of a blob, with signs of life in between.
pub(super) fn stream(
    ShelfBlob { blob, seed }: ShelfBlob,
    range: Range<u64>,
) -> impl Stream<Item = Result<Part, StreamError>> + Send {
    let reading = Reading { version: blob.version(), blob, seed, left: range, beat_from: Instant::now() };
    stream::try_unfold(reading, async |mut reading| {
        let part = reading.next().await?;
        Ok::<_, StreamError>(part.map(|it| (it, reading)))
    })
}

impl Reading {
    async fn next(&mut self) -> Result<Option<Part>, StreamError> {
        while !self.left.is_empty() {
            self.version.borrow_and_update();
            // Before the look at what is held: what came before the seed ended is there.
            let is_seeded = self.seed.as_ref().is_some_and(|it| it.has_changed().is_ok());
            let geometry = self.blob.geometry();
            let piece = geometry.piece_at(self.left.start);
            if self.blob.holds(piece) {
                let end = geometry.range_of(piece).end.min(self.left.end);
                let bytes =
                    self.read(self.left.start..end.min(self.left.start + frames::MAX_LEN as u64)).await?;
                if let Some(bytes) = bytes {
                    self.left.start += bytes.len() as u64;
                    return Ok(Some(Part::Content(bytes)));
                }
            }
            if !is_seeded {
                return Err(StreamError::Unseeded(self.blob.key().clone()));
            }
            if self.moved().await {
                return Ok(Some(Part::Life));
            }
        }
        Ok(None)
    }

    /// Reads what is held; `None` where it is not any more, because it turned out damaged or was dropped.
    async fn read(&self, range: Range<u64>) -> Result<Option<Bytes>, StreamError> {
        match self.blob.read_held(range).await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(StoreError::NotHeld { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits for a change; returns whether it is time to tell that the seed has moved.
    async fn moved(&mut self) -> bool {
        let Some(seed) = &mut self.seed else { return false };
        let beat_from = self.beat_from;
        tokio::select! {
            // `blob` keeps the sender.
            _ = self.version.changed() => false,
            moved = async {
                sleep_until(beat_from).await;
                seed.changed().await.is_ok()
            } => {
                self.beat_from = Instant::now() + BEAT;
                moved
            }
        }
    }
}
