//! The regions that are there, as their gateways say.
//!
//! Each gateway of another region keeps a stream for as long as it lives. What it says of itself, its region's name and
//! its address, is proven by nothing: it is for people to read, and to tell regions apart.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus_client::metrics::gauge::Gauge;
use shoal_model::NodeId;
use shoal_proto::Regional;

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

#[derive(Default)]
struct Present {
    n_entered: u64,
    by_stream: BTreeMap<u64, (NodeId, Regional)>,
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
    pub(crate) fn enter(&self, id: NodeId, regional: Regional) -> Result<Attending, TooMany> {
        let mut present = self.present();
        if present.by_stream.len() >= MAX {
            return Err(TooMany);
        }
        tracing::info!(%id, region = regional.region, address = regional.address, "another region attends");
        let stream = present.n_entered;
        present.n_entered += 1;
        present.by_stream.insert(stream, (id, regional));
        self.0.n_present.inc();
        Ok(Attending { roll: self.clone(), stream })
    }

    /// All that are there, each once, as it said last.
    pub(crate) fn list(&self) -> Vec<(NodeId, Regional)> {
        let present = self.present();
        let last: BTreeMap<_, _> = present.by_stream.values().cloned().collect();
        last.into_iter().collect()
    }

    fn present(&self) -> MutexGuard<'_, Present> {
        self.0.present.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Attending {
    fn drop(&mut self) {
        let left = self.roll.present().by_stream.remove(&self.stream);
        if let Some((id, regional)) = left {
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
        let first = roll.enter(a.clone(), regional("10.0.0.1:1")).unwrap();
        let _other = roll.enter(b.clone(), regional("10.0.0.2:1")).unwrap();
        let again = roll.enter(a.clone(), regional("10.0.0.3:1")).unwrap();
        let there = || roll.list().into_iter().map(|(id, it)| (id, it.address)).collect::<Vec<_>>();
        let other = (b, "10.0.0.2:1".to_owned());
        assert_eq!(there(), [(a.clone(), "10.0.0.3:1".to_owned()), other.clone()]);
        drop(first);
        assert_eq!(there(), [(a, "10.0.0.3:1".to_owned()), other.clone()]);
        drop(again);
        assert_eq!(there(), [other]);
        assert_eq!(roll.gauge().get(), 1);
    }

    #[test]
    fn there_is_a_bound() {
        let roll = Roll::default();
        let mut there: Vec<_> =
            (0..MAX).map(|_| roll.enter(NodeId::new("a"), regional("x")).unwrap()).collect();
        assert_eq!(roll.enter(NodeId::new("b"), regional("x")).err(), Some(TooMany));
        there.pop();
        assert!(roll.enter(NodeId::new("b"), regional("x")).is_ok());
    }
}
