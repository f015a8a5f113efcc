//! One blob seen closely, for people to see: what each member holds of it, and who is whose neighbour.
//!
//! Nodes wait for what the table decides meanwhile, and nobody takes in a thousand members or a hundred thousand pieces
//! at a glance. So only some members are shown, and of each how much it holds of every part of the blob.

use std::collections::BTreeMap;

use shoal_model::{BlobKey, NodeId};

use super::{NodeNumber, Standing, Table};
use crate::Bitmap;

/// A blob as a table knows it, with some of its members, of whom an `N` is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloseUp<N = NodeId> {
    /// The whole.
    pub standing: Standing,
    /// The gateway that seeds it, where one does.
    pub seeder: Option<NodeId>,
    /// Those that want it come first. More are left out where they are fewer than the whole counts.
    pub members: Vec<Member<N>>,
    /// Members that are left out.
    pub n_more: u32,
}

/// A node that holds something of the blob or wants it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member<N = NodeId> {
    /// Who.
    pub node: N,
    /// Whether it wants the blob.
    pub wants: bool,
    /// Pieces that it holds.
    pub n_held: u32,
    /// The blob's pieces in [`CloseUp::n_cells`] parts of about the same length, in order: 0 where it holds nothing of
    /// one, 255 where it holds all of it, and its share between.
    pub fill: Vec<u8>,
    /// Its neighbours, by their places among the members.
    pub neighbours: Vec<u32>,
}

impl CloseUp {
    /// The most parts that a blob is shown in.
    pub const MAX_CELLS: u32 = 128;

    /// In how many parts a blob of so many pieces is shown.
    pub fn n_cells(n_pieces: u32) -> u32 {
        n_pieces.min(Self::MAX_CELLS)
    }

    /// The same with what is known of each node; none, where of some nothing is.
    pub fn told<N>(self, of: impl Fn(&NodeId) -> Option<N>) -> Option<CloseUp<N>> {
        let Self { standing, seeder, members, n_more } = self;
        let told = |Member { node, wants, n_held, fill, neighbours }: Member| {
            of(&node).map(|node| Member { node, wants, n_held, fill, neighbours })
        };
        let members = members.into_iter().map(told).collect::<Option<_>>()?;
        Some(CloseUp { standing, seeder, members, n_more })
    }
}

impl Table {
    /// The blob as it is now with up to so many members; none where nobody holds or wants it.
    pub fn close_up(&self, key: &BlobKey, at_most: usize) -> Option<CloseUp> {
        let blob = self.blobs.number(key)?;
        let entry = &self.blobs[blob];
        let others = entry.members().filter(|it| !entry.wants(*it));
        let shown: Vec<_> = entry.wanting().chain(others).take(at_most).collect();
        let places: BTreeMap<_, _> = shown.iter().copied().zip(0..).collect();
        let member = |node: &NodeNumber| {
            let held = entry.held(*node)?;
            let neighbours = entry.mesh.neighbours(*node).iter().filter_map(|it| places.get(it).copied());
            let mut neighbours: Vec<_> = neighbours.collect();
            neighbours.sort_unstable();
            Some(Member {
                node: self.nodes.name(*node).clone(),
                wants: entry.wants(*node),
                n_held: held.count(),
                fill: fill(held),
                neighbours,
            })
        };
        Some(CloseUp {
            standing: entry.standing(key),
            seeder: entry.seeder.map(|it| self.nodes.name(it).clone()),
            members: shown.iter().filter_map(member).collect(),
            // There are no more nodes than fit.
            n_more: (entry.n_members() - shown.len()) as u32,
        })
    }
}

fn fill(held: &Bitmap) -> Vec<u8> {
    let (n_pieces, n_cells) = (u64::from(held.len()), u64::from(CloseUp::n_cells(held.len())));
    // No more than there are pieces.
    let begin = |cell: u64| (cell * n_pieces / n_cells) as u32;
    let share = |cell| {
        let pieces = begin(cell)..begin(cell + 1);
        let (n_held, n_all) = (held.count_in(pieces.clone()), pieces.len() as u32);
        // Something is never shown as nothing.
        let share = (n_held * 255 / n_all).max(u32::from(n_held > 0));
        share.min(255) as u8
    };
    (0..n_cells).map(share).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_says_how_much_of_it_is_held() {
        let of = |len: u32, pieces: &[u32]| {
            let mut held = Bitmap::new(len);
            pieces.iter().for_each(|it| held.insert_range(*it..*it + 1));
            fill(&held)
        };
        assert_eq!(of(3, &[1]), [0, 255, 0]);
        assert_eq!(of(0, &[]), [0; 0]);
        let of_256 = of(256, &[0, 1, 3, 255]);
        assert_eq!((&of_256[..3], of_256[127]), (&[255, 127, 0][..], 127));
        let of_many = of(100_000, &[99_999]);
        assert_eq!((of_many.len(), of_many[126], of_many[127]), (128, 0, 1));
        assert_eq!(fill(&Bitmap::full(1000)), [255; 128]);
    }
}
