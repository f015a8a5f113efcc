//! Tells credentials apart without keeping them.
//!
//! The fingerprint is a keyed hash with a key that only this process knows, so that a memory dump's
//! fingerprints cannot be tried against guessed passwords elsewhere, and nobody can look for two things that
//! share one.

use http::HeaderValue;
use shoal_model::Digest;
use shoal_oci::{RegistryName, Repository};

use crate::authority::Holder;

/// Stands for one blob of one repository.
pub(crate) type Membership = [u8; 16];

/// Makes fingerprints.
#[derive(Clone)]
pub(crate) struct Fingerprints([u8; 32]);

impl Fingerprints {
    /// Takes a random key.
    pub(crate) const fn new(key: [u8; 32]) -> Self {
        Self(key)
    }

    /// The holder of an `Authorization` header's value, or of none.
    pub(crate) fn holder(&self, authorization: Option<&HeaderValue>) -> Holder {
        match authorization {
            None => Holder::Anonymous,
            Some(it) => Holder::Caller(*blake3::keyed_hash(&self.0, it.as_bytes()).as_bytes()),
        }
    }

    /// One blob of one repository, which was forgotten so often before, in little room.
    pub(crate) fn membership(
        &self,
        registry: &RegistryName,
        repository: &Repository,
        n_forgotten: u32,
        digest: Digest,
    ) -> Membership {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        // No name has a zero byte.
        for part in [registry.as_str().as_bytes(), &[0], repository.as_str().as_bytes(), &[0]] {
            hasher.update(part);
        }
        hasher.update(&n_forgotten.to_le_bytes());
        let mut membership = Membership::default();
        hasher.update(digest.as_bytes()).finalize_xof().fill(&mut membership);
        membership
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holders_differ_by_credential_and_by_process() {
        let [ann, bob] = ["Basic YW5u", "Basic Ym9i"].map(HeaderValue::from_static);
        let (here, there) = (Fingerprints::new([1; 32]), Fingerprints::new([2; 32]));
        assert_eq!(here.holder(Some(&ann)), here.holder(Some(&ann)));
        assert_ne!(here.holder(Some(&ann)), here.holder(Some(&bob)));
        assert_ne!(here.holder(Some(&ann)), there.holder(Some(&ann)));
        assert_eq!(here.holder(None), Holder::Anonymous);
    }

    #[test]
    fn memberships_differ_by_each_part_and_by_process() {
        let of = |key, registry: &str, repository: &str, n_forgotten, digest| {
            let (registry, repository) = (registry.parse().unwrap(), repository.parse().unwrap());
            let digest = Digest::from_sha256([digest; 32]);
            Fingerprints::new([key; 32]).membership(&registry, &repository, n_forgotten, digest)
        };
        let it = of(1, "a.example", "b/c", 0, 7);
        assert_eq!(it, of(1, "a.example", "b/c", 0, 7));
        for other in [
            of(2, "a.example", "b/c", 0, 7),
            of(1, "b.example", "b/c", 0, 7),
            of(1, "a.example", "b/d", 0, 7),
            of(1, "a.example", "b/c", 1, 7),
            of(1, "a.example", "b/c", 0, 8),
        ] {
            assert_ne!(it, other);
        }
    }
}
