//! The reference: the same bytes over a socket with nothing around them.
//!
//! A thread reads a file in steps of the piece server's size and writes them to a socket, or to a rustls
//! stream on it with the very settings of the product. The client says first how many bytes it wants.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection, StreamOwned};

/// How many bytes are moved per call.
const STEP: usize = 256 << 10;
/// How long either side waits for the other's next byte.
const PATIENCE: Duration = Duration::from_secs(30);

/// Serves the bytes of `content`, over and over, to one client after the other until the process ends.
pub(crate) fn serve(content: File, tls: Option<Arc<ServerConfig>>) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        for socket in listener.incoming() {
            if let Err(error) = socket.and_then(|it| answer(&content, it, tls.as_ref())) {
                eprintln!("reference server: {error}");
            }
        }
    });
    Ok(address)
}

/// Asks for `n_bytes` and drops them as they come.
pub(crate) fn fetch(address: SocketAddr, tls: Option<Arc<ClientConfig>>, n_bytes: u64) -> io::Result<()> {
    let socket = prepared(TcpStream::connect(address)?)?;
    match tls {
        None => receive(socket, n_bytes),
        Some(tls) => {
            let name = ServerName::IpAddress(address.ip().into());
            let session = ClientConnection::new(tls, name).map_err(io::Error::other)?;
            receive(StreamOwned::new(session, socket), n_bytes)
        }
    }
}

fn answer(content: &File, socket: TcpStream, tls: Option<&Arc<ServerConfig>>) -> io::Result<()> {
    let socket = prepared(socket)?;
    match tls {
        None => send(content, socket),
        Some(tls) => {
            let session = ServerConnection::new(tls.clone()).map_err(io::Error::other)?;
            send(content, StreamOwned::new(session, socket))
        }
    }
}

fn prepared(socket: TcpStream) -> io::Result<TcpStream> {
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    Ok(socket)
}

fn send(content: &File, mut stream: impl Read + Write) -> io::Result<()> {
    let mut asked = [0; 8];
    stream.read_exact(&mut asked)?;
    let (mut missing, size) = (u64::from_be_bytes(asked), content.metadata()?.len());
    let (mut buffer, mut at) = (vec![0; STEP], 0);
    while missing > 0 {
        content.read_exact_at(&mut buffer, at)?;
        stream.write_all(&buffer)?;
        missing = missing.saturating_sub(STEP as u64);
        at = (at + STEP as u64) % size;
    }
    stream.flush()
}

fn receive(mut stream: impl Read + Write, n_bytes: u64) -> io::Result<()> {
    stream.write_all(&n_bytes.to_be_bytes())?;
    let (mut buffer, mut missing) = (vec![0; STEP], n_bytes);
    while missing > 0 {
        match stream.read(&mut buffer)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            len => missing = missing.saturating_sub(len as u64),
        }
    }
    Ok(())
}
