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
pub fn weight(key: &BlobKey, salt: u32, candidate: &NodeId) -> u64 {
    let salt = salt.to_le_bytes();
    hash([key.group.as_str().as_bytes(), key.digest.as_bytes(), &salt, candidate.as_str().as_bytes()])
}

/// The heaviest candidate.
pub fn winner<'a>(key: &BlobKey, candidates: impl Iterator<Item = &'a NodeId>) -> Option<&'a NodeId> {
    candidates.max_by_key(|it| (weight(key, 0, it), (*it).clone()))
}

/// How many of `others` come before `me`.
pub fn rank<'a>(key: &BlobKey, salt: u32, me: &NodeId, others: impl Iterator<Item = &'a NodeId>) -> u32 {
    let own = (weight(key, salt, me), me);
    others.filter(|it| *it != me && (weight(key, salt, it), *it) > own).count() as u32
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
}
