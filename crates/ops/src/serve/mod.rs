//! Serves HTTP on a listener until told to stop.
//!
//! HTTP/1.1 and prior-knowledge HTTP/2 share one port. An accept loop that ends takes the service with it, so
//! nothing ends it but the stop signal: an error (no file descriptors left, a client that went away) is logged
//! and waited out. Every resource that a client can hold has a bound: see [`Limits`]. When the cap of
//! connections is reached, the one whose client has let it rest the longest gives way to a new one (see [`room`]); while
//! none rests, new ones wait in the kernel's queue. Metrics count both.
//!
//! On the stop signal no more are accepted, each connection finishes the requests it has, and [`serve`] ends
//! with the last of them; the group's grace bounds that. Dropping the future cuts all connections.

mod connection;
mod handshake;
mod listener;
mod metrics;
mod receipts;
mod requests;
mod room;
mod sendfile;
mod socket;

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use prometheus_client::metrics::counter::Counter;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::Service;

pub use handshake::{Handshake, Introduction};
pub use listener::{ListenError, Listener};
pub use metrics::ServeMetrics;
pub use receipts::Receipts;
pub use sendfile::Sendfile;

use connection::Connections;
use room::{Rest, Room};
use socket::Socket;

/// How often it is looked whether some connection rests by now, while somebody waits for a place.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How many bytes of responses TLS may hold for a socket: as many as a frame of a piece has, so that it is
/// encrypted in one go. With the 64 KiB that rustls allows by itself, serving costs a tenth more.
const TLS_BUFFER: usize = 256 << 10;

/// Any error of a service or of a response body.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// What a service must be to be served: one clone of it answers each request.
///
/// A request carries the client's address as axum's `ConnectInfo<SocketAddr>`, and what the listener's
/// [`Handshake`] found out. Its connection's [`Receipts`] keep what has to last until the client has the response. One
/// that came over plain HTTP/1.1 may be answered with bytes of files: see [`Sendfile`].
pub trait HttpService:
    Service<Request<Incoming>, Response = Response<Self::Body>, Error: Into<BoxError>, Future: Send + 'static>
    + Clone
    + Send
    + 'static
{
    /// The response body.
    type Body: Body<Data: Send, Error: Into<BoxError>> + Send + 'static;
}

impl<S, B> HttpService for S
where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
    B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    type Body = B;
}

/// How much of each resource the clients of a listener can hold.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections at once.
    pub connections: usize,
    /// Requests at once on one HTTP/2 connection.
    pub streams: u32,
    /// Bytes of a request's head, at least 8192; more is answered with 431.
    pub header_bytes: usize,
    /// How long a new connection may take to bring its first request.
    pub first_request: Duration,
    /// How long a connection may be kept open between two requests.
    pub idle: Duration,
    /// How long a client may take to the next bytes of a response, and no less than 16 KiB, while more are there.
    pub stall: Duration,
}

impl Limits {
    /// Limits for clients that pull images, with room for long registry tokens in the headers.
    pub const fn new(connections: usize) -> Self {
        Self {
            connections,
            streams: 256,
            header_bytes: 64 << 10,
            first_request: Duration::from_secs(10),
            // Longer than Go's clients keep idle connections (90 s), so that it is they who close them and
            // no request meets a connection that is just going away.
            idle: Duration::from_secs(120),
            stall: Duration::from_secs(300),
        }
    }
}

/// Serves `service` on `listener` until `stopping` and until the last connection has ended.
pub async fn serve<S: HttpService>(
    listener: Listener,
    service: S,
    limits: Limits,
    metrics: &ServeMetrics,
    stopping: CancellationToken,
) {
    let gauges = metrics.of(listener.name());
    let mut room = Room::new(limits.connections);
    let connections = Connections::new(service, limits, stopping.clone());
    // For whom there is no place yet.
    let mut waiting = None;
    let mut n_failures = 0;
    loop {
        tokio::select! {
            biased;
            () = stopping.cancelled() => break,
            Some(()) = room.ended() => {}
            accepted = listener.accept(), if waiting.is_none() => match accepted {
                Ok((stream, client)) => {
                    n_failures = 0;
                    waiting = Some(Accepted { stream, client, handshake: listener.handshake() });
                }
                Err(error) => {
                    n_failures += 1;
                    tracing::warn!(listener = listener.name(), %error, n_failures, "accept failed");
                    stopping.run_until_cancelled(sleep(back_off(n_failures))).await;
                }
            },
            () = sleep(LOOK_EVERY), if waiting.is_some() => {}
        }
        if room.is_full() && waiting.is_some() && room.make() {
            gauges.cut.inc();
        } else if let Some(accepted) = waiting.take_if(|_| !room.is_full()) {
            let rest = Rest::default();
            room.open(rest.clone(), run(connections.clone(), accepted, rest, gauges.refused.clone()));
            if room.is_full() {
                gauges.full.inc();
            }
        }
        gauges.open.set(room.len() as i64);
    }
    // Closed before the wait, so that new clients are refused at once and go elsewhere.
    drop(listener);
    while room.ended().await.is_some() {
        gauges.open.set(room.len() as i64);
    }
}

/// A connection before its handshake.
struct Accepted {
    stream: TcpStream,
    client: SocketAddr,
    handshake: Arc<dyn Handshake>,
}

/// One accepted connection, from its handshake to its end.
async fn run<S: HttpService>(connections: Connections<S>, accepted: Accepted, rest: Rest, refused: Counter) {
    let client = accepted.client;
    if let Err(error) = shake(connections, accepted, rest, refused).await {
        // Clients come and go; a connection's end is news for somebody who looks for it only.
        tracing::debug!(%client, error = &*error, "connection ended early");
    }
}

/// What runs a connection is boxed: here it would take room for each kind of stream, in every connection.
async fn shake<S: HttpService>(
    connections: Connections<S>,
    Accepted { stream, client, handshake }: Accepted,
    Rest { requests, blocked }: Rest,
    refused: Counter,
) -> Result<(), BoxError> {
    let limits = connections.limits();
    let socket = Socket::new(stream, limits.stall, blocked)?;
    let receipts = socket.receipts();
    let Some(tls) = handshake.tls() else {
        let mut introduction = handshake.introduce(client, None);
        introduction.extensions.insert(receipts);
        introduction.extensions.insert(socket.sendfile());
        return Box::pin(connections.run(socket, client, requests, introduction)).await;
    };
    let accept = TlsAcceptor::from(tls).accept_with(socket, |it| it.set_buffer_limit(Some(TLS_BUFFER)));
    let shaken = timeout(limits.first_request, accept).await;
    let stream = shaken.map_err(BoxError::from).and_then(|it| Ok(it?)).inspect_err(|_| {
        refused.inc();
    })?;
    let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let mut introduction = handshake.introduce(client, certificate);
    introduction.extensions.insert(receipts);
    Box::pin(connections.run(stream, client, requests, introduction)).await
}

/// How long to wait after so many failures to accept in a row.
fn back_off(n_failures: u32) -> Duration {
    const FIRST: Duration = Duration::from_millis(5);
    const LONGEST: Duration = Duration::from_secs(1);
    let doubled = 2u32.saturating_pow(n_failures.saturating_sub(1));
    FIRST.saturating_mul(doubled).min(LONGEST)
}

#[cfg(test)]
mod tests;
