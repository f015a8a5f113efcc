//! Pulls: from a runtime's request for a blob to a stream of its bytes.
//!
//! However many clients ask, a blob is fetched once per node ([`download`]), and the fetch goes on when
//! they leave. A [`reader`] streams what the store has, in order, as it comes.

mod ask;
mod batch;
mod cuts;
mod direct;
mod doubts;
mod download;
mod driver;
mod fresh;
mod open;
mod rates;
mod reader;
mod removals;
mod report;
mod room;
mod slots;
mod spans;
mod stores;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ops::Range;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::metrics::SidecarMetrics;
use crate::registries::Registries;
use shoal_blobstore::{Blob, Store, StoreError};
use shoal_model::{Authorization, BlobKey, Node};
use shoal_ops::Context;
use shoal_peer::client::PeerClient;
use shoal_peer::region::Region;
use shoal_peer::report::Reporter;
use shoal_peer::schedulers::Schedulers;
use shoal_proto::{NodeMessage, OpenedBlob, SchedulerMessage, Source, Want};
use shoal_swarm::Geometry;
use tokio::time::Instant;

pub(crate) use cuts::Cut;
pub(crate) use download::Download;
pub(crate) use open::{Grant, Opener, Opening};
pub(crate) use rates::Rates;
pub(crate) use reader::{Reader, Steps};
pub(crate) use room::Room;
pub(crate) use slots::Slots;

use cuts::{Cuts, Resumed};
use doubts::Doubts;
use download::{Start, Wish};

/// What pulls are made with; clones are of the same.
#[derive(Clone)]
pub(crate) struct Tools {
    /// This node.
    pub node: Node,
    /// Where blobs are kept.
    pub store: Store,
    /// How other nodes are asked.
    pub peers: PeerClient,
    /// How registries are asked.
    pub registries: Registries,
    /// The gateway and the region's keys.
    pub region: Region,
    /// How the gateway is asked for blobs.
    pub opener: Opener,
    /// The streams to the schedulers.
    pub schedulers: Schedulers,
    /// How fast bytes may come in.
    pub rates: Rates,
    /// What is counted.
    pub metrics: SidecarMetrics,
    /// What tells the schedulers of the store, and can be hurried.
    pub reporter: Arc<Reporter>,
    /// Pieces asked at the same time.
    pub slots: Slots,
    /// Memory for what is being received.
    pub room: Room,
}

/// The blobs being fetched; clones are of the same.
#[derive(Clone)]
pub(crate) struct Pulls(Arc<Inner>);

struct Inner {
    ctx: Context,
    tools: Tools,
    active: Mutex<Active>,
    cuts: Cuts,
    doubts: Doubts,
    steps: Steps,
}

type Active = BTreeMap<BlobKey, Download>;

/// Why there is no stream.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoStream {
    /// The store cannot take the blob in.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The blob is being fetched, and the gateway has said otherwise before how long it is and how it is cut.
    #[error(
        "it is being fetched as {} bytes in pieces of {}, but {} in pieces of {} are stated",
        of_download.size(), of_download.piece_length(), stated.size(), stated.piece_length()
    )]
    OtherCut {
        /// What those who read it now were told.
        of_download: Geometry,
        /// What this request was told.
        stated: Geometry,
    },
    /// An earlier stream has just come to nothing.
    #[error(transparent)]
    Cut(#[from] Cut),
}

impl Pulls {
    /// No blobs yet.
    pub(crate) fn new(ctx: Context, tools: Tools) -> Self {
        Self(Arc::new(Inner {
            ctx,
            tools,
            active: Mutex::default(),
            cuts: Cuts::default(),
            doubts: Doubts::default(),
            steps: Steps::default(),
        }))
    }

    /// What they are made with.
    pub(crate) fn tools(&self) -> &Tools {
        &self.0.tools
    }

    /// How far its streams read at a time.
    pub(crate) fn steps(&self) -> Steps {
        self.0.steps.clone()
    }

    /// A stream over an opened blob, which is fetched if need be.
    ///
    /// # Errors
    /// Where there is no use in one; see [`NoStream`].
    pub(crate) fn read(
        &self,
        grant: &Grant,
        source: &Source,
        authorization: Option<&Authorization>,
        bytes: Range<u64>,
    ) -> Result<Reader, NoStream> {
        let mut active = self.active();
        let blob = self.create(&active, &grant.blob.key, grant.blob.geometry)?;
        let start = Start::new(grant, blob.geometry(), source, authorization);
        if blob.is_complete() {
            if self.0.doubts.arise(blob.key(), bytes.start, Instant::now()) {
                blob.mark_suspect();
            }
            return Ok(Reader::of_cached(blob, bytes, self.clone(), start));
        }
        let resumed = Resumed {
            start: bytes.start,
            is_readable: blob.readable().contains(blob.geometry().piece_at(bytes.start)),
            generation: blob.status().generation,
        };
        self.0.cuts.check(blob.key(), resumed, Instant::now())?;
        let download = self.begin(&mut active, blob, start, Wish::Pull);
        Ok(Reader::of_download(download, bytes, self.clone()))
    }

    /// The blob in the store. One that is being fetched is not cut anew under those who read it.
    fn create(&self, active: &Active, key: &BlobKey, stated: Geometry) -> Result<Blob, NoStream> {
        if let Some(download) = active.get(key).filter(|it| it.is_running()) {
            let blob = download.blob();
            let of_download = blob.geometry();
            if of_download != stated && !blob.is_sealed() {
                return Err(NoStream::OtherCut { of_download, stated });
            }
        }
        Ok(self.0.tools.store.create(key, stated)?)
    }

    /// A stream was given to its last byte.
    pub(crate) fn was_served(&self, reader: &Reader) {
        self.0.doubts.served(reader.key(), Instant::now());
    }

    /// A stream had to be ended early.
    pub(crate) fn was_cut(&self, reader: &Reader) {
        self.0.cuts.note(reader.key(), reader.generation(), Instant::now());
    }

    /// Takes in a small blob that came with its opening, so that it is there without the gateway as well.
    pub(crate) fn keep(&self, opened: &OpenedBlob, content: bytes::Bytes) {
        let blob = self.create(&self.active(), &opened.key, opened.geometry);
        let key = opened.key.clone();
        self.0.ctx.tasks.spawn_infallible("keep", async move {
            let keep = async {
                let blob = blob?;
                if !blob.is_complete() && blob.geometry().n_pieces() == 1 {
                    blob.write_provisional(0, vec![content]).await?;
                    blob.prove().await?;
                }
                Ok::<_, NoStream>(())
            };
            if let Err(error) = keep.await {
                tracing::warn!(%key, error = &error as &dyn std::error::Error, "blob not kept");
            }
        });
    }

    /// The one download of a blob, begun if need be.
    fn download(&self, blob: Blob, start: Start) -> Download {
        self.begin(&mut self.active(), blob, start, Wish::Pull)
    }

    fn begin(&self, active: &mut Active, blob: Blob, start: Start, wish: Wish) -> Download {
        let key = start.wanted.key.clone();
        if let Some(download) = active.get(&key).filter(|it| it.is_running()) {
            download.wished(wish);
            download.renew(start);
            return download.clone();
        }
        let (download, driver) = Download::new(self.0.tools.clone(), blob, start);
        download.wished(wish);
        active.insert(key.clone(), download.clone());
        self.counted(active.len());

        let (pulls, attended) = (self.clone(), download.clone());
        let stopping = self.0.ctx.tasks.stopping();
        self.0.ctx.tasks.spawn_infallible("download", async move {
            let mut run = pin!(driver.run());
            loop {
                tokio::select! {
                    () = &mut run => break,
                    // A process that stops still serves the streams that it has begun.
                    () = async { stopping.cancelled().await; attended.unattended().await } => break,
                    () = attended.abandoned() => if pulls.abandon(&key, &attended) { break },
                    () = attended.removed() => break,
                }
            }
            pulls.ended(&key);
        });
        download
    }

    /// Takes a download away that nobody wants, unless somebody has just come to want it.
    fn abandon(&self, key: &BlobKey, download: &Download) -> bool {
        let mut active = self.active();
        let is_abandoned = download.is_abandoned();
        if is_abandoned {
            active.remove(key);
            self.counted(active.len());
            self.0.tools.schedulers.send(NodeMessage::Unwant(key.clone()));
            tracing::info!(%key, "nobody wants the blob any more");
        }
        is_abandoned
    }

    fn active(&self) -> MutexGuard<'_, Active> {
        self.0.active.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ended(&self, key: &BlobKey) {
        let mut active = self.active();
        if active.get(key).is_some_and(|it| !it.is_running()) {
            active.remove(key);
        }
        self.counted(active.len());
    }

    fn counted(&self, n_active: usize) {
        self.0.tools.metrics.active().set(n_active as i64);
        self.0.tools.slots.divide_among(n_active);
    }

    /// Hands on what the scheduler said to the download that it concerns.
    pub(crate) fn hear(&self, message: SchedulerMessage) {
        let key = match &message {
            SchedulerMessage::Neighbours(it) => &it.key,
            SchedulerMessage::Lease(it) => &it.key,
            SchedulerMessage::GoDirect(key) => key,
            SchedulerMessage::Seed(it) => &it.blob.key,
            SchedulerMessage::Unknown => return,
        };
        let active = self.active();
        if let Some(download) = active.get(key) {
            download.hear(message);
        }
    }

    /// The wishes of all running downloads of these blobs, for a scheduler that they have come to.
    pub(crate) fn wants(&self, concerns: &dyn Fn(&BlobKey) -> bool) -> Vec<NodeMessage> {
        let active = self.active();
        let is_wished = |it: &Download| it.is_running() && it.blob().is_stored();
        let running = active.iter().filter(|(key, it)| concerns(key) && is_wished(it));
        let want = |it: &Download| {
            let (blob, held) = (it.start().wanted, it.blob().held().runs());
            Want { blob, held, moved: false }
        };
        running.map(|(_, it)| NodeMessage::Want(want(it))).collect()
    }
}
