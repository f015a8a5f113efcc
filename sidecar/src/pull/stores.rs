//! Fetching blobs because a gateway wants them here, before anybody asks.
//!
//! It is the download that a pull would have begun, without a reader and without a caller's credential. Nothing is
//! remembered of it as a caller's grant: who reads the blob later is opened for itself.

use futures_util::FutureExt as _;
use futures_util::future::ready;
use shoal_peer::store::{Storer, Storing};
use shoal_proto::{Source, StoreBlob, WantedBlob};
use tokio::time::Instant;

use super::Pulls;
use super::download::{Start, Wish};

impl Storer for Pulls {
    fn store(&self, source: &Source, wanted: &StoreBlob, granted_at: Instant) -> Result<Storing, String> {
        let StoreBlob { key, geometry, ticket, ticket_lives, gateway } = wanted.clone();
        let mut active = self.active();
        let blob = self.create(&active, &key, geometry).map_err(|it| it.to_string())?;
        if blob.is_complete() && blob.is_stored() {
            return Ok(Storing { blob, ended: ready(Ok(())).boxed() });
        }
        let running = active.get(&key).filter(|it| it.is_running());
        let start = Start {
            wanted: WantedBlob {
                key,
                geometry: blob.geometry(),
                source: source.clone(),
                ticket,
                trace: None,
            },
            holders: Vec::new(),
            gateway,
            // That of a caller who pulls the blob at this moment stays his download's last resort.
            authorization: running.and_then(|it| it.start().authorization),
            granted_at,
            ticket_lives,
        };
        let download = self.begin(&mut active, blob.clone(), start, Wish::Store);
        let (kept, content) = (download.kept(), blob.clone());
        let ended = async move {
            let _kept = kept;
            download.ended().await?;
            match content.is_complete() && content.is_stored() {
                true => Ok(()),
                false => Err("the disk has not taken it".to_owned()),
            }
        };
        Ok(Storing { blob, ended: ended.boxed() })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{self, Me, geometry, grant, key, neighbour, node, source};
    use super::*;

    fn wanted(gateway: shoal_model::Node) -> StoreBlob {
        let opened = grant().blob;
        let (ticket, ticket_lives) = (opened.ticket, opened.ticket_lives);
        StoreBlob { key: key(), geometry: geometry(), ticket, ticket_lives, gateway }
    }

    #[tokio::test]
    async fn a_blob_is_fetched_without_a_reader_and_kept() {
        let (me, (gateway, _dir)) = (Me::new(), neighbour().await);
        let storing = me.pulls.store(&source(), &wanted(gateway.clone()), Instant::now()).unwrap();
        assert_eq!(testing::soon(storing.ended).await, Ok(()));
        assert!(testing::blob(&me.store).is_complete());
        let again = me.pulls.store(&source(), &wanted(gateway), Instant::now()).unwrap();
        assert_eq!(testing::soon(again.ended).await, Ok(()), "and costs nothing the second time");
    }

    #[tokio::test]
    async fn what_nobody_wants_any_more_is_fetched_no_further() {
        let me = Me::new();
        let nowhere = node("127.0.0.1:1");
        let [one, other] =
            [0, 1].map(|_| me.pulls.store(&source(), &wanted(nowhere.clone()), Instant::now()).unwrap());
        drop(one);
        let download = me.pulls.active().get(&key()).cloned().unwrap();
        assert!(download.is_running() && !download.is_abandoned(), "another wish is left");
        drop(other);
        assert!(testing::soon(download.ended()).await.is_err());
        assert!(me.pulls.active().is_empty());
    }

    #[tokio::test]
    async fn what_a_client_has_asked_for_goes_on_without_the_gateways_wish() {
        let me = Me::new();
        let storing = me.pulls.store(&source(), &wanted(node("127.0.0.1:1")), Instant::now()).unwrap();
        let reader = me.pulls.read(&grant(), &source(), None, 0..10).unwrap();
        let download = me.pulls.active().get(&key()).cloned().unwrap();
        drop((storing, reader));
        assert!(!download.is_abandoned());
    }

    #[tokio::test]
    async fn what_nobody_serves_fails_with_a_cause() {
        let me = Me::new();
        let storing = me.pulls.store(&source(), &wanted(node("127.0.0.1:1")), Instant::now()).unwrap();
        let why = testing::soon(storing.ended).await.unwrap_err();
        assert!(why.contains("neither neighbours nor gateway nor registry"), "{why}");
    }
}
