//! The one port that nodes use: gRPC, pieces and the mirror endpoint, told apart by their paths.
//!
//! Everything but the way to a certificate is for those that have one.

use std::convert::Infallible;
use std::task::{Context, Poll};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use prometheus_client::metrics::counter::Counter;
use shoal_identity::{Caller, Impostor};
use shoal_peer::service::PeerService;
use shoal_proto::certificates_server::CertificatesServer;
use shoal_proto::gateway_server::GatewayServer;
use tonic::Status;
use tonic::body::Body;
use tower::Service;

use crate::grpc::GatewayService;
use crate::issuing::Issuing;
use crate::mirror::Mirror;

const CERTIFICATES: &str = "/shoal.v1.Certificates/";
const GATEWAY: &str = "/shoal.v1.Gateway/";

/// Everything that nodes are served.
#[derive(Clone)]
pub(crate) struct NodePort {
    /// Where this gateway issues certificates.
    pub(crate) certificates: Option<CertificatesServer<Issuing>>,
    pub(crate) gateway: GatewayServer<GatewayService>,
    pub(crate) peers: PeerService,
    pub(crate) mirror: Mirror,
    /// Counts the requests of those that have no certificate.
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
            && let Some(certificates) = &mut self.certificates
        {
            return certificates.call(request);
        }
        if let Err(error) = Caller::of(request.extensions()).and_then(Caller::must_belong) {
            self.strangers.inc();
            let is_grpc = path.starts_with("/shoal.v1.");
            return async move { Ok(unauthenticated(&error, is_grpc)) }.boxed();
        }
        if path.starts_with(GATEWAY) {
            self.gateway.call(request)
        } else if PeerService::owns(path) {
            self.peers.call(request)
        } else if path == "/v2" || path.starts_with("/v2/") {
            let mirror = self.mirror.clone();
            let (request, _) = request.into_parts();
            async move { Ok(mirror.answer(request).await) }.boxed()
        } else {
            async { Ok(not_found()) }.boxed()
        }
    }
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
