//! One configured registry, as the gateway asks it.
//!
//! Everything that is asked goes through here, so that the registry's limits hold and every request is
//! counted. A request is sent either with what the caller showed or with the gateway's own right; a
//! credential of one kind, a client certificate included, never serves for the other.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use http::header::{AUTHORIZATION, CONTENT_LENGTH, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use shoal_model::{Digest, TrustGroup};
use shoal_oci::{RegistryName, Repository};
use shoal_ops::tasks::Tasks;
use shoal_ops::traces::{self, TARGET};
use shoal_proto::Ticket;
use shoal_registry::{EndpointError, RegistryBody, RegistryClient, RegistryError, retry_after};

use tokio::time::Instant;
use tracing::field::Empty;
use tracing::{Span, info_span};

use crate::background::Background;
use crate::breaker::Breaker;
use crate::credentials::{self, Credentials, Login, LoginError, Shown};
use crate::hub::{Hub, HubRegistry};
use crate::kind::Kind;
use crate::limits::Limits;
use crate::metrics::{OneRegistry, RegistryMetrics};
use crate::mode::{Asker, Mode};
use crate::presence;
use crate::priority::Urgency;
use crate::settings::RegistrySettings;
use crate::token_key::{TokenKey, TokenKeyError};

/// Why a registry cannot be asked at all.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpstreamError {
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    #[error("registry {registry}: {error}")]
    TokenKey { registry: RegistryName, error: TokenKeyError },
}

/// Why a registry gave no answer to the gateway.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum AskError {
    #[error(transparent)]
    Registry(#[from] RegistryError),
    #[error(transparent)]
    Login(#[from] LoginError),
    #[error("registry {registry}: has not answered lately")]
    Silent { registry: RegistryName },
    #[error(
        "registry {registry}: repository {repository}: the hub takes no credential that was seen to open it"
    )]
    Unlent { registry: RegistryName, repository: Repository },
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
    pub(crate) kind: Kind,
    pub(crate) group: TrustGroup,
    pub(crate) mode: Mode,
    /// Names under which the gateway is this registry.
    pub(crate) hosts: Vec<String>,
    /// What its token service signs with.
    pub(crate) token_key: Option<TokenKey>,
    pub(crate) limits: Limits,
    /// What seeds mind that nobody waits for yet.
    pub(crate) background: Background,
    pub(crate) metrics: OneRegistry,
    name: RegistryName,
    source: Source,
    breaker: Mutex<Breaker>,
}

/// Who is asked.
enum Source {
    Registry(Direct),
    Hub(Box<HubRegistry>),
}

/// The registry itself.
struct Direct {
    client: RegistryClient,
    /// The same without what the registry could take for the gateway's login.
    callers: RegistryClient,
    credentials: Credentials,
}

impl Upstream {
    pub(crate) fn new(
        settings: RegistrySettings,
        hub: Option<&Hub>,
        metrics: &RegistryMetrics,
        tasks: &Tasks,
    ) -> Result<Arc<Self>, UpstreamError> {
        let RegistrySettings {
            endpoint,
            is_behind_hub,
            kind,
            group,
            mode,
            access,
            identity,
            limits,
            background,
        } = settings;
        let source = match hub.filter(|_| is_behind_hub) {
            Some(hub) => {
                let registry = hub.registry(endpoint.name.clone(), limits.bytes_per_second);
                Source::Hub(Box::new(registry))
            }
            None => {
                let client = RegistryClient::new(&endpoint)?;
                let login = Login::new(client.clone(), kind, identity);
                let credentials = Credentials::new(login, tasks.clone());
                Source::Registry(Direct { callers: client.unidentified(), client, credentials })
            }
        };
        let no_key = |error| UpstreamError::TokenKey { registry: endpoint.name.clone(), error };
        let token_key = access.token_key.map(TokenKey::open).transpose().map_err(no_key)?;
        let metrics = metrics.of(&endpoint.name);
        Ok(Arc::new(Self {
            kind,
            group,
            mode,
            hosts: access.hosts,
            token_key,
            background: Background::new(&endpoint.name, background, &limits, is_behind_hub),
            limits: Limits::new(&endpoint.name, limits, metrics.limit_waits()),
            metrics,
            name: endpoint.name,
            source,
            breaker: Mutex::default(),
        }))
    }

    pub(crate) const fn name(&self) -> &RegistryName {
        &self.name
    }

    /// Reads the files of this registry's settings again: of certificates, then of the gateway's identity,
    /// then of the token key. Returns for each whether it is another now, or what is wrong with it. Blocks.
    pub(crate) fn reload(&self) -> [Result<bool, String>; 3] {
        let [certificates, identity] = match &self.source {
            Source::Registry(Direct { client, credentials, .. }) => {
                let identity = credentials.reload().map_err(|it| it.to_string());
                [client.reload().map_err(|it| it.to_string()), identity]
            }
            Source::Hub(_) => [Ok(false), Ok(false)],
        };
        let token_key = self.token_key.as_ref().map_or(Ok(false), TokenKey::reload);
        [certificates, identity, token_key.map_err(|it| it.to_string())]
    }

    /// Fails where the registry has fallen silent: for those who cannot wait for it. A seed can.
    pub(crate) fn listens(&self) -> Result<(), AskError> {
        let admits = match &self.source {
            Source::Registry(_) => self.breaker().admits(Instant::now()),
            // It may wait for a registry, and says by itself when that is silent.
            Source::Hub(hub) => hub.is_there(),
        };
        admits.then_some(()).ok_or_else(|| AskError::Silent { registry: self.name().clone() })
    }

    /// So many bytes of a blob have come.
    pub(crate) fn received(&self, n_bytes: usize) {
        self.metrics.bytes(n_bytes as u64);
        self.breaker().heard(Instant::now());
    }

    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the registry may be sent one more request. Whoever asks waits here first, and decides for
    /// how long.
    pub(crate) async fn turn(&self, asker: Asker) {
        if asker == Asker::Gateway {
            self.limits.pause_over().await;
        }
        self.limits.request().await;
    }

    /// What a caller who has no credential shows for reading `repository`: a token, where the registry gives one to
    /// anybody. A region behind a hub may not reach whoever gives tokens, and shows nothing.
    pub(crate) async fn authorization_of_nobody(
        &self,
        repository: &Repository,
    ) -> Result<Option<HeaderValue>, LoginError> {
        match &self.source {
            Source::Registry(Direct { callers, .. }) => {
                credentials::of_nobody(callers.clone(), self.kind, repository).await
            }
            Source::Hub(_) => Ok(None),
        }
    }

    /// Sends one request of a caller as it is.
    pub(crate) async fn ask(
        &self,
        mut request: Request<()>,
    ) -> Result<Response<RegistryBody>, RegistryError> {
        match &self.source {
            Source::Registry(Direct { callers, .. }) => self.sent(callers, request).await,
            Source::Hub(hub) => {
                let span = self.trace(&mut request);
                self.told(&span, hub.ask(request, Asker::Caller).await)
            }
        }
    }

    /// A caller with this `Authorization` was allowed to read the repository: where it takes one to read by way of the
    /// hub, seeds may show this.
    pub(crate) fn lend(&self, repository: &Repository, authorization: Option<&HeaderValue>) {
        if let (Source::Hub(hub), Mode::Client, Some(authorization)) =
            (&self.source, &self.mode, authorization)
        {
            hub.lend(repository, authorization);
        }
    }

    /// What callers showed for the repository is shown no more.
    pub(crate) fn forget(&self, repository: &Repository) {
        if let Source::Hub(hub) = &self.source {
            hub.forget(repository);
        }
    }

    /// Sends a request, and notes whether the registry is silent.
    async fn sent(
        &self,
        client: &RegistryClient,
        mut request: Request<()>,
    ) -> Result<Response<RegistryBody>, RegistryError> {
        let span = self.trace(&mut request);
        let waiting = Waiting { upstream: self, since: Instant::now(), is_answered: false };
        let answer = client.send(request).await;
        waiting.heard(answer.is_ok());
        self.told(&span, answer)
    }

    /// The span of a request, which tells where that stands; none where the work at hand is in no trace.
    fn trace(&self, request: &mut Request<()>) -> Span {
        let span = traces::from(traces::here(), || {
            info_span!(
                target: TARGET, "ask registry", otel.kind = "client", registry = %self.name,
                method = %request.method(), path = request.uri().path(), status = Empty
            )
        });
        traces::tell(traces::place_of(&span), request.headers_mut());
        span
    }

    /// Counts a request.
    fn told(
        &self,
        span: &Span,
        answer: Result<Response<RegistryBody>, RegistryError>,
    ) -> Result<Response<RegistryBody>, RegistryError> {
        let status = answer.as_ref().ok().map(|it| it.status().as_u16());
        span.record("status", status);
        self.metrics.request(status);
        if let Ok(answer) = &answer {
            self.metrics.quota(answer.headers());
        }
        answer
    }

    /// Sends one request about `repository` with the gateway's own right. The answer is never 401: that is an
    /// error. Its body is that of the answer to HEAD where that was asked, whatever is in it.
    pub(crate) async fn ask_as_gateway(
        &self,
        repository: &Repository,
        mut request: Request<()>,
    ) -> Result<Response<RegistryBody>, AskError> {
        let direct = match &self.source {
            Source::Registry(direct) => direct,
            // What would change something at the registry, the hub asks otherwise.
            Source::Hub(hub) => {
                let span = self.trace(&mut request);
                return Ok(self.told(&span, hub.ask(request, Asker::Gateway).await)?);
            }
        };
        match presence::harmless(self.kind, &request) {
            Some(request) => Ok(presence::of_head(self.ask_logged_in(direct, repository, request).await?)),
            None => self.ask_logged_in(direct, repository, request).await,
        }
    }

    /// The hub gives the blob for this ticket, for so long.
    pub(crate) fn entrust(&self, repository: &Repository, digest: Digest, ticket: &Ticket, lives: Duration) {
        if let Source::Hub(hub) = &self.source {
            hub.entrust(repository, digest, ticket, lives);
        }
    }

    /// Asks for a blob of `repository` for a seed of this urgency. By way of the hub the body comes framed.
    pub(crate) async fn read(
        &self,
        (repository, digest): (&Repository, Digest),
        mut request: Request<()>,
        urgency: &Urgency,
    ) -> Result<Response<RegistryBody>, AskError> {
        let hub = match &self.source {
            Source::Registry(direct) => return self.ask_logged_in(direct, repository, request).await,
            Source::Hub(hub) => hub,
        };
        let span = self.trace(&mut request);
        let answer = hub.read((repository, digest), request, self.mode.asker(), urgency).await;
        let unlent = || AskError::Unlent { registry: self.name.clone(), repository: repository.clone() };
        match answer.transpose() {
            None => Err(unlent()),
            Some(answer) => Ok(self.told(&span, answer)?),
        }
    }

    /// Whether there is a hub in between, which reads for as long as somebody waits for the blob.
    pub(crate) const fn is_behind_hub(&self) -> bool {
        matches!(self.source, Source::Hub(_))
    }

    /// Where the registry no longer takes what was kept, it is asked again with a fresh login.
    async fn ask_logged_in(
        &self,
        direct: &Direct,
        repository: &Repository,
        request: Request<()>,
    ) -> Result<Response<RegistryBody>, AskError> {
        // Ends, since the refusal of what a login has just brought is an error.
        loop {
            let shown = direct.credentials.authorization(repository).await?;
            let answer = self.ask_showing(direct, &shown, request.clone()).await?;
            match answer.status() {
                StatusCode::UNAUTHORIZED => {}
                status if shown.is_kept && self.kind.may_mean_ended(status) => {}
                _ => return Ok(answer),
            }
            direct.credentials.refused(repository, &shown).await?;
            self.turn(Asker::Gateway).await;
        }
    }

    async fn ask_showing(
        &self,
        direct: &Direct,
        shown: &Shown,
        mut request: Request<()>,
    ) -> Result<Response<RegistryBody>, RegistryError> {
        match &shown.authorization {
            Some(value) => request.headers_mut().insert(AUTHORIZATION, value.clone()),
            None => request.headers_mut().remove(AUTHORIZATION),
        };
        let answer = self.sent(&direct.client, request).await?;
        if matches!(answer.status(), StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
            self.limits.pause(wait_of(answer.headers()).unwrap_or_default());
        }
        Ok(answer)
    }
}

/// A request whose answer is waited for. Whoever gives up drops it.
struct Waiting<'a> {
    upstream: &'a Upstream,
    since: Instant,
    is_answered: bool,
}

impl Waiting<'_> {
    fn heard(mut self, is_answered: bool) {
        self.is_answered = is_answered;
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut breaker = self.upstream.breaker();
        if self.is_answered {
            breaker.heard(Instant::now());
        } else if breaker.unanswered(Instant::now(), self.since.elapsed()) {
            tracing::warn!(registry = %self.upstream.name(), "the registry is silent: nodes are told so at once");
        }
    }
}

/// How many bytes long the registry says that its answer is.
pub(crate) fn length_of(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// The registry's `Retry-After`, if it gave one.
pub(crate) fn wait_of(headers: &HeaderMap) -> Option<Duration> {
    retry_after::parse(headers.get(RETRY_AFTER)?.to_str().ok()?, SystemTime::now())
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use axum::{Extension, Router};
    use http_body_util::BodyExt as _;
    use rustls::crypto::ring;
    use rustls::server::WebPkiClientVerifier;
    use rustls::{RootCertStore, ServerConfig};
    use rustls_pki_types::{CertificateDer, PrivateKeyDer};
    use shoal_ops::Context;
    use shoal_ops::serve::{Handshake, Introduction, Limits, Listener};
    use shoal_ops::settings::Reader;

    use super::*;
    use crate::settings::{DEFAULT, Settings};

    /// TLS that asks who connects, and serves those as well who do not say.
    struct Asking(Arc<ServerConfig>);

    impl Handshake for Asking {
        fn tls(&self) -> Option<Arc<ServerConfig>> {
            Some(self.0.clone())
        }

        fn introduce(&self, _: SocketAddr, certificate: Option<&CertificateDer<'_>>) -> Introduction {
            let mut introduction = Introduction::default();
            introduction.extensions.insert(if certificate.is_some() { "known" } else { "unknown" });
            introduction
        }
    }

    /// A registry that answers whether it knows who asks, and one that asks it with a certificate.
    async fn upstream(ctx: &Context) -> Arc<Upstream> {
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let (chain, key) = (made.cert.der().clone(), made.signing_key.serialize_der());
        let mut roots = RootCertStore::empty();
        roots.add(chain.clone()).unwrap();
        let provider = Arc::new(ring::default_provider());
        let clients = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone());
        let tls = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(clients.allow_unauthenticated().build().unwrap())
            .with_single_cert(vec![chain], PrivateKeyDer::Pkcs8(key.into()))
            .unwrap();
        let listener = Listener::bind("registry", ([127, 0, 0, 1], 0).into()).await.unwrap();
        let address = listener.addr();
        let router = Router::new().fallback(async |Extension(who): Extension<&'static str>| who);
        ctx.serve(listener.with(Arc::new(Asking(Arc::new(tls)))), router, Limits::new(10));

        let dir = tempfile::tempdir().unwrap();
        let [certificate, key] = ["c", "k"].map(|it| dir.path().join(it));
        std::fs::write(&certificate, made.cert.pem()).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        let (certificate, key) = (certificate.display(), key.display());
        let entry = format!(
            "registries: [{{name: registry.example, url: 'https://{address}', ca: {certificate}, \
             clientCert: {certificate}, clientKey: {key}}}]"
        );
        let reader = Reader::new(&entry, DEFAULT, |_| None);
        let settings = Settings::read(&reader).registries.remove(0);
        reader.finish().unwrap();
        Upstream::new(settings, None, &RegistryMetrics::register(&ctx.metrics), &ctx.tasks).unwrap()
    }

    #[tokio::test]
    async fn a_caller_is_not_taken_for_the_gateway_by_its_certificate() {
        let ctx = Context::new("gateway", "0");
        let upstream = upstream(&ctx).await;
        let request = || Request::get("/v2/prod/app/manifests/v1").body(()).unwrap();
        let text = async |answer: Response<RegistryBody>| answer.collect().await.unwrap().to_bytes();
        assert_eq!(text(upstream.ask(request()).await.unwrap()).await, "unknown");
        let repository = "prod/app".parse().unwrap();
        let as_gateway = upstream.ask_as_gateway(&repository, request()).await.unwrap();
        assert_eq!(text(as_gateway).await, "known");
        assert_eq!(text(upstream.ask(request()).await.unwrap()).await, "unknown");
    }
}
