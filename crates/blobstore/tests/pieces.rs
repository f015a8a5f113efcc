//! Pieces in and out of one open store.

mod common;

use std::os::unix::fs::FileExt as _;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use common::{Content, open, settings};
use shoal_blobstore::{Learned, MAX_READ, PieceDigest, Store, StoreError, StoreSettings, Written};
use shoal_model::Digest;
use shoal_swarm::Geometry;

#[tokio::test]
async fn pieces_arrive_in_any_order_and_read_back_across_their_bounds() {
    let dir = tempfile::tempdir().unwrap();
    let (store, content) = (open(dir.path()), Content::new(4, 0));
    let blob = content.listed(&store);
    for piece in [3, 1, 0] {
        assert_eq!(blob.write(piece, content.chunks(piece)).await.unwrap(), Written::Held);
    }
    assert_eq!(content.readable(&blob).await, [0, 1, 3]);
    assert!(matches!(blob.read(1990..2010).await, Err(StoreError::NotHeld { piece: 2, .. })));

    blob.write(2, content.chunks(2)).await.unwrap();
    assert_eq!(blob.read(990..3010).await.unwrap(), content.bytes.slice(990..3010));
    assert_eq!(blob.read(5..5).await.unwrap(), Bytes::new());
    assert!(blob.held().is_full() && !blob.is_sealed() && !blob.is_complete());
    blob.seal(&content.digests(), Bytes::from_static(b"sealed")).unwrap();
    assert!(blob.is_complete());
}

#[tokio::test]
async fn wrong_bytes_never_become_a_piece() {
    let dir = tempfile::tempdir().unwrap();
    let (store, content) = (open(dir.path()), Content::new(3, 0));
    let blob = store.create(&content.key, content.geometry).unwrap();
    assert_eq!(blob.write(0, content.chunks(0)).await.unwrap(), Written::NoDigest);
    let blob = content.listed(&store);
    for wrong in [content.chunks(1), vec![], vec![content.bytes.slice(..999)]] {
        assert_eq!(blob.write(0, wrong).await.unwrap(), Written::Mismatch);
    }
    assert_eq!(blob.write(0, content.chunks(0)).await.unwrap(), Written::Held);
    assert_eq!(blob.write(0, content.chunks(1)).await.unwrap(), Written::AlreadyHeld);
    assert_eq!(content.readable(&blob).await, [0]);
}

#[tokio::test]
async fn ranges_that_must_not_be_asked_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (store, content) = (open(dir.path()), Content::new(3, 0));
    let blob = content.complete(&store).await;
    #[expect(clippy::reversed_empty_ranges, reason = "that is what a careless caller hands over")]
    for range in [0..2501, 2501..2501, 20..10, u64::MAX..u64::MAX, 3000..10] {
        let res = blob.read(range.clone()).await;
        assert!(matches!(res, Err(StoreError::PastEnd { .. })), "{range:?}");
    }
    let geometry = Geometry::stated(MAX_READ + 1, MAX_READ + 1).unwrap();
    let large = store.create(&Content::new(1, 9).key, geometry).unwrap();
    assert!(matches!(large.read(0..MAX_READ + 1).await, Err(StoreError::TooLong { .. })));
}

#[tokio::test]
async fn a_seed_vouches_for_what_it_wrote() {
    let dir = tempfile::tempdir().unwrap();
    let (store, content) = (open(dir.path()), Content::new(3, 0));
    let blob = store.create(&content.key, content.geometry).unwrap();
    let (written, digest) = blob.write_provisional(0, content.chunks(0)).await.unwrap();
    assert_eq!((written, digest), (Written::Provisional, content.digests()[0]));
    assert_eq!(blob.digest_of(0), None);
    let batch = Bytes::from_static(b"batch");
    assert_eq!(blob.learn(0, &[digest], batch.clone()).unwrap(), Learned::Fresh);
    assert!(blob.holds(0));
    assert_eq!(blob.digest_of(0), Some(digest));
    assert_eq!(blob.learn(0, &[digest], batch.clone()).unwrap(), Learned::Known);
    assert_eq!(blob.learn(0, &[PieceDigest([0; 32])], batch.clone()).unwrap(), Learned::Conflict);
    assert!(blob.knows(&batch) && !blob.knows(b"another"));
    assert_eq!(blob.attestations(), [batch]);
}

#[tokio::test]
async fn provisional_pieces_are_for_local_readers_until_the_whole_digest_matches() {
    let dir = tempfile::tempdir().unwrap();
    let (store, content) = (open(dir.path()), Content::new(3, 0));
    let blob = store.create(&content.key, content.geometry).unwrap();
    assert!(matches!(blob.prove().await, Err(StoreError::NotHeld { piece: 0, .. })));
    for piece in 0..3 {
        let (written, _) = blob.write_provisional(piece, content.chunks(piece)).await.unwrap();
        assert_eq!(written, Written::Provisional);
    }
    assert_eq!(content.readable(&blob).await, [0, 1, 2]);
    assert!(blob.held().is_empty());
    assert!(matches!(blob.read_held(0..1).await, Err(StoreError::NotHeld { piece: 0, .. })));

    assert!(blob.prove().await.unwrap());
    assert!(blob.is_complete());
    assert_eq!(blob.read_held(0..1).await.unwrap(), content.bytes.slice(0..1));
    assert_eq!(blob.digest_of(2), Some(content.digests()[2]));
}

#[tokio::test]
async fn a_poisoned_blob_is_cleared_and_can_be_fetched_anew() {
    let dir = tempfile::tempdir().unwrap();
    let (store, mut content) = (open(dir.path()), Content::new(3, 0));
    let truth = content.key.digest;
    content.key.digest = Digest::from_sha256([1; 32]);
    let blob = content.complete(&store).await;
    let mut version = blob.version();
    version.mark_unchanged();
    let before = blob.status();

    assert!(!blob.prove().await.unwrap());
    assert!(version.has_changed().unwrap());
    let after = blob.status();
    assert_eq!(after.generation, before.generation + 1);
    assert!(after.held.is_empty() && !after.sealed);
    assert!(blob.attestations().is_empty() && blob.digest_of(0).is_none());
    assert_eq!(content.readable(&blob).await, []);

    content.key.digest = truth;
    assert!(content.complete(&store).await.prove().await.unwrap());
}

#[tokio::test]
async fn every_change_is_seen_by_watchers_of_the_blob_and_of_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(StoreSettings { expire_after: Duration::ZERO, ..settings(dir.path()) }).unwrap();
    let content = Content::new(2, 0);
    let blob = store.create(&content.key, content.geometry).unwrap();
    let (mut version, mut changes) = (blob.version(), store.changes());
    let mut seen = |what| {
        assert!(version.has_changed().unwrap(), "{what}");
        version.mark_unchanged();
        assert_eq!(changes.try_recv().unwrap(), content.key, "{what}");
        assert!(changes.try_recv().is_err(), "{what}");
    };
    blob.learn(0, &content.digests(), Bytes::new()).unwrap();
    seen("digests");
    blob.write(0, content.chunks(0)).await.unwrap();
    seen("piece");
    blob.seal(&content.digests(), Bytes::new()).unwrap();
    seen("seal");
    blob.clear("test");
    seen("clearing");
    blob.write_provisional(1, content.chunks(1)).await.unwrap();
    seen("provisional piece");
    drop(blob);
    assert_eq!(store.collect(SystemTime::now()).n_expired, 1);
    while version.changed().await.is_ok() {}
    assert_eq!(changes.try_recv().unwrap(), content.key);
}

#[tokio::test]
async fn an_empty_blob_is_complete_once_it_is_sealed() {
    let dir = tempfile::tempdir().unwrap();
    let (store, mut content) = (open(dir.path()), Content::new(1, 0));
    content.bytes = Bytes::new();
    content.key.digest =
        "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855".parse().unwrap();
    content.geometry = Geometry::by_rule(0);
    let blob = store.create(&content.key, content.geometry).unwrap();
    assert!(!blob.is_complete());
    assert_eq!(blob.read(0..0).await.unwrap(), Bytes::new());
    assert!(blob.prove().await.unwrap() && blob.is_complete());
}

#[tokio::test]
async fn an_unsealed_blob_takes_a_new_cut_and_a_sealed_one_keeps_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let (store, content) = (open(dir.path()), Content::new(3, 0));
    let size = content.geometry.size();
    let [other, wrong] =
        [(size, 500), (size + 1, 1000)].map(|(size, piece)| Geometry::stated(size, piece).unwrap());

    content.listed(&store).write(0, content.chunks(0)).await.unwrap();
    let blob = store.create(&content.key, other).unwrap();
    assert_eq!((blob.geometry(), blob.held().len(), blob.held().count()), (other, 5, 0));
    store.create(&content.key, content.geometry).unwrap();

    let blob = content.complete(&store).await;
    assert_eq!(store.create(&content.key, other).unwrap().geometry(), content.geometry);
    let res = store.create(&content.key, wrong);
    assert!(matches!(res, Err(StoreError::Size { stated: 2501, sealed: 2500, .. })));
    assert!(blob.is_complete());
}

#[tokio::test]
async fn what_is_held_and_verified_is_lent() {
    let dir = tempfile::tempdir().unwrap();
    let content = Content::new(4, 0);
    let blob = content.listed(&open(dir.path()));
    for piece in [0, 1] {
        blob.write(piece, content.chunks(piece)).await.unwrap();
    }
    let lent = blob.lend(990..1010).unwrap();
    let mut bytes = [0; 20];
    lent.file.read_exact_at(&mut bytes, lent.range.start).unwrap();
    assert_eq!((&bytes[..], lent.range), (&content.bytes[990..1010], 990..1010));
    assert!(blob.lend(1990..2010).is_none(), "a piece is missing");
    assert!(blob.lend(5..5).is_none() && blob.lend(3400..3600).is_none(), "there are no such bytes");

    blob.mark_suspect();
    assert!(blob.lend(0..10).is_none(), "not verified");
    blob.read(0..10).await.unwrap();
    assert!(blob.lend(0..10).is_some());
    blob.clear("a test says so");
    assert!(blob.lend(0..10).is_none());
    lent.file.read_exact_at(&mut bytes, 990).unwrap();
    assert_eq!(bytes, content.bytes[990..1010], "what was lent stays what it was");
}

#[tokio::test]
async fn nobody_is_lent_what_only_this_nodes_runtime_may_have() {
    let dir = tempfile::tempdir().unwrap();
    let (store, content) = (open(dir.path()), Content::new(2, 0));
    let blob = store.create(&content.key, content.geometry).unwrap();
    blob.write_provisional(0, content.chunks(0)).await.unwrap();
    assert!(blob.read(0..10).await.is_ok() && blob.lend(0..10).is_none());
}

/// A file system in memory, where there is one, is read by another way.
#[tokio::test]
async fn a_store_in_memory_reads_and_lends_like_any_other() {
    let Ok(dir) = tempfile::tempdir_in("/dev/shm") else { return };
    let content = Content::new(3, 0);
    let blob = content.complete(&open(dir.path())).await;
    assert_eq!(content.readable(&blob).await, [0, 1, 2]);
    assert!(blob.lend(0..2500).is_some());
}
