//! The whole digest over what is on disk.
//!
//! Damage and poison are told apart: pieces that have to be verified are verified first, and one that was
//! damaged is dropped alone. When all pieces are what they were vouched to be and the whole still does not
//! match, somebody vouched for the wrong bytes, and everything goes.

use sha2::{Digest as _, Sha256};
use shoal_model::Digest;

use crate::content::HASH_BUFFER;
use crate::entry::Entry;
use crate::state::Reader;
use crate::{Blob, StoreError};

impl Blob {
    /// Hashes the whole blob, all of whose pieces must be here, held or provisional. When the digest matches
    /// (`true`), the blob is sealed and all of it held. When not (`false`), it was poisoned and is cleared.
    ///
    /// Fails with `NotHeld` where a piece is missing or was found damaged, with `Io` when the disk fails.
    pub async fn prove(&self) -> Result<bool, StoreError> {
        self.blocking(Entry::prove).await
    }
}

impl Entry {
    fn prove(&self) -> Result<bool, StoreError> {
        // A piece may be dropped or replaced while the rest is hashed; then the hash says nothing. Each
        // round that is void took a provisional or damaged piece away, so the rounds end.
        loop {
            let (contents, geometry) = {
                let state = self.state.lock();
                (state.contents(), state.geometry)
            };
            let digest = self.hash(geometry.size())?;

            let mut state = self.state.lock();
            if contents != state.contents() {
                continue;
            }
            if digest != self.key.digest {
                self.reset(state, geometry, "the whole digest does not match");
            } else {
                state.prove();
                self.changed(state);
            }
            self.write_journal(&mut self.files.lock());
            return Ok(digest == self.key.digest);
        }
    }

    fn hash(&self, size: u64) -> Result<Digest, StoreError> {
        let (mut hasher, mut at) = (Sha256::new(), 0);
        while at < size {
            let bytes = self.read(at..size.min(at + HASH_BUFFER), Reader::Local)?;
            hasher.update(&bytes);
            at += bytes.len() as u64;
        }
        Ok(Digest::from_sha256(hasher.finalize().into()))
    }
}
