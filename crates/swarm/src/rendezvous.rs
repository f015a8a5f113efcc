//! Rendezvous hashing: every node computes the same order of candidates for a key, without talking.
//!
//! Thaler and Ravishankar, "Using name-based mappings to increase hit rates" (1998): each candidate's
//! weight is a hash of candidate and key, and the heaviest wins. A candidate that leaves moves only
//! what it had won.

use shoal_model::{BlobKey, NodeId};

/// FNV-1a with a final mix; not for secrets.
fn hash(parts: [&[u8]; 4]) -> u64 {
    let mut it = 0xcbf2_9ce4_8422_2325_u64;
    for part in parts {
        for byte in part.iter().chain(&[0xff]) {
            it = (it ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
    shoal_model::Rng::new(it).next_u64()
}

/// The weight of a candidate for one piece of a blob, or with `salt` 0 for the blob as a whole.
fn weight(key: &BlobKey, salt: u32, candidate: &str) -> u64 {
    let salt = salt.to_le_bytes();
    hash([key.group.as_str().as_bytes(), key.digest.as_bytes(), &salt, candidate.as_bytes()])
}

/// The heaviest candidate, by its name.
pub fn winner<'a, C: AsRef<str> + Ord>(
    key: &BlobKey,
    candidates: impl Iterator<Item = &'a C>,
) -> Option<&'a C> {
    candidates.map(|it| (weight(key, 0, it.as_ref()), it)).max().map(|(_, it)| it)
}

/// The candidate that comes after `last` in the order of weights, the heaviest again after the lightest.
pub fn successor<'a>(
    key: &BlobKey,
    last: &NodeId,
    candidates: impl Iterator<Item = &'a NodeId> + Clone,
) -> Option<&'a NodeId> {
    let weight = |it: &NodeId| weight(key, 0, it.as_str());
    let before = (weight(last), last);
    let lighter = candidates.clone().filter(|it| (weight(it), *it) < before);
    winner(key, lighter).or_else(|| winner(key, candidates))
}

/// How many of `others` come before `me`.
pub fn rank<'a>(key: &BlobKey, salt: u32, me: &NodeId, others: impl Iterator<Item = &'a NodeId>) -> u32 {
    let weight = |it: &NodeId| weight(key, salt, it.as_str());
    let own = (weight(me), me);
    others.filter(|it| *it != me && (weight(it), *it) > own).count() as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use shoal_model::{Digest, TrustGroup};

    #[test]
    fn everybody_agrees_and_a_leaver_moves_only_its_own() {
        let nodes: Vec<_> = (0..7).map(|it| NodeId::new(&format!("n{it}"))).collect();
        let mut moved = 0;
        for sum in 0..100 {
            let key = BlobKey { group: TrustGroup::new("g"), digest: Digest::from_sha256([sum; 32]) };
            let won = winner(&key, nodes.iter()).cloned().unwrap();
            assert_eq!(winner(&key, nodes.iter().rev()), Some(&won));
            let mut ranks: Vec<_> = nodes.iter().map(|it| rank(&key, 9, it, nodes.iter())).collect();
            ranks.sort_unstable();
            assert_eq!(ranks, (0..7).collect::<Vec<_>>());
            let left = winner(&key, nodes[1..].iter()).unwrap();
            moved += u32::from(*left != won);
            assert!(*left == won || won == nodes[0]);
        }
        assert!((5..30).contains(&moved), "{moved} of 100 moved");
    }

    #[test]
    fn each_candidate_has_its_turn_before_the_first_comes_again() {
        let nodes: Vec<_> = (0..7).map(|it| NodeId::new(&format!("n{it}"))).collect();
        let key = BlobKey { group: TrustGroup::new("g"), digest: Digest::from_sha256([1; 32]) };
        let first = winner(&key, nodes.iter()).unwrap();
        let mut turns = vec![first];
        turns.extend((0..7).scan(first, |last, _| {
            *last = successor(&key, last, nodes.iter())?;
            Some(*last)
        }));
        assert_eq!(turns.pop(), Some(first));
        let mut all = turns.clone();
        all.sort_unstable();
        assert_eq!(all, nodes.iter().collect::<Vec<_>>(), "{turns:?}");
        assert_eq!(successor(&key, first, [first].into_iter()), Some(first), "where there is no other");
        assert_eq!(successor(&key, first, nodes[..0].iter()), None);
        assert_eq!(
            successor(&key, turns[2], [turns[1], turns[4]].into_iter()),
            Some(turns[4]),
            "it has left"
        );
    }
}
