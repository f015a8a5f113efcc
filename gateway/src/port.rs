//! The one port that nodes use: gRPC, pieces and the mirror endpoint, told apart by their paths.
//!
//! Everything but the way to a certificate is for those that have one.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use prometheus_client::metrics::counter::Counter;
use shoal_identity::{Caller, Impostor, Role};
use shoal_peer::service::PeerService;
use shoal_proto::certificates_server::CertificatesServer;
use shoal_proto::gateway_server::GatewayServer;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tonic::Status;
use tonic::body::Body;
use tower::Service;

use crate::grpc::GatewayService;
use crate::issuing::Issuing;
use crate::mirror::Mirror;

const CERTIFICATES: &str = "/shoal.v1.Certificates/";
const GATEWAY: &str = "/shoal.v1.Gateway/";
const REGION: &str = "/shoal.v1.Gateway/Region";
/// What gateways ask of each other, and nodes have no part in.
const FOR_GATEWAYS: [&str; 3] =
    ["/shoal.v1.Gateway/Jobs", "/shoal.v1.Gateway/Job", "/shoal.v1.Gateway/Total"];
const ATTEND: &str = "/shoal.v1.Gateway/Attend";

/// How many may ask for certificates at the same time: anybody who reaches the port may.
pub(crate) const MAX_JOINING: usize = 64;
/// How long one of them may take, from its first byte to its answer.
const JOINING: Duration = Duration::from_secs(8);

/// Everything that nodes are served.
#[derive(Clone)]
pub(crate) struct NodePort {
    /// Where this gateway issues certificates.
    pub(crate) certificates: Option<CertificatesServer<Issuing>>,
    pub(crate) gateway: GatewayServer<GatewayService>,
    pub(crate) peers: PeerService,
    pub(crate) mirror: Mirror,
    /// Places for those that ask for one.
    pub(crate) joining: Arc<Semaphore>,
    /// Counts the requests of those that have no certificate for them.
    pub(crate) strangers: Counter,
}

impl Service<Request<Incoming>> for NodePort {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Incoming>) -> Self::Future {
        let path = request.uri().path();
        if path.starts_with(CERTIFICATES)
            && let Some(certificates) = &self.certificates
        {
            return issue(certificates.clone(), self.joining.clone(), request).boxed();
        }
        let is_mirror = path == "/v2" || path.starts_with("/v2/");
        let roles = match path {
            // A scheduler hears of the region, and gets no content and nothing that leads to it.
            REGION => &Role::ALL[..],
            _ if FOR_GATEWAYS.contains(&path) => &[Role::Gateway],
            ATTEND => &[Role::Region],
            // Another region reads registries, and takes no part in anything else.
            _ if is_mirror => &[Role::Gateway, Role::Sidecar, Role::Region],
            _ => &[Role::Gateway, Role::Sidecar],
        };
        if let Err(error) = Caller::of(request.extensions()).and_then(|it| it.must_be_one_of(roles)) {
            self.strangers.inc();
            let is_grpc = path.starts_with("/shoal.v1.");
            return async move { Ok(unauthenticated(&error, is_grpc)) }.boxed();
        }
        if path.starts_with(GATEWAY) {
            self.gateway.call(request)
        } else if PeerService::owns(path) {
            self.peers.call(request)
        } else if is_mirror {
            let mirror = self.mirror.clone();
            let (request, _) = request.into_parts();
            async move { Ok(mirror.answer(request).await) }.boxed()
        } else {
            async { Ok(not_found()) }.boxed()
        }
    }
}

/// Answers somebody who may be anybody, and who gets a place and some time and no more.
async fn issue(
    mut certificates: CertificatesServer<Issuing>,
    joining: Arc<Semaphore>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let Ok(_place) = joining.try_acquire() else {
        return Ok(Status::resource_exhausted("certificates: too many ask at once").into_http());
    };
    let late = |_| Ok(Status::deadline_exceeded("certificates: the request took too long").into_http());
    timeout(JOINING, certificates.call(request)).await.unwrap_or_else(late)
}

fn not_found() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NOT_FOUND;
    response
}

fn unauthenticated(error: &Impostor, is_grpc: bool) -> Response<Body> {
    if is_grpc {
        return Status::unauthenticated(error.to_string()).into_http();
    }
    let mut response = Response::new(Body::new(Full::from(format!("{error}\n"))));
    *response.status_mut() = StatusCode::UNAUTHORIZED;
    response
}
