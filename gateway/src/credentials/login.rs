//! Logging in to a registry: asks it how, and makes what it wants to be shown.
//!
//! `/v2/` is asked without a credential. A registry that answers with a `Bearer` challenge has a token
//! service, which gets the identity and gives a token for pulling from one repository; any other registry is
//! shown the identity itself. Where the password may go is the registry client's rule.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::WWW_AUTHENTICATE;
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use shoal_oci::challenge::{self, Challenge};
use shoal_oci::{RegistryName, Repository};
use shoal_registry::{RegistryClient, RegistryError};
use tokio::time::timeout;

use super::{Authorization, Identity, token};

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
enum Fault {
    #[error("the gateway is refused")]
    Refused,
    #[error("{0}")]
    Other(Arc<str>),
}

impl LoginError {
    /// Whether the identity itself was refused: trying again could lock its account.
    pub(crate) fn is_refusal(&self) -> bool {
        self.fault == Fault::Refused
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
}

/// Who logs in, and where.
pub(crate) struct Login {
    client: RegistryClient,
    identity: Identity,
}

impl Login {
    pub(crate) const fn new(client: RegistryClient, identity: Identity) -> Self {
        Self { client, identity }
    }

    /// Asks the registry how it wants to be shown the identity, and makes that.
    pub(super) async fn authorization(&self, repository: &Repository) -> Result<Granted, LoginError> {
        let late = |_| Err(other(&format!("no answer within {} s", PATIENCE.as_secs())));
        let granted = timeout(PATIENCE, self.granted(repository)).await.unwrap_or_else(late);
        granted.map_err(|fault| self.error(repository, fault))
    }

    /// The registry refused what a login brought.
    pub(super) fn refused(&self, repository: &Repository) -> LoginError {
        self.error(repository, Fault::Refused)
    }

    fn error(&self, repository: &Repository, fault: Fault) -> LoginError {
        LoginError { registry: self.client.name().clone(), repository: repository.clone(), fault }
    }

    async fn granted(&self, repository: &Repository) -> Result<Granted, Fault> {
        match self.challenge().await? {
            Some(Challenge::Bearer { realm, service, .. }) => {
                self.token(&realm, service.as_deref(), repository).await
            }
            Some(Challenge::Basic { .. }) | None => {
                Ok(Granted { authorization: self.basic()?, usable: TOKENLESS })
            }
        }
    }

    /// How the registry wants to be shown an identity; `None` where it lets in anybody.
    async fn challenge(&self) -> Result<Option<Challenge>, Fault> {
        let request = Request::get("/v2/").body(()).expect("the path is safe");
        let answer = self.client.send(request).await?;
        match answer.status() {
            StatusCode::UNAUTHORIZED => preferred(answer.headers())
                .map(Some)
                .ok_or_else(|| other("the registry asks for a login that is not understood")),
            status if status.is_success() => Ok(None),
            status => Err(other(&format!("the registry answered {status} to /v2/"))),
        }
    }

    /// A token for pulling.
    async fn token(
        &self,
        realm: &str,
        service: Option<&str>,
        repository: &Repository,
    ) -> Result<Granted, Fault> {
        let scope = format!("repository:{repository}:pull");
        let service = service.map(|it| ("service", it));
        let query: Vec<_> = [("scope", scope.as_str())].into_iter().chain(service).collect();
        let answer = self.client.ask_token_service(realm, &query, self.basic()?).await?;
        let status = answer.status();
        if !status.is_success() {
            return Err(unsuccessful(status));
        }
        let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
        let body = body.map_err(|_| other("the token service's answer is too long or broke off"))?;
        let token = token::read(&body.to_bytes()).ok_or_else(|| other("the token service sent no token"))?;
        let authorization = Some(sensitive(&format!("Bearer {}", token.text))?);
        Ok(Granted { authorization, usable: token.usable })
    }

    /// The identity itself.
    fn basic(&self) -> Result<Authorization, Fault> {
        match &self.identity {
            Identity::Anonymous => Ok(None),
            Identity::User { name, password } => {
                let pair = STANDARD.encode(format!("{name}:{}", password.expose()));
                sensitive(&format!("Basic {pair}")).map(Some)
            }
        }
    }
}

/// The challenge to follow: a registry that offers a token wants it.
fn preferred(headers: &HeaderMap) -> Option<Challenge> {
    let values = headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|it| it.to_str().ok());
    let challenges = challenge::parse(values);
    let bearer = challenges.iter().find(|it| matches!(it, Challenge::Bearer { .. }));
    bearer.or(challenges.first()).cloned()
}

/// A token service that is busy or broken has not refused anybody.
fn unsuccessful(status: StatusCode) -> Fault {
    let is_refusal = status.is_client_error()
        && status != StatusCode::REQUEST_TIMEOUT
        && status != StatusCode::TOO_MANY_REQUESTS;
    if is_refusal { Fault::Refused } else { other(&format!("the token service answered {status}")) }
}

fn sensitive(text: &str) -> Result<HeaderValue, Fault> {
    let mut value =
        HeaderValue::from_str(text).map_err(|_| other("the credential cannot be sent in a header"))?;
    value.set_sensitive(true);
    Ok(value)
}

fn other(text: &str) -> Fault {
    Fault::Other(text.into())
}
