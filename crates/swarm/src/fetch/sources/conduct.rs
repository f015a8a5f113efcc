//! How sources do: what is learned from each answer, refusal and silence, and what is made of it.

use std::time::Duration;

use shoal_model::{NodeId, Tick};

use super::super::score;
use super::super::source::{Source, Watch};
use super::Sources;
use crate::PieceIndex;
use crate::average::averaged;

/// After so many refusals in a row the time of rest doubles no more.
const MAX_REFUSED: u32 = 2;
/// A source whose offers have so often in a row come to nothing has failed. An honest one that has just lost its
/// content was asked for fewer pieces.
const MAX_EMPTY_OFFERS: u32 = 12;
/// A source that is asked and brings nothing, however busy it says that it is, is believed for so many times what a
/// piece takes elsewhere, within these bounds.
const FAITH: u32 = 4;
const SHORTEST_FAITH: Duration = Duration::from_secs(10);
const LONGEST_FAITH: Duration = Duration::from_secs(60);

impl Sources {
    /// For how long a source is believed that brings nothing.
    pub(in crate::fetch) fn faith(&self) -> Duration {
        (self.piece_time() * FAITH).clamp(SHORTEST_FAITH, LONGEST_FAITH)
    }

    /// After what time a piece is slow, beside what others bring; nothing is slow before the first has come.
    pub(in crate::fetch) fn slow_after(&self, at_least: Duration) -> Duration {
        match self.piece_time().is_zero() {
            true => self.faith(),
            false => (self.piece_time() * FAITH).clamp(at_least, LONGEST_FAITH),
        }
    }

    /// When bytes came from the source last.
    pub(in crate::fetch) fn stirred_at(&self, from: &NodeId) -> Tick {
        self.get(from).map_or(Tick(0), |it| it.stirred_at)
    }

    /// Bytes came from the source.
    pub(in crate::fetch) fn stirred(&mut self, now: Tick, from: &NodeId) {
        if let Some(source) = self.get_mut(from) {
            source.stirred_at = now;
        }
    }

    /// Whether a source's word counts; the gateway's does in any case.
    pub(in crate::fetch) fn is_credible(&self, now: Tick, id: &NodeId) -> bool {
        self.is_gateway(id) || self.get(id).is_some_and(|it| it.is_credible(now, self.faith()))
    }

    /// Whether a neighbour may be expected to bring the piece.
    pub(in crate::fetch) fn is_to_be_had(&self, now: Tick, piece: PieceIndex) -> bool {
        let mut holders = self.known.iter().filter(|it| it.part.is_neighbour() && it.holds.contains(piece));
        self.copies(piece) > 0 && holders.any(|it| it.is_credible(now, self.faith()))
    }

    /// An offer of the source came to nothing; true where it has failed by that.
    pub(in crate::fetch) fn offered_in_vain(&mut self, from: &NodeId) -> bool {
        let Some(source) = self.get_mut(from) else { return false };
        source.n_empty_offers += 1;
        source.n_empty_offers >= MAX_EMPTY_OFFERS
    }

    /// Do not ask this source before `until`.
    pub(in crate::fetch) fn rest(&mut self, from: &NodeId, until: Tick) {
        if let Some(source) = self.get_mut(from) {
            source.rests_until = source.rests_until.max(until);
        }
        self.wakes.insert(until);
    }

    /// The source failed: for so long nothing is expected of it.
    pub(in crate::fetch) fn failed(&mut self, now: Tick, from: &NodeId, rest: Duration) {
        let until = now.after(rest);
        if let Some(source) = self.get_mut(from) {
            source.failed_until = source.failed_until.max(until);
            source.n_empty_offers = 0;
        }
        self.rest(from, until);
        self.look_whether_cut_off(now);
    }

    /// The source failed by sending nothing.
    pub(in crate::fetch) fn silent(&mut self, from: &NodeId) {
        if let Some(source) = self.get_mut(from) {
            source.is_silent = true;
        }
    }

    /// Whether nobody answers any more, and nobody has given a sign of life since.
    pub(in crate::fetch) const fn is_cut_off(&self) -> bool {
        self.is_cut_off
    }

    /// Where nobody answers any more, it may be this node that is cut off, and not they.
    pub(super) fn look_whether_cut_off(&mut self, now: Tick) {
        let is_on = |it: &Source| matches!(it.watch, Watch::On | Watch::Starting);
        let answers = |it: &Source| is_on(it) && !it.banned && it.failed_until <= now;
        self.is_cut_off |= !self.known.iter().chain(&self.gateway).any(answers);
    }

    /// This node hears of others. Whoever fell silent while it was cut off may be as well as before.
    pub(in crate::fetch) fn reconnected(&mut self, now: Tick) {
        if !std::mem::take(&mut self.is_cut_off) {
            return;
        }
        for source in self.known.iter_mut().chain(&mut self.gateway) {
            if let Watch::Lost(until) = &mut source.watch {
                *until = now.min(*until);
            }
            if std::mem::take(&mut source.is_silent) {
                (source.rests_until, source.failed_until) = (source.rests_until.min(now), now);
            }
        }
        self.wakes.insert(now);
    }

    /// The source had no free slot. One at work on many pieces has one again after a part of the time that a
    /// piece takes; whoever is refused again and again stays away for longer.
    pub(in crate::fetch) fn refused(&mut self, now: Tick, from: &NodeId, at_least: Duration) {
        let soon = at_least.max(self.piece_time() / 4);
        let longest = if self.model.is_some() { score::LONGEST_REST } else { Duration::MAX };
        let Some(source) = self.get_mut(from) else { return };
        let until = now.after((soon * (1 << source.n_refused)).min(longest));
        source.n_refused = (source.n_refused + 1).min(MAX_REFUSED);
        self.rest(from, until);
    }

    /// The source sent what nobody has vouched for; whether it did so before, with nothing better in between.
    pub(in crate::fetch) fn unvouched(&mut self, from: &NodeId) -> bool {
        self.get_mut(from).is_some_and(|it| std::mem::replace(&mut it.is_unvouched, true))
    }

    pub(in crate::fetch) fn ban(&mut self, from: &NodeId) {
        if let Some(source) = self.get_mut(from) {
            source.banned = true;
        }
    }

    pub(in crate::fetch) fn asked(&mut self, now: Tick, from: &NodeId) {
        if let Some(source) = self.get_mut(from) {
            source.owes_since.get_or_insert(now);
            if source.n_asked == 0 {
                source.silent_since = now;
            }
            source.n_asked += 1;
        }
    }

    pub(in crate::fetch) fn freed(&mut self, from: &NodeId) {
        if let Some(source) = self.get_mut(from) {
            source.n_asked = source.n_asked.saturating_sub(1);
        }
    }

    /// The source brought a piece.
    pub(in crate::fetch) fn brought(&mut self, from: &NodeId) {
        if let Some(source) = self.get_mut(from) {
            (source.owes_since, source.n_empty_offers, source.is_silent) = (None, 0, false);
        }
    }

    /// An ask was taken for one and has yet to leave: until then nothing is owed.
    pub(in crate::fetch) fn not_asked_yet(&mut self, now: Tick, from: &NodeId) {
        if let Some(since) = self.get_mut(from).and_then(|it| it.owes_since.as_mut()) {
            *since = now;
        }
    }

    /// An ask has done its work, or, unless it was the only one, another was faster.
    pub(in crate::fetch) fn finished(&mut self, now: Tick, from: &NodeId, since: Tick, is_only: bool) {
        self.freed(from);
        if let Some(source) = self.get_mut(from).filter(|it| it.n_asked == 0) {
            source.owes_since = None;
        }
        let took = now.since(since);
        self.learn(now, from, took, is_only);
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
        self.piece_time = averaged(self.piece_time, took);
        if let Some(source) = self.get_mut(from) {
            source.piece_time = averaged(source.piece_time, took);
            (source.n_refused, source.is_unvouched) = (0, false);
        }
    }

    fn learn(&mut self, now: Tick, from: &NodeId, took: Duration, is_exact: bool) {
        let Some(mut model) = self.model.take() else { return };
        match self.get_mut(from) {
            Some(source) if is_exact => {
                source.silent_since = now;
                model.learn(&mut source.record, took);
            }
            Some(source) => model.learn_at_least(&mut source.record, took),
            None => {}
        }
        self.model = Some(model);
    }

    /// After what time an answer of this source is late, where a model can tell.
    pub(in crate::fetch) fn late_after(&self, from: &NodeId) -> Option<Duration> {
        self.model.as_ref()?.late_after(&self.get(from)?.record)
    }

    /// Whether a late ask holds its slot no longer.
    pub(in crate::fetch) const fn frees_late_slots(&self) -> bool {
        self.model.is_some()
    }

    /// What a piece took lately, from anywhere; zero before the first.
    pub(in crate::fetch) const fn piece_time(&self) -> Duration {
        Duration::from_micros(self.piece_time)
    }
}
