//! The connections to one registry and to where it sends us.
//!
//! There are two sets of them. The registry itself is shown a client certificate where there is one; no other
//! server is. Both are made from files that an operator replaces while the process runs: connections that are
//! open stay as they are, and new ones are made from what was last read and found good.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::ClientConfig;
use url::Url;

use crate::error::{ErrorKind, diagnose};
use crate::redirect::NamedHosts;
use crate::resolve::JudgingResolver;
use crate::tls::{Configs, Files};
use crate::{Endpoint, EndpointError};

const CONNECT: Duration = Duration::from_secs(5);
const IDLE: Duration = Duration::from_secs(60);
const MAX_IDLE_PER_HOST: usize = 32;

type Connections = Client<HttpsConnector<HttpConnector<JudgingResolver>>, Empty<Bytes>>;

/// Sends single requests, without following anything.
pub(crate) struct Transport {
    endpoint: Arc<Endpoint>,
    named: NamedHosts,
    current: RwLock<Current>,
}

struct Current {
    files: Files,
    own: Connections,
    elsewhere: Connections,
}

impl Transport {
    /// Reads the endpoint's files, connects nowhere.
    pub(crate) fn new(endpoint: Arc<Endpoint>, named: NamedHosts) -> Result<Self, EndpointError> {
        let current = current(&endpoint, &named, Files::read(&endpoint)?)?;
        Ok(Self { endpoint, named, current: RwLock::new(current) })
    }

    /// Reads the files again; returns whether they differ from before.
    pub(crate) fn reload(&self) -> Result<bool, EndpointError> {
        let files = Files::read(&self.endpoint)?;
        if self.current.read().unwrap_or_else(PoisonError::into_inner).files == files {
            return Ok(false);
        }
        let current = current(&self.endpoint, &self.named, files)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = current;
        Ok(true)
    }

    /// Sends one request to `target`, which its URI is.
    pub(crate) async fn ask(
        &self,
        target: &Url,
        request: Request<Empty<Bytes>>,
    ) -> Result<Response<Incoming>, (ErrorKind, String)> {
        let connections = self.towards(target);
        connections.request(request).await.map_err(|error| {
            let otherwise = if error.is_connect() { ErrorKind::Connect } else { ErrorKind::Protocol };
            diagnose(&error, otherwise)
        })
    }

    fn towards(&self, target: &Url) -> Connections {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        let is_own = target.origin() == self.endpoint.url.origin();
        if is_own { current.own.clone() } else { current.elsewhere.clone() }
    }
}

fn current(endpoint: &Endpoint, named: &NamedHosts, files: Files) -> Result<Current, EndpointError> {
    let Configs { own, elsewhere } = Configs::new(endpoint, &files)?;
    Ok(Current { files, own: connections(own, named), elsewhere: connections(elsewhere, named) })
}

fn connections(tls: ClientConfig, named: &NamedHosts) -> Connections {
    let mut tcp = HttpConnector::new_with_resolver(JudgingResolver::new(named.clone()));
    tcp.enforce_http(false);
    tcp.set_connect_timeout(Some(CONNECT));
    tcp.set_nodelay(true);
    let connector = hyper_rustls::HttpsConnectorBuilder::new()
        .with_tls_config(tls)
        .https_or_http()
        .enable_http1()
        .wrap_connector(tcp);
    Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE)
        .pool_max_idle_per_host(MAX_IDLE_PER_HOST)
        .build(connector)
}
