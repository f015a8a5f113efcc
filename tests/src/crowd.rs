//! Crowds: more clients than anybody would start one by one.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use crate::host::Host;

/// How long one of them may take to connect.
const DEADLINE: Duration = Duration::from_secs(30);
/// So many of them connect at the same time.
const AT_ONCE: usize = 64;

/// Lets this process open as many files as the administrator allows.
pub fn raise_open_files() -> Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?)
}

impl Host {
    /// Opens many connections from this machine, each of which takes in so many bytes before it is read: about twice
    /// as many; where that is not said, what the kernel thinks best.
    pub async fn connect_many(
        &self,
        to: SocketAddr,
        n_connections: usize,
        receive_buffer: Option<u32>,
    ) -> Result<Vec<TcpStream>> {
        let open = || {
            let socket = TcpSocket::new_v4()?;
            receive_buffer.map_or(Ok(()), |size| socket.set_recv_buffer_size(size))?;
            Ok(socket)
        };
        let sockets = self.within(|| (0..n_connections).map(|_| open()).collect::<io::Result<Vec<_>>>())?;
        let connecting = stream::iter(sockets)
            .map(async |socket| anyhow::Ok(timeout(DEADLINE, socket.connect(to)).await??));
        connecting.buffered(AT_ONCE).try_collect().await
    }

    /// Opens connections from this machine and closes them at once, for as long as it is kept.
    pub fn flood(&self, to: SocketAddr) -> Flood {
        let (host, n) = (self.clone(), Arc::new(AtomicU64::new(0)));
        let counted = Arc::clone(&n);
        let flooding = tokio::spawn(async move {
            loop {
                // Where it is not let in any more, it goes on all the same.
                let opened = host.connect_many(to, AT_ONCE, None).await.unwrap_or_default();
                counted.fetch_add(opened.len() as u64, Ordering::Relaxed);
                for (number, stream) in opened.iter().enumerate() {
                    // Few say anything before they close, and in good order: such a port is not free for a minute.
                    let _its_own_affair = match number % 8 {
                        0 => stream.try_write(b"GET / HTTP/1.1\r\n").map(drop),
                        _ => stream.set_zero_linger(),
                    };
                }
            }
        });
        Flood { n, _flooding: AbortOnDropHandle::new(flooding) }
    }
}

/// A flood of connections. Dropping it ends it.
#[derive(Debug)]
pub struct Flood {
    n: Arc<AtomicU64>,
    _flooding: AbortOnDropHandle<()>,
}

impl Flood {
    /// How many connections there have been.
    pub fn n_connections(&self) -> u64 {
        self.n.load(Ordering::Relaxed)
    }
}
