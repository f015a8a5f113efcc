//! The claim of one seed that is at work, kept up with Redis.

use std::sync::{Mutex, MutexGuard, PoisonError};

use shoal_model::{BlobKey, NodeId};
use tokio::time::{Instant, sleep};

use super::Sisters;
use super::claim::{Answer, Claim, RENEWAL, Turn};
use super::metrics::Asked;

/// One seed's claim to read its blob.
pub(crate) struct Tenure {
    sisters: Sisters,
    key: BlobKey,
    me: NodeId,
    claim: Mutex<Claim>,
}

impl Tenure {
    pub(super) fn new(sisters: Sisters, key: BlobKey, is_named: bool) -> Self {
        let me = sisters.me();
        let claim = Mutex::new(Claim::new(me.clone(), sisters.0.epochs.tell(), is_named));
        Self { sisters, key, me, claim }
    }

    /// What the seed may do now.
    pub(crate) fn turn(&self) -> Turn {
        let has_redis = self.sisters.0.redis.as_ref().is_some_and(super::Redis::is_up);
        let roll = self.sisters.0.roll.borrow();
        self.claim().turn(Instant::now(), has_redis, &roll.owner(&self.key).id)
    }

    /// Asks for the lease, or renews it. Takes a moment at the most.
    pub(crate) async fn ask(&self) {
        let Some(redis) = &self.sisters.0.redis else { return };
        let (asked, leased) = (Instant::now(), self.claim().leased());
        let answer = redis.hold(&self.key, &self.me, leased, self.sisters.0.epochs.tell()).await;
        self.sisters.0.metrics.asked(match &answer {
            Ok(Answer::Yours { epoch }) if leased == Some(*epoch) => Asked::Renewed,
            Ok(Answer::Yours { .. }) => Asked::Taken,
            Ok(Answer::Another(_)) if leased.is_some() => Asked::Lost,
            Ok(Answer::Another(_)) => Asked::Another,
            Err(_) => Asked::Unanswered,
        });
        match answer {
            Ok(answer) => self.claim().heard(asked, Instant::now(), answer),
            Err(error) => tracing::debug!(blob = %self.key, %error, "no lease"),
        }
    }

    /// Makes sure that this seed may publish at this moment; returns the epoch that it does so in. `None` where another
    /// gateway has taken over.
    pub(crate) async fn confirm(&self) -> Option<u64> {
        loop {
            match self.turn() {
                Turn::Read => return Some(self.epoch()),
                // Redis answers, or is away from then on.
                Turn::Ask => self.ask().await,
                Turn::Follow(_) => return None,
            }
        }
    }

    /// Renews the lease for as long as it can be; returns when another gateway has taken over.
    pub(crate) async fn keep(&self) {
        if self.sisters.0.redis.is_none() {
            return std::future::pending().await;
        }
        while !matches!(self.turn(), Turn::Follow(_)) {
            sleep(RENEWAL).await;
            self.ask().await;
        }
    }

    /// The gateway that was followed does not serve the blob.
    pub(crate) fn was_left_by(&self, followed: &NodeId) {
        let owner = self.sisters.0.roll.borrow().owner(&self.key).id.clone();
        self.claim().was_left_by(&owner, followed);
    }

    /// What is signed now belongs to this epoch.
    pub(crate) fn epoch(&self) -> u64 {
        self.claim().epoch()
    }

    /// Gives the lease back, where there is one.
    pub(crate) async fn release(&self) {
        let leased = self.claim().leased();
        if let (Some(redis), Some(leased)) = (&self.sisters.0.redis, leased)
            && let Err(error) = redis.release(&self.key, &self.me, leased).await
        {
            tracing::debug!(blob = %self.key, %error, "lease not given back; it ends by itself");
        }
    }

    fn claim(&self) -> MutexGuard<'_, Claim> {
        self.claim.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
