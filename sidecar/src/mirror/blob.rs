//! Blobs: from the swarm, from the cache, or straight through where no gateway answers.

use std::ops::Range;

use bytes::Bytes;
use futures_util::stream;
use http::header;
use http::{Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use shoal_blobstore::Blob;
use shoal_model::{Authorization, BlobKey};
use shoal_oci::range::{self, ByteRange, ContentRange};
use shoal_oci::{ErrorCode, OciError};
use shoal_ops::serve::Sendfile;
use shoal_ops::traces::TARGET;
use shoal_proto::Source;
use tokio::time::Instant;
use tracing::{Instrument as _, info_span};

use super::account::Account;
use super::answer::{self, Body, CONTENT_DIGEST, NAMESPACE};
use super::route::{Target, WantedBlob};
use super::{Mirror, gateways_share};
use crate::metrics::{Outcome, SidecarMetrics, Supply};
use crate::pull::{Cut, Grant, NoStream, Opening, Pulls, Reader};

/// A response without its body, and the bytes of the blob that are to follow.
type Head = (Response<()>, Range<u64>);

/// A runtime's request for a blob.
struct Pull<'a> {
    account: Account,
    wanted: WantedBlob,
    source: Source,
    authorization: Option<Authorization>,
    request: &'a Request<()>,
    deadline: Instant,
}

impl<'a> Pull<'a> {
    fn new(wanted: WantedBlob, request: &'a Request<()>, deadline: Instant, account: Account) -> Self {
        Self {
            account,
            source: Source {
                registry: wanted.registry.to_string(),
                repository: wanted.repository.to_string(),
            },
            wanted,
            authorization: authorization(request),
            request,
            deadline,
        }
    }

    /// The same at the registry itself.
    fn target(&self) -> Target {
        Target {
            registry: self.wanted.registry.clone(),
            path_and_query: format!("/v2/{}/blobs/{}", self.wanted.repository, self.wanted.digest),
        }
    }
}

impl Mirror {
    pub(super) async fn blob(
        &self,
        wanted: WantedBlob,
        asked: &Request<()>,
        deadline: Instant,
    ) -> Response<Body> {
        let account = Account::open(wanted.clone(), asked, self.metrics().clone(), self.0.recent.clone());
        let span = account.span().clone();
        self.open(Pull::new(wanted, asked, deadline, account)).instrument(span).await
    }

    async fn open(&self, mut pull: Pull<'_>) -> Response<Body> {
        let opener = &self.0.pulls.tools().opener;
        let (digest, authorization) = (pull.wanted.digest, pull.authorization.as_ref());
        let opening = opener.open(&pull.source, digest, authorization, gateways_share(pull.deadline));
        match opening.instrument(info_span!(target: TARGET, "open", otel.kind = "client")).await {
            Opening::Granted(grant) => self.granted(pull, &grant).await,
            // The gateway could not decide: perhaps the registry answers this node.
            Opening::Refused(refusal) if refusal.status >= 500 => self.without_gateway(pull).await,
            Opening::Refused(refusal) => {
                pull.account.ends(Outcome::Refused);
                answer::refusal(pull.request, refusal)
            }
            Opening::NoGateway => self.without_gateway(pull).await,
        }
    }

    async fn granted(&self, mut pull: Pull<'_>, grant: &Grant) -> Response<Body> {
        let (opened, size) = (&grant.blob, grant.blob.geometry.size());
        let (head, bytes) = match self.head(&pull.wanted, size, pull.request) {
            Ok(head) => head,
            Err(refused) => {
                pull.account.ends(Outcome::Refused);
                return *refused;
            }
        };
        if pull.request.method() == Method::HEAD || bytes.is_empty() {
            pull.account.ends(Outcome::Complete);
            return head.map(|()| answer::full(""));
        }
        let content = opened.content.clone();
        if let Some(content) = content.filter(|it| it.len() as u64 == size && is(it, &pull.wanted)) {
            let part = content.slice(bytes.start as usize..bytes.end as usize);
            self.0.pulls.keep(opened, content);
            let mut account = pull.account.supplied_by(Supply::Gateway);
            account.sent(part.len());
            account.ends(Outcome::Complete);
            return head.map(|()| answer::full(part));
        }
        let start = bytes.start;
        match self.0.pulls.read(grant, &pull.source, pull.authorization.as_ref(), bytes) {
            Ok(reader) => head.map(|()| self.body(reader, pull)),
            Err(error) => self.without_stream(pull, start, &error).await,
        }
    }

    /// A blob that was granted and cannot be streamed is asked of the registry: runtimes that chose this
    /// mirror for an image's manifest turn to nobody else for its blobs. The registry may refuse a caller
    /// whom the gateway has granted the blob by a right of its own; that is no answer to this caller, who is
    /// then told what makes other runtimes go on without the mirror. So are those that resume: they go on at the
    /// registry by themselves.
    async fn without_stream(&self, mut pull: Pull<'_>, start: u64, error: &NoStream) -> Response<Body> {
        let WantedBlob { registry, repository, digest } = &pull.wanted;
        tracing::warn!(%registry, %repository, %digest, error = error as &dyn std::error::Error, "no stream");
        let code = match error {
            NoStream::Cut(_) => ErrorCode::BlobUnknown,
            NoStream::Store(_) | NoStream::OtherCut { .. } => ErrorCode::Unavailable,
        };
        if start == 0 && !matches!(error, NoStream::Cut(Cut::Dropped)) {
            let answer = self.at_registry(&pull, pull.request).await;
            if answer.status().is_success() {
                return passed_through(answer, pull.account);
            }
        }
        pull.account.ends(Outcome::Failed);
        let message = format!("{registry}/{repository} {digest}: {error}");
        answer::error(pull.request, &OciError { code, message })
    }

    /// With no gateway, the registry itself is asked, with the caller's own header: for the blob, or,
    /// where it is complete here, only whether this caller may read it.
    async fn without_gateway(&self, mut pull: Pull<'_>) -> Response<Body> {
        let tools = self.0.pulls.tools();
        let group = tools.region.trust_group(pull.wanted.registry.as_str());
        let cached = tools.store.get(&BlobKey { group, digest: pull.wanted.digest });
        let Some(blob) = cached.filter(Blob::is_complete) else {
            let answer = self.at_registry(&pull, pull.request).await;
            return passed_through(answer, pull.account);
        };
        let mut probe = pull.request.clone();
        *probe.method_mut() = Method::HEAD;
        probe.headers_mut().remove(header::RANGE);
        let verdict = self.at_registry(&pull, &probe).await;
        if !verdict.status().is_success() {
            return passed_through(verdict, pull.account);
        }
        match self.head(&pull.wanted, blob.geometry().size(), pull.request) {
            Ok((head, _)) if pull.request.method() == Method::HEAD => head.map(|()| answer::full("")),
            Ok((head, bytes)) => head.map(|()| self.body(Reader::of_store(blob, bytes), pull)),
            Err(refused) => {
                pull.account.ends(Outcome::Refused);
                *refused
            }
        }
    }

    /// What the registry itself answers.
    async fn at_registry(&self, pull: &Pull<'_>, asked: &Request<()>) -> Response<Body> {
        let span = info_span!(target: TARGET, "registry", otel.kind = "client", method = %asked.method());
        self.0.passage.ask_registry(&pull.target(), asked, pull.deadline).instrument(span).await
    }

    /// The response's head and the bytes to follow, or a refusal of the range.
    fn head(&self, wanted: &WantedBlob, size: u64, asked: &Request<()>) -> Result<Head, Box<Response<Body>>> {
        let asked_range = asked.headers().get(header::RANGE).and_then(|it| it.to_str().ok());
        let (status, bytes, stated) = match asked_range.map(|it| range::parse(it, size)) {
            None | Some(ByteRange::Whole) => (StatusCode::OK, 0..size, None),
            Some(ByteRange::Part(bytes)) => {
                let stated = ContentRange::Part { range: bytes.clone(), size: Some(size) };
                (StatusCode::PARTIAL_CONTENT, bytes, Some(stated))
            }
            Some(ByteRange::Unsatisfiable) => {
                let message = format!("the blob has {size} bytes");
                let mut refused = answer::error(asked, &OciError { code: ErrorCode::RangeInvalid, message });
                let stated = ContentRange::Unsatisfied { size }.to_string();
                if let Ok(stated) = stated.try_into() {
                    refused.headers_mut().insert(header::CONTENT_RANGE, stated);
                }
                return Err(Box::new(refused));
            }
        };
        let headers = [
            (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
            (header::CONTENT_LENGTH, (bytes.end - bytes.start).to_string()),
            (header::ACCEPT_RANGES, "bytes".to_owned()),
            (header::ETAG, format!("\"{}\"", wanted.digest)),
            (CONTENT_DIGEST, wanted.digest.to_string()),
            (NAMESPACE, wanted.registry.to_string()),
        ];
        let stated = stated.map(|it| (header::CONTENT_RANGE, it.to_string()));
        let head = answer::response(status, headers.into_iter().chain(stated), answer::full(""));
        Ok((head.map(drop), bytes))
    }

    /// Streams what the reader gives. An error ends the body early, which ends the connection without a reset.
    fn body(&self, reader: Reader, pull: Pull<'_>) -> Body {
        let pulls = self.0.pulls.clone();
        let supply = if reader.is_cached() { Supply::Cache } else { Supply::Swarm };
        let reader = reader.over(Sendfile::of(pull.request), pulls.steps());
        let streaming = Streaming { reader, pulls, account: pull.account.supplied_by(supply) };
        let frames = stream::unfold(Some(streaming), async |it| {
            let mut streaming = it?;
            match streaming.reader.next().await {
                Ok(Some(bytes)) => {
                    streaming.account.sent(bytes.len());
                    if streaming.reader.left().is_empty() {
                        streaming.pulls.was_served(&streaming.reader);
                        streaming.account.ends(Outcome::Complete);
                    }
                    Some((Ok(Frame::data(bytes)), Some(streaming)))
                }
                Ok(None) => None,
                Err(error) => {
                    tracing::warn!(error = %error, left = ?streaming.reader.left(), "stream ended early");
                    streaming.pulls.was_cut(&streaming.reader);
                    streaming.account.ends(Outcome::Cut);
                    Some((Err(error.into()), None))
                }
            }
        });
        StreamBody::new(frames).boxed_unsync()
    }

    fn metrics(&self) -> &SidecarMetrics {
        &self.0.pulls.tools().metrics
    }
}

fn authorization(asked: &Request<()>) -> Option<Authorization> {
    let value = asked.headers().get(header::AUTHORIZATION)?;
    Some(Authorization::new(value.to_str().ok()?.to_owned()))
}

/// Whether the bytes are the blob.
fn is(content: &[u8], wanted: &WantedBlob) -> bool {
    use sha2::Digest as _;
    sha2::Sha256::digest(content).as_slice() == wanted.digest.as_bytes()
}

/// The registry's own answer, on its way to the runtime.
fn passed_through(answer: Response<Body>, account: Account) -> Response<Body> {
    let mut account = account.supplied_by(Supply::Registry);
    if !answer.status().is_success() {
        let is_refusal = answer.status().is_client_error();
        account.ends(if is_refusal { Outcome::Refused } else { Outcome::Failed });
        return answer;
    }
    account.falls_back();
    // Whoever knows the length does not ask for what comes after the last byte.
    let length = answer.headers().get(header::CONTENT_LENGTH);
    let length = length.and_then(|it| it.to_str().ok()?.parse::<u64>().ok());
    answer.map(|body| {
        let frames = stream::unfold(Some((body, account, length)), async |it| {
            let (mut body, mut account, length) = it?;
            match body.frame().await {
                Some(Ok(frame)) => {
                    account.sent(frame.data_ref().map_or(0, Bytes::len));
                    if length.is_some_and(|it| account.has_sent(it)) {
                        account.ends(Outcome::PassedThrough);
                    }
                    Some((Ok(frame), Some((body, account, length))))
                }
                Some(Err(error)) => {
                    account.ends(Outcome::Cut);
                    Some((Err(error), None))
                }
                None => {
                    account.ends(Outcome::PassedThrough);
                    None
                }
            }
        });
        StreamBody::new(frames).boxed_unsync()
    })
}

/// A stream to a runtime, told of when it ends, however it ends.
struct Streaming {
    reader: Reader,
    pulls: Pulls,
    account: Account,
}

impl Drop for Streaming {
    fn drop(&mut self) {
        self.account.fetched_by(self.reader.download().cloned());
    }
}
