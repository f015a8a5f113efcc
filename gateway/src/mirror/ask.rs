//! Asking a registry what a runtime asked, within its limits and with whoever's right its mode says.

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream;
use http::request::Parts;
use http::{Request, Response, Uri};
use http_body_util::{BodyExt as _, StreamBody};
use shoal_oci::{ErrorCode, Repository};
use shoal_registry::RegistryBody;
use tokio::time::timeout;
use tonic::body::Body;

use super::{MirrorError, headers, refused};
use crate::mode::Asker;
use crate::priority::Urgency;
use crate::queue::Place;
use crate::upstream::{AskError, Upstream};

/// How long a request may wait for its turn at the registry.
pub(super) const WAIT: Duration = Duration::from_secs(10);

/// Waits for a turn and asks.
pub(super) async fn ask(
    upstream: &Upstream,
    repository: &Repository,
    mut request: Parts,
) -> Result<Response<RegistryBody>, MirrorError> {
    let asker = upstream.mode.asker();
    request.headers = headers::to_registry(&request.headers, asker);
    upstream.listens()?;
    turn(upstream, asker).await?;
    let request = Request::from_parts(request, ());
    let answer = match asker {
        Asker::Caller => upstream.ask(request).await.map_err(AskError::from),
        Asker::Gateway => upstream.ask_as_gateway(repository, request).await,
    };
    let mut answer = answer.map_err(|error| match error {
        _ if error.is_refusal() => refused(ErrorCode::Denied, "the registry refuses the gateway".to_owned()),
        _ => error.into(),
    })?;
    headers::to_runtime(answer.headers_mut());
    Ok(answer)
}

/// Waits for a turn.
pub(super) async fn turn(upstream: &Upstream, asker: Asker) -> Result<(), MirrorError> {
    timeout(WAIT, upstream.turn(asker)).await.map_err(|_| busy(upstream))
}

/// Waits for a place among the blobs that are read.
pub(super) async fn place(upstream: &Upstream) -> Result<Place, MirrorError> {
    let live = Urgency::live();
    let entering = upstream.limits.blobs.enter(&live, |_| {});
    timeout(WAIT, entering).await.map_err(|_| busy(upstream))
}

/// A blob's body, at the registry's rate, holding a place until it ends.
pub(super) fn metered(body: RegistryBody, upstream: Arc<Upstream>, place: Place) -> Body {
    let frames = stream::try_unfold((body, upstream, place), |(mut body, upstream, place)| async move {
        let Some(frame) = body.frame().await.transpose()? else { return Ok(None) };
        if let Some(bytes) = frame.data_ref() {
            upstream.received(bytes.len());
            upstream.limits.bytes(bytes.len()).await;
        }
        Ok::<_, shoal_registry::RegistryError>(Some((frame, (body, upstream, place))))
    });
    Body::new(StreamBody::new(frames))
}

/// What to ask the registry for.
pub(super) fn target(path_and_query: &str) -> Result<Uri, MirrorError> {
    let text = || format!("path {path_and_query}: cannot be sent");
    path_and_query.parse().map_err(|_| refused(ErrorCode::NameInvalid, text()))
}

fn busy(upstream: &Upstream) -> MirrorError {
    MirrorError::Busy { registry: upstream.name().clone() }
}
