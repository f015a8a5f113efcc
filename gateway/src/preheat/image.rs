//! How images, and what they run on, are named by whoever asks for a preheat: as a manifest's URL, or as people write it.
//!
//! ```text
//! https://harbor.example.com/v2/production/app/manifests/v2
//! harbor.example.com/production/app:v2
//! harbor.example.com/production/app@sha256:...
//! ```
//!
//! Whichever it is, its host only says which of the configured registries is meant. It is never dialled, and
//! neither is its scheme looked at: where a registry is reached, and how, stands in the settings.
//!
//! Knows nothing of: which registries there are, requests.

use std::fmt;
use std::str::FromStr;

use shoal_oci::{Reference, RegistryName, Repository};

/// The longest text of one field, in bytes.
pub(super) const MAX_TEXT: usize = 1_024;

/// What is wrong with a name that is only that.
const NO_HOST: &str = "does not begin with a registry's host, as in harbor.example.com/production/app:v2";

/// An image of a configured registry.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Image {
    /// The registry's configured name.
    pub registry: RegistryName,
    /// The repository within it.
    pub repository: Repository,
    /// The tag or digest.
    pub reference: Reference,
}

/// Which images of an index.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Platforms {
    /// Every one.
    All,
    /// Those for one of these.
    Only(Vec<Platform>),
}

/// What an image runs on, for example `linux/arm64/v8`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Platform {
    /// The operating system.
    pub os: String,
    /// The processor architecture.
    pub architecture: String,
    /// Which kind of that architecture; `None` for whichever.
    pub variant: Option<String>,
}

impl Image {
    /// Reads an image's name or its manifest's URL; `registry` gives the configured registry that a host, with its port
    /// if it has one, is a name of.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str, registry: impl Fn(&str) -> Option<RegistryName>) -> Result<Self, String> {
        if text.is_empty() {
            return Err("image: is missing: give its name, or the URL of its manifest".to_owned());
        }
        let host = text.split_once("://").map_or(text, |it| it.1).split('/').next().unwrap_or_default();
        if host.contains('@') {
            // Not repeated: what stands there may be a password.
            let is_name = host.len() == text.len();
            let fault = if is_name { NO_HOST } else { "holds a user or password: give it as authorization" };
            return Err(format!("image: {fault}"));
        }
        let wrong = |fault: &str| Err(format!("image {:?}: {fault}", cut(text)));
        if text.len() > MAX_TEXT {
            return wrong(&format!("is {} bytes long, at most {MAX_TEXT} are allowed", text.len()));
        }
        let (rest, is_url) = match text.split_once("://") {
            Some(("https" | "http", rest)) => (rest, true),
            Some(_) => return wrong("has a scheme that is neither https nor http"),
            None => (text, false),
        };
        let Some((host, path)) = rest.split_once('/') else { return wrong(NO_HOST) };
        let parts = if is_url { url_parts(path) } else { Some(name_parts(path)) };
        let Some((repository, reference)) = parts else {
            return wrong(
                "is not the URL of a manifest, https://<host>/v2/<repository>/manifests/<reference>",
            );
        };
        let Some(registry) = registry(&host.to_ascii_lowercase()) else {
            return wrong(&format!("{host} is no name of a registry in the gateway's settings"));
        };
        let read = || {
            let repository = repository.parse::<Repository>()?.within(&registry)?;
            Ok::<_, shoal_oci::OciError>((repository, reference.parse::<Reference>()?))
        };
        match read() {
            Ok((repository, reference)) => Ok(Self { registry, repository, reference }),
            Err(error) => wrong(&error.message),
        }
    }
}

/// Repository and reference of a manifest's URL, by its path without the first slash.
fn url_parts(path: &str) -> Option<(&str, &str)> {
    let (path, query) = path.split_once('?').map_or((path, ""), |(path, query)| (path, query));
    // A manifest's URL has no query but the proxy's, and that names a registry as the host does.
    if !query.is_empty() {
        return None;
    }
    path.strip_prefix("v2/")?.rsplit_once("/manifests/")
}

/// Repository and reference of an image's name. A tag beside a digest says nothing.
fn name_parts(path: &str) -> (&str, &str) {
    let (name, digest) = path.split_once('@').map_or((path, None), |(name, digest)| (name, Some(digest)));
    let (repository, tag) =
        name.split_once(':').map_or((name, None), |(repository, tag)| (repository, Some(tag)));
    (repository, digest.or(tag).unwrap_or("latest"))
}

/// The configured registry that `host`, with its port if it has one, is a name of; by its own name, or by one of those
/// under which the gateway is that registry. Nothing is assumed of any other.
pub(crate) fn registry_named(
    host: &str,
    is_configured: impl Fn(&RegistryName) -> bool,
    by_host_name: impl Fn(&str) -> Option<RegistryName>,
) -> Option<RegistryName> {
    let named = |name: &str| name.parse().ok().filter(&is_configured);
    let (without_port, port) = match host.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (host, None),
    };
    // A port may be left out where it is the usual one, in the URL as in the settings.
    let usual = match port {
        Some("443") => named(without_port),
        None => named(&format!("{host}:443")),
        Some(_) => None,
    };
    named(host).or(usual).or_else(|| by_host_name(without_port))
}

/// Written as people write it, without a scheme.
impl fmt::Display for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { registry, repository, reference } = self;
        let separator = match reference {
            Reference::Tag(_) => ':',
            Reference::Digest(_) => '@',
        };
        write!(f, "{registry}/{repository}{separator}{reference}")
    }
}

impl FromStr for Platform {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_word = |it: &str| {
            let mut bytes = it.bytes();
            !it.is_empty() && bytes.all(|it| it.is_ascii_alphanumeric() || matches!(it, b'_' | b'.' | b'-'))
        };
        let parts: Vec<_> = text.split('/').collect();
        let (os, architecture, variant) = match parts[..] {
            [os, architecture] => (os, architecture, None),
            [os, architecture, variant] => (os, architecture, Some(variant)),
            _ => ("", "", None),
        };
        if text.len() > MAX_TEXT || ![os, architecture, variant.unwrap_or("-")].into_iter().all(is_word) {
            let text = cut(text);
            return Err(format!(
                "platform {text:?}: is not os/architecture or os/architecture/variant, as in linux/amd64"
            ));
        }
        Ok(Self {
            os: os.to_ascii_lowercase(),
            architecture: architecture.to_ascii_lowercase(),
            variant: variant.map(str::to_ascii_lowercase),
        })
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.iter().try_for_each(|it| write!(f, "/{it}"))
    }
}

/// So much of a text as a message repeats.
pub(super) fn cut(text: &str) -> &str {
    let end = text.char_indices().nth(200).map_or(text.len(), |(end, _)| end);
    text.get(..end).unwrap_or_default()
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    const DIGEST: &str = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

    /// The registry that a host is a name of.
    pub(in super::super) fn configured(host: &str) -> Option<RegistryName> {
        let name = match host {
            "harbor.example.com" | "harbor.internal" => "harbor.example.com",
            "registry.example:5000" => "registry.example:5000",
            "docker.io" => "docker.io",
            _ => return None,
        };
        Some(name.parse().unwrap())
    }

    #[track_caller]
    fn names(text: &str, expected: &str) {
        assert_eq!(Image::parse(text, configured).unwrap().to_string(), expected, "{text}");
    }

    #[track_caller]
    fn no_image(text: &str, fault: &str) {
        let error = Image::parse(text, configured).unwrap_err();
        assert!(error.contains(fault), "{fault:?} in {error:?}");
    }

    #[test]
    fn an_image_has_a_name_or_a_url() {
        for host in ["https://harbor.example.com", "http://HARBOR.internal"] {
            names(&format!("{host}/v2/prod/app/manifests/v2"), "harbor.example.com/prod/app:v2");
        }
        names("harbor.example.com/prod/app:v2", "harbor.example.com/prod/app:v2");
        names("harbor.example.com/prod/app", "harbor.example.com/prod/app:latest");
        let by_digest = format!("harbor.example.com/prod/app@{DIGEST}");
        names(&by_digest, &by_digest);
        names(&format!("harbor.example.com/prod/app:v2@{DIGEST}"), &by_digest);
        names(&format!("https://harbor.example.com/v2/prod/app/manifests/{DIGEST}"), &by_digest);
        names("registry.example:5000/a:1", "registry.example:5000/a:1");
        names("docker.io/alpine:3", "docker.io/library/alpine:3");
        names("https://docker.io/v2/manifests/manifests/manifests/1", "docker.io/manifests/manifests:1");
    }

    #[test]
    fn what_names_no_image_of_a_configured_registry_is_refused() {
        no_image("", "is missing");
        for elsewhere in [
            "http://169.254.169.254/v2/prod/app/manifests/v2",
            "https://evil.example/v2/a/manifests/b",
            "localhost:5000/a:b",
            "harbor.example.com.evil.example/a:b",
            "harbor.example.com:8443/a:b",
            "//harbor.example.com/a:b",
        ] {
            no_image(elsewhere, "no name of a registry in the gateway's settings");
        }
        no_image("ftp://harbor.example.com/v2/a/manifests/b", "neither https nor http");
        no_image("file:///etc/passwd", "neither https nor http");
        no_image("alpine", "does not begin with a registry's host");
        no_image("https://harbor.example.com", "does not begin with a registry's host");
        no_image("https://harbor.example.com/v2/a/blobs/b", "is not the URL of a manifest");
        no_image("https://harbor.example.com/v2/a/manifests/b?x=y", "is not the URL of a manifest");
        no_image("https://harbor.example.com/a:b", "is not the URL of a manifest");
        no_image("harbor.example.com/../etc:v1", "component");
        no_image("harbor.example.com/Prod/app:v1", "component");
        no_image("harbor.example.com/prod/app:-v1", "tag");
        no_image("harbor.example.com/prod/app@sha256:abc", "digest");
        no_image(&"a".repeat(MAX_TEXT + 1), "at most 1024 are allowed");
    }

    #[test]
    fn a_password_in_a_url_is_refused_and_not_repeated() {
        let long = format!("https://ann:hunter2@harbor.example.com/{}", "a".repeat(MAX_TEXT));
        for image in [
            "https://ann:hunter2@harbor.example.com/v2/a/manifests/b",
            "ftp://ann:hunter2@harbor.example.com/v2/a/manifests/b",
            "https://ann:hunter2@harbor.example.com",
            "ann:hunter2@harbor.example.com/a:b",
            &long,
        ] {
            let error = Image::parse(image, configured).unwrap_err();
            assert!(error.contains("holds a user or password") && !error.contains("hunter2"), "{error:?}");
        }
        let error = Image::parse("ann:hunter2@harbor.example.com", configured).unwrap_err();
        assert!(error.contains("registry's host") && !error.contains("hunter2"), "{error:?}");
    }

    #[test]
    fn a_platform_is_written_with_slashes() {
        for (text, expected) in [
            ("linux/amd64", Some("linux/amd64")),
            ("Linux/ARM64/v8", Some("linux/arm64/v8")),
            ("linux", None),
            ("linux/", None),
            ("linux/a/b/c", None),
            ("linux/a b", None),
            ("", None),
        ] {
            let parsed = text.parse::<Platform>().ok().map(|it| it.to_string());
            assert_eq!(parsed.as_deref(), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_an_image_that_reads_back_or_refused(
            text in "(https?://)?harbor.example.com/(v2/)?[a-z/:@.]{0,30}|.*"
        ) {
            if let Ok(image) = Image::parse(&text, configured) {
                prop_assert_eq!(Image::parse(&image.to_string(), configured), Ok(image));
            }
        }
    }
}
