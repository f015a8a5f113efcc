//! What a run came to, as ratios over what could be reached.

use shoal_model::Role;

use crate::bound::Bound;
use crate::simulation::Finished;

/// The figures of one run.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// Nodes that joined and lived.
    pub n_nodes: usize,
    /// The bound of the median node, in seconds.
    pub bound_seconds: f64,
    /// Each node's time from its own join over its own bound: the slowest, the median, the 99th percentile.
    pub last_node_ratio: f64,
    /// The median.
    pub p50_ratio: f64,
    /// The 99th percentile.
    pub p99_ratio: f64,
    /// Bytes that the registry sent, over the size of the blobs.
    pub registry_egress_ratio: f64,
    /// Bytes that the busiest gateway sent to nodes, over the size of the blobs.
    pub gateway_upload_ratio: f64,
    /// Bytes that entered the zone which got most from outside, over the size of the blobs.
    pub cross_zone_copies: f64,
    /// The same of racks.
    pub cross_rack_copies: f64,
    /// Blobs that a living node did not get.
    pub failed_pulls: usize,
    /// Blobs that a node turned to the registry for.
    pub direct_pulls: usize,
    /// Messages that schedulers heard and sent.
    pub scheduler_messages: u64,
    /// Asks refused for want of an upload slot.
    pub refused: u64,
    /// Pieces that came to a node twice.
    pub wasted: u64,
    /// Simulated time until the end.
    pub simulated_seconds: f64,
}

impl Outcome {
    /// The figures of a finished run.
    pub fn of(run: &Finished) -> Self {
        let world = run.world();
        let bound = Bound::of(world);
        let nodes: Vec<_> = world.joins.iter().map(|(_, it)| *it).filter(|it| run.is_alive(*it)).collect();
        let ratio = |it: &usize| Some(run.pulled_in(*it)? as f64 / bound.of_site(*it) as f64);
        let mut ratios: Vec<_> = nodes.iter().filter_map(ratio).collect();
        ratios.sort_by(f64::total_cmp);
        let size = world.size() as f64;
        let copies = |bytes: u64| bytes as f64 / size;
        let most = |bytes: &[u64]| copies(bytes.iter().copied().max().unwrap_or(0));
        let gateways = world.sites.iter().enumerate().filter(|(_, it)| it.role == Role::Gateway);
        let counts = run.counts();
        Self {
            n_nodes: nodes.len(),
            bound_seconds: bound.median() as f64 / 1e6,
            last_node_ratio: percentile(&ratios, 100),
            p50_ratio: percentile(&ratios, 50),
            p99_ratio: percentile(&ratios, 99),
            registry_egress_ratio: copies(counts.registry),
            gateway_upload_ratio: most(&gateways.map(|(at, _)| run.sent_by(at)).collect::<Vec<_>>()),
            cross_zone_copies: most(&counts.into_zone),
            cross_rack_copies: most(&counts.into_rack),
            failed_pulls: nodes.len() - ratios.len(),
            direct_pulls: run.n_direct(),
            scheduler_messages: counts.scheduler_messages,
            refused: counts.refused,
            wasted: counts.wasted,
            simulated_seconds: run.ended_at() as f64 / 1e6,
        }
    }
}

/// The value below which so many hundredths of the ascending values lie; 0 where there are none.
pub(crate) fn percentile<T: Copy + Default>(ascending: &[T], hundredths: usize) -> T {
    let at = (ascending.len() * hundredths).div_ceil(100).saturating_sub(1);
    ascending.get(at).copied().unwrap_or_default()
}
