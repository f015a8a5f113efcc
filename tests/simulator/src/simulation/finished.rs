//! What can be asked of a run once it is over.

use shoal_swarm::PieceIndex;

use super::{Counts, Share, ShareId, Simulation};
use crate::journal::{Asked, Journal};
use crate::world::World;

/// A run that has come to its end.
pub struct Finished(Simulation);

impl Finished {
    pub(super) const fn of(run: Simulation) -> Self {
        Self(run)
    }

    pub(crate) fn world(&self) -> &World {
        &self.0.world
    }

    pub(crate) fn counts(&self) -> &Counts {
        &self.0.counts
    }

    /// When the run ended, in microseconds.
    pub fn ended_at(&self) -> u64 {
        self.0.queue.now()
    }

    /// What happened altogether.
    pub fn n_events(&self) -> u64 {
        self.0.queue.n_planned()
    }

    /// What the machines heard and the network carried, where that was written down.
    pub fn into_journal(self) -> Option<Journal> {
        let Self(run) = self;
        let name = |node: u32| run.nodes[node as usize].id.clone();
        let asked = |(to, from, piece): &(ShareId, u32, PieceIndex)| Asked {
            by: name(run.node_of(*to)),
            key: run.keys[run.blob_of(*to)].clone(),
            from: name(*from),
            piece: *piece,
        };
        let asks = run.network.asked.iter().flatten().map(asked).collect();
        Some(Journal { asks, ..run.journal? })
    }

    /// Bytes that a gateway or node has sent in pieces.
    pub(crate) fn sent_by(&self, node: usize) -> u64 {
        self.0.network.sent[node]
    }

    pub(crate) fn n_direct(&self) -> usize {
        self.0.shares.iter().filter(|it| it.provisional.is_some()).count()
    }

    pub(crate) fn is_alive(&self, node: usize) -> bool {
        self.0.nodes[node].is_alive
    }

    /// From the node's own join to the end of its last blob, in microseconds; `None` where one is missing.
    pub(crate) fn pulled_in(&self, node: usize) -> Option<u64> {
        let n_blobs = self.0.world.blobs.len();
        let shares = &self.0.shares[node * n_blobs..(node + 1) * n_blobs];
        shares
            .iter()
            .map(|it| Some(it.done_at? - it.joined_at?))
            .max()
            .flatten()
            .filter(|_| shares.iter().all(|it| it.done_at.is_some()))
    }

    /// When each piece came to a node, in microseconds from its join on, ascending.
    pub(crate) fn arrivals(&self, node: usize) -> Vec<u64> {
        let n_blobs = self.0.world.blobs.len();
        let shares = &self.0.shares[node * n_blobs..(node + 1) * n_blobs];
        let since_join = |it: &Share| {
            let joined_at = it.joined_at.unwrap_or(0);
            it.log.iter().map(|(_, at)| at.saturating_sub(joined_at)).collect::<Vec<_>>()
        };
        let mut arrivals: Vec<_> = shares.iter().flat_map(since_join).collect();
        arrivals.sort_unstable();
        arrivals
    }
}
