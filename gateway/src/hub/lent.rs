//! What seeds show the hub: callers' credentials, and tickets that the hub itself has given for what it orders.
//!
//! Where callers' own credentials decide, the hub gives nothing to a region for its certificate alone. A seed works for
//! those who were allowed to read its repository, so it shows the hub what the last of them showed. It is kept in memory
//! for as long as it proves that right by itself, and is gone as soon as it is refused.

use std::num::NonZeroUsize;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::HeaderValue;
use lru::LruCache;
use shoal_model::{Authorization, Digest};
use shoal_oci::Repository;
use shoal_proto::Ticket;
use tokio::time::Instant;

/// How long a credential is kept after its caller was last allowed.
const KEPT: Duration = Duration::from_secs(5 * 60);
/// For how many repositories.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(4096).expect("not zero");

/// One for each repository.
pub(super) struct Lent(Mutex<LruCache<Repository, (Authorization, Instant)>>);

impl Lent {
    pub(super) fn new() -> Self {
        Self(Mutex::new(LruCache::new(REMEMBERED)))
    }

    pub(super) fn lend(&self, repository: &Repository, authorization: &HeaderValue) {
        let Ok(text) = authorization.to_str() else { return };
        let kept = (Authorization::new(text.to_owned()), Instant::now() + KEPT);
        self.kept().put(repository.clone(), kept);
    }

    /// What opens the repository, where anything is known to.
    pub(super) fn of(&self, repository: &Repository) -> Option<HeaderValue> {
        let mut kept = self.kept();
        let (authorization, until) = kept.get(repository)?;
        if *until <= Instant::now() {
            kept.pop(repository);
            return None;
        }
        let mut value = HeaderValue::from_str(authorization.expose()).ok()?;
        value.set_sensitive(true);
        Some(value)
    }

    /// It opens the repository no more, unless another has been lent meanwhile.
    pub(super) fn refused(&self, repository: &Repository, authorization: &HeaderValue) {
        let mut kept = self.kept();
        if kept.peek(repository).is_some_and(|(it, _)| it.expose().as_bytes() == authorization.as_bytes()) {
            kept.pop(repository);
        }
    }

    /// Nothing is known to open the repository any more.
    pub(super) fn forget(&self, repository: &Repository) {
        self.kept().pop(repository);
    }

    fn kept(&self) -> MutexGuard<'_, LruCache<Repository, (Authorization, Instant)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// For how many blobs the hub's tickets are kept.
const ENTRUSTED: NonZeroUsize = NonZeroUsize::new(1 << 14).expect("not zero");

/// The hub's latest ticket for each blob, for as long as it is good.
pub(super) struct Entrusted(Mutex<LruCache<(Repository, Digest), (HeaderValue, Instant)>>);

impl Entrusted {
    pub(super) fn new() -> Self {
        Self(Mutex::new(LruCache::new(ENTRUSTED)))
    }

    pub(super) fn keep(&self, repository: &Repository, digest: Digest, ticket: &Ticket, lives: Duration) {
        let Ok(mut value) = HeaderValue::from_str(&ticket.0) else { return };
        value.set_sensitive(true);
        self.kept().put((repository.clone(), digest), (value, Instant::now() + lives));
    }

    pub(super) fn of(&self, repository: &Repository, digest: Digest) -> Option<HeaderValue> {
        let mut kept = self.kept();
        let (ticket, until) = kept.get(&(repository.clone(), digest))?;
        (*until > Instant::now()).then(|| ticket.clone())
    }

    fn kept(&self) -> MutexGuard<'_, LruCache<(Repository, Digest), (HeaderValue, Instant)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_last_credential_counts_until_it_is_refused_or_old() {
        let (app, other): (Repository, Repository) = ("prod/app".parse().unwrap(), "prod/x".parse().unwrap());
        let [ann, bob] = ["Bearer a", "Bearer b"].map(HeaderValue::from_static);
        let lent = Lent::new();
        lent.lend(&app, &ann);
        lent.lend(&app, &bob);
        assert_eq!((lent.of(&app), lent.of(&other)), (Some(bob.clone()), None));
        assert!(!format!("{:?}", lent.of(&app)).contains("Bearer"));
        lent.refused(&app, &ann);
        assert_eq!(lent.of(&app), Some(bob.clone()), "another was refused");
        lent.refused(&app, &bob);
        assert_eq!(lent.of(&app), None);
        lent.lend(&app, &ann);
        tokio::time::advance(KEPT).await;
        assert_eq!(lent.of(&app), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_ticket_is_for_one_blob_and_is_kept_while_it_is_good() {
        let app: Repository = "prod/app".parse().unwrap();
        let [blob, other] = [1, 2].map(|it| Digest::from_sha256([it; 32]));
        let entrusted = Entrusted::new();
        for text in ["old", "new"] {
            entrusted.keep(&app, blob, &Ticket(text.to_owned()), Duration::from_secs(300));
        }
        assert_eq!(entrusted.of(&app, blob).as_ref().map(|it| it.as_bytes()), Some(&b"new"[..]));
        assert!(!format!("{:?}", entrusted.of(&app, blob)).contains("new"));
        assert_eq!(entrusted.of(&app, other), None);
        tokio::time::advance(Duration::from_secs(300)).await;
        assert_eq!(entrusted.of(&app, blob), None);
    }
}
