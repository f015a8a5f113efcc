//! Content that somebody else changes while it is in use: what was verified is verified again.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

mod common;

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use common::{Content, file, files, open};
use shoal_blobstore::{Blob, Store, Written};

/// A blob of three pieces, complete and read, in a store that has no other.
async fn complete(dir: &Path) -> (Content, Store, Blob) {
    let (store, content) = (open(dir), Content::new(3, 0));
    let blob = content.complete(&store).await;
    assert_eq!(content.readable(&blob).await, [0, 1, 2]);
    (content, store, blob)
}

fn data(dir: &Path) -> File {
    OpenOptions::new().write(true).open(file(dir, "data")).unwrap()
}

/// Fails unless these pieces are found damaged after `change`, and can be fetched again.
async fn check(change: impl FnOnce(&Path, &Content), damaged: &[u32]) {
    let dir = tempfile::tempdir().unwrap();
    let (content, store, blob) = complete(dir.path()).await;
    let lent = blob.lend(0..1500).unwrap();
    assert!(blob.still_lends(&lent));
    change(dir.path(), &content);
    assert!(!blob.still_lends(&lent), "what is on its way is not sent as it is");
    let left: Vec<_> = (0..3).filter(|it| !damaged.contains(it)).collect();
    assert!(blob.lend(0..1500).is_none(), "not before it has been verified");
    assert_eq!(content.readable(&blob).await, left);
    assert_eq!(store.usage().n_damaged, damaged.len() as u64);
    for piece in damaged {
        assert_eq!(blob.write(*piece, content.chunks(*piece)).await.unwrap(), Written::Held);
    }
    assert_eq!(content.readable(&blob).await, [0, 1, 2]);
    assert!(blob.lend(0..1500).is_some());
}

#[tokio::test]
async fn a_byte_that_somebody_flips_is_never_read() {
    check(|dir, content| data(dir).write_all_at(&[!content.bytes[1234]], 1234).unwrap(), &[1]).await;
}

#[tokio::test]
async fn a_byte_that_somebody_flips_just_before_a_piece_is_written_is_never_read() {
    let dir = tempfile::tempdir().unwrap();
    let (store, content) = (open(dir.path()), Content::new(3, 0));
    let blob = content.listed(&store);
    for piece in 0..2 {
        assert_eq!(blob.write(piece, content.chunks(piece)).await.unwrap(), Written::Held);
    }
    assert_eq!(content.readable(&blob).await, [0, 1]);
    data(dir.path()).write_all_at(&[!content.bytes[5]], 5).unwrap();
    assert_eq!(blob.write(2, content.chunks(2)).await.unwrap(), Written::Held);
    assert_eq!(content.readable(&blob).await, [1, 2]);
}

#[tokio::test]
async fn content_cut_short_or_made_longer_is_noticed() {
    check(|dir, _| data(dir).set_len(1500).unwrap(), &[1, 2]).await;
    check(|dir, _| data(dir).set_len(0).unwrap(), &[0, 1, 2]).await;
    check(|dir, _| data(dir).set_len(5000).unwrap(), &[]).await;
}

#[tokio::test]
async fn zeros_in_the_place_of_content_are_noticed() {
    check(|dir, _| data(dir).write_all_at(&[0; 1000], 1000).unwrap(), &[1]).await;
}

#[tokio::test]
async fn content_of_another_blob_in_the_place_of_ones_own_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let (content, store, blob) = complete(dir.path()).await;
    let other = Content::new(3, 1);
    let its = other.complete(&store).await;
    let stays_open = blob.clone();
    drop((blob, its));
    let [one, two]: [_; 2] = files(dir.path(), "data").try_into().unwrap();
    let aside = dir.path().join("aside");
    fs::rename(&one, &aside).unwrap();
    fs::rename(&two, &one).unwrap();
    fs::rename(&aside, &two).unwrap();
    // Whoever has it open still has the right content. Whoever opens it now has another, and knows.
    assert_eq!(content.readable(&stays_open).await, [0, 1, 2]);
    let its = store.get(&other.key).unwrap();
    other.readable(&its).await;
    drop(other.complete_rest(&store).await);
    assert_eq!(other.readable(&its).await, [0, 1, 2]);
}

#[tokio::test]
async fn content_that_somebody_removes_is_a_miss_once_it_is_opened_anew() {
    let dir = tempfile::tempdir().unwrap();
    let (content, store, blob) = complete(dir.path()).await;
    fs::remove_file(file(dir.path(), "data")).unwrap();
    drop((blob, store));
    let store = open(dir.path());
    let blob = store.get(&content.key).unwrap();
    assert_eq!(content.readable(&blob).await, []);
    assert_eq!(store.usage().n_damaged, 3);
}
