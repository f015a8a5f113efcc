//! Bytes that go from a file to a socket without passing through this process.
//!
//! HTTP is hyper's, and hyper writes what a body gives it: bytes in memory. So a body that has bytes in a file
//! gives a *stand-in*, memory that nobody ever fills or looks at, and leaves the file's name and offset with
//! the connection: a promise. The stand-in passes through hyper untouched, framed and counted like any bytes.
//! When it comes to the socket, its place in memory tells it from bytes that are real, and the kernel sends
//! the file's in its place (`sendfile`), which costs about half of reading and writing them.
//!
//! Promises are kept in the order in which they were made. All of it depends on two things. The writer between
//! body and socket must not copy: true of hyper's HTTP/1.1 over a socket that writes vectors, not of HTTP/2 and
//! not of TLS, so only requests that came in that way carry a [`Sendfile`]. And a body must hand out each
//! stand-in at once. Should either fail, the socket finds a promise that is left over when all is written,
//! and ends the connection rather than send another byte.
//!
//! The file must keep its bytes while they are sent. One that is shorter than promised ends the connection,
//! and so does a disk that fails, as any other write that fails: neither is a signal, as it is for mapped
//! memory. A page that is not in memory blocks the thread; whoever promises looks first.

use std::collections::VecDeque;
use std::fmt;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use http::{Request, Version};
use parking_lot::Mutex;
use tokio::net::TcpStream;

/// The longest promise, in bytes.
const LONGEST: usize = 16 << 20;

/// The memory of all stand-ins. It is never touched, so the kernel never provides it.
static STAND_IN: LazyLock<Bytes> = LazyLock::new(|| vec![0; LONGEST].into());

/// Sends bytes of files over the connection that a request came in by.
#[derive(Clone, Debug, Default)]
pub struct Sendfile(Arc<Mutex<VecDeque<Promise>>>);

/// Whether bytes are still to be sent as they are.
type Still = Box<dyn Fn() -> bool + Send>;

struct Promise {
    file: Arc<File>,
    range: Range<u64>,
    still: Still,
}

impl fmt::Debug for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Promise")
            .field("file", &self.file)
            .field("range", &self.range)
            .finish_non_exhaustive()
    }
}

impl Sendfile {
    /// The longest range that can be promised at once, in bytes.
    pub const LONGEST: u64 = LONGEST as u64;

    /// That of a request's connection, where it has one that can.
    pub fn of<B>(request: &Request<B>) -> Option<Self> {
        // HTTP/2 may come over the same connections, and copies.
        let can = request.version() <= Version::HTTP_11;
        request.extensions().get().filter(|_| can).cloned()
    }

    /// Promises the bytes `range` of `file`, the first [`LONGEST`](Self::LONGEST) if there are more. What is
    /// returned stands in for them, is as long, and has to be the very next data of the response's body.
    ///
    /// A socket may take its time. Each time that it takes some, `still` is asked whether the rest is good; where it
    /// is not, the connection ends.
    pub fn promise(
        &self,
        file: Arc<File>,
        range: Range<u64>,
        still: impl Fn() -> bool + Send + 'static,
    ) -> Bytes {
        let len = range.end.saturating_sub(range.start).min(Self::LONGEST);
        if len > 0 {
            let range = range.start..range.start + len;
            self.0.lock().push_back(Promise { file, range, still: Box::new(still) });
        }
        STAND_IN.slice(..len as usize)
    }

    /// Whether this memory stands in for a file's bytes.
    pub(super) fn is_stand_in(buf: &[u8]) -> bool {
        STAND_IN.as_ptr_range().contains(&buf.as_ptr())
    }

    /// Sends the next promised bytes, at most `len`, as far as the socket takes them now.
    pub(super) fn send(&self, socket: &TcpStream, len: usize) -> io::Result<usize> {
        let mut promises = self.0.lock();
        let Some(Promise { file, range, still }) = promises.front_mut() else {
            return Err(io::Error::other("sendfile: bytes were written that nobody promised"));
        };
        if !still() {
            return Err(io::Error::other("sendfile: what was promised is no longer good"));
        }
        let n_sent = rustix::io::retry_on_intr(|| {
            let mut offset = range.start;
            rustix::fs::sendfile(socket, &**file, Some(&mut offset), len)
        })?;
        if n_sent == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        range.start += n_sent as u64;
        if range.is_empty() {
            promises.pop_front();
        }
        Ok(n_sent)
    }

    /// Fails where a promise is left although everything was written.
    pub(super) fn settled(&self) -> io::Result<()> {
        match self.0.lock().is_empty() {
            true => Ok(()),
            false => Err(io::Error::other("sendfile: promised bytes were copied on their way")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};
    use tokio::net::TcpListener;

    /// A socket that takes bytes, and the one that must not be dropped meanwhile.
    async fn socket() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let socket = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        socket.writable().await.unwrap();
        (socket, listener.accept().await.unwrap().0)
    }

    fn file(content: &[u8]) -> Arc<File> {
        let mut file = tempfile::tempfile().unwrap();
        io::Write::write_all(&mut file, content).unwrap();
        Arc::new(file)
    }

    #[test]
    fn only_stand_ins_are_taken_for_files() {
        let promised = Sendfile::default().promise(file(b"0123456789"), 2..7, || true);
        assert_eq!(promised.len(), 5);
        assert!(Sendfile::is_stand_in(&promised) && Sendfile::is_stand_in(&promised[4..]));
        assert!(!Sendfile::is_stand_in(b"bytes") && !Sendfile::is_stand_in(&[0; 5]));
    }

    #[tokio::test]
    async fn promises_are_kept_in_turn() {
        let (sendfile, (socket, _other)) = (Sendfile::default(), socket().await);
        sendfile.promise(file(b"0123456789"), 2..7, || true);
        sendfile.promise(file(b"abc"), 0..3, || true);
        assert!(sendfile.settled().is_err());
        assert_eq!([4, 1, 3].map(|len| sendfile.send(&socket, len).unwrap()), [4, 1, 3]);
        assert!(sendfile.settled().is_ok());
    }

    #[tokio::test]
    async fn what_cannot_be_kept_is_an_error() {
        let (sendfile, (socket, _other)) = (Sendfile::default(), socket().await);
        assert!(sendfile.send(&socket, 1).is_err());
        sendfile.promise(file(b"short"), 5..9, || true);
        assert_eq!(sendfile.send(&socket, 4).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[tokio::test]
    async fn what_is_no_longer_good_is_not_sent() {
        let (sendfile, (socket, _other)) = (Sendfile::default(), socket().await);
        let is_good = Arc::new(AtomicBool::new(true));
        let still = is_good.clone();
        sendfile.promise(file(b"0123456789"), 2..7, move || still.load(Ordering::Relaxed));
        assert_eq!(sendfile.send(&socket, 3).unwrap(), 3);
        is_good.store(false, Ordering::Relaxed);
        assert!(sendfile.send(&socket, 2).is_err());
        assert!(sendfile.settled().is_err(), "the connection ends");
    }

    #[test]
    fn an_empty_range_promises_nothing() {
        let sendfile = Sendfile::default();
        assert!(sendfile.promise(file(b"abc"), 1..1, || true).is_empty());
        assert!(sendfile.settled().is_ok());
    }
}
