//! Who lately got a ticket for a blob.
//!
//! A node without a scheduler finds the swarm through these: whoever got a ticket has the blob or is
//! fetching it. The newest are the likeliest to be alive.
//!
//! A node says itself at which address it is reached, and that is handed to the others as it was said. It
//! is a place to ask, never one to trust: whatever comes from there is checked against what the gateway
//! signed. But nothing proves yet that a node stands where it says, so one that lies can have the others
//! knock elsewhere; that ends when nodes show certificates.

use std::collections::VecDeque;
use std::num::NonZeroUsize;

use lru::LruCache;
use shoal_model::{BlobKey, Node};

/// How many nodes are named for a blob.
const MAX_HOLDERS: usize = 12;
/// How many blobs are remembered; with full lists about 30 MiB.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(16 << 10).expect("not zero");

/// Recent ticket holders of all blobs.
pub(crate) struct Holders(LruCache<BlobKey, VecDeque<Node>>);

impl Holders {
    pub(crate) fn new() -> Self {
        Self(LruCache::new(REMEMBERED))
    }

    /// The others, newest first, for a node that gets a ticket and is one of them from now on.
    pub(crate) fn introduce(&mut self, key: &BlobKey, node: &Node) -> Vec<Node> {
        let holders = self.0.get_or_insert_mut(key.clone(), VecDeque::new);
        holders.retain(|it| it.id != node.id);
        let others = holders.iter().take(MAX_HOLDERS).cloned().collect();
        holders.push_front(node.clone());
        // One more than is named: the asker is not named to itself.
        holders.truncate(MAX_HOLDERS + 1);
        others
    }
}

#[cfg(test)]
mod tests {
    use shoal_model::{Digest, NodeId, Place, Role, TrustGroup};

    use super::*;

    fn node(n: usize) -> Node {
        Node {
            id: NodeId::new(&format!("node-{n}")),
            address: format!("10.0.0.{n}:65002").into(),
            role: Role::Sidecar,
            place: Place::default(),
        }
    }

    #[test]
    fn the_newest_others_are_named_and_never_the_asker() {
        let key = BlobKey { group: TrustGroup::new("a.example"), digest: Digest::from_sha256([1; 32]) };
        let mut holders = Holders::new();
        assert_eq!(holders.introduce(&key, &node(0)), []);
        for n in 1..20 {
            holders.introduce(&key, &node(n));
        }
        let newest: Vec<_> = (8..20).rev().map(node).collect();
        assert_eq!(holders.introduce(&key, &node(100)), newest);
        let named = holders.introduce(&key, &node(19));
        assert_eq!(named.first(), Some(&node(100)));
        assert!(!named.contains(&node(19)));
    }
}
