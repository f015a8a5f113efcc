//! One source of a blob: what it is asked for, what it holds, how it does.

use std::time::Duration;

use shoal_model::{NodeId, Tick};

use super::score::{Model, Record};
use crate::Bitmap;

/// What a source is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// For leased pieces, and as the last resort in the region.
    Gateway,
    /// For everything that it has.
    Near,
    /// For leased pieces, and for everything where nothing comes from those that are near.
    Far,
    /// For leased pieces.
    Guest,
}

/// Which sources may be asked for what, beyond leased pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reach {
    /// The gateway may be asked.
    pub gateway: bool,
    /// Far neighbours may.
    pub far: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Source {
    pub id: NodeId,
    pub part: Part,
    /// A neighbour stays one until then, whether a list names it or not.
    pub stays_until: Tick,
    pub holds: Bitmap,
    pub watch: Watch,
    pub n_asked: u32,
    /// Pieces that are leased from it.
    pub n_leased: u32,
    /// Not asked before this: it failed, or it had no free slot.
    pub rests_until: Tick,
    /// The same, where it failed.
    pub failed_until: Tick,
    /// It failed by sending nothing.
    pub is_silent: bool,
    /// Since when it has been asked and has brought nothing.
    pub owes_since: Option<Tick>,
    /// When bytes came from it last.
    pub stirred_at: Tick,
    /// How many of its offers have come to nothing since it last brought a piece.
    pub n_empty_offers: u32,
    /// How often in a row it had no free slot.
    pub n_refused: u32,
    /// What it sent last nobody had vouched for.
    pub is_unvouched: bool,
    /// It sent wrong bytes; never asked for this blob again.
    pub banned: bool,
    /// Moving average of the time that a piece took, in microseconds; 0 before the first.
    pub piece_time: u64,
    /// What the model has learned of it.
    pub record: Record,
    /// When it last sent a piece, or began to have something to send.
    pub silent_since: Tick,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Watch {
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

impl Part {
    pub(super) const fn is_neighbour(self) -> bool {
        matches!(self, Self::Near | Self::Far)
    }
}

impl Source {
    pub(super) fn new(id: NodeId, part: Part, n_pieces: u32) -> Self {
        Self {
            id,
            part,
            stays_until: Tick(0),
            holds: Bitmap::new(n_pieces),
            watch: Watch::Untried,
            n_asked: 0,
            n_leased: 0,
            rests_until: Tick(0),
            failed_until: Tick(0),
            is_silent: false,
            owes_since: None,
            stirred_at: Tick(0),
            n_empty_offers: 0,
            n_refused: 0,
            is_unvouched: false,
            banned: false,
            piece_time: 0,
            record: Record::default(),
            silent_since: Tick(0),
        }
    }

    /// Whether it once had to be left alone.
    pub(super) fn has_failed(&self) -> bool {
        self.banned || self.rests_until > Tick(0)
    }

    /// Whether it may be expected to bring what it offers, which it is asked for `faith` at the longest.
    pub(super) fn is_credible(&self, now: Tick, faith: Duration) -> bool {
        !self.banned && self.failed_until <= now && self.owes_since.is_none_or(|it| now.since(it) < faith)
    }

    pub(super) fn answers(&self, now: Tick) -> bool {
        !self.banned && self.rests_until <= now && self.watch == Watch::On
    }

    /// Whether it is asked for pieces without a lease.
    pub(super) const fn is_within(&self, reach: Reach) -> bool {
        match self.part {
            Part::Near => true,
            Part::Far => reach.far,
            Part::Gateway | Part::Guest => false,
        }
    }

    /// Whether it matters what it holds.
    pub(super) const fn is_of_interest(&self, reach: Reach) -> bool {
        let leased = self.n_leased > 0;
        !self.banned
            && (leased || self.is_within(reach) || matches!(self.part, Part::Gateway) && reach.gateway)
    }

    /// Lower is better: what this source would have at work, times how long it takes for a piece; with a model,
    /// how long it should take.
    pub(super) fn cost(&self, now: Tick, model: Option<&Model>) -> Duration {
        let average = Duration::from_micros(self.piece_time.max(1));
        model.map_or_else(|| average.saturating_mul(self.n_asked + 1), |it| self.expected(now, it))
    }

    /// The time that the model predicts, or that it has been silent, where that is longer.
    fn expected(&self, now: Tick, model: &Model) -> Duration {
        let silent = if self.n_asked > 0 { now.since(self.silent_since) } else { Duration::ZERO };
        model.expected(&self.record).max(silent)
    }

    /// Whether it may be asked for one more piece.
    pub(super) fn has_room(&self, now: Tick, slots_per_source: u32, model: Option<&Model>) -> bool {
        self.n_asked < slots_per_source
            && model.is_none_or(|it| it.has_room(self.n_asked, self.expected(now, it)))
    }
}
