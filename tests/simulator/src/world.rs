//! The worlds: who is where, how fast its links are, when it joins, what breaks.
//!
//! A world is data. [`World::named`] makes the documented ones at any size; a test may build its own.

use shoal_model::{ByteRate, Rng, Role};
use shoal_swarm::{Algorithm, Geometry};

/// 1 Gbit/s.
const GBIT: u64 = 125_000_000;
/// Every blob of a world is cut into pieces of 1 MiB.
const PIECE: u64 = 1 << 20;
/// Nodes in a rack.
const RACK: usize = 40;
const SECOND: u64 = 1_000_000;
/// One-way delay within a zone and across zones, in microseconds.
const DELAY: [u64; 2] = [500, 2_000];

/// One simulated fleet.
#[derive(Clone, Debug)]
pub struct World {
    /// What it is called.
    pub name: String,
    /// Gateways and nodes.
    pub sites: Vec<Site>,
    /// The rate of each rack's uplink, in either direction.
    pub racks: Vec<ByteRate>,
    /// How the blobs are cut that every node asks for.
    pub blobs: Vec<Geometry>,
    /// When which node asks for them.
    pub joins: Vec<(u64, usize)>,
    /// How the schedulers have nodes compare their neighbours.
    pub algorithm: Algorithm,
    /// What breaks when.
    pub faults: Vec<(u64, Fault)>,
    /// Over how long the joins are spread, in microseconds.
    pub spread: u64,
    /// One-way delay within a zone and across zones, in microseconds, to be taken with some jitter.
    pub delay: [u64; 2],
}

/// A gateway or a node, and its links.
#[derive(Clone, Debug)]
pub struct Site {
    /// What it is for.
    pub role: Role,
    /// Which scheduler's: regions are numbered from 0.
    pub region: usize,
    /// Its zone, as a number unique among all regions.
    pub zone: usize,
    /// Its rack, an index of [`World::racks`], where racks matter.
    pub rack: Option<usize>,
    /// What it can send.
    pub up: ByteRate,
    /// What it can receive.
    pub down: ByteRate,
    /// Where a gateway seeds from: another gateway's index, or the registry.
    pub upstream: Option<usize>,
    /// How fast it gets what it seeds.
    pub seed_rate: ByteRate,
}

/// Something breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A machine loses its power: it says nothing any more, not even that it is gone.
    Dies(usize),
    /// A region's scheduler ends.
    SchedulerDies(usize),
    /// From now on a node can send at this rate: other work on its machine takes the rest, or no longer does.
    SendsAt(usize, ByteRate),
}

impl Site {
    pub(crate) fn node(zone: usize, rate: u64) -> Self {
        Self {
            role: Role::Sidecar,
            region: 0,
            zone,
            rack: None,
            up: ByteRate(rate),
            down: ByteRate(rate),
            upstream: None,
            seed_rate: ByteRate(0),
        }
    }

    fn gateway() -> Self {
        Self { role: Role::Gateway, seed_rate: ByteRate(10 * GBIT), ..Self::node(0, 10 * GBIT) }
    }
}

impl World {
    /// The names that [`World::named`] knows.
    pub const NAMES: [&'static str; 9] =
        ["flat", "racks", "zones", "mixed", "churn", "burst", "layers", "regions", "uneven"];

    /// The documented world `name` with about `n_nodes` nodes and a blob of `size` bytes (`layers` has sizes
    /// of its own); `None` where there is no such world.
    pub fn named(name: &str, n_nodes: usize, size: u64, rng: &mut Rng) -> Option<Self> {
        let mut it = Self::flat(name, n_nodes, size)?;
        match name {
            "flat" => {}
            "racks" => it.put_into_racks(),
            "zones" => (0..it.sites.len()).for_each(|at| it.sites[at].zone = at % 3),
            "mixed" => it.slow_down_a_tenth(),
            "churn" => {
                it.join_within(SECOND, rng);
                it.replace_a_twentieth(rng);
                return Some(it);
            }
            "burst" => {
                it.join_within(60 * SECOND, rng);
                return Some(it);
            }
            "layers" => {
                let sizes = [1, 5, 20, 40, 60, 80, 120, 200];
                it.blobs = sizes.into_iter().filter_map(|it| Geometry::stated(it << 20, PIECE)).collect();
            }
            "uneven" => it.make_uneven(rng),
            "regions" => it.split_into_regions(n_nodes),
            _ => return None,
        }
        it.join_within(SECOND, rng);
        Some(it)
    }

    /// One gateway, and nodes of the same rate in one zone that join at once.
    pub fn flat(name: &str, n_nodes: usize, size: u64) -> Option<Self> {
        let nodes = (0..n_nodes).map(|_| Site::node(0, GBIT));
        Some(Self {
            name: name.to_owned(),
            sites: [Site::gateway()].into_iter().chain(nodes).collect(),
            racks: Vec::new(),
            blobs: vec![Geometry::stated(size, PIECE)?],
            joins: (1..=n_nodes).map(|it| (0, it)).collect(),
            algorithm: Algorithm::Default,
            faults: Vec::new(),
            spread: 0,
            delay: DELAY,
        })
    }

    /// The nodes' numbers.
    pub fn nodes(&self) -> impl Iterator<Item = usize> {
        let is_node = |it: &(usize, &Site)| it.1.role == Role::Sidecar;
        self.sites.iter().enumerate().filter(is_node).map(|(at, _)| at)
    }

    /// Bytes that each node asks for.
    pub fn size(&self) -> u64 {
        self.blobs.iter().map(Geometry::size).sum()
    }

    fn join_within(&mut self, spread: u64, rng: &mut Rng) {
        self.spread = spread;
        let mut joins: Vec<_> = self.nodes().map(|it| (rng.below(spread as usize) as u64, it)).collect();
        joins.sort_unstable();
        self.joins = joins;
    }

    fn put_into_racks(&mut self) {
        let racks = self.sites.len().div_ceil(RACK);
        for (at, site) in self.sites.iter_mut().enumerate().filter(|(_, it)| it.role == Role::Sidecar) {
            site.rack = Some(at % racks);
        }
        // Four nodes share what one could use.
        self.racks = vec![ByteRate(RACK as u64 * GBIT / 4); racks];
    }

    fn slow_down_a_tenth(&mut self) {
        for site in self.sites.iter_mut().filter(|it| it.role == Role::Sidecar).step_by(10) {
            (site.up, site.down) = (ByteRate(GBIT / 10), ByteRate(GBIT / 10));
        }
    }

    /// As machines are that were bought over years and have other work, too: three tenths can send at 10 Gbit/s,
    /// and for a second at a time a tenth of all, always others, are busy and send at a fiftieth of their rate.
    fn make_uneven(&mut self, rng: &mut Rng) {
        let mut nodes: Vec<_> = self.nodes().collect();
        rng.shuffle(&mut nodes);
        for node in &nodes[..nodes.len() * 3 / 10] {
            self.sites[*node].up = ByteRate(10 * GBIT);
        }
        let run = 2 * (SECOND + self.size() * SECOND / GBIT);
        let n_busy = nodes.len() / 10;
        for second in (0..run).step_by(SECOND as usize) {
            nodes.rotate_left(n_busy);
            for node in &nodes[..n_busy] {
                let (begin, up) = (second + rng.below(SECOND as usize) as u64, self.sites[*node].up);
                self.faults.push((begin, Fault::SendsAt(*node, ByteRate(up.0 / 50))));
                self.faults.push((begin + SECOND, Fault::SendsAt(*node, up)));
            }
        }
    }

    /// Deaths fall into the time in which an undisturbed fleet would pull.
    fn replace_a_twentieth(&mut self, rng: &mut Rng) {
        let mut nodes: Vec<_> = self.nodes().collect();
        rng.shuffle(&mut nodes);
        nodes.truncate(nodes.len() / 20);
        let run = SECOND + self.size() * SECOND / GBIT;
        for node in nodes {
            let at = rng.below(run as usize) as u64;
            self.faults.push((at, Fault::Dies(node)));
            self.joins.push((at + SECOND / 2, self.sites.len()));
            self.sites.push(self.sites[node].clone());
        }
    }

    fn split_into_regions(&mut self, n_nodes: usize) {
        let hub = Site::gateway();
        let seed_rate = ByteRate(GBIT);
        let regional =
            |region| Site { region, zone: region, upstream: Some(0), seed_rate, ..Site::gateway() };
        self.sites = [hub].into_iter().chain((1..=3).map(regional)).collect();
        for (region, share) in [(1, 100), (2, 200), (3, 150)] {
            let node = Site { region, ..Site::node(region, GBIT) };
            self.sites.extend(std::iter::repeat_n(node, n_nodes * share / 450));
        }
    }
}
