//! A token service, as registries with `auth: token` send their clients to.
//!
//! It gives what `GET` with a user's name and password, or without, may have, and no more: a request for a
//! repository that the user may not read gets a token that opens nothing, as Docker's and Harbor's services
//! do. The `POST` of OAuth is not spoken, as by Harbor. Whatever was given is kept for the test to look for.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rcgen::{CertificateParams, KeyPair};
use rustls::ServerConfig;
use serde_json::{Value, json};
use socket2::Socket;
use url::form_urlencoded;

use crate::host::Host;
use crate::push::{Credentials, user_of};
use crate::rights::Rights;
use crate::server::{Answer, Body, Server, full};

/// Who signs.
pub(crate) const ISSUER: &str = "lab";
/// How long a token lives; registries are lenient about a minute more.
const LIFE: Duration = Duration::from_secs(300);

/// A running token service.
#[derive(Debug)]
pub struct TokenService {
    shared: Arc<Shared>,
    certificate: PathBuf,
    _server: Server,
}

struct Shared {
    key: EncodingKey,
    header: Header,
    /// The registry that the tokens are for.
    audience: String,
    users: Vec<Credentials>,
    rights: Rights,
    turns_strangers_away: AtomicBool,
    given: Mutex<Vec<String>>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("audience", &self.audience).finish_non_exhaustive()
    }
}

impl TokenService {
    /// Starts a service for the registry `audience`, at a port of a host.
    pub(crate) fn start(
        (host, port): (&Host, u16),
        tls: Option<Arc<ServerConfig>>,
        audience: &str,
        users: Vec<Credentials>,
        rights: Rights,
    ) -> Result<Self> {
        let key = KeyPair::generate()?;
        let signer = CertificateParams::default().self_signed(&key)?;
        let certificate = host.dir().join("tokens.crt");
        std::fs::write(&certificate, signer.pem())?;
        let mut header = Header::new(Algorithm::ES256);
        header.x5c = Some(vec![STANDARD.encode(signer.der())]);
        let shared = Arc::new(Shared {
            key: EncodingKey::from_ec_der(&key.serialize_der()),
            header,
            audience: audience.into(),
            users,
            rights,
            turns_strangers_away: AtomicBool::new(false),
            given: Mutex::default(),
        });
        let server = Server::start(host, port, tls, Arc::clone(&shared))?;
        Ok(Self { shared, certificate, _server: server })
    }

    /// The PEM file of the certificate that its tokens are checked against.
    pub fn certificate(&self) -> &Path {
        &self.certificate
    }

    /// What a gateway's entry of the registry says under `credentials`, for it to check the tokens by itself.
    pub fn key_settings(&self) -> Value {
        json!({
            "tokenKey": self.certificate,
            "tokenIssuer": ISSUER,
            "tokenAudience": self.shared.audience,
        })
    }

    /// A token for one repository with what a user, or somebody unknown, may do there.
    pub fn token(&self, user: Option<&str>, repository: &str) -> Result<String> {
        self.shared.token(user, &[repository.to_owned()])
    }

    /// From now on whoever shows no password gets 401 and no token, as from GHCR for what is private.
    pub fn turn_strangers_away(&self) {
        self.shared.turns_strangers_away.store(true, Ordering::Relaxed);
    }

    /// Every token that was given so far.
    pub fn given(&self) -> Vec<String> {
        self.shared.given().clone()
    }
}

impl Answer for Shared {
    async fn answer(self: Arc<Self>, request: Request<Incoming>, _: Arc<Socket>) -> Response<Body> {
        let (status, answer) = match self.decide(&request) {
            Ok(answer) => (StatusCode::OK, answer.to_string()),
            Err(status) => (status, String::new()),
        };
        let mut response = Response::new(full(answer));
        *response.status_mut() = status;
        response
    }
}

impl Shared {
    fn decide(&self, request: &Request<Incoming>) -> Result<Value, StatusCode> {
        if request.method() != Method::GET {
            return Err(StatusCode::METHOD_NOT_ALLOWED);
        }
        let user = user_of(request.headers());
        let turns_away = self.turns_strangers_away.load(Ordering::Relaxed);
        if user.as_ref().map_or(turns_away, |it| !self.users.contains(it)) {
            return Err(StatusCode::UNAUTHORIZED);
        }
        let query = form_urlencoded::parse(request.uri().query().unwrap_or_default().as_bytes());
        let scopes = query.filter(|(key, _)| key == "scope").map(|(_, scope)| scope.into_owned());
        let repositories: Vec<_> = scopes.filter_map(|it| Some(repository_of(&it)?.to_owned())).collect();
        let token = self.token(user.as_ref().map(|it| it.user.as_str()), &repositories);
        let token = token.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
        Ok(json!({ "token": token, "access_token": "", "expires_in": LIFE.as_secs() }))
    }

    fn token(&self, user: Option<&str>, repositories: &[String]) -> Result<String> {
        let actions: &[&str] = if self.rights.is_owner(user) { &["pull", "push"] } else { &["pull"] };
        let allowed = repositories.iter().filter(|it| self.rights.allow(user, it));
        let access = allowed.map(|it| json!({ "type": "repository", "name": it, "actions": actions }));
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
        let mut given = self.given();
        let claims = json!({
            "iss": ISSUER,
            "aud": self.audience,
            "sub": user.unwrap_or_default(),
            "iat": now.as_secs(),
            "nbf": now.as_secs(),
            "exp": (now + LIFE).as_secs(),
            "jti": given.len().to_string(),
            "access": access.collect::<Vec<_>>(),
        });
        let token = jsonwebtoken::encode(&self.header, &claims, &self.key)?;
        given.push(token.clone());
        Ok(token)
    }

    fn given(&self) -> MutexGuard<'_, Vec<String>> {
        self.given.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The repository that a scope such as `repository:team/app:pull` is about.
fn repository_of(scope: &str) -> Option<&str> {
    let (repository, _actions) = scope.strip_prefix("repository:")?.rsplit_once(':')?;
    Some(repository)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_name_repositories() {
        assert_eq!(repository_of("repository:team/app:pull,push"), Some("team/app"));
        assert_eq!(repository_of("registry:catalog:*"), None);
        assert_eq!(repository_of(""), None);
    }
}
