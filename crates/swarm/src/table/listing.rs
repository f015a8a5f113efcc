//! How blobs stand, for people to see: in the order of their keys, a part at a time.
//!
//! A blob may have ten thousand members, and a table a hundred thousand blobs, while nodes wait for what the table
//! decides. So one look ends after so much effort, whether it has found anything or not, and says where to go on.

use std::collections::BTreeSet;

use shoal_model::{BlobKey, Digest, NodeId, TrustGroup};

use super::{BlobNumber, Table};
use crate::Geometry;

/// One look goes on until it has seen so many blobs and members; that is about a millisecond.
const EFFORT: usize = 1 << 15;

/// How far a region is with a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Some node wants it.
    Fetching,
    /// Nobody wants it, and some node holds all of it.
    Complete,
    /// Nobody wants it, and nodes hold parts of it.
    Partial,
}

/// A blob as a table knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Which blob.
    pub key: BlobKey,
    /// How it is cut.
    pub geometry: Geometry,
    /// Nodes that hold all of it.
    pub n_whole: u32,
    /// Nodes that hold some of it.
    pub n_part: u32,
    /// Nodes that want it, whatever they hold.
    pub n_wanting: u32,
}

impl Standing {
    /// How far the region is with it.
    pub const fn stage(&self) -> Stage {
        match (self.n_wanting, self.n_whole) {
            (0, 0) => Stage::Partial,
            (0, _) => Stage::Complete,
            _ => Stage::Fetching,
        }
    }
}

/// Which blobs are looked for: those that all that is set here is true of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sought {
    /// Those that come after this one.
    pub after: Option<BlobKey>,
    /// Those of this trust group.
    pub group: Option<TrustGroup>,
    /// Those with this digest.
    pub digest: Option<Digest>,
    /// Those that the region is so far with.
    pub stage: Option<Stage>,
    /// These, if any are named.
    pub among: BTreeSet<BlobKey>,
}

impl Sought {
    /// Whether this blob is one of those.
    pub fn is_met_by(&self, standing: &Standing) -> bool {
        let is_named = self.among.is_empty() || self.among.contains(&standing.key);
        is_named && self.may_be(&standing.key) && self.stage.is_none_or(|it| it == standing.stage())
    }

    /// Whether it may be, by its name.
    fn may_be(&self, key: &BlobKey) -> bool {
        self.after.as_ref().is_none_or(|it| it < key)
            && self.group.as_ref().is_none_or(|it| *it == key.group)
            && self.digest.is_none_or(|it| it == key.digest)
    }

    /// Whether this blob comes after all that are looked for.
    fn is_past(&self, key: &BlobKey) -> bool {
        self.group.as_ref().is_some_and(|it| *it < key.group)
    }

    /// The key that nothing that is looked for comes before.
    fn start(&self) -> Option<BlobKey> {
        let first = |group: &TrustGroup| BlobKey {
            group: group.clone(),
            digest: self.digest.unwrap_or(Digest::from_sha256([0; 32])),
        };
        self.after.clone().max(self.group.as_ref().map(first))
    }
}

/// What one look has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// In the order of their keys.
    pub standings: Vec<Standing>,
    /// To be looked for is what comes after this one; nothing more, where it is none.
    pub left_at: Option<BlobKey>,
}

impl Table {
    /// Looks for up to `at_most` blobs, for as long as one look may take.
    pub fn look(&self, sought: &Sought, at_most: usize) -> Found {
        self.look_with(sought, at_most, EFFORT)
    }

    pub(super) fn look_with(&self, sought: &Sought, at_most: usize, effort: usize) -> Found {
        let start = sought.start();
        let (mut all, mut named);
        let blobs: &mut dyn Iterator<Item = (&BlobKey, Option<BlobNumber>)> = if sought.among.is_empty() {
            all = self.blobs.names_from(start.as_ref()).map(|(key, number)| (key, Some(number)));
            &mut all
        } else {
            named = sought.among.iter().map(|key| (key, self.blobs.number(key)));
            &mut named
        };
        let (mut found, mut spent) = (Found::default(), 0);
        for (key, number) in blobs {
            // What an earlier look has seen costs nothing, so that each gets on.
            if sought.after.as_ref().is_some_and(|it| it >= key) {
                continue;
            }
            if sought.is_past(key) {
                break;
            }
            spent += 1;
            if let Some(number) = number.filter(|_| sought.may_be(key)) {
                let entry = &self.blobs[number];
                spent += entry.n_members();
                let standing = entry.standing(key);
                if sought.is_met_by(&standing) {
                    found.standings.push(standing);
                }
            }
            if spent >= effort || found.standings.len() >= at_most {
                found.left_at = Some(key.clone());
                break;
            }
        }
        found
    }

    /// The nodes that hold something of a blob or want it.
    pub fn members(&self, key: &BlobKey) -> Vec<NodeId> {
        let members = self.blobs.number(key).into_iter().flat_map(|it| self.blobs[it].members());
        members.map(|it| self.nodes.name(it).clone()).collect()
    }

    /// Of how many blobs a node holds something or wants it; none, where it is not known.
    pub fn n_blobs_of(&self, node: &NodeId) -> Option<u32> {
        let node = self.nodes.number(node)?;
        // What one node says that it holds is kept up to a limit.
        Some(self.nodes[node].blobs.as_slice().len() as u32)
    }
}
