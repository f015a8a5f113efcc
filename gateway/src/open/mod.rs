//! `Open`: whether a caller may read blobs ([`decide`]), and how to get them.
//!
//! One deadline covers all that an answer takes. When the registry is slower than that, the answer is that
//! there is none, and the node goes to the registry by itself. It is told the same at once where the
//! gateway could not fetch the blob anyway, because the registry refuses it.

mod decide;
mod holders;
mod refusal;

use std::iter::repeat;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::stream::{self, Stream, StreamExt as _};
use http::HeaderValue;
use shoal_identity::{Caller, Impostor};
use shoal_model::{Authorization, BlobKey, Digest, Node, NodeId, Place, Role, TraceParent};
use shoal_oci::{ErrorCode, OciError, RegistryName, Repository};
use shoal_ops::traces::{self, TARGET};
use shoal_peer::shelf::ShelfBlob;
use shoal_proto::{OpenReply, OpenRequest, Opened, OpenedBlob, Refusal, SeedProgress, Source};
use shoal_swarm::Geometry;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tracing::field::Empty;
use tracing::{Instrument as _, info_span};

use crate::audit::{Reason, Requested};
use crate::authority::Right;
use crate::cuts::Cuts;
use crate::gate::{Gate, Unfit};
use crate::ledger::{Ledger, Traffic};
use crate::limits::SMALL;
use crate::priority::Priority;
use crate::seed::{Seeder, Wanted, Wanting};
use crate::sisters::Sisters;
use crate::tickets::Tickets;
use crate::upstream::Upstream;
use decide::Decider;
use holders::Holders;
pub(crate) use refusal::cannot_decide;
use refusal::refuse;

/// How long an answer may take, decision and content together: nodes wait for 1.6 s.
const ANSWER: Duration = Duration::from_millis(1300);

/// Answers `Open`.
pub(crate) struct Opener {
    gate: Arc<Gate>,
    decider: Decider,
    seeder: Seeder,
    tickets: Arc<Tickets>,
    sisters: Sisters,
    ledger: Arc<Ledger>,
    holders: Mutex<Holders>,
}

/// A request whose registry and repository are known to be served.
struct Admitted {
    upstream: Arc<Upstream>,
    right: Right,
    authorization: Option<HeaderValue>,
    node: Node,
    /// Whether the node stands where it says.
    is_known: bool,
    deadline: Instant,
}

impl Opener {
    pub(crate) fn new(
        gate: Arc<Gate>,
        cuts: Arc<Cuts>,
        seeder: Seeder,
        tickets: Arc<Tickets>,
        sisters: Sisters,
        ledger: Arc<Ledger>,
    ) -> Self {
        let decider = Decider::new(gate.clone(), cuts, seeder.clone());
        Self { gate, decider, seeder, tickets, sisters, ledger, holders: Mutex::new(Holders::new()) }
    }

    /// Decides about every blob of the request, which is to be from the node that it says. Each is answered for
    /// as soon as it is decided: one that the registry must be asked about does not hold the others up.
    pub(crate) async fn open(
        self: Arc<Self>,
        from: &Caller,
        request: OpenRequest,
    ) -> Result<impl Stream<Item = OpenReply> + Send + use<>, Impostor> {
        if let Err(impostor) = from.must_be_node(&request.node) {
            self.gate.rejected(from, Requested::Open, Reason::Impostor, None).await;
            return Err(impostor);
        }
        let traces = request.traces.iter().copied().chain(repeat(None));
        let asked: Vec<_> = request.digests.iter().copied().zip(traces).collect();
        Ok(match self.admit(from, request) {
            Ok(admitted) => {
                let admitted = Arc::new(admitted);
                let answer = move |(index, (digest, trace))| {
                    let (this, admitted) = (self.clone(), admitted.clone());
                    async move { Opened { index, outcome: this.open_traced(&admitted, digest, trace).await } }
                };
                let answers = stream::iter(asked.into_iter().enumerate()).map(answer);
                answers
                    .buffer_unordered(OpenRequest::AT_ONCE)
                    .ready_chunks(OpenRequest::AT_ONCE)
                    .map(OpenReply)
                    .left_stream()
            }
            Err(Unfit { error, reason, registry }) => {
                self.gate.rejected(from, Requested::Open, reason, registry).await;
                let refused = |index| Opened { index, outcome: Err(refuse(error.code, &error.message)) };
                let reply = OpenReply((0..asked.len()).map(refused).collect());
                stream::iter([reply]).right_stream()
            }
        })
    }

    /// The cut of a blob, if the holder of `right`, who shows this `Authorization`, may read it; for a job of this
    /// gateway, which waits until `deadline`.
    pub(crate) async fn cut(
        &self,
        upstream: Arc<Upstream>,
        right: Right,
        authorization: Option<HeaderValue>,
        key: &BlobKey,
        deadline: Instant,
    ) -> Result<Geometry, Refusal> {
        let node = self.sisters.myself();
        let asking = Admitted { upstream, right, authorization, node, is_known: true, deadline };
        let geometry = self.decide(&asking, key).await?;
        asking.upstream.lend(&asking.right.repository, asking.authorization.as_ref());
        Ok(geometry)
    }

    /// Tells that a ticket was not renewed.
    pub(crate) async fn not_renewed(&self, from: &Caller) {
        self.gate.rejected(from, Requested::Renewal, Reason::Ticket, None).await;
    }

    fn admit(&self, from: &Caller, request: OpenRequest) -> Result<Admitted, Unfit> {
        let OpenRequest { source: Source { registry, repository }, authorization, node, .. } = request;
        let name = registry.parse::<RegistryName>().ok();
        let upstream = name.as_ref().and_then(|it| self.gate.upstream(it));
        let upstream = upstream.ok_or_else(|| self.gate.unknown(&registry, name.clone()))?;
        let repository = repository.parse().and_then(|it: Repository| it.within(upstream.name()))?;
        let authorization = authorization.map(|it| header(&it)).transpose()?;
        Ok(Admitted {
            right: self.gate.right(upstream, &repository, authorization.as_ref()),
            upstream: upstream.clone(),
            authorization,
            is_known: from.stands_at(&node.address),
            node,
            deadline: Instant::now() + ANSWER,
        })
    }

    /// Decides about one blob for the gateway of another region, which reads it by itself; returns how it is cut.
    pub(crate) async fn decide_for(
        &self,
        region: &NodeId,
        from: &Caller,
        (upstream, repository): (&Arc<Upstream>, &Repository),
        authorization: Option<HeaderValue>,
        digest: Digest,
    ) -> Result<Geometry, Refusal> {
        let node = Node {
            id: region.clone(),
            address: from.address.to_string().into(),
            role: Role::Gateway,
            place: Place::default(),
        };
        let admitted = Admitted {
            right: self.gate.right(upstream, repository, authorization.as_ref()),
            upstream: upstream.clone(),
            authorization,
            is_known: false,
            node,
            deadline: Instant::now() + ANSWER,
        };
        let key = BlobKey { group: upstream.group.clone(), digest };
        self.decide(&admitted, &key).await
    }

    /// The blob's cut, if the caller may read it: so the blob belongs to the repository.
    async fn decide(&self, admitted: &Admitted, key: &BlobKey) -> Result<Geometry, Refusal> {
        let geometry = self.decider.decide(admitted, key).await?;
        self.ledger.belongs(key, &admitted.right.registry, &admitted.right.repository);
        Ok(geometry)
    }

    /// Decides about a blob within the trace of the pull that asks.
    async fn open_traced(
        &self,
        admitted: &Admitted,
        digest: Digest,
        trace: Option<TraceParent>,
    ) -> Result<OpenedBlob, Refusal> {
        let Right { registry, repository, .. } = &admitted.right;
        let span = traces::from(trace, || {
            info_span!(
                target: TARGET, "decide", otel.kind = "server", node = %admitted.node.id,
                %registry, %repository, %digest, refused = Empty
            )
        });
        let outcome = self.open_one(admitted, digest).instrument(span.clone()).await;
        span.record("refused", outcome.as_ref().err().map(|it| it.status));
        outcome
    }

    async fn open_one(&self, admitted: &Admitted, digest: Digest) -> Result<OpenedBlob, Refusal> {
        let key = BlobKey { group: admitted.upstream.group.clone(), digest };
        let geometry = self.decide(admitted, &key).await?;
        admitted.upstream.lend(&admitted.right.repository, admitted.authorization.as_ref());
        self.seeder.is_awaited(&key);
        let content =
            if geometry.size() <= SMALL { self.content(admitted, &key, geometry).await } else { None };
        if content.is_none() {
            // Fetching it may just have shown otherwise.
            self.decider.check_seedable(admitted, &key)?;
        }
        let source = Source {
            registry: admitted.upstream.name().to_string(),
            repository: admitted.right.repository.to_string(),
        };
        let (cut, node) = ((key.clone(), geometry), admitted.node.id.clone());
        let fresh = self.tickets.give(SystemTime::now(), source, cut, node);
        let mut holders = self.holders.lock().unwrap_or_else(PoisonError::into_inner);
        let holders = if admitted.is_known {
            holders.introduce(&key, &admitted.node)
        } else {
            holders.others(&key, &admitted.node)
        };
        Ok(OpenedBlob {
            geometry,
            ticket: fresh.ticket,
            ticket_lives: fresh.lives,
            content,
            holders,
            gateway: self.sisters.owner(&key),
            key,
        })
    }

    /// The whole of a small blob, where it comes in time.
    async fn content(&self, admitted: &Admitted, key: &BlobKey, geometry: Geometry) -> Option<Bytes> {
        let wanted = Wanted {
            upstream: admitted.upstream.clone(),
            repository: admitted.right.repository.clone(),
            key: key.clone(),
            geometry,
            by: Wanting::Node,
            priority: Priority::Live,
        };
        let ShelfBlob { blob, seed } = self.seeder.seed(wanted)?;
        if let Some(seed) = seed {
            timeout_at(admitted.deadline, ended(seed)).await.ok()?;
        }
        if !blob.is_complete() {
            return None;
        }
        let content = blob.read_held(0..geometry.size()).await.ok()?;
        self.ledger.moved(key, Traffic { sent: content.len() as u64, ..Traffic::default() });
        Some(content)
    }
}

/// A caller's credential as the header that it came from.
fn header(authorization: &Authorization) -> Result<HeaderValue, OciError> {
    let mut value = HeaderValue::from_str(authorization.expose()).map_err(|_| OciError {
        code: ErrorCode::Unauthorized,
        message: "the authorization cannot be sent in a header".to_owned(),
    })?;
    value.set_sensitive(true);
    Ok(value)
}

/// Waits until a seed is over, well or not.
async fn ended(mut seed: watch::Receiver<SeedProgress>) {
    while seed.changed().await.is_ok() {}
}
