//! `Open`: whether a caller may read blobs, and how to get them.
//!
//! A proof that was seen before decides at once; else the registry is asked by one HEAD, with the caller's
//! own credential or, in gateway mode, with the gateway's. A cached blob is checked exactly like any other.
//! Equal questions in flight are one. The size that a proof names is a claim, see [`Cuts`]; where it is not
//! believed, the registry is asked as well.
//!
//! One deadline covers all that an answer takes. When the registry is slower than that, the answer is that
//! there is none, and the node goes to the registry by itself. It is told the same at once where the
//! gateway could not fetch the blob anyway, because the registry refuses it.

mod holders;
mod refusal;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _};
use http::header::{AUTHORIZATION, CONTENT_LENGTH};
use http::{HeaderValue, Request, StatusCode};
use shoal_model::{Authorization, BlobKey, Digest, Node};
use shoal_oci::{ErrorCode, Repository};
use shoal_peer::shelf::ShelfBlob;
use shoal_peer::ticket::{self, Issuer, TicketClaims};
use shoal_proto::{OpenReply, OpenRequest, OpenedBlob, Refusal, SeedProgress, Source};
use shoal_swarm::Geometry;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::authority::{Decision, Right};
use crate::cuts::Cuts;
use crate::gate::Gate;
use crate::limits::SMALL;
use crate::mode::Asker;
use crate::seed::{Seeder, Wanted};
use crate::single_flight::SingleFlight;
use crate::upstream::Upstream;
use holders::Holders;
use refusal::{cannot_decide, from_answer, refuse};

/// How long an answer may take, decision and content together: nodes wait for 1.6 s.
const ANSWER: Duration = Duration::from_millis(1300);
/// How many blobs of one request are decided at the same time.
const AT_ONCE: usize = 16;

/// Answers `Open`.
pub(crate) struct Opener {
    pub(crate) gate: Arc<Gate>,
    pub(crate) cuts: Arc<Cuts>,
    pub(crate) seeder: Seeder,
    pub(crate) issuer: Issuer,
    /// The gateway itself, as nodes see it.
    pub(crate) gateway: Node,
    memory: Memory,
}

/// What is remembered between requests.
struct Memory {
    holders: Mutex<Holders>,
    checks: SingleFlight<(Right, Digest), Result<u64, Refusal>>,
}

/// A request whose registry and repository are known to be served.
struct Admitted {
    upstream: Arc<Upstream>,
    repository: Repository,
    right: Right,
    authorization: Option<HeaderValue>,
    node: Node,
    deadline: Instant,
}

impl Opener {
    pub(crate) fn new(
        gate: Arc<Gate>,
        cuts: Arc<Cuts>,
        seeder: Seeder,
        issuer: Issuer,
        gateway: Node,
    ) -> Self {
        let memory = Memory { holders: Mutex::new(Holders::new()), checks: SingleFlight::new() };
        Self { gate, cuts, seeder, issuer, gateway, memory }
    }

    /// Decides about every blob of the request.
    pub(crate) async fn open(&self, request: OpenRequest) -> OpenReply {
        let digests = request.digests.clone();
        match self.admit(request) {
            Ok(admitted) => {
                let each = |digest| self.open_one(&admitted, digest);
                OpenReply(stream::iter(digests).map(each).buffered(AT_ONCE).collect().await)
            }
            Err(refusal) => OpenReply(digests.iter().map(|_| Err(refusal.clone())).collect()),
        }
    }

    fn admit(&self, request: OpenRequest) -> Result<Admitted, Refusal> {
        let OpenRequest { source: Source { registry, repository }, authorization, node, .. } = request;
        let upstream = registry.parse().ok().and_then(|name| self.gate.upstream(&name));
        let upstream = upstream.ok_or_else(|| {
            let names = self.gate.names();
            refuse(ErrorCode::NameUnknown, &format!("registry {registry}: not one of {names}"))
        })?;
        let repository = repository.parse().and_then(|it: Repository| it.within(upstream.name()));
        let repository = repository.map_err(|it| refuse(it.code, &it.message))?;
        if !upstream.mode.admits(&repository) {
            let why = format!("repository {repository}: not one that nodes may pull");
            return Err(refuse(ErrorCode::Denied, &why));
        }
        let authorization = authorization.map(|it| header(&it)).transpose()?;
        Ok(Admitted {
            right: self.gate.right(upstream, &repository, authorization.as_ref()),
            upstream: upstream.clone(),
            repository,
            authorization,
            node,
            deadline: Instant::now() + ANSWER,
        })
    }

    async fn open_one(&self, admitted: &Admitted, digest: Digest) -> Result<OpenedBlob, Refusal> {
        let key = BlobKey { group: admitted.upstream.group.clone(), digest };
        self.check_seedable(admitted, &key)?;
        let geometry = self.decide(admitted, &key).await?;
        let content =
            if geometry.size() <= SMALL { self.content(admitted, &key, geometry).await } else { None };
        if content.is_none() {
            // Fetching it may just have shown otherwise.
            self.check_seedable(admitted, &key)?;
        }
        let ticket = self.issuer.issue(&TicketClaims {
            source: Source {
                registry: admitted.upstream.name().to_string(),
                repository: admitted.repository.to_string(),
            },
            key: key.clone(),
            node: admitted.node.id.clone(),
            expires: SystemTime::now() + ticket::LIVES,
        });
        let mut holders = self.memory.holders.lock().unwrap_or_else(PoisonError::into_inner);
        let holders = holders.introduce(&key, &admitted.node);
        Ok(OpenedBlob { geometry, ticket, content, holders, gateway: self.gateway.clone(), key })
    }

    /// Refuses a blob that is not here and that the registry would not give to the gateway: nodes that have
    /// a right of their own need not wait for that.
    fn check_seedable(&self, admitted: &Admitted, key: &BlobKey) -> Result<(), Refusal> {
        if self.seeder.is_barred(admitted.upstream.name(), &admitted.repository, key) {
            return Err(cannot_decide("cannot decide: the registry refuses the gateway", None));
        }
        Ok(())
    }

    /// The blob's cut, if the caller may read it.
    async fn decide(&self, admitted: &Admitted, key: &BlobKey) -> Result<Geometry, Refusal> {
        if let Decision::Allow { size } = self.gate.decide(&admitted.right, key.digest)
            && let Some(geometry) = self.cuts.believe(key, size)
        {
            return Ok(geometry);
        }
        let size = self.ask(admitted, key.digest).await?;
        Ok(self.cuts.say(key, size))
    }

    /// Asks the registry for the blob's size on behalf of the caller, together with everybody who asks the
    /// same.
    async fn ask(&self, admitted: &Admitted, digest: Digest) -> Result<u64, Refusal> {
        let question = head(
            admitted.upstream.clone(),
            admitted.repository.clone(),
            digest,
            admitted.authorization.clone(),
        );
        let answer = self.memory.checks.run((admitted.right.clone(), digest), question);
        let late = |_| Err(cannot_decide("cannot decide: the registry did not answer in time", None));
        let size = timeout_at(admitted.deadline, answer).await.unwrap_or_else(late)?;
        self.gate.note(&admitted.right, [(digest, size)]);
        Ok(size)
    }

    /// The whole of a small blob, where it comes in time.
    async fn content(&self, admitted: &Admitted, key: &BlobKey, geometry: Geometry) -> Option<Bytes> {
        let wanted = Wanted {
            upstream: admitted.upstream.clone(),
            repository: admitted.repository.clone(),
            key: key.clone(),
            geometry,
        };
        let ShelfBlob { blob, seed } = self.seeder.seed(wanted)?;
        if let Some(seed) = seed {
            timeout_at(admitted.deadline, ended(seed)).await.ok()?;
        }
        if !blob.is_complete() {
            return None;
        }
        blob.read_held(0..geometry.size()).await.ok()
    }
}

/// A caller's credential as the header that it came from.
fn header(authorization: &Authorization) -> Result<HeaderValue, Refusal> {
    let mut value = HeaderValue::from_str(authorization.expose())
        .map_err(|_| refuse(ErrorCode::Unauthorized, "the authorization cannot be sent in a header"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// One HEAD of a blob: its size, or why not.
async fn head(
    upstream: Arc<Upstream>,
    repository: Repository,
    digest: Digest,
    authorization: Option<HeaderValue>,
) -> Result<u64, Refusal> {
    let mut request = Request::head(format!("/v2/{repository}/blobs/{digest}"))
        .body(())
        .expect("repository and digest are safe in a path");
    let asker = upstream.mode.asker();
    upstream.turn(asker).await;
    let answer = match asker {
        Asker::Caller => {
            request.headers_mut().extend(authorization.map(|it| (AUTHORIZATION, it)));
            upstream.ask(request).await.map_err(Into::into)
        }
        Asker::Gateway => upstream.ask_as_gateway(&repository, request).await,
    };
    let answer = answer.map_err(|it| match it.is_refusal() {
        true => refuse(ErrorCode::Denied, "the registry refuses the gateway"),
        false => cannot_decide(&format!("cannot decide: {it}"), None),
    })?;
    match answer.status() {
        StatusCode::OK => {
            let length = answer.headers().get(CONTENT_LENGTH).and_then(|it| it.to_str().ok()?.parse().ok());
            length.ok_or_else(|| {
                cannot_decide("cannot decide: the registry did not say how long the blob is", None)
            })
        }
        status => Err(from_answer(status, answer.headers())),
    }
}

/// Waits until a seed is over, well or not.
async fn ended(mut seed: watch::Receiver<SeedProgress>) {
    while seed.changed().await.is_ok() {}
}
