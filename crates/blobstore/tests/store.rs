//! The table of blobs: who may open it, what is evicted, what stays.

mod common;

use std::fs::File;
use std::time::{Duration, Instant, SystemTime};

use common::{Content, files, open, open_with, settings};
use shoal_blobstore::{Store, StoreError, StoreSettings, Summary};
use shoal_model::ByteSize;

#[tokio::test]
async fn a_directory_belongs_to_one_store_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let err = Store::open(settings(dir.path())).unwrap_err();
    assert!(matches!(err, StoreError::Locked { .. }));
    assert_eq!(err.to_string(), format!("store {}: another process holds it", dir.path().display()));
    drop(store);
    open(dir.path());
}

#[tokio::test]
async fn one_digest_in_two_trust_groups_is_two_blobs() {
    let dir = tempfile::tempdir().unwrap();
    let (store, ours, mut theirs) = (open(dir.path()), Content::new(2, 0), Content::new(2, 0));
    theirs.key.group = shoal_model::TrustGroup::new("hostile.example");
    let _ = ours.complete(&store).await;
    assert!(store.get(&theirs.key).is_none());
    let blob = theirs.listed(&store);
    assert_eq!(theirs.readable(&blob).await, []);
}

#[tokio::test]
async fn the_unused_expire_and_those_in_use_stay() {
    let dir = tempfile::tempdir().unwrap();
    let store =
        Store::open(StoreSettings { expire_after: Duration::from_secs(3600), ..settings(dir.path()) })
            .unwrap();
    let (used, unused) = (Content::new(2, 0), Content::new(2, 1));
    let blob = used.complete(&store).await;
    drop(unused.complete(&store).await);
    assert_eq!(store.collect(SystemTime::now()).n_expired, 0);

    let later = SystemTime::now() + Duration::from_secs(7200);
    let collected = store.collect(later);
    assert_eq!((collected.n_expired, collected.n_evicted), (1, 0));
    assert!(collected.freed > ByteSize(0));
    assert!(store.get(&unused.key).is_none());
    assert_eq!(used.readable(&blob).await, [0, 1]);
    assert_eq!(files(dir.path(), "data").len(), 1);
    drop((blob, store));
    assert_eq!(open(dir.path()).list().len(), 1);
}

#[tokio::test]
async fn the_least_recently_used_make_room_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let contents: Vec<_> = (0..4).map(|salt| Content::new(40, salt)).collect();
    let store = open(dir.path());
    for content in &contents {
        drop(content.complete(&store).await);
    }
    let first = contents[0].listed(&store);
    drop((first, store));
    let usage = open(dir.path()).usage();
    assert_eq!(usage.n_blobs, 4);

    let capacity = ByteSize(usage.bytes.0 - 1);
    let store = open_with(&StoreSettings { capacity, low_percent: 50, ..settings(dir.path()) });
    let collected = store.collect(SystemTime::now());
    assert_eq!((collected.n_expired, collected.n_evicted), (0, 3));
    let left: Vec<Summary> = store.list();
    assert_eq!(left.iter().map(|it| &it.key).collect::<Vec<_>>(), [&contents[0].key]);
    assert_eq!(store.usage().bytes, ByteSize(usage.bytes.0 - collected.freed.0));
}

#[tokio::test]
async fn a_use_that_a_wrong_clock_noted_in_the_future_does_not_keep_a_blob_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let [first, second] = [0, 1].map(|salt| Content::new(40, salt));
    let store = open(dir.path());
    drop(first.complete(&store).await);
    drop(store);
    let journal = File::open(&files(dir.path(), "pieces")[0]).unwrap();
    let hour = Duration::from_secs(3600);
    journal.set_modified(SystemTime::now() + hour * 24 * 365).unwrap();

    let store = open_with(&StoreSettings { expire_after: hour, ..settings(dir.path()) });
    drop(second.complete(&store).await);
    let now = SystemTime::now();
    // Nothing expires because the clock is set back, or right again.
    for now in [now, now - hour * 100, now, now + hour / 2] {
        assert_eq!(store.collect(now).n_expired, 0);
    }
    assert_eq!(store.collect(SystemTime::now() + hour).n_expired, 2);
}

#[tokio::test]
async fn an_evicted_blob_can_be_fetched_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(StoreSettings { expire_after: Duration::ZERO, ..settings(dir.path()) }).unwrap();
    let content = Content::new(2, 0);
    for _ in 0..2 {
        drop(content.complete(&store).await);
        assert_eq!(store.collect(SystemTime::now()).n_expired, 1);
        assert!(store.list().is_empty());
    }
}

#[tokio::test]
async fn a_volume_below_its_free_floor_keeps_only_what_is_in_use() {
    let dir = tempfile::tempdir().unwrap();
    let store =
        Store::open(StoreSettings { free_floor: ByteSize(u64::MAX), ..settings(dir.path()) }).unwrap();
    let (used, unused) = (Content::new(2, 0), Content::new(2, 1));
    let _used = used.complete(&store).await;
    drop(unused.complete(&store).await);
    assert_eq!(store.collect(SystemTime::now()).n_evicted, 1);
    assert_eq!(store.list().len(), 1);
}

#[tokio::test]
async fn to_look_at_a_blob_is_not_to_use_it() {
    let dir = tempfile::tempdir().unwrap();
    let (store, content) = (open(dir.path()), Content::new(2, 0));
    assert_eq!(store.status(&content.key), None);
    drop(content.complete(&store).await);
    let before = store.list();
    assert_eq!(store.status(&content.key).as_ref(), Some(&before[0].status));
    assert_eq!(store.list(), before);
    drop(store.get(&content.key));
    assert_ne!(store.list(), before);
}

#[tokio::test]
async fn files_of_an_unused_blob_are_closed() {
    let dir = tempfile::tempdir().unwrap();
    let (store, content) = (open(dir.path()), Content::new(2, 0));
    let n_open = || {
        std::fs::read_dir("/proc/self/fd")
            .unwrap()
            .filter_map(|it| std::fs::read_link(it.ok()?.path()).ok())
            .filter(|it| it.starts_with(dir.path().join("v1")))
            .count()
    };
    let closed = async || {
        let deadline = Instant::now() + Duration::from_secs(30);
        while n_open() > 0 {
            assert!(Instant::now() < deadline);
            tokio::task::yield_now().await;
        }
    };
    let blob = content.complete(&store).await;
    assert_eq!(n_open(), 2);
    drop(blob);
    closed().await;
    let blob = store.get(&content.key).unwrap();
    assert_eq!(n_open(), 0);
    blob.read(0..10).await.unwrap();
    assert_eq!(n_open(), 1);
}

#[tokio::test]
async fn a_blob_is_removed_for_good_also_from_under_its_readers() {
    let dir = tempfile::tempdir().unwrap();
    let (store, content, other) = (open(dir.path()), Content::new(3, 0), Content::new(2, 1));
    let used = content.complete(&store).await;
    drop(other.complete(&store).await);
    assert_eq!(files(dir.path(), "data").len(), 2);

    let generation = used.status().generation;
    assert!(store.remove(&content.key, "a test says so").unwrap());
    assert_eq!(files(dir.path(), "data").len(), 1);
    assert_eq!(content.readable(&used).await, [], "whoever reads finds nothing");
    assert!(!used.is_sealed() && used.status().generation > generation);
    assert!(!store.remove(&content.key, "a test says so").unwrap(), "there is nothing any more");

    // It can be had anew, by the same handle, and outlives a restart then.
    content.complete_rest(&store).await;
    assert_eq!(content.readable(&used).await, [0, 1, 2]);
    drop((used, store));
    let store = open(dir.path());
    assert_eq!(store.list().len(), 2);

    assert!(store.remove(&content.key, "a test says so").unwrap());
    assert!(store.get(&content.key).is_none(), "nobody used it");
    let unknown = Content::new(1, 7);
    assert!(!store.remove(&unknown.key, "a test says so").unwrap());
    drop(store);
    let left: Vec<_> = open(dir.path()).list().into_iter().map(|it| it.key).collect();
    assert_eq!(left, [other.key]);
}

#[tokio::test]
async fn what_was_removed_while_it_was_written_does_not_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let (store, content) = (open(dir.path()), Content::new(3, 0));
    let blob = content.listed(&store);
    blob.write(0, content.chunks(0)).await.unwrap();
    assert!(store.remove(&content.key, "a test says so").unwrap());
    let written = blob.write(1, content.chunks(1)).await.unwrap();
    assert_eq!(written, shoal_blobstore::Written::NoDigest, "its digest is to be learned anew");
    drop((blob, store));
    assert!(open(dir.path()).list().iter().all(|it| it.status.held.is_empty()));
}
