//! What is named on the command line: an image, a blob, a repository.
//!
//! ```text
//! harbor.example.com/production/app:v2
//! harbor.example.com/production/app@sha256:...
//! https://harbor.example.com/v2/production/app/blobs/sha256:...
//! alpine                                            the same as docker.io/library/alpine:latest
//! ```
//!
//! Nothing here is dialled: the registry's name goes to the mirror, which knows where that is.

use shoal_model::Digest;
use shoal_oci::path::{Kind, Resource, parse};
use shoal_oci::{OciError, Reference, RegistryName, Repository};

use crate::fault::Fault;

/// A repository of a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The registry.
    pub registry: RegistryName,
    /// The repository, by the name that the registry knows it under.
    pub repository: Repository,
}

/// An image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Where it is.
    pub place: Place,
    /// Its tag or digest.
    pub reference: Reference,
}

/// A blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedBlob {
    /// Where it is.
    pub place: Place,
    /// Which one.
    pub digest: Digest,
}

impl Place {
    /// Reads `host/repository`; what has no host is Docker Hub's.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, Fault> {
        let (registry, repository) = split_host(text);
        let read = || {
            let registry: RegistryName = registry.parse()?;
            let repository = repository.parse::<Repository>()?.within(&registry)?;
            Ok::<_, OciError>(Self { registry, repository })
        };
        read().map_err(|it| wrong(text, &it.message))
    }
}

impl Image {
    /// Reads an image's name.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, Fault> {
        let (name, digest) = text.split_once('@').map_or((text, None), |(name, digest)| (name, Some(digest)));
        // A colon before the last slash is a port's.
        let (name, tag) = match name.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (name, None),
        };
        let reference = digest.or(tag).unwrap_or("latest").parse::<Reference>();
        let reference = reference.map_err(|it| wrong(text, &it.message))?;
        Ok(Self { place: Place::parse(name)?, reference })
    }
}

impl WantedBlob {
    /// Reads an image's name with a digest, or a blob's URL.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, Fault> {
        if let Some((_, rest)) = text.split_once("://") {
            return Self::of_url(rest).ok_or_else(|| {
                wrong(text, "is not the URL of a blob, https://host/v2/repository/blobs/sha256:...")
            });
        }
        let Image { place, reference } = Image::parse(text)?;
        let Reference::Digest(digest) = reference else {
            let fault = "names no blob: give its digest, host/repository@sha256:...; `shoalctl explain` lists an \
                         image's blobs";
            return Err(wrong(text, fault));
        };
        let digest = digest.sha256().ok_or_else(|| wrong(text, "is named by another digest than SHA-256"))?;
        Ok(Self { place, digest })
    }

    fn of_url(rest: &str) -> Option<Self> {
        let (host, path) = rest.split_once('/')?;
        let registry: RegistryName = host.parse().ok()?;
        let request = parse(&format!("/{path}"), None, |_| false).ok()?.or_at(&registry).ok()?;
        let Kind::Pull { repository, resource: Resource::Blob(digest) } = request.kind() else { return None };
        let place = Place { registry, repository: repository.clone() };
        Some(Self { place, digest: digest.sha256()? })
    }
}

/// The registry's host and what follows it; Docker Hub where the first component is no host.
fn split_host(text: &str) -> (&str, &str) {
    match text.split_once('/') {
        Some((host, rest)) if host.contains(['.', ':']) || host == "localhost" => (host, rest),
        _ => ("docker.io", text),
    }
}

fn wrong(text: &str, fault: &str) -> Fault {
    let text: String = text.chars().take(200).collect();
    Fault::usage(format!("{text:?}: {fault}"), "write it as in harbor.example.com/production/app:v2")
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

    #[track_caller]
    fn check(text: &str, expected: Option<(&str, &str, &str)>) {
        let parsed = Image::parse(text).ok();
        let shown = parsed.as_ref().map(|it| {
            let reference = match &it.reference {
                Reference::Tag(tag) => tag.as_str(),
                Reference::Digest(digest) => digest.as_str(),
            };
            (it.place.registry.as_str(), it.place.repository.as_str(), reference)
        });
        assert_eq!(shown, expected, "{text}");
    }

    #[test]
    fn images_are_named_as_people_do() {
        let digest = format!("h.example:5000/a/b:v1@{DIGEST}");
        check(&digest, Some(("h.example:5000", "a/b", DIGEST)));
        check("harbor.example.com/a/b:v1", Some(("harbor.example.com", "a/b", "v1")));
        check("localhost:5000/a", Some(("localhost:5000", "a", "latest")));
        check("alpine", Some(("docker.io", "library/alpine", "latest")));
        check("grafana/loki:3", Some(("docker.io", "grafana/loki", "3")));
        for bad in ["", "A/b:c", "h.example/", "h.example/a@sha256:1", "h.example/a:-"] {
            check(bad, None);
        }
    }

    #[test]
    fn a_blob_is_named_by_its_digest() {
        let expected = WantedBlob {
            place: Place::parse("h.example:5000/a/b").unwrap(),
            digest: DIGEST.parse().unwrap(),
        };
        for text in
            [format!("h.example:5000/a/b@{DIGEST}"), format!("https://h.example:5000/v2/a/b/blobs/{DIGEST}")]
        {
            assert_eq!(WantedBlob::parse(&text), Ok(expected.clone()), "{text}");
        }
        for bad in [
            "h.example/a:v1".to_owned(),
            format!("https://h.example/v2/a/manifests/{DIGEST}"),
            format!("https://h.example/v2/a/blobs/{DIGEST}?x=y#"),
            "https://h.example".to_owned(),
        ] {
            assert!(WantedBlob::parse(&bad).is_err(), "{bad}");
        }
    }
}
