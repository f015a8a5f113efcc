//! The mirror endpoint `/v2/`: reads of the configured registries, passed through.
//!
//! A request reaches the registry as the runtime sent it, one for one, and the answer comes back as the
//! registry gave it, challenges included; redirects are followed here, since nodes may not reach where they
//! lead. Manifests are listened to on the way: what the registry grants to a caller is that caller's proof
//! for the blobs named there. In gateway mode the gateway's right takes the place of the caller's, within
//! the repositories that nodes may pull.
//!
//! Only configured registries are asked, whatever a request names: this is no open proxy.

mod headers;
mod tee;

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty, Full, StreamBody};
use shoal_oci::manifest::{self, Manifest};
use shoal_oci::path::{self, Kind, Resource};
use shoal_oci::{ErrorCode, OciError, RegistryName, Repository};
use shoal_registry::RegistryBody;
use tokio::time::timeout;
use tonic::body::Body;

use crate::authority::Right;
use crate::gate::Gate;
use crate::mode::Asker;
use crate::queue::Place;
use crate::upstream::{AskError, Upstream};
use tee::Tee;

/// How long a request may wait for its turn at the registry.
const WAIT: Duration = Duration::from_secs(10);

/// Passes requests through.
#[derive(Clone)]
pub(crate) struct Mirror {
    gate: Arc<Gate>,
}

/// Why a request is not passed on, or not answered.
#[derive(Debug, thiserror::Error)]
enum MirrorError {
    #[error(transparent)]
    Request(#[from] OciError),
    #[error(transparent)]
    Ask(#[from] AskError),
    #[error("registry {registry}: no turn within {} s", WAIT.as_secs())]
    Busy { registry: RegistryName },
}

impl Mirror {
    pub(crate) const fn new(gate: Arc<Gate>) -> Self {
        Self { gate }
    }

    /// Answers one request.
    pub(crate) async fn answer(&self, request: Parts) -> Response<Body> {
        match self.pass(request).await {
            Ok(response) => response,
            Err(MirrorError::Request(error)) => respond(error.code, &error.message),
            Err(error) => {
                tracing::warn!(%error, "not passed through");
                respond(ErrorCode::Unavailable, &error.to_string())
            }
        }
    }

    async fn pass(&self, mut request: Parts) -> Result<Response<Body>, MirrorError> {
        if request.method != Method::GET && request.method != Method::HEAD {
            return Err(refused(ErrorCode::Unsupported, "only reads are passed through".to_owned()));
        }
        let configured = |name: &_| self.gate.upstream(name).is_some();
        let asked = path::parse(request.uri.path(), request.uri.query(), configured)?;
        let upstream = match asked.registry() {
            Some(name) => self.gate.upstream(name),
            None => self.gate.default_upstream(),
        };
        let upstream = upstream.ok_or_else(|| {
            let named = asked.registry().map_or("none named", |it| it.as_str());
            refused(ErrorCode::NameUnknown, format!("registry {named}: not one of {}", self.gate.names()))
        })?;
        let asked = asked.or_at(upstream.name())?;
        let Kind::Pull { repository, resource } = asked.kind() else {
            return self.ping(upstream, request).await;
        };
        if !upstream.mode.admits(repository) {
            let text = format!("repository {repository}: not one that nodes may pull");
            return Err(refused(ErrorCode::Denied, text));
        }
        let right = self.gate.right(upstream, repository, request.headers.get(AUTHORIZATION));
        let place = match resource {
            Resource::Blob(_) if request.method == Method::GET => Some(place(upstream).await?),
            _ => None,
        };
        let is_manifest = matches!(resource, Resource::Manifest(_)) && request.method == Method::GET;
        request.uri = target(&asked.upstream_path_and_query())?;
        let answer = ask(upstream, repository, request).await?;
        Ok(match place {
            _ if is_manifest && answer.status() == StatusCode::OK => self.noted(answer, right),
            Some(place) => answer.map(|it| metered(it, upstream.clone(), place)),
            None => answer.map(Body::new),
        })
    }

    /// Whether the protocol is spoken. With the gateway's right nobody has to log in, so nobody is asked.
    async fn ping(&self, upstream: &Upstream, mut request: Parts) -> Result<Response<Body>, MirrorError> {
        if upstream.mode.asker() == Asker::Gateway {
            return Ok(Response::new(Body::new(Empty::new())));
        }
        request.uri = target("/v2/")?;
        headers::to_registry(&mut request.headers, Asker::Caller);
        turn(upstream, Asker::Caller).await?;
        let mut answer = upstream.ask(Request::from_parts(request, ())).await.map_err(AskError::from)?;
        headers::to_runtime(answer.headers_mut());
        Ok(answer.map(Body::new))
    }

    /// A manifest on its way to a caller, whose right it proves.
    fn noted(&self, answer: Response<RegistryBody>, right: Right) -> Response<Body> {
        let gate = self.gate.clone();
        let note = move |bytes: &[u8]| match Manifest::parse(bytes) {
            Ok(manifest) => gate.note(&right, provable(&manifest)),
            // It passed through all the same; its blobs are proven one by one.
            Err(error) => tracing::debug!(registry = %right.registry, %error, "manifest not read"),
        };
        answer.map(|it| Body::new(Tee::new(it, manifest::MAX_LEN, note)))
    }
}

/// The blobs of a manifest that the registry itself has.
fn provable(manifest: &Manifest) -> impl Iterator<Item = (shoal_model::Digest, u64)> {
    let own = manifest.blobs().filter(|it| !it.is_foreign());
    own.filter_map(|it| Some((it.digest.sha256()?, it.size)))
}

/// Waits for a turn and asks, with whoever's right the registry's mode says.
async fn ask(
    upstream: &Upstream,
    repository: &Repository,
    mut request: Parts,
) -> Result<Response<RegistryBody>, MirrorError> {
    let asker = upstream.mode.asker();
    headers::to_registry(&mut request.headers, asker);
    turn(upstream, asker).await?;
    let request = Request::from_parts(request, ());
    let answer = match asker {
        Asker::Caller => upstream.ask(request).await.map_err(AskError::from),
        Asker::Gateway => upstream.ask_as_gateway(repository, request).await,
    };
    let mut answer = answer.map_err(|error| match error {
        _ if error.is_refusal() => refused(ErrorCode::Denied, "the registry refuses the gateway".to_owned()),
        _ => error.into(),
    })?;
    headers::to_runtime(answer.headers_mut());
    Ok(answer)
}

async fn turn(upstream: &Upstream, asker: Asker) -> Result<(), MirrorError> {
    timeout(WAIT, upstream.turn(asker)).await.map_err(|_| busy(upstream))
}

async fn place(upstream: &Upstream) -> Result<Place, MirrorError> {
    let entering = upstream.limits.blobs.enter(|_| {});
    timeout(WAIT, entering).await.map_err(|_| busy(upstream))
}

/// A blob's body, at the registry's rate, holding a place until it ends.
fn metered(body: RegistryBody, upstream: Arc<Upstream>, place: Place) -> Body {
    let frames = stream::try_unfold((body, upstream, place), |(mut body, upstream, place)| async move {
        let Some(frame) = body.frame().await.transpose()? else { return Ok(None) };
        if let Some(bytes) = frame.data_ref() {
            upstream.metrics.bytes(bytes.len() as u64);
            upstream.limits.bytes(bytes.len()).await;
        }
        Ok::<_, shoal_registry::RegistryError>(Some((frame, (body, upstream, place))))
    });
    Body::new(StreamBody::new(frames))
}

fn busy(upstream: &Upstream) -> MirrorError {
    MirrorError::Busy { registry: upstream.name().clone() }
}

fn target(path_and_query: &str) -> Result<http::Uri, MirrorError> {
    let text = || format!("path {path_and_query}: cannot be sent");
    path_and_query.parse().map_err(|_| refused(ErrorCode::NameInvalid, text()))
}

fn refused(code: ErrorCode, message: String) -> MirrorError {
    MirrorError::Request(OciError { code, message })
}

fn respond(code: ErrorCode, message: &str) -> Response<Body> {
    let mut response = Response::new(Body::new(Full::from(code.body(message, None))));
    *response.status_mut() = StatusCode::from_u16(code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
