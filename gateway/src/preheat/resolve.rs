//! From an image to its blobs.
//!
//! The manifest is asked for as for a caller, with the job's own credential or, in gateway mode, with the gateway's
//! right, and what the registry answers is proof as everywhere. Of an index the images for the wanted platforms are
//! taken. Attestations, which stand beside them in an index, are none; blobs that a licence keeps out of registries
//! are left to the runtimes. How long each blob is, and whether it may be had, is decided as for a node.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use http::header::{ACCEPT, AUTHORIZATION};
use http::{HeaderValue, Request as HttpRequest, StatusCode};
use shoal_model::{BlobKey, Digest};
use shoal_oci::manifest::{self, Descriptor, IMAGE_TYPES, INDEX_TYPES, Manifest};
use shoal_oci::{Reference, Repository};
use shoal_swarm::Geometry;
use tokio::time::Instant;

use super::image::{Platform, Platforms};
use super::job::{Layer, Setback};
use super::request::Request;
use crate::authority::Right;
use crate::mirror::{Manifests, MirrorError};
use crate::open::Opener;
use crate::upstream::Upstream;

/// For the decision about one blob.
const PATIENCE: Duration = Duration::from_secs(20);
/// How deep an index may lie within another.
const MAX_DEPTH: u32 = 2;
/// How many manifests of an image are read.
const MAX_MANIFESTS: usize = 64;
/// How many blobs an image may have.
const MAX_BLOBS: usize = 512;
/// How many blobs are decided about at once.
const AT_ONCE: usize = 16;

/// What a job lacks that came without a credential.
pub(super) const CREDENTIAL_NEEDED: &str = "a credential is needed, and the job came without";

/// A blob of the image, ready to be granted.
#[derive(Clone, Debug)]
pub(super) struct Blob {
    pub(super) key: BlobKey,
    pub(super) geometry: Geometry,
}

impl From<&Blob> for Layer {
    fn from(blob: &Blob) -> Self {
        Self { digest: blob.key.digest, size: blob.geometry.size() }
    }
}

/// Finds out about one image.
pub(super) struct Resolver {
    pub(super) manifests: Arc<Manifests>,
    pub(super) opener: Arc<Opener>,
    pub(super) upstream: Arc<Upstream>,
    pub(super) right: Right,
    pub(super) authorization: Option<HeaderValue>,
}

impl Resolver {
    /// The image's blobs, each once, an image's configuration before its layers.
    pub(super) async fn resolve(&self, request: &Request) -> Result<Vec<Blob>, Setback> {
        let repository = &request.image.repository;
        if !self.upstream.mode.admits(repository) {
            return Err(not_admitted(&self.upstream, repository));
        }
        let mut sizes = BTreeMap::new();
        let mut digests = Vec::new();
        for blob in self.blobs(request).await? {
            if sizes.insert(blob.0, blob.1).is_none() {
                digests.push(blob.0);
            }
        }
        if digests.len() > MAX_BLOBS {
            let found = digests.len();
            return Err(self.fault(request, &format!("has {found} blobs, at most {MAX_BLOBS} are taken")));
        }
        let cuts = stream::iter(digests).map(|digest| self.cut(digest));
        cuts.buffered(AT_ONCE).try_collect().await
    }

    /// Digest and stated size of each blob.
    async fn blobs(&self, request: &Request) -> Result<Vec<(Digest, u64)>, Setback> {
        let mut blobs = Vec::new();
        let mut waiting = vec![(request.image.reference.clone(), 0)];
        let mut n_read = 0;
        while let Some((reference, depth)) = waiting.pop() {
            n_read += 1;
            if n_read > MAX_MANIFESTS {
                return Err(self.fault(request, &format!("names more than {MAX_MANIFESTS} manifests")));
            }
            let bytes = self.manifest(&request.image.repository, &reference).await?;
            let manifest = Manifest::parse(&bytes).map_err(|it| self.fault(request, &it.message))?;
            if let Manifest::Index { manifests } = &manifest {
                if depth >= MAX_DEPTH {
                    return Err(self.fault(request, "is an index within an index within an index"));
                }
                let wanted: Vec<_> =
                    manifests.iter().filter(|it| is_wanted(it, &request.platforms)).collect();
                if wanted.is_empty() {
                    return Err(self.fault(request, &not_there(manifests, &request.platforms)));
                }
                waiting.extend(wanted.iter().map(|it| (Reference::Digest(it.digest.clone()), depth + 1)));
            }
            for blob in manifest.blobs().filter(|it| !it.is_foreign()) {
                let digest = blob.digest.sha256().ok_or_else(|| {
                    self.fault(request, &format!("blob {}: only SHA-256 content is shared", blob.digest))
                })?;
                blobs.push((digest, blob.size));
            }
        }
        Ok(blobs)
    }

    #[expect(clippy::expect_used, reason = "input cannot reach it")]
    async fn manifest(&self, repository: &Repository, reference: &Reference) -> Result<Bytes, Setback> {
        let mut ask = HttpRequest::get(format!("/v2/{repository}/manifests/{reference}"));
        for media_type in INDEX_TYPES.iter().chain(&IMAGE_TYPES) {
            ask = ask.header(ACCEPT, *media_type);
        }
        let mut ask = ask.body(()).expect("repository and reference are safe in a path").into_parts().0;
        ask.headers.extend(self.authorization.clone().map(|it| (AUTHORIZATION, it)));
        let named =
            |what: &str| format!("manifest {reference} of {}/{repository}: {what}", self.upstream.name());
        let answer = self.manifests.read(&self.upstream, &self.right, reference, ask).await;
        let answer = answer.map_err(|it| refused(&it, named))?;
        match answer.status() {
            StatusCode::OK => Ok(answer.into_body()),
            status => Err(answered(status, self.authorization.is_some(), named)),
        }
    }

    async fn cut(&self, digest: Digest) -> Result<Blob, Setback> {
        let key = BlobKey { group: self.upstream.group.clone(), digest };
        let (upstream, right) = (self.upstream.clone(), self.right.clone());
        let deadline = Instant::now() + PATIENCE;
        let cut = self.opener.cut(upstream, right, self.authorization.clone(), &key, deadline).await;
        match cut {
            Ok(geometry) => Ok(Blob { key, geometry }),
            Err(refusal) => {
                let body = String::from_utf8_lossy(&refusal.body).into_owned();
                let Right { registry, repository, .. } = &self.right;
                let why = format!("blob {digest} of {registry}/{repository}: {} {body}", refusal.status);
                let is_final = refusal.status < 500;
                Err(Setback { why, is_final })
            }
        }
    }

    fn fault(&self, request: &Request, what: &str) -> Setback {
        Setback::lasting(format!("image {}: {what}", request.image))
    }
}

/// The registry's settings do not let nodes pull the repository.
pub(super) fn not_admitted(upstream: &Upstream, repository: &Repository) -> Setback {
    let name = upstream.name();
    Setback::lasting(format!(
        "repository {repository} of {name}: not one that nodes may pull: see credentials.repositories"
    ))
}

fn refused(error: &MirrorError, named: impl Fn(&str) -> String) -> Setback {
    let why = match error {
        // It says which itself.
        MirrorError::Manifest(_) => error.to_string(),
        _ => named(&error.to_string()),
    };
    // The registry has turned the gateway away; nobody is asked twice.
    if error.is_refusal() { Setback::lasting(why) } else { Setback::passing(why) }
}

fn answered(status: StatusCode, has_credential: bool, named: impl Fn(&str) -> String) -> Setback {
    let advice = match (status.as_u16(), has_credential) {
        (401 | 403, true) => "the job's credential may not read it, or has ended",
        (401 | 403, false) => CREDENTIAL_NEEDED,
        (404, _) => "it is not there",
        (412, _) => "a policy of the registry forbids it",
        _ => "",
    };
    let separator = if advice.is_empty() { "" } else { ": " };
    let why = named(&format!("the registry answered {}{separator}{advice}", status.as_u16()));
    match status.as_u16() {
        408 | 429 | 500..=599 => Setback::passing(why),
        _ => Setback::lasting(why),
    }
}

/// Whether a manifest of an index is an image for one of these platforms.
fn is_wanted(descriptor: &Descriptor, platforms: &Platforms) -> bool {
    let Some(it) = &descriptor.platform else { return *platforms == Platforms::All };
    // What builders add about an image beside it.
    if it.os == "unknown" && it.architecture == "unknown" {
        return false;
    }
    match platforms {
        Platforms::All => true,
        Platforms::Only(wanted) => wanted.iter().any(|wanted| is_for(it, wanted)),
    }
}

fn is_for(it: &manifest::Platform, wanted: &Platform) -> bool {
    // An image for arm64 is one for its variant v8, whether it says so or not.
    let normal = |variant: Option<&str>| match (it.architecture.as_str(), variant) {
        ("arm64", None) => Some("v8".to_owned()),
        (_, variant) => variant.map(str::to_owned),
    };
    let is_variant =
        wanted.variant.is_none() || normal(wanted.variant.as_deref()) == normal(it.variant.as_deref());
    it.os == wanted.os && it.architecture == wanted.architecture && is_variant
}

fn not_there(manifests: &[Descriptor], platforms: &Platforms) -> String {
    let Platforms::Only(wanted) = platforms else { return "names no image".to_owned() };
    let wanted: Vec<_> = wanted.iter().map(Platform::to_string).collect();
    let there = manifests.iter().filter_map(|it| it.platform.as_ref());
    let there: Vec<_> = there.map(|it| format!("{}/{}", it.os, it.architecture)).take(20).collect();
    format!("is for none of {}, but for {}", wanted.join(", "), there.join(", "))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn descriptor(platform: &str) -> Descriptor {
        let digest = Digest::from_sha256([1; 32]).to_string();
        let mut it = json!({ "mediaType": IMAGE_TYPES[0], "digest": digest, "size": 1 });
        let parts: Vec<_> = platform.split('/').collect();
        match parts[..] {
            [os, architecture] => it["platform"] = json!({ "os": os, "architecture": architecture }),
            [os, architecture, variant] => {
                it["platform"] = json!({ "os": os, "architecture": architecture, "variant": variant });
            }
            _ => {}
        }
        serde_json::from_value(it).unwrap()
    }

    #[test]
    fn of_an_index_the_images_for_the_platforms_are_wanted() {
        let only = |it: &str| Platforms::Only(vec![it.parse().unwrap()]);
        for (platform, platforms, expected) in [
            ("linux/amd64", Platforms::All, true),
            ("unknown/unknown", Platforms::All, false),
            ("", Platforms::All, true),
            ("", only("linux/amd64"), false),
            ("linux/amd64", only("linux/amd64"), true),
            ("linux/arm64", only("linux/amd64"), false),
            ("linux/arm64/v8", only("linux/arm64"), true),
            ("linux/arm64", only("linux/arm64/v8"), true),
            ("linux/arm/v6", only("linux/arm/v7"), false),
            ("linux/arm/v7", only("linux/arm"), true),
            ("windows/amd64", only("linux/amd64"), false),
            ("unknown/unknown", only("unknown/unknown"), false),
        ] {
            assert_eq!(is_wanted(&descriptor(platform), &platforms), expected, "{platform} {platforms:?}");
        }
    }

    #[test]
    fn what_may_pass_is_told_from_what_will_not() {
        for (status, is_final) in [(401, true), (404, true), (412, true), (429, false), (503, false)] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(answered(status, false, str::to_owned).is_final, is_final, "{status}");
        }
    }
}
