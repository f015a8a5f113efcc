//! Runs one connection from its first byte to its last, whatever stream it comes over.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::extract::ConnectInfo;
use http::{Request, Version};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::handshake::Introduction;
use super::requests::{Counted, InFlight, Requests};
use super::{BoxError, HttpService, Limits};
use crate::wall_clock::wait_until;

/// A silent HTTP/2 client is asked whether it is still there this often, and given this long to answer.
const PING: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(10));

/// How long a quiet connection has to say goodbye when it is told to close.
const GOODBYE: Duration = Duration::from_secs(1);

/// How long the requests of a client may take to end when its welcome has ended.
const FAREWELL: Duration = Duration::from_secs(10);

/// What all connections of a listener have in common.
#[derive(Clone)]
pub(super) struct Connections<S> {
    service: S,
    http: Arc<Builder<TokioExecutor>>,
    limits: Limits,
    stopping: CancellationToken,
}

impl<S: HttpService> Connections<S> {
    pub(super) fn new(service: S, limits: Limits, stopping: CancellationToken) -> Self {
        Self { service, http: Arc::new(http(&limits)), limits, stopping }
    }

    pub(super) const fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Serves the requests that come over `io` until the client goes, is quiet for too long, or all must stop.
    /// A client whose welcome ends has a moment to finish, and is cut.
    pub(super) async fn run<I>(
        self,
        io: I,
        client: SocketAddr,
        requests: Requests,
        introduction: Introduction,
    ) -> Result<(), BoxError>
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Self { service, http, limits, stopping } = self;
        let counted = requests.clone();
        let Introduction { extensions, until } = introduction;
        let service = service_fn(move |mut req| {
            req.extensions_mut().extend(extensions.clone());
            answer(service.clone(), req, client, counted.begin())
        });
        let mut connection = pin!(http.serve_connection(TokioIo::new(io), service));
        tokio::select! {
            res = connection.as_mut() => return res,
            () = stopping.cancelled() => {}
            () = requests.quiet_for(limits.first_request, limits.idle) => {}
            () = requests.left_for(limits.stall) => {
                return Err(format!("the client took no byte of a response for {:?}", limits.stall).into());
            }
            () = passed(until) => {
                connection.as_mut().graceful_shutdown();
                return timeout(FAREWELL, connection).await.unwrap_or(Ok(()));
            }
        }
        connection.as_mut().graceful_shutdown();
        tokio::select! {
            res = connection => res,
            // Nothing is in flight, so nothing is lost by cutting a client that does not go.
            () = requests.quiet_for(GOODBYE, GOODBYE) => Ok(()),
        }
    }
}

/// Waits until a time of day, for ever where there is none.
async fn passed(until: Option<SystemTime>) {
    match until {
        Some(until) => wait_until(until).await,
        None => std::future::pending().await,
    }
}

/// Hands one request to the service and keeps count of it.
fn answer<S: HttpService>(
    service: S,
    mut req: Request<Incoming>,
    client: SocketAddr,
    in_flight: InFlight,
) -> impl Future<Output = Result<http::Response<Counted<S::Body>>, S::Error>> + Send + 'static {
    req.extensions_mut().insert(ConnectInfo(client));
    // What HTTP/1.1 hands over goes to the socket, which sees every byte of it go.
    let is_watched = req.version() == Version::HTTP_2;
    let response = service.oneshot(req);
    async move {
        let response = response.await?;
        Ok(response.map(|body| Counted::new(body, in_flight, is_watched)))
    }
}

fn http(limits: &Limits) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .max_buf_size(limits.header_bytes)
        // The quiet time bounds heads as well, and unlike this timer also counts before the first byte.
        .header_read_timeout(None);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING.0)
        .keep_alive_timeout(PING.1)
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(u32::try_from(limits.header_bytes).unwrap_or(u32::MAX));
    builder
}
