//! Which piece a free slot asks for, and of whom.

use shoal_model::{NodeId, Tick};

use super::{Action, Ask, Fetch};
use crate::{PieceIndex, rendezvous};

/// How far past a reader's position its own part of the slots looks.
const LOOKAHEAD: u32 = 8;
/// No piece is asked of more neighbours than this at once.
const MAX_ASKS: usize = 2;

struct Choice {
    piece: PieceIndex,
    from: NodeId,
    demanded: bool,
}

impl Fetch {
    pub(super) fn fill_slots(&mut self, now: Tick, out: &mut Vec<Action>) {
        while self.n_taken(now) < self.policy.slots {
            let Some(Choice { piece, from, demanded }) = self.choose(now) else {
                return;
            };
            let hedge_after = self.policy.hedge_after;
            let late_at =
                now.after(self.sources.late_after(&from).map_or(hedge_after, |it| it.min(hedge_after)));
            self.sources.asked(now, &from);
            self.asked.entry(piece).or_default().push(Ask {
                from: from.clone(),
                since: now,
                late_at,
                demanded,
            });
            let is_urgent = self.leases.get(&piece) == Some(&from) || self.n_asked() * 2 <= self.policy.slots;
            out.push(Action::Ask { from, piece, is_urgent });
        }
    }

    /// Slots in use. Slow asks free theirs, and with a model those that are late by what it predicts; no more asks do
    /// so at once than there are slots.
    fn n_taken(&self, now: Tick) -> usize {
        let asks = || self.asked.values().flatten();
        let by_model = self.sources.frees_late_slots();
        let is_late = |it: &Ask| (by_model && it.late_at <= now) || self.slow_at(it) <= now;
        let in_time = asks().filter(|it| !is_late(it)).count();
        in_time.max(asks().count().saturating_sub(self.policy.slots))
    }

    /// Where few neighbours answer, each is asked for more.
    fn slots_per_source(&self) -> u32 {
        let each = self.policy.slots_per_source;
        if self.sources.n_watched(self.reach()) < self.policy.slots { each * 2 } else { each }
    }

    fn choose(&mut self, now: Tick) -> Option<Choice> {
        if !self.is_stored {
            return self.for_readers(now).or_else(|| self.doubled(now));
        }
        self.leased(now)
            .or_else(|| self.demanded(now))
            .or_else(|| self.rarest(now))
            .or_else(|| self.without_lease(now))
            .or_else(|| self.doubled(now))
    }

    fn leased(&self, now: Tick) -> Option<Choice> {
        let mut unasked = self.leases.iter().filter(|(it, _)| !self.asked.contains_key(it));
        let (piece, from) = unasked.find(|(piece, from)| self.sources.has(now, from, **piece))?;
        Some(Choice { piece: *piece, from: from.clone(), demanded: false })
    }

    fn demanded(&mut self, now: Tick) -> Option<Choice> {
        let n_demanded = self.asked.values().flatten().filter(|it| it.demanded).count();
        if n_demanded * 2 >= self.policy.slots {
            return None;
        }
        let needed = |it: &PieceIndex| *it..it.saturating_add(LOOKAHEAD);
        let mut ahead: Vec<_> = self.demand.iter().flat_map(needed).collect();
        ahead.retain(|it| !self.held.contains(*it) && !self.asked.contains_key(it));
        ahead.into_iter().find_map(|piece| {
            let from = self.neighbour_with(now, piece)?;
            Some(Choice { piece, from, demanded: true })
        })
    }

    /// What readers need, where nothing can be stored.
    fn for_readers(&mut self, now: Tick) -> Option<Choice> {
        let missing = |it: &PieceIndex| !self.held.contains(*it) && !self.asked.contains_key(it);
        let missing: Vec<_> = self.demand.iter().copied().filter(missing).collect();
        missing.into_iter().find_map(|piece| {
            let neighbour = self.neighbour_with(now, piece);
            let from = neighbour.or_else(|| self.sources.gateway_with(now, piece).cloned())?;
            Some(Choice { piece, from, demanded: true })
        })
    }

    fn rarest(&mut self, now: Tick) -> Option<Choice> {
        let mut offers = self.sources.offers(now, self.reach(), self.slots_per_source());
        offers.subtract(&self.held);
        for piece in self.asked.keys() {
            offers.remove(*piece);
        }
        let (mut rarest, mut fewest, mut ties) = (None, u16::MAX, 0);
        for piece in offers.iter() {
            let copies = self.sources.copies(piece);
            if copies > fewest {
                continue;
            }
            ties = if copies < fewest { 1 } else { ties + 1 };
            fewest = copies;
            if self.rng.below(ties) == 0 {
                rarest = Some(piece);
            }
        }
        let piece = rarest?;
        Some(Choice { piece, from: self.neighbour_with(now, piece)?, demanded: false })
    }

    /// A late answer, or the end game: ask one more source.
    fn doubled(&mut self, now: Tick) -> Option<Choice> {
        let end_game = (self.held.len() - self.held.count()) as usize <= self.policy.slots;
        let late = |it: &Ask| end_game || it.late_at <= now;
        let doubtful = |asks: &[Ask]| asks.len() <= MAX_ASKS && asks.iter().all(late);
        let doubtful = self.asked.iter().filter(|(_, it)| doubtful(it)).map(|(it, _)| *it);
        // What was asked while it could still be stored may be of no use any more.
        let pieces: Vec<_> = doubtful.filter(|it| self.is_stored || self.demand.contains(it)).collect();
        pieces.into_iter().find_map(|piece| {
            let may_be_doubled = self.asked.get(&piece).is_some_and(|it| it.len() < MAX_ASKS);
            let neighbour = may_be_doubled.then(|| self.neighbour_with(now, piece)).flatten();
            let from = neighbour.or_else(|| self.gateway_in_turn(now, piece))?;
            Some(Choice { piece, from, demanded: false })
        })
    }

    /// From when on an ask is slow, unless something comes before: where its source sends nothing at all, or takes
    /// much longer than pieces do elsewhere.
    fn slow_at(&self, ask: &Ask) -> Tick {
        let silent_from = self.sources.stirred_at(&ask.from).max(ask.since);
        let slow_after = self.sources.slow_after(self.policy.hedge_after);
        silent_from.after(self.policy.hedge_after).min(ask.since.after(slow_after))
    }

    /// Whether all who were asked for a piece are slow.
    pub(super) fn is_slow(&self, now: Tick, asks: &[Ask]) -> bool {
        asks.iter().all(|it| self.slow_at(it) <= now)
    }

    /// From when on the gateway may be asked for a piece that neighbours are slow to bring: all nodes are not to ask
    /// for the same one at once.
    fn second_turn(&self, piece: PieceIndex, asks: &[Ask]) -> Option<Tick> {
        let slow_at = asks.iter().map(|it| self.slow_at(it)).max()?;
        let rank = rendezvous::rank(&self.key, piece, &self.me, self.sources.neighbour_ids());
        Some(slow_at.after(self.policy.rank_slot * rank))
    }

    /// The times at which a slow ask frees its slot, and at which the gateway may be asked in its place.
    pub(super) fn second_turns(&self, now: Tick) -> impl Iterator<Item = Tick> {
        let pieces = self.asked.iter();
        pieces.flat_map(move |(piece, asks)| {
            // A turn comes after that, and ranks cost more than all the rest.
            let turn = self.is_slow(now, asks).then(|| self.second_turn(*piece, asks)).flatten();
            asks.iter().map(|it| self.slow_at(it)).chain(turn)
        })
    }

    /// A piece from the gateway that nobody leased to this node, in this node's turn.
    fn without_lease(&self, now: Tick) -> Option<Choice> {
        if !self.imports_by_rank() {
            return None;
        }
        let mut missing =
            (0..self.held.len()).filter(|it| !self.held.contains(*it) && !self.asked.contains_key(it));
        missing.find_map(|piece| {
            let from = self.gateway_in_turn(now, piece)?;
            Some(Choice { piece, from, demanded: false })
        })
    }

    /// The gateway, where it may be asked for a piece that nobody leased, and was not asked for it yet.
    fn gateway_in_turn(&self, now: Tick, piece: PieceIndex) -> Option<NodeId> {
        let asks = self.asked.get(&piece).map_or(&[][..], Vec::as_slice);
        let turns = [self.turn(now, piece), self.second_turn(piece, asks)];
        turns.into_iter().flatten().find(|turn| *turn <= now)?;
        let gateway = self.sources.gateway_with(now, piece)?;
        asks.iter().all(|it| it.from != *gateway).then(|| gateway.clone())
    }

    /// The best neighbour that holds the piece and was not asked for it yet.
    fn neighbour_with(&mut self, now: Tick, piece: PieceIndex) -> Option<NodeId> {
        let asks = self.asked.get(&piece).map_or(&[][..], Vec::as_slice);
        let fits = |id: &NodeId| asks.iter().all(|it| it.from != *id);
        let when = (now, self.reach(), self.slots_per_source());
        self.sources.best_neighbour(when, piece, fits, &mut self.rng).cloned()
    }
}
