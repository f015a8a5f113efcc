//! The `Certificates` service: one request, one decision, told once to metrics, log and audit log.
//!
//! Strangers reach it, and they must neither keep a newcomer out nor fill the logs. So a good join token is
//! never held up, whatever others at its address do. Any other credential is charged to its party before
//! Kubernetes is asked, and refunded unless it is refused: an API that does not answer is not the asker's fault.
//! Lines about failures are bounded for each party, and certificates for each name, so that a node which asks
//! for one over and over does not push everything else out of the audit log.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use shoal_identity::{Ca, CaError, Caller, Grant, Request, SpiffeId};
use shoal_ops::metrics::Metrics;
use shoal_proto::certificates_server::{Certificates, CertificatesServer};
use shoal_proto::{IssueReply, IssueRequest, JoinCredential};
use tonic::{Response, Status};

use super::budget::Budgets;
use super::proven::{Proof, Refused, grant};
use super::token_review::{ReviewError, TokenReviews};
use super::tokens::JoinTokens;
use crate::audit::{self, Audit, Event};
use crate::party::party;
use crate::timestamp::Timestamp;

/// The longest request, in bytes: a signing request and a credential.
const MAX_REQUEST: usize = 64 << 10;
/// How often a party may fail: so many times at once, and once in so long after that.
const FAILURES: (u32, Duration) = (10, Duration::from_secs(1));
/// How often one name gets a certificate; each is good for a minute at least.
const ISSUED: (u32, Duration) = (6, Duration::from_secs(10));

/// Issues certificates to those who prove a role.
pub struct Issuing {
    ca: Arc<Ca>,
    lives: Duration,
    joins: Joins,
    /// Of credentials that were refused.
    refusals: Budgets<IpAddr>,
    /// Of failures that are told to the logs.
    told: Budgets<IpAddr>,
    issued: Budgets<SpiffeId>,
    outcomes: Outcomes,
    audit: Audit,
}

/// Who knows about credentials.
pub(super) struct Joins {
    pub(super) tokens: JoinTokens,
    pub(super) reviews: Option<TokenReviews>,
}

/// How often requests ended how.
#[derive(Clone)]
pub(super) struct Outcomes(Family<[(&'static str, &'static str); 1], Counter>);

/// A certificate, and what it says.
struct Issued {
    reply: IssueReply,
    grant: Grant,
    until: SystemTime,
}

/// Why there is none.
#[derive(Debug, thiserror::Error)]
enum IssueError {
    #[error("too many {what}; once more in {wait:?}")]
    TooMany { what: &'static str, wait: Duration },
    #[error(transparent)]
    Request(CaError),
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error(transparent)]
    Undecided(#[from] ReviewError),
    #[error("sign: {0}")]
    Sign(CaError),
}

impl Issuing {
    pub(super) fn new(ca: Arc<Ca>, lives: Duration, joins: Joins, outcomes: Outcomes, audit: Audit) -> Self {
        let [refusals, told] = [(); 2].map(|()| Budgets::new(FAILURES.0, FAILURES.1));
        let issued = Budgets::new(ISSUED.0, ISSUED.1);
        Self { ca, lives, joins, refusals, told, issued, outcomes, audit }
    }

    /// As a part of a listener whose requests carry an [`Arc<Caller>`].
    pub fn service(self) -> CertificatesServer<Self> {
        CertificatesServer::new(self).max_decoding_message_size(MAX_REQUEST)
    }

    async fn decide(&self, client: IpAddr, request: &IssueRequest) -> Result<Issued, IssueError> {
        let proof = self.prove(client, &request.credential).await?;
        let signing = Request::parse(&request.signing_request).map_err(IssueError::Request)?;
        let grant = grant(self.ca.domain(), proof, signing.assigned_name(), client, self.lives)?;
        let too_many = |wait| IssueError::TooMany { what: "certificates for this name", wait };
        self.issued.charge(Instant::now(), grant.id.clone()).map_err(too_many)?;
        let now = SystemTime::now();
        let certificate = self.ca.sign(now, &signing, &grant).map_err(IssueError::Sign)?;
        let root = Bytes::copy_from_slice(self.ca.root());
        let chain = vec![Bytes::copy_from_slice(&certificate), root.clone()];
        Ok(Issued { reply: IssueReply { chain, roots: vec![root] }, grant, until: now + self.lives })
    }

    async fn prove(&self, client: IpAddr, credential: &JoinCredential) -> Result<Proof, IssueError> {
        if let JoinCredential::JoinToken(token) = credential
            && let Some(role) = self.joins.tokens.role_of(token)
        {
            return Ok(Proof { role, name: None });
        }
        let party = party(client);
        let too_many = |wait| IssueError::TooMany { what: "failures", wait };
        // Charged beforehand, as many may ask at once.
        self.refusals.charge(Instant::now(), party).map_err(too_many)?;
        let proof = self.joins.review(credential).await;
        if !matches!(proof, Err(IssueError::Refused(_))) {
            self.refusals.refund(Instant::now(), &party);
        }
        proof
    }

    /// Whether the logs are to hear of it.
    fn is_told(&self, client: IpAddr, decided: &Result<Issued, IssueError>) -> bool {
        match decided {
            Ok(_) => true,
            Err(IssueError::TooMany { .. }) => false,
            Err(_) => self.told.charge(Instant::now(), party(client)).is_ok(),
        }
    }

    async fn tell(&self, client: IpAddr, request: &IssueRequest, decided: &Result<Issued, IssueError>) {
        let host = &request.host;
        match decided {
            Ok(Issued { grant, until, .. }) => {
                let until = Timestamp::of(*until);
                tracing::info!(id = %grant.id, %client, ?host, %until, "certificate issued");
            }
            Err(error) => tracing::warn!(%client, ?host, %error, "no certificate issued"),
        }
        self.audit.record(event(client, &request.credential, decided)).await;
    }
}

#[tonic::async_trait]
impl Certificates for Issuing {
    async fn issue(&self, request: tonic::Request<IssueRequest>) -> Result<Response<IssueReply>, Status> {
        let caller = Caller::of(request.extensions());
        let client = caller.map_err(|it| Status::unauthenticated(it.to_string()))?.address;
        let request = request.into_inner();
        let decided = self.decide(client, &request).await;
        self.outcomes.count(decided.as_ref().map_or_else(IssueError::outcome, |_| "issued"));
        if self.is_told(client, &decided) {
            self.tell(client, &request, &decided).await;
        }
        Ok(Response::new(decided?.reply))
    }
}

impl Joins {
    /// What is proven by a credential that is no good join token.
    async fn review(&self, credential: &JoinCredential) -> Result<Proof, IssueError> {
        match credential {
            JoinCredential::JoinToken(_) => Err(Refused::JoinToken.into()),
            JoinCredential::ServiceAccountToken(token) => {
                let reviews = self.reviews.as_ref().ok_or(Refused::NoKubernetes)?;
                Ok(reviews.review(token).await??)
            }
        }
    }
}

impl Outcomes {
    pub(super) fn register(metrics: &Metrics) -> Self {
        let it = Self(Family::default());
        metrics.register(|registry| {
            registry.register(
                "gateway_certificates",
                "Requests for certificates, by how they ended",
                it.0.clone(),
            );
        });
        it
    }

    fn count(&self, outcome: &'static str) {
        self.0.get_or_create(&[("outcome", outcome)]).inc();
    }
}

impl IssueError {
    const fn outcome(&self) -> &'static str {
        match self {
            Self::TooMany { .. } => "limited",
            Self::Request(_) => "malformed",
            Self::Refused(_) => "refused",
            Self::Undecided(_) => "undecided",
            Self::Sign(_) => "failed",
        }
    }
}

impl From<IssueError> for Status {
    fn from(error: IssueError) -> Self {
        let text = error.to_string();
        match error {
            IssueError::TooMany { .. } => Self::resource_exhausted(text),
            IssueError::Request(_) => Self::invalid_argument(text),
            IssueError::Refused(_) => Self::permission_denied(text),
            IssueError::Undecided(_) => Self::unavailable(text),
            IssueError::Sign(_) => Self::internal(text),
        }
    }
}

fn event(client: IpAddr, credential: &JoinCredential, decided: &Result<Issued, IssueError>) -> Event {
    let outcome = match decided {
        Ok(_) => audit::Outcome::Allowed,
        Err(IssueError::Undecided(_) | IssueError::Sign(_)) => audit::Outcome::Undecided,
        Err(_) => audit::Outcome::Refused,
    };
    let issued = decided.as_ref().ok();
    Event::Certificate(audit::Certificate {
        client,
        credential: match credential {
            JoinCredential::JoinToken(_) => audit::Credential::JoinToken,
            JoinCredential::ServiceAccountToken(_) => audit::Credential::ServiceAccountToken,
        },
        node: issued.map(|it| it.grant.id.node.clone()),
        outcome,
        expires: issued.map(|it| Timestamp::of(it.until)),
    })
}
