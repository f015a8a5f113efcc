//! Passwords for Amazon's ECR, which Amazon gives for twelve hours to whom it knows.
//!
//! One password opens all repositories of a registry. So there is one at a time, it is asked for once however
//! many pulls wait for it, and it is renewed early: while Amazon does not answer, the old one goes on
//! working. Who the process is to Amazon is found by Amazon's own rules: keys in the environment or in a
//! profile, a web identity, a pod's or an instance's role. An error tells only what Amazon calls the fault; its
//! text may repeat what was sent.

mod api;

use std::time::Duration;

use http::HeaderValue;
use tokio::sync::Mutex;
use tokio::time::Instant;
use url::Url;

use super::REFUSED;
use super::identity::Proof;
use super::login::Fault;
use crate::kind::Kind;
use api::Api;

/// How long Amazon is not asked again after it gave no password, unless it refused.
const FAILED: Duration = Duration::from_secs(5);
/// A password is renewed when no more than this is left of its life, or than a third of it.
const EARLY: Duration = Duration::from_secs(60 * 60);

/// Where passwords are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AmazonSettings {
    /// Whether the registry is a private one or the public gallery, which have services of their own.
    pub kind: Kind,
    /// The region whose service is asked, `eu-west-1`.
    pub region: String,
    /// The service's address, where it is not the region's usual one.
    pub endpoint: Option<Url>,
}

/// The password for one registry.
pub(super) struct AmazonTokens {
    api: Api,
    /// Locked while Amazon is asked, so that whoever else wants a password waits for the same one.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    token: Option<Token>,
    /// Why the last attempt failed, and until when there is no other.
    failed: Option<(Fault, Instant)>,
}

struct Token {
    basic: HeaderValue,
    /// When a better one should be had.
    due: Instant,
    ends: Instant,
}

impl AmazonTokens {
    pub(super) fn new(settings: AmazonSettings) -> Self {
        Self { api: Api::new(settings), state: Mutex::default() }
    }

    /// The password, from Amazon where none is kept or it is time for another.
    pub(super) async fn proof(&self) -> Result<Proof, Fault> {
        let mut state = self.state.lock().await;
        let now = Instant::now();
        if let Some(proof) = state.token.as_ref().and_then(|it| it.until(it.due, now)) {
            return Ok(proof);
        }
        if let Some((fault, until)) = state.failed.clone().filter(|(_, until)| now < *until) {
            return state.last(now, until).ok_or(fault);
        }
        match self.api.password().await {
            Ok(given) => {
                let token = Token::new(given.basic, given.lives, now);
                let (basic, usable) = (Some(token.basic.clone()), token.due - now);
                *state = State { token: Some(token), failed: None };
                Ok(Proof { basic, usable, is_kept: false })
            }
            Err(fault) => {
                let until = now + if fault.is_refusal() { REFUSED } else { FAILED };
                state.failed = Some((fault.clone(), until));
                let last = state.last(now, until).ok_or_else(|| fault.clone())?;
                tracing::warn!(%fault, "password for ECR not renewed");
                Ok(last)
            }
        }
    }

    /// Forgets the password if it is this one, which the registry has refused.
    pub(super) async fn drop_if(&self, basic: &HeaderValue) {
        let mut state = self.state.lock().await;
        if state.token.as_ref().is_some_and(|it| it.basic == basic) {
            state.token = None;
        }
    }
}

impl State {
    /// The password that should have been renewed, until that is tried again.
    fn last(&self, now: Instant, until: Instant) -> Option<Proof> {
        let token = self.token.as_ref()?;
        token.until(token.ends.min(until), now)
    }
}

impl Token {
    fn new(basic: HeaderValue, lives: Duration, now: Instant) -> Self {
        Self { basic, due: now + renewed_after(lives), ends: now + lives }
    }

    fn until(&self, until: Instant, now: Instant) -> Option<Proof> {
        let usable = until.checked_duration_since(now).filter(|it| !it.is_zero())?;
        Some(Proof { basic: Some(self.basic.clone()), usable, is_kept: true })
    }
}

fn renewed_after(lives: Duration) -> Duration {
    lives - EARLY.min(lives / 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3600;

    #[test]
    fn a_password_is_renewed_an_hour_or_a_third_of_its_life_before_its_end() {
        for (lives, after) in [(12 * HOUR, 11 * HOUR), (3 * HOUR, 2 * HOUR), (900, 600), (0, 0)] {
            assert_eq!(renewed_after(Duration::from_secs(lives)), Duration::from_secs(after), "{lives}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_password_that_cannot_be_renewed_is_used_to_its_end() {
        let now = Instant::now();
        let hours = |n: u64| now + Duration::from_secs(n * HOUR);
        let basic = HeaderValue::from_static("Basic QVdTOng=");
        let token = Token::new(basic, Duration::from_secs(12 * HOUR), now);
        assert!(token.until(token.due, hours(10)).is_some());
        assert!(token.until(token.due, hours(11)).is_none());
        let state = State { token: Some(token), failed: None };
        let usable = |at, until| state.last(at, until).map(|it| it.usable.as_secs() / HOUR);
        assert_eq!(usable(hours(10), hours(11)), Some(1));
        assert_eq!(usable(hours(11), hours(20)), Some(1));
        assert_eq!(usable(hours(12), hours(20)), None);
    }
}
