//! How a node tells its scheduler what it holds: what `crates/peer/src/report.rs` is in production.

use shoal_swarm::bitmap::runs;
use shoal_swarm::table::{Event, Report};

use super::scheduler::Heard;
use super::{Happens, ShareId, Simulation};

/// How long changes are gathered, and the same where somebody waits for the answer
/// (`crates/peer/src/report.rs`).
const GATHER: u64 = 50_000;
const GATHER_IN_HASTE: u64 = 10_000;

/// Where a node's reporter is.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Reporter {
    /// Counts the plans, so that one that was overtaken is known.
    cycle: u32,
    stage: Stage,
    /// Somebody waits for the scheduler's word.
    in_haste: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Idle,
    /// Not before the shorter time is over.
    Gathers,
    /// Until the longer time is over, or somebody is in haste.
    Waits,
}

impl Simulation {
    /// The node's store has changed.
    pub(super) fn changed(&mut self, node: u32) {
        if self.nodes[node as usize].reporter.stage == Stage::Idle {
            self.enter(node, Stage::Gathers, GATHER_IN_HASTE);
        }
    }

    pub(super) fn hurry(&mut self, node: u32) {
        if self.nodes[node as usize].reporter.stage == Stage::Waits {
            self.report(node);
        } else {
            self.nodes[node as usize].reporter.in_haste = true;
        }
    }

    pub(super) fn gathered(&mut self, node: u32, cycle: u32) {
        let reporter = &mut self.nodes[node as usize].reporter;
        if reporter.cycle != cycle {
            return;
        }
        if reporter.stage == Stage::Gathers && !reporter.in_haste {
            self.enter(node, Stage::Waits, GATHER - GATHER_IN_HASTE);
        } else {
            reporter.in_haste = false;
            self.report(node);
        }
    }

    fn enter(&mut self, node: u32, stage: Stage, span: u64) {
        let reporter = &mut self.nodes[node as usize].reporter;
        reporter.stage = stage;
        reporter.cycle += 1;
        let cycle = reporter.cycle;
        self.queue.plan(self.queue.now() + span, Happens::Gathered { node, cycle });
    }

    /// Tells what is new of all blobs in one message.
    fn report(&mut self, node: u32) {
        let reporter = &mut self.nodes[node as usize].reporter;
        reporter.stage = Stage::Idle;
        reporter.cycle += 1;
        let reports = (0..self.keys.len()).filter_map(|it| self.progress(self.share_of(node, it)));
        let events: Vec<_> = reports.collect();
        if !events.is_empty() {
            self.say(node, Heard { node, events });
        }
    }

    fn progress(&mut self, id: ShareId) -> Option<Event> {
        let share = &mut self.shares[id as usize];
        let mut gained: Vec<_> = share.log[share.n_reported..].iter().map(|(piece, _)| *piece).collect();
        if gained.is_empty() {
            return None;
        }
        gained.sort_unstable();
        share.n_reported = share.log.len();
        Some(Event::Progress(self.statement(id, runs(gained))))
    }

    pub(super) fn statement(&self, id: ShareId, gained: Vec<std::ops::Range<u32>>) -> Report {
        let blob = self.blob_of(id);
        Report {
            node: self.nodes[self.node_of(id) as usize].id.clone(),
            key: self.keys[blob].clone(),
            geometry: self.world.blobs[blob],
            dropped: false,
            gained,
        }
    }
}
