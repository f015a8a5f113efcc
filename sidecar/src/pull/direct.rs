//! The last rung of the ladder: reading a blob from its registry, with the caller's own credential.
//!
//! The read begins where a reader waits and comes back for what lies before that. One request brings all that
//! is missing from there on, and what is here already in between is read over: requests are dearer to a
//! registry than bytes.
//!
//! Bytes whose digest a gateway has vouched for are shared like any; others are provisional, for this
//! node's own readers, until the whole digest has matched.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::TryFutureExt as _;
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body_util::BodyExt as _;
use shoal_blobstore::{StoreError, Written};
use shoal_model::Authorization;
use shoal_oci::range::ContentRange;
use shoal_ops::traces;
use shoal_proto::Source;
use shoal_registry::{RegistryBody, RegistryClient};
use shoal_swarm::fetch::Event;
use shoal_swarm::{Bitmap, PieceIndex};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::Tools;
use super::download::Shared;
use super::report::{Report, Signs, write_in_turn};
use crate::metrics::{Cause, Origin};

/// How long the registry may take to its answer, and to each byte of it: a runtime waits meanwhile.
const PATIENCE: Duration = Duration::from_secs(5);
/// Broken reads in a row, without a piece in between, before the registry counts as failed.
const ATTEMPTS: u32 = 3;

#[derive(Debug, thiserror::Error)]
enum Fault {
    /// Asking again would not help.
    #[error("{0}")]
    Refused(String),
    /// The transfer broke, or brought nothing of use.
    #[error("{0}")]
    Broken(String),
    /// It is not the registry's.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The download has ended.
    #[error("no longer wanted")]
    Unwanted,
}

/// What the registry is asked with.
pub(super) struct Direct {
    pub tools: Tools,
    pub shared: Arc<Shared>,
    pub source: Source,
    pub authorization: Option<Authorization>,
    pub reports: mpsc::Sender<Report>,
}

impl Direct {
    /// Reads all that is missing, and tells each piece as it comes.
    pub(super) async fn run(self) {
        let mut n_broken = 0;
        while let Some(pieces) = self.missing() {
            let before = self.shared.blob.readable();
            let Err(fault) = self.read(pieces).await else { continue };
            let report = match fault {
                Fault::Unwanted => return,
                Fault::Store(error) => Report::NoStore(error),
                fault => {
                    tracing::warn!(
                        registry = self.source.registry, repository = self.source.repository,
                        digest = %self.shared.blob.key().digest, error = %fault,
                        "registry did not serve this node"
                    );
                    let cause =
                        if matches!(fault, Fault::Broken(_)) { Cause::Broken } else { Cause::Refused };
                    self.tools.metrics.failed(Origin::Registry, cause);
                    let moved = self.shared.blob.readable().has_beyond(&before);
                    n_broken = if moved { 0 } else { n_broken + 1 };
                    if matches!(fault, Fault::Broken(_)) && n_broken < ATTEMPTS {
                        continue;
                    }
                    Report::Event(Event::DirectFailed)
                }
            };
            // A driver that is gone no longer cares.
            let _ = self.reports.send(report).await;
            return;
        }
    }

    /// What to read next: from the first piece that a reader waits for, else from the first that local
    /// readers cannot have yet, to the last such piece.
    fn missing(&self) -> Option<Range<PieceIndex>> {
        let readable = self.shared.blob.readable();
        let first = self.shared.demand().into_iter().min().or_else(|| readable.first_missing(0))?;
        let last = Bitmap::full(readable.len()).minus(&readable).iter().last()?;
        Some(first..last + 1)
    }

    async fn read(&self, pieces: Range<PieceIndex>) -> Result<(), Fault> {
        let geometry = self.shared.blob.geometry();
        let range = geometry.range_of(pieces.start).start..geometry.range_of(pieces.end - 1).end;
        let mut body = self.ask(range).await?;
        let mut signs = Signs::new(self.reports.clone(), None);
        let mut buffer = BytesMut::new();
        // What is read ahead of whole pieces is one frame at most.
        for piece in pieces.clone() {
            let len = geometry.len_of(piece);
            let room = self.tools.room.take(len, || signs.moved()).await;
            while (buffer.len() as u64) < len {
                let Some(bytes) = next_data(&mut body).await? else {
                    let missing = pieces.end - piece;
                    return Err(Fault::Broken(format!("the answer ended {missing} pieces early")));
                };
                signs.moved();
                self.tools.rates.admit(None, bytes.len()).await;
                buffer.extend_from_slice(&bytes);
            }
            let content = room.until_dropped(buffer.split_to(len as usize).freeze());
            self.take(piece, content).await?;
        }
        if pieces.end == geometry.n_pieces() && !buffer.is_empty() {
            return Err(Fault::Refused(format!("the content is longer than {} bytes", geometry.size())));
        }
        Ok(())
    }

    async fn take(&self, piece: PieceIndex, content: Bytes) -> Result<(), Fault> {
        let blob = &self.shared.blob;
        let write = || {
            let written = blob.write_provisional(piece, vec![content.clone()]);
            written.map_ok(|(written, _)| written)
        };
        match write_in_turn(blob, write).await? {
            Written::Held | Written::Provisional | Written::Kept => {
                self.shared.took(Origin::Registry, blob.geometry().len_of(piece), &self.tools.metrics);
            }
            Written::AlreadyHeld => {}
            Written::Mismatch | Written::NoDigest | Written::Busy => {
                return Err(Fault::Refused(format!("piece {piece} is not what the gateway vouched for")));
            }
        }
        let held = Report::Event(Event::Held { piece, from: None });
        self.reports.send(held).await.map_err(|_| Fault::Unwanted)
    }

    /// The registry's bytes of `range`.
    async fn ask(&self, range: Range<u64>) -> Result<RegistryBody, Fault> {
        let client = self.client().map_err(Fault::Refused)?;
        let path = format!("/v2/{}/blobs/{}", self.source.repository, self.shared.blob.key().digest);
        let asked = format!("bytes={}-{}", range.start, range.end - 1);
        let mut request = Request::get(path).header(header::RANGE, asked);
        if let Some(authorization) = &self.authorization {
            request = request.header(header::AUTHORIZATION, authorization.expose());
        }
        let mut request = request.body(()).map_err(|it| Fault::Refused(it.to_string()))?;
        traces::tell(traces::here(), request.headers_mut());
        let answer = within(client.send(request)).await?.map_err(|it| Fault::Broken(it.to_string()))?;
        agreed(answer, &range, self.shared.blob.geometry().size())
    }

    fn client(&self) -> Result<RegistryClient, String> {
        let name = self.source.registry.parse().map_err(|it: shoal_oci::OciError| it.to_string())?;
        self.tools.registries.client(&name).map_err(|it| it.to_string())
    }
}

/// The body of an answer that begins with `range` of a blob of this size.
fn agreed<B>(answer: Response<B>, range: &Range<u64>, size: u64) -> Result<B, Fault> {
    let status = answer.status();
    let stated = match status {
        StatusCode::PARTIAL_CONTENT => match content_range(answer.headers()) {
            Some(ContentRange::Part { range: part, size: stated }) if part == *range => stated,
            _ => return Err(Fault::Refused("answered with another range than asked".into())),
        },
        StatusCode::OK if range.start == 0 => content_length(answer.headers()),
        StatusCode::OK => return Err(Fault::Refused("does not serve ranges".into())),
        status if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
            return Err(Fault::Broken(format!("answered {status}")));
        }
        status => return Err(Fault::Refused(format!("answered {status}"))),
    };
    match stated {
        Some(stated) if stated != size => {
            Err(Fault::Refused(format!("the content has {stated} bytes instead of {size}")))
        }
        _ => Ok(answer.into_body()),
    }
}

fn content_range(headers: &HeaderMap) -> Option<ContentRange> {
    headers.get(header::CONTENT_RANGE)?.to_str().ok()?.parse().ok()
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

async fn within<T>(waiting: impl Future<Output = T>) -> Result<T, Fault> {
    timeout(PATIENCE, waiting).await.map_err(|_| Fault::Broken(format!("silent for {PATIENCE:?}")))
}

async fn next_data(body: &mut RegistryBody) -> Result<Option<Bytes>, Fault> {
    loop {
        match within(body.frame()).await? {
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
            Some(Err(error)) => return Err(Fault::Broken(error.to_string())),
            None => return Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pull::testing::{self, Me, content};
    use http_body::Frame;
    use http_body_util::StreamBody;
    use hyper::body::Incoming;
    use shoal_oci::range::{self, ByteRange};
    use shoal_ops::Context;
    use shoal_ops::serve::{BoxError, Limits, Listener};
    use std::convert::Infallible;
    use std::sync::Mutex;

    /// Says in one word what becomes of an answer to the bytes 10 to 19 of 100, or to the first ten.
    #[track_caller]
    fn check(status: u16, header: (&str, &str), first: bool, expected: &str) {
        let range = if first { 0..10 } else { 10..20 };
        let answer = Response::builder().status(status).header(header.0, header.1).body(()).unwrap();
        let seen = match agreed(answer, &range, 100) {
            Ok(()) => "taken",
            Err(Fault::Broken(_)) => "broken",
            Err(_) => "refused",
        };
        assert_eq!(seen, expected, "{status} {header:?}");
    }

    #[test]
    fn only_an_answer_with_the_bytes_asked_is_taken() {
        let (range, length) = ("content-range", "content-length");
        check(206, (range, "bytes 10-19/100"), false, "taken");
        check(206, (range, "bytes 10-19/*"), false, "taken");
        check(206, (range, "bytes 10-19/101"), false, "refused");
        check(206, (range, "bytes 10-99/100"), false, "refused");
        check(206, (range, "bytes 0-9/100"), false, "refused");
        check(206, (length, "10"), false, "refused");
        check(200, (length, "100"), true, "taken");
        check(200, (length, "101"), true, "refused");
        check(200, ("x", "chunked"), true, "taken");
        check(200, (length, "100"), false, "refused");
        check(404, (length, "0"), false, "refused");
        check(401, (length, "0"), false, "refused");
        check(429, (length, "0"), false, "broken");
        check(502, (length, "0"), false, "broken");
    }

    /// A registry with this content, which serves ranges or does not; and what ranges it was asked for.
    async fn registry(content: Bytes, ranges: bool) -> (String, Arc<Mutex<Vec<String>>>) {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let seen = asked.clone();
        let service = tower::service_fn(move |request: Request<Incoming>| {
            let text = request.headers()[header::RANGE].to_str().unwrap().to_owned();
            let size = content.len() as u64;
            let ByteRange::Part(range) = range::parse(&text, size) else { panic!("{text}") };
            seen.lock().unwrap().push(text);
            let part = if ranges {
                content.slice(range.start as usize..range.end as usize)
            } else {
                content.clone()
            };
            let frames = futures_util::stream::iter([Ok::<_, BoxError>(Frame::data(part))]);
            let mut answer = Response::new(StreamBody::new(frames));
            if ranges {
                *answer.status_mut() = StatusCode::PARTIAL_CONTENT;
                let stated = ContentRange::Part { range, size: Some(size) }.to_string();
                answer.headers_mut().insert(header::CONTENT_RANGE, stated.try_into().unwrap());
            }
            std::future::ready(Ok::<_, Infallible>(answer))
        });
        let ctx = Context::new("test", "0");
        let listener = Listener::bind("registry", ([127, 0, 0, 1], 0).into()).await.unwrap();
        let url = format!("http://{}", listener.addr());
        ctx.serve(listener, service, Limits::new(8));
        (url, asked)
    }

    /// Reads the blob for a reader at `offset` and says what was told.
    async fn read(url: &str, offset: u64) -> Vec<String> {
        let me = Me::at(url);
        let shared = Arc::new(testing::shared(testing::blob(&me.store)));
        let _seat = shared.sit_down(offset);
        let (reports, mut told) = mpsc::channel(64);
        let tools = me.pulls.tools().clone();
        let source = testing::source();
        testing::soon(Direct { tools, shared, source, authorization: None, reports }.run()).await;
        let words = std::iter::from_fn(|| told.try_recv().ok()).filter_map(|it| match it {
            Report::Event(Event::Moved { .. }) => None,
            Report::Event(Event::Held { piece, .. }) => Some(format!("held {piece}")),
            Report::Event(event) => Some(format!("{event:?}")),
            other => Some(format!("{other:?}")),
        });
        words.collect()
    }

    #[tokio::test]
    async fn the_read_begins_where_a_reader_waits_and_comes_back_for_the_rest() {
        let (url, asked) = registry(content(), true).await;
        assert_eq!(read(&url, 700_000).await, ["held 2", "held 3", "held 0", "held 1"]);
        assert_eq!(*asked.lock().unwrap(), ["bytes=600000-999999", "bytes=0-599999"]);
    }

    #[tokio::test]
    async fn a_registry_without_ranges_serves_a_reader_at_the_beginning_only() {
        let (url, _) = registry(content(), false).await;
        assert_eq!(read(&url, 0).await, ["held 0", "held 1", "held 2", "held 3"]);
        assert_eq!(read(&url, 700_000).await, ["DirectFailed"]);
    }

    #[tokio::test]
    async fn content_that_is_longer_than_the_blob_is_refused() {
        let longer: Bytes = [content(), Bytes::from_static(b"more")].concat().into();
        let (url, _) = registry(longer.clone(), true).await;
        assert_eq!(read(&url, 0).await, ["DirectFailed"], "it says so");
        let (url, _) = registry(longer, false).await;
        assert_eq!(read(&url, 0).await.last().unwrap(), "DirectFailed", "it does not say so");
    }
}
