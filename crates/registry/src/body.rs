//! An answer's body that fails when the registry falls silent.
//!
//! The clock runs only while somebody waits for a byte that is not there: a reader that takes its
//! time (a slow runtime, a rate limit) is not the registry's fault.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use shoal_oci::RegistryName;
use tokio::time::{Sleep, sleep};

use crate::error::{ErrorKind, RegistryError, diagnose};

/// The longest silence in the middle of a body.
const PATIENCE: Duration = Duration::from_secs(20);

/// A registry's body, streamed; it may have come by way of a gateway.
#[derive(Debug)]
pub struct RegistryBody {
    incoming: Incoming,
    waiting: Option<Pin<Box<Sleep>>>,
    registry: RegistryName,
    request: Arc<str>,
}

impl RegistryBody {
    /// Limits the silences of an answer to `request`, which errors name.
    pub fn new(incoming: Incoming, registry: RegistryName, request: Arc<str>) -> Self {
        Self { incoming, waiting: None, registry, request }
    }

    fn error(&self, kind: ErrorKind, fault: &str) -> RegistryError {
        RegistryError {
            registry: self.registry.clone(),
            what: format!("{}: body: {fault}", self.request),
            kind,
        }
    }
}

impl Body for RegistryBody {
    type Data = Bytes;
    type Error = RegistryError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        ctx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, RegistryError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.incoming).poll_frame(ctx) {
            self.waiting = None;
            return Poll::Ready(frame.map(|it| {
                it.map_err(|error| {
                    let (kind, fault) = diagnose(&error, ErrorKind::Protocol);
                    self.error(kind, &fault)
                })
            }));
        }
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(sleep(PATIENCE)));
        ready!(waiting.as_mut().poll(ctx));
        let fault = format!("no byte for {} s", PATIENCE.as_secs());
        Poll::Ready(Some(Err(self.error(ErrorKind::Timeout, &fault))))
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
