//! Which registries there are, and who may read what from them.
//!
//! Whatever part of the gateway sees a registry grant something says so here, and whoever hands something out
//! asks here first.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use http::HeaderValue;
use shoal_identity::Caller;
use shoal_model::{Digest, Tick, TrustGroup};
use shoal_oci::manifest::Manifest;
use shoal_oci::{ErrorCode, OciError, RegistryName, Repository};
use tokio::time::Instant;

use crate::audit::{Audit, Event, Reason, Rejection, Requested};
use crate::authority::{Allowed, Authority, Holder, Proof, Right, Size};
use crate::budget::Sharing;
use crate::fingerprint::Fingerprints;
use crate::mode::Mode;
use crate::preheat::image::registry_named;
use crate::upstream::Upstream;

/// The configured registries and the proofs seen so far.
pub(crate) struct Gate {
    upstreams: BTreeMap<RegistryName, Arc<Upstream>>,
    /// The registries that have host names of their own here.
    hosts: BTreeMap<String, RegistryName>,
    fingerprints: Fingerprints,
    allow_for: Duration,
    audit: Audit,
    authority: Mutex<Authority>,
    /// What the authority's time counts from.
    origin: Instant,
}

/// A request that is turned away, whoever may read what.
pub(crate) struct Unfit {
    /// What the node is told.
    pub(crate) error: OciError,
    pub(crate) reason: Reason,
    /// The registry that it names, if it does.
    pub(crate) registry: Option<RegistryName>,
}

impl From<OciError> for Unfit {
    fn from(error: OciError) -> Self {
        Self { error, reason: Reason::Malformed, registry: None }
    }
}

impl Gate {
    /// A proof of a right is believed for `allow_for`.
    pub(crate) fn new(
        upstreams: Vec<Arc<Upstream>>,
        fingerprints: Fingerprints,
        allow_for: Duration,
        audit: Audit,
    ) -> Self {
        let hosts = |it: &Arc<Upstream>| {
            let name = it.name().clone();
            it.hosts.clone().into_iter().map(move |host| (host, name.clone()))
        };
        Self {
            hosts: upstreams.iter().flat_map(hosts).collect(),
            upstreams: upstreams.into_iter().map(|it| (it.name().clone(), it)).collect(),
            authority: Mutex::new(Authority::new(fingerprints.clone())),
            fingerprints,
            allow_for,
            audit,
            origin: Instant::now(),
        }
    }

    /// The registry of this name, if it is configured.
    pub(crate) fn upstream(&self, name: &RegistryName) -> Option<&Arc<Upstream>> {
        self.upstreams.get(name)
    }

    /// The trust group of a registry, where that is in it alone.
    pub(crate) fn group_of(&self, registry: &RegistryName) -> Option<TrustGroup> {
        let group = &self.upstream(registry)?.group;
        let n_members = self.upstreams.values().filter(|it| it.group == *group).count();
        (n_members == 1).then(|| group.clone())
    }

    /// The registries that are read by way of the hub.
    pub(crate) fn behind_hub(&self) -> impl Iterator<Item = &RegistryName> {
        self.upstreams.values().filter(|it| it.is_behind_hub()).map(|it| it.name())
    }

    /// Gateways share the registries like this from now on.
    pub(crate) fn share(&self, sharing: &Sharing) {
        for upstream in self.upstreams.values() {
            upstream.limits.share(sharing);
            upstream.background.share(sharing);
        }
    }

    /// The registry that a request to `host`, without a port, means where it names none: the one that has
    /// that host name here, or else the only one, or else Docker Hub, which is what a client that names none
    /// means.
    pub(crate) fn upstream_at(&self, host: Option<&str>) -> Option<&Arc<Upstream>> {
        let host = host.map(str::to_ascii_lowercase);
        if let Some(name) = host.and_then(|it| self.hosts.get(&it)) {
            return self.upstream(name);
        }
        match self.upstreams.len() {
            1 => self.upstreams.values().next(),
            _ => self.upstream(&RegistryName::docker_hub()),
        }
    }

    /// The registry that `host`, with its port if it has one, is a name of.
    pub(crate) fn registry_named(&self, host: &str) -> Option<RegistryName> {
        registry_named(host, |it| self.upstreams.contains_key(it), |it| self.hosts.get(it).cloned())
    }

    /// The fault of a request that names this registry, or none, and means none that is configured.
    pub(crate) fn unknown(&self, named: &str, registry: Option<RegistryName>) -> Unfit {
        let names: Vec<_> = self.upstreams.keys().map(RegistryName::as_str).collect();
        let message = format!("registry {named}: not one of {}", names.join(", "));
        let error = OciError { code: ErrorCode::NameUnknown, message };
        Unfit { error, reason: Reason::UnknownRegistry, registry }
    }

    /// The trust group of each registry, for nodes that have to do without a gateway.
    pub(crate) fn trust_groups(&self) -> BTreeMap<String, TrustGroup> {
        self.upstreams.iter().map(|(name, it)| (name.to_string(), it.group.clone())).collect()
    }

    /// How long a proof of a right is believed.
    pub(crate) const fn allow_for(&self) -> Duration {
        self.allow_for
    }

    /// Where decisions are told.
    pub(crate) const fn audit(&self) -> &Audit {
        &self.audit
    }

    /// Tells that a node's request was turned away before anybody's right was looked at.
    pub(crate) async fn rejected(
        &self,
        from: &Caller,
        request: Requested,
        reason: Reason,
        registry: Option<RegistryName>,
    ) {
        let node = from.identity.as_ref().map(|it| it.node.clone());
        let rejection = Rejection { node, client: from.address, request, registry, reason };
        self.audit.record(Event::Rejection(rejection)).await;
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

    /// Whether the holder of `right`, who shows this `Authorization`, is known to be allowed to read the blob.
    pub(crate) fn decide(
        &self,
        right: &Right,
        authorization: Option<&HeaderValue>,
        digest: Digest,
    ) -> Option<Allowed> {
        if self.authority().proof(self.now(), right).is_none() {
            // A signature takes too long to hold the others up meanwhile.
            let lives = self.proven_by_token(right, authorization?)?;
            self.authority().grant(self.now(), right, Proof::TokenKey, lives.min(self.allow_for));
        }
        self.authority().decide(self.now(), right, digest)
    }

    /// The registry answered 200 to a request for a blob, or for part of it, by the holder of `right`.
    pub(crate) fn blob_granted(&self, right: &Right, digest: Digest, size: Size) {
        let now = self.now();
        let mut authority = self.authority();
        authority.grant(now, right, Proof::BlobHead, self.allow_for);
        authority.include(now, right, [(digest, size)]);
    }

    /// The registry answered 200 to a request for a manifest by the holder of `right`.
    pub(crate) fn manifest_granted(&self, right: &Right) {
        self.authority().grant(self.now(), right, Proof::Manifest, self.allow_for);
    }

    /// A manifest of the repository of `right`, of which the registry has made sure that it has all blobs.
    pub(crate) fn manifest_seen(&self, right: &Right, bytes: &[u8]) {
        match Manifest::parse(bytes) {
            Ok(manifest) => self.authority().include(self.now(), right, own_blobs(&manifest)),
            // It passed through all the same; its blobs are proven one by one.
            Err(error) => tracing::debug!(registry = %right.registry, %error, "manifest not read"),
        }
    }

    /// Forgets all that was proven of a repository, and what opens it at the hub.
    pub(crate) fn forget(&self, registry: &RegistryName, repository: &Repository) {
        self.authority().forget(registry, repository);
        if let Some(upstream) = self.upstream(registry) {
            upstream.forget(repository);
        }
    }

    fn proven_by_token(&self, right: &Right, authorization: &HeaderValue) -> Option<Duration> {
        match right.holder {
            Holder::Caller(_) => {}
            Holder::Anonymous | Holder::Gateway => return None,
        }
        let tokens = self.upstream(&right.registry)?.token_key.as_ref()?.tokens();
        tokens.proves(SystemTime::now(), authorization, &right.repository)
    }

    fn now(&self) -> Tick {
        Tick::default().after(self.origin.elapsed())
    }

    fn authority(&self) -> MutexGuard<'_, Authority> {
        self.authority.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The blobs that the registry itself has. Of those that a licence keeps elsewhere it makes sure of nothing.
fn own_blobs(manifest: &Manifest) -> impl Iterator<Item = (Digest, Size)> {
    let own = manifest.blobs().filter(|it| !it.is_foreign());
    own.filter_map(|it| Some((it.digest.sha256()?, Size::Claimed(it.size))))
}
