//! What a pull request asks for, read from its path and query.
//!
//! A mirror stands for several registries, and clients say which one in one of three ways: by the query
//! parameter `ns` (containerd), as the first component of the name (Podman and CRI-O, whose mirror
//! location carries it), or not at all (Docker, which means Docker Hub). The caller says which names in
//! a path are registries; `ns` alone is taken at its word, for the caller to check against what it
//! serves.
//!
//! Nothing in the path is percent-decoded. No character of a valid name needs encoding, and an encoded
//! name would be a second spelling: checked as one text, fetched as another. The same goes for what is
//! sent upstream: it is built anew from the parsed values, never cut from the request.
//!
//! A path that is no pull endpoint is answered as an unknown name (404), because runtimes go on to the
//! registry itself after a 404. UNSUPPORTED would be 405, which speaks of the method, and 405 is what
//! containerd answers with a second request.

use std::fmt;

use percent_encoding::percent_decode_str;

use crate::error::{ErrorCode, OciError};
use crate::text::quoted;
use crate::{AnyDigest, Reference, RegistryName, Repository};

/// The longest query in bytes; real ones take some dozen.
const MAX_QUERY: usize = 2048;
/// The query parameter that names the registry.
const NS: &str = "ns";

/// A pull request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    registry: Option<RegistryName>,
    kind: Kind,
    query: String,
}

/// What a request is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Whether the protocol is spoken, and whether the caller has to log in.
    Ping,
    /// Something that a repository has.
    Pull {
        /// The repository, by the name that its registry knows it under.
        repository: Repository,
        /// What of it.
        resource: Resource,
    },
}

/// What a repository has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resource {
    /// A manifest.
    Manifest(Reference),
    /// A blob.
    Blob(AnyDigest),
    /// The list of tags.
    Tags,
    /// The list of manifests that refer to this one.
    Referrers(AnyDigest),
}

/// Reads the path and query of a request. `is_registry` says whether a name in the path is that of a
/// registry; it is asked only where the request has no `ns` and the first component looks like a host.
///
/// Errors carry the code to answer with.
///
/// ```
/// use shoal_oci::path::parse;
///
/// let request = parse("/v2/prod/app/tags/list", Some("ns=harbor.example.com&n=5"), |_| false).unwrap();
/// assert_eq!(request.registry().unwrap().as_str(), "harbor.example.com");
/// assert_eq!(request.upstream_path_and_query(), "/v2/prod/app/tags/list?n=5");
/// ```
pub fn parse(
    path: &str,
    query: Option<&str>,
    is_registry: impl Fn(&RegistryName) -> bool,
) -> Result<Request, OciError> {
    let (registry, query) = split_ns(query.unwrap_or_default())?;
    if matches!(path, "/v2" | "/v2/") {
        let kind = Kind::Ping;
        return Ok(Request { registry, kind, query });
    }
    let (name, resource) = split_resource(path)?;
    let (registry, name) = match registry {
        Some(registry) => (Some(registry), name),
        None => split_registry(name, is_registry),
    };
    let repository = name.parse()?;
    let request = Request { registry: None, kind: Kind::Pull { repository, resource }, query };
    match registry {
        Some(registry) => request.at(registry),
        None => Ok(request),
    }
}

impl Request {
    /// The registry that the request names, if it names one.
    pub fn registry(&self) -> Option<&RegistryName> {
        self.registry.as_ref()
    }

    /// What the request is about.
    pub fn kind(&self) -> &Kind {
        &self.kind
    }

    /// The same request where it names a registry; otherwise the request at `default`. Fails where the
    /// repository's full name is too long at that registry.
    pub fn or_at(self, default: &RegistryName) -> Result<Self, OciError> {
        match self.registry {
            Some(_) => Ok(self),
            None => self.at(default.clone()),
        }
    }

    /// What to ask the registry itself for: the canonical path, and every query parameter but `ns`
    /// exactly as it came. A registry that is no mirror must not be sent `ns`.
    pub fn upstream_path_and_query(&self) -> String {
        if self.query.is_empty() { self.kind.to_string() } else { format!("{}?{}", self.kind, self.query) }
    }

    /// What to ask the registry for in somebody's place: the canonical path, and of the query what the protocol
    /// knows of for such a path. Whatever else a registry may take from a query (a credential, for some) must
    /// not be the caller's where the answer counts as an answer to the caller's header.
    pub fn plain_path_and_query(&self) -> String {
        let is_known = |it: &&str| self.kind.parameters().contains(&it.split('=').next().unwrap_or_default());
        let known: Vec<_> = self.query.split('&').filter(is_known).collect();
        if known.is_empty() { self.kind.to_string() } else { format!("{}?{}", self.kind, known.join("&")) }
    }

    fn at(mut self, registry: RegistryName) -> Result<Self, OciError> {
        if let Kind::Pull { repository, resource } = self.kind {
            let repository = repository.within(&registry)?;
            self.kind = Kind::Pull { repository, resource };
        }
        self.registry = Some(registry);
        Ok(self)
    }
}

impl Kind {
    /// The query parameters that the protocol has for such a request.
    fn parameters(&self) -> &'static [&'static str] {
        match self {
            Self::Pull { resource: Resource::Tags, .. } => &["n", "last"],
            // Long lists come in pages, like those of tags.
            Self::Pull { resource: Resource::Referrers(_), .. } => &["n", "last", "artifactType"],
            Self::Pull { resource: Resource::Manifest(_) | Resource::Blob(_), .. } | Self::Ping => &[],
        }
    }
}

impl fmt::Display for Kind {
    /// Writes the canonical path.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ping => f.write_str("/v2/"),
            Self::Pull { repository, resource } => write!(f, "/v2/{repository}/{resource}"),
        }
    }
}

impl fmt::Display for Resource {
    /// Writes the end of the canonical path, after the repository.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Manifest(reference) => write!(f, "manifests/{reference}"),
            Self::Blob(digest) => write!(f, "blobs/{digest}"),
            Self::Tags => f.write_str("tags/list"),
            Self::Referrers(digest) => write!(f, "referrers/{digest}"),
        }
    }
}

/// Takes `ns` out of a query. The rest keeps its spelling.
///
/// Keys are compared decoded, because whoever gets the rest would decode them too. The protocol has no
/// code for a malformed query; NAME_INVALID tells the client at least that the request is at fault.
fn split_ns(query: &str) -> Result<(Option<RegistryName>, String), OciError> {
    let refuse = |fault: String| OciError::new(ErrorCode::NameInvalid, format!("query: {fault}"));
    if query.len() > MAX_QUERY {
        let len = query.len();
        return Err(refuse(format!("is {len} bytes long, at most {MAX_QUERY} are allowed")));
    }
    if !query.bytes().all(|it| it.is_ascii_graphic() && it != b'#') {
        return Err(refuse(format!("{} has characters that must be encoded", quoted(query))));
    }
    let (named, kept): (Vec<_>, Vec<_>) = query.split('&').partition(|it| {
        let key = it.split('=').next().unwrap_or_default();
        percent_decode_str(key).eq(NS.bytes())
    });
    let registry = match named.as_slice() {
        [] => None,
        [one] => {
            let value = one.split_once('=').map_or("", |(_, value)| value);
            Some(percent_decode_str(value).decode_utf8_lossy().parse()?)
        }
        many => return Err(refuse(format!("has {} ns, at most 1 is allowed", many.len()))),
    };
    Ok((registry, kept.join("&")))
}

/// Cuts `/v2/<name>/<kind>/<which>`. The end decides, since a repository may well have a component
/// called `blobs`.
fn split_resource(path: &str) -> Result<(&str, Resource), OciError> {
    let parts = path
        .strip_prefix("/v2/")
        .and_then(|rest| rest.rsplit_once('/'))
        .and_then(|(rest, which)| Some((rest.rsplit_once('/')?, which)));
    let Some(((name, kind), which)) = parts else {
        return Err(not_an_endpoint(path));
    };
    let resource = match (kind, which) {
        ("manifests", reference) => Resource::Manifest(reference.parse()?),
        ("blobs", digest) => Resource::Blob(digest.parse()?),
        ("tags", "list") => Resource::Tags,
        ("referrers", digest) => Resource::Referrers(digest.parse()?),
        _ => return Err(not_an_endpoint(path)),
    };
    Ok((name, resource))
}

/// Cuts the registry off a name. As in an image name, only a component with a dot or a port, or
/// `localhost`, can be one: a registry called `library` must not hide a repository.
fn split_registry(name: &str, is_registry: impl Fn(&RegistryName) -> bool) -> (Option<RegistryName>, &str) {
    let whole = (None, name);
    let Some((first, rest)) = name.split_once('/') else {
        return whole;
    };
    if !first.contains(['.', ':']) && first != "localhost" {
        return whole;
    }
    match first.parse() {
        Ok(registry) if is_registry(&registry) => (Some(registry), rest),
        _ => whole,
    }
}

fn not_an_endpoint(path: &str) -> OciError {
    OciError::new(ErrorCode::NameUnknown, format!("path {}: not a pull endpoint", quoted(path)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CONFIGURED: [&str; 4] = ["harbor.example.com", "localhost:5000", "[fd00::1]:5000", "docker.io"];

    fn read(path_and_query: &str) -> Result<Request, OciError> {
        let (path, query) = match path_and_query.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (path_and_query, None),
        };
        parse(path, query, |it| CONFIGURED.contains(&it.as_str()))
    }

    /// `expected` is the registry ("-" where none is named) and what it is to be asked for, with `D` for
    /// a digest in both texts.
    #[track_caller]
    fn check(path_and_query: &str, expected: (&str, &str)) {
        let digest = format!("sha256:{}", "0a".repeat(32));
        let request = read(&path_and_query.replace('D', &digest)).unwrap();
        let registry = request.registry().map_or("-", RegistryName::as_str);
        assert_eq!(
            (registry, request.upstream_path_and_query().as_str()),
            (expected.0, expected.1.replace('D', &digest).as_str()),
            "{path_and_query}"
        );
    }

    #[track_caller]
    fn check_refused(path_and_query: &str, expected: ErrorCode) {
        let code = read(path_and_query).map_err(|it| it.code);
        assert_eq!(code, Err(expected), "{path_and_query}");
    }

    #[test]
    fn every_pull_endpoint_is_read() {
        for path in [
            "/v2/",
            "/v2/app/manifests/latest",
            "/v2/prod/team/app/manifests/D",
            "/v2/prod/app/blobs/D",
            "/v2/prod/app/blobs/blake3:Zm9v",
            "/v2/prod/app/tags/list",
            "/v2/prod/app/referrers/D",
        ] {
            check(path, ("-", path));
        }
        check("/v2", ("-", "/v2/"));
    }

    #[test]
    fn the_end_of_the_path_decides_what_is_asked_for() {
        let kind = |path: &str| read(path).unwrap().kind().clone();
        let pull =
            |repository: &str, resource| Kind::Pull { repository: repository.parse().unwrap(), resource };
        let latest = Resource::Manifest("latest".parse().unwrap());
        assert_eq!(kind("/v2/blobs/tags/manifests/latest"), pull("blobs/tags", latest));
        let list = Resource::Manifest("list".parse().unwrap());
        assert_eq!(kind("/v2/tags/manifests/list"), pull("tags", list));
        assert_eq!(kind("/v2/manifests/tags/list"), pull("manifests", Resource::Tags));
    }

    #[test]
    fn ns_names_the_registry_and_is_never_passed_on() {
        check("/v2/?ns=ghcr.io", ("ghcr.io", "/v2/"));
        check("/v2/app/manifests/v1?ns=Host%3A5000", ("host:5000", "/v2/app/manifests/v1"));
        check("/v2/app/blobs/D?%6Es=ghcr.io", ("ghcr.io", "/v2/app/blobs/D"));
        check(
            "/v2/app/tags/list?n=5&ns=ghcr.io&last=%61+b&&x",
            ("ghcr.io", "/v2/app/tags/list?n=5&last=%61+b&&x"),
        );
        check("/v2/app/tags/list?nsx=1&n", ("-", "/v2/app/tags/list?nsx=1&n"));
    }

    #[test]
    fn a_configured_registry_in_the_path_is_cut_off() {
        check("/v2/Harbor.example.com/prod/app/blobs/D", ("harbor.example.com", "/v2/prod/app/blobs/D"));
        check("/v2/localhost:5000/app/tags/list", ("localhost:5000", "/v2/app/tags/list"));
        check("/v2/[fd00:0::1]:5000/app/tags/list", ("[fd00::1]:5000", "/v2/app/tags/list"));
        check("/v2/other.example.com/app/tags/list", ("-", "/v2/other.example.com/app/tags/list"));
        check("/v2/harbor.example.com/tags/list", ("-", "/v2/harbor.example.com/tags/list"));
        check(
            "/v2/harbor.example.com/app/tags/list?ns=ghcr.io",
            ("ghcr.io", "/v2/harbor.example.com/app/tags/list"),
        );
        check_refused("/v2/other:5000/app/tags/list", ErrorCode::NameInvalid);
    }

    #[test]
    fn a_word_without_dot_or_port_is_never_taken_for_a_registry() {
        let request = parse("/v2/library/app/tags/list", None, |_| true).unwrap();
        assert_eq!(request.registry(), None);
        let request = parse("/v2/localhost/app/tags/list", None, |_| true).unwrap();
        assert_eq!(request.registry().map(RegistryName::as_str), Some("localhost"));
    }

    #[test]
    fn official_images_of_docker_hub_have_one_name() {
        let official = ("docker.io", "/v2/library/alpine/tags/list");
        check("/v2/alpine/tags/list?ns=docker.io", official);
        check("/v2/library/alpine/tags/list?ns=registry-1.docker.io", official);
        check("/v2/index.docker.io/alpine/tags/list", official);

        let unnamed = read("/v2/alpine/tags/list").unwrap();
        let named = unnamed.or_at(&RegistryName::docker_hub()).unwrap();
        assert_eq!(named, read("/v2/alpine/tags/list?ns=docker.io").unwrap());
    }

    #[test]
    fn a_named_registry_is_not_replaced_by_the_default() {
        let named = read("/v2/alpine/tags/list?ns=ghcr.io").unwrap();
        assert_eq!(named.clone().or_at(&RegistryName::docker_hub()), Ok(named));
    }

    #[test]
    fn what_is_no_pull_endpoint_is_unknown() {
        for path in [
            "",
            "/",
            "v2/",
            "/v1/app/tags/list",
            "/v2x",
            "/v2//",
            "/v2/_catalog",
            "/v2/tags/list",
            "/v2/app/tags/list/",
            "/v2/app/tags/other",
            "/v2/app/blobs/uploads/",
            "/v2/app/Manifests/latest",
        ] {
            check_refused(path, ErrorCode::NameUnknown);
        }
    }

    #[test]
    fn malformed_names_references_and_digests_are_refused_with_their_own_code() {
        for path in [
            "/v2//tags/list",
            "/v2//app/tags/list",
            "/v2/a//b/tags/list",
            "/v2/../tags/list",
            "/v2/a/../b/tags/list",
            "/v2/a%2fb/tags/list",
            "/v2/%2e%2e/tags/list",
            "/v2/App/tags/list",
            "/v2/app\0/tags/list",
        ] {
            check_refused(path, ErrorCode::NameInvalid);
        }
        for path in [
            "/v2/app/blobs/",
            "/v2/app/blobs/latest",
            "/v2/app/blobs/sha256:ab",
            "/v2/app/referrers/sha256%3Aab",
            "/v2/app/manifests/sha256:ab",
        ] {
            check_refused(path, ErrorCode::DigestInvalid);
        }
        check_refused("/v2/app/manifests/.INVALID_MANIFEST_NAME", ErrorCode::ManifestUnknown);
        check_refused("/v2/app/manifests/", ErrorCode::ManifestUnknown);
    }

    #[test]
    fn a_malformed_query_is_refused() {
        for query in [
            "ns",
            "ns=",
            "ns=a&ns=a",
            "ns=a&%6e%73=b",
            "ns=user%40host",
            "ns=a%2Fb",
            "ns=%ff",
            "a b",
            "a#b",
            "a\r\nb",
            "ä",
            &"a".repeat(MAX_QUERY + 1),
        ] {
            check_refused(&format!("/v2/app/tags/list?{query}"), ErrorCode::NameInvalid);
        }
    }

    #[test]
    fn a_plain_request_has_only_the_parameters_of_the_protocol() {
        #[track_caller]
        fn check(path_and_query: &str, expected: &str) {
            let digest = format!("sha256:{}", "0a".repeat(32));
            let [asked, expected] = [path_and_query, expected].map(|it| it.replace('D', &digest));
            assert_eq!(read(&asked).unwrap().plain_path_and_query(), expected, "{path_and_query}");
        }
        check("/v2/a/tags/list?ns=docker.io&n=5&last=v1&account=ann", "/v2/library/a/tags/list?n=5&last=v1");
        check("/v2/a/referrers/D?artifactType=a%2Fb&token=x", "/v2/a/referrers/D?artifactType=a%2Fb");
        check("/v2/a/tags/list?N=5&%6e=5&artifactType=a&n", "/v2/a/tags/list?n");
        for what in ["/v2/a/manifests/v1", "/v2/a/blobs/D", "/v2/"] {
            check(&format!("{what}?n=5&artifactType=a&access_token=x"), what);
        }
    }

    proptest! {
        #[test]
        fn what_goes_upstream_reads_back_as_the_same_request(
            start in r"/v2(/(a|b\.c|A|localhost:1|docker\.io|\.\.|%2e|blobs|tags|.?)){0,4}",
            end in r"/((manifests|blobs|referrers|tags)/)?(list|v1|blake3:ab|sha256:ab|%2e|.?)",
            query in "((ns|n|%6es|&|=|a:1|%3A)?){0,6}",
        ) {
            if let Ok(request) = parse(&(start + &end), Some(&query), |_| true) {
                let upstream = request.upstream_path_and_query();
                let (path, query) = upstream.split_once('?').unwrap_or((&upstream, ""));
                prop_assert!(!path.contains(['%', '#']) && !path.contains("..") && !path.contains("//"));
                let again = parse(path, Some(query), |_| false).unwrap();
                prop_assert_eq!(again.registry(), None);
                prop_assert_eq!(again.kind(), request.kind());
                prop_assert_eq!(again.upstream_path_and_query(), upstream);
            }
        }

        #[test]
        fn any_text_is_a_request_or_refused(path: String, query: String) {
            if let Ok(request) = parse(&path, Some(&query), |_| true) {
                prop_assert_eq!(request.kind(), &Kind::Ping);
            }
        }
    }
}
