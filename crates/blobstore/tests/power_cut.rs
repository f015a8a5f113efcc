//! Power that fails at any instant: of all that was written, nothing was forced to the disk, so any part of it may be
//! there after that, in any order.
//!
//! The writes of a download are recorded. Then each of them is lost or not, in all combinations, with zeros in its
//! place or without, or only half of it there; and the store is opened over what is left.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

mod common;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use common::{Content, file, open};
use shoal_blobstore::{PieceDigest, Store, StoreError, Written};

/// One write to one file.
#[derive(Debug)]
struct Write {
    path: PathBuf,
    at: u64,
    bytes: Vec<u8>,
}

/// What was appended to the journal since `writes` were recorded.
fn appended(dir: &Path, writes: &[Write]) -> Write {
    let path = file(dir, "pieces");
    let at = writes.iter().filter(|it| it.path == path).map(|it| it.bytes.len()).sum();
    let bytes = fs::read(&path).unwrap().split_off(at);
    assert!(!bytes.is_empty());
    Write { path, at: at as u64, bytes }
}

/// The writes of a download of three pieces: the journal with the digests; then each piece and its record; the seal.
async fn record(dir: &Path, content: &Content) -> Vec<Write> {
    let mut writes = Vec::new();
    let store = open(dir);
    drop(content.listed(&store));
    drop(store);
    // What is left to be done on the disk is done once the store can be opened anew.
    let store = open(dir);
    writes.push(appended(dir, &writes));
    let blob = store.get(&content.key).unwrap();
    for piece in [1, 2, 0] {
        assert_eq!(blob.write(piece, content.chunks(piece)).await.unwrap(), Written::Held);
        let path = file(dir, "data");
        let (at, bytes) = (content.geometry.range_of(piece).start, content.piece(piece).to_vec());
        assert_eq!(fs::read(&path).unwrap()[at as usize..][..bytes.len()], bytes);
        writes.push(Write { path, at, bytes });
        writes.push(appended(dir, &writes));
    }
    blob.seal(&content.digests(), Bytes::from_static(b"sealed")).unwrap();
    drop((blob, store));
    drop(open(dir));
    writes.push(appended(dir, &writes));
    writes
}

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    There,
    Lost,
    /// The file is as long as if it was there.
    Zeros,
    Half,
}

/// Makes the files as they are when each write had its fate.
fn lay_out(writes: &[Write], fates: &[Fate]) {
    for path in writes.iter().map(|it| &it.path) {
        let _ = fs::remove_file(path);
    }
    for (Write { path, at, bytes }, fate) in writes.iter().zip(fates) {
        let bytes = match fate {
            Fate::There => bytes.clone(),
            Fate::Lost => continue,
            Fate::Zeros => vec![0; bytes.len()],
            Fate::Half => bytes[..bytes.len() / 2].to_vec(),
        };
        let file = File::options().write(true).create(true).truncate(false).open(path).unwrap();
        file.write_all_at(&bytes, *at).unwrap();
    }
}

/// The pieces that can be told to be right: their bytes are there, and so are their records and all before.
fn verifiable(writes: &[Write], fates: &[Fate]) -> Vec<u32> {
    let is_journal = |it: &Write| it.path.extension().is_some_and(|it| it == "pieces");
    let there: Vec<_> = writes.iter().zip(fates).collect();
    let n_good = there
        .iter()
        .filter(|(write, _)| is_journal(write))
        .take_while(|(_, fate)| **fate == Fate::There)
        .count();
    // The n-th piece that was written has the n-th record after the digests.
    let content = there.iter().filter(|(write, _)| !is_journal(write)).take(n_good.saturating_sub(1));
    let pieces = content.filter(|(_, fate)| **fate == Fate::There);
    let mut pieces: Vec<_> = pieces.map(|(write, _)| (write.at / common::PIECE) as u32).collect();
    pieces.sort();
    pieces
}

/// Opens the store over what is left and reads.
async fn check(dir: &Path, content: &Content, writes: &[Write], fates: &[Fate]) -> Store {
    lay_out(writes, fates);
    let store = open(dir);
    let readable = match store.get(&content.key) {
        Some(blob) => content.readable(&blob).await,
        None => Vec::new(),
    };
    assert_eq!(readable, verifiable(writes, fates), "{fates:?}");
    store
}

/// The same; then fetches what is missing, over whatever lies there, and reads after one more restart.
async fn check_that_goes_on(dir: &Path, content: &Content, writes: &[Write], fates: &[Fate]) {
    let store = check(dir, content, writes, fates).await;
    drop(content.complete_rest(&store).await);
    drop(store);
    let store = open(dir);
    let blob = store.get(&content.key).unwrap();
    assert!(blob.is_complete(), "{fates:?}");
    assert_eq!(content.readable(&blob).await, [0, 1, 2], "{fates:?}");
}

#[tokio::test]
async fn whatever_of_the_writes_is_lost_no_wrong_byte_is_read_and_what_can_be_verified_is_kept() {
    let content = Content::new(3, 0);
    let dir = tempfile::tempdir().unwrap();
    let writes = record(dir.path(), &content).await;
    assert_eq!(writes.len(), 8);
    for lost in 0..1u32 << writes.len() {
        let fates = |kind| {
            let fate = |it| if lost >> it & 1 == 0 { Fate::There } else { kind };
            (0..writes.len()).map(fate).collect::<Vec<_>>()
        };
        check(dir.path(), &content, &writes, &fates(Fate::Lost)).await;
        check(dir.path(), &content, &writes, &fates(Fate::Half)).await;
        check_that_goes_on(dir.path(), &content, &writes, &fates(Fate::Zeros)).await;
    }
}

/// After content was dropped, both of its files or one of them may come back, beside or in place of what came after.
#[tokio::test]
async fn content_that_was_dropped_and_comes_back_is_never_mixed_with_what_came_after() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let (mut bad, good) = (Content::new(3, 1), Content::new(3, 0));
    bad.key = good.key.clone();
    let snapshot = |dir: &Path| {
        let journal = file(dir, "pieces");
        [journal.with_extension("data"), journal].map(|it| fs::read(it).unwrap())
    };
    let blob = bad.listed(&store);
    for piece in 0..3 {
        blob.write(piece, bad.chunks(piece)).await.unwrap();
    }
    let before = snapshot(dir.path());
    blob.clear("test");
    blob.learn(0, &good.digests(), Bytes::from_static(b"signed")).unwrap();
    for piece in 0..3 {
        blob.write(piece, good.chunks(piece)).await.unwrap();
    }
    let after = snapshot(dir.path());
    drop((blob, store));
    let journal = file(dir.path(), "pieces");

    for data in [None, Some(&before[0]), Some(&after[0])] {
        for records in [None, Some(&before[1]), Some(&after[1])] {
            for (path, bytes) in [(journal.with_extension("data"), data), (journal.clone(), records)] {
                let _ = fs::remove_file(&path);
                bytes.into_iter().for_each(|it| fs::write(&path, it).unwrap());
            }
            let store = open(dir.path());
            let Some(blob) = store.get(&good.key) else { continue };
            for piece in 0..3 {
                match blob.read(good.geometry.range_of(piece)).await {
                    Ok(bytes) => assert_eq!(Some(PieceDigest::of(&[bytes])), blob.digest_of(piece)),
                    Err(error) => assert!(matches!(error, StoreError::NotHeld { .. }), "{error}"),
                }
            }
            assert!(!blob.is_sealed());
            let is_good = data == Some(&after[0]) && records == Some(&after[1]);
            assert_eq!(blob.prove().await.is_ok_and(|it| it), is_good, "what is vouched for is the whole");
        }
    }
}
