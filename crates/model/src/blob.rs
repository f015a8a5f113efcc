//! The swarm's key for a blob.

use std::fmt;
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

impl fmt::Debug for BlobKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}
