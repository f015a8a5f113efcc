//! Which registries there are, and who may read what from them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use http::HeaderValue;
use shoal_model::{Digest, Tick, TrustGroup};
use shoal_oci::{RegistryName, Repository};

use crate::authority::{Authority, Decision, Holder, Right};
use crate::fingerprint::Fingerprints;
use crate::mode::Mode;
use crate::upstream::Upstream;

/// The configured registries and the proofs seen so far.
pub(crate) struct Gate {
    upstreams: BTreeMap<RegistryName, Arc<Upstream>>,
    fingerprints: Fingerprints,
    authority: Mutex<Authority>,
    /// What the authority's time counts from.
    origin: Instant,
}

impl Gate {
    pub(crate) fn new(upstreams: Vec<Arc<Upstream>>, fingerprints: Fingerprints) -> Self {
        Self {
            upstreams: upstreams.into_iter().map(|it| (it.name().clone(), it)).collect(),
            fingerprints,
            authority: Mutex::new(Authority::new()),
            origin: Instant::now(),
        }
    }

    /// The registry of this name, if it is configured.
    pub(crate) fn upstream(&self, name: &RegistryName) -> Option<&Arc<Upstream>> {
        self.upstreams.get(name)
    }

    /// The registry that is meant where none is named: the only one, or else Docker Hub, which is what a
    /// client that names none means.
    pub(crate) fn default_upstream(&self) -> Option<&Arc<Upstream>> {
        match self.upstreams.len() {
            1 => self.upstreams.values().next(),
            _ => self.upstream(&RegistryName::docker_hub()),
        }
    }

    /// The names of all registries, for a message.
    pub(crate) fn names(&self) -> String {
        let names: Vec<_> = self.upstreams.keys().map(RegistryName::as_str).collect();
        names.join(", ")
    }

    /// The trust group of each registry, for nodes that have to do without a gateway.
    pub(crate) fn trust_groups(&self) -> BTreeMap<String, TrustGroup> {
        self.upstreams.iter().map(|(name, it)| (name.to_string(), it.group.clone())).collect()
    }

    /// The right by which a caller with this `Authorization` reads a repository.
    pub(crate) fn right(
        &self,
        upstream: &Upstream,
        repository: &Repository,
        authorization: Option<&HeaderValue>,
    ) -> Right {
        let holder = match upstream.mode {
            Mode::Client => self.fingerprints.holder(authorization),
            Mode::Gateway { .. } => Holder::Gateway,
        };
        Right { registry: upstream.name().clone(), repository: repository.clone(), holder }
    }

    /// Whether a proof opens the blob.
    pub(crate) fn decide(&self, right: &Right, digest: Digest) -> Decision {
        self.authority().decide(self.now(), right, digest)
    }

    /// Notes what the registry granted.
    pub(crate) fn note(&self, right: &Right, blobs: impl IntoIterator<Item = (Digest, u64)>) {
        self.authority().note(self.now(), right, blobs);
    }

    fn now(&self) -> Tick {
        Tick::default().after(self.origin.elapsed())
    }

    fn authority(&self) -> MutexGuard<'_, Authority> {
        self.authority.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
