//! The digest of one piece.

use std::fmt;

use bytes::Bytes;

/// The BLAKE3 digest of one piece, as a gateway publishes it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PieceDigest(pub [u8; 32]);

impl PieceDigest {
    /// Hashes a piece that may have arrived in several chunks.
    pub fn of(chunks: &[Bytes]) -> Self {
        let mut hasher = blake3::Hasher::new();
        for chunk in chunks {
            hasher.update(chunk);
        }
        Self(*hasher.finalize().as_bytes())
    }
}

impl fmt::Debug for PieceDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "blake3:{}", hex::encode(self.0))
    }
}
