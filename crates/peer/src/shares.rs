//! What each node has of places that all share, so that no node takes so many that none is left for others.
//!
//! A node may take another place while it has fewer than twice those that are free: two thirds of all where nobody else
//! comes, and the fewer the more do. Whoever comes later finds a place, unless many together want to keep it out.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::Extensions;
use shoal_identity::Caller;
use shoal_model::NodeId;

/// How many places each node has.
#[derive(Clone, Default)]
pub(crate) struct Shares(Arc<Mutex<BTreeMap<NodeId, usize>>>);

/// One place of a node; given back when it is dropped.
pub(crate) struct Share {
    shares: Shares,
    node: Option<NodeId>,
}

impl Shares {
    /// One more of `n_free` places for the node that sent a request with these extensions.
    pub(crate) fn take(&self, from: &Extensions, n_free: usize) -> Option<Share> {
        let identity = Caller::of(from).ok().and_then(|it| it.identity.as_ref());
        self.take_for(identity.map(|it| it.node.clone()), n_free)
    }

    /// Those that are not known, in tests without TLS, share nothing.
    fn take_for(&self, node: Option<NodeId>, n_free: usize) -> Option<Share> {
        if let Some(node) = &node {
            let mut taken = self.taken();
            let n_taken = taken.get(node).copied().unwrap_or(0);
            if n_taken >= 2 * n_free {
                return None;
            }
            taken.insert(node.clone(), n_taken + 1);
        }
        Some(Share { shares: self.clone(), node })
    }

    fn taken(&self) -> MutexGuard<'_, BTreeMap<NodeId, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let Some(node) = &self.node else { return };
        let mut taken = self.shares.taken();
        if let Some(n_taken) = taken.get_mut(node) {
            *n_taken -= 1;
            if *n_taken == 0 {
                taken.remove(node);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_alone_leaves_a_third_and_others_a_part_of_that() {
        let (shares, mut all) = (Shares::default(), Vec::new());
        let mut take = |node: &str| {
            let n_before = all.len();
            while let Some(share) = shares.take_for(Some(NodeId::new(node)), 12 - all.len()) {
                all.push(share);
            }
            all.len() - n_before
        };
        assert_eq!(["a", "b", "c", "a"].map(&mut take), [8, 3, 1, 0]);
    }

    #[test]
    fn what_is_given_back_can_be_taken_again() {
        let shares = Shares::default();
        let a = || shares.take_for(Some(NodeId::new("a")), 1);
        let first = (a(), a());
        assert!(a().is_none());
        drop(first);
        assert!(a().is_some());
        assert!(shares.taken().is_empty());
    }

    #[test]
    fn unknown_nodes_share_nothing() {
        let shares = Shares::default();
        let taken: Vec<_> = (0..9).filter_map(|_| shares.take_for(None, 1)).collect();
        assert_eq!(taken.len(), 9);
    }
}
