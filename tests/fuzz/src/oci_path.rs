//! Paths and queries of requests, and the names in them: whatever is taken has one spelling, is safe to be sent
//! on, and reads back as what it was; whatever is refused is answered with a status and a bounded text.

use std::fmt::{Debug, Display};
use std::str::FromStr;

use arbitrary::{Result, Unstructured};
use http::Uri;
use serde_json::Value;
use shoal_oci::path::{Request, parse};
use shoal_oci::{AnyDigest, OciError, Reference, RegistryName, Repository, Tag};
use shoal_registry::Endpoint;

use crate::input::{parts, text, word};

const COMPONENTS: [&str; 16] = [
    "a",
    "library",
    "team-x",
    "a__b",
    "docker.io",
    "localhost",
    "localhost:5000",
    "[::1]:80",
    "[FD00::1]",
    "Harbor.example.com:443",
    "..",
    "%2e",
    "blobs",
    "manifests",
    "",
    "v2",
];
const KINDS: [&str; 6] = ["manifests", "blobs", "tags", "referrers", "uploads", ""];
const WHICH: [&str; 7] = [
    "latest",
    "sha256:0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a",
    "blake3:Zm9v",
    "list",
    "sha256:..",
    ".hidden",
    "",
];
const PARAMETERS: [&str; 9] = ["ns", "n", "last", "artifactType", "%6es", "%6Es", "token", "", "n%73"];
const VALUES: [&str; 7] = ["docker.io", "ghcr.io", "a:1", "a%3A1", "5", "%ff", ""];

/// Takes `path?query`.
pub fn check(data: &[u8]) {
    let Some(text) = text(data, build) else { return };
    names(&text);
    let (path, query) = match text.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (&*text, None),
    };
    for is_registry in [|_: &RegistryName| false, |_: &RegistryName| true] {
        match parse(path, query, is_registry) {
            Ok(request) => taken(&text, &request),
            Err(error) => refused(&error),
        }
    }
}

fn build(u: &mut Unstructured<'_>) -> Result<String> {
    let mut text = String::from(word(u, &["/v2", "/v2/"])?);
    parts(u, 4, |u| {
        text += "/";
        text += word(u, &COMPONENTS)?;
        Ok(())
    })?;
    text += &format!("/{}/{}", word(u, &KINDS)?, word(u, &WHICH)?);
    let mut sign = '?';
    parts(u, 4, |u| {
        text += &format!("{sign}{}={}", word(u, &PARAMETERS)?, word(u, &VALUES)?);
        sign = '&';
        Ok(())
    })?;
    Ok(text)
}

fn taken(asked: &str, request: &Request) {
    let upstream = request.upstream_path_and_query();
    let (path, query) = upstream.split_once('?').unwrap_or((&upstream, ""));
    assert!(path.starts_with("/v2/") && path.is_ascii(), "{path}");
    assert!(!path.contains(['%', '#', '\\', ' ']) && !path.contains("//"), "{path}");
    assert!(!path.split('/').any(|it| it == "." || it == ".."), "{path}");

    let again = read(path, query);
    assert_eq!((again.registry(), again.kind()), (None, request.kind()));
    assert_eq!(again.upstream_path_and_query(), upstream, "ns goes to nobody");

    let plain = request.plain_path_and_query();
    let (plain_path, known) = plain.split_once('?').unwrap_or((&plain, ""));
    assert_eq!(plain_path, path);
    let is_protocol = |it: &str| ["n", "last", "artifactType"].contains(&it.split('=').next().unwrap_or(it));
    assert!(known.is_empty() || known.split('&').all(is_protocol), "{known}");
    assert_eq!(read(plain_path, known).plain_path_and_query(), plain);

    // Whatever comes in as a URI goes out as one.
    if asked.parse::<Uri>().is_ok() {
        let sent = upstream.parse::<Uri>();
        assert_eq!(sent.map(|it| it.to_string()).ok().as_ref(), Some(&upstream));
    }
    if let Ok(named) = request.clone().or_at(&RegistryName::docker_hub()) {
        assert!(named.registry().is_some());
        assert_eq!(named.clone().or_at(&RegistryName::docker_hub()).as_ref(), Ok(&named));
    }
}

#[track_caller]
fn read(path: &str, query: &str) -> Request {
    parse(path, Some(query), |_| false).unwrap_or_else(|error| panic!("{path:?} {query:?}: {error}"))
}

pub(crate) fn refused(error: &OciError) {
    assert!((400..=503).contains(&error.code.status()));
    assert!(error.message.len() < 4096, "{} bytes: {}", error.message.len(), error.message);
    assert!(!error.message.contains(char::is_control), "{:?}", error.message);
    let body = serde_json::from_slice::<Value>(&error.body());
    let code = body.as_ref().ok().and_then(|it| it["errors"][0]["code"].as_str());
    assert_eq!(code, Some(error.code.as_str()));
}

/// The whole text as each of the names that stand in paths.
fn names(text: &str) {
    name::<Repository>(text, true);
    name::<Tag>(text, true);
    name::<AnyDigest>(text, true);
    name::<Reference>(text, true);
    if let Some(registry) = name::<RegistryName>(text, false) {
        let endpoint = Endpoint::of(registry).map(|it| it.url.to_string());
        assert!(endpoint.is_ok(), "{endpoint:?}");
    }
}

/// A text is refused or has one spelling, which is its own where names are kept as they are.
#[track_caller]
fn name<T>(text: &str, is_kept: bool) -> Option<T>
where
    T: FromStr<Err = OciError> + Display + Debug + PartialEq,
{
    match text.parse::<T>() {
        Ok(name) => {
            let shown = name.to_string();
            assert!(!is_kept || shown == text, "{text:?} became {shown:?}");
            assert!(
                !shown.contains(|it: char| it.is_control() || it.is_whitespace() || "%?#@\\".contains(it)),
                "{shown:?}"
            );
            assert_eq!(shown.parse().as_ref(), Ok(&name));
            Some(name)
        }
        Err(error) => {
            refused(&error);
            None
        }
    }
}
