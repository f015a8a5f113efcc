//! `Open`: whether a caller may read blobs ([`decide`]), and how to get them.
//!
//! One deadline covers all that an answer takes. When the registry is slower than that, the answer is that
//! there is none, and the node goes to the registry by itself. It is told the same at once where the
//! gateway could not fetch the blob anyway, because the registry refuses it.

mod decide;
mod holders;
mod refusal;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _};
use http::HeaderValue;
use shoal_model::{Authorization, BlobKey, Digest, Node};
use shoal_oci::{ErrorCode, Repository};
use shoal_peer::shelf::ShelfBlob;
use shoal_proto::{OpenReply, OpenRequest, OpenedBlob, Refusal, SeedProgress, Source};
use shoal_swarm::Geometry;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::authority::Right;
use crate::cuts::Cuts;
use crate::gate::Gate;
use crate::limits::SMALL;
use crate::seed::{Seeder, Wanted};
use crate::tickets::Tickets;
use crate::upstream::Upstream;
use decide::Decider;
use holders::Holders;
use refusal::refuse;

/// How long an answer may take, decision and content together: nodes wait for 1.6 s.
const ANSWER: Duration = Duration::from_millis(1300);
/// How many blobs of one request are decided at the same time.
const AT_ONCE: usize = 16;

/// Answers `Open`.
pub(crate) struct Opener {
    gate: Arc<Gate>,
    decider: Decider,
    seeder: Seeder,
    tickets: Arc<Tickets>,
    /// The gateway itself, as nodes see it.
    gateway: Node,
    holders: Mutex<Holders>,
}

/// A request whose registry and repository are known to be served.
struct Admitted {
    upstream: Arc<Upstream>,
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
        tickets: Arc<Tickets>,
        gateway: Node,
    ) -> Self {
        let decider = Decider::new(gate.clone(), cuts, seeder.clone());
        Self { gate, decider, seeder, tickets, gateway, holders: Mutex::new(Holders::new()) }
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
        let authorization = authorization.map(|it| header(&it)).transpose()?;
        Ok(Admitted {
            right: self.gate.right(upstream, &repository, authorization.as_ref()),
            upstream: upstream.clone(),
            authorization,
            node,
            deadline: Instant::now() + ANSWER,
        })
    }

    async fn open_one(&self, admitted: &Admitted, digest: Digest) -> Result<OpenedBlob, Refusal> {
        let key = BlobKey { group: admitted.upstream.group.clone(), digest };
        let geometry = self.decider.decide(admitted, &key).await?;
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
        let fresh = self.tickets.give(SystemTime::now(), source, key.clone(), admitted.node.id.clone());
        let mut holders = self.holders.lock().unwrap_or_else(PoisonError::into_inner);
        let holders = holders.introduce(&key, &admitted.node);
        Ok(OpenedBlob {
            geometry,
            ticket: fresh.ticket,
            ticket_lives: fresh.lives,
            content,
            holders,
            gateway: self.gateway.clone(),
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

/// Waits until a seed is over, well or not.
async fn ended(mut seed: watch::Receiver<SeedProgress>) {
    while seed.changed().await.is_ok() {}
}
