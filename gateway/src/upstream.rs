//! One configured registry, as the gateway asks it.
//!
//! Everything that is asked goes through here, so that the registry's limits hold and every request is
//! counted. A request is sent either with what the caller showed or with the gateway's own right; a
//! credential of one kind never serves for the other.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::header::{AUTHORIZATION, RETRY_AFTER};
use http::{HeaderMap, Request, Response, StatusCode};
use shoal_model::TrustGroup;
use shoal_oci::{RegistryName, Repository};
use shoal_registry::{EndpointError, RegistryBody, RegistryClient, RegistryError, retry_after};

use crate::credentials::{Credentials, Login, LoginError, Shown};
use crate::limits::Limits;
use crate::metrics::{OneRegistry, RegistryMetrics};
use crate::mode::{Asker, Mode};
use crate::settings::RegistrySettings;

/// Why a registry gave no answer to the gateway.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum AskError {
    #[error(transparent)]
    Registry(#[from] RegistryError),
    #[error(transparent)]
    Login(#[from] LoginError),
}

impl AskError {
    /// Whether the gateway's right was refused. It says nothing about the caller's, so no login of the caller
    /// would help.
    pub(crate) fn is_refusal(&self) -> bool {
        matches!(self, Self::Login(it) if it.is_refusal())
    }
}

/// A registry that can be asked.
pub(crate) struct Upstream {
    pub(crate) group: TrustGroup,
    pub(crate) mode: Mode,
    pub(crate) limits: Limits,
    pub(crate) metrics: OneRegistry,
    client: RegistryClient,
    credentials: Credentials,
}

impl Upstream {
    pub(crate) fn new(
        settings: RegistrySettings,
        metrics: &RegistryMetrics,
    ) -> Result<Arc<Self>, EndpointError> {
        let RegistrySettings { endpoint, group, mode, identity, limits } = settings;
        let client = RegistryClient::new(&endpoint)?;
        Ok(Arc::new(Self {
            group,
            mode,
            limits: Limits::new(&limits),
            metrics: metrics.of(&endpoint.name),
            credentials: Credentials::new(Login::new(client.clone(), identity)),
            client,
        }))
    }

    pub(crate) fn name(&self) -> &RegistryName {
        self.client.name()
    }

    /// Waits until the registry may be sent one more request. Whoever asks waits here first, and decides for
    /// how long.
    pub(crate) async fn turn(&self, asker: Asker) {
        if asker == Asker::Gateway {
            self.limits.pause_over().await;
        }
        self.limits.request().await;
    }

    /// Sends one request as it is.
    pub(crate) async fn ask(&self, request: Request<()>) -> Result<Response<RegistryBody>, RegistryError> {
        let answer = self.client.send(request).await;
        self.metrics.request(answer.as_ref().ok().map(|it| it.status().as_u16()));
        answer
    }

    /// Sends one request about `repository` with the gateway's own right. Where the registry no longer takes
    /// what was kept, it is asked again with a fresh login. The answer is never 401: that is an error.
    pub(crate) async fn ask_as_gateway(
        &self,
        repository: &Repository,
        request: Request<()>,
    ) -> Result<Response<RegistryBody>, AskError> {
        // Ends, since the refusal of what a login has just brought is an error.
        loop {
            let shown = self.credentials.authorization(repository).await?;
            let answer = self.ask_showing(&shown, request.clone()).await?;
            if answer.status() != StatusCode::UNAUTHORIZED {
                return Ok(answer);
            }
            self.credentials.refused(repository, &shown)?;
            self.turn(Asker::Gateway).await;
        }
    }

    async fn ask_showing(
        &self,
        shown: &Shown,
        mut request: Request<()>,
    ) -> Result<Response<RegistryBody>, RegistryError> {
        match &shown.authorization {
            Some(value) => request.headers_mut().insert(AUTHORIZATION, value.clone()),
            None => request.headers_mut().remove(AUTHORIZATION),
        };
        let answer = self.ask(request).await?;
        if matches!(answer.status(), StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
            self.limits.pause(wait_of(answer.headers()).unwrap_or_default());
        }
        Ok(answer)
    }
}

/// The registry's `Retry-After`, if it gave one.
pub(crate) fn wait_of(headers: &HeaderMap) -> Option<Duration> {
    retry_after::parse(headers.get(RETRY_AFTER)?.to_str().ok()?, SystemTime::now())
}
