//! A named socket that accepts connections.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::{TcpListener, TcpStream};

use super::handshake::{Handshake, Plain};

/// An address that could not be listened on.
#[derive(Debug, thiserror::Error)]
#[error("listen {name} {addr}: {reason}; {}", advice(reason.kind()))]
pub struct ListenError {
    name: &'static str,
    addr: SocketAddr,
    reason: io::Error,
}

/// A bound socket with the name that logs and metrics know it by.
pub struct Listener {
    name: &'static str,
    addr: SocketAddr,
    socket: TcpListener,
    handshake: Arc<dyn Handshake>,
}

impl Listener {
    /// Binds `addr` (port 0 takes a free port), also while connections of a previous process linger there,
    /// and logs the address it got.
    ///
    /// # Errors
    /// The system's reason, and what to do about it.
    pub async fn bind(name: &'static str, addr: SocketAddr) -> Result<Self, ListenError> {
        let bind = async || {
            let socket = TcpListener::bind(addr).await?;
            Ok((socket.local_addr()?, socket))
        };
        let (addr, socket) = bind().await.map_err(|reason| ListenError { name, addr, reason })?;
        tracing::info!(name, %addr, "listening");
        Ok(Self { name, addr, socket, handshake: Arc::new(Plain) })
    }

    /// The same, with a handshake for each client.
    pub fn with(self, handshake: Arc<dyn Handshake>) -> Self {
        Self { handshake, ..self }
    }

    pub(super) fn handshake(&self) -> Arc<dyn Handshake> {
        self.handshake.clone()
    }

    /// The name given to it.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// The address it is bound to.
    pub const fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub(super) async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        self.socket.accept().await
    }
}

fn advice(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::AddrInUse => "stop the process that has this port or set another one",
        ErrorKind::AddrNotAvailable => "set an address that this machine has",
        ErrorKind::PermissionDenied => "set a port from 1024 up or grant CAP_NET_BIND_SERVICE",
        _ => "check the address that is set",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_taken_port_is_told_with_what_to_do() {
        let first = Listener::bind("mirror", ([127, 0, 0, 1], 0).into()).await.unwrap();
        let error = Listener::bind("mirror", first.addr()).await.err().unwrap();
        let text = error.to_string();
        assert!(text.starts_with(&format!("listen mirror {}: Address already in use", first.addr())));
        assert!(text.ends_with("; stop the process that has this port or set another one"));
    }
}
