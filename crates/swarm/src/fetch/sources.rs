//! All that a fetch knows of the neighbours, of suppliers that a lease names, and of the gateway, as sources of its
//! blob.

#![expect(
    clippy::indexing_slicing,
    reason = "places come from `find`, and pieces from bitmaps as long as `copies`"
)]

mod conduct;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::Duration;

use shoal_model::{NodeId, Rng, Tick};

use super::score::{Model, Record};
use super::source::{Part, Reach, Source, Watch};
use crate::{Algorithm, Bitmap, PieceIndex};

/// All that can be asked for pieces: neighbours, suppliers that a lease names, the gateway.
#[derive(Debug)]
pub(super) struct Sources {
    /// In the order of their names, without the gateway.
    known: Vec<Source>,
    gateway: Option<Source>,
    /// Gateways before this one that sent wrong bytes.
    banned_gateways: BTreeSet<NodeId>,
    /// When a source may be asked or watched again that may not now.
    wakes: BTreeSet<Tick>,
    /// Which sources might have to be watched that are not, so that they need not be looked through each time:
    /// any, or none of those that this reach covers.
    watched_within: Option<Reach>,
    /// When the gateway first offered each piece that it holds.
    offered: BTreeMap<PieceIndex, Tick>,
    /// How many neighbours are known to hold each piece.
    copies: Vec<u16>,
    /// Moving average of the time that a piece took from anywhere, in microseconds; 0 before the first.
    piece_time: u64,
    /// Predicts the time of a piece, where the region's algorithm is `ml`.
    model: Option<Model>,
    /// The last one that answered failed, and none has answered since.
    is_cut_off: bool,
}

impl Sources {
    pub(super) fn new(n_pieces: u32) -> Self {
        Self {
            known: Vec::new(),
            gateway: None,
            banned_gateways: BTreeSet::new(),
            wakes: BTreeSet::new(),
            watched_within: None,
            offered: BTreeMap::new(),
            copies: vec![0; n_pieces as usize],
            piece_time: 0,
            model: None,
            is_cut_off: false,
        }
    }

    /// How sources are compared from now on; what was learned is kept while that stays the same.
    pub(super) fn score_by(&mut self, algorithm: Algorithm) {
        if (algorithm == Algorithm::Ml) == self.model.is_some() {
            return;
        }
        self.model = (algorithm == Algorithm::Ml).then(Model::default);
        self.known.iter_mut().chain(&mut self.gateway).for_each(|it| it.record = Record::default());
    }

    pub(super) fn neighbour_ids(&self) -> impl Iterator<Item = &NodeId> {
        self.known.iter().filter(|it| it.part.is_neighbour()).map(|it| &it.id)
    }

    /// How many neighbours within reach say what they hold.
    pub(super) fn n_watched(&self, reach: Reach) -> usize {
        let within = self.known.iter().filter(|it| it.is_within(reach) && !it.banned);
        within.filter(|it| it.watch == Watch::On).count()
    }

    pub(super) fn is_gateway(&self, id: &NodeId) -> bool {
        self.gateway.as_ref().is_some_and(|it| it.id == *id)
    }

    /// Whether this node fetches from that one while all is well.
    pub(super) fn is_near(&self, id: &NodeId) -> bool {
        self.get(id).is_some_and(|it| it.part == Part::Near)
    }

    /// Neighbouring copies of a piece.
    pub(super) fn copies(&self, piece: PieceIndex) -> u16 {
        self.copies.get(piece as usize).copied().unwrap_or(0)
    }

    // === Who is known ===

    /// Takes the new lists; what is known of those that stay is kept. Returns who is gone.
    pub(super) fn replace_neighbours(
        &mut self,
        now: Tick,
        (near, far): (&[NodeId], &[NodeId]),
        me: &NodeId,
    ) -> Vec<NodeId> {
        let neighbours = self.known.iter().filter(|it| it.part.is_neighbour() && it.stays_until <= now);
        let neighbours: Vec<_> = neighbours.map(|it| it.id.clone()).collect();
        let others = neighbours.into_iter().filter(|it| !near.contains(it) && !far.contains(it));
        let gone = others.filter(|it| {
            self.make(it, Part::Guest);
            self.leave_if_idle(it)
        });
        let gone = gone.collect();
        let lists = [(far, Part::Far), (near, Part::Near)];
        for (id, part) in lists.iter().flat_map(|(list, part)| list.iter().map(move |id| (id, *part))) {
            if id != me && !self.is_gateway(id) {
                self.make(id, part);
            }
        }
        gone
    }

    /// Whoever is a neighbour now stays one until then.
    pub(super) fn keep_neighbours(&mut self, until: Tick) {
        let neighbours = self.known.iter_mut().filter(|it| it.part.is_neighbour());
        neighbours.for_each(|it| it.stays_until = until);
    }

    /// The region has this gateway now. Returns the one before, if it was another.
    pub(super) fn set_gateway(&mut self, id: &NodeId) -> Option<NodeId> {
        if self.is_gateway(id) {
            return None;
        }
        self.offered.clear();
        self.watched_within = None;
        let mut gateway = Source::new(id.clone(), Part::Gateway, self.copies.len() as u32);
        gateway.banned = self.banned_gateways.contains(id);
        let before = self.gateway.replace(gateway)?;
        if before.banned {
            self.banned_gateways.insert(before.id.clone());
        }
        Some(before.id)
    }

    /// A piece is leased from this source.
    pub(super) fn leased(&mut self, from: &NodeId) {
        if self.get(from).is_none() {
            self.make(from, Part::Guest);
        }
        if let Some(source) = self.get_mut(from) {
            source.n_leased += 1;
        }
        self.watched_within = None;
    }

    /// A lease has ended; true where nothing more is to be had from its source.
    pub(super) fn lease_ended(&mut self, from: &NodeId) -> bool {
        if let Some(source) = self.get_mut(from) {
            source.n_leased = source.n_leased.saturating_sub(1);
        }
        self.leave_if_idle(from)
    }

    fn leave_if_idle(&mut self, id: &NodeId) -> bool {
        let Ok(at) = self.find(id) else { return false };
        let source = &mut self.known[at];
        let leaves = source.part == Part::Guest && source.n_leased == 0;
        if leaves && source.has_failed() {
            // A later lease does not make it better.
            (source.watch, source.n_asked) = (Watch::Untried, 0);
            self.holds_nothing(id);
        } else if leaves {
            self.known.remove(at);
        }
        leaves
    }

    /// Makes a source other than the gateway what it is for from now on.
    fn make(&mut self, id: &NodeId, part: Part) {
        self.watched_within = None;
        let n_pieces = self.copies.len() as u32;
        let at = self.find(id).unwrap_or_else(|at| {
            self.known.insert(at, Source::new(id.clone(), part, n_pieces));
            at
        });
        let was = std::mem::replace(&mut self.known[at].part, part);
        if was.is_neighbour() != part.is_neighbour() {
            for piece in self.known[at].holds.iter() {
                let copies = &mut self.copies[piece as usize];
                *copies = if part.is_neighbour() { *copies + 1 } else { *copies - 1 };
            }
        }
    }

    /// Where a source other than the gateway stands, or belongs.
    fn find(&self, id: &NodeId) -> Result<usize, usize> {
        self.known.binary_search_by(|it| it.id.cmp(id))
    }

    fn get(&self, id: &NodeId) -> Option<&Source> {
        let gateway = self.gateway.as_ref().filter(|it| it.id == *id);
        gateway.or_else(|| self.find(id).ok().map(|at| &self.known[at]))
    }

    fn get_mut(&mut self, id: &NodeId) -> Option<&mut Source> {
        if self.is_gateway(id) {
            return self.gateway.as_mut();
        }
        self.find(id).ok().map(|at| &mut self.known[at])
    }

    // === What they hold ===

    /// Takes in what a watched source said; true where it holds something that it did not before and that `held`
    /// lacks.
    pub(super) fn news(
        &mut self,
        now: Tick,
        from: &NodeId,
        gained: Vec<Range<PieceIndex>>,
        held: &Bitmap,
    ) -> bool {
        let at = self.find(from);
        let source = match (&mut self.gateway, at) {
            (Some(gateway), _) if gateway.id == *from => gateway,
            (_, Ok(at)) => &mut self.known[at],
            _ => return false,
        };
        source.watch = Watch::On;
        let n_pieces = source.holds.len();
        let mut fresh = false;
        for piece in gained.into_iter().flat_map(|it| it.start..it.end.min(n_pieces)) {
            if !source.holds.insert(piece) {
                continue;
            }
            fresh |= !held.contains(piece);
            if source.part.is_neighbour() {
                self.copies[piece as usize] += 1;
            } else if source.part == Part::Gateway {
                self.offered.insert(piece, now);
            }
        }
        self.reconnected(now);
        fresh
    }

    /// All that a source said before is void.
    pub(super) fn holds_nothing(&mut self, id: &NodeId) {
        let nothing = Bitmap::new(self.copies.len() as u32);
        let Some(source) = self.get_mut(id) else { return };
        let held = std::mem::replace(&mut source.holds, nothing);
        match source.part {
            Part::Gateway => self.offered.clear(),
            Part::Near | Part::Far => held.iter().for_each(|it| self.copies[it as usize] -= 1),
            Part::Guest => {}
        }
    }

    pub(super) fn lacks(&mut self, from: &NodeId, piece: PieceIndex) {
        let Some(source) = self.get_mut(from) else { return };
        if !source.holds.remove(piece) {
            return;
        }
        match source.part {
            Part::Gateway => drop(self.offered.remove(&piece)),
            Part::Near | Part::Far => self.copies[piece as usize] -= 1,
            Part::Guest => {}
        }
    }

    /// The watch on a source ended; it is tried again after this rest.
    pub(super) fn lost(&mut self, now: Tick, from: &NodeId, rest: Duration) {
        let until = now.after(rest);
        self.holds_nothing(from);
        if let Some(source) = self.get_mut(from) {
            source.watch = Watch::Lost(until);
            source.n_asked = 0;
        }
        self.wakes.insert(until);
        self.look_whether_cut_off(now);
    }

    // === Whom to ask ===

    /// The neighbours that can be asked now, for one more piece.
    fn askable(&self, now: Tick, reach: Reach, slots_per_source: u32) -> impl Iterator<Item = &Source> {
        self.known
            .iter()
            .filter(move |it| it.is_within(reach) && it.answers(now))
            .filter(move |it| it.has_room(now, slots_per_source, self.model.as_ref()))
    }

    /// Every piece that some neighbour holds that can be asked now.
    pub(super) fn offers(&self, now: Tick, reach: Reach, slots_per_source: u32) -> Bitmap {
        let mut offers = Bitmap::new(self.copies.len() as u32);
        self.askable(now, reach, slots_per_source).for_each(|it| offers.unite(&it.holds));
        offers
    }

    /// The cheapest neighbour that holds the piece, can be asked now and `fits`; ties at random.
    pub(super) fn best_neighbour(
        &self,
        (now, reach, slots_per_source): (Tick, Reach, u32),
        piece: PieceIndex,
        fits: impl Fn(&NodeId) -> bool,
        rng: &mut Rng,
    ) -> Option<&NodeId> {
        let holders = self.askable(now, reach, slots_per_source).filter(|it| it.holds.contains(piece));
        let holders = holders.filter(|it| fits(&it.id));
        let model = self.model.as_ref();
        holders.min_by_key(|it| (it.cost(now, model), rng.next_u64())).map(|it| &it.id)
    }

    /// Whether this source holds the piece and can be asked now.
    pub(super) fn has(&self, now: Tick, from: &NodeId, piece: PieceIndex) -> bool {
        self.get(from).is_some_and(|it| it.answers(now) && it.holds.contains(piece))
    }

    /// The gateway, where it holds the piece and can be asked now.
    pub(super) fn gateway_with(&self, now: Tick, piece: PieceIndex) -> Option<&NodeId> {
        let gateway = self.gateway.as_ref().filter(|it| it.answers(now) && it.holds.contains(piece));
        gateway.map(|it| &it.id)
    }

    /// When the gateway first offered the piece, where it does.
    pub(super) fn offered_by_gateway(&self, piece: PieceIndex) -> Option<Tick> {
        self.offered.get(&piece).copied()
    }

    /// Whether the gateway is known and, as far as was tried, well.
    pub(super) fn gateway_answers(&self) -> bool {
        self.gateway
            .as_ref()
            .is_some_and(|it| !it.banned && matches!(it.watch, Watch::Untried | Watch::Starting | Watch::On))
    }

    /// Whether some neighbour that answers holds a piece that is missing here.
    pub(super) fn neighbours_offer(&self, now: Tick, held: &Bitmap) -> bool {
        let neighbours = self.known.iter().filter(|it| it.part.is_neighbour());
        neighbours.filter(|it| it.answers(now)).any(|it| it.holds.has_beyond(held))
    }

    // === Watches ===

    /// Sources to watch from now on, marked as asked for.
    pub(super) fn start_watching(&mut self, now: Tick, reach: Reach) -> Vec<NodeId> {
        let awake = self.wakes.split_off(&now.after(Duration::from_micros(1)));
        let has_slept = !std::mem::replace(&mut self.wakes, awake).is_empty();
        if !has_slept && self.watched_within == Some(reach) {
            return Vec::new();
        }
        self.watched_within = Some(reach);
        let mut to_watch = Vec::new();
        let all = self.known.iter_mut().chain(&mut self.gateway);
        for source in all.filter(|it| it.is_of_interest(reach)) {
            source.watch = match source.watch {
                Watch::Untried => Watch::Starting,
                Watch::Lost(until) if until <= now => Watch::Retrying,
                _ => continue,
            };
            to_watch.push(source.id.clone());
        }
        to_watch
    }

    /// When the next resting source may be asked or watched again.
    pub(super) fn next_wake(&self) -> Option<Tick> {
        self.wakes.first().copied()
    }
}
