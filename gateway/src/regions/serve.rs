//! What another region gets of a blob.

use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use http::header::{
    ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, RANGE, RETRY_AFTER, WWW_AUTHENTICATE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use http_body::Frame;
use http_body_util::{Full, StreamBody};
use lru::LruCache;
use prometheus_client::metrics::counter::Counter;
use shoal_identity::Caller;
use shoal_model::{BlobKey, Digest, NodeId};
use shoal_oci::Repository;
use shoal_oci::range::{self, ByteRange, ContentRange};
use shoal_ops::metrics::Metrics;
use shoal_peer::ticket::Verifier;
use shoal_proto::{Refusal, Source, Ticket};
use shoal_swarm::Geometry;
use tokio::time::Instant;
use tonic::body::Body;

use super::roll::Roll;
use super::stream::{StreamError, stream};
use crate::cuts::Cuts;
use crate::frames::{self, Part};
use crate::hub::{BACKGROUND, TICKET};
use crate::ledger::{Ledger, Traffic};
use crate::open::{Opener, cannot_decide};
use crate::priority::Priority;
use crate::seed::{Seeder, Wanted, Wanting};
use crate::upstream::Upstream;

/// How long a transfer that was admitted may go on, whatever becomes of the credential that it began with.
const GOES_ON: Duration = Duration::from_secs(60 * 60);
/// How many transfers are remembered. One that is not is decided about anew.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(1 << 16).expect("not zero");

/// Serves other regions; clones share everything.
#[derive(Clone)]
pub(crate) struct Regions(Arc<Inner>);

/// When which region was first given a blob, and how that is cut.
type Transfers = LruCache<(NodeId, Repository, BlobKey), (Instant, Geometry)>;

struct Inner {
    opener: Arc<Opener>,
    seeder: Seeder,
    ledger: Arc<Ledger>,
    cuts: Arc<Cuts>,
    verifier: Arc<Verifier>,
    roll: Roll,
    transfers: Mutex<Transfers>,
    sent: Counter,
}

/// A blob that another region asks for.
pub(crate) struct Asked<'a> {
    pub(crate) region: NodeId,
    pub(crate) from: &'a Caller,
    pub(crate) upstream: &'a Arc<Upstream>,
    pub(crate) repository: &'a Repository,
    pub(crate) digest: Digest,
    pub(crate) headers: &'a HeaderMap,
}

impl Regions {
    pub(crate) fn new(
        opener: Arc<Opener>,
        seeder: Seeder,
        ledger: Arc<Ledger>,
        cuts: Arc<Cuts>,
        verifier: Arc<Verifier>,
        metrics: &Metrics,
    ) -> Self {
        let (roll, sent) = (Roll::default(), Counter::default());
        metrics.register(|registry| {
            let help = "Gateways of other regions that attend";
            registry.register("gateway_regions", help, roll.gauge());
            let help = "Bytes of blobs sent to other regions";
            registry.register("gateway_regions_sent_bytes", help, sent.clone());
        });
        let transfers = Mutex::new(LruCache::new(REMEMBERED));
        Self(Arc::new(Inner { opener, seeder, ledger, cuts, verifier, roll, transfers, sent }))
    }

    /// Who is there.
    pub(crate) fn roll(&self) -> Roll {
        self.0.roll.clone()
    }

    /// The content of a blob, from here on or in part, while it is read from the registry.
    pub(crate) async fn blob(&self, asked: Asked<'_>) -> Response<Body> {
        let geometry = match self.decide(&asked).await {
            Ok(geometry) => geometry,
            Err(refusal) => return refused(&refusal),
        };
        let Asked { upstream, repository, digest, headers, .. } = asked;
        let size = geometry.size();
        let range = match headers.get(RANGE).and_then(|it| it.to_str().ok()).map(|it| range::parse(it, size))
        {
            Some(ByteRange::Part(range)) => Some(range),
            Some(ByteRange::Unsatisfiable) => return unsatisfied(size),
            Some(ByteRange::Whole) | None => None,
        };
        let is_background = headers.contains_key(BACKGROUND);
        let shelf = self.0.seeder.seed(Wanted {
            upstream: upstream.clone(),
            repository: repository.clone(),
            key: BlobKey { group: upstream.group.clone(), digest },
            geometry,
            by: Wanting::Node,
            priority: if is_background { Priority::Background } else { Priority::Live },
        });
        let Some(shelf) = shelf else {
            return refused(&cannot_decide("the blob cannot be read from the registry at present", None));
        };
        let mut response = Response::new(());
        let part = range.clone().unwrap_or(0..size);
        if let Some(range) = range {
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            let told = ContentRange::Part { range, size: Some(size) };
            insert(response.headers_mut(), CONTENT_RANGE, &told.to_string());
        }
        insert(response.headers_mut(), HeaderName::from_static("docker-content-digest"), &digest.to_string());
        let is_framed =
            headers.get_all(ACCEPT).iter().any(|it| it.as_bytes() == frames::MEDIA_TYPE.as_bytes());
        if is_framed {
            insert(response.headers_mut(), CONTENT_TYPE, frames::MEDIA_TYPE);
        } else {
            insert(response.headers_mut(), CONTENT_TYPE, "application/octet-stream");
            response.headers_mut().insert(CONTENT_LENGTH, (part.end - part.start).into());
        }
        response.map(|()| self.body(shelf, part, is_framed))
    }

    /// A body that is framed shows signs of life as well.
    fn body(&self, shelf: shoal_peer::shelf::ShelfBlob, part: Range<u64>, is_framed: bool) -> Body {
        let (sent, ledger, key) = (self.0.sent.clone(), self.0.ledger.clone(), shelf.blob.key().clone());
        let parts = stream(shelf, part).inspect_ok(move |part| {
            if let Part::Content(bytes) = part {
                sent.inc_by(bytes.len() as u64);
                ledger.moved(&key, Traffic { sent: bytes.len() as u64, ..Traffic::default() });
            }
        });
        let parts = parts.flat_map(move |part| stream::iter(written(part, is_framed)));
        Body::new(StreamBody::new(parts.map_ok(Frame::data)))
    }

    /// The cut of the blob, where the region may have it: because the hub has ordered it, as a node would be told that
    /// opens it, or because it is in the middle.
    async fn decide(&self, asked: &Asked<'_>) -> Result<Geometry, Refusal> {
        let Asked { region, from, upstream, repository, digest, headers } = asked;
        let key = BlobKey { group: upstream.group.clone(), digest: *digest };
        if let Some(geometry) = self.ordered(asked, &key) {
            return Ok(geometry);
        }
        let authorization = headers.get(AUTHORIZATION).cloned();
        let decided =
            self.0.opener.decide_for(region, from, (*upstream, *repository), authorization, *digest).await;
        let transfer = (region.clone(), (*repository).clone(), key);
        match decided {
            Ok(geometry) => {
                let mut transfers = self.transfers();
                // Of one that goes on, the time counts from its beginning.
                if transfers.get(&transfer).is_none_or(|it| it.0.elapsed() >= GOES_ON) {
                    transfers.put(transfer, (Instant::now(), geometry));
                }
                Ok(geometry)
            }
            Err(refusal) => {
                let goes_on = self.transfers().get(&transfer).filter(|it| it.0.elapsed() < GOES_ON).copied();
                let is_in_the_middle = headers.get(RANGE).is_some_and(|it| it != "bytes=0-");
                goes_on.filter(|_| is_in_the_middle).map(|it| it.1).ok_or(refusal)
            }
        }
    }

    /// The cut of a blob that a gateway of the hub has ordered this region's gateway to hold, as its ticket says.
    fn ordered(&self, asked: &Asked<'_>, key: &BlobKey) -> Option<Geometry> {
        let Asked { region, upstream, repository, headers, .. } = asked;
        let ticket = Ticket(headers.get(TICKET)?.to_str().ok()?.to_owned());
        let refused = |why: String| tracing::debug!(%region, blob = %key, why, "no good ticket");
        let claims = self.0.verifier.check(SystemTime::now(), &ticket, key);
        let claims = claims.map_err(|it| refused(it.to_string())).ok()?;
        let Source { registry, repository: of } = &claims.source;
        let is_its =
            claims.node == *region && registry == upstream.name().as_str() && of == repository.as_str();
        if !is_its {
            refused(format!("ticket: was given to {} for {registry}/{of}", claims.node));
            return None;
        }
        self.0.cuts.agreed(key, claims.geometry)
    }

    fn transfers(&self) -> MutexGuard<'_, Transfers> {
        self.0.transfers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A part as it goes out.
fn written(
    part: Result<Part, StreamError>,
    is_framed: bool,
) -> impl Iterator<Item = Result<Bytes, StreamError>> + use<> {
    let (head, content) = match part {
        Ok(Part::Content(bytes)) => (is_framed.then(|| frames::head(bytes.len())), Some(Ok(bytes))),
        Ok(Part::Life) => (is_framed.then(|| frames::head(0)), None),
        Err(error) => {
            tracing::warn!(%error, "a blob for another region ends early");
            (None, Some(Err(error)))
        }
    };
    head.map(Ok).into_iter().chain(content)
}

fn insert(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    // What is said here is digits, digests and names of types.
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

fn unsatisfied(size: u64) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::RANGE_NOT_SATISFIABLE;
    insert(response.headers_mut(), CONTENT_RANGE, &ContentRange::Unsatisfied { size }.to_string());
    response
}

/// A refusal as the registry would send it.
fn refused(refusal: &Refusal) -> Response<Body> {
    let mut response = Response::new(Body::new(Full::from(refusal.body.clone())));
    *response.status_mut() =
        StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    insert(response.headers_mut(), CONTENT_TYPE, &refusal.content_type);
    for challenge in &refusal.challenges {
        if let Ok(value) = HeaderValue::from_str(challenge) {
            response.headers_mut().append(WWW_AUTHENTICATE, value);
        }
    }
    if let Some(wait) = refusal.retry_after {
        response.headers_mut().insert(RETRY_AFTER, wait.as_secs().into());
    }
    response
}
