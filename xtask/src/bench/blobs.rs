//! Blobs of random bytes, the same in every run.

use sha2::{Digest as _, Sha256};
use shoal_model::{Digest, Rng};

/// So many blobs of `size` bytes each.
pub(super) fn make(n_blobs: usize, size: usize) -> impl Iterator<Item = (Digest, Vec<u8>)> {
    let mut rng = Rng::new(1);
    (0..n_blobs).map(move |_| {
        let words = (0..size.div_ceil(8)).flat_map(|_| rng.next_u64().to_le_bytes());
        let bytes: Vec<u8> = words.take(size).collect();
        (Digest::from_sha256(Sha256::digest(&bytes).into()), bytes)
    })
}
