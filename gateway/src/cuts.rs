//! How blobs are cut, as this gateway has said.
//!
//! A piece number means nothing unless all nodes cut a blob alike, so one answer is given to all: the cut
//! of what is stored, or else what was said before, or else the setting or rule. It is also what a seed
//! knows of a blob before it asks the registry.
//!
//! A blob's size is first known from a manifest, which anybody who may push can write. Such a claim is good
//! enough to begin with, but where it differs from what is known, only the registry's own word about the
//! blob counts; otherwise one wrong manifest would take the blob from everybody else. A cut that the
//! registry's content turned out not to fit is in doubt, and so is the next claim. Content whose digest was
//! verified has the size that it has, whatever anybody says.

use std::num::NonZeroUsize;
use std::sync::{Mutex, MutexGuard, PoisonError};

use lru::LruCache;
use shoal_blobstore::{Blob, Store};
use shoal_model::BlobKey;
use shoal_swarm::Geometry;

/// How many blobs' cuts are kept, about 150 bytes each. A node whose blob was forgotten opens it again.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(1 << 16).expect("not zero");

/// The cuts of all blobs that were opened lately.
pub(crate) struct Cuts {
    store: Store,
    piece_length: Option<u64>,
    memory: Mutex<Memory>,
}

type Memory = LruCache<BlobKey, Said>;

/// What was said of a blob's cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    Cut(Geometry),
    /// One that the registry's content does not fit.
    InDoubt,
}

impl Cuts {
    /// `piece_length` is the operator's, in bytes, where it is not left to the rule.
    pub(crate) fn new(store: Store, piece_length: Option<u64>) -> Self {
        Self { store, piece_length, memory: Mutex::new(LruCache::new(REMEMBERED)) }
    }

    /// The cut of a blob that is claimed to be `size` bytes long. `None` where the claim is not believed, so
    /// that the registry has to be asked for the size.
    pub(crate) fn believe(&self, key: &BlobKey, size: u64) -> Option<Geometry> {
        if let Some(proven) = self.proven(key) {
            return Some(proven);
        }
        let mut memory = self.memory();
        match self.recall(&mut memory, key) {
            Some(Said::InDoubt) => None,
            Some(Said::Cut(known)) => (known.size() == size).then_some(known),
            None => {
                let geometry = self.cut(size);
                memory.put(key.clone(), Said::Cut(geometry));
                Some(geometry)
            }
        }
    }

    /// The cut of a blob that its registry says is `size` bytes long.
    pub(crate) fn say(&self, key: &BlobKey, size: u64) -> Geometry {
        if let Some(proven) = self.proven(key) {
            return proven;
        }
        let mut memory = self.memory();
        let said = match memory.get(key) {
            Some(Said::Cut(known)) => Some(*known),
            _ => None,
        };
        let known = [said, self.stored(key)].into_iter().flatten().find(|it| it.size() == size);
        let geometry = known.unwrap_or_else(|| self.cut(size));
        memory.put(key.clone(), Said::Cut(geometry));
        geometry
    }

    /// The cut to seed by: the one that is known, or else the one that others `stated`. `None` where it is in
    /// doubt or not known at all.
    pub(crate) fn agreed(&self, key: &BlobKey, stated: Option<Geometry>) -> Option<Geometry> {
        if let Some(proven) = self.proven(key) {
            return Some(proven);
        }
        match self.recall(&mut self.memory(), key) {
            Some(Said::Cut(known)) => Some(known),
            Some(Said::InDoubt) => None,
            None => stated,
        }
    }

    /// The registry's content turned out not to fit this cut.
    pub(crate) fn doubt(&self, key: &BlobKey, geometry: Geometry) {
        let mut memory = self.memory();
        // Another may have been said since.
        if self.recall(&mut memory, key).is_none_or(|it| it == Said::Cut(geometry)) {
            memory.put(key.clone(), Said::InDoubt);
        }
    }

    fn proven(&self, key: &BlobKey) -> Option<Geometry> {
        self.store.get(key).filter(Blob::is_sealed).map(|it| it.geometry())
    }

    /// What was said, or else how a part of the blob is stored.
    fn recall(&self, memory: &mut Memory, key: &BlobKey) -> Option<Said> {
        let said = memory.get(key).copied();
        said.or_else(|| self.stored(key).map(Said::Cut))
    }

    /// The cut of what is stored; nothing has none.
    fn stored(&self, key: &BlobKey) -> Option<Geometry> {
        self.store.get(key).filter(|it| !it.readable().is_empty()).map(|it| it.geometry())
    }

    fn cut(&self, size: u64) -> Geometry {
        let told = self.piece_length.and_then(|it| Geometry::stated(size, it));
        // A blob too large for the operator's length is cut by the rule, which has no limit.
        told.unwrap_or_else(|| Geometry::by_rule(size))
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use sha2::{Digest as _, Sha256};
    use shoal_blobstore::StoreSettings;
    use shoal_model::{ByteSize, Digest, TrustGroup};

    use super::*;

    const PIECE: u64 = 64 << 10;

    struct World {
        cuts: Cuts,
        store: Store,
        _dir: tempfile::TempDir,
    }

    fn world() -> World {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(StoreSettings {
            dir: dir.path().to_owned(),
            capacity: ByteSize(1 << 30),
            low_percent: 90,
            free_floor: ByteSize(0),
            expire_after: std::time::Duration::from_secs(3600),
        })
        .unwrap();
        World { cuts: Cuts::new(store.clone(), Some(PIECE)), store, _dir: dir }
    }

    fn key(content: &[u8]) -> BlobKey {
        let digest = Digest::from_sha256(Sha256::digest(content).into());
        BlobKey { group: TrustGroup::new("a.example"), digest }
    }

    fn cut(size: u64) -> Geometry {
        Geometry::stated(size, PIECE).unwrap()
    }

    #[test]
    fn the_first_claim_is_believed_and_another_is_left_to_the_registry() {
        let World { cuts, .. } = world();
        let key = key(b"layer");
        assert_eq!(cuts.agreed(&key, None), None);
        assert_eq!(cuts.agreed(&key, Some(cut(7))), Some(cut(7)));
        assert_eq!(cuts.believe(&key, 1000), Some(cut(1000)));
        assert_eq!(cuts.believe(&key, 1000), Some(cut(1000)));
        assert_eq!(cuts.believe(&key, 5), None);
        assert_eq!(cuts.agreed(&key, Some(cut(5))), Some(cut(1000)), "a claim changes nothing");
        assert_eq!(cuts.say(&key, 1000), cut(1000));
        assert_eq!(cuts.say(&key, 5), cut(5));
        assert_eq!(cuts.agreed(&key, None), Some(cut(5)));
    }

    #[test]
    fn a_cut_that_the_content_does_not_fit_is_in_doubt_until_the_registry_is_asked() {
        let World { cuts, .. } = world();
        let key = key(b"layer");
        cuts.believe(&key, 5);
        cuts.doubt(&key, cut(6));
        assert_eq!(cuts.believe(&key, 5), Some(cut(5)), "another cut was doubted");
        cuts.doubt(&key, cut(5));
        assert_eq!(cuts.agreed(&key, Some(cut(5))), None);
        for size in [5, 1000] {
            assert_eq!(cuts.believe(&key, size), None);
        }
        assert_eq!(cuts.say(&key, 1000), cut(1000));
        assert_eq!(cuts.believe(&key, 1000), Some(cut(1000)));
    }

    #[tokio::test]
    async fn what_is_stored_in_part_keeps_its_cut_against_claims_and_doubts() {
        let World { cuts, store, _dir } = world();
        let content = vec![7; 100_000];
        let key = key(&content);
        // Another piece length than is configured now.
        let stored = Geometry::stated(100_000, 2 * PIECE).unwrap();
        let blob = store.create(&key, stored).unwrap();
        assert_eq!(cuts.believe(&key, 5), Some(cut(5)), "nothing is stored yet");
        cuts.doubt(&key, cut(5));
        blob.write_provisional(0, vec![Bytes::from(content)]).await.unwrap();
        assert_eq!(cuts.believe(&key, 5), None);
        assert_eq!(cuts.say(&key, 100_000), stored);
        assert_eq!(cuts.believe(&key, 100_000), Some(stored));
    }
}
