//! A blob to test with.

use std::path::Path;
use std::time::Duration;

use shoal_model::{BlobKey, ByteSize, Digest, TrustGroup};
use shoal_swarm::Geometry;

use crate::{Blob, Store, StoreSettings};

/// A blob of this many bytes in a store of its own, from which nothing is ever removed.
pub(crate) fn blob(dir: &Path, size: u64, piece_length: u64) -> Blob {
    let settings = StoreSettings {
        dir: dir.to_owned(),
        capacity: ByteSize(u64::MAX),
        low_percent: 80,
        free_floor: ByteSize(0),
        expire_after: Duration::MAX,
    };
    let key = BlobKey { group: TrustGroup::new("g"), digest: Digest::from_sha256([0; 32]) };
    Store::open(settings).unwrap().create(&key, Geometry::stated(size, piece_length).unwrap()).unwrap()
}
