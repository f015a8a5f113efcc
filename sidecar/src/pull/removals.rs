//! Removing blobs because a gateway says so.
//!
//! What is fetched of a blob is fetched no further, also where clients wait for it: their streams end early, as they do
//! where content is dropped, and what they have is the beginning of the blob all the same.

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use shoal_model::BlobKey;
use shoal_peer::remove::{Remover, remove_from};
use shoal_proto::{NodeMessage, Removal};

use super::Pulls;

impl Remover for Pulls {
    fn remove(&self, key: BlobKey) -> BoxFuture<'static, Removal> {
        let download = {
            let mut active = self.active();
            let download = active.remove(&key);
            self.counted(active.len());
            download
        };
        let (this, store) = (self.clone(), self.tools().store.clone());
        async move {
            if let Some(download) = download {
                download.remove();
                // So that nothing more of it comes in.
                let _ = download.ended().await;
                // Whoever has begun to fetch it anew meanwhile wants it.
                let active = this.active();
                if !active.contains_key(&key) {
                    this.tools().schedulers.send(NodeMessage::Unwant(key.clone()));
                }
            }
            remove_from(store, key).await
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{self, Me, geometry, grant, holder, key, neighbour, online, source};
    use super::*;
    use crate::pull::reader::Ended;

    #[tokio::test]
    async fn what_is_fetched_is_fetched_no_further_and_its_stream_ends_early() {
        let me = Me::new();
        // Some of it is there, and nobody has the rest.
        let (some, _dir) = holder(0..1).await;
        let node = online(some).await;
        let mut granted = grant();
        granted.blob.holders = vec![node];
        let mut reader = me.pulls.read(&granted, &source(), None, 0..geometry().size()).unwrap();
        assert!(testing::soon(reader.next()).await.unwrap().is_some_and(|it| !it.is_empty()));

        assert_eq!(testing::soon(me.pulls.remove(key())).await, Removal::Removed);
        assert!(me.pulls.active().is_empty());
        assert!(me.store.get(&key()).is_none_or(|it| it.readable().is_empty()));
        let end = loop {
            match testing::soon(reader.next()).await {
                Ok(Some(_)) => {}
                other => break other,
            }
        };
        assert!(matches!(end, Err(Ended::Dropped | Ended::NoSource(_))), "{end:?}");
        drop(reader);
        assert_eq!(testing::soon(me.pulls.remove(key())).await, Removal::Nothing);
    }

    #[tokio::test]
    async fn what_was_removed_can_be_had_anew() {
        let (me, (node, _dir)) = (Me::new(), neighbour().await);
        let mut granted = grant();
        granted.blob.holders = vec![node];
        for _ in 0..2 {
            let mut reader = me.pulls.read(&granted, &source(), None, 0..geometry().size()).unwrap();
            while testing::soon(reader.next()).await.unwrap().is_some() {}
            drop(reader);
            assert!(testing::blob(&me.store).is_complete());
            assert_eq!(testing::soon(me.pulls.remove(key())).await, Removal::Removed);
        }
    }
}
