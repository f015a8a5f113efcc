//! A client's stream over a blob: in order, as the bytes come.
//!
//! The last byte is withheld until the whole digest is vouched for, so that a client never gets a
//! complete response of wrong content. A stream that cannot go on ends early and without a reset: the
//! runtime then resumes by range, here or at the registry.
//!
//! Where the client's connection can send from a file, bytes that are hot are not read at all but promised to
//! it, a whole piece at a time. Others are read in steps, one of which lies in memory for each client that does not take
//! it: the more streams there are, the shorter are the steps.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use shoal_blobstore::{Blob, Status, StoreError};
use shoal_model::BlobKey;
use shoal_ops::serve::Sendfile;
use tokio::sync::watch;

use super::download::{Seat, Start};
use super::{Download, Pulls};

/// Bytes read from the store at once. Large enough that a read costs little beside its bytes.
const LONGEST_STEP: u64 = 256 << 10;
const SHORTEST_STEP: u64 = 8 << 10;
/// What the steps of all streams together are to take in memory, in bytes.
const ALL_STEPS: u64 = 16 << 20;

/// How far streams read at a time; clones are of the same streams, and each is one.
#[derive(Clone, Default)]
pub(crate) struct Steps(Arc<()>);

impl Steps {
    fn length(&self) -> u64 {
        (ALL_STEPS / Arc::strong_count(&self.0) as u64).clamp(SHORTEST_STEP, LONGEST_STEP)
    }
}

/// Why a stream ended before its last byte.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Ended {
    /// Neither neighbours nor gateway nor registry had the rest.
    #[error("nobody served the rest: {0}")]
    NoSource(String),
    /// The content did not match the digest.
    #[error("the content was dropped: it did not match its digest")]
    Dropped,
    /// The store failed.
    #[error("{0}")]
    Store(String),
}

/// Bytes of a blob, in order.
pub(crate) struct Reader {
    blob: Blob,
    version: watch::Receiver<u64>,
    generation: u64,
    left: Range<u64>,
    is_cached: bool,
    supply: Supply,
    sendfile: Option<Sendfile>,
    steps: Steps,
}

/// Where bytes that are not in the store come from.
enum Supply {
    /// All bytes are or were there. One that is gone has been damaged; it is fetched like any other miss.
    Lapsed(Pulls, Box<Start>),
    /// All bytes were there, and there is no right to fetch any.
    None,
    /// A download brings them.
    Download(Pulls, Download, Seat),
}

impl Reader {
    /// A stream over a blob that is complete in the store, with no right to fetch more of it.
    pub(crate) fn of_store(blob: Blob, bytes: Range<u64>) -> Self {
        Self::new(blob, bytes, Supply::None)
    }

    pub(super) fn of_cached(blob: Blob, bytes: Range<u64>, pulls: Pulls, start: Start) -> Self {
        Self::new(blob, bytes, Supply::Lapsed(pulls, start.into()))
    }

    pub(super) fn of_download(download: Download, bytes: Range<u64>, pulls: Pulls) -> Self {
        let seat = download.sit_down(bytes.start);
        Self::new(download.blob().clone(), bytes, Supply::Download(pulls, download, seat))
    }

    fn new(blob: Blob, left: Range<u64>, supply: Supply) -> Self {
        Self {
            version: blob.version(),
            generation: blob.status().generation,
            is_cached: !matches!(supply, Supply::Download(..)),
            blob,
            left,
            supply,
            sendfile: None,
            steps: Steps::default(),
        }
    }

    /// The same for a connection that may send from files, among other streams. What [`next`](Self::next) returns has
    /// to be handed to it at once then.
    pub(crate) fn over(self, sendfile: Option<Sendfile>, steps: Steps) -> Self {
        Self { sendfile, steps, ..self }
    }

    /// Whether the blob was complete when the stream began.
    pub(crate) const fn is_cached(&self) -> bool {
        self.is_cached
    }

    /// What brings the bytes that are not here, where something does.
    pub(crate) const fn download(&self) -> Option<&Download> {
        match &self.supply {
            Supply::Download(_, download, _) => Some(download),
            Supply::Lapsed(..) | Supply::None => None,
        }
    }

    /// The blob.
    pub(super) fn key(&self) -> &BlobKey {
        self.blob.key()
    }

    /// Which of the contents that the blob has had here is streamed.
    pub(super) const fn generation(&self) -> u64 {
        self.generation
    }

    /// The bytes still to come.
    pub(crate) const fn left(&self) -> &Range<u64> {
        &self.left
    }

    /// The next bytes; `None` after the last.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Ended> {
        if self.left.is_empty() {
            return Ok(None);
        }
        loop {
            // Seen before the look at the blob, so that no change falls in between.
            self.version.borrow_and_update();
            if let Some(bytes) = self.read().await? {
                self.left.start += bytes.len() as u64;
                if let Supply::Download(_, _, seat) = &mut self.supply {
                    seat.moved(self.left.start);
                }
                return Ok(Some(bytes));
            }
            self.wait().await?;
        }
    }

    async fn read(&self) -> Result<Option<Bytes>, Ended> {
        let Status { generation, geometry, sealed, .. } = self.blob.status();
        if generation != self.generation {
            return Err(Ended::Dropped);
        }
        let end = if sealed { geometry.size() } else { geometry.size() - 1 };
        let start = self.left.start;
        let piece = geometry.range_of(geometry.piece_at(start));
        let rest = start..self.left.end.min(end).min(piece.end);
        if rest.is_empty() {
            return Ok(None);
        }
        if let Some(sendfile) = &self.sendfile
            && let Some(lent) = self.blob.lend(rest.clone())
        {
            let (blob, file, range) = (self.blob.clone(), lent.file.clone(), lent.range.clone());
            return Ok(Some(sendfile.promise(file, range, move || blob.still_lends(&lent))));
        }
        match self.blob.read(start..rest.end.min(start + self.steps.length())).await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(StoreError::NotHeld { .. }) => Ok(None),
            Err(error) => Err(Ended::Store(error.to_string())),
        }
    }

    async fn wait(&mut self) -> Result<(), Ended> {
        match std::mem::replace(&mut self.supply, Supply::None) {
            Supply::None => Err(Ended::Dropped),
            Supply::Lapsed(pulls, start) => {
                let download = pulls.download(self.blob.clone(), *start);
                let seat = download.sit_down(self.left.start);
                self.supply = Supply::Download(pulls, download, seat);
                Ok(())
            }
            Supply::Download(pulls, download, seat) => {
                let end = tokio::select! {
                    _ = self.version.changed() => None,
                    end = download.ended() => Some(end),
                };
                self.supply = match end {
                    None => Supply::Download(pulls, download, seat),
                    // It has brought everything: what is missing at the next look was lost since.
                    Some(Ok(())) => Supply::Lapsed(pulls, download.start().into()),
                    Some(Err(why)) => return Err(Ended::NoSource(why)),
                };
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pull::testing::{self, N_PIECES, content, geometry};

    /// The blob, complete by this node's own proof.
    async fn complete(store: &shoal_blobstore::Store) -> Blob {
        let blob = testing::blob(store);
        for piece in 0..N_PIECES {
            let range = geometry().range_of(piece);
            let bytes = content().slice(range.start as usize..range.end as usize);
            blob.write_provisional(piece, vec![bytes]).await.unwrap();
        }
        assert!(blob.prove().await.unwrap());
        blob
    }

    #[tokio::test]
    async fn what_is_hot_is_promised_by_the_piece_and_what_is_not_is_read() {
        let (_dir, store) = testing::store();
        let blob = complete(&store).await;
        let mut reader =
            Reader::of_store(blob.clone(), 10..1_000_000).over(Some(Sendfile::default()), Steps::default());
        assert_eq!(reader.next().await.unwrap().unwrap().len(), 299_990);

        blob.mark_suspect();
        let read = content().slice(300_000..300_000 + LONGEST_STEP as usize);
        assert_eq!(reader.next().await.unwrap().unwrap(), read);
        assert_eq!(reader.next().await.unwrap().unwrap().len(), 300_000 - read.len());
    }

    #[test]
    fn the_more_streams_there_are_the_shorter_are_their_steps() {
        let steps = Steps::default();
        let length = |n_streams: usize| {
            let others = vec![steps.clone(); n_streams - 1];
            (steps.length(), others.len()).0
        };
        assert_eq!(
            [1, 64, 128, 2048, 100_000].map(length),
            [LONGEST_STEP, LONGEST_STEP, LONGEST_STEP / 2, SHORTEST_STEP, SHORTEST_STEP]
        );
    }
}
