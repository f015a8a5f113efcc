//! What is pulled, and from where: the throwaway registry's image, or one that the user names.

use std::fmt;
use std::net::SocketAddr;

use anyhow::{Context, Result};
use http::Uri;
use oci_client::Reference as ImageReference;
use shoal_oci::{Reference, RegistryName, Repository};

/// An image and its registry.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    /// The registry's name, which is the first part of image references.
    pub(crate) registry: RegistryName,
    /// Where it is.
    pub(crate) url: Uri,
    /// Plain HTTP, or a certificate that is not verified, is accepted.
    pub(crate) insecure: bool,
    /// The image's repository.
    pub(crate) repository: Repository,
    /// Which of its images.
    pub(crate) reference: Reference,
}

impl Source {
    /// An image at a registry whose name is its address. The image is named as people do, without the
    /// registry: a digest makes its tag meaningless, without both it is `latest`, and Docker Hub's own images
    /// need no `library/`.
    pub(crate) fn new(url: Uri, insecure: bool, image: &str) -> Result<Self> {
        let authority = url.authority().with_context(|| format!("registry {url}: names no host"))?;
        let registry: RegistryName = authority.as_str().parse()?;
        // All that the registry's name decides is whether images have Docker Hub's short names, and the
        // parser knows neither bare host names nor IPv6 addresses.
        let host = if registry.is_docker_hub() { registry.as_str() } else { "registry.example" };
        let named: ImageReference =
            format!("{host}/{image}").parse().with_context(|| format!("image {image:?}"))?;
        let repository = named.repository().parse()?;
        let reference = named.digest().or(named.tag()).unwrap_or("latest").parse()?;
        Ok(Self { registry, url, insecure, repository, reference })
    }

    /// The path of the image's manifest on a mirror.
    pub(crate) fn manifest_path(&self) -> String {
        format!("/v2/{}/manifests/{}?ns={}", self.repository, self.reference, self.registry)
    }

    /// The image, to be asked of the mirror at this address in its registry's place.
    pub(crate) fn through(&self, mirror: SocketAddr) -> ImageReference {
        let (registry, repository) = (self.registry.to_string(), self.repository.to_string());
        let reference = self.reference.to_string();
        let mut image = match self.reference {
            Reference::Tag(_) => ImageReference::with_tag(registry, repository, reference),
            Reference::Digest(_) => ImageReference::with_digest(registry, repository, reference),
        };
        image.set_mirror_registry(mirror.to_string());
        image
    }
}

impl fmt::Display for Source {
    /// The whole image reference, as runtimes take it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let separator = if matches!(self.reference, Reference::Digest(_)) { '@' } else { ':' };
        write!(f, "{}/{}{separator}{}", self.registry, self.repository, self.reference)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(registry: &str, image: &str, expected: Option<&str>) {
        let url = format!("http://{registry}").parse().unwrap();
        let source = Source::new(url, true, image).ok();
        assert_eq!(source.map(|it| it.to_string()).as_deref(), expected, "{registry} {image}");
    }

    #[test]
    fn an_image_is_named_as_people_do() {
        let digest = format!("sha256:{}", "0a".repeat(32));
        let by_digest = format!("registry.example/app@{digest}");
        check("registry.example", "team/app:v1", Some("registry.example/team/app:v1"));
        check("registry.example", "alpine", Some("registry.example/alpine:latest"));
        check("127.0.0.1:5000", "alpine", Some("127.0.0.1:5000/alpine:latest"));
        check("[::1]:5000", "alpine", Some("[::1]:5000/alpine:latest"));
        check("registry", "team/app", Some("registry/team/app:latest"));
        check("registry-1.docker.io", "alpine", Some("docker.io/library/alpine:latest"));
        check("registry.example", &format!("app@{digest}"), Some(&by_digest));
        check("registry.example", &format!("app:v1@{digest}"), Some(&by_digest));
        for wrong in ["", ":v1", "App:v1", "app:", "app@v1@v2", "app@sha256:00"] {
            check("registry.example", wrong, None);
        }
    }
}
