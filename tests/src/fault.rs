//! Faults that a counting front can be told to have: which answers are hurt, how often, and how.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, stream};
use http_body_util::BodyExt;
use hyper::body::{Frame, Incoming};
use shoal_model::ByteRate;
use socket2::Socket;
use std::sync::Arc;

/// What is done to an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Another status and no body, in place of the answer.
    Status {
        /// The status code.
        code: u16,
        /// Seconds for a `Retry-After` header.
        retry_after: Option<u32>,
    },
    /// A redirect to the same path at another server, named by its URL without a path.
    Redirect(String),
    /// No answer at all; the connection stays open.
    Hang,
    /// The body ends early, after about so many bytes: what the kernel had not sent yet is lost, too.
    Break {
        /// Bytes of the body that are passed on.
        after: u64,
        /// How the connection ends.
        ending: Ending,
    },
    /// The body comes no faster than this.
    Slow(ByteRate),
    /// The body's byte at this offset is another one.
    Flip(u64),
}

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// In order, as by a closing server.
    Fin,
    /// By a reset, as by a crashed one.
    Rst,
}

/// Faults waiting for requests that they apply to.
#[derive(Debug, Default)]
pub(crate) struct Faults(Mutex<Vec<Fault>>);

#[derive(Debug)]
struct Fault {
    path_part: String,
    times_left: u32,
    effect: Effect,
}

impl Faults {
    pub(crate) fn add(&self, path_part: &str, times: u32, effect: Effect) {
        let fault = Fault { path_part: path_part.into(), times_left: times, effect };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(fault);
    }

    pub(crate) fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// The effect on a request, counted as used: that of the oldest fault which applies and is not used up.
    pub(crate) fn take(&self, path: &str) -> Option<Effect> {
        let mut faults = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fault = faults.iter_mut().find(|it| it.times_left > 0 && path.contains(&it.path_part))?;
        fault.times_left -= 1;
        Some(fault.effect.clone())
    }
}

/// A body on its way to the client, with the damage it takes.
struct Passage<F> {
    body: Incoming,
    effect: Option<Effect>,
    socket: Arc<Socket>,
    offset: u64,
    on_sent: F,
}

/// The body as the client gets it. `socket` is the client's, for the ending; `on_sent` is told the length of
/// each part handed on.
pub(crate) fn pass(
    body: Incoming,
    effect: Option<Effect>,
    socket: Arc<Socket>,
    on_sent: impl Fn(usize),
) -> impl Stream<Item = anyhow::Result<Frame<Bytes>>> {
    let passage = Passage { body, effect, socket, offset: 0, on_sent };
    stream::try_unfold(passage, |mut passage| async {
        let part = passage.next().await?;
        Ok(part.map(|part| (Frame::data(part), passage)))
    })
}

impl<F: Fn(usize)> Passage<F> {
    async fn next(&mut self) -> anyhow::Result<Option<Bytes>> {
        if let Some(Effect::Break { after, ending }) = self.effect
            && self.offset >= after
        {
            return self.break_off(ending).await;
        }
        let Some(frame) = self.body.frame().await else {
            return Ok(None);
        };
        // Registries send no trailers, and an empty part does no harm.
        let part = self.hurt(frame?.into_data().unwrap_or_default()).await;
        self.offset += part.len() as u64;
        (self.on_sent)(part.len());
        Ok(Some(part))
    }

    async fn hurt(&self, mut part: Bytes) -> Bytes {
        match self.effect {
            Some(Effect::Break { after, .. }) => {
                let left = after - self.offset;
                part.truncate(usize::try_from(left).unwrap_or(usize::MAX));
                part
            }
            Some(Effect::Slow(ByteRate(rate))) => {
                tokio::time::sleep(Duration::from_secs_f64(part.len() as f64 / rate as f64)).await;
                part
            }
            Some(Effect::Flip(at)) => flip(part, at.checked_sub(self.offset)),
            Some(Effect::Status { .. } | Effect::Redirect(_) | Effect::Hang) | None => part,
        }
    }

    async fn break_off(&self, ending: Ending) -> anyhow::Result<Option<Bytes>> {
        // Lets the server write out what it has before it hears of the end.
        tokio::task::yield_now().await;
        if ending == Ending::Rst {
            self.socket.set_linger(Some(Duration::ZERO))?;
        }
        anyhow::bail!("broken off as told, after {} bytes", self.offset)
    }
}

fn flip(part: Bytes, at: Option<u64>) -> Bytes {
    let mut part = BytesMut::from(part);
    let at = at.and_then(|it| usize::try_from(it).ok());
    if let Some(byte) = at.and_then(|it| part.get_mut(it)) {
        *byte ^= 1;
    }
    part.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_hurts_what_it_names_and_only_so_often() {
        let faults = Faults::default();
        faults.add("/blobs/", 2, Effect::Hang);
        faults.add("/blobs/", 1, Effect::Flip(0));
        let taken: Vec<_> = (0..4).map(|_| faults.take("/v2/a/blobs/x")).collect();
        assert_eq!(taken, [Some(Effect::Hang), Some(Effect::Hang), Some(Effect::Flip(0)), None]);
        faults.add("/blobs/", u32::MAX, Effect::Hang);
        assert_eq!(faults.take("/v2/a/manifests/x"), None);
        faults.clear();
        assert_eq!(faults.take("/v2/a/blobs/x"), None);
    }

    #[test]
    fn just_the_named_byte_is_flipped() {
        let part = Bytes::from_static(b"abc");
        assert_eq!(flip(part.clone(), Some(1)), "acc");
        assert_eq!(flip(part.clone(), Some(3)), "abc");
        assert_eq!(flip(part, None), "abc");
    }
}
