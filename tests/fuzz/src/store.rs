//! The store over files that a crash, a bad disk or somebody has changed: it opens, never hands out a piece whose
//! bytes do not have the digest that is believed, and can be brought back to the whole blob.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Duration;

use arbitrary::{Result, Unstructured};
use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use shoal_blobstore::{Blob, Learned, PieceDigest, Store, StoreError, StoreSettings, Written};
use shoal_model::{BlobKey, ByteSize, Digest, TrustGroup};
use shoal_swarm::{Geometry, PieceIndex};
use tokio::runtime::{Builder, Runtime};
use tokio::task::spawn_blocking;

use crate::input::{choices, parts};

/// Three pieces, the last of which is shorter.
const CONTENT: &[u8] = b"first... second..last";
const PIECE: u64 = 8;
/// Larger blobs are not read to the end.
const FEW: u32 = 64;

/// Time stands still while the disk is at work, so that no disk is too slow.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    let mut builder = Builder::new_current_thread();
    builder.enable_time().start_paused(true).max_blocking_threads(1).build().expect("a thread")
});

/// Where a blob's journal lies in a store's directory.
static JOURNAL: LazyLock<PathBuf> = LazyLock::new(|| {
    let dir = tempfile::tempdir().expect("a directory");
    let blob = open(dir.path()).create(&key(), geometry()).expect("a fresh blob");
    blob.learn(0, &[PieceDigest::of(&[piece(0)])], Bytes::new()).expect("a short statement");
    let path = files(dir.path()).into_iter().find(|it| it.extension().is_some_and(|it| it == "pieces"));
    let path = path.expect("a blob of which something is known has a journal");
    let begins = header(geometry().size(), PIECE);
    assert!(fs::read(&path).expect("a file that was just written").starts_with(&begins));
    path.strip_prefix(dir.path()).expect("a file within").to_owned()
});

/// Takes a journal, or choices for one and for the content beside it.
pub fn check(data: &[u8]) {
    let files = match choices(data) {
        None => blob(data.to_vec(), CONTENT.to_vec()),
        Some(mut u) => match found(&mut u) {
            Ok(files) => files,
            Err(_) => return,
        },
    };
    let dir = tempfile::tempdir().expect("a directory");
    for (path, content) in files {
        let path = dir.path().join(path);
        // One may stand where another needs a directory.
        let _ = fs::create_dir_all(path.parent().unwrap_or(&path)).and_then(|()| fs::write(&path, content));
    }

    let recovered = open(dir.path()).list();
    assert!(recovered.len() <= 1 && recovered.iter().all(|it| it.key == key()), "{recovered:?}");
    let store = open(dir.path());
    let again = store.list();
    assert!(again.iter().map(|it| &it.status).eq(recovered.iter().map(|it| &it.status)), "{again:?}");
    RUNTIME.block_on(async {
        if let Some(blob) = store.get(&key()) {
            handed_out(&blob).await;
            proven(&blob).await;
        }
        made_whole(&store).await;
        // One thread does all work on the disk, in its order.
        spawn_blocking(|| {}).await.expect("nothing that can fail");
    });
    drop(store);
    let [whole] = &open(dir.path()).list()[..] else { panic!("the blob is gone") };
    assert!(whole.status.is_complete(), "{whole:?}");
}

/// Nothing is read but what matches the digest that is believed.
async fn handed_out(blob: &Blob) {
    let geometry = blob.geometry();
    for piece in 0..geometry.n_pieces().min(FEW) {
        match (blob.digest_of(piece), blob.read_held(geometry.range_of(piece)).await) {
            (Some(digest), Ok(bytes)) => assert_eq!(PieceDigest::of(&[bytes]), digest, "piece {piece}"),
            (None, Ok(_)) => panic!("piece {piece}: nobody vouches for it"),
            (_, Err(StoreError::NotHeld { .. } | StoreError::TooLong { .. })) => {}
            (_, Err(error)) => panic!("piece {piece}: {error}"),
        }
    }
}

async fn proven(blob: &Blob) {
    let geometry = blob.geometry();
    if geometry.n_pieces() > FEW || geometry.size() > 1 << 20 {
        return;
    }
    match blob.prove().await {
        Ok(true) => {
            let bytes = blob.read_held(0..geometry.size()).await.expect("a blob that is proven is held");
            assert_eq!(sha256(&bytes), key().digest);
        }
        Ok(false) => assert!(blob.held().is_empty() && !blob.is_sealed(), "it was poisoned"),
        Err(StoreError::NotHeld { .. }) => {}
        Err(error) => panic!("{error}"),
    }
}

/// Whatever was found, the blob can be fetched.
async fn made_whole(store: &Store) {
    let blob = match store.create(&key(), geometry()) {
        Ok(blob) => blob,
        // Somebody sealed a blob of another size under this name.
        Err(StoreError::Size { .. }) => {
            let blob = store.get(&key()).expect("it is in the way");
            blob.clear("test");
            store.create(&key(), geometry()).expect("nothing is sealed any more")
        }
        Err(error) => panic!("{error}"),
    };
    if blob.geometry() != geometry() {
        blob.clear("test");
    }
    let blob = store.create(&key(), geometry()).expect("nothing is sealed any more");
    let digests: Vec<_> = (0..geometry().n_pieces()).map(|it| PieceDigest::of(&[piece(it)])).collect();
    let seal = || blob.seal(&digests, Bytes::from_static(b"signed")).expect("a short statement");
    if seal() == Learned::Conflict {
        blob.clear("test");
        assert_eq!(seal(), Learned::Fresh);
    }
    for index in 0..geometry().n_pieces() {
        let range = geometry().range_of(index);
        if blob.read_held(range.clone()).await.is_err() {
            let written = blob.write(index, vec![piece(index)]).await.expect("room on the disk");
            assert_eq!(written, Written::Held, "piece {index}");
        }
        assert_eq!(blob.read_held(range).await.expect("it was just written"), piece(index));
    }
    assert!(blob.is_complete());
    assert!(blob.prove().await.expect("all of it is held"));
}

fn key() -> BlobKey {
    BlobKey { group: TrustGroup::new("registry.example"), digest: sha256(CONTENT) }
}

fn geometry() -> Geometry {
    Geometry::stated(CONTENT.len() as u64, PIECE).expect("a few pieces")
}

fn piece(index: PieceIndex) -> Bytes {
    let range = geometry().range_of(index);
    Bytes::from_static(CONTENT).slice(range.start as usize..range.end as usize)
}

fn sha256(bytes: &[u8]) -> Digest {
    Digest::from_sha256(Sha256::digest(bytes).into())
}

fn open(dir: &Path) -> Store {
    let settings = StoreSettings {
        dir: dir.to_owned(),
        capacity: ByteSize(u64::MAX),
        low_percent: 80,
        free_floor: ByteSize(0),
        expire_after: Duration::MAX,
    };
    Store::open(settings).unwrap_or_else(|error| panic!("{error}"))
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten().map(|it| it.path());
    entries.flat_map(|it| if it.is_dir() { files(&it) } else { vec![it] }).collect()
}

/// A file within a store's directory, and what is in it.
type Found = (PathBuf, Vec<u8>);

fn blob(journal: Vec<u8>, content: Vec<u8>) -> Vec<Found> {
    vec![(JOURNAL.clone(), journal), (JOURNAL.with_extension("data"), content)]
}

// === nearly valid files ===

fn found(u: &mut Unstructured<'_>) -> Result<Vec<Found>> {
    let mut journal = if u.ratio(7, 8)? { header(geometry().size(), PIECE) } else { other_header(u)? };
    parts(u, 8, |u| {
        let record = framed(&record(u)?);
        journal.extend(if u.ratio(1, 16)? { flipped(u, record)? } else { record });
        Ok(())
    })?;
    let mut content = CONTENT.to_vec();
    if u.ratio(1, 2)? {
        content.truncate(u.int_in_range(0..=CONTENT.len())?);
    }
    if u.ratio(1, 2)? && !content.is_empty() {
        let at = u.choose_index(content.len())?;
        let byte = u.arbitrary()?;
        content.get_mut(at).into_iter().for_each(|it| *it = byte);
    }
    let copy = journal.clone();
    let mut files = blob(journal, content);
    parts(u, 2, |u| {
        let path =
            *u.choose(&["v1/00", "v1/00/00", "v1/00/00/00.pieces", "v1/00/00/00.data", "trash/0", "lock"])?;
        let beside = JOURNAL.with_file_name(u.choose(&["00.pieces", "00.data", "00", ".pieces"])?);
        let content = u.choose(&[copy.as_slice(), CONTENT, &[]])?.to_vec();
        files.push((if u.arbitrary()? { path.into() } else { beside }, content));
        Ok(())
    })?;
    Ok(files)
}

// What journals are made of is written down here a second time.

/// How a journal of a blob under this cut begins.
fn header(size: u64, length: u64) -> Vec<u8> {
    let mut body = key().digest.as_bytes().to_vec();
    body.extend([size, length].map(u64::to_le_bytes).concat());
    body.extend(key().group.as_str().as_bytes());
    [b"shoal-p1".to_vec(), framed(&body)].concat()
}

/// The same blob's under another cut, with a bit that has flipped in some.
fn other_header(u: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let cuts = [(21, 8), (21, 7), (20, 8), (0, 1), (u64::MAX, 1 << 63), (1 << 40, 1 << 20), (21, u64::MAX)];
    let (size, length) = *u.choose(&cuts)?;
    let header = header(size, length);
    if u.arbitrary()? { flipped(u, header) } else { Ok(header) }
}

/// A length, a checksum, and what they are of.
fn framed(body: &[u8]) -> Vec<u8> {
    let (length, checksum) = (body.len() as u32, *blake3::hash(body).as_bytes());
    [&length.to_le_bytes(), &checksum[..8], body].concat()
}

fn flipped(u: &mut Unstructured<'_>, mut bytes: Vec<u8>) -> Result<Vec<u8>> {
    let at = u.choose_index(bytes.len())?;
    let bit = 1 << u.int_in_range(0..=7)?;
    bytes.get_mut(at).into_iter().for_each(|it| *it ^= bit);
    Ok(bytes)
}

fn record(u: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let index = |u: &mut Unstructured<'_>| {
        Ok::<u32, arbitrary::Error>(*u.choose(&[0, 1, 2, 3, 1 << 20, u32::MAX])?)
    };
    let digest = |u: &mut Unstructured<'_>, index| {
        let right = PieceDigest::of(&[piece(index)]).0;
        Ok::<[u8; 32], arbitrary::Error>(if u.ratio(7, 8)? { right } else { [u.arbitrary()?; 32] })
    };
    let kind = *u.choose(&[1, 2, 3, 4, 5])?;
    let mut body = vec![kind];
    match kind {
        1 | 2 => {
            let first = if kind == 2 { 0 } else { index(u)? };
            let n_digests = if u.ratio(7, 8)? { 3 - first.min(3) } else { index(u)? };
            body.extend([first, n_digests].map(u32::to_le_bytes).concat());
            for it in first..first.saturating_add(n_digests.min(4)) {
                body.extend(digest(u, it)?);
            }
            body.extend(b"signed");
        }
        3 => {
            let at = index(u)?;
            body.extend(at.to_le_bytes());
            body.extend(digest(u, at)?);
        }
        4 => {}
        _ => body.extend(u.arbitrary::<&[u8]>()?),
    }
    Ok(body)
}
