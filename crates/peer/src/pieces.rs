//! Hands out pieces over HTTP: `GET /pieces/<trust group>/<sha256>` with a range and a ticket.
//!
//! Only pieces that are held are handed out, and a range only when all of it is. Upload slots are bounded,
//! and a request that finds none is refused at once rather than queued: the asker knows others to ask,
//! and waiting would hide that from it. A slot is held until the bytes have arrived (see [`Receipts`]). A request
//! that says it is urgent finds a few more, so that a rack does not wait because its importer is one of many who
//! ask, nor a newcomer because those who are at work ask anew the moment that they are served. Nothing is gained by
//! claiming so without cause but a share of these. And no node is given so many slots that none is left for others.
//!
//! A reader that takes no bytes is cut by the server's limit on stalls, with which go the slot and the hold on the
//! blob; a body cannot notice that by itself, since nobody asks it for more.

use std::fmt::Display;
use std::ops::Range;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use futures_util::stream::{self, Stream};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::{Full, StreamBody};
use prometheus_client::metrics::counter::Counter;
use shoal_blobstore::{Blob, StoreError};
use shoal_oci::range::{self, ByteRange, ContentRange};
use shoal_ops::serve::Receipts;
use shoal_ops::traces::{self, TARGET};
use shoal_proto::Ticket;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::body::Body;
use tracing::field::{Empty, display};
use tracing::{Instrument as _, Span, info_span};

use crate::piece_path;
use crate::shares::{Share, Shares};
use crate::shelf::{Door, Refused};

/// Bytes are read from the store and sent in steps of this size; larger ones cost more time per byte,
/// since they fall out of the processor's cache between the two.
const FRAME: u64 = 256 << 10;

/// Answers requests for pieces.
#[derive(Clone)]
pub(crate) struct PieceServer {
    door: Door,
    slots: Arc<Semaphore>,
    /// Further slots, for urgent requests.
    urgent_slots: Arc<Semaphore>,
    /// What each node has of both.
    shares: Shares,
    uploaded: Counter,
}

/// An answer other than bytes.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("only GET")]
    Method,
    #[error("path: not of the form {}<trust group>/<sha256 in hex>", piece_path::PREFIX)]
    Path,
    #[error("header {}: missing", piece_path::TICKET)]
    NoTicket,
    #[error(transparent)]
    Door(#[from] Refused),
    #[error("range: not one within {0} bytes")]
    Range(u64),
    #[error("pieces: not all held here")]
    NotHeld,
    #[error("no upload slot is free")]
    Busy,
    #[error("the store failed")]
    Store,
}

impl Refusal {
    const fn status(&self) -> StatusCode {
        match self {
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Path | Self::NoTicket => StatusCode::BAD_REQUEST,
            Self::Door(Refused::Ticket(_) | Refused::Caller(_)) => StatusCode::FORBIDDEN,
            Self::Door(Refused::NotHere(_)) | Self::NotHeld => StatusCode::NOT_FOUND,
            Self::Range(_) => StatusCode::RANGE_NOT_SATISFIABLE,
            Self::Busy => StatusCode::SERVICE_UNAVAILABLE,
            Self::Store => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl PieceServer {
    /// Serves what is behind `door` in at most `slots` uploads at once, and in a third more for urgent ones.
    pub(crate) fn new(door: Door, slots: usize) -> Self {
        let slots = slots.min(Semaphore::MAX_PERMITS);
        Self {
            door,
            slots: Arc::new(Semaphore::new(slots)),
            urgent_slots: Arc::new(Semaphore::new(slots.div_ceil(3))),
            shares: Shares::default(),
            uploaded: Counter::default(),
        }
    }

    /// Counts the bytes handed out.
    pub(crate) const fn uploaded(&self) -> &Counter {
        &self.uploaded
    }

    /// Answers one request.
    pub(crate) async fn answer(&self, request: Parts) -> Response<Body> {
        let asker = traces::of_headers(&request.headers);
        let path = request.uri.path();
        let span = traces::from(asker, || {
            info_span!(
                target: TARGET, "serve piece", otel.kind = "server", path,
                range = ?text(&request.headers, header::RANGE.as_str()), refused = Empty
            )
        });
        match self.upload(&request, &span).instrument(span.clone()).await {
            Ok(response) => response,
            Err(refusal) => {
                span.record("refused", display(&refusal));
                refuse(&refusal)
            }
        }
    }

    async fn upload(&self, request: &Parts, span: &Span) -> Result<Response<Body>, Refusal> {
        if request.method != Method::GET {
            return Err(Refusal::Method);
        }
        let key = piece_path::read(request.uri.path()).ok_or(Refusal::Path)?;
        let ticket = text(&request.headers, piece_path::TICKET).ok_or(Refusal::NoTicket)?;
        let (opened, _) =
            self.door.open(SystemTime::now(), &key, &Ticket(ticket.to_owned()), &request.extensions)?;
        let range = held_range(&opened.blob, &request.headers)?;
        let slot = self.slot(request).ok_or(Refusal::Busy)?;
        let mut upload = Upload {
            blob: opened.blob,
            rest: range.clone(),
            door: self.door.clone(),
            uploaded: self.uploaded.clone(),
            slot: Slot { receipts: Receipts::of(request), permit: Some(slot) },
            span: span.clone(),
        };
        let size = upload.blob.geometry().size();
        // Read before anything is promised: a piece may turn out damaged on its first use.
        let first = upload.read().await.map_err(unreadable)?;
        Ok(partial_content(range, size, upload.frames(first)))
    }

    fn slot(&self, request: &Parts) -> Option<(OwnedSemaphorePermit, Share)> {
        let n_free = self.slots.available_permits() + self.urgent_slots.available_permits();
        let share = self.shares.take(&request.extensions, n_free)?;
        let is_urgent = request.headers.contains_key(piece_path::URGENT);
        let free = |slots: &Arc<Semaphore>| slots.clone().try_acquire_owned().ok();
        let permit = free(&self.slots).or_else(|| free(&self.urgent_slots).filter(|_| is_urgent))?;
        Some((permit, share))
    }
}

/// The bytes asked for, all of which are held.
fn held_range(blob: &Blob, headers: &HeaderMap) -> Result<Range<u64>, Refusal> {
    let geometry = blob.geometry();
    let asked = text(headers, header::RANGE.as_str()).map(|it| range::parse(it, geometry.size()));
    let Some(ByteRange::Part(range)) = asked else {
        return Err(Refusal::Range(geometry.size()));
    };
    let pieces = geometry.pieces_covering(range.clone());
    match blob.held().first_missing(pieces.start) {
        Some(missing) if missing < pieces.end => Err(Refusal::NotHeld),
        _ => Ok(range),
    }
}

fn unreadable(error: StoreError) -> Refusal {
    match error {
        StoreError::NotHeld { .. } => Refusal::NotHeld,
        StoreError::PastEnd { size, .. } => Refusal::Range(size),
        error => {
            tracing::warn!(%error, "piece not served");
            Refusal::Store
        }
    }
}

/// A range on its way to another node.
struct Upload {
    blob: Blob,
    rest: Range<u64>,
    door: Door,
    uploaded: Counter,
    #[expect(dead_code, reason = "dropped with the upload, which gives it back")]
    slot: Slot,
    #[expect(dead_code, reason = "ends with the upload")]
    span: Span,
}

/// An upload slot; lasts longer than the upload, until the receiver has what was sent.
struct Slot {
    /// Nothing where the connection cannot tell.
    receipts: Option<Receipts>,
    permit: Option<(OwnedSemaphorePermit, Share)>,
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(receipts) = &self.receipts {
            receipts.keep(self.permit.take());
        }
    }
}

impl Upload {
    async fn read(&mut self) -> Result<Bytes, StoreError> {
        let end = self.rest.end.min(self.rest.start + FRAME);
        let bytes = self.blob.read_held(self.rest.start..end).await?;
        self.rest.start += bytes.len() as u64;
        self.uploaded.inc_by(bytes.len() as u64);
        self.door.sends(self.blob.key(), bytes.len() as u64);
        Ok(bytes)
    }

    fn frames(self, first: Bytes) -> impl Stream<Item = Result<Frame<Bytes>, StoreError>> {
        stream::try_unfold((self, Some(first)), |(mut upload, first)| async move {
            let bytes = match first {
                Some(bytes) => bytes,
                None if upload.rest.is_empty() => return Ok(None),
                None => upload.read().await?,
            };
            Ok(Some((Frame::data(bytes), (upload, None))))
        })
    }
}

fn partial_content(
    range: Range<u64>,
    size: u64,
    frames: impl Stream<Item = Result<Frame<Bytes>, StoreError>> + Send + 'static,
) -> Response<Body> {
    let length = range.end - range.start;
    let content_range = ContentRange::Part { range, size: Some(size) };
    let mut response = Response::new(Body::new(StreamBody::new(frames)));
    *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_LENGTH, length.into());
    headers.insert(header::CONTENT_RANGE, header_value(&content_range));
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    response
}

fn refuse(refusal: &Refusal) -> Response<Body> {
    let mut response = Response::new(Body::new(Full::from(refusal.to_string())));
    *response.status_mut() = refusal.status();
    if matches!(refusal, Refusal::Busy) {
        response.headers_mut().insert(piece_path::BUSY, HeaderValue::from_static("1"));
    }
    response
}

#[expect(clippy::expect_used, reason = "input cannot reach it")]
fn header_value(it: &impl Display) -> HeaderValue {
    HeaderValue::try_from(it.to_string()).expect("a range is written in plain ASCII")
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}
