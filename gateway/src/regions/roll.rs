//! The regions that are there, as their gateways say.
//!
//! Each gateway of another region keeps a stream for as long as it lives. What it says of itself, its region's name and
//! its address, is proven by nothing: it is for people to read, and to tell regions apart.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus_client::metrics::gauge::Gauge;
use shoal_model::NodeId;
use shoal_proto::Regional;

use crate::timestamp::Timestamp;

/// The most gateways of other regions.
const MAX: usize = 1000;

/// There are too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("region: {MAX} gateways of other regions are there already")]
pub(crate) struct TooMany;

/// Those who are there; clones are of the same.
#[derive(Clone, Default)]
pub(crate) struct Roll(Arc<Inner>);

#[derive(Default)]
struct Inner {
    present: Mutex<Present>,
    n_present: Gauge,
}

/// One stream of a gateway.
struct Stream {
    id: NodeId,
    regional: Regional,
    since: Timestamp,
}

/// A gateway of another region that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Attended {
    /// As its certificate says.
    pub(crate) id: NodeId,
    /// As it said last.
    pub(crate) regional: Regional,
    pub(crate) n_streams: usize,
    /// When the oldest of its streams began.
    pub(crate) since: Timestamp,
}

#[derive(Default)]
struct Present {
    n_entered: u64,
    by_stream: BTreeMap<u64, Stream>,
}

/// One that is there, until this is dropped.
pub(crate) struct Attending {
    roll: Roll,
    stream: u64,
}

impl Roll {
    /// How many are there.
    pub(super) fn gauge(&self) -> Gauge {
        self.0.n_present.clone()
    }

    /// The gateway with the certificate for `id` is there, and says this of itself.
    pub(crate) fn enter(
        &self,
        id: NodeId,
        regional: Regional,
        since: Timestamp,
    ) -> Result<Attending, TooMany> {
        let mut present = self.present();
        if present.by_stream.len() >= MAX {
            return Err(TooMany);
        }
        tracing::info!(%id, region = regional.region, address = regional.address, "another region attends");
        let stream = present.n_entered;
        present.n_entered += 1;
        present.by_stream.insert(stream, Stream { id, regional, since });
        self.0.n_present.inc();
        Ok(Attending { roll: self.clone(), stream })
    }

    /// All that are there, each once.
    pub(crate) fn list(&self) -> Vec<Attended> {
        let mut attended: BTreeMap<NodeId, Attended> = BTreeMap::new();
        for Stream { id, regional, since } in self.present().by_stream.values() {
            let new = || Attended { id: id.clone(), regional: regional.clone(), n_streams: 0, since: *since };
            let it = attended.entry(id.clone()).or_insert_with(new);
            it.regional.clone_from(regional);
            it.n_streams += 1;
            it.since = it.since.min(*since);
        }
        attended.into_values().collect()
    }

    fn present(&self) -> MutexGuard<'_, Present> {
        self.0.present.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Attending {
    fn drop(&mut self) {
        let left = self.roll.present().by_stream.remove(&self.stream);
        if let Some(Stream { id, regional, .. }) = left {
            self.roll.0.n_present.dec();
            tracing::info!(%id, region = regional.region, "a stream of another region ended");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn regional(address: &str) -> Regional {
        Regional { region: "eu".to_owned(), address: address.to_owned() }
    }

    #[test]
    fn a_region_is_there_for_as_long_as_one_of_its_streams() {
        let roll = Roll::default();
        let [a, b] = ["a", "b"].map(NodeId::new);
        let enter = |id: &NodeId, address, second: u64| {
            roll.enter(id.clone(), regional(address), Timestamp::of_millis(second * 1000)).unwrap()
        };
        let first = enter(&a, "10.0.0.1:1", 1);
        let _other = enter(&b, "10.0.0.2:1", 2);
        let again = enter(&a, "10.0.0.3:1", 3);
        let there = || {
            let shown = |it: Attended| (it.id, it.regional.address, it.n_streams, it.since.seconds());
            roll.list().into_iter().map(shown).collect::<Vec<_>>()
        };
        let other = (b.clone(), "10.0.0.2:1".to_owned(), 1, 2);
        assert_eq!(there(), [(a.clone(), "10.0.0.3:1".to_owned(), 2, 1), other.clone()]);
        drop(first);
        assert_eq!(there(), [(a.clone(), "10.0.0.3:1".to_owned(), 1, 3), other.clone()]);
        drop(again);
        assert_eq!(there(), [other]);
        assert_eq!(roll.gauge().get(), 1);
    }

    #[test]
    fn there_is_a_bound() {
        let roll = Roll::default();
        let mut there: Vec<_> = (0..MAX)
            .map(|_| roll.enter(NodeId::new("a"), regional("x"), Timestamp::now()).unwrap())
            .collect();
        let enter = || roll.enter(NodeId::new("b"), regional("x"), Timestamp::now());
        assert_eq!(enter().err(), Some(TooMany));
        there.pop();
        assert!(enter().is_ok());
    }
}
