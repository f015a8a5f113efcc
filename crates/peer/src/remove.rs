//! Having a node remove blobs, because a gateway says so.
//!
//! Only gateways may ask. What is under way about a blob ends first, so that nothing of it comes in afterwards; how, is
//! the service's own. It is no ban: whoever asks for the blob next has it fetched anew.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use http::Extensions;
use shoal_blobstore::Store;
use shoal_identity::{Caller, Role};
use shoal_model::BlobKey;
use shoal_proto::{Removal, RemoveReply, RemoveRequest};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tonic::Status;

use crate::store::cause;

/// Requests at a node at the same time; more are refused.
const AT_ONCE: usize = 4;

/// Removes blobs.
pub trait Remover: Send + Sync + 'static {
    /// Ends whatever is done about a blob, and removes what there is of it.
    fn remove(&self, key: BlobKey) -> BoxFuture<'static, Removal>;
}

/// The call of the `Peer` service.
pub(crate) struct RemoveService {
    remover: Arc<dyn Remover>,
    places: Semaphore,
}

impl RemoveService {
    pub(crate) fn new(remover: Arc<dyn Remover>) -> Self {
        Self { remover, places: Semaphore::new(AT_ONCE) }
    }

    /// Does what a request with these extensions asks for. Where its asker goes away, what is left is not done.
    pub(crate) async fn answer(
        &self,
        from: &Extensions,
        request: RemoveRequest,
    ) -> Result<RemoveReply, Status> {
        Caller::of(from)
            .and_then(|it| it.must_be_one_of(&[Role::Gateway]))
            .map_err(|it| Status::permission_denied(format!("remove: {it}")))?;
        let place = self.places.try_acquire();
        let _place =
            place.map_err(|_| Status::resource_exhausted("remove: as many as are allowed are at work"))?;
        let mut removals = Vec::with_capacity(request.0.len());
        for key in request.0 {
            removals.push(self.remover.remove(key).await);
        }
        Ok(RemoveReply(removals))
    }
}

/// Removes a blob from a store, where nothing is under way about it any more.
pub async fn remove_from(store: Store, key: BlobKey) -> Removal {
    let removed = spawn_blocking(move || store.remove(&key, "a gateway has it removed")).await;
    match removed {
        Ok(Ok(true)) => Removal::Removed,
        Ok(Ok(false)) => Removal::Nothing,
        Ok(Err(error)) => Removal::Failed(cause(error.to_string())),
        Err(_) => Removal::Failed("the process is stopping".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{self, blob, key};
    use futures_util::FutureExt as _;

    struct OfStore(Store);

    impl Remover for OfStore {
        fn remove(&self, key: BlobKey) -> BoxFuture<'static, Removal> {
            remove_from(self.0.clone(), key).boxed()
        }
    }

    #[tokio::test]
    async fn a_gateway_is_told_what_was_done_about_each_blob() {
        let (_dir, store) = testing::store();
        let used = blob(&store, &key(1), &[0]).await;
        drop(blob(&store, &key(2), &[0]).await);
        let service = RemoveService::new(Arc::new(OfStore(store.clone())));
        let request = || RemoveRequest(vec![key(3), key(1), key(2)]);
        let RemoveReply(done) =
            service.answer(&testing::extensions_of(Role::Gateway), request()).await.unwrap();
        assert_eq!(done, [Removal::Nothing, Removal::Removed, Removal::Removed]);
        assert!(used.held().is_empty() && store.get(&key(2)).is_none());
    }

    #[tokio::test]
    async fn nobody_else_has_anything_removed() {
        let (_dir, store) = testing::store();
        drop(blob(&store, &key(1), &[0]).await);
        let service = RemoveService::new(Arc::new(OfStore(store.clone())));
        for role in Role::ALL.into_iter().filter(|it| *it != Role::Gateway) {
            let refused =
                service.answer(&testing::extensions_of(role), RemoveRequest(vec![key(1)])).await.unwrap_err();
            assert_eq!(refused.code(), tonic::Code::PermissionDenied, "{role}");
        }
        assert!(service.answer(&Extensions::new(), RemoveRequest(vec![key(1)])).await.is_err());
        assert!(store.get(&key(1)).is_some_and(|it| !it.held().is_empty()));
    }
}
