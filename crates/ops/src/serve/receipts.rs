//! What is kept until the client has received what was written before: an upload slot, for example.
//!
//! To HTTP a response has ended when its last byte lies in a buffer, of TLS or of the kernel. Where the link is slow it
//! is under way for long after that; a slot given back at the end of the response would bound nothing, and a link would
//! carry as many transfers as there are clients, each of them slowly.
//!
//! The kernel says how much of what was written is not acknowledged yet. It wakes nobody when that changes, so it is
//! looked at from time to time.

use std::any::Any;
use std::fmt;
use std::io;
use std::mem;
use std::ops::RangeInclusive;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::time::Duration;

use http::Version;
use http::request::Parts;
use nix::libc;
use nix::sys::socket::getsockopt;
use nix::{getsockopt_impl, sockopt_impl};
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep};

use super::socket::PROGRESS;

/// With no more bytes than this on their way everything counts as received: a receiver may take 40 ms to acknowledge
/// the last packet or two, and that would be long for a piece that took one. The kernel counts what a packet
/// occupies, up to 64 KiB and the memory around it.
const LAST_PACKETS: u32 = 80 << 10;

/// The kernel is asked again when everything should have been received by then at the rate seen so far, but neither
/// sooner nor later than this.
const PAUSE: RangeInclusive<Duration> = Duration::from_millis(2)..=Duration::from_millis(250);

sockopt_impl!(
    /// A socket's memory: nine numbers (`SK_MEMINFO_*` in `linux/sock_diag.h`).
    MemInfo,
    GetOnly,
    libc::SOL_SOCKET,
    libc::SO_MEMINFO,
    [u32; 9]
);

/// Where the bytes stand in [`MemInfo`] that were written and not acknowledged (`SK_MEMINFO_WMEM_QUEUED`).
const QUEUED: usize = 5;

/// Keeps things until the client of a request's connection has received all that was written before.
#[derive(Clone, Default)]
pub struct Receipts(Arc<Mutex<Vec<Kept>>>);

type Kept = Box<dyn Any + Send>;

impl Receipts {
    /// Those of a request's connection, where responses follow one another on it: not of HTTP/2.
    pub fn of(request: &Parts) -> Option<Self> {
        let can = request.version <= Version::HTTP_11;
        request.extensions.get().filter(|_| can).cloned()
    }

    /// Keeps something until the client has received nearly all that was written on the connection, or is gone. To
    /// be called when the response's body goes.
    pub fn keep(&self, it: impl Send + 'static) {
        self.0.lock().push(Box::new(it));
    }
}

impl fmt::Debug for Receipts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Receipts").field(&self.0.lock().len()).finish()
    }
}

/// The connection's side of [`Receipts`].
#[derive(Default)]
pub(super) struct Awaited {
    receipts: Receipts,
    /// What was kept for bytes that the kernel has.
    written: Vec<Kept>,
    look: Option<Look>,
}

/// A client that is being waited for.
struct Look {
    /// When the kernel was asked, and what was on its way then.
    at: Instant,
    queued: u32,
    /// When it last had become less by enough to count, and by how much it has since.
    since: Instant,
    n_received: usize,
    again: Pin<Box<Sleep>>,
}

impl Awaited {
    pub(super) fn receipts(&self) -> Receipts {
        self.receipts.clone()
    }

    /// The kernel has everything that was written.
    pub(super) fn written(&mut self) {
        self.written.append(&mut self.receipts.0.lock());
    }

    /// The kernel has taken enough bytes: the client makes progress, however much is on its way.
    pub(super) fn moved(&mut self) {
        self.look.iter_mut().for_each(|it| it.since = Instant::now());
    }

    /// Gives back what waits for bytes that have been received; looks again by itself. Fails when a client has
    /// taken hardly anything for so long.
    pub(super) fn look(
        &mut self,
        cx: &mut Context<'_>,
        socket: &TcpStream,
        patience: Duration,
    ) -> io::Result<()> {
        while !self.written.is_empty() {
            let now = Instant::now();
            // A kernel that does not say is one whose buffers count as received.
            let queued = getsockopt(socket, MemInfo).map_or(0, |it| it[QUEUED]);
            if queued <= LAST_PACKETS {
                self.look = None;
                drop(mem::take(&mut self.written));
                return Ok(());
            }
            let look = self.look.get_or_insert_with(|| Look::new(now, queued));
            if look.again.as_mut().poll(cx).is_pending() {
                return Ok(());
            }
            look.looked(now, queued);
            if now.duration_since(look.since) >= patience {
                let message = format!("the client received {} bytes in {patience:?}", look.n_received);
                return Err(io::Error::new(io::ErrorKind::TimedOut, message));
            }
        }
        Ok(())
    }
}

impl Look {
    fn new(now: Instant, queued: u32) -> Self {
        Self { at: now, queued, since: now, n_received: 0, again: Box::pin(sleep(*PAUSE.start())) }
    }

    /// So much is on its way still: plans the next look.
    fn looked(&mut self, now: Instant, queued: u32) {
        let waited = now.duration_since(self.at);
        let received = self.queued.saturating_sub(queued);
        let pause = match received {
            0 => waited * 2,
            _ => waited.mul_f64(f64::from(queued.saturating_sub(LAST_PACKETS)) / f64::from(received)),
        };
        self.n_received += received as usize;
        if self.n_received >= PROGRESS {
            (self.since, self.n_received) = (now, 0);
        }
        (self.at, self.queued) = (now, queued);
        self.again.as_mut().reset(now + pause.clamp(*PAUSE.start(), *PAUSE.end()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::task::Poll;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpSocket};
    use tokio::sync::oneshot;
    use tokio::sync::oneshot::error::TryRecvError;

    const PATIENCE: Duration = Duration::from_secs(30);

    /// A socket, and a client that receives little before it reads.
    async fn connected() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpSocket::new_v4().unwrap();
        client.set_recv_buffer_size(8 << 10).unwrap();
        let client = client.connect(listener.local_addr().unwrap()).await.unwrap();
        (listener.accept().await.unwrap().0, client)
    }

    async fn look(awaited: &mut Awaited, socket: &TcpStream, patience: Duration) -> io::Result<()> {
        poll_fn(|cx| Poll::Ready(awaited.look(cx, socket, patience))).await
    }

    /// Waits for a client as a connection does, until something ends that, or nothing is kept any more.
    async fn wait(awaited: &mut Awaited, socket: &TcpStream, patience: Duration) -> io::Result<()> {
        poll_fn(|cx| match awaited.look(cx, socket, patience) {
            Ok(()) if !awaited.written.is_empty() => Poll::Pending,
            res => Poll::Ready(res),
        })
        .await
    }

    #[tokio::test]
    async fn what_is_kept_comes_back_when_the_client_has_received_all() {
        const LEN: usize = 256 << 10;
        let (mut socket, mut client) = connected().await;
        let (mut awaited, (kept, mut back)) = (Awaited::default(), oneshot::channel::<()>());
        socket.write_all(&[0; LEN]).await.unwrap();
        awaited.receipts().keep(kept);
        look(&mut awaited, &socket, PATIENCE).await.unwrap();
        awaited.written();
        look(&mut awaited, &socket, PATIENCE).await.unwrap();
        assert_eq!(back.try_recv(), Err(TryRecvError::Empty), "most lies in the kernel");

        let mut bytes = vec![0; LEN];
        let (_, waited) = tokio::join!(client.read_exact(&mut bytes), wait(&mut awaited, &socket, PATIENCE));
        waited.unwrap();
        assert_eq!(back.try_recv(), Err(TryRecvError::Closed));
    }

    #[tokio::test]
    async fn a_client_that_takes_nothing_is_not_waited_for_any_longer() {
        let (mut socket, _client) = connected().await;
        let mut awaited = Awaited::default();
        socket.write_all(&[0; 256 << 10]).await.unwrap();
        awaited.receipts().keep(());
        awaited.written();
        let error = wait(&mut awaited, &socket, Duration::from_millis(20)).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
