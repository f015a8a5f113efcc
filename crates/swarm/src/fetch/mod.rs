//! One node's fetch of one blob: which piece to ask of whom next, and what to do when nothing comes.
//!
//! The machine is told what happened (`Event`) and when, and answers what to do (`Action`). It holds no
//! bytes: a piece counts once the store has verified it.
//!
//! Rules, in the order in which a free slot is used:
//! 1. pieces leased to this node, from the gateway or a node elsewhere, because others wait for them;
//! 2. the pieces that a reader needs next, for up to half of the slots;
//! 3. the rarest piece among the neighbours, ties at random;
//! 4. on a lower rung (see [`ladder`]), pieces from the gateway without a lease;
//! 5. near the end, or where an answer is late, a second ask for a piece already asked; of the gateway, where those
//!    who were asked send nothing, or much more slowly than others.
//!
//! A node that cannot store what it fetches asks for what readers need next and for nothing else, of neighbours or of
//! the gateway. It brings nothing in for others, and waits as long as readers do not come on.
//!
//! Which neighbour is asked, and when an answer is late, goes by averages and a fixed time, or by a model that learns
//! (see [`score`]): the scheduler says which.
//!
//! A refused ask ("busy") means "ask these others", never a step down the ladder; only a lack of any
//! progress is. A neighbour that is asked and brings nothing for long is not believed any more, though: what it offers
//! keeps nobody from the gateway, and what it says is no progress.
//!
//! Whoever fails rests. Where nobody answers any more it may be this node that is cut off: those that fell silent then
//! are asked again with the first sign of life from anybody.

mod choice;
mod ladder;
mod message;
mod score;
mod source;
mod sources;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use shoal_model::{BlobKey, NodeId, Rng, Role, Tick};

use crate::{Bitmap, Geometry, PieceIndex, rendezvous};
use ladder::Ladder;
pub use ladder::Rung;
pub use message::{Action, Event, Fault};
use source::Reach;
use sources::Sources;

/// A fetch is never left with fewer slots: while one brings a piece, the next is asked for.
const FEWEST_SLOTS: usize = 2;

/// How eager and how patient a fetch is.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// Pieces asked at the same time.
    pub slots: usize,
    /// Pieces asked of one source at the same time; twice as many by a node that has few neighbours.
    pub slots_per_source: u32,
    /// Without any progress for this long, the next rung of the ladder is taken.
    pub patience: Duration,
    /// The same, where neither the gateway nor any neighbour has anything to offer.
    pub patience_alone: Duration,
    /// The same, where nobody answers any more and the gateway is tried.
    pub patience_cut_off: Duration,
    /// For this long a failed source is not asked again.
    pub away: Duration,
    /// For this long a failed gateway is not asked again: shorter, because there is no other.
    pub gateway_away: Duration,
    /// For at least this long a source that had no free slot is not asked again.
    pub busy: Duration,
    /// For this long a source that is well and could not be watched is not watched again.
    pub watch_again: Duration,
    /// An ask older than this may be doubled at another source; with `ml` one that is younger, too, where it is
    /// later than predicted.
    pub hedge_after: Duration,
    /// Without a scheduler, the node of rank k imports a piece after k of these.
    pub rank_slot: Duration,
    /// A scheduler that has just come to lead the fetch does not know everybody yet: for so long the neighbours of
    /// before stay beside those that it names.
    pub newly_led: Duration,
    /// A stranded node asks its scheduler for leave to ask the registry this often.
    pub strand_interval: Duration,
    /// The longest random delay before the registry is asked without a scheduler's word.
    pub direct_jitter: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            slots: 8,
            slots_per_source: 2,
            patience: Duration::from_secs(3),
            patience_alone: Duration::from_millis(500),
            patience_cut_off: Duration::from_secs(1),
            away: Duration::from_secs(10),
            gateway_away: Duration::from_secs(1),
            busy: Duration::from_millis(10),
            watch_again: Duration::from_millis(300),
            hedge_after: Duration::from_secs(2),
            rank_slot: Duration::from_millis(200),
            newly_led: Duration::from_secs(5),
            strand_interval: Duration::from_millis(600),
            direct_jitter: Duration::from_millis(500),
        }
    }
}

#[derive(Clone, Debug)]
struct Ask {
    from: NodeId,
    since: Tick,
    /// From when on it may be doubled.
    late_at: Tick,
    demanded: bool,
}

/// One node's fetch of one blob.
#[derive(Debug)]
pub struct Fetch {
    me: NodeId,
    key: BlobKey,
    policy: Policy,
    rng: Rng,
    held: Bitmap,
    asked: BTreeMap<PieceIndex, Vec<Ask>>,
    sources: Sources,
    /// Pieces that this node brings in, and from whom.
    leases: BTreeMap<PieceIndex, NodeId>,
    demand: Vec<PieceIndex>,
    is_stored: bool,
    scheduler: bool,
    /// Since when this node imports by rank, where it has no scheduler.
    unled_since: Tick,
    ladder: Ladder,
    finished: bool,
}

impl Fetch {
    /// Starts a fetch at `now` of the pieces that `held` lacks.
    pub fn new(now: Tick, me: NodeId, key: BlobKey, held: Bitmap, policy: Policy, rng: Rng) -> Self {
        Self {
            sources: Sources::new(held.len()),
            ladder: Ladder::new(now),
            me,
            key,
            policy,
            rng,
            held,
            asked: BTreeMap::new(),
            leases: BTreeMap::new(),
            demand: Vec::new(),
            is_stored: true,
            scheduler: true,
            unled_since: now,
            finished: false,
        }
    }

    /// What the node holds of the blob, as far as it was told.
    pub const fn held(&self) -> &Bitmap {
        &self.held
    }

    /// On which rung of the fallback ladder the fetch stands.
    pub const fn rung(&self) -> Rung {
        self.ladder.rung()
    }

    /// Pieces leased to this node that it does not hold yet: when one has come, others wait to hear of it.
    pub fn n_leased(&self) -> usize {
        self.leases.len()
    }

    /// Takes in what happened and says what to do.
    pub fn on_event(&mut self, now: Tick, event: Event, out: &mut Vec<Action>) {
        self.take_in(now, event, out);
        if self.held.is_full() {
            if !self.finished {
                self.finished = true;
                out.push(Action::Finished);
            }
            return;
        }
        if !self.is_stored && self.demand.iter().all(|it| self.held.contains(*it)) {
            // It is the readers' turn.
            self.ladder.moved(now);
        }
        self.ladder.step(now, &self.policy, self.outlook(now), &mut self.rng, out);
        self.watch_sources(now, out);
        self.fill_slots(now, out);
    }

    /// Asks under way.
    fn n_asked(&self) -> usize {
        self.asked.values().map(Vec::len).sum()
    }

    /// Wake the machine no later than this, with [`Event::Deadline`].
    pub fn next_deadline(&self, now: Tick) -> Option<Tick> {
        if self.finished {
            return None;
        }
        let hedge = self.asked.values().flatten().map(|it| it.late_at);
        let ahead = hedge
            .chain(self.turns(now))
            .chain(self.second_turns(now))
            .chain(self.ladder.next_step(&self.policy, self.outlook(now)))
            .chain(self.silent_from())
            .filter(|it| *it > now);
        // One that has just passed has not been seen to.
        let wake = self.sources.next_wake().map(|it| it.max(Tick(now.0 + 1)));
        ahead.chain(wake).min()
    }

    fn take_in(&mut self, now: Tick, event: Event, out: &mut Vec<Action>) {
        match event {
            Event::Neighbours { near, far, algorithm } => {
                self.sources.score_by(algorithm);
                self.ladder.answered(now, &self.policy);
                let gone = self.sources.replace_neighbours(now, (&near, &far), &self.me);
                gone.into_iter().for_each(|it| self.leave(it, out));
            }
            Event::Gateway(node) => {
                // What a scheduler has leased from another that is well is not given up for this one.
                let has_leases = self.leases.values().any(|it| self.sources.is_gateway(it));
                if !has_leases || !self.sources.gateway_answers() {
                    self.set_gateway(&node, out);
                }
            }
            Event::Leased { from, role, pieces } => {
                if role == Role::Gateway {
                    self.ladder.led();
                    self.set_gateway(&from, out);
                }
                self.on_leased(&from, pieces, out);
            }
            Event::News { from, dropped, lost, gained, alive } => {
                if dropped {
                    self.sources.holds_nothing(&from);
                }
                let n_pieces = self.held.len();
                let lost = lost.into_iter().flat_map(|it| it.start..it.end.min(n_pieces));
                lost.for_each(|it| self.sources.lacks(&from, it));
                self.on_news(now, &from, gained, alive);
            }
            Event::Lost { from, is_well } => {
                let rest = if is_well { self.policy.watch_again } else { self.rest_after_failure(&from) };
                self.lost(now, &from, rest, out);
            }
            Event::Held { piece, from } => self.on_held(now, piece, from.as_ref(), out),
            Event::Have(held) => {
                self.held = held;
                self.finished = false;
                self.ladder.moved(now);
            }
            Event::Failed { from, piece, fault } => self.on_failed(now, &from, (piece, fault), out),
            Event::Queued { from, piece } => self.on_queued(now, &from, piece),
            Event::Moved { from: None } => self.ladder.moved(now),
            Event::Moved { from: Some(from) } => {
                self.sources.stirred(now, &from);
                self.stirred(now, &from);
            }
            Event::Demand(pieces) => self.demand = pieces,
            Event::Stored(is_stored) => {
                self.is_stored = is_stored;
                if !is_stored {
                    let leased: Vec<_> = self.leases.keys().copied().collect();
                    leased.into_iter().for_each(|it| self.end_lease(it, out));
                }
            }
            Event::Scheduler(connected) => {
                if self.scheduler && !connected {
                    self.unled_since = now;
                }
                self.scheduler = connected;
                if connected {
                    self.sources.keep_neighbours(now.after(self.policy.newly_led));
                    self.sources.reconnected(now);
                }
            }
            Event::Slots(slots) => self.policy.slots = slots,
            Event::MayGoDirect => self.ladder.allow_direct(now, out),
            Event::DirectFailed => self.ladder.direct_failed(now),
            Event::Deadline => {}
        }
    }

    fn on_news(&mut self, now: Tick, from: &NodeId, gained: Vec<Range<PieceIndex>>, alive: bool) {
        let fresh = self.sources.news(now, from, gained, &self.held);
        if fresh || alive && self.sources.is_gateway(from) {
            self.stirred(now, from);
        }
        if fresh && self.sources.is_near(from) && self.sources.is_credible(now, from) {
            self.ladder.swarm_moved(now);
        }
    }

    /// A source gave a sign of life.
    fn stirred(&mut self, now: Tick, from: &NodeId) {
        self.sources.reconnected(now);
        if self.sources.is_credible(now, from) {
            self.ladder.moved(now);
        }
    }

    /// An ask that waits here is as young as on the day it leaves, and its source owes nothing for it yet.
    fn on_queued(&mut self, now: Tick, from: &NodeId, piece: PieceIndex) {
        self.ladder.moved(now);
        let asks = self.asked.get_mut(&piece);
        let Some(ask) = asks.and_then(|it| it.iter_mut().find(|it| it.from == *from)) else { return };
        ask.late_at = ask.late_at.after(now.since(ask.since));
        ask.since = now;
        self.sources.not_asked_yet(now, from);
    }

    fn on_held(&mut self, now: Tick, piece: PieceIndex, from: Option<&NodeId>, out: &mut Vec<Action>) {
        if let Some(from) = from {
            self.sources.brought(from);
        }
        if !self.held.insert(piece) {
            return;
        }
        self.ladder.moved(now);
        if from.is_some_and(|it| self.sources.is_gateway(it)) && !self.leases.contains_key(&piece) {
            self.ladder.gateway_helped();
        }
        let asks = self.asked.remove(&piece).unwrap_or_default();
        let is_only = asks.len() == 1;
        for (at, ask) in asks.into_iter().enumerate() {
            self.sources.finished(now, &ask.from, ask.since, is_only);
            if at == 0 && self.sources.is_near(&ask.from) {
                self.ladder.swarm_moved(now);
            }
            out.push(Action::Cancel { from: ask.from, piece });
        }
        self.end_lease(piece, out);
    }

    fn on_failed(
        &mut self,
        now: Tick,
        from: &NodeId,
        (piece, fault): (PieceIndex, Fault),
        out: &mut Vec<Action>,
    ) {
        if let Some(asks) = self.asked.get_mut(&piece)
            && let Some(at) = asks.iter().position(|it| it.from == *from)
        {
            asks.remove(at);
            self.sources.freed(from);
            if asks.is_empty() {
                self.asked.remove(&piece);
            }
        }
        match fault {
            Fault::Busy => {
                self.sources.refused(now, from, self.policy.busy);
                self.stirred(now, from);
            }
            Fault::NotHeld => {
                self.sources.lacks(from, piece);
                if self.sources.offered_in_vain(from) {
                    self.failed(now, from);
                }
            }
            Fault::Silent => {
                self.failed(now, from);
                self.sources.silent(from);
            }
            Fault::Broken => self.failed(now, from),
            Fault::WrongBytes => self.sources.ban(from),
            Fault::Unvouched => {
                // The word of a gateway may be on its way; where it does not come, what this source sends is no
                // progress.
                let again = self.sources.unvouched(from);
                let rest = if again { self.rest_after_failure(from) } else { self.policy.watch_again };
                self.lost(now, from, rest, out);
            }
        }
        // There is one gateway; of nodes, the scheduler will name another.
        if fault != Fault::Busy && self.leases.get(&piece) == Some(from) && !self.sources.is_gateway(from) {
            self.end_lease(piece, out);
        }
    }

    fn on_leased(&mut self, from: &NodeId, pieces: Vec<Range<PieceIndex>>, out: &mut Vec<Action>) {
        let n_pieces = self.held.len();
        for piece in pieces.into_iter().flat_map(|it| it.start..it.end.min(n_pieces)) {
            if self.is_stored && !self.held.contains(piece) && *from != self.me {
                // Before the old one ends: a source that is leased from anew is not left.
                self.sources.leased(from);
                self.end_lease(piece, out);
                self.leases.insert(piece, from.clone());
            }
        }
    }

    fn end_lease(&mut self, piece: PieceIndex, out: &mut Vec<Action>) {
        if let Some(from) = self.leases.remove(&piece)
            && self.sources.lease_ended(&from)
        {
            self.leave(from, out);
        }
    }

    fn set_gateway(&mut self, id: &NodeId, out: &mut Vec<Action>) {
        if let Some(before) = self.sources.set_gateway(id) {
            self.leases.retain(|_, from| *from != before);
            self.leave(before, out);
        }
    }

    /// Nothing is asked any more of a source that is no longer known.
    fn leave(&mut self, id: NodeId, out: &mut Vec<Action>) {
        self.drop_asks_of(&id);
        out.push(Action::Leave(id));
    }

    fn failed(&mut self, now: Tick, from: &NodeId) {
        self.sources.failed(now, from, self.rest_after_failure(from));
    }

    fn rest_after_failure(&self, from: &NodeId) -> Duration {
        if self.sources.is_gateway(from) { self.policy.gateway_away } else { self.policy.away }
    }

    fn drop_asks_of(&mut self, from: &NodeId) {
        self.asked.retain(|_, asks| {
            asks.retain(|it| it.from != *from);
            !asks.is_empty()
        });
    }

    fn lost(&mut self, now: Tick, from: &NodeId, rest: Duration, out: &mut Vec<Action>) {
        self.sources.lost(now, from, rest);
        self.drop_asks_of(from);
        if !self.sources.is_gateway(from) {
            let leased: Vec<_> =
                self.leases.iter().filter(|(_, it)| *it == from).map(|(it, _)| *it).collect();
            leased.into_iter().for_each(|it| self.end_lease(it, out));
        }
    }

    /// A source is watched from the moment on at which it matters, and again after it was lost.
    fn watch_sources(&mut self, now: Tick, out: &mut Vec<Action>) {
        // Where neighbours leave this node waiting, it matters what the gateway has.
        let is_slow = self.asked.values().any(|asks| self.is_slow(now, asks));
        let reach = Reach { gateway: self.reach().gateway || is_slow, ..self.reach() };
        out.extend(self.sources.start_watching(now, reach).into_iter().map(Action::Watch));
    }

    /// Whoever is known may be asked without a scheduler, where nothing comes, and by a node that brings nothing in.
    fn reach(&self) -> Reach {
        let any = !self.scheduler || !self.is_stored || self.rung() != Rung::Swarm;
        Reach { gateway: any, far: any }
    }

    fn imports_by_rank(&self) -> bool {
        !self.scheduler || self.rung() == Rung::Gateway
    }

    /// When this node may import a piece without a lease: where nobody else brings it in, the node of rank
    /// k among its neighbours does after k slots of time, counted from when the gateway offered it.
    fn turn(&self, now: Tick, piece: PieceIndex) -> Option<Tick> {
        if !self.imports_by_rank() || self.sources.is_to_be_had(now, piece) {
            return None;
        }
        let since = if self.scheduler { self.ladder.since() } else { self.unled_since };
        let offered = self.sources.offered_by_gateway(piece)?;
        let rank = rendezvous::rank(&self.key, piece, &self.me, self.sources.neighbour_ids());
        Some(since.max(offered).after(self.policy.rank_slot * rank))
    }

    /// The turns of all pieces that nobody was asked for.
    fn turns(&self, now: Tick) -> impl Iterator<Item = Tick> {
        let missing = (0..self.held.len()).filter(|_| self.is_stored && self.imports_by_rank());
        missing
            .filter(|it| !self.held.contains(*it) && !self.asked.contains_key(it))
            .filter_map(move |it| self.turn(now, it))
    }

    /// From when on a gateway that was asked counts as silent, unless something moves before.
    fn silent_from(&self) -> Option<Tick> {
        let asks = self.asked.values().flatten().filter(|it| self.sources.is_gateway(&it.from));
        let patience = self.ladder.patience(&self.policy);
        asks.map(|it| it.since.max(self.ladder.moved_at()).after(patience)).min()
    }

    /// What the ladder needs to know: is there anybody left to wait for?
    fn outlook(&self, now: Tick) -> ladder::Outlook {
        // One that was waited for already is not waited for anew on the next rung.
        let is_silent = self.silent_from().is_some_and(|it| it <= now);
        let gateway = self.sources.gateway_answers() && !is_silent;
        ladder::Outlook {
            scheduler: self.scheduler && self.is_stored,
            gateway,
            cut_off: self.sources.is_cut_off(),
            // Looked at only where it matters.
            neighbours: !gateway && self.sources.neighbours_offer(now, &self.held),
        }
    }
}

/// Of the pieces that a node may ask for at the same time, those that each of its fetches may. What one asks for in
/// vain, because its neighbours are asked by all its others as well, costs both sides.
pub fn slots_each(slots: usize, n_fetches: usize) -> usize {
    slots.div_ceil(n_fetches.max(1)).max(FEWEST_SLOTS.min(slots))
}

/// The piece that a reader at `offset` waits for next.
pub fn next_needed(geometry: &Geometry, held: &Bitmap, offset: u64) -> Option<PieceIndex> {
    held.first_missing(geometry.piece_at(offset))
}
