//! Which piece a free slot asks for, and of whom.

use shoal_model::{NodeId, Tick};

use super::{Action, Ask, Fetch};
use crate::{PieceIndex, rendezvous};

/// How far past a reader's position its own part of the slots looks.
const LOOKAHEAD: u32 = 8;
/// No piece is asked of more sources than this at once.
const MAX_ASKS: usize = 2;

struct Choice {
    piece: PieceIndex,
    from: NodeId,
    urgent: bool,
}

impl Fetch {
    pub(super) fn fill_slots(&mut self, now: Tick, out: &mut Vec<Action>) {
        while self.asked.values().map(Vec::len).sum::<usize>() < self.policy.slots {
            let Some(Choice { piece, from, urgent }) = self.choose(now) else {
                return;
            };
            self.sources.asked(&from);
            self.asked.entry(piece).or_default().push(Ask { from: from.clone(), since: now, urgent });
            out.push(Action::Ask { from, piece });
        }
    }

    fn choose(&mut self, now: Tick) -> Option<Choice> {
        self.leased(now)
            .or_else(|| self.demanded(now))
            .or_else(|| self.rarest(now))
            .or_else(|| self.without_lease(now))
            .or_else(|| self.doubled(now))
    }

    fn leased(&self, now: Tick) -> Option<Choice> {
        self.leases.iter().filter(|it| !self.asked.contains_key(it)).find_map(|piece| {
            let from = self.sources.gateway_with(now, *piece)?.clone();
            Some(Choice { piece: *piece, from, urgent: false })
        })
    }

    fn demanded(&mut self, now: Tick) -> Option<Choice> {
        let urgent = self.asked.values().flatten().filter(|it| it.urgent).count();
        if urgent * 2 >= self.policy.slots {
            return None;
        }
        let tie = self.rng.next_u64();
        let ahead =
            (0..LOOKAHEAD).flat_map(|ahead| self.demand.iter().map(move |it| it.saturating_add(ahead)));
        ahead.into_iter().find_map(|piece| {
            let from = self.idle_neighbour_with(now, piece, tie)?;
            Some(Choice { piece, from, urgent: true })
        })
    }

    fn rarest(&mut self, now: Tick) -> Option<Choice> {
        let tie = self.rng.next_u64();
        let (mut best, mut fewest, mut ties) = (None, u16::MAX, 0);
        for piece in 0..self.held.len() {
            let copies = self.sources.copies(piece);
            if copies == 0 || copies > fewest || self.held.contains(piece) || self.asked.contains_key(&piece)
            {
                continue;
            }
            let Some(from) = self.idle_neighbour_with(now, piece, tie) else {
                continue;
            };
            ties = if copies < fewest { 1 } else { ties + 1 };
            fewest = copies;
            if self.rng.below(ties) == 0 {
                best = Some(Choice { piece, from, urgent: false });
            }
        }
        best
    }

    /// A late answer, or the end game: ask one more source.
    fn doubled(&mut self, now: Tick) -> Option<Choice> {
        let end_game = (self.held.len() - self.held.count()) as usize <= self.policy.slots;
        let tie = self.rng.next_u64();
        let late = |it: &Ask| end_game || it.since.after(self.policy.hedge_after) <= now;
        self.asked.iter().filter(|(_, asks)| asks.len() < MAX_ASKS && asks.iter().all(late)).find_map(
            |(piece, asks)| {
                let from = self.neighbour_with(now, *piece, tie)?;
                (asks.iter().all(|it| it.from != from)).then_some(Choice {
                    piece: *piece,
                    from,
                    urgent: false,
                })
            },
        )
    }

    /// A piece from the gateway that nobody leased to this node, in this node's turn.
    fn without_lease(&self, now: Tick) -> Option<Choice> {
        if !self.imports_by_rank() {
            return None;
        }
        let missing =
            (0..self.held.len()).filter(|it| !self.held.contains(*it) && !self.asked.contains_key(it));
        missing.filter(|it| self.turn(*it).is_some_and(|turn| turn <= now)).find_map(|piece| {
            let from = self.sources.gateway_with(now, piece)?.clone();
            Some(Choice { piece, from, urgent: false })
        })
    }

    fn idle_neighbour_with(&self, now: Tick, piece: PieceIndex, tie: u64) -> Option<NodeId> {
        let idle = !self.held.contains(piece) && !self.asked.contains_key(&piece);
        idle.then(|| self.neighbour_with(now, piece, tie)).flatten()
    }

    fn neighbour_with(&self, now: Tick, piece: PieceIndex, tie: u64) -> Option<NodeId> {
        let salt = tie as u32;
        self.sources
            .best_neighbour(now, piece, self.policy.slots_per_source, |it| {
                rendezvous::weight(&self.key, salt, it)
            })
            .cloned()
    }
}
