//! A claim that is made use of, kept up with Redis.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use shoal_model::NodeId;
use tokio::time::{Instant, sleep};

use super::Sisters;
use super::claim::{Answer, Claim, LIFE, Matter, RENEWAL, Turn};
use super::metrics::Asked;

/// One claim of this gateway's.
pub(crate) struct Tenure {
    sisters: Sisters,
    matter: Matter,
    me: NodeId,
    claim: Mutex<Claim>,
}

impl Tenure {
    pub(super) fn new(sisters: Sisters, matter: Matter, is_named: bool) -> Self {
        let me = sisters.me();
        let claim = Mutex::new(Claim::new(me.clone(), sisters.0.epochs.tell(), is_named));
        Self { sisters, matter, me, claim }
    }

    /// What may be done now.
    pub(crate) fn turn(&self) -> Turn {
        self.claim().turn(Instant::now(), self.sisters.has_redis(), &self.owner())
    }

    /// Asks for the lease, or renews it. Takes a moment at the most.
    pub(crate) async fn ask(&self) {
        self.ask_for(LIFE).await;
    }

    /// Asks for the lease, and says whether it was had: not merely believed because Redis is away.
    pub(crate) async fn win(&self) -> bool {
        self.ask().await;
        self.claim().leased().is_some()
    }

    /// Makes sure that nobody else takes the matter up for so long, whatever becomes of this gateway. False where
    /// another gateway has it.
    pub(crate) async fn hold_for(&self, life: Duration) -> bool {
        let is_anothers = self.ask_for(life).await;
        !is_anothers && !matches!(self.turn(), Turn::Follow(_))
    }

    /// Asks for the lease for so long; true where Redis says that another gateway has it.
    async fn ask_for(&self, life: Duration) -> bool {
        let Some(redis) = &self.sisters.0.redis else { return false };
        let (asked, leased) = (Instant::now(), self.claim().leased());
        let epochs = (leased, self.sisters.0.epochs.tell());
        let answer = redis.hold(&self.matter.to_string(), &self.me, life, epochs).await;
        let outcome = match &answer {
            Ok(Answer::Yours { epoch }) if leased == Some(*epoch) => Asked::Renewed,
            Ok(Answer::Yours { .. }) => Asked::Taken,
            Ok(Answer::Another(_)) if leased.is_some() => Asked::Lost,
            Ok(Answer::Another(_)) => Asked::Another,
            Err(_) => Asked::Unanswered,
        };
        self.sisters.0.metrics.asked(&self.matter, outcome);
        let is_anothers = matches!(answer, Ok(Answer::Another(_)));
        match answer {
            Ok(answer) => self.claim().heard(asked, Instant::now(), answer),
            Err(error) => tracing::debug!(lease = %self.matter, %error, "no lease"),
        }
        is_anothers
    }

    /// Makes sure that it may be done at this moment; returns the epoch that this belongs to. `None` where another
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
        let owner = self.owner();
        self.claim().was_left_by(&owner, followed);
    }

    /// What is done now belongs to this epoch.
    pub(crate) fn epoch(&self) -> u64 {
        self.claim().epoch()
    }

    /// Gives the lease back, where there is one.
    pub(crate) async fn release(&self) {
        let leased = self.claim().leased();
        if let (Some(redis), Some(leased)) = (&self.sisters.0.redis, leased)
            && let Err(error) = redis.release(&self.matter.to_string(), &self.me, leased).await
        {
            tracing::debug!(lease = %self.matter, %error, "lease not given back; it ends by itself");
        }
    }

    fn owner(&self) -> NodeId {
        match &self.matter {
            Matter::Blob(key) => self.sisters.0.roll.borrow().owner(key).id.clone(),
            Matter::Job(_) => self.me.clone(),
        }
    }

    fn claim(&self) -> MutexGuard<'_, Claim> {
        self.claim.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
