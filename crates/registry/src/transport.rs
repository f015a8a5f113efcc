//! The connections to one registry and to where it sends us.
//!
//! There are three sets of them. The registry itself is shown a client certificate where there is one; no
//! other server is, and neither is the registry in somebody else's name. What may be connected to depends on
//! who leads there, so what is led to from outside has a set of its own. All are made from files that an
//! operator replaces while the process runs: connections that are open stay as they are, and new ones are
//! made from what was last read and found good.

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

use crate::error::{ErrorKind, diagnose};
use crate::network::Network;
use crate::redirect::NamedHosts;
use crate::resolve::JudgingResolver;
use crate::tls::{Configs, Files};
use crate::{Endpoint, EndpointError};

const CONNECT: Duration = Duration::from_secs(5);
const IDLE: Duration = Duration::from_secs(60);
const MAX_IDLE_PER_HOST: usize = 32;
/// What is taken from a metered connection at once, in bytes. The kernel gives a connection from which much is taken at
/// once, however seldom, large buffers; these the registry would fill beyond what was asked for.
const SIP: usize = 32 << 10;

type Connections = Client<HttpsConnector<HttpConnector<JudgingResolver>>, Empty<Bytes>>;

/// Sends single requests, without following anything.
pub(crate) struct Transport {
    endpoint: Arc<Endpoint>,
    named: NamedHosts,
    current: RwLock<Current>,
}

struct Current {
    files: Files,
    identified: Connections,
    from_inside: Connections,
    from_outside: Connections,
}

/// Which connections a request takes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Way {
    /// To the registry itself, which is shown the client certificate.
    Identified,
    /// Where somebody in this network leads to, without a certificate.
    LedFrom(Network),
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

    /// Sends one request to where its URI says.
    pub(crate) async fn ask(
        &self,
        way: Way,
        request: Request<Empty<Bytes>>,
    ) -> Result<Response<Incoming>, (ErrorKind, String)> {
        let connections = self.connections(way);
        connections.request(request).await.map_err(|error| {
            let otherwise = if error.is_connect() { ErrorKind::Connect } else { ErrorKind::Protocol };
            diagnose(&error, otherwise)
        })
    }

    fn connections(&self, way: Way) -> Connections {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        match way {
            Way::Identified => current.identified.clone(),
            Way::LedFrom(Network::Public) => current.from_outside.clone(),
            Way::LedFrom(Network::Private | Network::Inner) => current.from_inside.clone(),
        }
    }
}

fn current(endpoint: &Endpoint, named: &NamedHosts, files: Files) -> Result<Current, EndpointError> {
    let Configs { identified, anonymous } = Configs::new(endpoint, &files)?;
    Ok(Current {
        files,
        identified: connections(endpoint, identified, named, Network::Private),
        from_inside: connections(endpoint, anonymous.clone(), named, Network::Private),
        from_outside: connections(endpoint, anonymous, named, Network::Public),
    })
}

fn connections(endpoint: &Endpoint, tls: ClientConfig, named: &NamedHosts, from: Network) -> Connections {
    let mut tcp = HttpConnector::new_with_resolver(JudgingResolver::new(named.clone(), from));
    tcp.enforce_http(false);
    tcp.set_connect_timeout(Some(CONNECT));
    tcp.set_nodelay(true);
    let connector = hyper_rustls::HttpsConnectorBuilder::new()
        .with_tls_config(tls)
        .https_or_http()
        .enable_http1()
        .wrap_connector(tcp);
    let mut client = Client::builder(TokioExecutor::new());
    if endpoint.is_metered {
        client.http1_read_buf_exact_size(SIP);
    }
    client
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE)
        .pool_max_idle_per_host(MAX_IDLE_PER_HOST)
        .build(connector)
}
