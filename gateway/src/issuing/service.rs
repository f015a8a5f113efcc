//! The `Certificates` service: one request, one decision, told once to metrics, log and audit log.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use shoal_identity::{Ca, CaError, Caller, Grant, Request};
use shoal_ops::metrics::Metrics;
use shoal_proto::certificates_server::{Certificates, CertificatesServer};
use shoal_proto::{IssueReply, IssueRequest, JoinCredential};
use tonic::{Response, Status};

use super::failures::Failures;
use super::proven::{Proof, Refused, grant};
use super::token_review::{ReviewError, TokenReviews};
use super::tokens::JoinTokens;
use crate::audit::{self, Audit, Event};
use crate::timestamp::Timestamp;

/// The longest request, in bytes: a signing request and a credential.
const MAX_REQUEST: usize = 64 << 10;

/// Issues certificates to those who prove a role.
pub struct Issuing {
    ca: Arc<Ca>,
    lives: Duration,
    joins: Joins,
    failures: Failures,
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
    #[error("too many failures; once more in {wait:?}")]
    TooMany { wait: Duration },
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
        Self { ca, lives, joins, failures: Failures::new(), outcomes, audit }
    }

    /// As a part of a listener whose requests carry an [`Arc<Caller>`].
    pub fn service(self) -> CertificatesServer<Self> {
        CertificatesServer::new(self).max_decoding_message_size(MAX_REQUEST)
    }

    async fn decide(&self, client: IpAddr, request: &IssueRequest) -> Result<Issued, IssueError> {
        if let Some(wait) = self.failures.wait(Instant::now(), client) {
            return Err(IssueError::TooMany { wait });
        }
        let signing = Request::parse(&request.signing_request).map_err(IssueError::Request)?;
        let proof = self.joins.prove(&request.credential).await?;
        let grant = grant(self.ca.domain(), proof, signing.assigned_name(), client, self.lives)?;
        let now = SystemTime::now();
        let certificate = self.ca.sign(now, &signing, &grant).map_err(IssueError::Sign)?;
        let root = Bytes::copy_from_slice(self.ca.root());
        let chain = vec![Bytes::copy_from_slice(&certificate), root.clone()];
        Ok(Issued { reply: IssueReply { chain, roots: vec![root] }, grant, until: now + self.lives })
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
        // Who is not listened to cannot fill the logs either.
        if !matches!(decided, Err(IssueError::TooMany { .. })) {
            if decided.is_err() {
                self.failures.add(Instant::now(), client);
            }
            self.tell(client, &request, &decided).await;
        }
        Ok(Response::new(decided?.reply))
    }
}

impl Joins {
    async fn prove(&self, credential: &JoinCredential) -> Result<Proof, IssueError> {
        match credential {
            JoinCredential::JoinToken(token) => {
                let role = self.tokens.role_of(token).ok_or(Refused::JoinToken)?;
                Ok(Proof { role, name: None })
            }
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
