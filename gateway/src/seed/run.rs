//! One seed at work: reads the registry's stream once, from where the store's content ends.
//!
//! Before that it is this gateway's turn, and what others hold has been taken from them. Where it is another gateway's
//! turn, the seed follows that one: it takes each piece as it comes there, and what is signed about it.
//!
//! The bytes go to the [`Writer`] as whole pieces, through a short channel: when the disk is slower than the
//! registry, the registry waits. What to do when the stream breaks is the [`Plan`]'s decision.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, RANGE};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use shoal_blobstore::Blob;
use shoal_model::{Node, NodeId, Rng};
use shoal_oci::Repository;
use shoal_oci::range::ContentRange;
use shoal_peer::attest::Signer;
use shoal_peer::client::PeerClient;
use shoal_proto::Source;
use shoal_registry::RegistryBody;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use tracing::{Instrument as _, Span};

use super::SeedError;
use super::cutter::{Cutter, Piece};
use super::gather::{Gathered, Gatherer};
use super::plan::{Answer, Fault, Plan, Setback};
use super::pulse::Pulse;
use super::writer::Writer;
use crate::authority::{Holder, Right, Size};
use crate::background::AtWork;
use crate::frames::{self, Part};
use crate::gate::Gate;
use crate::ledger::{Ledger, Traffic};
use crate::limits::{Advance, SMALL};
use crate::metrics::{AtStage, Stage};
use crate::mode::Asker;
use crate::priority::Urgency;
use crate::queue::{Place, Queue};
use crate::sisters::{Sisters, Tenure, Turn};
use crate::tickets::Tickets;
use crate::upstream::{AskError, Upstream, wait_of};

/// How many whole pieces may wait for the writer.
const WAITING: usize = 2;
/// For how long nothing may come from a gateway that is followed.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long one that had nothing to tell is left alone; after the second time it does not serve the blob.
const AGAIN: Duration = Duration::from_millis(300);

/// How long a blob that passed through memory is not read again.
const BEFORE_AGAIN: Duration = Duration::from_secs(5);

/// What one seed needs.
pub(super) struct Seed {
    pub(super) gate: Arc<Gate>,
    pub(super) upstream: Arc<Upstream>,
    pub(super) repository: Repository,
    pub(super) blob: Blob,
    pub(super) signer: Arc<Signer>,
    /// When this gateway may read, and as which seeding of the blob.
    pub(super) tenure: Arc<Tenure>,
    pub(super) others: Others,
    pub(super) pulse: Pulse,
    pub(super) urgency: Urgency,
    pub(super) ledger: Arc<Ledger>,
    /// Bytes that the registry has sent.
    pub(super) n_read: AtomicU64,
    /// In the trace of whoever has it begun. What is taken from others is not shown there: it is many pieces.
    pub(super) span: Span,
}

/// Whoever else may hold pieces.
pub(super) struct Others {
    pub(super) sisters: Sisters,
    pub(super) peers: PeerClient,
    pub(super) tickets: Arc<Tickets>,
    /// As the scheduler says.
    pub(super) holders: Vec<Node>,
    /// Nothing is taken from any of them before the registry is read.
    pub(super) is_doubted: bool,
}

/// A seed's place among those that read.
struct Reading {
    _place: Place,
    _stage: AtStage,
    at_work: AtWork,
}

/// What one request to the registry led to.
enum Attempt {
    /// The blob's end, or a reason to ask at once for the rest.
    GoOn,
    Setback(Setback),
    /// Others are to read now.
    StepAside,
}

/// Why a body is read no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// It has ended, well or not.
    OfBody,
    /// Others are to read now.
    StepAside,
    /// Somebody waits for the blob now, which the hub is to know.
    Risen,
}

/// An answer's body, after what is known already.
struct Content {
    body: RegistryBody,
    /// What has come and was not looked at yet.
    came: Bytes,
    /// How many bytes are known.
    skip: u64,
    /// Where it comes framed.
    frames: Option<frames::Reader>,
}

impl Content {
    fn of(answer: Response<RegistryBody>, skip: u64) -> Self {
        let content_type = answer.headers().get(CONTENT_TYPE).map(HeaderValue::as_bytes);
        let is_framed = content_type == Some(frames::MEDIA_TYPE.as_bytes());
        let frames = is_framed.then(frames::Reader::default);
        Self { body: answer.into_body(), came: Bytes::new(), skip, frames }
    }

    /// The next content that is not known, with how many bytes came for it; `None` at the end. Fails where the body breaks
    /// off or makes no sense. Tells of each sign of life.
    async fn next(
        &mut self,
        alive: impl Fn(),
    ) -> Result<Option<(Bytes, usize)>, Box<dyn Error + Send + Sync>> {
        loop {
            let part = match &mut self.frames {
                Some(frames) => frames.take(&mut self.came)?,
                None => Some(std::mem::take(&mut self.came)).filter(|it| !it.is_empty()).map(Part::Content),
            };
            match part {
                Some(Part::Content(bytes)) => return Ok(Some(self.unknown(bytes))),
                Some(Part::Life) => alive(),
                None => match self.body.frame().await.transpose()? {
                    // Trailers say nothing about content.
                    Some(frame) => self.came = frame.into_data().unwrap_or_default(),
                    None => return Ok(None),
                },
            }
        }
    }

    fn unknown(&mut self, mut bytes: Bytes) -> (Bytes, usize) {
        let n_bytes = bytes.len();
        let known = self.skip.min(n_bytes as u64);
        self.skip -= known;
        // At most the length of `bytes`, so it fits.
        (bytes.split_off(known as usize), n_bytes)
    }
}

/// Where a blob came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Had {
    FromRegistry,
    FromOthers,
}

impl fmt::Display for Had {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::FromRegistry => "from the registry",
            Self::FromOthers => "from others",
        })
    }
}

impl Seed {
    /// Whether anybody needs the blob to be read. One that has just passed through is in nodes' hands as a rule, and
    /// those that look on still have the rest from each other; only where they go on waiting is it read again.
    pub(super) async fn is_wanted(&self) -> bool {
        if !self.blob.is_sealed() || self.blob.is_stored() {
            return true;
        }
        self.pulse.alive(sleep(BEFORE_AGAIN)).await;
        self.pulse.is_heard()
    }

    /// Waits for this gateway's turn and reads, or has the blob from the gateway whose turn it is.
    pub(super) async fn run(&self) -> Result<Had, SeedError> {
        if self.follow_others().await? {
            return Ok(Had::FromOthers);
        }
        tokio::select! {
            res = self.gather_and_read() => res,
            () = self.tenure.keep() => Err(SeedError::Overtaken),
        }
    }

    /// So much has been read of whoever is asked for the blob.
    fn as_traffic(&self, n_bytes: u64) -> Traffic {
        match self.upstream.is_behind_hub() {
            true => Traffic { hub: n_bytes, ..Traffic::default() },
            false => Traffic { registry: n_bytes, ..Traffic::default() },
        }
    }

    // === From others ===

    /// Returns when it is this gateway's turn, or, with true, when the blob is complete.
    async fn follow_others(&self) -> Result<bool, SeedError> {
        let mut moved_at = Instant::now();
        let mut was_in_vain = false;
        loop {
            match self.tenure.turn() {
                Turn::Read => return Ok(false),
                Turn::Ask => self.pulse.alive(self.tenure.ask()).await,
                Turn::Follow(sister) => {
                    let gathered = self.follow(&sister).await?;
                    if gathered.is_all {
                        return Ok(true);
                    }
                    if gathered.was_alive {
                        (moved_at, was_in_vain) = (Instant::now(), false);
                        continue;
                    }
                    if was_in_vain && !gathered.is_seeded {
                        self.tenure.was_left_by(&sister);
                    }
                    was_in_vain = !gathered.is_seeded;
                    if moved_at.elapsed() > PATIENCE {
                        return Err(SeedError::Unserved);
                    }
                    self.wait_for(&sister).await;
                }
            }
        }
    }

    async fn follow(&self, sister: &NodeId) -> Result<Gathered, SeedError> {
        match self.others.sisters.sister(sister) {
            Some(node) => self.gather(&[node], true).await,
            // Her lease will end.
            None => Ok(Gathered::default()),
        }
    }

    /// Leaves a sister alone for a moment. While she answers, her signs of life are all that is passed on: where her seed
    /// gives none, nodes are to look for another way.
    async fn wait_for(&self, sister: &NodeId) {
        if self.others.sisters.sister(sister).is_some() {
            sleep(AGAIN).await;
        } else {
            self.pulse.alive(sleep(AGAIN)).await;
        }
    }

    async fn gather(&self, nodes: &[Node], follows: bool) -> Result<Gathered, SeedError> {
        let Others { sisters, peers, tickets, .. } = &self.others;
        let source =
            Source { registry: self.upstream.name().to_string(), repository: self.repository.to_string() };
        let cut = (self.blob.key().clone(), self.blob.geometry());
        let ticket = tickets.give(SystemTime::now(), source, cut, sisters.me()).ticket;
        let gatherer = Gatherer::new(peers, &self.blob, sisters.keys(), ticket, &self.pulse);
        let gathered = gatherer.gather(nodes, follows).await?;
        self.upstream.metrics.gathered(gathered.n_bytes);
        self.ledger.moved(self.blob.key(), Traffic { peers: gathered.n_bytes, ..Traffic::default() });
        Ok(gathered)
    }

    /// What nodes and other gateways hold is not read again.
    async fn gather_and_read(&self) -> Result<Had, SeedError> {
        let Others { sisters, holders, is_doubted, .. } = &self.others;
        let me = sisters.me();
        let holders = holders.iter().filter(|it| it.id != me && sisters.sister(&it.id).is_none());
        let others: Vec<_> = holders.cloned().chain(sisters.answering()).collect();
        let may_ask = !is_doubted && !others.is_empty();
        if may_ask && self.pulse.alive(self.gather(&others, false)).await?.is_all {
            return Ok(Had::FromOthers);
        }
        self.read_all().await?;
        Ok(Had::FromRegistry)
    }

    // === From the registry ===

    /// Waits for the registry's turn, reads, and seals.
    async fn read_all(&self) -> Result<(), SeedError> {
        let reading = self.place().await;
        let resuming = Writer::resume(self.blob.clone(), self.signer.clone(), self.tenure.clone());
        let writer = self.pulse.alive(resuming).await?;
        let mut cutter = Cutter::new(self.blob.geometry(), writer.next());
        self.pulse.reached(cutter.offset());

        let (pieces, waiting) = mpsc::channel(WAITING);
        let read = async {
            let res = self.read(reading, &mut cutter, &pieces).await;
            drop(pieces);
            res
        };
        // The writer's error, where both fail, is the cause of the reader's.
        let (read, written) = tokio::join!(read, writer.run(waiting));
        let writer = written?;
        // Others may read from here on: before this a slow disk would have bytes of ever more blobs wait for it.
        drop(read?);
        writer.conclude().await
    }

    async fn place(&self) -> Reading {
        let Upstream { background, metrics, .. } = &*self.upstream;
        let (waiting, began) = (metrics.at(Stage::Waiting), Instant::now());
        self.pulse.alive(background.time(&self.urgency)).await;
        let place = self.line().enter(&self.urgency, |position| self.pulse.queued(position)).await;
        drop(waiting);
        metrics.waited(began.elapsed());
        Reading {
            _place: place,
            _stage: metrics.at(Stage::Reading),
            at_work: background.at_work(&self.urgency),
        }
    }

    fn line(&self) -> &Queue {
        let limits = &self.upstream.limits;
        if self.blob.geometry().size() <= SMALL { &limits.small_blobs } else { &limits.blobs }
    }

    async fn read(
        &self,
        mut reading: Reading,
        cutter: &mut Cutter,
        pieces: &mpsc::Sender<Piece>,
    ) -> Result<Reading, SeedError> {
        let size = self.blob.geometry().size();
        let mut plan = Plan::new(size, Rng::new(self.tenure.epoch()));
        while cutter.offset() < size {
            match self.attempt(&mut plan, &mut reading, cutter, pieces).await? {
                Attempt::GoOn => {}
                // No sign of life: a registry that fails is no busy one, and nodes are to look for another way.
                Attempt::Setback(Setback::Ask { after }) => sleep(after).await,
                Attempt::Setback(Setback::LeaveAlone { wait }) => {
                    // Others, whom the registry has not turned away, may read meanwhile.
                    drop(reading);
                    self.pulse.alive(sleep(wait)).await;
                    reading = self.place().await;
                }
                Attempt::Setback(Setback::GiveUp(fault)) => return Err(fault.into()),
                Attempt::StepAside => {
                    drop(reading);
                    reading = self.place().await;
                }
            }
        }
        Ok(reading)
    }

    /// Asks once and reads what comes.
    async fn attempt(
        &self,
        plan: &mut Plan,
        reading: &mut Reading,
        cutter: &mut Cutter,
        pieces: &mpsc::Sender<Piece>,
    ) -> Result<Attempt, SeedError> {
        let from = cutter.offset();
        let mut advance = self.upstream.limits.advance();
        let answer = match self.ask(from, &mut advance).await {
            Ok(answer) => answer,
            Err(error) => {
                self.warn(from, &error);
                return Ok(Attempt::Setback(match error.is_refusal() {
                    true => Setback::GiveUp(Fault::Refused(401)),
                    false => plan.broke(from),
                }));
            }
        };
        let skip = match plan.answered(from, &head(answer.status(), answer.headers())) {
            Ok(skip) => skip,
            Err(setback) => return Ok(Attempt::Setback(setback)),
        };
        self.note_granted();
        let end = self.copy(Content::of(answer, skip), (reading, advance), cutter, pieces).await?;
        let is_all = cutter.offset() == self.blob.geometry().size();
        Ok(match end {
            _ if is_all => Attempt::GoOn,
            End::OfBody => Attempt::Setback(plan.broke(cutter.offset())),
            End::StepAside => Attempt::StepAside,
            End::Risen => Attempt::GoOn,
        })
    }

    /// The registry has the blob in this repository, and gives it to the gateway.
    fn note_granted(&self) {
        let (registry, repository) = (self.upstream.name().clone(), self.repository.clone());
        let right = Right { registry, repository, holder: Holder::Gateway };
        let size = Size::Claimed(self.blob.geometry().size());
        self.gate.blob_granted(&right, self.blob.key().digest, size);
    }

    #[expect(clippy::expect_used, reason = "input cannot reach it")]
    async fn ask(&self, from: u64, advance: &mut Advance<'_>) -> Result<Response<RegistryBody>, AskError> {
        let path = format!("/v2/{}/blobs/{}", self.repository, self.blob.key().digest);
        let mut request = Request::get(path);
        if from > 0 {
            request = request.header(RANGE, format!("bytes={from}-"));
        }
        let request = request.body(()).expect("repository and digest are safe in a path");
        self.pulse.alive(self.upstream.turn(Asker::Gateway)).await;
        self.pulse.alive(advance.cover(0, self.blob.geometry().size().saturating_sub(from))).await;
        let blob = (&self.repository, self.blob.key().digest);
        self.upstream.read(blob, request, &self.urgency).instrument(self.span.clone()).await
    }

    /// Reads content until there is a reason to stop.
    async fn copy(
        &self,
        mut content: Content,
        (reading, mut advance): (&mut Reading, Advance<'_>),
        cutter: &mut Cutter,
        pieces: &mpsc::Sender<Piece>,
    ) -> Result<End, SeedError> {
        let may_rise = self.upstream.is_behind_hub() && !self.urgency.is_live();
        loop {
            let next = tokio::select! {
                next = content.next(|| self.pulse.beat()) => next,
                () = self.urgency.until_live(), if may_rise => return Ok(End::Risen),
            };
            let (bytes, n_bytes) = match next {
                Ok(Some(next)) => next,
                Ok(None) => return Ok(End::OfBody),
                Err(error) => {
                    self.warn(cutter.offset(), &*error);
                    return Ok(End::OfBody);
                }
            };
            self.upstream.received(n_bytes);
            self.n_read.fetch_add(n_bytes as u64, Ordering::Relaxed);
            self.ledger.moved(self.blob.key(), self.as_traffic(n_bytes as u64));
            let n_known = cutter.offset() + bytes.len() as u64;
            let n_left = (self.blob.geometry().size() + content.skip).saturating_sub(n_known);
            self.pulse.alive(advance.cover(n_bytes as u64, n_left)).await;
            self.cut(bytes, cutter, pieces).await?;
            self.pulse.reached(cutter.offset());
            reading.at_work.look();
            let minding = self.upstream.background.bytes(&self.urgency, self.line(), n_bytes);
            if cutter.offset() < self.blob.geometry().size() && !self.pulse.alive(minding).await {
                return Ok(End::StepAside);
            }
        }
    }

    async fn cut(
        &self,
        mut bytes: Bytes,
        cutter: &mut Cutter,
        pieces: &mpsc::Sender<Piece>,
    ) -> Result<(), SeedError> {
        let size = self.blob.geometry().size();
        while !bytes.is_empty() {
            if cutter.offset() == size {
                let found = size + bytes.len() as u64;
                return Err(Fault::OtherLength { found, granted: size }.into());
            }
            if let Some(piece) = cutter.take(&mut bytes) {
                // The writer only goes away with an error of its own, which is then the seed's.
                self.pulse.alive(pieces.send(piece)).await.map_err(|_| SeedError::Interrupted)?;
            }
        }
        Ok(())
    }

    /// Tells of a failure that the seed goes on after.
    fn warn(&self, offset: u64, error: &dyn std::error::Error) {
        let blob = self.blob.key();
        tracing::warn!(repository = %self.repository, %blob, offset, %error, "back-to-source broke off");
    }
}

fn head(status: StatusCode, headers: &HeaderMap) -> Answer {
    let text = |name| headers.get(name).and_then(|it| it.to_str().ok());
    let part = text(CONTENT_RANGE).and_then(|it| it.parse().ok());
    let (start, total) = match (status.as_u16(), part) {
        (206, Some(ContentRange::Part { range, size })) => (Some(range.start), size),
        (416, Some(ContentRange::Unsatisfied { size })) => (None, Some(size)),
        // Of what, a part without its place does not say.
        (206 | 416, _) => (None, None),
        _ => (Some(0), text(CONTENT_LENGTH).and_then(|it| it.parse().ok())),
    };
    Answer { status: status.as_u16(), start, total, retry_after: wait_of(headers) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(status: u16, headers: &[(&'static str, &'static str)], start: Option<u64>, total: Option<u64>) {
        let pairs = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        let headers: HeaderMap = pairs.collect();
        let got = head(StatusCode::from_u16(status).unwrap(), &headers);
        assert_eq!((got.start, got.total), (start, total), "{status} {headers:?}");
    }

    #[test]
    fn where_a_body_begins_is_taken_from_the_registry_and_never_assumed() {
        check(200, &[("content-length", "1000")], Some(0), Some(1000));
        check(200, &[], Some(0), None);
        check(
            206,
            &[("content-range", "bytes 400-999/1000"), ("content-length", "600")],
            Some(400),
            Some(1000),
        );
        check(206, &[("content-range", "bytes 400-999/*")], Some(400), None);
        for unusable in ["bytes */1000", "bytes 9-1/1000", "soon"] {
            check(206, &[("content-range", unusable), ("content-length", "600")], None, None);
        }
        check(206, &[("content-length", "600")], None, None);
        check(416, &[("content-range", "bytes */400")], None, Some(400));
        check(416, &[], None, None);
    }
}
