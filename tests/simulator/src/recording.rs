//! A run on real links, written down: its links, its joins and how long each node's pull took.
//!
//! [`Recording::world`] makes it a world, so that the same run can be worked out and compared. What the
//! simulator says of ten thousand nodes is worth as much as what it says of a run that was measured.

use serde::{Deserialize, Serialize};
use shoal_model::{ByteRate, Role};
use shoal_swarm::{Algorithm, Geometry};

use crate::bound::Bound;
use crate::outcome::{Outcome, percentile};
use crate::simulation::Simulation;
use crate::world::{Site, World};

/// What a message takes from one machine of a lab to another, in microseconds. The links have no length, but the
/// queues before them have: 50 ms before a busy uplink, as much before a busy downlink, and small messages wait
/// there behind pieces. Round trips of 50 to 120 ms were seen during runs.
const DELAY: u64 = 50_000;

/// One run of equal nodes in one place behind one gateway, cold, with one blob.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Recording {
    /// Bytes of the blob.
    pub size: u64,
    /// Bytes of a piece.
    pub piece_length: u64,
    /// The rate of a node's link in either direction, in bytes per second with all headers.
    pub node_rate: u64,
    /// The same of the gateway's.
    pub gateway_rate: u64,
    /// When each node asked for the blob, in microseconds.
    pub joins: Vec<u64>,
    /// From there to its last byte, in microseconds.
    pub pulls: Vec<u64>,
    /// What the nodes' links carried to them meanwhile in bytes: pieces with their headers, what came twice, and
    /// the acknowledgements of what they sent.
    pub link_bytes: u64,
}

impl Recording {
    /// The run's links and joins as a world; `None` where its blob cannot be cut so, or a link carries nothing.
    /// Links carry what their rate says, which is what the bound is counted by.
    pub fn world(&self) -> Option<World> {
        if self.node_rate == 0 || self.gateway_rate == 0 {
            return None;
        }
        let node = Site::node(0, self.node_rate);
        let (up, down) = (ByteRate(self.gateway_rate), ByteRate(self.gateway_rate));
        let gateway = Site { role: Role::Gateway, up, down, seed_rate: down, ..node.clone() };
        let nodes = std::iter::repeat_n(node, self.joins.len());
        let mut joins: Vec<_> = self.joins.iter().copied().zip(1..).collect();
        joins.sort_unstable();
        Some(World {
            name: "recorded".to_owned(),
            sites: [gateway].into_iter().chain(nodes).collect(),
            racks: Vec::new(),
            blobs: vec![Geometry::stated(self.size, self.piece_length)?],
            spread: self.joins.iter().max().copied().unwrap_or(0),
            joins,
            algorithm: Algorithm::Default,
            faults: Vec::new(),
            delay: [DELAY; 2],
        })
    }

    /// The least time that a pull can take over these links, in microseconds: see [`Bound`].
    pub fn bound(&self) -> Option<u64> {
        Some(Bound::of(&self.world()?).median())
    }

    /// How long the slowest pull took, in microseconds.
    pub fn last_node(&self) -> u64 {
        self.nth(100)
    }

    /// How long the median pull took, in microseconds.
    pub fn median_node(&self) -> u64 {
        self.nth(50)
    }

    fn nth(&self, hundredths: usize) -> u64 {
        let mut pulls = self.pulls.clone();
        pulls.sort_unstable();
        percentile(&pulls, hundredths)
    }

    /// The same with as much of the links as was left for pieces.
    fn world_of_pieces(&self) -> Option<World> {
        let mut world = self.world()?;
        let n_bytes = u128::from(self.size) * self.pulls.len() as u128;
        let carried = u128::from(self.link_bytes).max(n_bytes).max(1);
        let share = |it: ByteRate| ByteRate(((u128::from(it.0) * n_bytes / carried) as u64).max(1));
        for site in &mut world.sites {
            (site.up, site.down, site.seed_rate) = (share(site.up), share(site.down), share(site.seed_rate));
        }
        Some(world)
    }

    /// The slowest pull when the run is worked out, over the one measured: the median over some seeds, since
    /// both depend on chance.
    pub fn replayed_over_measured(&self, seeds: impl IntoIterator<Item = u64>) -> Option<f64> {
        let world = self.world_of_pieces()?;
        let bound = Bound::of(&world).median() as f64;
        let replay = |seed| Outcome::of(&Simulation::new(world.clone(), seed).run(|_, _| true));
        let mut ratios: Vec<_> = seeds.into_iter().map(|it| replay(it).last_node_ratio).collect();
        ratios.sort_by(f64::total_cmp);
        Some(percentile(&ratios, 50) * bound / self.last_node() as f64)
    }
}
