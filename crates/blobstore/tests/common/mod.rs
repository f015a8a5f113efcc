//! A store in a directory of its own, and a blob with known content.

#![allow(dead_code, reason = "each test file uses a part of this")]
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use shoal_blobstore::{Blob, PieceDigest, Store, StoreError, StoreSettings, Written};
use shoal_model::{BlobKey, ByteSize, Digest, TrustGroup};
use shoal_swarm::{Geometry, PieceIndex};

/// Short pieces, so that exhaustive tests stay fast; the last one is shorter still.
pub(crate) const PIECE: u64 = 1000;

/// Settings under which nothing is ever evicted.
pub(crate) fn settings(dir: &Path) -> StoreSettings {
    StoreSettings {
        dir: dir.to_owned(),
        capacity: ByteSize(u64::MAX),
        low_percent: 80,
        free_floor: ByteSize(0),
        expire_after: Duration::MAX,
    }
}

pub(crate) fn open(dir: &Path) -> Store {
    open_with(&settings(dir))
}

/// Opens a store that may have been closed just now: what was left to be done on the disk keeps it locked until then.
pub(crate) fn open_with(settings: &StoreSettings) -> Store {
    if let Ok(before) = File::open(settings.dir.join("lock")) {
        before.lock().unwrap();
    }
    Store::open(settings.clone()).unwrap()
}

/// A blob's content and what everybody would know of it.
pub(crate) struct Content {
    pub(crate) bytes: Bytes,
    pub(crate) key: BlobKey,
    pub(crate) geometry: Geometry,
}

impl Content {
    /// `n_pieces` pieces, the last of 500 bytes; `salt` makes contents differ.
    pub(crate) fn new(n_pieces: u64, salt: u8) -> Self {
        let size = n_pieces * PIECE - 500;
        let bytes: Bytes = (0..size).map(|at| (at / 7) as u8 ^ (at / 256) as u8 ^ salt).collect();
        Self {
            key: BlobKey {
                group: TrustGroup::new("registry.example:5000"),
                digest: Digest::from_sha256(Sha256::digest(&bytes).into()),
            },
            geometry: Geometry::stated(size, PIECE).unwrap(),
            bytes,
        }
    }

    pub(crate) fn n_pieces(&self) -> u32 {
        self.geometry.n_pieces()
    }

    pub(crate) fn piece(&self, piece: PieceIndex) -> Bytes {
        let range = self.geometry.range_of(piece);
        self.bytes.slice(range.start as usize..range.end as usize)
    }

    /// A piece as it comes off a connection.
    pub(crate) fn chunks(&self, piece: PieceIndex) -> Vec<Bytes> {
        let bytes = self.piece(piece);
        let middle = bytes.len() / 3;
        vec![bytes.slice(..middle), bytes.slice(middle..)]
    }

    pub(crate) fn digests(&self) -> Vec<PieceDigest> {
        (0..self.n_pieces()).map(|it| PieceDigest::of(&[self.piece(it)])).collect()
    }

    /// The blob in `store`, its digests known, nothing held.
    pub(crate) fn listed(&self, store: &Store) -> Blob {
        let blob = store.create(&self.key, self.geometry).unwrap();
        blob.learn(0, &self.digests(), Bytes::from_static(b"signed")).unwrap();
        blob
    }

    /// The blob in `store`, complete.
    pub(crate) async fn complete(&self, store: &Store) -> Blob {
        let blob = self.listed(store);
        for piece in 0..self.n_pieces() {
            let res = blob.write(piece, self.chunks(piece)).await.unwrap();
            assert_eq!(res, Written::Held);
        }
        blob.seal(&self.digests(), Bytes::from_static(b"sealed")).unwrap();
        blob
    }

    /// The blob in `store`, whatever was there before, complete.
    pub(crate) async fn complete_rest(&self, store: &Store) -> Blob {
        let blob = store.create(&self.key, self.geometry).unwrap();
        blob.learn(0, &self.digests(), Bytes::from_static(b"signed")).unwrap();
        for piece in 0..self.n_pieces() {
            let res = blob.write(piece, self.chunks(piece)).await.unwrap();
            assert!(matches!(res, Written::Held | Written::AlreadyHeld), "{res:?}");
        }
        blob.seal(&self.digests(), Bytes::from_static(b"sealed")).unwrap();
        blob
    }

    /// Reads each piece and says which came; one that came wrong is a failure.
    #[track_caller]
    pub(crate) fn came(&self, piece: PieceIndex, res: Result<Bytes, StoreError>) -> bool {
        match res {
            Ok(bytes) => {
                assert_eq!(bytes, self.piece(piece), "piece {piece} has wrong bytes");
                true
            }
            Err(StoreError::NotHeld { .. }) => false,
            Err(err) => panic!("piece {piece}: {err}"),
        }
    }

    /// The pieces that can be read, all of them right.
    pub(crate) async fn readable(&self, blob: &Blob) -> Vec<PieceIndex> {
        let mut readable = Vec::new();
        for piece in 0..self.n_pieces() {
            let res = blob.read(self.geometry.range_of(piece)).await;
            if self.came(piece, res) {
                readable.push(piece);
            }
        }
        readable
    }
}

/// Copies a directory with everything below it.
pub(crate) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// The store's only file with this extension.
pub(crate) fn file(dir: &Path, extension: &str) -> PathBuf {
    let mut files = files(dir, extension);
    assert_eq!(files.len(), 1, "{files:?}");
    files.remove(0)
}

/// The store's files with this extension.
pub(crate) fn files(dir: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path, extension));
        } else if path.extension().is_some_and(|it| it == extension) {
            found.push(path);
        }
    }
    found
}
