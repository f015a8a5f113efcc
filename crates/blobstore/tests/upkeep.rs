//! The regular upkeep as a service runs it.

mod common;

use std::time::Duration;

use common::{Content, settings};
use prometheus_client::encoding::text;
use prometheus_client::registry::Registry;
use shoal_blobstore::{Store, StoreSettings, Upkeep};
use tokio_util::sync::CancellationToken;

#[tokio::test]
async fn upkeep_removes_what_has_expired_and_shows_what_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(StoreSettings { expire_after: Duration::ZERO, ..settings(dir.path()) }).unwrap();
    let (used, unused) = (Content::new(2, 0), Content::new(2, 1));
    let _used = used.complete(&store).await;
    drop(unused.complete(&store).await);

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
    for line in [&*format!("store_bytes {bytes}"), "store_blobs 1", "store_damaged_pieces_total 0"] {
        assert!(metrics.lines().any(|it| it == line), "{line} is not in\n{metrics}");
    }
}
