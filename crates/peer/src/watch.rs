//! Tells other nodes what this one holds of a blob, at once and then as it changes.
//!
//! What is told is the difference between the blob as it is and as it was told last, never a queue of
//! events: a slow watcher costs no memory and hears of many changes in one message. Messages that bring pieces
//! keep a distance ([`news`]), so that a download costs few of them, and the first after a quiet time goes out
//! at once, so that a piece travels on without delay. Signs of life of a seed keep a longer distance of their
//! own, and no piece waits for them.
//!
//! Attestations are told with the first pieces after they came, so that a watcher can verify what it fetches, and
//! never for themselves, since every node would tell every other of each of them. The seal is, at the end. Pieces that
//! are gone, because they were damaged or the disk had not taken them, are told as such. When the content was dropped,
//! the watcher is told to forget everything.
//!
//! A watch on a seed ends when the seed has failed: a node that went on listening would take the silence for
//! patience. Where the pieces only passed through, because the disk did not take them, it goes on with the next seed. A
//! watch does not outlive its ticket either; who still wants to know comes back with a fresh one.
//! That also bounds how long a watcher keeps the blob from eviction.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::future;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use shoal_blobstore::{Blob, Status as BlobStatus};
use shoal_proto::{Attestation, BlobNews, SeedProgress, WatchRequest};
use shoal_swarm::{Bitmap, PieceIndex, news};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use crate::shares::{Share, Shares};
use crate::shelf::{Door, Refused, ShelfBlob};

/// The least time between two looks at a seed's progress. Watchers lose patience after seconds.
const SIGN_DISTANCE: Duration = Duration::from_millis(100);
/// The most attestations in one message. Pieces wait until all attestations have been told.
pub(crate) const MAX_ATTESTATIONS: usize = 1024;

/// The watches on the blobs behind a door.
pub(crate) struct WatchService {
    door: Door,
    places: Arc<Semaphore>,
    /// What each node has of these.
    shares: Shares,
    stopping: CancellationToken,
}

impl WatchService {
    /// Allows at most `places` watches at once, and ends them all on `stopping`.
    pub(crate) fn new(door: Door, places: usize, stopping: CancellationToken) -> Self {
        let places = Arc::new(Semaphore::new(places.min(Semaphore::MAX_PERMITS)));
        Self { door, places, shares: Shares::default(), stopping }
    }

    /// Begins a watch.
    pub(crate) fn watch(&self, request: Request<WatchRequest>) -> Result<Response<Watched>, Status> {
        let (_, from, WatchRequest { key, ticket }) = request.into_parts();
        let now = SystemTime::now();
        let opened = self.door.open(now, &key, &ticket, &from);
        let (opened, claims) = opened.map_err(|it| refuse(&it))?;
        let full = || Status::resource_exhausted("watch: no place is free");
        let share = self.shares.take(&from, self.places.available_permits()).ok_or_else(full)?;
        let place = self.places.clone().try_acquire_owned().map_err(|_| full())?;
        let expired = sleep(claims.expires.duration_since(now).unwrap_or_default());
        let stopping = self.stopping.clone().cancelled_owned();
        let end = async move {
            tokio::select! {
                () = expired => {}
                () = stopping => {}
            }
        };
        let door = self.door.clone();
        let reopen = Box::new(move || door.open_again(&claims));
        let news = stream::unfold(Watcher::new(opened, reopen, (place, share)), Watcher::next);
        Ok(Response::new(news.take_until(end).map(Ok).boxed()))
    }
}

/// What a watcher hears.
pub(crate) type Watched = BoxStream<'static, Result<BlobNews, Status>>;

fn refuse(refused: &Refused) -> Status {
    match refused {
        Refused::Ticket(_) | Refused::Caller(_) => Status::permission_denied(refused.to_string()),
        Refused::NotHere(_) => Status::not_found(refused.to_string()),
    }
}

/// One watch at work.
struct Watcher {
    blob: Blob,
    version: watch::Receiver<u64>,
    seed: Seed,
    /// Opens the blob anew.
    reopen: Reopen,
    told: Told,
    /// When it last told of pieces.
    last: Option<Instant>,
    /// No message goes out before this.
    quiet_until: Instant,
    /// The seed's progress is not looked at before this.
    signs_from: Instant,
    _place: (OwnedSemaphorePermit, Share),
}

type Reopen = Box<dyn Fn() -> Option<ShelfBlob> + Send>;

/// Who fills the blob, as far as the shelf knows.
enum Seed {
    /// A seed is at work here.
    Works(watch::Receiver<SeedProgress>),
    /// One was; what it left is in the store.
    Ended,
    /// It is not seeded here.
    Elsewhere,
}

impl Watcher {
    fn new(opened: ShelfBlob, reopen: Reopen, place: (OwnedSemaphorePermit, Share)) -> Self {
        Self {
            version: opened.blob.version(),
            blob: opened.blob,
            seed: opened.seed.map_or(Seed::Elsewhere, Seed::Works),
            reopen,
            told: Told::default(),
            last: None,
            quiet_until: Instant::now(),
            signs_from: Instant::now(),
            _place: place,
        }
    }

    async fn next(mut self) -> Option<(BlobNews, Self)> {
        loop {
            sleep_until(self.quiet_until).await;
            let view = self.view(Instant::now());
            if let Some(news) = self.told.news(view) {
                if !news.gained.is_empty() {
                    self.keep_distance(&news.gained);
                }
                return Some((news, self));
            }
            if matches!(self.seed, Seed::Ended) && !self.blob.is_complete() {
                self.seed = Seed::Works(self.next_seed()?);
                continue;
            }
            self.changed().await?;
        }
    }

    /// The seed that follows one whose pieces only passed through, for whoever still lacks some of them. There is none
    /// after one that failed.
    fn next_seed(&self) -> Option<watch::Receiver<SeedProgress>> {
        let passed_through = self.blob.is_sealed() && !self.blob.is_stored();
        passed_through.then(|| (self.reopen)()?.seed).flatten()
    }

    fn keep_distance(&mut self, gained: &[Range<PieceIndex>]) {
        let (now, held) = (Instant::now(), &self.told.held);
        let last = self.last.replace(now).map_or(Duration::ZERO, |it| now - it);
        let n_new = gained.iter().map(|it| it.end - it.start).sum();
        self.quiet_until = now + news::distance(held.count(), held.len(), n_new, last);
    }

    fn view(&mut self, now: Instant) -> View<impl FnOnce() -> Vec<Bytes> + use<>> {
        self.version.borrow_and_update();
        let blob = self.blob.clone();
        // Before the attestations: a piece that is held has been attested by then.
        let status = blob.status();
        View {
            is_last: status.held.is_full() || !blob.is_stored(),
            status,
            attestations: move || blob.attestations(),
            seed: match &mut self.seed {
                Seed::Works(seed) if self.signs_from <= now => {
                    self.signs_from = now + SIGN_DISTANCE;
                    Some(*seed.borrow_and_update())
                }
                Seed::Works(_) | Seed::Ended | Seed::Elsewhere => None,
            },
        }
    }

    /// Waits for a change; `None` when there can be no more.
    async fn changed(&mut self) -> Option<()> {
        let seed = async {
            match &mut self.seed {
                Seed::Works(seed) => {
                    sleep_until(self.signs_from).await;
                    seed.changed().await
                }
                Seed::Ended | Seed::Elsewhere => future::pending().await,
            }
        };
        tokio::select! {
            changed = self.version.changed() => changed.ok()?,
            changed = seed => if changed.is_err() {
                self.seed = Seed::Ended;
            },
        }
        Some(())
    }
}

/// A blob as it is.
struct View<A> {
    status: BlobStatus,
    /// All pieces are here, or none stays here: the seal follows none.
    is_last: bool,
    /// Reads them, where they are needed: encoded, in the order in which they came.
    attestations: A,
    /// How far the seed is, where there is one and it is time to look.
    seed: Option<SeedProgress>,
}

/// What a watcher has been told.
#[derive(Default)]
struct Told {
    /// Which of its contents the blob had; `None` before the first message.
    generation: Option<u64>,
    held: Bitmap,
    /// The last one. Attestations only ever follow it, or are replaced all at once by a complete list.
    attestation: Option<Bytes>,
    seed: Option<SeedProgress>,
}

impl Told {
    /// What is new, if anything; it counts as told from then on. The first news may be empty.
    fn news(&mut self, view: View<impl FnOnce() -> Vec<Bytes>>) -> Option<BlobNews> {
        let mut news = BlobNews::default();
        let is_first = self.generation.is_none();
        let is_void = self.generation != Some(view.status.generation);
        if is_void {
            news.dropped = !is_first;
            *self = Self {
                generation: Some(view.status.generation),
                held: Bitmap::new(view.status.geometry.n_pieces()),
                ..Self::default()
            };
        }
        let lost = self.held.minus(&view.status.held);
        self.held.subtract(&lost);
        news.lost = lost.runs();
        let gained = view.status.held.minus(&self.held);
        // The seal may come after the last piece.
        if is_void || !gained.is_empty() || (view.status.sealed && view.is_last) {
            let attestations = (view.attestations)();
            let untold = self.untold(&attestations);
            let batch = untold.get(..MAX_ATTESTATIONS).unwrap_or(untold);
            if let Some(last) = batch.last() {
                self.attestation = Some(last.clone());
            }
            news.attestations = batch.iter().filter_map(decoded).collect();
            if batch.len() == untold.len() {
                news.gained = gained.runs();
                self.held = view.status.held;
            }
        }
        news.seed = view.seed.filter(|it| self.seed != Some(*it));
        self.seed = news.seed.or(self.seed);
        (is_first || news != BlobNews::default()).then_some(news)
    }

    /// The attestations after the last one told; all where that one has been replaced.
    fn untold<'a>(&self, attestations: &'a [Bytes]) -> &'a [Bytes] {
        let told = attestations.iter().rposition(|it| Some(it) == self.attestation.as_ref());
        attestations.get(told.map_or(0, |last| last + 1)..).unwrap_or_default()
    }
}

/// Attestations are checked before they are kept, so one that cannot be read was damaged on disk, and is
/// passed over like any damaged record.
fn decoded(bytes: &Bytes) -> Option<Attestation> {
    Attestation::decode(bytes).ok()
}

#[cfg(test)]
// News of one run of pieces is what many of these are about.
#[allow(clippy::single_range_in_vec_init)]
mod tests {
    use super::*;
    use crate::testing::{self, key};
    use shoal_swarm::Geometry;
    use tonic::metadata::MetadataMap;

    fn attestation(number: u32) -> Bytes {
        let statement = Bytes::from(number.to_be_bytes().to_vec());
        let signature = [0; 64];
        Attestation { statement, signature }.encode()
    }

    fn view(
        generation: u64,
        held: &[u32],
        attestations: &[u32],
    ) -> View<impl FnOnce() -> Vec<Bytes> + use<>> {
        let geometry = Geometry::stated(100, 10).unwrap();
        let mut map = Bitmap::new(geometry.n_pieces());
        for piece in held {
            map.insert(*piece);
        }
        let attestations: Vec<_> = attestations.iter().copied().map(attestation).collect();
        View {
            is_last: map.is_full(),
            status: BlobStatus { generation, geometry, held: map, sealed: false },
            attestations: || attestations,
            seed: None,
        }
    }

    fn show(news: Option<BlobNews>) -> String {
        let Some(news) = news else {
            return "nothing".into();
        };
        let numbers: Vec<_> = news
            .attestations
            .iter()
            .map(|it| u32::from_be_bytes(it.statement.as_ref().try_into().unwrap()))
            .collect();
        let dropped = if news.dropped { "dropped, " } else { "" };
        let seed = news.seed.map_or(String::new(), |it| format!(" at {}", it.offset));
        let lost = if news.lost.is_empty() { String::new() } else { format!("lost {:?}, ", news.lost) };
        format!("{dropped}{lost}{numbers:?} {:?}{seed}", news.gained)
    }

    #[track_caller]
    fn check<A: FnOnce() -> Vec<Bytes>>(views: impl IntoIterator<Item = View<A>>, expected: &[&str]) {
        let mut told = Told::default();
        let seen: Vec<_> = views.into_iter().map(|it| show(told.news(it))).collect();
        assert_eq!(seen, expected);
    }

    #[test]
    fn only_what_changed_is_told() {
        check(
            [
                view(0, &[], &[]),
                view(0, &[], &[]),
                view(0, &[], &[1]),
                view(0, &[3, 4, 7], &[1, 2, 3]),
                view(0, &[3, 4, 5, 7], &[1, 2, 3]),
                view(0, &[3, 4, 5, 7], &[1, 2, 3]),
            ],
            &["[] []", "nothing", "nothing", "[1, 2, 3] [3..5, 7..8]", "[] [5..6]", "nothing"],
        );
    }

    #[test]
    fn the_complete_list_is_told_in_place_of_the_partial_ones() {
        check(
            [view(0, &[1], &[1]), view(0, &[1], &[9]), view(0, &[1, 2], &[9])],
            &["[1] [1..2]", "nothing", "[9] [2..3]"],
        );
    }

    #[test]
    fn a_seal_that_comes_after_the_last_piece_is_told() {
        let all: Vec<_> = (0..10).collect();
        let sealed = || {
            let mut it = view(0, &all, &[9]);
            it.status.sealed = true;
            it
        };
        check([view(0, &all, &[1]), sealed(), sealed()], &["[1] [0..10]", "[9] []", "nothing"]);
    }

    #[test]
    fn what_was_dropped_voids_everything_and_what_was_lost_itself() {
        check(
            [view(4, &[1, 2], &[1]), view(5, &[], &[]), view(5, &[1], &[2]), view(5, &[0], &[2])],
            &["[1] [1..3]", "dropped, [] []", "[2] [1..2]", "lost [1..2], [] [0..1]"],
        );
    }

    #[test]
    fn the_seal_of_pieces_that_passed_through_is_told() {
        let sealed = || {
            let mut it = view(0, &[9], &[9]);
            it.status.sealed = true;
            it.is_last = true;
            it
        };
        check(
            [view(0, &[8], &[1]), sealed(), sealed()],
            &["[1] [8..9]", "lost [8..9], [9] [9..10]", "nothing"],
        );
    }

    #[test]
    fn pieces_wait_until_all_attestations_are_told() {
        let many: Vec<u32> = (0..1500).collect();
        let mut told = Told::default();
        let seen: Vec<_> = (0..3)
            .map(|_| told.news(view(0, &[1], &many)))
            .map(|it| it.map(|news| (news.attestations.len(), news.gained.len())))
            .collect();
        assert_eq!(seen, [Some((1024, 0)), Some((476, 1)), None]);
    }

    #[test]
    fn a_seed_at_work_is_told_until_it_ends() {
        let at = |offset| View {
            seed: Some(SeedProgress { offset, ..SeedProgress::default() }),
            ..view(0, &[], &[])
        };
        check(
            [at(10), at(10), at(20), view(0, &[], &[])],
            &["[] [] at 10", "nothing", "[] [] at 20", "nothing"],
        );
    }

    fn place() -> (OwnedSemaphorePermit, Share) {
        let share = Shares::default().take(&http::Extensions::new(), 1).unwrap();
        (Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap(), share)
    }

    fn watch_request() -> Request<WatchRequest> {
        let request = WatchRequest { key: key(1), ticket: testing::ticket(&key(1)) };
        Request::from_parts(MetadataMap::new(), testing::anybody(), request)
    }

    // In the next two the clock is paused and runs ahead whenever nothing else is left to do.

    #[track_caller]
    fn assert_took(since: Instant, expected: Duration) {
        // Timers have a resolution of a millisecond, also on a paused clock.
        assert!(since.elapsed().abs_diff(expected) <= Duration::from_millis(1), "{:?}", since.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn pieces_keep_a_distance_and_the_first_after_a_quiet_time_goes_at_once() {
        let (_dir, store) = testing::store();
        let blob = testing::blob(&store, &key(1), &[]).await;
        let door = Door::new(Arc::new(store), testing::verifier());
        let service = WatchService::new(door, 1, CancellationToken::new());
        let mut news = service.watch(watch_request()).unwrap().into_inner();
        assert_eq!(news.next().await.unwrap().unwrap(), BlobNews::default(), "which no piece waits for");
        let (now, later) = (Duration::ZERO, Duration::from_secs(1));
        let distance = news::distance(1, 4, 1, now);
        for (piece, quiet, wait) in [(0, now, now), (1, now, distance), (2, later, now)] {
            tokio::time::advance(quiet).await;
            let came = Instant::now();
            testing::hold(&blob, piece).await;
            assert_eq!(news.next().await.unwrap().unwrap().gained, [piece..piece + 1]);
            assert_took(came, wait);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn no_piece_waits_for_a_sign_of_life_and_signs_are_rare() {
        let (_dir, store) = testing::store();
        let blob = testing::blob(&store, &key(1), &[]).await;
        let (seed, progress) = watch::channel(SeedProgress::default());
        let reach = |offset| seed.send_modify(|it| it.offset = offset);
        let opened = ShelfBlob { blob: blob.clone(), seed: Some(progress) };
        let watcher = Watcher::new(opened, Box::new(|| None), place());
        let (_, watcher) = watcher.next().await.unwrap();
        let began = Instant::now();

        reach(10);
        testing::hold(&blob, 0).await;
        let (news, watcher) = watcher.next().await.unwrap();
        assert_eq!((&news.gained[..], news.seed), (&[0..1][..], None));
        assert_took(began, Duration::ZERO);

        reach(20);
        let (news, _) = watcher.next().await.unwrap();
        assert_eq!((&news.gained[..], news.seed.map(|it| it.offset)), (&[][..], Some(20)));
        assert_took(began, SIGN_DISTANCE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_ends_with_its_ticket() {
        let (_dir, store) = testing::store();
        testing::blob(&store, &key(1), &[]).await;
        let door = Door::new(Arc::new(store), testing::verifier());
        let service = WatchService::new(door, 1, CancellationToken::new());
        let news = service.watch(watch_request()).unwrap().into_inner();
        let news: Vec<_> = news.map(|it| it.unwrap()).collect().await;
        assert_eq!(news, [BlobNews::default()]);
        assert!(service.watch(watch_request()).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_ends_with_a_seed_that_failed() {
        let (_dir, store) = testing::store();
        let blob = testing::blob(&store, &key(1), &[]).await;
        let (seed, progress) = watch::channel(SeedProgress::default());
        let opened = ShelfBlob { blob, seed: Some(progress) };
        let watcher = Watcher::new(opened, Box::new(|| None), place());
        let (first, watcher) = watcher.next().await.unwrap();
        assert_eq!(first.seed, Some(SeedProgress::default()));
        drop(seed);
        assert!(watcher.next().await.is_none());
    }
}
