//! A throwaway registry: one image in memory, handed out to anybody, every byte of it counted.
//!
//! It answers by exact path, since it serves nothing but what it was made with. A body is counted frame by
//! frame as the connection takes it, so that a transfer that was cut counts for what was handed out.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context as TaskContext, Poll};

use anyhow::{Context, Result};
use bytes::Bytes;
use http::header::{ACCEPT_RANGES, CONTENT_RANGE, CONTENT_TYPE, RANGE};
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use shoal_oci::range::{self, ByteRange, ContentRange};
use shoal_tests::image::{Blob, Image};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::region::source::Source;

/// How much the connection is handed at a time.
const FRAME: usize = 256 << 10;
const BLOB_TYPE: &str = "application/octet-stream";

/// The running registry. Dropping it closes its connections.
pub(super) struct Throwaway {
    address: SocketAddr,
    sent: Arc<AtomicU64>,
    _tasks: JoinSet<()>,
}

impl Throwaway {
    /// Starts a registry that holds one image, on a free port.
    pub(super) async fn start(image: &Image) -> Result<Self> {
        let listener =
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("registry: no port to listen on")?;
        let address = listener.local_addr()?;
        let sent = Arc::new(AtomicU64::new(0));
        let shelf = Arc::new(Shelf { contents: contents(image), sent: Arc::clone(&sent) });
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, shelf));
        Ok(Self { address, sent, _tasks: tasks })
    }

    /// The image that it was started with, under its address as its name.
    pub(super) fn source(&self, image: &Image) -> Result<Source> {
        let url = Uri::try_from(format!("http://{}", self.address))?;
        Source::new(url, true, &format!("{}:{}", image.repository, image.tag))
    }

    /// Bytes of manifests and blobs that it handed out so far.
    pub(super) fn n_bytes_sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }
}

struct Shelf {
    contents: BTreeMap<String, Content>,
    sent: Arc<AtomicU64>,
}

struct Content {
    bytes: Bytes,
    digest: HeaderValue,
    media_type: &'static str,
}

/// Everything that may be asked for, by its path.
fn contents(image: &Image) -> BTreeMap<String, Content> {
    let root = format!("/v2/{}", image.repository);
    let content = |blob: &Blob, media_type| Content {
        bytes: blob.bytes.clone(),
        digest: HeaderValue::try_from(blob.digest.to_string()).expect("a digest is plain ASCII"),
        media_type,
    };
    let blobs = image.blobs().map(|it| (format!("{root}/blobs/{}", it.digest), content(it, BLOB_TYPE)));
    let manifest = &image.manifest;
    let names = [image.tag.clone(), manifest.digest.to_string()];
    let manifests = names.map(|it| (format!("{root}/manifests/{it}"), content(manifest, image.media_type())));
    blobs.chain(manifests).collect()
}

async fn accept(listener: TcpListener, shelf: Arc<Shelf>) {
    // Connections belong to the accept loop, so that they end with it.
    let mut connections = JoinSet::new();
    loop {
        // A connection that failed before it was taken leaves the others as they are.
        if let Ok((stream, _)) = listener.accept().await {
            connections.spawn(serve(stream, Arc::clone(&shelf)));
        }
        while connections.try_join_next().is_some() {}
    }
}

async fn serve(stream: TcpStream, shelf: Arc<Shelf>) {
    let service = service_fn(|request| {
        let response = shelf.answer(&request);
        async move { Ok::<_, Infallible>(response) }
    });
    // A client that goes away in the middle is a client's business.
    let _closed = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

impl Shelf {
    fn answer(&self, request: &Request<Incoming>) -> Response<Counted> {
        if ![Method::GET, Method::HEAD].contains(request.method()) {
            return self.empty(StatusCode::METHOD_NOT_ALLOWED);
        }
        if request.uri().path() == "/v2/" {
            return self.empty(StatusCode::OK);
        }
        match self.contents.get(request.uri().path()) {
            Some(content) => self.content(content, request.headers().get(RANGE)),
            None => self.empty(StatusCode::NOT_FOUND),
        }
    }

    fn content(&self, content: &Content, asked: Option<&HeaderValue>) -> Response<Counted> {
        let size = content.bytes.len() as u64;
        let asked = asked.and_then(|it| it.to_str().ok()).map(|it| range::parse(it, size));
        let mut response = match asked {
            None | Some(ByteRange::Whole) => self.respond(StatusCode::OK, content.bytes.clone()),
            Some(ByteRange::Unsatisfiable) => {
                return with_range(
                    self.empty(StatusCode::RANGE_NOT_SATISFIABLE),
                    &ContentRange::Unsatisfied { size },
                );
            }
            Some(ByteRange::Part(range)) => {
                // A part lies within the content, whose length is a usize.
                let part = content.bytes.slice(range.start as usize..range.end as usize);
                let range = ContentRange::Part { range, size: Some(size) };
                with_range(self.respond(StatusCode::PARTIAL_CONTENT, part), &range)
            }
        };
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content.media_type));
        headers.insert("docker-content-digest", content.digest.clone());
        headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        response
    }

    fn empty(&self, status: StatusCode) -> Response<Counted> {
        self.respond(status, Bytes::new())
    }

    fn respond(&self, status: StatusCode, rest: Bytes) -> Response<Counted> {
        let mut response = Response::new(Counted { rest, sent: Arc::clone(&self.sent) });
        *response.status_mut() = status;
        response
    }
}

fn with_range(mut response: Response<Counted>, range: &ContentRange) -> Response<Counted> {
    let range = HeaderValue::try_from(range.to_string()).expect("a content range is plain ASCII");
    response.headers_mut().insert(CONTENT_RANGE, range);
    response
}

/// A body that adds what is taken of it to what was sent.
struct Counted {
    rest: Bytes,
    sent: Arc<AtomicU64>,
}

impl Body for Counted {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.is_end_stream() {
            return Poll::Ready(None);
        }
        let n_bytes = FRAME.min(self.rest.len());
        self.sent.fetch_add(n_bytes as u64, Ordering::Relaxed);
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(n_bytes)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}
