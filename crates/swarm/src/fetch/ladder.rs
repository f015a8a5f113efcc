//! The fallback ladder: what a fetch may do once nothing comes.
//!
//! neighbours, and the gateway by lease → the gateway without a lease → the registry, with the caller's
//! own credential → nothing: the runtime resumes elsewhere.
//!
//! Each step down needs a lack of *any* progress, never the mere length of a transfer. A node asks the
//! registry only when neither the gateway nor a neighbour has anything to offer; while a scheduler
//! lives it asks that for leave, so that not a whole fleet turns to the registry at once, and without
//! one it waits a random moment, in which a neighbour may have come by the bytes.

use std::time::Duration;

use shoal_model::{Rng, Tick};

use super::{Action, Policy};

/// Where a fetch stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rung {
    /// Neighbours, and the gateway for leased pieces.
    Swarm,
    /// The gateway too, for pieces that no neighbour offers.
    Gateway,
    /// Nobody to ask; about to turn to the registry.
    Stranded,
    /// Reading from the registry, and from whoever turns up.
    Direct,
    /// Nothing is left to try.
    GivenUp,
}

/// Who is left to wait for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outlook {
    /// A scheduler is connected.
    pub scheduler: bool,
    /// The gateway answers, or was not tried yet, and has left no question without an answer for long.
    pub gateway: bool,
    /// Nobody answers who did before: it may be this node that nothing comes to.
    pub cut_off: bool,
    /// Some neighbour offers a missing piece, where the gateway does not answer.
    pub neighbours: bool,
}

#[derive(Debug)]
pub(super) struct Ladder {
    rung: Rung,
    /// When the rung was taken.
    since: Tick,
    /// The last sign of life from anywhere.
    moved_at: Tick,
    /// When nothing came for so long that a rung was left.
    let_down_at: Option<Tick>,
    /// When the registry is asked even without leave; set while stranded.
    direct_at: Tick,
    /// When the scheduler is asked for leave, again; set while stranded with a scheduler.
    strand_at: Option<Tick>,
    /// The gateway has brought what nobody had leased to this node, and none of its pieces was leased since.
    unled: bool,
    /// The registry has failed this fetch already.
    direct_failed: bool,
}

impl Ladder {
    pub(super) const fn new(now: Tick) -> Self {
        Self {
            rung: Rung::Swarm,
            since: now,
            moved_at: now,
            let_down_at: None,
            direct_at: now,
            strand_at: None,
            unled: false,
            direct_failed: false,
        }
    }

    pub(super) const fn rung(&self) -> Rung {
        self.rung
    }

    /// When there was the last sign of life.
    pub(super) const fn moved_at(&self) -> Tick {
        self.moved_at
    }

    /// When the present rung was taken.
    pub(super) const fn since(&self) -> Tick {
        self.since
    }

    /// Bytes came, or a seed gave a sign of life.
    pub(super) fn moved(&mut self, now: Tick) {
        self.moved_at = now;
        if self.rung == Rung::Stranded {
            self.take(now, Rung::Swarm);
        }
    }

    /// A near neighbour delivered or offered something: the swarm is well again.
    pub(super) fn swarm_moved(&mut self, now: Tick) {
        if matches!(self.rung, Rung::Gateway | Rung::Stranded) {
            self.take(now, Rung::Swarm);
        }
    }

    /// The gateway brought a piece that nobody had leased: those who should bring it in do not. Should nothing move
    /// again, they are not waited for once more.
    pub(super) fn gateway_helped(&mut self) {
        self.unled = true;
    }

    /// The scheduler leased a piece of the gateway.
    pub(super) fn led(&mut self) {
        (self.unled, self.let_down_at) = (false, None);
    }

    /// The scheduler answered a call without giving leave: it lives, and is waited for anew.
    pub(super) fn answered(&mut self, now: Tick, policy: &Policy) {
        if self.rung == Rung::Stranded && self.strand_at.is_some() {
            self.direct_at = now.after(policy.patience / 2);
        }
    }

    /// The scheduler gave leave to ask the registry.
    pub(super) fn allow_direct(&mut self, now: Tick, out: &mut Vec<Action>) {
        if self.rung == Rung::Stranded {
            self.take(now, Rung::Direct);
            out.push(Action::GoDirect);
        }
    }

    /// The registry did not serve this node; whoever turned up meanwhile is still there.
    pub(super) fn direct_failed(&mut self, now: Tick) {
        if self.rung == Rung::Direct {
            self.direct_failed = true;
            self.take(now, Rung::Gateway);
        }
    }

    pub(super) fn step(
        &mut self,
        now: Tick,
        policy: &Policy,
        outlook: Outlook,
        rng: &mut Rng,
        out: &mut Vec<Action>,
    ) {
        if self.next_step(policy, outlook).is_none_or(|at| at > now) {
            return;
        }
        if matches!(self.rung, Rung::Swarm | Rung::Gateway) {
            self.let_down_at = Some(now);
        }
        match self.rung {
            Rung::Swarm if outlook.gateway => self.take(now, Rung::Gateway),
            Rung::Swarm | Rung::Gateway if self.direct_failed => {
                self.take(now, Rung::GivenUp);
                out.push(Action::GiveUp);
            }
            Rung::Swarm | Rung::Gateway => {
                self.take(now, Rung::Stranded);
                self.strand_at = outlook.scheduler.then_some(now);
                self.direct_at = if outlook.scheduler {
                    now.after(policy.patience / 2)
                } else {
                    let jitter = rng.below(policy.direct_jitter.as_micros() as usize + 1);
                    Tick(now.0 + jitter as u64)
                };
                self.step(now, policy, outlook, rng, out);
            }
            Rung::Stranded if self.direct_at <= now => self.allow_direct(now, out),
            Rung::Stranded => {
                self.strand_at = Some(now.after(policy.strand_interval));
                out.push(Action::Strand);
            }
            Rung::Direct | Rung::GivenUp => {}
        }
    }

    /// When the next step down is due, unless something moves before.
    pub(super) fn next_step(&self, policy: &Policy, outlook: Outlook) -> Option<Tick> {
        let waits_for_nobody = match self.rung {
            Rung::Swarm if outlook.gateway => self.unled,
            _ => !outlook.gateway && !outlook.neighbours,
        };
        let patience = match waits_for_nobody {
            true => policy.patience_alone,
            // A gateway that is well says at once that it is there, whatever it has.
            false if outlook.cut_off && self.rung == Rung::Gateway => policy.patience_cut_off,
            // They have been waited for once already, and a runtime waits for all this.
            false if self.direct_failed && self.moved_at <= self.since => policy.patience / 2,
            false => self.patience(policy),
        };
        match self.rung {
            Rung::Swarm | Rung::Gateway => Some(self.moved_at.max(self.since).after(patience)),
            Rung::Stranded => Some(self.strand_at.map_or(self.direct_at, |it| it.min(self.direct_at))),
            Rung::Direct | Rung::GivenUp => None,
        }
    }

    /// How long those are waited for who are there. What came back a moment ago and is silent again is not waited for
    /// as long once more.
    pub(super) fn patience(&self, policy: &Policy) -> Duration {
        let is_relapse =
            self.let_down_at.is_some_and(|it| it < self.moved_at && self.moved_at <= it.after(policy.away));
        if is_relapse { policy.patience / 2 } else { policy.patience }
    }

    fn take(&mut self, now: Tick, rung: Rung) {
        self.rung = rung;
        self.since = now;
    }
}
