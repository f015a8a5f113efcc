//! What becomes of a request: into the swarm, straight through, or refused.

use http::{Method, Request};
use regex::RegexSet;
use shoal_model::Digest;
use shoal_oci::path::{Kind, Resource};
use shoal_oci::{ErrorCode, OciError, RegistryName, Repository, path};

use crate::registries::Registries;
use crate::settings::ProxySettings;

/// Where a request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// Answered here: the mirror is alive.
    Healthy,
    /// Answered with an error.
    Refuse(OciError),
    /// A question whether the protocol is spoken, to no registry in particular; this one is the default.
    Ping(Option<Target>),
    /// To the registry, through the gateway where one answers.
    Pass(Target),
    /// Into the swarm.
    Blob(WantedBlob),
}

/// What to ask a registry for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub registry: RegistryName,
    /// Without `ns`.
    pub path_and_query: String,
}

/// A blob that a runtime asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WantedBlob {
    pub(crate) registry: RegistryName,
    pub(crate) repository: Repository,
    pub(crate) digest: Digest,
}

/// Decides by what is configured.
pub(super) struct Router {
    registries: Registries,
    swarmed: RegexSet,
}

impl Router {
    pub(super) fn new(settings: &ProxySettings, registries: Registries) -> Self {
        Self { registries, swarmed: settings.swarmed.clone() }
    }

    pub(super) fn route(&self, request: &Request<()>) -> Route {
        if request.uri().path() == "/healthy" {
            return Route::Healthy;
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let message =
                format!("{}: this mirror only serves pulls; push to the registry itself", request.method());
            return Route::Refuse(OciError { code: ErrorCode::Unsupported, message });
        }
        self.pull(request).unwrap_or_else(Route::Refuse)
    }

    fn pull(&self, request: &Request<()>) -> Result<Route, OciError> {
        let (path, query) = (request.uri().path(), request.uri().query());
        let parsed = path::parse(path, query, |it| self.registries.dynamic() && self.registries.knows(it))?;
        if *parsed.kind() == Kind::Ping && self.named(&parsed).is_none() {
            let target = |it: &RegistryName| Target {
                registry: it.clone(),
                path_and_query: parsed.upstream_path_and_query(),
            };
            return Ok(Route::Ping(self.registries.default().map(target)));
        }
        let registry = self.registry(&parsed)?;
        let parsed = parsed.or_at(&registry)?;
        if let Kind::Pull { repository, resource: Resource::Blob(digest) } = parsed.kind()
            && let Some(digest) = digest.sha256()
            && self.swarmed.is_match(path)
        {
            return Ok(Route::Blob(WantedBlob { registry, repository: repository.clone(), digest }));
        }
        Ok(Route::Pass(Target { registry, path_and_query: parsed.upstream_path_and_query() }))
    }

    fn named<'a>(&self, request: &'a path::Request) -> Option<&'a RegistryName> {
        request.registry().filter(|_| self.registries.dynamic())
    }

    fn registry(&self, request: &path::Request) -> Result<RegistryName, OciError> {
        let Some(registry) = self.named(request).or(self.registries.default()) else {
            let message = "the request names no registry and proxy.registryMirror.url is empty".into();
            return Err(OciError { code: ErrorCode::NameUnknown, message });
        };
        if self.registries.knows(registry) {
            return Ok(registry.clone());
        }
        let known = self.registries.names();
        let message =
            format!("registry {registry} is not in proxy.registries of this node's sidecar ({known})");
        Err(OciError { code: ErrorCode::NameUnknown, message })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{DEFAULT, Settings};
    use shoal_ops::settings::Reader;

    const HEX: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn router(user: &'static str) -> Router {
        let user = format!("security: {{mtls: false}}\ngateways: []\n{user}");
        let reader = Reader::new(&user, DEFAULT, |_| None);
        let settings = Settings::read(&reader);
        assert_eq!(reader.finish(), Ok(()));
        Router::new(&settings.proxy, Registries::new(&settings.proxy))
    }

    #[track_caller]
    fn check(router: &Router, method: &str, uri: &str, expected: &str) {
        let uri = uri.replace("HEX", HEX);
        let request = Request::builder().method(method).uri(&uri).body(()).unwrap();
        let route = match router.route(&request) {
            Route::Healthy => "healthy".into(),
            Route::Refuse(error) => format!("{} {}", error.code.status(), error.code.as_str()),
            Route::Ping(it) => format!("ping {}", it.map_or_else(String::new, |it| it.registry.to_string())),
            Route::Pass(it) => format!("pass {} {}", it.registry, it.path_and_query),
            Route::Blob(it) => format!("blob {} {} {}", it.registry, it.repository, it.digest),
        };
        assert_eq!(route.replace(HEX, "HEX"), expected, "{method} {uri}");
    }

    #[test]
    fn only_blobs_go_into_the_swarm() {
        let it = router("proxy: {registries: [{name: 'harbor.example:5000'}]}");
        check(&it, "GET", "/healthy", "healthy");
        check(
            &it,
            "GET",
            "/v2/a/b/blobs/sha256:HEX?ns=harbor.example%3A5000",
            "blob harbor.example:5000 a/b sha256:HEX",
        );
        check(
            &it,
            "HEAD",
            "/v2/harbor.example:5000/a/b/blobs/sha256:HEX",
            "blob harbor.example:5000 a/b sha256:HEX",
        );
        check(&it, "GET", "/v2/alpine/blobs/sha256:HEX", "blob docker.io library/alpine sha256:HEX");
        check(
            &it,
            "GET",
            "/v2/a/b/manifests/v1?ns=harbor.example:5000",
            "pass harbor.example:5000 /v2/a/b/manifests/v1",
        );
        check(&it, "GET", "/v2/", "ping docker.io");
        check(&it, "GET", "/v2/?ns=harbor.example:5000", "pass harbor.example:5000 /v2/");
        check(
            &it,
            "GET",
            "/v2/a/b/blobs/sha512:HEXHEX?ns=harbor.example:5000",
            "pass harbor.example:5000 /v2/a/b/blobs/sha512:HEXHEX",
        );
        check(
            &it,
            "GET",
            "/v2/a/tags/list?n=3&ns=harbor.example:5000",
            "pass harbor.example:5000 /v2/a/tags/list?n=3",
        );
    }

    #[test]
    fn what_is_not_configured_or_not_a_pull_is_refused() {
        let it = router("proxy: {registryMirror: {url: ''}, registries: [{name: '*.corp'}]}");
        check(&it, "GET", "/v2/a/manifests/v1?ns=evil.example", "404 NAME_UNKNOWN");
        check(&it, "GET", "/v2/a/manifests/v1?ns=169.254.169.254", "404 NAME_UNKNOWN");
        check(&it, "GET", "/v2/a/manifests/v1", "404 NAME_UNKNOWN");
        check(&it, "GET", "/v2/", "ping ");
        check(&it, "GET", "/v2/a/manifests/v1?ns=hub.corp", "pass hub.corp /v2/a/manifests/v1");
        for method in ["POST", "PUT", "PATCH", "DELETE"] {
            check(&it, method, "/v2/a/blobs/uploads/?ns=hub.corp", "405 UNSUPPORTED");
        }
        check(&it, "GET", "/v2/a/blobs/sha256:short?ns=hub.corp", "400 DIGEST_INVALID");
        check(&it, "GET", "/v2/a/../b/manifests/v1?ns=hub.corp", "400 NAME_INVALID");
        check(&it, "GET", "/v2/a/%2e%2e/manifests/v1?ns=hub.corp", "400 NAME_INVALID");
    }

    #[test]
    fn without_dynamic_every_request_goes_to_the_one_registry() {
        let it = router("proxy: {registryMirror: {dynamic: false, url: 'http://hub.corp:5000'}}");
        check(&it, "GET", "/v2/a/manifests/v1?ns=other.example", "pass hub.corp:5000 /v2/a/manifests/v1");
    }

    #[test]
    fn rules_say_what_is_swarmed() {
        let it = router(
            "proxy: {registryMirror: {url: 'https://hub.corp'}, proxies: [{regx: '^/v2/big/.*blobs/'}]}",
        );
        check(&it, "GET", "/v2/big/a/blobs/sha256:HEX", "blob hub.corp big/a sha256:HEX");
        check(&it, "GET", "/v2/small/a/blobs/sha256:HEX", "pass hub.corp /v2/small/a/blobs/sha256:HEX");
    }
}
