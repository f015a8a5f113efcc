//! Many writers, readers and a scrubber on one blob.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

mod common;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use common::{Content, open};
use shoal_blobstore::{Blob, Store, StoreError, StoreSettings, Written};
use shoal_model::Rng;

const N_PIECES: u64 = 64;

/// Writes all pieces in an order of its own and says how many of them it was the one to write.
async fn write_all(content: Arc<Content>, blob: Blob, seed: u64) -> usize {
    let mut order: Vec<_> = (0..content.n_pieces()).collect();
    Rng::new(seed).shuffle(&mut order);
    let mut n_held = 0;
    for piece in order {
        let res = if seed.is_multiple_of(2) {
            blob.write(piece, content.chunks(piece)).await
        } else {
            blob.write_provisional(piece, content.chunks(piece)).await.map(|(written, _)| written)
        };
        match res.unwrap() {
            Written::Held => n_held += 1,
            Written::AlreadyHeld | Written::Busy => {}
            other => panic!("piece {piece}: {other:?}"),
        }
    }
    n_held
}

/// Streams the blob in order, each piece as soon as it is there.
async fn read_all(content: Arc<Content>, blob: Blob) {
    let mut version = blob.version();
    for piece in 0..content.n_pieces() {
        loop {
            version.mark_unchanged();
            match blob.read(content.geometry.range_of(piece)).await {
                Ok(bytes) => break assert_eq!(bytes, content.piece(piece)),
                Err(StoreError::NotHeld { .. }) => version.changed().await.unwrap(),
                Err(err) => panic!("piece {piece}: {err}"),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn each_piece_is_written_once_and_every_reader_sees_the_whole() {
    let dir = tempfile::tempdir().unwrap();
    let (store, content) = (open(dir.path()), Arc::new(Content::new(N_PIECES, 0)));
    let blob = content.listed(&store);
    let readers: Vec<_> =
        (0..4).map(|_| tokio::spawn(read_all(Arc::clone(&content), blob.clone()))).collect();
    let writers: Vec<_> =
        (0..4).map(|seed| tokio::spawn(write_all(Arc::clone(&content), blob.clone(), seed))).collect();
    let mut n_held = 0;
    for writer in writers {
        blob.mark_suspect();
        n_held += writer.await.unwrap();
    }
    for reader in readers {
        reader.await.unwrap();
    }
    assert_eq!(n_held, N_PIECES as usize);
    assert!(blob.held().is_full());
    assert!(blob.prove().await.unwrap());
    assert_eq!(store.usage().n_damaged, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn blobs_come_and_go_while_others_are_collected() {
    let dir = tempfile::tempdir().unwrap();
    let store =
        Store::open(StoreSettings { expire_after: Duration::ZERO, ..common::settings(dir.path()) }).unwrap();
    let users: Vec<_> = (0..4u8)
        .map(|user| {
            let store = store.clone();
            tokio::spawn(async move {
                for round in 0..20 {
                    // Two users share each blob.
                    let content = Content::new(3, round * 2 + user % 2);
                    let blob = content.listed(&store);
                    for piece in 0..3 {
                        while !blob.holds(piece) {
                            blob.write(piece, content.chunks(piece)).await.unwrap();
                        }
                    }
                    assert_eq!(content.readable(&blob).await, [0, 1, 2]);
                }
            })
        })
        .collect();
    while !users.iter().all(|it| it.is_finished()) {
        let store = store.clone();
        let collect = move || store.collect(SystemTime::now());
        tokio::task::spawn_blocking(collect).await.unwrap();
    }
    for user in users {
        user.await.unwrap();
    }
    store.collect(SystemTime::now());
    assert!(store.list().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clearing_a_blob_while_it_is_written_never_mixes_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let (store, before, after) = (open(dir.path()), Content::new(2, 0), Content::new(2, 1));
    for _ in 0..100 {
        let blob = before.listed(&store);
        let write = tokio::spawn({
            let (blob, chunks) = (blob.clone(), before.chunks(0));
            async move { blob.write(0, chunks).await }
        });
        // The clearing comes before, during or after the write, as it happens.
        tokio::task::yield_now().await;
        blob.clear("test");
        blob.learn(0, &after.digests(), Bytes::new()).unwrap();
        assert_eq!(blob.write(0, after.chunks(0)).await.unwrap(), Written::Held);
        write.await.unwrap().unwrap();
        assert_eq!(after.readable(&blob).await, [0]);
        blob.clear("test");
    }
}
