//! What a fetch is told, and what it says.

use std::ops::Range;

use shoal_model::{NodeId, Role};

use crate::{Algorithm, Bitmap, PieceIndex};

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// Whom to ask from now on; replaces what was said before, unless by another scheduler just now.
    Neighbours {
        /// For everything.
        near: Vec<NodeId>,
        /// For what does not come from those.
        far: Vec<NodeId>,
        /// How to choose among them.
        algorithm: Algorithm,
    },
    /// The gateway of last resort in the region.
    Gateway(NodeId),
    /// This node brings these pieces in. A lease ends when the piece is held: where a slow node's lease
    /// has gone to a successor meanwhile, the piece may come in twice, and that is all.
    Leased {
        /// From the gateway, or from a node that holds them.
        from: NodeId,
        /// Which of the two it is.
        role: Role,
        /// Which pieces.
        pieces: Vec<Range<PieceIndex>>,
    },
    /// A watched source said what it holds.
    News {
        /// Which source.
        from: NodeId,
        /// All that it said before is void.
        dropped: bool,
        /// What it holds no longer, as far as it does not hold it newly.
        lost: Vec<Range<PieceIndex>>,
        /// What it newly holds.
        gained: Vec<Range<PieceIndex>>,
        /// A seed gave a sign of life: busy is not sick. Only the gateway has one.
        alive: bool,
    },
    /// A source can no longer be watched, or never could.
    Lost {
        /// Which source.
        from: NodeId,
        /// It answered, and only has no place or no such blob at this moment.
        is_well: bool,
    },
    /// The store has verified a piece.
    Held {
        /// Which piece.
        piece: PieceIndex,
        /// Which source brought it; none where that was none of those that were asked.
        from: Option<NodeId>,
    },
    /// What the store has now, where that is less than it was told: content was poisoned or damaged.
    Have(Bitmap),
    /// An ask came to nothing.
    Failed {
        /// Of whom it was asked.
        from: NodeId,
        /// Which piece.
        piece: PieceIndex,
        /// Why.
        fault: Fault,
    },
    /// An ask has not left yet: this node has yet to store what came before.
    Queued {
        /// Of whom it will be asked.
        from: NodeId,
        /// Which piece.
        piece: PieceIndex,
    },
    /// Bytes of some asked piece arrived.
    Moved {
        /// Of whom; none where the registry sent them.
        from: Option<NodeId>,
    },
    /// The next piece that each reader needs; all pieces that readers need soon, where nothing can be stored.
    Demand(Vec<PieceIndex>),
    /// Whether pieces are stored from now on. Where they are not, they are fetched for readers only: those of the last
    /// [`Event::Demand`], from whoever has them, and without leases.
    Stored(bool),
    /// Whether a scheduler leads this fetch from now on; one that does may be another than before.
    Scheduler(bool),
    /// How many pieces may be asked at the same time from now on; what is asked already goes on.
    Slots(usize),
    /// The scheduler lets this node ask the registry.
    MayGoDirect,
    /// The registry did not serve this node either.
    DirectFailed,
    /// The time that [`Fetch::next_deadline`] named has come.
    Deadline,
}

/// Why an ask came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// No free slot; the source is well.
    Busy,
    /// The source does not hold the piece after all.
    NotHeld,
    /// It could not be reached, or sent nothing for long: it may as well be this node that is cut off.
    Silent,
    /// The transfer broke, or the answer was none.
    Broken,
    /// It sent wrong bytes.
    WrongBytes,
    /// It offered a piece that nobody has vouched for; what it says has to be heard from the beginning.
    Unvouched,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Learn what this source holds, from now on.
    Watch(NodeId),
    /// Nothing is to be had from this source any more: stop watching it, and whatever was asked of it.
    Leave(NodeId),
    /// Ask a source for a piece.
    Ask {
        /// Whom.
        from: NodeId,
        /// For what.
        piece: PieceIndex,
        /// It comes before other asks: others wait for this node to bring the piece in, or little else is under
        /// way to it. Those who are at work ask anew the moment that they are served, and a newcomer would find
        /// every slot taken.
        is_urgent: bool,
    },
    /// Another source was faster: stop this ask.
    Cancel {
        /// Whom.
        from: NodeId,
        /// For what.
        piece: PieceIndex,
    },
    /// Tell the scheduler that nothing comes.
    Strand,
    /// Read from the registry, from the first missing byte on, with the caller's own credential.
    GoDirect,
    /// Nothing is left to try: end the readers' streams early, so that the runtime resumes elsewhere.
    GiveUp,
    /// Every piece is held.
    Finished,
}
