//! Which gateway of which region carries an order out.
//!
//! A region may have several gateways, which keep a stream each. One of them carries an order out for as long as its
//! stream lasts; then another one that is there, or the next that comes. Of two streams of one gateway the later counts:
//! the other one is of before its link was cut.
//!
//! Knows nothing of: what is ordered, streams, clocks.

use std::collections::{BTreeMap, BTreeSet};

use shoal_model::NodeId;

use super::name::RegionName;

/// The most streams.
const MAX: usize = 1000;

/// There are too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("region: {MAX} gateways of other regions are connected already")]
pub(crate) struct TooMany;

/// Who is there, and which orders stand.
#[derive(Debug, Default)]
pub(super) struct Assignments {
    n_entered: u64,
    n_turns: u64,
    there: BTreeMap<u64, (NodeId, RegionName)>,
    /// For each job and region who carries the order out, if anybody does.
    placed: BTreeMap<u64, BTreeMap<RegionName, Option<Carrier>>>,
}

/// Who carries an order out.
#[derive(Clone, Copy, Debug)]
struct Carrier {
    stream: u64,
    /// Later ones have higher numbers.
    turn: u64,
}

impl Assignments {
    /// A gateway has opened a stream.
    pub(super) fn enter(&mut self, gateway: NodeId, region: RegionName) -> Result<u64, TooMany> {
        let before = self.there.iter().find(|(_, (it, _))| *it == gateway).map(|(stream, _)| *stream);
        before.iter().for_each(|it| drop(self.there.remove(it)));
        if self.there.len() >= MAX {
            return Err(TooMany);
        }
        let stream = self.n_entered;
        self.n_entered += 1;
        self.there.insert(stream, (gateway, region));
        self.settle();
        Ok(stream)
    }

    /// A stream has ended.
    pub(super) fn leave(&mut self, stream: u64) {
        self.there.remove(&stream);
        self.settle();
    }

    /// A job is to be carried out in these regions.
    pub(super) fn place(&mut self, job: u64, regions: impl IntoIterator<Item = RegionName>) {
        self.placed.insert(job, regions.into_iter().map(|it| (it, None)).collect());
        self.settle();
    }

    /// It is not any more.
    pub(super) fn withdraw(&mut self, job: u64) {
        self.placed.remove(&job);
    }

    /// The orders that stand for a stream, and whether it is to carry them out; none where another has taken its place.
    pub(super) fn standing(&self, stream: u64) -> Option<Vec<(u64, bool)>> {
        let (_, region) = self.there.get(&stream)?;
        let standing = self.placed.iter().filter_map(|(job, regions)| {
            let carrier = regions.get(region)?;
            Some((*job, carrier.is_some_and(|it| it.stream == stream)))
        });
        Some(standing.collect())
    }

    /// The stream by which a job is carried out in a region.
    pub(super) fn carrier(&self, job: u64, region: &RegionName) -> Option<u64> {
        self.placed.get(&job)?.get(region)?.map(|it| it.stream)
    }

    /// The region that a stream carries a job out in, if it does, and the number of that turn: whoever carries the job
    /// out there next has a higher one.
    pub(super) fn carried(&self, job: u64, stream: u64) -> Option<(&RegionName, u64)> {
        let (_, region) = self.there.get(&stream)?;
        let Carrier { stream: carrier, turn } = (*self.placed.get(&job)?.get(region)?)?;
        (carrier == stream).then_some((region, turn))
    }

    /// The regions that are there.
    pub(super) fn regions(&self) -> BTreeSet<RegionName> {
        self.there.values().map(|(_, region)| region.clone()).collect()
    }

    /// Gives each order that nobody carries out to somebody who can.
    fn settle(&mut self) {
        for (region, carrier) in self.placed.values_mut().flatten() {
            if carrier.is_some_and(|it| self.there.contains_key(&it.stream)) {
                continue;
            }
            // The latest is the least likely to be cut off without having been noticed.
            let there = self.there.iter().rev().find(|(_, (_, it))| it == region);
            *carrier = there.map(|(stream, _)| Carrier { stream: *stream, turn: self.n_turns });
            self.n_turns += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn region(name: &str) -> RegionName {
        name.parse().unwrap()
    }

    fn enter(it: &mut Assignments, gateway: &str, name: &str) -> u64 {
        it.enter(NodeId::new(gateway), region(name)).unwrap()
    }

    #[test]
    fn one_gateway_of_a_region_carries_an_order_out_and_keeps_it() {
        let mut it = Assignments::default();
        let (a, us) = (enter(&mut it, "a", "eu"), enter(&mut it, "x", "us"));
        it.place(7, [region("eu"), region("ap")]);
        let b = enter(&mut it, "b", "eu");
        assert_eq!(it.standing(a), Some(vec![(7, true)]));
        assert_eq!(it.standing(b), Some(vec![(7, false)]), "it may have to read");
        assert_eq!(it.standing(us), Some(Vec::new()));
        assert_eq!(it.carrier(7, &region("ap")), None);
        let ap = enter(&mut it, "y", "ap");
        assert_eq!(it.carrier(7, &region("ap")), Some(ap));
        assert_eq!(it.carried(7, ap).map(|it| it.0), Some(&region("ap")));
        it.withdraw(7);
        assert_eq!(it.standing(a), Some(Vec::new()));
    }

    #[test]
    fn when_it_goes_another_does_or_whoever_comes_next() {
        let mut it = Assignments::default();
        let (a, b) = (enter(&mut it, "a", "eu"), enter(&mut it, "b", "eu"));
        it.place(7, [region("eu")]);
        assert_eq!(it.carrier(7, &region("eu")), Some(b));
        let turn = |it: &Assignments, stream| it.carried(7, stream).unwrap().1;
        let first = turn(&it, b);
        it.leave(b);
        assert_eq!(it.carrier(7, &region("eu")), Some(a));
        assert!(turn(&it, a) > first, "though its stream is the older one");
        it.leave(a);
        assert_eq!(it.carrier(7, &region("eu")), None);
        let again = enter(&mut it, "a", "eu");
        assert_eq!(it.standing(again), Some(vec![(7, true)]));
    }

    #[test]
    fn of_two_streams_of_one_gateway_the_later_counts() {
        let mut it = Assignments::default();
        let old = enter(&mut it, "a", "eu");
        it.place(7, [region("eu")]);
        let new = enter(&mut it, "a", "eu");
        assert_eq!((it.standing(old), it.carried(7, old)), (None, None));
        assert_eq!(it.carrier(7, &region("eu")), Some(new));
        it.leave(old);
        assert_eq!(it.carrier(7, &region("eu")), Some(new));
    }

    #[test]
    fn there_is_a_bound() {
        let mut it = Assignments::default();
        for n in 0..MAX {
            enter(&mut it, &n.to_string(), "eu");
        }
        assert_eq!(it.enter(NodeId::new("one more"), region("eu")), Err(TooMany));
        assert!(it.enter(NodeId::new("7"), region("eu")).is_ok(), "in place of its own");
    }

    proptest! {
        #[test]
        fn whatever_comes_and_goes_each_order_is_carried_out_once_wherever_somebody_can(
            steps in prop::collection::vec((0_u8..4, 0_u64..6, 0_usize..3), 1..60),
        ) {
            let (mut it, names) = (Assignments::default(), ["eu", "us", "ap"]);
            for (kind, n, of) in steps {
                match kind {
                    0 => drop(it.enter(NodeId::new(&n.to_string()), region(names[of]))),
                    1 => it.leave(n),
                    2 => it.place(n, names[..=of].iter().map(|it| region(it))),
                    _ => it.withdraw(n),
                }
                for (job, regions) in &it.placed {
                    for region in regions.keys() {
                        let can: Vec<_> = it.there.iter().filter(|(_, (_, it))| it == region).collect();
                        let carrier = it.carrier(*job, region);
                        prop_assert_eq!(carrier.is_some(), !can.is_empty());
                        prop_assert!(carrier.is_none_or(|it| can.iter().any(|(stream, _)| **stream == it)));
                        let n_told = can.iter().filter(|(it2, _)| it.carried(*job, **it2).is_some()).count();
                        prop_assert_eq!(n_told, usize::from(carrier.is_some()));
                    }
                }
            }
        }
    }
}
