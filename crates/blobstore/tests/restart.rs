//! What survives a restart, a crash and damage: a right piece or none, and never a panic.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

mod common;

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use bytes::Bytes;
use common::{Content, copy, file, files, open};
use shoal_blobstore::{StoreError, Written};

/// Overwrites one byte of the content at rest.
fn damage(dir: &Path, at: u64) {
    let data = OpenOptions::new().read(true).write(true).open(file(dir, "data")).unwrap();
    let mut byte = [0];
    data.read_exact_at(&mut byte, at).unwrap();
    data.write_all_at(&[!byte[0]], at).unwrap();
}

#[tokio::test]
async fn everything_recorded_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (store, content) = (open(dir.path()), Content::new(4, 0));
    let blob = content.listed(&store);
    blob.write(2, content.chunks(2)).await.unwrap();
    let before = store.list();
    drop((blob, store));

    let store = open(dir.path());
    let blob = store.get(&content.key).unwrap();
    assert_eq!(store.list()[0].status, before[0].status);
    assert_eq!(blob.attestations(), [Bytes::from_static(b"signed")]);
    assert_eq!(content.readable(&blob).await, [2]);
    for piece in [0, 1, 3] {
        assert_eq!(blob.write(piece, content.chunks(piece)).await.unwrap(), Written::Held);
    }
    blob.seal(&content.digests(), Bytes::from_static(b"sealed")).unwrap();
    drop((blob, store));

    let blob = open(dir.path()).get(&content.key).unwrap();
    assert!(blob.is_complete());
    assert_eq!(blob.attestations(), [Bytes::from_static(b"sealed")]);
    assert_eq!(content.readable(&blob).await, [0, 1, 2, 3]);
}

#[tokio::test]
async fn a_killed_process_leaves_every_piece_that_it_held() {
    let (dir, after) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let content = Content::new(4, 0);
    let blob = content.listed(&open(dir.path()));
    for piece in [3, 0] {
        blob.write(piece, content.chunks(piece)).await.unwrap();
    }
    // A kill runs no destructor; what it leaves is what lies in the directory at this moment.
    copy(dir.path(), after.path());
    let blob = open(after.path()).get(&content.key).unwrap();
    assert_eq!(content.readable(&blob).await, [0, 3]);
}

#[tokio::test]
async fn a_proven_blob_is_still_sealed_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (store, content) = (open(dir.path()), Content::new(3, 0));
    let blob = store.create(&content.key, content.geometry).unwrap();
    for piece in 0..3 {
        blob.write_provisional(piece, content.chunks(piece)).await.unwrap();
    }
    assert!(blob.prove().await.unwrap());
    drop((blob, store));
    let blob = open(dir.path()).get(&content.key).unwrap();
    assert!(blob.is_complete());
    assert_eq!(content.readable(&blob).await, [0, 1, 2]);
}

#[tokio::test]
async fn provisional_and_cleared_pieces_are_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let (store, content) = (open(dir.path()), Content::new(3, 0));
    let blob = content.complete(&store).await;
    blob.clear("test");
    blob.write_provisional(1, content.chunks(1)).await.unwrap();
    drop((blob, store));
    assert!(open(dir.path()).get(&content.key).is_none());
    assert!(files(dir.path(), "pieces").is_empty() && files(dir.path(), "data").is_empty());
}

#[tokio::test]
async fn a_piece_damaged_at_rest_is_dropped_and_can_be_fetched_again() {
    let dir = tempfile::tempdir().unwrap();
    let content = Content::new(3, 0);
    drop(content.complete(&open(dir.path())).await);
    damage(dir.path(), 1234);

    let store = open(dir.path());
    let blob = store.get(&content.key).unwrap();
    assert_eq!(content.readable(&blob).await, [0, 2]);
    assert_eq!(store.usage().n_damaged, 1);
    assert!(blob.is_sealed() && !blob.is_complete());
    assert_eq!(blob.write(1, content.chunks(1)).await.unwrap(), Written::Held);
    assert_eq!(content.readable(&blob).await, [0, 1, 2]);
    drop((blob, store));
    let blob = open(dir.path()).get(&content.key).unwrap();
    assert_eq!(content.readable(&blob).await, [0, 1, 2]);
}

#[tokio::test]
async fn suspect_content_is_verified_again_before_it_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let (store, content) = (open(dir.path()), Content::new(3, 0));
    let blob = content.complete(&store).await;
    damage(dir.path(), 10);
    blob.mark_suspect();
    assert!(matches!(blob.read_held(0..2500).await, Err(StoreError::NotHeld { piece: 0, .. })));
    assert_eq!(content.readable(&blob).await, [1, 2]);
}

#[tokio::test]
async fn damage_is_not_taken_for_poison() {
    let dir = tempfile::tempdir().unwrap();
    let content = Content::new(3, 0);
    drop(content.complete(&open(dir.path())).await);
    damage(dir.path(), 2400);
    let blob = open(dir.path()).get(&content.key).unwrap();
    assert!(matches!(blob.prove().await, Err(StoreError::NotHeld { piece: 2, .. })));
    assert_eq!(content.readable(&blob).await, [0, 1]);
}

#[tokio::test]
async fn lost_content_is_a_miss() {
    let dir = tempfile::tempdir().unwrap();
    let (store, content) = (open(dir.path()), Content::new(3, 0));
    let blob = content.complete(&store).await;
    let data = OpenOptions::new().write(true).open(file(dir.path(), "data")).unwrap();
    data.set_len(1500).unwrap();
    assert_eq!(content.readable(&blob).await, [0]);
    drop((blob, store));
    fs::remove_file(file(dir.path(), "data")).unwrap();
    let blob = open(dir.path()).get(&content.key).unwrap();
    assert_eq!(content.readable(&blob).await, []);
}

#[tokio::test]
async fn a_journal_in_another_blobs_place_is_not_believed() {
    let dir = tempfile::tempdir().unwrap();
    let content = Content::new(3, 0);
    drop(content.complete(&open(dir.path())).await);
    let journal = file(dir.path(), "pieces");
    let elsewhere = journal.with_file_name("00".repeat(32)).with_extension("pieces");
    fs::rename(&journal, elsewhere).unwrap();
    assert!(open(dir.path()).list().is_empty());
    assert!(files(dir.path(), "pieces").is_empty() && files(dir.path(), "data").is_empty());
}

/// Opens a store with this journal over the content and fails if a piece reads wrong.
async fn check_journal(content: &Content, journal: &[u8], paths: &[&Path; 3]) -> usize {
    let [dir, journal_path, data_path] = paths;
    fs::write(journal_path, journal).unwrap();
    fs::write(data_path, &content.bytes).unwrap();
    let store = open(dir);
    match store.get(&content.key) {
        Some(blob) => content.readable(&blob).await.len(),
        None => 0,
    }
}

#[tokio::test]
async fn a_journal_cut_or_changed_at_any_byte_costs_pieces_at_most() {
    let dir = tempfile::tempdir().unwrap();
    let content = Content::new(4, 0);
    drop(content.complete(&open(dir.path())).await);
    let (journal_path, data_path) = (file(dir.path(), "pieces"), file(dir.path(), "data"));
    let paths = [dir.path(), &journal_path, &data_path];
    let good = fs::read(&journal_path).unwrap();
    assert_eq!(check_journal(&content, &good, &paths).await, 4);

    let mut n_readable = 0;
    for len in 0..good.len() {
        let res = check_journal(&content, &good[..len], &paths).await;
        assert!(res >= n_readable, "a longer journal holds fewer pieces, at {len}");
        n_readable = res;
    }
    for at in 0..good.len() {
        let mut changed = good.clone();
        changed[at] ^= 1 << (at % 8);
        check_journal(&content, &changed, &paths).await;
    }
}
