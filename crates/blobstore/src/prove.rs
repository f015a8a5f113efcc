//! The whole digest over what is on disk.
//!
//! Damage and poison are told apart: pieces that have to be verified are verified first, and one that was
//! damaged is dropped alone. When all pieces are what they were vouched to be and the whole still does not
//! match, somebody vouched for the wrong bytes, and everything goes.

use sha2::{Digest as _, Sha256};
use shoal_model::Digest;

use crate::entry::Entry;
use crate::read::stream;
use crate::record::Record;
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
            let (data, generation) = self.data()?;
            let (contents, geometry) = {
                let state = self.state.lock();
                (state.contents(), state.geometry)
            };
            let pieces = 0..geometry.n_pieces();
            self.settle(&data, generation, pieces.clone(), Reader::Local)?;
            let mut hasher = Sha256::new();
            if let Err(source) = stream(&data, 0..geometry.size(), |chunk| hasher.update(chunk)) {
                return Err(self.read_failed(&data, generation, pieces, source));
            }
            let digest = Digest::from_sha256(hasher.finalize().into());

            let mut files = self.files.lock();
            let mut state = self.state.lock();
            if contents != state.contents() {
                continue;
            }
            if digest != self.key.digest {
                drop(state);
                self.reset(&mut files, geometry, "the whole digest does not match");
                return Ok(false);
            }
            let promoted = state.prove();
            drop(state);
            for record in promoted.iter().chain([&Record::Proven]) {
                self.record(&mut files, record);
            }
            drop(files);
            self.changed();
            return Ok(true);
        }
    }
}
