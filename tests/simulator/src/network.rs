//! Links, and pieces on their way.
//!
//! Each piece travels in quanta of a quarter. A sender's uplink serves its uploads in turn, a quantum each,
//! and no upload has more than [`WINDOW`] quanta under way, as TCP's flow control would have it: so whoever
//! shares a link shares it evenly, no link rests while there is something for it, and a receiver whose link
//! is full holds up nobody but itself. Every other link on the path is a queue, first come, first served. A
//! quantum is passed on while it comes in, so that it costs the time of its slowest link once, not that of
//! every link.
//!
//! The error of this: shares are even to within a quantum (2 ms at 1 Gbit/s), and so is the end of a piece.
//! There is no loss, no slow start and no header: links carry what their rate says. Requests, refusals and
//! news are small and take their delay only.

use std::collections::VecDeque;

use shoal_model::{ByteRate, Rng};
use shoal_swarm::PieceIndex;

use crate::queue::Queue;
use crate::simulation::{Happens, ShareId};
use crate::world::World;

/// Quanta of a piece.
const QUANTA: u64 = 4;
/// Quanta of one upload that may be under way.
const WINDOW: u8 = 2;

/// The number of a transfer; used again once it is over.
pub(crate) type TransferId = u32;

/// Which link a quantum comes to next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hop {
    /// Out of the sender's rack.
    RackUp,
    /// Into the receiver's rack.
    RackDown,
    /// The receiver's own link.
    Down,
}

/// A piece that was asked for.
#[derive(Clone, Debug)]
pub(crate) struct Transfer {
    /// Whose ask it is.
    pub to: ShareId,
    /// The node that was asked.
    pub from: u32,
    /// What for.
    pub piece: PieceIndex,
    /// The one who asked still waits for it.
    pub is_awaited: bool,
    /// It comes before other asks.
    pub is_urgent: bool,
    /// It has an upload slot.
    is_active: bool,
    /// That slot is one of those for urgent asks.
    has_urgent_slot: bool,
    receiver: u32,
    size: u64,
    unsent: u64,
    arrived: u64,
    in_flight: u8,
    /// Plans and queues that name it; it ends with the last of them.
    n_mentions: u8,
}

/// Every link and every transfer.
pub(crate) struct Network {
    uplinks: Vec<Uplink>,
    downlinks: Vec<Pipe>,
    racks_up: Vec<Pipe>,
    racks_down: Vec<Pipe>,
    rack_of: Vec<Option<usize>>,
    zone_of: Vec<usize>,
    /// As [`World::delay`].
    delay: [u64; 2],
    jitter: Rng,
    transfers: Vec<Transfer>,
    unused: Vec<TransferId>,
    /// Bytes that each node has sent.
    pub sent: Vec<u64>,
    /// Every transfer that was ever asked for, where that is written down: for whom, from whom, which piece.
    pub asked: Option<Vec<(ShareId, u32, PieceIndex)>>,
}

struct Uplink {
    rate: ByteRate,
    is_busy: bool,
    n_uploads: u32,
    n_urgent: u32,
    ready: VecDeque<TransferId>,
}

struct Pipe {
    rate: ByteRate,
    free_at: u64,
}

/// The time in microseconds that a link needs for so many bytes.
pub(crate) const fn time_of(bytes: u64, rate: ByteRate) -> u64 {
    (bytes * 1_000_000).div_ceil(rate.0)
}

impl Pipe {
    const fn new(rate: ByteRate) -> Self {
        Self { rate, free_at: 0 }
    }

    /// Bytes come in from `begin` to `end`; returns the same for the far side.
    fn pass(&mut self, begin: u64, end: u64, bytes: u64) -> (u64, u64) {
        let begin = begin.max(self.free_at);
        self.free_at = begin + time_of(bytes, self.rate);
        (begin, end.max(self.free_at))
    }
}

impl Network {
    pub(crate) fn new(world: &World, jitter: Rng) -> Self {
        let uplink =
            |rate| Uplink { rate, is_busy: false, n_uploads: 0, n_urgent: 0, ready: VecDeque::new() };
        let racks = || world.racks.iter().copied().map(Pipe::new).collect();
        Self {
            uplinks: world.sites.iter().map(|it| uplink(it.up)).collect(),
            downlinks: world.sites.iter().map(|it| Pipe::new(it.down)).collect(),
            racks_up: racks(),
            racks_down: racks(),
            rack_of: world.sites.iter().map(|it| it.rack).collect(),
            zone_of: world.sites.iter().map(|it| it.zone).collect(),
            delay: world.delay,
            jitter,
            transfers: Vec::new(),
            unused: Vec::new(),
            sent: vec![0; world.sites.len()],
            asked: None,
        }
    }

    /// How long a message takes from one node to another: the delay, give or take two fifths.
    pub(crate) fn delay(&mut self, one: u32, other: u32) -> u64 {
        let delay = self.delay[usize::from(self.zone_of[one as usize] != self.zone_of[other as usize])];
        delay * (600 + self.jitter.below(801) as u64) / 1000
    }

    /// Takes up an ask of `to`, a part of the node `receiver`, on its way to the node `from`: mentioned once.
    pub(crate) fn ask(
        &mut self,
        to: ShareId,
        receiver: u32,
        from: u32,
        piece: PieceIndex,
        size: u64,
        is_urgent: bool,
    ) -> TransferId {
        self.asked.iter_mut().for_each(|it| it.push((to, from, piece)));
        let transfer = Transfer {
            to,
            from,
            piece,
            is_awaited: true,
            is_urgent,
            is_active: false,
            has_urgent_slot: false,
            receiver,
            size,
            unsent: size,
            arrived: 0,
            in_flight: 0,
            n_mentions: 1,
        };
        match self.unused.pop() {
            Some(id) => {
                self.transfers[id as usize] = transfer;
                id
            }
            None => {
                self.transfers.push(transfer);
                self.transfers.len() as TransferId - 1
            }
        }
    }

    pub(crate) fn get(&self, id: TransferId) -> &Transfer {
        &self.transfers[id as usize]
    }

    /// The one who asked waits no longer. Whatever is under way still uses the links.
    pub(crate) fn give_up(&mut self, id: TransferId) {
        self.transfers[id as usize].is_awaited = false;
    }

    /// A plan names the transfer.
    pub(crate) fn mention(&mut self, id: TransferId) {
        self.transfers[id as usize].n_mentions += 1;
    }

    /// What named the transfer has happened.
    pub(crate) fn unmention(&mut self, id: TransferId) {
        let it = &mut self.transfers[id as usize];
        it.n_mentions -= 1;
        if it.n_mentions == 0 {
            self.unused.push(id);
        }
    }

    /// Gives the transfer an upload slot, of so many or, where it is urgent, of a third more, and lets it run; false
    /// where none is free (`crates/peer/src/pieces.rs`).
    pub(crate) fn start(&mut self, queue: &mut Queue<Happens>, id: TransferId, slots: u32) -> bool {
        let it = &mut self.transfers[id as usize];
        let uplink = &mut self.uplinks[it.from as usize];
        it.has_urgent_slot = uplink.n_uploads >= slots;
        if !it.has_urgent_slot {
            uplink.n_uploads += 1;
        } else if it.is_urgent && uplink.n_urgent < slots.div_ceil(3) {
            uplink.n_urgent += 1;
        } else {
            return false;
        }
        it.is_active = true;
        let from = it.from;
        self.enqueue(id);
        self.serve(queue, from);
        true
    }

    /// What the node sends from now on goes out at this rate.
    pub(crate) fn send_at(&mut self, node: u32, rate: ByteRate) {
        self.uplinks[node as usize].rate = rate;
    }

    /// Takes the upload slot back, where the transfer has one.
    pub(crate) fn stop(&mut self, id: TransferId) {
        let it = &mut self.transfers[id as usize];
        if std::mem::take(&mut it.is_active) {
            let uplink = &mut self.uplinks[it.from as usize];
            let taken = if it.has_urgent_slot { &mut uplink.n_urgent } else { &mut uplink.n_uploads };
            *taken -= 1;
        }
    }

    /// Cuts all transfers from or to a node; returns those that somebody waits for.
    pub(crate) fn cut(&mut self, node: u32) -> Vec<TransferId> {
        let ids = 0..self.transfers.len() as TransferId;
        let live: Vec<_> = ids
            .filter(|id| {
                let it = self.get(*id);
                it.n_mentions > 0 && (it.from == node || it.receiver == node)
            })
            .collect();
        live.iter().for_each(|id| self.stop(*id));
        live.into_iter().filter(|it| self.get(*it).is_awaited && self.get(*it).from == node).collect()
    }

    /// The uplink has sent its quantum.
    pub(crate) fn sent(&mut self, queue: &mut Queue<Happens>, node: u32) {
        self.uplinks[node as usize].is_busy = false;
        self.serve(queue, node);
    }

    /// A quantum that ended its last link at `end` comes to another.
    pub(crate) fn passes(&mut self, queue: &mut Queue<Happens>, id: TransferId, hop: Hop, end: u64) {
        let Transfer { from, receiver, size, .. } = *self.get(id);
        let quantum = size.div_ceil(QUANTA);
        let begin = queue.now();
        let rack_of = |node: u32| self.rack_of[node as usize].unwrap_or_default();
        match hop {
            Hop::RackUp if self.rack_of[from as usize].is_some() => {
                let (begin, end) = self.racks_up[rack_of(from)].pass(begin, end, quantum);
                queue.plan(begin, Happens::Passes { id, hop: Hop::RackDown, end });
            }
            Hop::RackUp | Hop::RackDown if self.rack_of[receiver as usize].is_some() => {
                let (begin, end) = self.racks_down[rack_of(receiver)].pass(begin, end, quantum);
                queue.plan(begin, Happens::Passes { id, hop: Hop::Down, end });
            }
            _ => {
                let (_, end) = self.downlinks[receiver as usize].pass(begin, end, quantum);
                let delay = self.delay(from, receiver);
                queue.plan(end + delay, Happens::Arrives(id));
            }
        }
    }

    /// A quantum has arrived; true where it was the last of a piece.
    pub(crate) fn arrives(&mut self, queue: &mut Queue<Happens>, id: TransferId) -> bool {
        let it = &mut self.transfers[id as usize];
        let was_blocked = it.in_flight == WINDOW;
        it.in_flight -= 1;
        it.arrived += it.size.div_ceil(QUANTA);
        let (from, is_whole) = (it.from, it.arrived >= it.size);
        if is_whole {
            self.stop(id);
        } else if was_blocked && it.is_active && it.unsent > 0 {
            self.enqueue(id);
            self.serve(queue, from);
        }
        is_whole
    }

    fn enqueue(&mut self, id: TransferId) {
        self.mention(id);
        let from = self.get(id).from;
        self.uplinks[from as usize].ready.push_back(id);
    }

    /// Sends the next quantum of the upload whose turn it is.
    fn serve(&mut self, queue: &mut Queue<Happens>, node: u32) {
        let uplink = &mut self.uplinks[node as usize];
        while !uplink.is_busy {
            let Some(id) = uplink.ready.pop_front() else { return };
            let it = &mut self.transfers[id as usize];
            if it.is_active {
                uplink.is_busy = true;
                let end = queue.now() + time_of(it.size.div_ceil(QUANTA), uplink.rate);
                self.sent[node as usize] += it.size.div_ceil(QUANTA).min(it.unsent);
                it.unsent = it.unsent.saturating_sub(it.size.div_ceil(QUANTA));
                it.in_flight += 1;
                it.n_mentions += 1;
                if it.unsent > 0 && it.in_flight < WINDOW {
                    it.n_mentions += 1;
                    uplink.ready.push_back(id);
                }
                queue.plan(end, Happens::Sent(node));
                let crosses = self.rack_of[node as usize] != self.rack_of[it.receiver as usize];
                self.passes(queue, id, if crosses { Hop::RackUp } else { Hop::Down }, end);
                self.unmention(id);
                return;
            }
            it.n_mentions -= 1;
            if it.n_mentions == 0 {
                self.unused.push(id);
            }
        }
    }
}
