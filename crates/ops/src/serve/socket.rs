//! A client's TCP stream with manners: it does not wait for ever, and it does not hang up with a reset.
//!
//! A client that stops reading would hold its connection, and whatever feeds it, for as long as it likes, and so would
//! one that reads a byte from time to time; so a write that makes hardly any progress for the allowed time fails, and
//! the connection where it is to be waited for that something has arrived.
//!
//! A socket that is closed while unread bytes lie in it answers with RST, which makes the client drop what it
//! has already received: the end of a 431, or a short body that it could have resumed. So what has arrived
//! is read away before closing. Bytes that arrive even later still cause a reset; waiting for them would
//! let the client hold the connection.
//!
//! And bytes that lie in a file go out from there, where a body promised them: see [`Sendfile`]. What must last
//! until the client has received what was written is kept meanwhile: see [`Receipts`].

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep};

use super::receipts::{Awaited, Receipts};
use super::room::Blocked;
use super::sendfile::Sendfile;

/// So many bytes are progress.
pub(super) const PROGRESS: usize = 16 << 10;

/// At most so many bytes are read away when the socket is closed.
const MAX_UNREAD: usize = 1 << 20;

/// An accepted stream.
pub(super) struct Socket {
    stream: TcpStream,
    sendfile: Sendfile,
    awaited: Awaited,
    /// How long writes may be blocked between two times that progress was made.
    patience: Duration,
    blocked: Blocked,
    /// For how long they have been since the last time, and the bytes that were taken meanwhile.
    waited: Duration,
    n_taken: usize,
    /// The end of the patience; means something while blocked only.
    give_up: Pin<Box<Sleep>>,
}

impl Socket {
    /// Takes the stream over; writes may be blocked for `patience`, which `blocked` tells.
    pub(super) fn new(stream: TcpStream, patience: Duration, blocked: Blocked) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        let give_up = Box::pin(sleep(patience));
        let (sendfile, awaited) = (Sendfile::default(), Awaited::default());
        let (waited, n_taken) = (Duration::ZERO, 0);
        Ok(Self { stream, sendfile, awaited, patience, blocked, waited, n_taken, give_up })
    }

    /// Keeps what waits for the client.
    pub(super) fn receipts(&self) -> Receipts {
        self.awaited.receipts()
    }

    /// Takes promises of files' bytes for this socket.
    pub(super) fn sendfile(&self) -> Sendfile {
        self.sendfile.clone()
    }

    /// Sends bytes of a file in the place of `len` that stand in for them.
    fn poll_sendfile(&self, cx: &mut Context<'_>, len: usize) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.stream.poll_write_ready(cx))?;
            let send = || self.sendfile.send(&self.stream, len);
            match self.stream.try_io(Interest::WRITABLE, send) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                res => return Poll::Ready(res),
            }
        }
    }

    fn watch(&mut self, cx: &mut Context<'_>, res: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(taken) = &res {
            if let Some(since) = self.blocked.since() {
                self.blocked.set(None);
                self.waited += since.elapsed();
            }
            self.n_taken += taken.as_ref().copied().unwrap_or(0);
            if self.n_taken >= PROGRESS {
                (self.waited, self.n_taken) = (Duration::ZERO, 0);
                self.awaited.moved();
            }
            return res;
        }
        if self.blocked.since().is_none() {
            let now = Instant::now();
            self.blocked.set(Some(now));
            self.give_up.as_mut().reset(now + self.patience.saturating_sub(self.waited));
        }
        self.give_up.as_mut().poll(cx).map(|()| {
            let message = format!("the client took {} bytes in {:?}", self.n_taken, self.patience);
            Err(io::Error::new(io::ErrorKind::TimedOut, message))
        })
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { stream, awaited, patience, .. } = &mut *self;
        awaited.look(cx, stream, *patience)?;
        Pin::new(stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let res = match Sendfile::is_stand_in(buf) {
            true => self.poll_sendfile(cx, buf.len()),
            false => Pin::new(&mut self.stream).poll_write(cx, buf),
        };
        self.watch(cx, res)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let stand_in = bufs.iter().position(|it| Sendfile::is_stand_in(it));
        let res = match stand_in.and_then(|at| bufs.split_at_checked(at)) {
            Some(([], [stand_in, ..])) => self.poll_sendfile(cx, stand_in.len()),
            Some((before, _)) => Pin::new(&mut self.stream).poll_write_vectored(cx, before),
            None => Pin::new(&mut self.stream).poll_write_vectored(cx, bufs),
        };
        self.watch(cx, res)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Whoever flushes has written all that it had.
        self.sendfile.settled()?;
        let Self { stream, awaited, patience, .. } = &mut *self;
        awaited.written();
        awaited.look(cx, stream, *patience)?;
        Pin::new(stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let mut buf = [0; 4096];
        let mut n_read = 0;
        while n_read < MAX_UNREAD {
            match self.stream.try_read(&mut buf) {
                Ok(len @ 1..) => n_read += len,
                Ok(0) | Err(_) => break,
            }
        }
    }
}
