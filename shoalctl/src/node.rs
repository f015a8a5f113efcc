//! One node: the admin listener of its sidecar, and its mirror.

use std::time::Duration;

use http::header::{ACCEPT, DATE, USER_AGENT, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use serde_json::Value;
use shoal_ask::{Answer, Http, HttpError};
use shoal_oci::Reference;
use shoal_oci::manifest::{IMAGE_TYPES, INDEX_TYPES};
use url::Url;

use crate::fault::{Exit, Fault};
use crate::image::Place;

/// How long the node may take for an answer.
const DEADLINE: Duration = Duration::from_secs(5);
/// How long the mirror may take: it waits for the gateway, and then for a registry.
pub const MIRROR_DEADLINE: Duration = Duration::from_secs(30);
/// By which a mirror says for which registry it passed an answer on.
const NAMESPACE: HeaderName = HeaderName::from_static("oci-namespace");

/// What came of asking: an answer, or why there is none.
pub type Reply = Result<Answer, String>;

/// One listener of the node.
pub struct Node(Http);

impl Node {
    /// A listener at this address.
    ///
    /// # Errors
    /// Never where no file of certificates is named.
    pub fn new(base: Url) -> Result<Self, Fault> {
        let http = Http::new(base, None, None);
        let http = http.map_err(|it| Fault::usage(it.to_string(), "name a file of certificates"))?;
        Ok(Self(
            http.with(USER_AGENT, HeaderValue::from_static(concat!("shoalctl/", env!("CARGO_PKG_VERSION")))),
        ))
    }

    /// The mirror at this address.
    ///
    /// # Errors
    /// See [`Self::new`].
    pub fn mirror(address: std::net::SocketAddr) -> Result<Self, Fault> {
        let url = Url::parse(&format!("http://{address}"));
        Self::new(url.map_err(|it| Fault::usage(it.to_string(), "mend proxy.listen"))?)
    }

    /// Its address.
    pub fn address(&self) -> &Url {
        self.0.base()
    }

    /// The connection's client, for what is streamed.
    pub const fn http(&self) -> &Http {
        &self.0
    }

    /// Whatever it answers.
    pub async fn reply(&self, path: &str) -> Reply {
        self.0.ask(Method::GET, path, None, DEADLINE).await.map_err(|it| it.to_string())
    }

    /// A document of the admin listener.
    ///
    /// # Errors
    /// Where there is none to be had.
    pub async fn document(&self, path: &str) -> Result<Value, Fault> {
        let answer = self.0.ask(Method::GET, path, None, DEADLINE).await.map_err(|it| unreached(&it))?;
        let says = format!("sidecar says {} to {path}", answer.status.as_u16());
        match answer.status {
            StatusCode::OK => Ok(answer.json()),
            StatusCode::FORBIDDEN => Err(Fault::new(
                Exit::Refused,
                says,
                "it shows this on its own machine only: run this there, with --node http://127.0.0.1:<port>",
            )),
            StatusCode::NOT_FOUND => Err(Fault::new(
                Exit::NotFound,
                says,
                "is --node a sidecar's admin.listen, and the sidecar no older than this command?",
            )),
            _ => Err(Fault::new(Exit::Unreachable, says, "the sidecar's log says more")),
        }
    }

    /// A manifest, by way of the mirror.
    ///
    /// # Errors
    /// Where the mirror is not reached.
    pub async fn manifest(&self, place: &Place, reference: &Reference) -> Result<Answer, Fault> {
        let path = manifest_path(place, reference);
        let answer = self.0.open(&path, manifest_headers(), MIRROR_DEADLINE).await;
        let (head, body) = answer.map_err(|it| unreached(&it))?.into_parts();
        let body = crate::get::whole(body, MIRROR_DEADLINE).await?;
        Ok(Answer { status: head.status, headers: head.headers, body })
    }
}

/// A sidecar that did not answer.
pub fn unreached(error: &HttpError) -> Fault {
    let fix = "is shoal-sidecar running on this machine (`systemctl status shoal-sidecar`), and does it listen there? \
               `shoalctl doctor` looks";
    Fault::new(Exit::Unreachable, format!("sidecar {error}"), fix)
}

/// Where the mirror has an image's manifest.
pub fn manifest_path(place: &Place, reference: &Reference) -> String {
    let reference = match reference {
        Reference::Tag(tag) => tag.as_str(),
        Reference::Digest(digest) => digest.as_str(),
    };
    format!("/v2/{}/manifests/{reference}?ns={}", place.repository, place.registry)
}

fn manifest_headers() -> HeaderMap {
    let types: Vec<_> = IMAGE_TYPES.into_iter().chain(INDEX_TYPES).collect();
    let types = HeaderValue::from_str(&types.join(", ")).ok();
    types.map(|it| (ACCEPT, it)).into_iter().collect()
}

/// Why the mirror did not give what was asked for.
pub fn refused(place: &Place, answer: &Answer) -> Fault {
    let Place { registry, repository } = place;
    let says =
        format!("{registry}/{repository}: the mirror says {}: {}", answer.status.as_u16(), answer.message());
    match answer.status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Fault::new(
            Exit::Refused,
            says,
            format!(
                "registry {registry} wants a login, and this command shows none: it works where the gateway's account \
                 reads the repository (credentials.mode: gateway), or anybody may{}",
                if answer.headers.contains_key(WWW_AUTHENTICATE) {
                    ""
                } else {
                    "; is the account allowed to?"
                }
            ),
        ),
        StatusCode::NOT_FOUND if answer.headers.contains_key(NAMESPACE) => {
            Fault::new(Exit::NotFound, says, format!("registry {registry} has no such thing"))
        }
        StatusCode::NOT_FOUND => {
            let fix =
                format!("add {{name: {registry}}} to proxy.registries of the sidecar, or mend the name");
            Fault::new(Exit::NotFound, says, fix)
        }
        _ => {
            Fault::new(Exit::Unreachable, says, "the sidecar's log says which of gateway and registry failed")
        }
    }
}

/// Seconds since 1970 by the clock of whoever made the answer; none where a mirror made it on this very machine.
pub fn clock_of(answer: &Answer, is_mirror: bool) -> Option<u64> {
    if is_mirror && !answer.headers.contains_key(NAMESPACE) {
        return None;
    }
    let date = httpdate::parse_http_date(answer.header(DATE)?).ok()?;
    date.duration_since(std::time::UNIX_EPOCH).ok().map(|it| it.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Image;

    fn answer(status: u16, headers: &[(&'static str, &'static str)]) -> Answer {
        let headers = headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        Answer {
            status: StatusCode::from_u16(status).unwrap(),
            headers: headers.collect(),
            body: r#"{"errors":[{"code":"X","message":"no"}]}"#.into(),
        }
    }

    #[test]
    fn the_mirror_is_told_apart_from_the_registry_behind_it() {
        let image = Image::parse("h.example/a:v1").unwrap();
        let passed = ("oci-namespace", "h.example");
        let table = [
            (401, vec![passed, ("www-authenticate", "Basic")], Exit::Refused, "wants a login"),
            (404, vec![passed], Exit::NotFound, "has no such thing"),
            (404, vec![], Exit::NotFound, "add {name: h.example} to proxy.registries"),
            (503, vec![], Exit::Unreachable, "the sidecar's log"),
        ];
        for (status, headers, exit, fix) in table {
            let fault = refused(&image.place, &answer(status, &headers));
            assert_eq!(fault.exit, exit);
            assert!(fault.fix.contains(fix) && fault.what.contains(": no"), "{fault}");
        }
    }

    #[test]
    fn a_clock_is_somebody_elses() {
        let date = ("date", "Thu, 01 Jan 1970 00:01:40 GMT");
        let passed = ("oci-namespace", "h.example");
        assert_eq!(clock_of(&answer(200, &[date]), false), Some(100));
        assert_eq!(clock_of(&answer(200, &[date]), true), None);
        assert_eq!(clock_of(&answer(200, &[date, passed]), true), Some(100));
        assert_eq!(clock_of(&answer(200, &[("date", "soon")]), false), None);
    }

    #[test]
    fn a_manifest_is_asked_for_at_the_mirror_by_the_registrys_name() {
        let image = Image::parse("h.example:5000/a/b:v1").unwrap();
        assert_eq!(manifest_path(&image.place, &image.reference), "/v2/a/b/manifests/v1?ns=h.example:5000");
    }
}
