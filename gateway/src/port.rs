//! The one port that nodes use: gRPC, pieces and the mirror endpoint, told apart by their paths.

use std::convert::Infallible;
use std::task::{Context, Poll};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use shoal_peer::service::PeerService;
use shoal_proto::gateway_server::GatewayServer;
use tonic::body::Body;
use tower::Service;

use crate::grpc::GatewayService;
use crate::mirror::Mirror;

const GATEWAY: &str = "/shoal.v1.Gateway/";

/// Everything that nodes are served.
#[derive(Clone)]
pub(crate) struct NodePort {
    pub(crate) gateway: GatewayServer<GatewayService>,
    pub(crate) peers: PeerService,
    pub(crate) mirror: Mirror,
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
