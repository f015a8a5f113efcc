//! HTTP from a host of the lab: a client of this process whose connections start inside the host's network.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Body;
use hyper_util::client::legacy;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::host::Host;

const ANSWER_DEADLINE: Duration = Duration::from_secs(60);

/// A pooling HTTP/1.1 client (no TLS) that connects from one host.
pub type Client<B> = legacy::Client<Connector, B>;

/// Opens the client's connections inside the host's network, by address or by a host name of the lab.
#[derive(Clone, Debug)]
pub struct Connector(pub(crate) Host);

impl tower::Service<Uri> for Connector {
    type Response = TokioIo<TcpStream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let host = self.0.clone();
        Box::pin(async move {
            let name = uri.host().ok_or_else(|| io::Error::other(format!("{uri}: names no host")))?;
            let to = (host.resolve(name)?, uri.port_u16().unwrap_or(80)).into();
            host.connect(to).await.map(TokioIo::new)
        })
    }
}

impl Host {
    /// A client whose connections start on this machine.
    pub fn client<B>(&self) -> Client<B>
    where
        B: Body + Send,
        B::Data: Send,
    {
        legacy::Client::builder(TokioExecutor::new()).build(Connector(self.clone()))
    }

    /// Sends one request from this machine and reads the whole answer, whatever its status.
    pub async fn send(&self, request: Request<Full<Bytes>>) -> Result<Response<Bytes>> {
        let subject = format!("{} {} from {}", request.method(), request.uri(), self.name());
        let exchange = async {
            let (head, body) = self.client().request(request).await?.into_parts();
            let body = body.collect().await?.to_bytes();
            anyhow::Ok(Response::from_parts(head, body))
        };
        timeout(ANSWER_DEADLINE, exchange)
            .await
            .with_context(|| format!("{subject}: no whole answer within {ANSWER_DEADLINE:?}"))?
            .context(subject)
    }

    /// Sends `GET` for a URL; see [`Host::send`].
    pub async fn get(&self, url: &str) -> Result<Response<Bytes>> {
        self.send(Request::get(url).body(Full::default())?).await
    }
}
