//! A seed's claim to read its blob from the registry: when it may, and when another gateway does.
//!
//! With Redis whoever has the *lease* on a blob reads it, whether it owns the blob or not. A lease lives for a few
//! seconds unless it is renewed; its holder believes in it for a little less, counted from before it asked, so that it
//! has stopped when somebody else may begin. A gateway that was paused finds by its own clock that the time is over,
//! and looks before it publishes anything. Each lease has an *epoch* that is greater than all before it.
//!
//! Without Redis no lease is to be had, and the owner reads.
//!
//! Who is asked for a blob that it does not own leaves it to the owner, unless the scheduler has named this gateway, or
//! the owner does not serve it.
//!
//! Knows nothing of: Redis, sockets, what a blob is.

use std::time::Duration;

use shoal_model::NodeId;
use tokio::time::Instant;

/// How long a lease lives unless it is renewed.
pub(super) const LIFE: Duration = Duration::from_secs(5);
/// How often it is renewed.
pub(super) const RENEWAL: Duration = Duration::from_secs(1);
/// So much earlier than Redis its holder takes it for ended: clocks do not run alike.
const MARGIN: Duration = Duration::from_secs(1);
/// After so long whoever waits for another's lease looks again.
const LOOK: Duration = Duration::from_millis(500);

/// One seed's claim.
#[derive(Debug)]
pub(super) struct Claim {
    me: NodeId,
    /// What is signed now belongs to this epoch.
    epoch: u64,
    held: Held,
    /// Whether this gateway may ask for the lease on a blob that it does not own.
    is_called: bool,
    /// The owner was asked and serves it not.
    is_forsaken: bool,
}

/// Who has the lease, as far as is known.
#[derive(Debug)]
enum Held {
    Unknown,
    /// This seed believes that it has it, until then.
    Mine {
        until: Instant,
    },
    /// Another gateway; worth another look from then on.
    Another {
        who: NodeId,
        until: Instant,
    },
}

/// What Redis answers to whoever asks for a lease, or renews it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The asker has it, under this epoch.
    Yours { epoch: u64 },
    /// This gateway has it.
    Another(NodeId),
}

/// What a seed may do now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Read from the registry and publish.
    Read,
    /// Ask for the lease.
    Ask,
    /// Take what this gateway has.
    Follow(NodeId),
}

impl Claim {
    /// A claim of the gateway `me`, whose own clock says `epoch`. `is_named`: the scheduler wants it to be this one.
    pub(super) const fn new(me: NodeId, epoch: u64, is_named: bool) -> Self {
        Self { me, epoch, held: Held::Unknown, is_called: is_named, is_forsaken: false }
    }

    /// What to do while `owner` owns the blob, and Redis is there or not.
    pub(super) fn turn(&self, now: Instant, has_redis: bool, owner: &NodeId) -> Turn {
        let is_mine = *owner == self.me || self.is_forsaken;
        match &self.held {
            Held::Mine { until } if now < *until => Turn::Read,
            Held::Another { who, until } if now < *until && has_redis => Turn::Follow(who.clone()),
            _ if has_redis && (is_mine || self.is_called) => Turn::Ask,
            _ if is_mine => Turn::Read,
            _ => Turn::Follow(owner.clone()),
        }
    }

    /// Redis has answered at `now` a question that was asked at `asked`.
    pub(super) fn heard(&mut self, asked: Instant, now: Instant, answer: Answer) {
        self.held = match answer {
            Answer::Yours { epoch } => {
                self.epoch = epoch.max(self.epoch);
                // Whoever had it once goes on, whoever owns the blob by now.
                self.is_called = true;
                Held::Mine { until: asked + (LIFE - MARGIN) }
            }
            Answer::Another(who) => Held::Another { who, until: now + LOOK },
        };
    }

    /// The gateway that was followed has it no more, or never had.
    pub(super) fn was_left_by(&mut self, owner: &NodeId, followed: &NodeId) {
        if matches!(&self.held, Held::Another { who, .. } if who == followed) {
            self.held = Held::Unknown;
        } else {
            self.is_forsaken |= owner == followed;
        }
    }

    /// What is signed now belongs to this epoch.
    pub(super) const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The epoch of the lease that this seed had, if it ever had one.
    pub(super) fn leased(&self) -> Option<u64> {
        matches!(self.held, Held::Mine { .. }).then_some(self.epoch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_millis(1);

    fn id(name: &str) -> NodeId {
        NodeId::new(name)
    }

    fn claim(is_named: bool) -> Claim {
        Claim::new(id("me"), 100, is_named)
    }

    fn follow(name: &str) -> Turn {
        Turn::Follow(id(name))
    }

    #[test]
    fn without_redis_the_owner_reads_and_nobody_else() {
        let now = Instant::now();
        for is_named in [false, true] {
            assert_eq!(claim(is_named).turn(now, false, &id("me")), Turn::Read);
            assert_eq!(claim(is_named).turn(now, false, &id("sister")), follow("sister"));
        }
    }

    #[test]
    fn with_redis_the_owner_asks_and_whoever_the_scheduler_names() {
        let now = Instant::now();
        assert_eq!(claim(false).turn(now, true, &id("me")), Turn::Ask);
        assert_eq!(claim(true).turn(now, true, &id("sister")), Turn::Ask);
        assert_eq!(claim(false).turn(now, true, &id("sister")), follow("sister"));
    }

    #[test]
    fn a_lease_is_believed_for_less_than_its_life_from_before_it_was_asked_for() {
        let (mut claim, asked) = (claim(false), Instant::now());
        let late = asked + Duration::from_millis(400);
        claim.heard(asked, late, Answer::Yours { epoch: 7 });
        assert_eq!((claim.epoch(), claim.leased()), (100, Some(100)), "never less than the clock's");
        claim.heard(asked, late, Answer::Yours { epoch: 107 });
        let end = asked + LIFE - MARGIN;
        // Whoever else owns the blob meanwhile.
        for owner in ["me", "sister"] {
            assert_eq!(claim.turn(end - TICK, true, &id(owner)), Turn::Read);
            assert_eq!(claim.turn(end, true, &id(owner)), Turn::Ask);
        }
        assert_eq!(claim.turn(end, false, &id("me")), Turn::Read);
        assert_eq!(claim.turn(end, false, &id("sister")), follow("sister"));
        assert_eq!(claim.epoch(), 107);
    }

    #[test]
    fn a_lease_that_another_has_is_looked_at_again() {
        let (mut claim, now) = (claim(true), Instant::now());
        claim.heard(now, now, Answer::Yours { epoch: 101 });
        // It was away for too long.
        claim.heard(now, now, Answer::Another(id("sister")));
        assert_eq!(claim.leased(), None);
        assert_eq!(claim.turn(now + LOOK - TICK, true, &id("me")), follow("sister"));
        assert_eq!(claim.turn(now + LOOK, true, &id("me")), Turn::Ask);
        assert_eq!(claim.turn(now, false, &id("me")), Turn::Read, "nobody knows of leases any more");
        claim.was_left_by(&id("me"), &id("sister"));
        assert_eq!(claim.turn(now, true, &id("me")), Turn::Ask);
    }

    #[test]
    fn an_owner_who_does_not_serve_it_is_passed_over() {
        for has_redis in [false, true] {
            let mut claim = claim(false);
            assert_eq!(claim.turn(Instant::now(), has_redis, &id("sister")), follow("sister"));
            claim.was_left_by(&id("sister"), &id("sister"));
            let expected = if has_redis { Turn::Ask } else { Turn::Read };
            assert_eq!(claim.turn(Instant::now(), has_redis, &id("sister")), expected);
        }
    }
}
