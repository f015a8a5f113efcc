//! Which blobs a credential is known to open.
//!
//! A blob that lies here must not be handed to somebody whom the registry would refuse, and asking the
//! registry for every blob costs a round trip per layer. But every pull begins with a manifest, and a
//! manifest that the registry answered 200 to a credential proves two things at once: the credential
//! reads that repository, and these blobs belong to it. Such a proof, or a single blob's, is believed for
//! a short life. Any doubt asks again, and a refusal is never remembered: a right that was just granted
//! works at once.
//!
//! Knows nothing of: HTTP, tokens, clocks, storage.

use std::num::NonZeroUsize;
use std::time::Duration;

use lru::LruCache;
use shoal_model::{Digest, Tick};
use shoal_oci::{RegistryName, Repository};

/// How long a proof is believed; a right that was withdrawn works on for that long at most.
const LIVES: Duration = Duration::from_secs(5 * 60);
/// How many proofs are kept, about 150 bytes each. One that is lost costs a request to the registry.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(1 << 18).expect("not zero");
/// How many blobs of one manifest are noted. Images have some dozen; a longer list, which anybody who
/// may push can make, must not push everybody else's proofs out.
const MAX_BLOBS: usize = 2048;

/// Whose right it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Holder {
    /// Nobody in particular: what the registry gives without a credential.
    Anonymous,
    /// Whoever shows the credential with this fingerprint.
    Caller([u8; 32]),
    /// The gateway itself, for all nodes.
    Gateway,
}

/// The right to read one repository.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Right {
    pub(crate) registry: RegistryName,
    pub(crate) repository: Repository,
    pub(crate) holder: Holder,
}

/// What to do with a request for a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// The blob may be read; it is this many bytes long.
    Allow { size: u64 },
    /// Only the registry knows.
    Ask,
}

/// The proofs that were seen.
pub(crate) struct Authority {
    proofs: LruCache<(Right, Digest), Proof>,
}

#[derive(Clone, Copy)]
struct Proof {
    size: u64,
    until: Tick,
}

impl Authority {
    pub(crate) fn new() -> Self {
        Self { proofs: LruCache::new(REMEMBERED) }
    }

    /// Notes that the registry granted these blobs, with their sizes, to the holder of `right`.
    pub(crate) fn note(&mut self, now: Tick, right: &Right, blobs: impl IntoIterator<Item = (Digest, u64)>) {
        let until = now.after(LIVES);
        for (digest, size) in blobs.into_iter().take(MAX_BLOBS) {
            self.proofs.put((right.clone(), digest), Proof { size, until });
        }
    }

    /// Whether the holder of `right` may read a blob of its repository.
    pub(crate) fn decide(&mut self, now: Tick, right: &Right, digest: Digest) -> Decision {
        match self.proofs.get(&(right.clone(), digest)) {
            Some(proof) if now < proof.until => Decision::Allow { size: proof.size },
            _ => Decision::Ask,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn right(registry: &str, repository: &str, holder: Holder) -> Right {
        Right { registry: registry.parse().unwrap(), repository: repository.parse().unwrap(), holder }
    }

    fn blob(n: u8) -> Digest {
        Digest::from_sha256([n; 32])
    }

    #[test]
    fn a_proof_opens_its_own_blobs_to_its_own_holder_in_its_own_repository() {
        let ann = Holder::Caller([1; 32]);
        let mut authority = Authority::new();
        authority.note(Tick(0), &right("a.example", "prod/app", ann), [(blob(1), 10)]);
        let mut check = |registry, repository, holder, digest, expected| {
            let got = authority.decide(Tick(1), &right(registry, repository, holder), digest);
            assert_eq!(got, expected, "{registry} {repository} {holder:?} {digest}");
        };
        check("a.example", "prod/app", ann, blob(1), Decision::Allow { size: 10 });
        check("a.example", "prod/app", ann, blob(2), Decision::Ask);
        check("a.example", "prod/other", ann, blob(1), Decision::Ask);
        check("b.example", "prod/app", ann, blob(1), Decision::Ask);
        for other in [Holder::Anonymous, Holder::Caller([2; 32]), Holder::Gateway] {
            check("a.example", "prod/app", other, blob(1), Decision::Ask);
        }
    }

    #[test]
    fn a_proof_ends_after_five_minutes_unless_it_is_given_again() {
        let right = right("a.example", "prod/app", Holder::Anonymous);
        let minute = |n: u64| Tick::default().after(Duration::from_secs(60 * n));
        let mut authority = Authority::new();
        authority.note(minute(0), &right, [(blob(1), 10), (blob(2), 20)]);
        authority.note(minute(3), &right, [(blob(2), 20)]);
        for (at, digest, expected) in [
            (4, blob(1), Decision::Allow { size: 10 }),
            (5, blob(1), Decision::Ask),
            (7, blob(2), Decision::Allow { size: 20 }),
            (8, blob(2), Decision::Ask),
        ] {
            assert_eq!(authority.decide(minute(at), &right, digest), expected, "{at} {digest}");
        }
    }

    #[test]
    fn one_manifest_cannot_push_out_all_other_proofs() {
        let mut authority = Authority::new();
        let ours = right("a.example", "prod/app", Holder::Anonymous);
        authority.note(Tick(0), &ours, [(blob(1), 10)]);
        let many = (0..u64::MAX).map(|n| {
            let mut sum = [0; 32];
            sum[..8].copy_from_slice(&n.to_le_bytes());
            (Digest::from_sha256(sum), 1)
        });
        authority.note(Tick(0), &right("a.example", "evil", Holder::Anonymous), many);
        assert_eq!(authority.decide(Tick(1), &ours, blob(1)), Decision::Allow { size: 10 });
    }
}
