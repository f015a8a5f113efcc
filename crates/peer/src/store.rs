//! Having a node fetch blobs, keep them and share them, because a gateway says so.
//!
//! Nobody reads by it: the node holds what it would hold after a pull, and each caller is opened for itself. Only
//! gateways may ask, which give the tickets anyway. How a blob is fetched is the service's own: a sidecar has its
//! downloads, a gateway its seeds.
//!
//! The stream tells what changed once a second at most, and that nothing did every few seconds, so that whoever listens
//! knows a node that works slowly from one that is gone. Dropping the stream drops the wish.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream, FuturesUnordered, Stream, StreamExt as _};
use http::Extensions;
use shoal_blobstore::Blob;
use shoal_identity::{Caller, Role};
use shoal_proto::{Source, StoreBlob, StoreProgress, StoreRequest, Stored};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tonic::Status;

/// How long nothing is told after news.
const DISTANCE: Duration = Duration::from_secs(1);
/// How long it takes until a node that has no news says so.
const QUIET: Duration = Duration::from_secs(5);
/// The most requests at a node at once; gateways run fewer jobs.
const AT_ONCE: usize = 32;
/// The most blobs of one request that are fetched at once.
const MAX_BLOBS_AT_ONCE: u32 = 100;

/// Fetches blobs for nobody in particular.
pub trait Storer: Send + Sync + 'static {
    /// Begins to fetch a blob, or joins whoever does; what it is wanted with was granted then. Returns at once.
    ///
    /// # Errors
    /// Why it cannot be.
    fn store(&self, source: &Source, wanted: &StoreBlob, granted_at: Instant) -> Result<Storing, String>;
}

/// A blob that is being fetched to be kept.
pub struct Storing {
    /// What there is of it.
    pub blob: Blob,
    /// Waits for the end: that it is there and stays, or why not. Dropping it drops the wish.
    pub ended: BoxFuture<'static, Result<(), String>>,
}

/// The call of the `Peer` service.
pub(crate) struct StoreService {
    storer: Arc<dyn Storer>,
    places: Arc<Semaphore>,
    stopping: CancellationToken,
}

impl StoreService {
    pub(crate) fn new(storer: Arc<dyn Storer>, stopping: CancellationToken) -> Self {
        Self { storer, places: Arc::new(Semaphore::new(AT_ONCE)), stopping }
    }

    /// Begins what a request with these extensions asks for.
    pub(crate) fn begin(
        &self,
        from: &Extensions,
        request: StoreRequest,
    ) -> Result<BoxStream<'static, Result<StoreProgress, Status>>, Status> {
        Caller::of(from)
            .and_then(|it| it.must_be_one_of(&[Role::Gateway]))
            .map_err(|it| Status::permission_denied(format!("store: {it}")))?;
        let place = self.places.clone().try_acquire_owned();
        let place =
            place.map_err(|_| Status::resource_exhausted("store: as many as are allowed are at work"))?;
        let progress = store(self.storer.clone(), request, Some(place));
        Ok(progress.take_until(self.stopping.clone().cancelled_owned()).map(Ok).boxed())
    }
}

/// Fetches the blobs of a request and tells how far they are, until each has come to its end.
pub fn store(
    storer: Arc<dyn Storer>,
    request: StoreRequest,
    place: Option<OwnedSemaphorePermit>,
) -> impl Stream<Item = StoreProgress> + Send {
    let StoreRequest { source, blobs, at_once } = request;
    let work = Work {
        storer,
        source,
        at_once: at_once.clamp(1, MAX_BLOBS_AT_ONCE) as usize,
        waiting: blobs.into_iter().enumerate().collect(),
        running: FuturesUnordered::new(),
        blobs: BTreeMap::new(),
        news: Vec::new(),
        granted_at: Instant::now(),
        told_at: None,
        _place: place,
    };
    stream::unfold(work, |mut work| async move { Some((work.next().await?, work)) })
}

/// One request at work.
struct Work {
    storer: Arc<dyn Storer>,
    source: Source,
    at_once: usize,
    waiting: VecDeque<(usize, StoreBlob)>,
    running: FuturesUnordered<BoxFuture<'static, (usize, Result<(), String>)>>,
    /// Those at work, and how many bytes of each were told.
    blobs: BTreeMap<usize, (Blob, u64)>,
    /// How blobs ended that nobody was told of yet.
    news: Vec<Stored>,
    /// When all tickets were.
    granted_at: Instant,
    told_at: Option<Instant>,
    _place: Option<OwnedSemaphorePermit>,
}

impl Work {
    async fn next(&mut self) -> Option<StoreProgress> {
        loop {
            self.begin_more();
            let is_over = self.running.is_empty();
            if is_over && self.news.is_empty() && self.told_at.is_some() {
                return None;
            }
            let now = Instant::now();
            let may_tell_at = self.told_at.map_or(now, |it| it + DISTANCE);
            if is_over || now >= may_tell_at {
                let news = self.take_news();
                let is_quiet = self.told_at.is_some_and(|it| now < it + QUIET);
                if is_over || !news.is_empty() || !is_quiet {
                    self.told_at = Some(now);
                    return Some(StoreProgress(news));
                }
            }
            let wake = may_tell_at.max(now + DISTANCE / 4);
            tokio::select! {
                Some((index, end)) = self.running.next() => self.ended(index, end),
                () = sleep_until(wake) => {}
            }
        }
    }

    fn begin_more(&mut self) {
        while self.running.len() < self.at_once
            && let Some((index, wanted)) = self.waiting.pop_front()
        {
            // Its turn comes too late. Whoever asked sees no end of it, and asks again with a fresh ticket.
            if self.granted_at.elapsed() >= wanted.ticket_lives {
                continue;
            }
            match self.storer.store(&self.source, &wanted, self.granted_at) {
                Ok(Storing { blob, ended }) => {
                    self.blobs.insert(index, (blob, 0));
                    self.running.push(Box::pin(async move { (index, ended.await) }));
                }
                Err(why) => self.news.push(Stored { index, held: 0, end: Some(Err(cause(why))) }),
            }
        }
    }

    fn ended(&mut self, index: usize, end: Result<(), String>) {
        let held = self.blobs.remove(&index).map_or(0, |(blob, _)| held(&blob));
        self.news.push(Stored { index, held, end: Some(end.map_err(cause)) });
    }

    fn take_news(&mut self) -> Vec<Stored> {
        let mut news = std::mem::take(&mut self.news);
        for (index, (blob, told)) in &mut self.blobs {
            let held = held(blob);
            if held != *told {
                *told = held;
                news.push(Stored { index: *index, held, end: None });
            }
        }
        news
    }
}

/// How many bytes of a blob there are.
fn held(blob: &Blob) -> u64 {
    let (geometry, held) = (blob.geometry(), blob.held());
    held.runs()
        .into_iter()
        .map(|it| {
            geometry.range_of(it.end.saturating_sub(1)).end.saturating_sub(geometry.range_of(it.start).start)
        })
        .sum()
}

/// A cause of bounded length.
pub fn cause(mut why: String) -> String {
    let end = (0..=Stored::MAX_CAUSE.min(why.len())).rev().find(|it| why.is_char_boundary(*it));
    why.truncate(end.unwrap_or_default());
    why
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use shoal_model::BlobKey;
    use tokio::sync::oneshot;

    use super::*;
    use crate::testing;

    /// Has each blob end when the test says so.
    struct ByHand {
        store: shoal_blobstore::Store,
        ends: Mutex<BTreeMap<BlobKey, oneshot::Sender<Result<(), String>>>>,
    }

    impl Storer for ByHand {
        fn store(&self, _: &Source, wanted: &StoreBlob, _: Instant) -> Result<Storing, String> {
            let blob = self.store.create(&wanted.key, wanted.geometry).map_err(|it| it.to_string())?;
            let (end, ended) = oneshot::channel();
            self.ends.lock().unwrap().insert(wanted.key.clone(), end);
            Ok(Storing { blob, ended: Box::pin(async move { ended.await.unwrap() }) })
        }
    }

    impl ByHand {
        fn end(&self, byte: u8, end: Result<(), String>) {
            self.ends.lock().unwrap().remove(&testing::key(byte)).unwrap().send(end).unwrap();
        }

        fn at_work(&self) -> usize {
            self.ends.lock().unwrap().values().filter(|it| !it.is_closed()).count()
        }
    }

    fn by_hand() -> (tempfile::TempDir, Arc<ByHand>) {
        let (dir, store) = testing::store();
        (dir, Arc::new(ByHand { store, ends: Mutex::default() }))
    }

    fn request(blobs: std::ops::Range<u8>, at_once: u32) -> StoreRequest {
        let blob = |byte| StoreBlob {
            key: testing::key(byte),
            geometry: testing::geometry(),
            ticket: testing::ticket(&testing::key(byte)),
            ticket_lives: Duration::from_secs(300),
            gateway: testing::node("10.0.0.1:1"),
        };
        let source = Source { registry: "registry.example:5000".into(), repository: "team/app".into() };
        StoreRequest { source, blobs: blobs.map(blob).collect(), at_once }
    }

    fn ended(index: usize) -> Stored {
        Stored { index, held: 0, end: Some(Ok(())) }
    }

    #[tokio::test(start_paused = true)]
    async fn so_many_blobs_are_fetched_at_once_and_each_end_is_told() {
        let (_dir, storer) = by_hand();
        let mut progress = Box::pin(store(storer.clone(), request(0..3, 2), None));
        assert_eq!(progress.next().await, Some(StoreProgress(Vec::new())), "it has begun");
        assert_eq!(storer.at_work(), 2);
        storer.end(1, Ok(()));
        assert_eq!(progress.next().await, Some(StoreProgress(vec![ended(1)])));
        assert_eq!(storer.at_work(), 2, "the third has begun");
        storer.end(0, Err("x".repeat(2000)));
        storer.end(2, Ok(()));
        let Some(StoreProgress(mut last)) = progress.next().await else { panic!("no news") };
        last.sort_by_key(|it| it.index);
        assert_eq!(last[0].end, Some(Err("x".repeat(Stored::MAX_CAUSE))));
        assert_eq!(last[1], ended(2));
        assert_eq!(progress.next().await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_held_is_told_once_a_second_and_a_sign_of_life_every_few() {
        let (_dir, storer) = by_hand();
        let mut progress = Box::pin(store(storer.clone(), request(0..1, 1), None));
        progress.next().await.unwrap();
        let blob = storer.store.get(&testing::key(0)).unwrap();
        let began = Instant::now();
        testing::hold(&blob, 0).await;
        testing::hold(&blob, 3).await;
        let told = Stored { index: 0, held: 400_000, end: None };
        assert_eq!(progress.next().await, Some(StoreProgress(vec![told])));
        assert!(began.elapsed() >= DISTANCE);
        let told_at = Instant::now();
        assert_eq!(progress.next().await, Some(StoreProgress(Vec::new())));
        assert!(told_at.elapsed() >= QUIET && told_at.elapsed() <= QUIET + DISTANCE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_blob_whose_ticket_is_no_longer_good_is_not_begun() {
        let (_dir, storer) = by_hand();
        let mut progress = Box::pin(store(storer.clone(), request(0..2, 1), None));
        progress.next().await.unwrap();
        tokio::time::advance(Duration::from_secs(300)).await;
        storer.end(0, Ok(()));
        let mut told = Vec::new();
        while let Some(StoreProgress(news)) = progress.next().await {
            told.extend(news);
        }
        assert_eq!(told, [ended(0)], "nothing is said of the other: it is to be asked for anew");
        assert_eq!(storer.at_work(), 0);
    }

    #[tokio::test]
    async fn dropping_the_stream_drops_the_wish() {
        let (_dir, storer) = by_hand();
        let mut progress = Box::pin(store(storer.clone(), request(0..2, 2), None));
        progress.next().await.unwrap();
        assert_eq!(storer.at_work(), 2);
        drop(progress);
        assert_eq!(storer.at_work(), 0);
    }

    #[tokio::test]
    async fn only_gateways_may_and_only_so_often() {
        let (_dir, storer) = by_hand();
        let service = StoreService::new(storer, CancellationToken::new());
        for role in [Role::Sidecar, Role::Scheduler] {
            let refused = service.begin(&testing::extensions_of(role), request(0..1, 1)).err().unwrap();
            assert_eq!(refused.code(), tonic::Code::PermissionDenied);
        }
        let taken: Vec<_> = (0..AT_ONCE)
            .map(|_| service.begin(&testing::extensions_of(Role::Gateway), request(0..1, 1)))
            .collect();
        assert!(taken.iter().all(Result::is_ok));
        let busy = service.begin(&testing::extensions_of(Role::Gateway), request(0..1, 1)).err().unwrap();
        assert_eq!(busy.code(), tonic::Code::ResourceExhausted);
        drop(taken);
        assert!(service.begin(&testing::extensions_of(Role::Gateway), request(0..1, 1)).is_ok());
    }
}
