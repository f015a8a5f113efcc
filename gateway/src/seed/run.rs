//! One seed at work: reads the registry's stream once, from where the store's content ends.
//!
//! The bytes go to the [`Writer`] as whole pieces, through a short channel: when the disk is slower than the
//! registry, the registry waits. What to do when the stream breaks is the [`Plan`]'s decision.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, RANGE};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use shoal_blobstore::Blob;
use shoal_model::Rng;
use shoal_oci::Repository;
use shoal_oci::range::ContentRange;
use shoal_peer::attest::Signer;
use shoal_registry::RegistryBody;
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::SeedError;
use super::cutter::{Cutter, Piece};
use super::plan::{Answer, Fault, Plan, Setback};
use super::pulse::Pulse;
use super::writer::Writer;
use crate::authority::{Holder, Right, Size};
use crate::gate::Gate;
use crate::limits::SMALL;
use crate::mode::Asker;
use crate::queue::Place;
use crate::upstream::{AskError, Upstream, wait_of};

/// How many whole pieces may wait for the writer.
const WAITING: usize = 2;

/// How long a blob that passed through memory is not read again.
const BEFORE_AGAIN: Duration = Duration::from_secs(5);

/// What one seed needs.
pub(super) struct Seed {
    pub(super) gate: Arc<Gate>,
    pub(super) upstream: Arc<Upstream>,
    pub(super) repository: Repository,
    pub(super) blob: Blob,
    pub(super) signer: Arc<Signer>,
    /// One seeding of the blob by this gateway; grows from one to the next.
    pub(super) epoch: u64,
    pub(super) pulse: Pulse,
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

    /// Waits for the registry's turn, reads, and seals.
    pub(super) async fn run(&self) -> Result<(), SeedError> {
        let place = self.place().await;
        let resuming = Writer::resume(self.blob.clone(), self.signer.clone(), self.epoch);
        let writer = self.pulse.alive(resuming).await?;
        let mut cutter = Cutter::new(self.blob.geometry(), writer.next());
        self.pulse.reached(cutter.offset());

        let (pieces, waiting) = mpsc::channel(WAITING);
        let read = async {
            let res = self.read(place, &mut cutter, &pieces).await;
            drop(pieces);
            res
        };
        // The writer's error, where both fail, is the cause of the reader's.
        let (read, written) = tokio::join!(read, writer.run(waiting));
        let writer = written?;
        read?;
        writer.conclude()
    }

    async fn place(&self) -> Place {
        let limits = &self.upstream.limits;
        let is_small = self.blob.geometry().size() <= SMALL;
        let line = if is_small { &limits.small_blobs } else { &limits.blobs };
        line.enter(|position| self.pulse.queued(position)).await
    }

    async fn read(
        &self,
        mut place: Place,
        cutter: &mut Cutter,
        pieces: &mpsc::Sender<Piece>,
    ) -> Result<(), SeedError> {
        let size = self.blob.geometry().size();
        let mut plan = Plan::new(size, Rng::new(self.epoch));
        while cutter.offset() < size {
            match self.attempt(&mut plan, cutter, pieces).await? {
                None => {}
                // No sign of life: a registry that fails is no busy one, and nodes are to look for another way.
                Some(Setback::Ask { after }) => sleep(after).await,
                Some(Setback::LeaveAlone { wait }) => {
                    // Others, whom the registry has not turned away, may read meanwhile.
                    drop(place);
                    self.pulse.alive(sleep(wait)).await;
                    place = self.place().await;
                }
                Some(Setback::GiveUp(fault)) => return Err(fault.into()),
            }
        }
        drop(place);
        Ok(())
    }

    /// Asks once and reads what comes; `None` when that was all.
    async fn attempt(
        &self,
        plan: &mut Plan,
        cutter: &mut Cutter,
        pieces: &mpsc::Sender<Piece>,
    ) -> Result<Option<Setback>, SeedError> {
        let from = cutter.offset();
        let answer = match self.ask(from).await {
            Ok(answer) => answer,
            Err(error) => {
                self.warn(from, &error);
                return Ok(Some(match error.is_refusal() {
                    true => Setback::GiveUp(Fault::Refused(401)),
                    false => plan.broke(from),
                }));
            }
        };
        let skip = match plan.answered(from, &head(answer.status(), answer.headers())) {
            Ok(skip) => skip,
            Err(setback) => return Ok(Some(setback)),
        };
        self.note_granted();
        self.copy(answer.into_body(), skip, cutter, pieces).await?;
        let is_all = cutter.offset() == self.blob.geometry().size();
        Ok((!is_all).then(|| plan.broke(cutter.offset())))
    }

    /// The registry has the blob in this repository, and gives it to the gateway.
    fn note_granted(&self) {
        let (registry, repository) = (self.upstream.name().clone(), self.repository.clone());
        let right = Right { registry, repository, holder: Holder::Gateway };
        let size = Size::Claimed(self.blob.geometry().size());
        self.gate.blob_granted(&right, self.blob.key().digest, size);
    }

    #[expect(clippy::expect_used, reason = "input cannot reach it")]
    async fn ask(&self, from: u64) -> Result<Response<RegistryBody>, AskError> {
        let path = format!("/v2/{}/blobs/{}", self.repository, self.blob.key().digest);
        let mut request = Request::get(path);
        if from > 0 {
            request = request.header(RANGE, format!("bytes={from}-"));
        }
        let request = request.body(()).expect("repository and digest are safe in a path");
        self.pulse.alive(self.upstream.turn(Asker::Gateway)).await;
        self.upstream.ask_as_gateway(&self.repository, request).await
    }

    /// Reads a body to its end, good or bad.
    async fn copy(
        &self,
        mut body: RegistryBody,
        mut skip: u64,
        cutter: &mut Cutter,
        pieces: &mpsc::Sender<Piece>,
    ) -> Result<(), SeedError> {
        while let Some(frame) = body.frame().await {
            let mut bytes = match frame.map(|it| it.into_data()) {
                Ok(Ok(bytes)) => bytes,
                // Trailers say nothing about content.
                Ok(Err(_)) => continue,
                Err(error) => {
                    self.warn(cutter.offset(), &error);
                    return Ok(());
                }
            };
            self.upstream.received(bytes.len());
            self.pulse.alive(self.upstream.limits.bytes(bytes.len())).await;
            let known = skip.min(bytes.len() as u64);
            skip -= known;
            // At most the length of `bytes`, so it fits.
            bytes = bytes.split_off(known as usize);
            self.cut(bytes, cutter, pieces).await?;
            self.pulse.reached(cutter.offset());
        }
        Ok(())
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
