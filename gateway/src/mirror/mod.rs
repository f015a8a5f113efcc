//! The mirror endpoint `/v2/`: reads of the configured registries, passed through.
//!
//! A request reaches the registry one for one, made anew from what the protocol knows ([`headers`]), and the
//! answer comes back as the registry gave it, challenges and refusals included; redirects are followed here,
//! since nodes may not reach where they lead. What the registry grants to a caller on the way is that caller's proof for later. In
//! gateway mode the gateway's right takes the place of the caller's, within the repositories that nodes may
//! pull, and equal requests for a manifest by its digest are one ([`manifests`]).
//!
//! Which registry is meant says the query (`ns`), or else the path, or else the host name that the request
//! was sent to. Only configured ones are asked, whatever a request names: this is no open proxy. The answer
//! says which it was, in `OCI-Namespace`.

mod ask;
mod headers;
mod manifests;
mod tee;

use std::sync::Arc;

use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderName};
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{Empty, Full};
use shoal_identity::Caller;
use shoal_oci::manifest::{self, IMAGE_TYPES};
use shoal_oci::path::{self, Kind, Resource};
use shoal_oci::{AnyDigest, ErrorCode, OciError, Reference, RegistryName, Repository};
use shoal_registry::RegistryBody;
use tonic::body::Body;

use crate::audit::{self, Event, Outcome, Requested};
use crate::authority::{Right, Size};
use crate::gate::{Gate, Unfit};
use crate::hub::MODE;
use crate::mode::Asker;
use crate::regions::{self, Asked, Regions};
use crate::upstream::{AskError, Upstream, length_of};
use ask::{WAIT, ask, metered, place, target, turn};
pub(crate) use manifests::Manifests;
use manifests::{Unproven, Wanted};
use tee::Tee;

const OCI_NAMESPACE: HeaderName = HeaderName::from_static("oci-namespace");

/// Passes requests through.
#[derive(Clone)]
pub(crate) struct Mirror {
    gate: Arc<Gate>,
    manifests: Arc<Manifests>,
    regions: Regions,
}

/// Why a request is not passed on, or not answered.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum MirrorError {
    #[error(transparent)]
    Request(#[from] OciError),
    #[error(transparent)]
    Ask(#[from] AskError),
    #[error("registry {registry}: no turn within {} s", WAIT.as_secs())]
    Busy { registry: RegistryName },
    #[error(transparent)]
    Manifest(#[from] Unproven),
}

impl MirrorError {
    /// Whether asking again would bring the same.
    pub(crate) const fn is_refusal(&self) -> bool {
        match self {
            Self::Request(_) => true,
            Self::Manifest(unproven) => unproven.is_final(),
            Self::Ask(_) | Self::Busy { .. } => false,
        }
    }
}

impl Mirror {
    pub(crate) const fn new(gate: Arc<Gate>, manifests: Arc<Manifests>, regions: Regions) -> Self {
        Self { gate, manifests, regions }
    }

    /// Forgets the manifests of a repository.
    pub(crate) fn forget(&self, registry: &RegistryName, repository: &Repository) {
        self.manifests.forget(registry, repository);
    }

    /// Answers one request.
    pub(crate) async fn answer(&self, request: Parts) -> Response<Body> {
        let (asked, upstream) = match self.find(&request) {
            Ok(found) => found,
            Err(Unfit { error, reason, registry }) => {
                if let Ok(sender) = Caller::of(&request.extensions) {
                    self.gate.rejected(sender, Requested::Mirror, reason, registry).await;
                }
                return respond(error.code, &error.message);
            }
        };
        let reading = self.reading(&asked, &upstream, &request);
        let mut response = match self.pass(&asked, &upstream, request).await {
            Ok(response) => response,
            Err(MirrorError::Request(error)) => respond(error.code, &error.message),
            Err(error) => {
                tracing::warn!(%error, "not passed through");
                respond(ErrorCode::Unavailable, &error.to_string())
            }
        };
        if let Some(reading) = reading {
            let status = response.status();
            let read = audit::Read { outcome: outcome(status), status: status.as_u16(), ..reading };
            self.gate.audit().record(Event::Read(read)).await;
        }
        // A registry's name is safe in a header.
        if let Ok(name) = HeaderValue::from_str(upstream.name().as_str()) {
            response.headers_mut().insert(OCI_NAMESPACE, name);
        }
        response
    }

    /// What the audit log is told of a request to a repository, but for how it ended.
    fn reading(&self, asked: &path::Request, upstream: &Upstream, request: &Parts) -> Option<audit::Read> {
        let Kind::Pull { repository, resource } = asked.kind() else { return None };
        let sender = Caller::of(&request.extensions).ok()?;
        let right = self.gate.right(upstream, repository, request.headers.get(AUTHORIZATION));
        Some(audit::Read {
            node: sender.identity.as_ref().map(|it| it.node.clone()),
            client: sender.address,
            caller: (&right.holder).into(),
            registry: right.registry,
            repository: right.repository,
            resource: resource.to_string(),
            outcome: Outcome::Undecided,
            status: 0,
        })
    }

    /// What is asked, and of which registry.
    fn find(&self, request: &Parts) -> Result<(path::Request, Arc<Upstream>), Unfit> {
        if request.method != Method::GET && request.method != Method::HEAD {
            let message = "only reads are passed through".to_owned();
            return Err(OciError { code: ErrorCode::Unsupported, message }.into());
        }
        let configured = |name: &_| self.gate.upstream(name).is_some();
        let asked = path::parse(request.uri.path(), request.uri.query(), configured)?;
        let upstream = match asked.registry() {
            Some(name) => self.gate.upstream(name),
            None => self.gate.upstream_at(host(request).as_deref()),
        };
        let Some(upstream) = upstream else {
            let named = asked.registry().map_or("none named", RegistryName::as_str);
            return Err(self.gate.unknown(named, asked.registry().cloned()));
        };
        Ok((asked.or_at(upstream.name())?, upstream.clone()))
    }

    async fn pass(
        &self,
        asked: &path::Request,
        upstream: &Arc<Upstream>,
        mut request: Parts,
    ) -> Result<Response<Body>, MirrorError> {
        let region = regions::asking(&request.extensions, &request.headers);
        if region.is_some() {
            check_mode(upstream, &request.headers)?;
        }
        let Kind::Pull { repository, resource } = asked.kind() else {
            return ping(upstream, request).await;
        };
        if !upstream.mode.admits(repository) {
            let text = format!("repository {repository}: not one that nodes may pull");
            return Err(refused(ErrorCode::Denied, text));
        }
        let right = self.gate.right(upstream, repository, request.headers.get(AUTHORIZATION));
        request.uri = target(&asked.plain_path_and_query())?;
        match resource {
            Resource::Manifest(reference) => self.manifest(upstream, right, reference, request).await,
            Resource::Blob(digest) => match (region, digest.sha256()) {
                (Some(region), Some(digest)) if request.method == Method::GET => {
                    let from = Caller::of(&request.extensions)
                        .map_err(|it| refused(ErrorCode::Denied, it.to_string()))?;
                    let headers = &request.headers;
                    Ok(self.regions.blob(Asked { region, from, upstream, repository, digest, headers }).await)
                }
                _ => self.blob(upstream, right, digest, request).await,
            },
            Resource::Tags | Resource::Referrers(_) => {
                Ok(ask(upstream, repository, request).await?.map(Body::new))
            }
        }
    }

    async fn manifest(
        &self,
        upstream: &Arc<Upstream>,
        right: Right,
        reference: &Reference,
        request: Parts,
    ) -> Result<Response<Body>, MirrorError> {
        if let Some(wanted) = Wanted::of(&right, reference, &request) {
            return Ok(self.manifests.get(upstream, wanted).await?.map(|it| Body::new(Full::new(it))));
        }
        let is_get = request.method == Method::GET;
        let answer = ask(upstream, &right.repository, request).await?;
        if answer.status() != StatusCode::OK {
            return Ok(answer.map(Body::new));
        }
        self.gate.manifest_granted(&right);
        Ok(match is_get && proves_members(upstream, answer.headers()) {
            true => self.noted(answer, right),
            false => answer.map(Body::new),
        })
    }

    async fn blob(
        &self,
        upstream: &Arc<Upstream>,
        right: Right,
        digest: &AnyDigest,
        request: Parts,
    ) -> Result<Response<Body>, MirrorError> {
        let place = if request.method == Method::GET { Some(place(upstream).await?) } else { None };
        let answer = ask(upstream, &right.repository, request).await?;
        if answer.status() == StatusCode::OK
            && let (Some(digest), Some(size)) = (digest.sha256(), length_of(answer.headers()))
        {
            self.gate.blob_granted(&right, digest, Size::Stated(size));
        }
        Ok(match place {
            Some(place) => answer.map(|it| metered(it, upstream.clone(), place)),
            None => answer.map(|_| Body::empty()),
        })
    }

    /// A manifest on its way to a caller, whose blobs are noted.
    fn noted(&self, answer: Response<RegistryBody>, right: Right) -> Response<Body> {
        let gate = self.gate.clone();
        let note = move |bytes: &[u8]| gate.manifest_seen(&right, bytes);
        answer.map(|it| Body::new(Tee::new(it, manifest::MAX_LEN, note)))
    }
}

/// What an answer's status says about the caller's right.
fn outcome(status: StatusCode) -> Outcome {
    match status.as_u16() {
        200..=399 => Outcome::Allowed,
        408 | 429 | 500.. => Outcome::Undecided,
        _ => Outcome::Refused,
    }
}

/// Whether the registry has made sure that it has the blobs which a manifest with these headers names. It
/// has looked at what it took for an image; the same bytes pushed as something else may name anything.
fn proves_members(upstream: &Upstream, headers: &HeaderMap) -> bool {
    let media_type = headers.get(CONTENT_TYPE).and_then(|it| it.to_str().ok()).unwrap_or_default();
    let media_type = media_type.split(';').next().unwrap_or_default().trim();
    upstream.kind.verifies_manifests() && IMAGE_TYPES.contains(&media_type)
}

/// Refuses a region where another right decides than here: it would take one for the other.
fn check_mode(upstream: &Upstream, headers: &HeaderMap) -> Result<(), MirrorError> {
    let here = if upstream.mode.asker() == Asker::Caller { "client" } else { "gateway" };
    match headers.get(MODE) {
        Some(there) if there == here => Ok(()),
        _ => {
            let registry = upstream.name();
            let text = format!(
                "registry {registry}: credentials.mode is {here} at the hub, and has to be so in its regions"
            );
            Err(refused(ErrorCode::Unsupported, text))
        }
    }
}

/// Whether the protocol is spoken. With the gateway's right nobody has to log in, so nobody is asked.
async fn ping(upstream: &Upstream, mut request: Parts) -> Result<Response<Body>, MirrorError> {
    if upstream.mode.asker() == Asker::Gateway {
        return Ok(Response::new(Body::new(Empty::new())));
    }
    request.uri = target("/v2/")?;
    request.headers = headers::to_registry(&request.headers, Asker::Caller);
    upstream.listens()?;
    turn(upstream, Asker::Caller).await?;
    let mut answer = upstream.ask(Request::from_parts(request, ())).await.map_err(AskError::from)?;
    headers::to_runtime(answer.headers_mut());
    Ok(answer.map(Body::new))
}

/// The host name that a request was sent to, without its port: HTTP/2 has it in the target.
fn host(request: &Parts) -> Option<String> {
    if let Some(host) = request.uri.host() {
        return Some(host.to_owned());
    }
    let authority = Authority::try_from(request.headers.get(HOST)?.as_bytes()).ok()?;
    Some(authority.host().to_owned())
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
