//! The swarm's key for a blob.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::Digest;

/// The registries whose word about a digest is believed for each other.
///
/// By default every registry is a group of its own and bears that registry's name, so a hostile
/// registry can neither open nor poison another's blobs.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrustGroup(Arc<str>);

impl TrustGroup {
    /// Names a group.
    pub fn new(name: &str) -> Self {
        Self(name.into())
    }

    /// The group's name as configured, for example `registry.example.com:5000`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TrustGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TrustGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What the swarm calls a blob: the same layer in two repositories of one trust group is one blob.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlobKey {
    /// Whose word about the digest is believed.
    pub group: TrustGroup,
    /// The content's digest.
    pub digest: Digest,
}

impl fmt::Display for BlobKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.group, self.digest)
    }
}

/// Why a text names no blob.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not of the form <trust group>@sha256:<64 lower-case hex digits>")]
pub struct BlobKeyError(pub String);

/// As it is displayed.
impl FromStr for BlobKey {
    type Err = BlobKeyError;

    fn from_str(text: &str) -> Result<Self, BlobKeyError> {
        // No digest has an @, a group may.
        let parts = text.rsplit_once('@').filter(|(group, _)| !group.is_empty());
        let key = parts.and_then(|(group, digest)| {
            Some(Self { group: TrustGroup::new(group), digest: digest.parse().ok()? })
        });
        key.ok_or_else(|| BlobKeyError(text.chars().take(120).collect()))
    }
}

impl fmt::Debug for BlobKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blob_is_read_as_it_is_shown_and_as_nothing_else() {
        let digest = Digest::from_sha256([0xab; 32]);
        for group in ["registry.example:5000", "a@b", "team/one"] {
            let key = BlobKey { group: TrustGroup::new(group), digest };
            assert_eq!(key.to_string().parse(), Ok(key));
        }
        for bad in ["", "g", "g@", &digest.to_string(), &format!("@{digest}"), "g@sha256:ab", "g@sha512:00"] {
            assert_eq!(bad.parse::<BlobKey>(), Err(BlobKeyError(bad.to_owned())));
        }
    }
}
