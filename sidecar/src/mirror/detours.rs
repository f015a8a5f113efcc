//! Registries that the gateway had no answer from a moment ago.
//!
//! A gateway that does not reach a registry is found out by waiting for it, and an image takes several requests, one
//! after the other. So the first one waits, and for a while after that the registry is asked first.

use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use lru::LruCache;
use shoal_oci::RegistryName;
use tokio::time::Instant;

/// How long the registry comes first: then one request tries the gateway again, for all.
const AWHILE: Duration = Duration::from_secs(5);
const MAX_REGISTRIES: NonZeroUsize = NonZeroUsize::new(256).expect("not zero");

/// Until when each registry is asked first.
pub(super) struct Detours(Mutex<LruCache<RegistryName, Instant>>);

impl Default for Detours {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(MAX_REGISTRIES)))
    }
}

impl Detours {
    /// Whether this request is to ask the registry first. Once the time is up the first that comes is not, and the others
    /// do not wait with it.
    pub(super) fn is_taken(&self, registry: &RegistryName, now: Instant) -> bool {
        let mut detours = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(until) = detours.get_mut(registry) else { return false };
        if *until > now {
            return true;
        }
        *until = now + AWHILE;
        false
    }

    /// The gateway had an answer from the registry, or had none.
    pub(super) fn note(&self, registry: &RegistryName, is_answered: bool, now: Instant) {
        let mut detours = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if is_answered {
            detours.pop(registry);
        } else {
            detours.put(registry.clone(), now + AWHILE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_comes_first_for_a_while_and_then_one_request_tries_the_gateway() {
        let (detours, now) = (Detours::default(), Instant::now());
        let [silent, well] = ["silent.example", "well.example"].map(|it| it.parse().unwrap());
        let is_taken = |after| detours.is_taken(&silent, now + after);
        assert!(!is_taken(Duration::ZERO));
        detours.note(&silent, false, now);
        detours.note(&well, true, now);
        assert!(is_taken(AWHILE / 2));
        assert!(!detours.is_taken(&well, now));
        assert!(!is_taken(AWHILE));
        assert!(is_taken(AWHILE), "another one tries already");
        detours.note(&silent, true, now + AWHILE);
        assert!(!is_taken(AWHILE), "it was well again");
    }
}
