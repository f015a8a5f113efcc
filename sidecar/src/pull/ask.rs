//! Asking one source: for a piece, or for what it holds.

use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use sha2::{Digest as _, Sha256};
use shoal_blobstore::{StoreError, Written};
use shoal_model::{Digest, Node, Role};
use shoal_ops::traces;
use shoal_peer::client::{Fault as PeerFault, FetchError};
use shoal_peer::epochs::HearError;
use shoal_proto::BlobNews;
use shoal_swarm::PieceIndex;
use shoal_swarm::fetch::{Event, Fault};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::Instant;
use tracing::{Instrument as _, Span};

use super::Tools;
use super::download::Shared;
use super::report::{Report, Signs, write_in_turn};
use crate::metrics::{Cause, Origin};

/// What one source is asked with.
#[derive(Clone)]
pub(super) struct Asking {
    pub tools: Tools,
    pub shared: Arc<Shared>,
    pub node: Node,
    pub reports: mpsc::Sender<Report>,
}

/// Why a watch ended before its node ended it.
#[derive(Debug, thiserror::Error)]
enum WatchError {
    #[error(transparent)]
    Peer(#[from] FetchError),
    #[error(transparent)]
    Heard(#[from] HearError),
}

/// What the bytes hash to; `None` where the process stops.
async fn digest_of(content: Bytes) -> Option<Digest> {
    spawn_blocking(move || Digest::from_sha256(Sha256::digest(&content).into())).await.ok()
}

/// What is counted of it.
const fn cause(fault: &PeerFault) -> Cause {
    match fault {
        PeerFault::Busy => Cause::Busy,
        PeerFault::NotHeld => Cause::NotHeld,
        PeerFault::Refused(_) => Cause::Refused,
        PeerFault::Unreachable(_) => Cause::Unreachable,
        PeerFault::Stalled | PeerFault::Silent => Cause::Stalled,
        _ => Cause::Broken,
    }
}

impl Asking {
    /// Fetches a piece into the store and tells how that went.
    pub(super) async fn piece(self, piece: PieceIndex, is_urgent: bool) {
        let range = self.shared.blob.geometry().range_of(piece);
        let waiting = || {
            let queued = Event::Queued { from: self.node.id.clone(), piece };
            // Where the driver is behind, it has events enough.
            let _ = self.reports.try_send(Report::Event(queued));
        };
        let room = self.tools.room.take(range.end - range.start, waiting).await;
        let (generation, asked) = (self.shared.blob.status().generation, Instant::now());
        match self.receive(range, is_urgent).await {
            // On its own, because an ask may be cut at any time, and what was written has to be told.
            Ok(content) => {
                let content = room.until_dropped(content);
                drop(tokio::spawn(self.store(piece, content, generation, asked).in_current_span()));
            }
            Err(error) => {
                tracing::debug!(error = &error as &dyn std::error::Error, piece, "piece not received");
                traces::failed(&Span::current(), &error.fault);
                self.tools.metrics.failed(self.origin(), cause(&error.fault));
                self.tell(self.failed(piece, &error.fault)).await;
            }
        }
    }

    async fn receive(&self, range: Range<u64>, is_urgent: bool) -> Result<Bytes, FetchError> {
        let (peers, key) = (&self.tools.peers, self.shared.blob.key());
        // One buffer of the right size: parts, as they come, keep the client's larger ones.
        let mut content = BytesMut::with_capacity((range.end - range.start) as usize);
        let ticket = self.shared.start().wanted.ticket;
        let mut body = match is_urgent {
            true => peers.fetch_urgent(&self.node, key, range, &ticket).await?,
            false => peers.fetch(&self.node, key, range, &ticket).await?,
        };
        let mut signs = Signs::new(self.reports.clone(), Some(self.node.id.clone()));
        while let Some(bytes) = body.next().await? {
            signs.moved();
            self.tools.rates.admit(Some(&self.node.id), bytes.len()).await;
            content.extend_from_slice(&bytes);
        }
        Ok(content.freeze())
    }

    fn failed(&self, piece: PieceIndex, fault: &PeerFault) -> Report {
        let from = self.node.id.clone();
        let fault = match fault {
            PeerFault::Busy => Fault::Busy,
            PeerFault::NotHeld => Fault::NotHeld,
            // Nothing is to be had there until there is a better ticket.
            PeerFault::Refused(_) => {
                self.shared.refused();
                return Report::Event(Event::Lost { from, is_well: true });
            }
            PeerFault::Unreachable(_) | PeerFault::Stalled => Fault::Silent,
            _ => Fault::Broken,
        };
        Report::Event(Event::Failed { from, piece, fault })
    }

    fn origin(&self) -> Origin {
        Origin::of(&self.node, &self.tools.node)
    }

    async fn store(self, piece: PieceIndex, content: Bytes, generation: u64, asked: Instant) {
        let blob = &self.shared.blob;
        let mut written = write_in_turn(blob, || blob.write(piece, vec![content.clone()])).await;
        if matches!(written, Ok(Written::NoDigest)) && blob.geometry().n_pieces() == 1 {
            // A piece that is the whole is vouched for by the blob's own digest.
            let write = async || Ok(blob.write_provisional(piece, vec![content.clone()]).await?.0);
            written = match digest_of(content.clone()).await {
                Some(digest) if digest == blob.key().digest => write_in_turn(blob, write).await,
                _ => Ok(Written::Mismatch),
            };
        }
        if matches!(written, Ok(Written::Held | Written::Kept | Written::Provisional)) {
            self.shared.took(self.origin(), content.len() as u64, &self.tools.metrics);
            self.tools.metrics.piece_took(self.origin(), asked.elapsed());
        }
        self.tell(self.stored(piece, written, generation)).await;
    }

    fn stored(&self, piece: PieceIndex, written: Result<Written, StoreError>, generation: u64) -> Report {
        let fault = match written {
            Ok(Written::Held | Written::Kept) => {
                return Report::Event(Event::Held { piece, from: Some(self.node.id.clone()) });
            }
            Ok(Written::Provisional | Written::AlreadyHeld) => {
                return Report::Event(Event::Held { piece, from: None });
            }
            Ok(Written::NoDigest) => {
                self.tools.metrics.failed(self.origin(), Cause::Unvouched);
                Fault::Unvouched
            }
            Ok(Written::Busy) => Fault::Busy,
            Ok(Written::Mismatch) => {
                let (node, key) = (&self.node.id, self.shared.blob.key());
                tracing::warn!(%node, %key, piece, "sent wrong bytes");
                self.tools.metrics.failed(self.origin(), Cause::WrongBytes);
                let excused = self.node.role == Role::Gateway && self.shared.epochs.doubt(generation);
                if excused { Fault::Unvouched } else { Fault::WrongBytes }
            }
            Err(error) => return Report::NoStore(error),
        };
        Report::Event(Event::Failed { from: self.node.id.clone(), piece, fault })
    }

    /// Follows what the node holds, for as long as it tells.
    pub(super) async fn watch(self) {
        let res = self.follow().await;
        let fault = match &res {
            Err(WatchError::Peer(error)) => Some(&error.fault),
            _ => None,
        };
        if matches!(fault, Some(PeerFault::Refused(_))) {
            self.shared.refused();
        }
        let is_well = fault.is_some_and(PeerFault::is_well);
        if let Err(error) = &res {
            let error = error as &dyn std::error::Error;
            tracing::debug!(node = %self.node.id, key = %self.shared.blob.key(), error, "watch ended");
        }
        self.tell_watched(Event::Lost { from: self.node.id.clone(), is_well }).await;
    }

    async fn follow(&self) -> Result<(), WatchError> {
        let mut start = self.shared.starts();
        loop {
            let ticket = start.borrow_and_update().wanted.ticket.clone();
            let (key, n_pieces) = (self.shared.blob.key(), self.shared.blob.geometry().n_pieces());
            let mut watching = self.tools.peers.watch(&self.node, key, n_pieces, &ticket).await?;
            while let Some(news) = watching.next().await? {
                let event = self.take_in(news)?;
                self.tell_watched(event).await;
            }
            // A watch ends with its ticket or this node's certificate, among others; with a fresher one it goes
            // on at once.
            if !watching.is_outdated() && !start.has_changed().unwrap_or(false) {
                return Ok(());
            }
        }
    }

    fn take_in(&self, news: BlobNews) -> Result<Event, WatchError> {
        self.shared.epochs.hear(self.node.role, &news, &self.tools.region.keys())?;
        Ok(Event::News {
            from: self.node.id.clone(),
            dropped: news.dropped,
            lost: news.lost,
            gained: news.gained,
            alive: news.seed.is_some(),
        })
    }

    /// A driver that is gone no longer cares.
    async fn tell(&self, report: Report) {
        let _ = self.reports.send(report).await;
    }

    async fn tell_watched(&self, event: Event) {
        self.tell(Report::Watched(tokio::task::id(), event)).await;
    }
}
