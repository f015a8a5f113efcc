//! A claim to do what one gateway is to do at a time, such as to read a blob from its registry: when this one may, and
//! when another does.
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
//! Preheat jobs are carried out by the same rules: a gateway owns those that it has taken in or taken over, and works on
//! one while it has the lease. The lease on one that has ended lives on for a day, so that nobody takes it up again.
//!
//! Knows nothing of: Redis, sockets, what a blob or a job is.

use std::fmt;
use std::time::Duration;

use shoal_model::{BlobKey, NodeId};
use tokio::time::Instant;

/// How long a lease lives unless it is renewed.
pub(super) const LIFE: Duration = Duration::from_secs(5);
/// How often it is renewed.
pub(super) const RENEWAL: Duration = Duration::from_secs(1);
/// So much earlier than Redis its holder takes it for ended: clocks do not run alike.
const MARGIN: Duration = Duration::from_secs(1);
/// After so long whoever waits for another's lease looks again.
const LOOK: Duration = Duration::from_millis(500);

/// What is claimed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Matter {
    /// To read this blob.
    Blob(BlobKey),
    /// To carry out this gateway's preheat job of that number.
    Job(u64),
}

impl fmt::Display for Matter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Blob(key) => write!(f, "lease:{key}"),
            Self::Job(id) => write!(f, "job:{id}"),
        }
    }
}

/// One claim.
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
    /// This gateway believes that it has it, until then.
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

/// What the claimant may do now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Do it: read from the registry and publish.
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
    use proptest::prelude::*;

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

    // === Several at one matter ===

    /// What Redis does with a question, as its script says (`redis.rs`).
    #[derive(Default)]
    struct Leases {
        lease: Option<(u64, NodeId, Instant)>,
        last: u64,
    }

    impl Leases {
        fn hold(&mut self, now: Instant, me: &NodeId, leased: Option<u64>, life: Duration) -> Answer {
            let held = self.lease.take().filter(|(_, _, until)| now < *until);
            let (epoch, holder, until) = match held {
                Some((epoch, holder, until)) if holder != *me => (epoch, holder, until),
                Some((epoch, holder, until)) if Some(epoch) == leased => {
                    (epoch, holder, until.max(now + life))
                }
                _ => (self.last + 1, me.clone(), now + life),
            };
            self.last = self.last.max(epoch);
            self.lease = Some((epoch, holder.clone(), until));
            if holder == *me { Answer::Yours { epoch } } else { Answer::Another(holder) }
        }
    }

    /// Three gateways that each believe they have the same job, as after a gateway died.
    struct Heirs {
        now: Instant,
        leases: Leases,
        claims: Vec<Claim>,
        /// Who has ended the job, each once.
        enders: Vec<usize>,
    }

    impl Heirs {
        fn new() -> Self {
            let claims = (0..3).map(|it| Claim::new(id(&format!("g{it}")), 0, false)).collect();
            Self { now: Instant::now(), leases: Leases::default(), claims, enders: Vec::new() }
        }

        /// Asks, and hears the answer after so long.
        fn ask(&mut self, who: usize, life: Duration, delay: Duration) -> Turn {
            let (claim, asked) = (&mut self.claims[who], self.now);
            let answer = self.leases.hold(asked, &claim.me, claim.leased(), life);
            self.now += delay;
            claim.heard(asked, self.now, answer);
            self.turn(who)
        }

        fn turn(&self, who: usize) -> Turn {
            let claim = &self.claims[who];
            claim.turn(self.now, true, &claim.me)
        }

        /// Ends the job as a gateway does that is at work on it, with a pause in the middle.
        fn end(&mut self, who: usize, pause: Duration) {
            let is_over = self.enders.contains(&who) || self.turn(who) != Turn::Read;
            if is_over || matches!(self.ask(who, ENDING, pause), Turn::Follow(_)) {
                return;
            }
            let ended = self.ask(who, ENDED, Duration::ZERO);
            if !matches!(ended, Turn::Follow(_)) {
                self.enders.push(who);
            }
        }
    }

    const ENDING: Duration = Duration::from_secs(60);
    const ENDED: Duration = Duration::from_secs(24 * 60 * 60);

    proptest! {
        #[test]
        fn whoever_pauses_when_a_job_is_carried_out_by_one_at_a_time_and_ended_once(
            steps in prop::collection::vec((0_usize..3, 0_u8..4, 0_u64..90_000), 1..60)
        ) {
            let mut heirs = Heirs::new();
            for (who, what, millis) in steps {
                let time = Duration::from_millis(millis);
                match what {
                    0 => heirs.now += time / 30,
                    1 => drop(heirs.ask(who, LIFE, Duration::ZERO)),
                    // A gateway that hangs before it hears.
                    2 => drop(heirs.ask(who, LIFE, time / 10)),
                    _ => heirs.end(who, time),
                }
                let n_at_work = (0..3).filter(|it| heirs.turn(*it) == Turn::Read).count();
                prop_assert!(n_at_work <= 1, "{} at work", n_at_work);
                prop_assert!(heirs.enders.len() <= 1, "ended by {:?}", heirs.enders);
            }
        }
    }

    #[test]
    fn of_several_one_ends_a_job_and_the_others_find_it_ended() {
        let mut heirs = Heirs::new();
        assert_eq!(heirs.ask(0, LIFE, Duration::ZERO), Turn::Read);
        assert_eq!(heirs.ask(1, LIFE, Duration::ZERO), follow("g0"));
        // It hangs, and another takes over.
        heirs.now += LIFE;
        assert_eq!(heirs.ask(1, LIFE, Duration::ZERO), Turn::Read);
        assert_eq!(heirs.turn(0), Turn::Ask);
        heirs.end(0, Duration::ZERO);
        assert!(heirs.enders.is_empty());
        heirs.end(1, Duration::ZERO);
        assert_eq!(heirs.enders, [1]);
        heirs.now += ENDED - TICK;
        assert_eq!(heirs.ask(2, LIFE, Duration::ZERO), follow("g1"));
        // One that hangs while it writes loses it again.
        let mut heirs = Heirs::new();
        heirs.ask(0, LIFE, Duration::ZERO);
        assert!(!matches!(heirs.ask(0, ENDING, ENDING), Turn::Follow(_)));
        assert_eq!(heirs.ask(1, LIFE, Duration::ZERO), Turn::Read);
        assert_eq!(heirs.ask(0, ENDED, Duration::ZERO), follow("g1"));
    }
}
