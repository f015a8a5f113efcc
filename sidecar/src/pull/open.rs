//! Asking the gateway whether a caller may read a blob.
//!
//! The gateway is asked for every request, also for a blob that is complete here: a cache hit is checked
//! like a miss. Only while no gateway answers do the grants of the last minutes count, because the tickets
//! that came with them are still good; a refusal ends a grant at once.

use std::error::Error;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lru::LruCache;
use shoal_model::{Authorization, Digest, Node};
use shoal_proto::{OpenedBlob, Refusal, RenewReply, RenewRequest, Source};
use tokio::time::{Instant, timeout_at};
use tonic::{Code, Status};

use super::batch::Batches;
use super::download::Start;
use shoal_peer::region::Region;

/// Grants that are remembered.
const MAX_GRANTS: NonZeroUsize = NonZeroUsize::new(4096).expect("not zero");

/// What became of a request to open a blob.
#[derive(Debug)]
pub(crate) enum Opening {
    /// The caller may read it.
    Granted(Grant),
    /// The registry refuses the caller.
    Refused(Refusal),
    /// No gateway answered, and the caller was not granted the blob lately.
    NoGateway,
}

/// A gateway's leave to read a blob.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Grant {
    /// What the gateway said.
    pub blob: OpenedBlob,
    /// When it was asked: the ticket lives from then on.
    pub at: Instant,
}

/// Asks; clones share what they remember.
#[derive(Clone)]
pub(crate) struct Opener {
    region: Region,
    batches: Arc<Batches>,
    /// Credentials are told apart by a hash under this key, which never leaves the process: they themselves
    /// are not kept, and a hash cannot be guessed at.
    hash_key: [u8; 32],
    grants: Arc<Mutex<Grants>>,
}

/// Who asked for what.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Asked {
    source: Source,
    digest: Digest,
    credential: blake3::Hash,
}

impl Opener {
    /// Asks the region's gateway in the name of `node`.
    pub(crate) fn new(region: Region, node: Node) -> Self {
        Self {
            region,
            batches: Arc::new(Batches::new(node)),
            hash_key: rand::random(),
            grants: Arc::default(),
        }
    }

    /// Asks for one blob, until `deadline`; without a gateway, an earlier grant counts.
    pub(crate) async fn open(
        &self,
        source: &Source,
        digest: Digest,
        authorization: Option<&Authorization>,
        deadline: Instant,
    ) -> Opening {
        match self.open_anew(source, digest, authorization, deadline).await {
            Opening::NoGateway => {
                let recalled = self.grants().recall(&self.asked(source, digest, authorization));
                recalled.map_or(Opening::NoGateway, Opening::Granted)
            }
            answered => answered,
        }
    }

    /// Asks for one blob, until `deadline`; only what the gateway says now counts.
    pub(crate) async fn open_anew(
        &self,
        source: &Source,
        digest: Digest,
        authorization: Option<&Authorization>,
        deadline: Instant,
    ) -> Opening {
        let Some(gateway) = self.region.gateway() else { return Opening::NoGateway };
        let at = Instant::now();
        let asking = self.batches.ask(&gateway.calls, source, authorization, digest);
        let answer = timeout_at(deadline, asking).await;
        let answer = match answer.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in time"))) {
            Ok(answer) => answer,
            Err(status) => {
                let (registry, repository) = (&source.registry, &source.repository);
                tracing::warn!(registry, repository, %digest, error = &status as &dyn Error, "open failed");
                // One that refuses this node is as well as any; it would refuse the next stream, too.
                if !matches!(status.code(), Code::PermissionDenied | Code::Unauthenticated) {
                    self.region.suspect();
                }
                return Opening::NoGateway;
            }
        };
        let asked = self.asked(source, digest, authorization);
        match answer {
            Some(Ok(blob)) => {
                let grant = Grant { blob, at };
                self.grants().note(asked, &grant);
                Opening::Granted(grant)
            }
            Some(Err(refusal)) => {
                // Above that, the gateway could not decide.
                if refusal.status < 500 {
                    self.grants().forget(&asked);
                }
                Opening::Refused(refusal)
            }
            None => Opening::NoGateway,
        }
    }

    /// A fresher ticket for a download that goes on: in place of the one that it has, or else by the latest
    /// caller's own right.
    pub(super) async fn renew(&self, start: Start, deadline: Instant) -> Option<Start> {
        let at = Instant::now();
        let key = start.wanted.key.clone();
        let mut calls = self.region.gateway()?.calls;
        let request = RenewRequest { key: key.clone(), ticket: start.wanted.ticket.clone() };
        if let Ok(Ok(reply)) = timeout_at(deadline, calls.renew(request)).await {
            let RenewReply { ticket, ticket_lives } = reply.into_inner();
            return Some(start.renewed(ticket, ticket_lives, at));
        }
        let (source, authorization) = (start.wanted.source.clone(), start.authorization.clone());
        match self.open_anew(&source, key.digest, authorization.as_ref(), deadline).await {
            Opening::Granted(grant) if grant.blob.key == key => Some(start.granted_again(grant)),
            _ => None,
        }
    }

    fn asked(&self, source: &Source, digest: Digest, authorization: Option<&Authorization>) -> Asked {
        let credential = authorization.map(Authorization::expose).unwrap_or_default();
        let credential = blake3::keyed_hash(&self.hash_key, credential.as_bytes());
        Asked { source: source.clone(), digest, credential }
    }

    fn grants(&self) -> MutexGuard<'_, Grants> {
        self.grants.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The latest grants.
struct Grants(LruCache<Asked, Grant>);

impl Default for Grants {
    fn default() -> Self {
        Self(LruCache::new(MAX_GRANTS))
    }
}

impl Grants {
    /// Content is not kept: it is in the store.
    fn note(&mut self, asked: Asked, grant: &Grant) {
        let blob = OpenedBlob { content: None, ..grant.blob.clone() };
        self.0.put(asked, Grant { blob, at: grant.at });
    }

    fn forget(&mut self, asked: &Asked) {
        self.0.pop(asked);
    }

    /// A grant whose ticket is still good.
    fn recall(&mut self, asked: &Asked) -> Option<Grant> {
        self.0.get(asked).filter(|it| it.at.elapsed() < it.blob.ticket_lives).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pull::testing::{self, grant};
    use shoal_peer::RegionKeys;
    use std::time::Duration;

    fn opener() -> Opener {
        Opener::new(Region::without_gateway(RegionKeys::default()), testing::node("me"))
    }

    #[tokio::test(start_paused = true)]
    async fn a_grant_counts_for_its_caller_as_long_as_its_ticket() {
        let (it, caller) = (opener(), Authorization::new("Bearer x".into()));
        let grant = grant();
        let digest = grant.blob.key.digest;
        let asked = |who| it.asked(&testing::source(), digest, who);
        it.grants().note(asked(Some(&caller)), &grant);
        assert_eq!(it.grants().recall(&asked(None)), None, "another caller");
        assert_eq!(it.grants().recall(&asked(Some(&caller))), Some(grant));
        tokio::time::advance(testing::TICKET_LIVES - Duration::from_secs(1)).await;
        let opening = it.open(&testing::source(), digest, Some(&caller), Instant::now()).await;
        assert!(matches!(opening, Opening::Granted(_)), "no gateway answers: {opening:?}");
        tokio::time::advance(Duration::from_secs(1)).await;
        let opening = it.open(&testing::source(), digest, Some(&caller), Instant::now()).await;
        assert!(matches!(opening, Opening::NoGateway), "{opening:?}");
    }

    #[tokio::test]
    async fn a_grant_that_was_taken_back_counts_no_more() {
        let (it, grant) = (opener(), grant());
        let asked = it.asked(&testing::source(), grant.blob.key.digest, None);
        it.grants().note(asked.clone(), &grant);
        it.grants().forget(&asked);
        assert_eq!(it.grants().recall(&asked), None);
    }
}
