//! A body that is read by somebody else on its way through.
//!
//! The last bytes are handed on only after the listener has heard all, because the runtime's next request
//! may build on it.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use shoal_registry::{RegistryBody, RegistryError};

/// A registry's body whose bytes go to `listener` once they are all there, unless they are too many.
pub(crate) struct Tee<F> {
    body: RegistryBody,
    heard: BytesMut,
    max: usize,
    listener: Option<F>,
}

impl<F: FnOnce(&[u8])> Tee<F> {
    pub(crate) fn new(body: RegistryBody, max: usize, listener: F) -> Self {
        Self { body, heard: BytesMut::new(), max, listener: Some(listener) }
    }

    fn hear(&mut self, bytes: &Bytes) {
        if self.heard.len() + bytes.len() > self.max {
            self.listener = None;
            self.heard = BytesMut::new();
        } else if self.listener.is_some() {
            self.heard.extend_from_slice(bytes);
        }
    }

    fn tell(&mut self) {
        if let Some(listener) = self.listener.take() {
            listener(&self.heard);
        }
    }
}

impl<F: FnOnce(&[u8]) + Unpin> Body for Tee<F> {
    type Data = Bytes;
    type Error = RegistryError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        ctx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, RegistryError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(ctx));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(bytes) = frame.data_ref() {
                    self.hear(bytes);
                }
                if self.body.is_end_stream() {
                    self.tell();
                }
            }
            None => self.tell(),
            // A manifest that broke off was not answered.
            Some(Err(_)) => self.listener = None,
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
