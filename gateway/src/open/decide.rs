//! Whether a caller may read a blob, and how the blob is cut for it.
//!
//! Proofs that were seen before decide at once; else the registry is asked by one HEAD, with the caller's own
//! credential or, in gateway mode, with the gateway's. A cached blob is checked exactly like any other. Equal
//! questions in flight are one. The size that a proof names may be a claim, see [`Cuts`]; where it is not
//! believed, the registry is asked as well. Every decision is told to the audit log.

use std::sync::Arc;

use http::header::AUTHORIZATION;
use http::{HeaderValue, Request, StatusCode};
use shoal_model::{BlobKey, Digest};
use shoal_oci::{ErrorCode, Repository};
use shoal_proto::Refusal;
use shoal_swarm::Geometry;
use tokio::time::timeout_at;

use super::Admitted;
use super::refusal::{cannot_decide, from_answer, refuse};
use crate::audit::{self, Event, Outcome};
use crate::authority::{Holder, Proof, Right, Size};
use crate::cuts::Cuts;
use crate::gate::Gate;
use crate::mode::Asker;
use crate::seed::Seeder;
use crate::single_flight::SingleFlight;
use crate::upstream::{Upstream, length_of};

/// Decides about blobs.
pub(super) struct Decider {
    gate: Arc<Gate>,
    cuts: Arc<Cuts>,
    seeder: Seeder,
    checks: SingleFlight<(Right, Digest), Result<u64, Refusal>>,
}

/// A blob is not to be read, for now or at all.
struct Denied {
    refusal: Refusal,
    /// What decided that; `None` where nothing could.
    proof: Option<Proof>,
}

impl Denied {
    fn undecided(why: &str) -> Self {
        Self { refusal: cannot_decide(why, None), proof: None }
    }
}

impl Decider {
    pub(super) fn new(gate: Arc<Gate>, cuts: Arc<Cuts>, seeder: Seeder) -> Self {
        Self { gate, cuts, seeder, checks: SingleFlight::new() }
    }

    /// The blob's cut, if the caller may read it.
    pub(super) async fn decide(&self, asking: &Admitted, key: &BlobKey) -> Result<Geometry, Refusal> {
        let decision = self.decision(asking, key).await;
        let (outcome, proof) = match &decision {
            Ok((_, proof)) => (Outcome::Allowed, Some(*proof)),
            Err(Denied { proof: None, .. }) => (Outcome::Undecided, None),
            Err(Denied { proof, .. }) => (Outcome::Refused, *proof),
        };
        asking.upstream.metrics.decided(outcome, proof);
        let Right { registry, repository, holder } = asking.right.clone();
        let event = audit::Authorization {
            node: asking.node.id.clone(),
            registry,
            repository,
            digest: key.digest,
            caller: (&holder).into(),
            outcome,
            proof,
        };
        self.gate.audit().record_by(asking.deadline, Event::Authorization(event)).await;
        decision.map(|it| it.0).map_err(|it| it.refusal)
    }

    /// Refuses a blob that is not here and that the registry would not give to the gateway: nodes that have
    /// a right of their own need not wait for that.
    pub(super) fn check_seedable(&self, asking: &Admitted, key: &BlobKey) -> Result<(), Refusal> {
        let Right { registry, repository, .. } = &asking.right;
        match self.seeder.is_barred(registry, repository, key) {
            true => Err(cannot_decide("cannot decide: the registry refuses the gateway", None)),
            false => Ok(()),
        }
    }

    async fn decision(&self, asking: &Admitted, key: &BlobKey) -> Result<(Geometry, Proof), Denied> {
        let Right { repository, holder, .. } = &asking.right;
        if !asking.upstream.mode.admits(repository) {
            let why = format!("repository {repository}: not one that nodes may pull");
            return Err(Denied { refusal: refuse(ErrorCode::Denied, &why), proof: Some(Proof::AllowList) });
        }
        self.check_seedable(asking, key).map_err(|refusal| Denied { refusal, proof: None })?;
        let (geometry, proof) = match self.known(asking, key) {
            Some(known) => known,
            None => (self.cuts.say(key, self.ask(asking, key.digest).await?), Proof::BlobHead),
        };
        // What nodes may pull with the gateway's right is the operator's word, whatever has shown that right.
        let proof = if *holder == Holder::Gateway { Proof::AllowList } else { proof };
        Ok((geometry, proof))
    }

    fn known(&self, asking: &Admitted, key: &BlobKey) -> Option<(Geometry, Proof)> {
        let allowed = self.gate.decide(&asking.right, asking.authorization.as_ref(), key.digest)?;
        Some((self.cuts.believe(key, allowed.size)?, allowed.proof))
    }

    /// Asks the registry for the blob's size on behalf of the caller, together with everybody who asks the
    /// same.
    async fn ask(&self, asking: &Admitted, digest: Digest) -> Result<u64, Denied> {
        let Admitted { upstream, right, authorization, .. } = asking;
        let question = head(upstream.clone(), right.repository.clone(), digest, authorization.clone());
        let answer = self.checks.run((right.clone(), digest), question);
        let Ok(answer) = timeout_at(asking.deadline, answer).await else {
            return Err(Denied::undecided("cannot decide: the registry did not answer in time"));
        };
        let size = answer.map_err(|refusal| {
            let is_decided = refusal.status != ErrorCode::Unavailable.status();
            if !is_decided {
                let Right { registry, repository, .. } = right;
                let why = String::from_utf8_lossy(&refusal.body);
                tracing::warn!(%registry, %repository, %digest, %why, "not decided");
            }
            Denied { refusal, proof: is_decided.then_some(Proof::BlobHead) }
        })?;
        self.gate.blob_granted(right, digest, Size::Stated(size));
        Ok(size)
    }
}

/// One HEAD of a blob: its size, or why not.
#[expect(clippy::expect_used, reason = "input cannot reach it")]
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
    upstream.listens().map_err(|it| cannot_decide(&format!("cannot decide: {it}"), None))?;
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
        StatusCode::OK => length_of(answer.headers()).ok_or_else(|| {
            cannot_decide("cannot decide: the registry did not say how long the blob is", None)
        }),
        status => Err(from_answer(status, answer.headers())),
    }
}
