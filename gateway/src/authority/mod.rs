//! Who may read which blob, as the registries themselves have shown.
//!
//! A blob that lies here must not be handed to somebody whom the registry would refuse, and asking the
//! registry for every blob costs a round trip per layer. Two facts open a blob, and both are proven by
//! answers that a pull brings about anyway:
//!
//! - The *right*: this holder may read this repository. Whatever manifest or blob of it the registry answered
//!   200 to a credential proves that, as does a token that the registry's own service signed
//!   ([`access_token`]). A right can be withdrawn, so a proof is believed for a short life, and a refusal is
//!   never remembered: a right that was just granted works at once.
//! - The *membership*: this blob belongs to this repository. Without it, knowing the digest of a private
//!   layer would be enough to get it by way of any public repository. It does not depend on who asks, so one
//!   proof serves all holders, for long: the registry's 200 for the blob itself, or a manifest that names it
//!   where the registry is of a kind that takes no manifest of blobs that it does not have. It is not for
//!   ever, because a repository can be deleted and made anew for somebody else.
//!
//! Whatever is in doubt or was forgotten is asked again.
//!
//! Knows nothing of: HTTP, clocks, storage, which registries there are.

pub mod access_token;

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::time::Duration;

use lru::LruCache;
use serde::Serialize;
use shoal_model::{Digest, Tick};
use shoal_oci::{RegistryName, Repository};

use crate::fingerprint::{Fingerprints, Membership};

/// How long a blob is believed to belong to a repository.
const MEMBERSHIP: Duration = Duration::from_secs(24 * 60 * 60);
/// How many rights are kept, about 150 bytes each. One that is lost costs a request to the registry.
const MAX_RIGHTS: NonZeroUsize = NonZeroUsize::new(1 << 16).expect("not zero");
/// How many memberships are kept, about 100 bytes each.
const MAX_MEMBERS: NonZeroUsize = NonZeroUsize::new(1 << 18).expect("not zero");
/// How many repositories that were forgotten are told apart from those that were not.
const MAX_FORGOTTEN: usize = 4096;
/// How many blobs of one manifest are noted. Images have some dozen; a longer list, which anybody who
/// may push can make, must not push everybody else's out.
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

/// What decided about a right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Proof {
    /// A manifest that the registry had given to the caller.
    Manifest,
    /// The registry's answer to a request for the blob.
    BlobHead,
    /// The registry's signature on the caller's token.
    TokenKey,
    /// The list of what nodes may pull with the gateway's own right.
    AllowList,
}

/// How many bytes long a blob is, and by whose word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Size {
    /// A manifest says so, which anybody who may push has written.
    Claimed(u64),
    /// The registry said so of the blob itself.
    Stated(u64),
}

impl Size {
    const fn bytes(self) -> u64 {
        match self {
            Self::Claimed(bytes) | Self::Stated(bytes) => bytes,
        }
    }
}

/// The blob may be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Allowed {
    /// Its length in bytes, as far as known.
    pub(crate) size: u64,
    pub(crate) proof: Proof,
}

/// The proofs that were seen.
pub(crate) struct Authority {
    fingerprints: Fingerprints,
    rights: LruCache<Right, Granted>,
    members: LruCache<Membership, Member>,
    /// How often repositories were forgotten. What was noted before stands under another name than what is looked for.
    forgotten: BTreeMap<(RegistryName, Repository), u32>,
}

#[derive(Clone, Copy)]
struct Granted {
    proof: Proof,
    until: Tick,
}

#[derive(Clone, Copy)]
struct Member {
    size: Size,
    until: Tick,
}

impl Authority {
    pub(crate) fn new(fingerprints: Fingerprints) -> Self {
        let (rights, members) = (LruCache::new(MAX_RIGHTS), LruCache::new(MAX_MEMBERS));
        Self { fingerprints, rights, members, forgotten: BTreeMap::new() }
    }

    /// Forgets all that was proven of a repository.
    pub(crate) fn forget(&mut self, registry: &RegistryName, repository: &Repository) {
        let is_meant = |it: &Right| (&it.registry, &it.repository) == (registry, repository);
        let meant: Vec<_> = self.rights.iter().map(|(it, _)| it).filter(|it| is_meant(it)).cloned().collect();
        for right in meant {
            self.rights.pop(&right);
        }
        if self.forgotten.len() >= MAX_FORGOTTEN {
            // Whatever stood under an earlier name is gone with all the others.
            self.members.clear();
            self.forgotten.clear();
        }
        *self.forgotten.entry((registry.clone(), repository.clone())).or_default() += 1;
    }

    /// Notes that `right` was proven, to be believed for `lives`; longer where an earlier proof is.
    pub(crate) fn grant(&mut self, now: Tick, right: &Right, proof: Proof, lives: Duration) {
        let until = now.after(lives);
        let earlier = self.rights.get(right).filter(|it| it.until > until);
        if earlier.is_none() {
            self.rights.put(right.clone(), Granted { proof, until });
        }
    }

    /// Notes that the blobs belong to the repository of `right`, whoever holds it.
    pub(crate) fn include(
        &mut self,
        now: Tick,
        right: &Right,
        blobs: impl IntoIterator<Item = (Digest, Size)>,
    ) {
        let until = now.after(MEMBERSHIP);
        for (digest, size) in blobs.into_iter().take(MAX_BLOBS) {
            let member = self.member(right, digest);
            let known = self.members.get(&member).filter(|it| now < it.until).map(|it| it.size);
            let size = match (known, size) {
                // No claim stands against the registry's own word.
                (Some(stated @ Size::Stated(_)), Size::Claimed(_)) => stated,
                _ => size,
            };
            self.members.put(member, Member { size, until });
        }
    }

    /// By what `right` is proven, if it is.
    pub(crate) fn proof(&mut self, now: Tick, right: &Right) -> Option<Proof> {
        self.rights.get(right).filter(|it| now < it.until).map(|it| it.proof)
    }

    /// Whether the holder of `right` may read a blob of its repository. `None`: only the registry knows.
    pub(crate) fn decide(&mut self, now: Tick, right: &Right, digest: Digest) -> Option<Allowed> {
        let proof = self.proof(now, right)?;
        let member = self.member(right, digest);
        let member = self.members.get(&member).filter(|it| now < it.until)?;
        Some(Allowed { size: member.size.bytes(), proof })
    }

    fn member(&self, right: &Right, digest: Digest) -> Membership {
        let of = (right.registry.clone(), right.repository.clone());
        let n_forgotten = self.forgotten.get(&of).copied().unwrap_or_default();
        self.fingerprints.membership(&right.registry, &right.repository, n_forgotten, digest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIVES: Duration = Duration::from_secs(300);
    const CLAIMED: Size = Size::Claimed(10);

    const ANN: Holder = Holder::Caller([1; 32]);
    const BOB: Holder = Holder::Caller([2; 32]);

    fn right(registry: &str, repository: &str, holder: Holder) -> Right {
        Right { registry: registry.parse().unwrap(), repository: repository.parse().unwrap(), holder }
    }

    fn blob(n: u8) -> Digest {
        Digest::from_sha256([n; 32])
    }

    fn minute(n: u64) -> Tick {
        Tick::default().after(Duration::from_secs(60 * n))
    }

    fn authority() -> Authority {
        Authority::new(Fingerprints::new([1; 32]))
    }

    /// An authority to whom Ann has proven her right on `prod/app`, which has blob 1.
    fn convinced() -> Authority {
        let mut authority = authority();
        let right = right("a.example", "prod/app", ANN);
        authority.grant(Tick(0), &right, Proof::Manifest, LIVES);
        authority.include(Tick(0), &right, [(blob(1), CLAIMED)]);
        authority
    }

    #[test]
    fn a_right_opens_the_blobs_of_its_own_repository_to_its_own_holder() {
        let mut authority = convinced();
        let allowed = Some(Allowed { size: 10, proof: Proof::Manifest });
        let mut check = |registry, repository, holder, digest, expected| {
            let got = authority.decide(Tick(1), &right(registry, repository, holder), digest);
            assert_eq!(got, expected, "{registry} {repository} {holder:?} {digest}");
        };
        check("a.example", "prod/app", ANN, blob(1), allowed);
        check("a.example", "prod/app", ANN, blob(2), None);
        check("a.example", "prod/other", ANN, blob(1), None);
        check("b.example", "prod/app", ANN, blob(1), None);
        for other in [Holder::Anonymous, BOB, Holder::Gateway] {
            check("a.example", "prod/app", other, blob(1), None);
        }
    }

    #[test]
    fn a_membership_serves_every_holder_of_a_right_and_no_other_repository() {
        let mut authority = convinced();
        for (repository, expected) in [("prod/app", Some(10)), ("public/app", None)] {
            let right = right("a.example", repository, Holder::Anonymous);
            authority.grant(Tick(0), &right, Proof::BlobHead, LIVES);
            assert_eq!(
                authority.decide(Tick(1), &right, blob(1)).map(|it| it.size),
                expected,
                "{repository}"
            );
        }
    }

    #[test]
    fn a_right_ends_with_its_life_unless_it_is_proven_again() {
        let right = right("a.example", "prod/app", ANN);
        let mut authority = convinced();
        let mut check = |at, expected| {
            assert_eq!(authority.proof(minute(at), &right), expected, "minute {at}");
        };
        check(4, Some(Proof::Manifest));
        check(5, None);
        authority.grant(minute(5), &right, Proof::BlobHead, LIVES);
        // A token that ends soon takes nothing from what is proven for longer.
        authority.grant(minute(6), &right, Proof::TokenKey, Duration::from_secs(60));
        for (at, expected) in [(9, Some(Proof::BlobHead)), (10, None)] {
            assert_eq!(authority.proof(minute(at), &right), expected, "minute {at}");
        }
    }

    #[test]
    fn a_membership_outlives_the_right_that_proved_it_by_a_day_at_most() {
        let mut authority = convinced();
        for (at, holder, expected) in [(60, ANN, Some(10)), (24 * 60, BOB, None)] {
            let right = right("a.example", "prod/app", holder);
            authority.grant(minute(at), &right, Proof::Manifest, LIVES);
            let got = authority.decide(minute(at), &right, blob(1));
            assert_eq!(got.map(|it| it.size), expected, "minute {at}");
        }
    }

    #[test]
    fn the_registrys_word_about_a_size_stands_against_claims() {
        let mut authority = convinced();
        let right = right("a.example", "prod/app", ANN);
        for (said, expected) in
            [(Size::Claimed(20), 20), (Size::Stated(30), 30), (Size::Claimed(40), 30), (Size::Stated(50), 50)]
        {
            authority.include(Tick(0), &right, [(blob(1), said)]);
            assert_eq!(authority.decide(Tick(1), &right, blob(1)).unwrap().size, expected, "{said:?}");
        }
    }

    #[test]
    fn what_is_forgotten_is_proven_anew_and_the_rest_stays() {
        let mut authority = convinced();
        let [app, other] = ["prod/app", "prod/other"].map(|it| right("a.example", it, ANN));
        authority.grant(Tick(0), &other, Proof::Manifest, LIVES);
        authority.include(Tick(0), &other, [(blob(1), CLAIMED)]);
        let is_known = |it: &mut Authority, right| it.decide(Tick(1), right, blob(1)).is_some();
        authority.forget(&app.registry, &app.repository);
        assert_eq!([&app, &other].map(|it| is_known(&mut authority, it)), [false, true]);
        authority.grant(Tick(0), &app, Proof::Manifest, LIVES);
        assert!(!is_known(&mut authority, &app), "that the blob belongs there is forgotten as well");
        authority.include(Tick(0), &app, [(blob(1), CLAIMED)]);
        assert!(is_known(&mut authority, &app));
    }

    #[test]
    fn however_many_are_forgotten_nothing_comes_back() {
        let mut authority = convinced();
        let app = right("a.example", "prod/app", ANN);
        authority.forget(&app.registry, &app.repository);
        for number in 0..=MAX_FORGOTTEN {
            authority.forget(&app.registry, &format!("r{number}").parse().unwrap());
        }
        authority.grant(Tick(0), &app, Proof::Manifest, LIVES);
        assert_eq!(authority.decide(Tick(1), &app, blob(1)), None);
        assert!(authority.forgotten.len() <= MAX_FORGOTTEN);
    }

    #[test]
    fn one_manifest_cannot_push_out_all_other_memberships() {
        let mut authority = convinced();
        let many = (0..u64::MAX).map(|n| {
            let mut sum = [0; 32];
            sum[..8].copy_from_slice(&n.to_le_bytes());
            (Digest::from_sha256(sum), CLAIMED)
        });
        authority.include(Tick(0), &right("a.example", "evil", Holder::Anonymous), many);
        let ann = right("a.example", "prod/app", ANN);
        assert!(authority.decide(Tick(1), &ann, blob(1)).is_some());
    }
}
