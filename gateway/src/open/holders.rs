//! Who lately got a ticket for a blob.
//!
//! A node without a scheduler finds the swarm through these: whoever got a ticket has the blob or is
//! fetching it. The newest are the likeliest to be alive.
//!
//! A node says itself at which address it is reached. Only one that has proven to stand there is introduced to
//! others, for else it could have them all knock at the door of somebody else; it hears of the others all the
//! same. And an address is a place to ask, never one to trust: who answers there shows a certificate, and
//! whatever comes is checked against what the gateway signed.

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

    /// The others, newest first, for a node that gets a ticket.
    pub(crate) fn others(&mut self, key: &BlobKey, node: &Node) -> Vec<Node> {
        let holders = self.0.get(key).into_iter().flatten();
        holders.filter(|it| it.id != node.id).take(MAX_HOLDERS).cloned().collect()
    }

    /// The same for a node that is one of them from now on: it stands at its address.
    pub(crate) fn introduce(&mut self, key: &BlobKey, node: &Node) -> Vec<Node> {
        let others = self.others(key, node);
        let holders = self.0.get_or_insert_mut(key.clone(), VecDeque::new);
        holders.retain(|it| it.id != node.id);
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

    #[test]
    fn a_node_that_is_not_introduced_hears_of_others_and_they_not_of_it() {
        let key = BlobKey { group: TrustGroup::new("a.example"), digest: Digest::from_sha256([1; 32]) };
        let mut holders = Holders::new();
        assert_eq!(holders.others(&key, &node(0)), []);
        holders.introduce(&key, &node(1));
        assert_eq!(holders.others(&key, &node(0)), [node(1)]);
        assert_eq!(holders.others(&key, &node(1)), []);
        assert_eq!(holders.introduce(&key, &node(2)), [node(1)]);
    }
}
