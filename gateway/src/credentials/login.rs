//! Logging in to a registry: asks it how, and makes what it wants to be shown.
//!
//! `/v2/` is asked without a credential. A registry that answers with a `Bearer` challenge has a token
//! service, which gets the identity and gives a token for pulling from one repository; any other registry is
//! shown the identity itself. Where the password may go is the registry client's rule.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use http::header::WWW_AUTHENTICATE;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use shoal_oci::challenge::{self, Challenge};
use shoal_oci::{RegistryName, Repository};
use shoal_registry::{Network, RegistryClient, RegistryError};
use tokio::time::timeout;

use super::identity::{Identity, Proof, Source};
use super::{Authorization, sensitive, token};
use crate::kind::Kind;

/// For the registry's challenge and the token service's answer together.
const PATIENCE: Duration = Duration::from_secs(10);
/// The most bytes of a token service's answer; real ones take a few thousand.
const MAX_ANSWER: usize = 64 << 10;
/// How long a registry is believed to want no token. A refusal shows earlier if it changes its mind.
const TOKENLESS: Duration = Duration::from_secs(60 * 60);

/// Why there is no credential. The text holds nothing that the token service said: it may repeat what it
/// was sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("registry {registry}: repository {repository}: login: {fault}")]
pub(crate) struct LoginError {
    registry: RegistryName,
    repository: Repository,
    fault: Fault,
}

/// What went wrong with a login.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    /// The identity itself, with what to do about it.
    #[error("the gateway is refused: {0}")]
    Refused(Arc<str>),
    #[error("{0}")]
    Other(Arc<str>),
}

impl Fault {
    pub(super) const fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused(_))
    }
}

impl LoginError {
    /// Whether the identity itself was refused: trying again could lock its account.
    pub(crate) fn is_refusal(&self) -> bool {
        self.fault.is_refusal()
    }
}

impl From<RegistryError> for Fault {
    fn from(error: RegistryError) -> Self {
        other(&error.what)
    }
}

/// What a login brought.
#[derive(Clone)]
pub(super) struct Granted {
    pub(super) authorization: Authorization,
    /// How long it may be shown.
    pub(super) usable: Duration,
    /// Whether it is one that was got for an earlier login.
    pub(super) is_kept: bool,
}

/// Who logs in, and where.
pub(crate) struct Login {
    client: RegistryClient,
    kind: Kind,
    source: Source,
}

impl Login {
    pub(crate) fn new(client: RegistryClient, kind: Kind, identity: Identity) -> Self {
        Self { client, kind, source: Source::new(identity) }
    }

    /// Which of the operator's identities logs in now.
    pub(super) fn generation(&self) -> u64 {
        self.source.generation()
    }

    pub(super) fn reload(&self) -> io::Result<bool> {
        self.source.reload()
    }

    /// Asks the registry how it wants to be shown the identity, and makes that.
    pub(super) async fn authorization(&self, repository: &Repository) -> Result<Granted, LoginError> {
        let late = |_| Err(other(&format!("no answer within {} s", PATIENCE.as_secs())));
        let granted = timeout(PATIENCE, self.granted(repository)).await.unwrap_or_else(late);
        granted.map_err(|fault| self.error(repository, fault))
    }

    /// The registry refused what a login brought.
    pub(super) fn refused(&self, repository: &Repository) -> LoginError {
        self.error(repository, self.refusal())
    }

    /// The registry refused what an earlier login brought.
    pub(super) async fn ended(&self, authorization: &Authorization) {
        self.source.refused(authorization).await;
    }

    fn error(&self, repository: &Repository, fault: Fault) -> LoginError {
        LoginError { registry: self.client.name().clone(), repository: repository.clone(), fault }
    }

    fn refusal(&self) -> Fault {
        Fault::Refused(self.kind.advice().into())
    }

    async fn granted(&self, repository: &Repository) -> Result<Granted, Fault> {
        loop {
            let proof = self.source.proof().await?;
            match self.shown(&proof, repository).await {
                // It may have ended before its time; the next one is another.
                Err(fault) if fault.is_refusal() && proof.is_kept => self.source.refused(&proof.basic).await,
                outcome => return outcome,
            }
        }
    }

    async fn shown(&self, proof: &Proof, repository: &Repository) -> Result<Granted, Fault> {
        match self.challenge().await? {
            Some((Challenge::Bearer { realm, service, .. }, from)) => {
                self.token((&realm, from), service.as_deref(), proof, repository).await
            }
            Some((Challenge::Basic { .. }, _)) | None => Ok(Granted {
                authorization: proof.basic.clone(),
                usable: proof.usable.min(TOKENLESS),
                is_kept: proof.is_kept,
            }),
        }
    }

    /// How the registry wants to be shown an identity, and where it said so; `None` where it lets in anybody.
    #[expect(clippy::expect_used, reason = "input cannot reach it")]
    async fn challenge(&self) -> Result<Option<(Challenge, Network)>, Fault> {
        let request = Request::get("/v2/").body(()).expect("the path is safe");
        let answer = self.client.send(request).await?;
        match answer.status() {
            StatusCode::UNAUTHORIZED => preferred(answer.headers())
                .map(|it| Some((it, Network::behind(&answer))))
                .ok_or_else(|| other("the registry asks for a login that is not understood")),
            status if status.is_success() => Ok(None),
            status => Err(other(&format!("the registry answered {status} to /v2/"))),
        }
    }

    /// A token for pulling.
    async fn token(
        &self,
        realm: (&str, Network),
        service: Option<&str>,
        proof: &Proof,
        repository: &Repository,
    ) -> Result<Granted, Fault> {
        let scope = format!("repository:{repository}:pull");
        let service = service.map(|it| ("service", it));
        let query: Vec<_> = [("scope", scope.as_str())].into_iter().chain(service).collect();
        let answer = self.client.ask_token_service(realm, &query, proof.basic.clone()).await?;
        let status = answer.status();
        if !status.is_success() {
            return Err(self.unsuccessful(status));
        }
        let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
        let body = body.map_err(|_| other("the token service's answer is too long or broke off"))?;
        let token = token::read(&body.to_bytes()).ok_or_else(|| other("the token service sent no token"))?;
        let authorization = Some(sensitive(&format!("Bearer {}", token.text))?);
        Ok(Granted { authorization, usable: token.usable, is_kept: false })
    }

    /// A token service that is busy or broken has not refused anybody.
    fn unsuccessful(&self, status: StatusCode) -> Fault {
        let is_refusal = status.is_client_error()
            && status != StatusCode::REQUEST_TIMEOUT
            && status != StatusCode::TOO_MANY_REQUESTS;
        if is_refusal { self.refusal() } else { other(&format!("the token service answered {status}")) }
    }
}

/// The challenge to follow: a registry that offers a token wants it.
fn preferred(headers: &HeaderMap) -> Option<Challenge> {
    let values = headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|it| it.to_str().ok());
    let challenges = challenge::parse(values);
    let bearer = challenges.iter().find(|it| matches!(it, Challenge::Bearer { .. }));
    bearer.or(challenges.first()).cloned()
}

pub(super) fn other(text: &str) -> Fault {
    Fault::Other(text.into())
}
