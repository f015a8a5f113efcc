//! HTTP servers of this process, with their sockets inside a host's network; with TLS where that is wanted. As the
//! product's own, they speak HTTP/1.1 and prior-knowledge HTTP/2 at one port.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustls::ServerConfig;
use socket2::{SockRef, Socket};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::AbortOnDropHandle;

use crate::host::Host;
use crate::sent::{Noting, SentLog};

/// An answer's body.
pub(crate) type Body = UnsyncBoxBody<Bytes, anyhow::Error>;

/// What answers the requests of a [`Server`].
pub(crate) trait Answer: Send + Sync + 'static {
    /// Answers one request. `socket` is a second handle of its connection, by which an answer can choose how
    /// that ends.
    fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
        socket: Arc<Socket>,
    ) -> impl Future<Output = Response<Body>> + Send;
}

/// A body that is there already.
pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// A running server. Dropping it closes its connections.
#[derive(Debug)]
pub(crate) struct Server {
    _accepting: AbortOnDropHandle<()>,
}

impl Server {
    /// Serves at `port` of a host.
    pub(crate) fn start(
        host: &Host,
        port: u16,
        tls: Option<Arc<ServerConfig>>,
        answers: Arc<impl Answer>,
    ) -> io::Result<Self> {
        Self::start_noting(host, port, tls, answers, SentLog::default())
    }

    /// The same, and notes what it sends.
    pub(crate) fn start_noting(
        host: &Host,
        port: u16,
        tls: Option<Arc<ServerConfig>>,
        answers: Arc<impl Answer>,
        sent: SentLog,
    ) -> io::Result<Self> {
        let accepting = accept(host.listen(port)?, tls.map(TlsAcceptor::from), answers, sent);
        Ok(Self { _accepting: AbortOnDropHandle::new(tokio::spawn(accepting)) })
    }
}

async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, answers: Arc<impl Answer>, sent: SentLog) {
    // Connections belong to the accept loop, so that they end with it.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Ok((stream, _)) = listener.accept() => {
                connections.spawn(connection(stream, tls.clone(), Arc::clone(&answers), sent.clone()));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection(
    stream: TcpStream,
    tls: Option<TlsAcceptor>,
    answers: Arc<impl Answer>,
    sent: SentLog,
) -> anyhow::Result<()> {
    // A second handle of the socket outlives what hyper owns, so that an answer can choose the ending.
    let socket = Arc::new(SockRef::from(&stream).try_clone()?);
    socket.set_tcp_nodelay(true)?;
    let stream = Noting::new(stream, sent);
    match tls {
        Some(tls) => serve(tls.accept(stream).await?, socket, answers).await,
        None => serve(stream, socket, answers).await,
    }
}

async fn serve<S>(stream: S, socket: Arc<Socket>, answers: Arc<impl Answer>) -> anyhow::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(|request| {
        let (answers, socket) = (Arc::clone(&answers), Arc::clone(&socket));
        async move { Ok::<_, Infallible>(answers.answer(request, socket).await) }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new());
    builder.serve_connection(TokioIo::new(stream), service).await.map_err(anyhow::Error::from_boxed)
}
