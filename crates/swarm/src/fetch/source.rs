//! What is known of the neighbours and of the gateway as sources of one blob.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use shoal_model::{NodeId, Rng, Tick};

use crate::{Bitmap, PieceIndex};

/// After so many refusals in a row the time of rest doubles no more.
const MAX_REFUSED: u32 = 2;

#[derive(Clone, Debug)]
struct Source {
    holds: Bitmap,
    watch: Watch,
    n_asked: u32,
    /// Not asked before this: it failed, or it had no free slot.
    rests_until: Tick,
    /// How often in a row it had no free slot.
    n_refused: u32,
    /// It sent wrong bytes; never asked for this blob again.
    banned: bool,
    /// Moving average of the time that a piece took, in microseconds; 0 before the first.
    piece_time: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Watch {
    /// Never tried.
    Untried,
    /// Asked for the first time; nothing came yet.
    Starting,
    /// It answers.
    On,
    /// It ended or could not be made; to be tried again at this time.
    Lost(Tick),
    /// Asked for again after a loss; nothing came yet.
    Retrying,
}

/// The neighbours and the gateway.
#[derive(Debug)]
pub(super) struct Sources {
    neighbours: BTreeMap<NodeId, Source>,
    gateway: Option<(NodeId, Source)>,
    /// When the gateway first offered each piece that it holds.
    offered: BTreeMap<PieceIndex, Tick>,
    /// How many neighbours hold each piece.
    copies: Vec<u16>,
    /// Moving average of the time that a piece took from anywhere, in microseconds; 0 before the first.
    piece_time: u64,
}

/// A moving average over about eight values, which begins with the first.
const fn averaged(before: u64, value: u64) -> u64 {
    if before == 0 { value } else { before.saturating_mul(7).saturating_add(value) / 8 }
}

impl Source {
    fn new(n_pieces: u32) -> Self {
        Self {
            holds: Bitmap::new(n_pieces),
            watch: Watch::Untried,
            n_asked: 0,
            rests_until: Tick(0),
            n_refused: 0,
            banned: false,
            piece_time: 0,
        }
    }

    fn answers(&self, now: Tick) -> bool {
        !self.banned && self.rests_until <= now && self.watch == Watch::On
    }

    /// Lower is better: what this source would have at work, times how long it takes for a piece.
    fn cost(&self) -> u64 {
        u64::from(self.n_asked + 1) * self.piece_time.max(1)
    }
}

impl Sources {
    pub(super) fn new(n_pieces: u32) -> Self {
        Self {
            neighbours: BTreeMap::new(),
            gateway: None,
            offered: BTreeMap::new(),
            copies: vec![0; n_pieces as usize],
            piece_time: 0,
        }
    }

    pub(super) fn neighbour_ids(&self) -> impl Iterator<Item = &NodeId> {
        self.neighbours.keys()
    }

    pub(super) fn gateway_id(&self) -> Option<&NodeId> {
        self.gateway.as_ref().map(|(id, _)| id)
    }

    pub(super) fn is_gateway(&self, id: &NodeId) -> bool {
        self.gateway_id() == Some(id)
    }

    /// Neighbouring copies of a piece.
    pub(super) fn copies(&self, piece: PieceIndex) -> u16 {
        self.copies.get(piece as usize).copied().unwrap_or(0)
    }

    /// Takes the new list; what is known of those that stay is kept. Returns who is gone.
    pub(super) fn replace_neighbours(&mut self, nodes: &[NodeId], me: &NodeId) -> Vec<NodeId> {
        let n_pieces = self.copies.len() as u32;
        let gone: Vec<_> = self.neighbours.keys().filter(|it| !nodes.contains(it)).cloned().collect();
        for id in &gone {
            if let Some(source) = self.neighbours.remove(id) {
                source.holds.iter().for_each(|it| self.copies[it as usize] -= 1);
            }
        }
        let gateway = self.gateway_id().cloned();
        for id in nodes.iter().filter(|it| *it != me && Some(*it) != gateway.as_ref()) {
            self.neighbours.entry(id.clone()).or_insert_with(|| Source::new(n_pieces));
        }
        gone
    }

    pub(super) fn set_gateway(&mut self, id: NodeId) {
        if self.gateway_id() != Some(&id) {
            self.gateway = Some((id, Source::new(self.copies.len() as u32)));
            self.offered.clear();
        }
    }

    fn get_mut(&mut self, id: &NodeId) -> Option<&mut Source> {
        match &mut self.gateway {
            Some((gateway, source)) if gateway == id => Some(source),
            _ => self.neighbours.get_mut(id),
        }
    }

    /// Takes in what a watched source said; true where it holds something that it did not before.
    pub(super) fn news(
        &mut self,
        now: Tick,
        from: &NodeId,
        dropped: bool,
        gained: Vec<Range<PieceIndex>>,
    ) -> bool {
        let is_gateway = self.is_gateway(from);
        let n_pieces = self.copies.len() as u32;
        let mut copies = std::mem::take(&mut self.copies);
        let mut offered = std::mem::take(&mut self.offered);
        if is_gateway && dropped {
            offered.clear();
        }
        let mut fresh = false;
        if let Some(source) = self.get_mut(from) {
            source.watch = Watch::On;
            if dropped {
                let held = std::mem::replace(&mut source.holds, Bitmap::new(n_pieces));
                held.iter().filter(|_| !is_gateway).for_each(|it| copies[it as usize] -= 1);
            }
            for piece in gained.into_iter().flat_map(|it| it.start..it.end.min(n_pieces)) {
                if source.holds.insert(piece) {
                    fresh = true;
                    copies[piece as usize] += u16::from(!is_gateway);
                    if is_gateway {
                        offered.insert(piece, now);
                    }
                }
            }
        }
        (self.copies, self.offered) = (copies, offered);
        fresh
    }

    pub(super) fn lacks(&mut self, from: &NodeId, piece: PieceIndex) {
        let is_gateway = self.is_gateway(from);
        if self.get_mut(from).is_some_and(|it| it.holds.remove(piece)) && !is_gateway {
            self.copies[piece as usize] -= 1;
        }
    }

    /// The watch on a source ended; it is tried again at `until`.
    pub(super) fn lost(&mut self, from: &NodeId, until: Tick) {
        self.news(until, from, true, Vec::new());
        if let Some(source) = self.get_mut(from) {
            source.watch = Watch::Lost(until);
            source.n_asked = 0;
        }
    }

    /// Do not ask this source before `until`.
    pub(super) fn rest(&mut self, from: &NodeId, until: Tick) {
        if let Some(source) = self.get_mut(from) {
            source.rests_until = source.rests_until.max(until);
        }
    }

    /// The source had no free slot. One at work on many pieces has one again after a part of the time that a
    /// piece takes; whoever is refused again and again stays away for longer.
    pub(super) fn refused(&mut self, now: Tick, from: &NodeId, at_least: Duration) {
        let soon = at_least.max(self.piece_time() / 4);
        if let Some(source) = self.get_mut(from) {
            source.rests_until = source.rests_until.max(now.after(soon * (1 << source.n_refused)));
            source.n_refused = (source.n_refused + 1).min(MAX_REFUSED);
        }
    }

    pub(super) fn ban(&mut self, from: &NodeId) {
        if let Some(source) = self.get_mut(from) {
            source.banned = true;
        }
    }

    pub(super) fn asked(&mut self, from: &NodeId) {
        if let Some(source) = self.get_mut(from) {
            source.n_asked += 1;
        }
    }

    pub(super) fn freed(&mut self, from: &NodeId) {
        if let Some(source) = self.get_mut(from) {
            source.n_asked = source.n_asked.saturating_sub(1);
        }
    }

    /// An ask has done its work, or another was faster.
    pub(super) fn finished(&mut self, from: &NodeId, took: Duration) {
        self.freed(from);
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
        self.piece_time = averaged(self.piece_time, took);
        if let Some(source) = self.get_mut(from) {
            source.piece_time = averaged(source.piece_time, took);
            source.n_refused = 0;
        }
    }

    /// What a piece took lately, from anywhere; zero before the first.
    pub(super) const fn piece_time(&self) -> Duration {
        Duration::from_micros(self.piece_time)
    }

    /// The neighbours that can be asked now, for one more piece.
    fn askable(&self, now: Tick, slots_per_source: u32) -> impl Iterator<Item = (&NodeId, &Source)> {
        self.neighbours.iter().filter(move |(_, it)| it.answers(now) && it.n_asked < slots_per_source)
    }

    /// Every piece that some neighbour holds that can be asked now.
    pub(super) fn offers(&self, now: Tick, slots_per_source: u32) -> Bitmap {
        let mut offers = Bitmap::new(self.copies.len() as u32);
        self.askable(now, slots_per_source).for_each(|(_, it)| offers.unite(&it.holds));
        offers
    }

    /// The cheapest neighbour that holds the piece, can be asked now and `fits`; ties at random.
    pub(super) fn best_neighbour(
        &self,
        now: Tick,
        piece: PieceIndex,
        slots_per_source: u32,
        fits: impl Fn(&NodeId) -> bool,
        rng: &mut Rng,
    ) -> Option<&NodeId> {
        let holders = self.askable(now, slots_per_source).filter(|(_, it)| it.holds.contains(piece));
        let holders = holders.filter(|(id, _)| fits(id));
        holders.min_by_key(|(_, it)| (it.cost(), rng.next_u64())).map(|(id, _)| id)
    }

    /// The gateway, where it holds the piece and can be asked now.
    pub(super) fn gateway_with(&self, now: Tick, piece: PieceIndex) -> Option<&NodeId> {
        let (id, source) = self.gateway.as_ref()?;
        (source.answers(now) && source.holds.contains(piece)).then_some(id)
    }

    /// When the gateway first offered the piece, where it does.
    pub(super) fn offered_by_gateway(&self, piece: PieceIndex) -> Option<Tick> {
        self.offered.get(&piece).copied()
    }

    /// Whether the gateway is known and, as far as was tried, well.
    pub(super) fn gateway_answers(&self) -> bool {
        self.gateway.as_ref().is_some_and(|(_, it)| {
            !it.banned && matches!(it.watch, Watch::Untried | Watch::Starting | Watch::On)
        })
    }

    /// Whether some neighbour that answers holds a piece that is missing here.
    pub(super) fn neighbours_offer(&self, now: Tick, held: &Bitmap) -> bool {
        self.neighbours.values().any(|it| it.answers(now) && it.holds.has_beyond(held))
    }

    /// Sources to watch from now on, marked as asked for.
    pub(super) fn start_watching(&mut self, now: Tick, with_gateway: bool) -> Vec<NodeId> {
        let gateway = self.gateway.as_mut().filter(|_| with_gateway).map(|(id, it)| (&*id, it));
        let mut to_watch = Vec::new();
        for (id, source) in self.neighbours.iter_mut().chain(gateway).filter(|(_, it)| !it.banned) {
            source.watch = match source.watch {
                Watch::Untried => Watch::Starting,
                Watch::Lost(until) if until <= now => Watch::Retrying,
                _ => continue,
            };
            to_watch.push(id.clone());
        }
        to_watch
    }

    /// When resting sources may be asked or watched again.
    pub(super) fn wakes(&self) -> impl Iterator<Item = Tick> {
        let gateway = self.gateway.as_ref().map(|(_, it)| it);
        self.neighbours.values().chain(gateway).flat_map(|it| {
            let watch = match it.watch {
                Watch::Lost(until) => Some(until),
                _ => None,
            };
            [Some(it.rests_until), watch].into_iter().flatten()
        })
    }
}
