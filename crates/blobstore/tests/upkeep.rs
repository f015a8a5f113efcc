//! The regular upkeep as a service runs it.

mod common;

use std::fs::File;
use std::io::Write as _;
use std::time::Duration;

use common::{Content, files, open, open_with, settings};
use prometheus_client::encoding::text;
use prometheus_client::registry::Registry;
use shoal_blobstore::{StoreSettings, Upkeep};
use tokio_util::sync::CancellationToken;

#[tokio::test]
async fn upkeep_removes_what_has_expired_and_shows_what_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let (store, used, unused) = (open(dir.path()), Content::new(2, 0), Content::new(2, 1));
    for content in [&used, &unused] {
        drop(content.complete(&store).await);
    }
    drop(store);
    File::options().append(true).open(&files(dir.path(), "pieces")[0]).unwrap().write_all(b"?").unwrap();
    let store = open_with(&StoreSettings { expire_after: Duration::ZERO, ..settings(dir.path()) });
    let _used = store.get(&used.key).unwrap();

    let mut registry = Registry::default();
    let (upkeep, stopping) = (Upkeep::new(store.clone(), &mut registry), CancellationToken::new());
    let mut changes = store.changes();
    let running = tokio::spawn(upkeep.run(stopping.clone()));
    assert_eq!(changes.recv().await.unwrap(), unused.key);
    stopping.cancel();
    running.await.unwrap().unwrap();

    let mut metrics = String::new();
    text::encode(&mut metrics, &registry).unwrap();
    let bytes = store.usage().bytes.0;
    for line in [
        &*format!("store_bytes {bytes}"),
        "store_blobs 1",
        "store_damaged_pieces_total 0",
        "store_damaged_journals_total 1",
        "store_unstored_pieces_total 0",
    ] {
        assert!(metrics.lines().any(|it| it == line), "{line} is not in\n{metrics}");
    }
}
