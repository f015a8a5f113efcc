//! When a server's connections took how many bytes: what tells at which rate it was read.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// How many writes are remembered, the newest.
const MAX_NOTES: usize = 1 << 18;

/// So many bytes that the kernel took to send, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// When it did.
    pub at: Instant,
    /// How many it took.
    pub n_bytes: u64,
}

/// The most bytes that were sent within any time as long as `window`.
pub fn most_within(sent: &[Sent], window: Duration) -> u64 {
    let (mut most, mut within, mut first) = (0, 0, 0);
    for last in sent {
        within += last.n_bytes;
        while sent[first].at + window <= last.at {
            within -= sent[first].n_bytes;
            first += 1;
        }
        most = most.max(within);
    }
    most
}

/// What all connections of a server sent; clones are of the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct SentLog(Arc<Mutex<VecDeque<Sent>>>);

impl SentLog {
    pub(crate) fn all(&self) -> Vec<Sent> {
        self.lock().iter().copied().collect()
    }

    pub(crate) fn forget(&self) {
        self.lock().clear();
    }

    /// Notes are in the order of their times, since the clock is looked at under the lock.
    fn note(&self, n_bytes: usize) {
        let mut log = self.lock();
        if log.len() == MAX_NOTES {
            log.pop_front();
        }
        log.push_back(Sent { at: Instant::now(), n_bytes: n_bytes as u64 });
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Sent>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection whose writes are noted.
pub(crate) struct Noting<S> {
    stream: S,
    sent: SentLog,
}

impl<S> Noting<S> {
    pub(crate) const fn new(stream: S, sent: SentLog) -> Self {
        Self { stream, sent }
    }

    fn noted(&self, written: io::Result<usize>) -> Poll<io::Result<usize>> {
        Poll::Ready(written.inspect(|n| self.sent.note(*n)))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Noting<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        ctx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(ctx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Noting<S> {
    fn poll_write(mut self: Pin<&mut Self>, ctx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(ctx, bytes));
        self.noted(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        ctx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(ctx, parts));
        self.noted(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, ctx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(ctx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, ctx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(ctx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_as_full_as_the_fullest() {
        let start = Instant::now();
        let sent = [(0, 1), (3, 10), (7, 20), (8, 30), (13, 5)];
        let sent = sent.map(|(second, n_bytes)| Sent { at: start + Duration::from_secs(second), n_bytes });
        for (window, expected) in [(1, 30), (2, 50), (5, 50), (6, 60), (100, 66)] {
            assert_eq!(most_within(&sent, Duration::from_secs(window)), expected, "{window}");
        }
        assert_eq!(most_within(&[], Duration::from_secs(1)), 0);
    }
}
