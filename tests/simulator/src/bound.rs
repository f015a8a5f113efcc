//! The least time in which a world's nodes could have their blobs, whatever anybody decides.
//!
//! A node cannot be faster than its own link, nor than what its gateway gets from upstream. And at the
//! beginning hardly anybody has anything to send: in rounds of one piece time on the fastest node's link,
//! the gateway sends `k` pieces and every node that holds one sends one, so that the holders about double
//! with each round (Mundinger, Weber and Weiss, 2008). What joined nodes cannot get meanwhile for want of
//! senders is lost link time, and the node that ends last loses at least the average of it.
//!
//! Delays, and which piece is where, are left out: the bound is below what can be reached.

use shoal_model::Role;

use crate::network::time_of;
use crate::world::World;

/// Lower bounds of a world's pulls.
#[derive(Clone, Debug)]
pub struct Bound {
    /// For each site, in microseconds from its own join on; 0 for gateways.
    per_site: Vec<u64>,
}

impl Bound {
    /// How the bound comes about.
    pub const FORMULA: &'static str = "node i: F / min(down_i, seed) + ramp; ramp = sum over rounds t of \
        max(0, n_t - k - h_t) * tau / N, with h_0 = 0, h_t+1 = min(n_t, h_t + k + h_t), n_t the nodes joined \
        by round t, k = gateway up / fastest up, tau = one piece on the fastest link; per region";

    /// The bounds of this world.
    pub fn of(world: &World) -> Self {
        let ramps: Vec<_> = (0..=world.sites.iter().map(|it| it.region).max().unwrap_or(0))
            .map(|region| ramp(world, region))
            .collect();
        let seed_of = |region| {
            let gateway = world.sites.iter().find(|it| it.role == Role::Gateway && it.region == region);
            gateway.map(|it| it.seed_rate)
        };
        let bound = |site: &crate::world::Site| {
            let rate = seed_of(site.region).map_or(site.down, |it| it.min(site.down));
            time_of(world.size(), rate) + ramps[site.region]
        };
        let per_site = world.sites.iter().map(|it| if it.role == Role::Sidecar { bound(it) } else { 0 });
        Self { per_site: per_site.collect() }
    }

    /// The least time that this site's pull takes, in microseconds.
    pub fn of_site(&self, site: usize) -> u64 {
        self.per_site[site]
    }

    /// The bound of most nodes: the median.
    pub fn median(&self) -> u64 {
        let mut bounds: Vec<_> = self.per_site.iter().copied().filter(|it| *it > 0).collect();
        bounds.sort_unstable();
        bounds.get(bounds.len() / 2).copied().unwrap_or(0)
    }
}

/// The average link time that nodes of a region lose at the beginning, in microseconds.
fn ramp(world: &World, region: usize) -> u64 {
    let in_region = |it: &usize| world.sites[*it].region == region;
    let fastest = world.nodes().filter(in_region).map(|it| world.sites[it].up).max();
    let gateway = world.sites.iter().find(|it| it.role == Role::Gateway && it.region == region);
    let (Some(fastest), Some(gateway), Some(blob)) = (fastest, gateway, world.blobs.first()) else {
        return 0;
    };
    let round = time_of(blob.piece_length(), fastest);
    let k = gateway.up.0 / fastest.0;
    let mut joins: Vec<_> =
        world.joins.iter().filter(|(_, node)| in_region(node)).map(|(at, _)| *at).collect();
    joins.sort_unstable();
    let n_nodes = joins.len() as u64;
    let (mut holders, mut lost, mut at) = (0, 0, 0);
    while holders < n_nodes {
        let joined = joins.partition_point(|it| *it <= at) as u64;
        lost += joined.saturating_sub(k + holders);
        holders = joined.min(2 * holders + k);
        at += round;
    }
    lost * round / n_nodes.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(n_nodes: usize, rounds: std::ops::Range<u64>) {
        let world = World::flat("flat", n_nodes, 500 << 20).unwrap();
        let tau = time_of(1 << 20, world.sites[1].up);
        let bound = Bound::of(&world).of_site(1);
        assert!(rounds.contains(&(bound / tau)), "{} rounds", bound / tau);
    }

    #[test]
    fn the_ramp_is_about_the_logarithm_of_the_nodes_over_the_seeds_head_start() {
        check(1, 499..501);
        check(10, 499..501);
        check(10_000, 507..510);
    }
}
