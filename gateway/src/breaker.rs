//! Remembers that a registry has fallen silent, so that not everybody who asks waits for it anew.
//!
//! Nodes wait for the gateway's word for a moment only, and then go to the registry by themselves. Where the gateway
//! cannot reach it, each layer of each image would cost that moment. So after one request that was given up without
//! an answer others are refused at once; from time to time one is let through, and the first answer ends it.
//!
//! Busy is not silent: a registry from which anything came meanwhile, if only some bytes of a blob over a link that is
//! full of them, is waited for as before.
//!
//! Knows nothing of: clocks, requests, registries.

use std::time::Duration;

use tokio::time::Instant;

/// A request that was given up sooner says nothing about the registry.
const SILENT: Duration = Duration::from_secs(1);
/// How long nobody asks after that.
const REST: Duration = Duration::from_secs(5);
/// How long one that was let through has for itself.
const PROBE: Duration = Duration::from_millis(1500);

/// Whether a registry is worth asking.
#[derive(Debug, Default)]
pub(crate) struct Breaker {
    /// When the registry last sent anything.
    heard_at: Option<Instant>,
    /// From when on one request is let through; `None` while the registry answers.
    tripped_until: Option<Instant>,
}

impl Breaker {
    /// Whether a request may be sent now. One that may though the registry was silent is a probe: for a while there is
    /// no other.
    pub(crate) fn admits(&mut self, now: Instant) -> bool {
        match &mut self.tripped_until {
            None => true,
            Some(until) if *until <= now => {
                *until = now + PROBE;
                true
            }
            Some(_) => false,
        }
    }

    /// The registry has sent something.
    pub(crate) fn heard(&mut self, now: Instant) {
        *self = Self { heard_at: Some(now), tripped_until: None };
    }

    /// A request was given up, or failed, with no answer after so long; whether that is news.
    pub(crate) fn unanswered(&mut self, now: Instant, waited: Duration) -> bool {
        let is_silent = self.heard_at.is_none_or(|it| now.duration_since(it) >= waited);
        if waited < SILENT || !is_silent {
            return false;
        }
        self.tripped_until.replace(now + REST).is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_registry_is_asked_by_one_at_a_time() {
        let (mut it, mut now) = (Breaker::default(), Instant::now());
        assert!(it.admits(now) && it.admits(now));
        assert!(!it.unanswered(now, SILENT / 2), "the caller went away");
        assert!(it.admits(now));
        assert!(it.unanswered(now, SILENT));
        for _ in 0..3 {
            assert!(!it.admits(now + REST - Duration::from_millis(1)));
            now += REST;
            assert!(it.admits(now), "a probe");
            assert!(!it.admits(now), "no second one");
            assert!(!it.unanswered(now, SILENT), "known");
        }
        it.heard(now);
        assert!(it.admits(now) && it.admits(now));
    }

    #[test]
    fn a_busy_registry_is_not_a_silent_one() {
        let (mut it, now) = (Breaker::default(), Instant::now());
        it.heard(now);
        assert!(!it.unanswered(now + SILENT, SILENT * 2), "something came after it was asked");
        assert!(it.admits(now + SILENT));
        assert!(it.unanswered(now + SILENT, SILENT));
    }

    #[test]
    fn a_probe_that_nobody_waits_for_is_followed_by_another() {
        let (mut it, now) = (Breaker::default(), Instant::now());
        it.unanswered(now, SILENT);
        assert!(it.admits(now + REST));
        assert!(!it.admits(now + REST + PROBE / 2));
        assert!(it.admits(now + REST + PROBE));
    }
}
