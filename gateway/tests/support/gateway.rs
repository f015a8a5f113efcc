//! A real gateway on loopback, and what a node does with it.

use std::net::SocketAddr;
use std::time::Duration;

use http::header::AUTHORIZATION;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use shoal_model::{Authorization, Node, NodeId, Place, Role};
use shoal_ops::Context;
use shoal_ops::settings::Reader;
use shoal_peer::client::{FetchError, PeerClient};
use shoal_proto::gateway_client::GatewayClient;
use shoal_proto::{
    OpenRequest, OpenedBlob, Refusal, RegionRequest, RegionState, RenewReply, RenewRequest, Source,
    Statement, StoreBlob, StoreProgress, StoreRequest, Ticket,
};
use tempfile::TempDir;
use tonic::Status;
use tonic::transport::Channel;

use super::registry::Registry;
use super::{digest, own_address};

/// The name under which the registry is configured.
pub(crate) const NAME: &str = "registry.example";
/// The repository that all content is in.
pub(crate) const REPOSITORY: &str = "prod/app";

/// A gateway before one registry.
pub(crate) struct Gateway {
    pub(crate) url: String,
    /// Of the management API.
    management: SocketAddr,
    ctx: Context,
    grpc: GatewayClient<Channel>,
    peers: PeerClient,
    dir: TempDir,
}

impl Gateway {
    /// Starts a gateway whose registry's entry has these further settings, as YAML.
    pub(crate) async fn start(registry: &Registry, entry: &str) -> Self {
        Self::start_before(&[(NAME, registry, entry)]).await
    }

    /// Starts a gateway before several registries, each with its name and further settings.
    pub(crate) async fn start_before(registries: &[(&str, &Registry, &str)]) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), registries).await
    }

    /// Starts the gateway of another region, which reads the registry by way of `hub`, with these further settings of its
    /// entry.
    pub(crate) async fn start_behind(hub: &Self, entry: &str) -> Self {
        Self::start_region(hub, "eu", entry).await
    }

    /// The same of a region of this name.
    pub(crate) async fn start_region(hub: &Self, region: &str, entry: &str) -> Self {
        let further = format!(
            "hub: {{gateways: ['{}'], region: {region}, security: {{mtls: false}}}}, \
             registries: [{{name: {NAME}, source: hub, {entry}}}]",
            hub.url,
        );
        Self::start_with(tempfile::tempdir().unwrap(), &further).await
    }

    async fn start_in(dir: TempDir, registries: &[(&str, &Registry, &str)]) -> Self {
        let entry = |(name, registry, further): &(&str, &Registry, &str)| {
            format!("{{name: {name}, url: 'http://{}', insecure: true, {further}}}", registry.address)
        };
        let registries = registries.iter().map(entry).collect::<Vec<_>>().join(", ");
        Self::start_with(dir, &format!("registries: [{registries}]")).await
    }

    async fn start_with(dir: TempDir, further: &str) -> Self {
        let management = own_address();
        let user = format!(
            "{{listen: '127.0.0.1:0', management: {{listen: '{management}', requestsPerSecond: 1000}}, security: {{mtls: false}}, \
             storage: {{dir: '{}', freeSpaceFloor: 0}}, node: {{id: gateway-1}}, \
             download: {{pieceSize: 64Ki}}, {further}}}",
            dir.path().display(),
        );
        let reader = Reader::new(&user, shoal_gateway::settings::DEFAULT, |_| None);
        let settings = shoal_gateway::settings::Settings::read(&reader);
        reader.finish().unwrap();
        let ctx = Context::new("gateway", "0");
        let address = shoal_gateway::start(settings, ctx.clone()).await.unwrap();
        let url = format!("http://{address}");
        let grpc = GatewayClient::connect(url.clone()).await.unwrap();
        let peers = PeerClient::new(shoal_identity::Dialer::new(None));
        Self { url, management, ctx, grpc, peers, dir }
    }

    /// Calls the management API with the token that the first start has made.
    pub(crate) async fn call(&self, method: Method, path: &str, body: &Value) -> (StatusCode, Value) {
        let token = std::fs::read_to_string(self.dir.path().join("management-token")).unwrap();
        let request = Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.management))
            .header(AUTHORIZATION, format!("Bearer {}", token.trim()))
            .body(Full::new(bytes::Bytes::from(body.to_string())))
            .unwrap();
        let client = Client::builder(TokioExecutor::new()).build_http();
        let (head, body) = client.request(request).await.unwrap().into_parts();
        (head.status, serde_json::from_slice(&body.collect().await.unwrap().to_bytes()).unwrap_or_default())
    }

    /// Asks for a preheat job; returns its number.
    pub(crate) async fn preheat(&self, body: &Value) -> u64 {
        let (status, job) = self.call(Method::POST, "/api/v1/preheat", body).await;
        assert_eq!(status, StatusCode::ACCEPTED, "{job}");
        job["id"].as_u64().unwrap()
    }

    /// A preheat job once it is like that.
    pub(crate) async fn job_when(&self, id: u64, is_so: impl Fn(&Value) -> bool) -> Value {
        let polling = async {
            loop {
                let job = self.call(Method::GET, &format!("/api/v1/preheat/{id}"), &Value::Null).await.1;
                if is_so(&job) {
                    return job;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), polling).await.expect("the job never is")
    }

    /// The streams by which the gateways of other regions take orders.
    pub(crate) fn orders(&self) -> GatewayClient<Channel> {
        self.grpc.clone()
    }

    /// Ends the process, as far as a test has one, and starts it anew over the same directory.
    pub(crate) async fn restart(self, registry: &Registry, entry: &str) -> Self {
        Self::start_in(self.end().await, &[(NAME, registry, entry)]).await
    }

    /// Ends it, and returns what it told the audit log.
    pub(crate) async fn audit(self) -> Vec<serde_json::Value> {
        let dir = self.end().await;
        let text = std::fs::read_to_string(dir.path().join("audit.jsonl")).unwrap();
        text.lines().map(|it| serde_json::from_str(it).unwrap()).collect()
    }

    async fn end(self) -> TempDir {
        let Self { ctx, grpc, peers, dir, .. } = self;
        drop((grpc, peers));
        let ended = ctx.tasks.shut_down(Duration::from_secs(10)).await;
        assert!(ended.failure.is_none() && ended.cut.is_empty(), "{ended:?}");
        dir
    }

    /// Opens one blob as the caller with this `Authorization`.
    pub(crate) async fn open(
        &self,
        content: &[u8],
        authorization: Option<&str>,
    ) -> Result<OpenedBlob, Refusal> {
        self.open_as("node-1", content, authorization).await
    }

    /// Opens one blob as a caller on this node.
    pub(crate) async fn open_as(
        &self,
        node: &str,
        content: &[u8],
        authorization: Option<&str>,
    ) -> Result<OpenedBlob, Refusal> {
        self.open_from(node, (NAME, REPOSITORY), content, authorization).await
    }

    /// Opens one blob of a registry's repository as a caller on this node.
    pub(crate) async fn open_from(
        &self,
        node: &str,
        (registry, repository): (&str, &str),
        content: &[u8],
        authorization: Option<&str>,
    ) -> Result<OpenedBlob, Refusal> {
        let request = OpenRequest {
            source: Source { registry: registry.to_owned(), repository: repository.to_owned() },
            digests: vec![digest(content)],
            authorization: authorization.map(|it| Authorization::new(it.to_owned())),
            node: named(node),
            traces: Vec::new(),
        };
        let mut replies = self.grpc.clone().open(request).await.unwrap().into_inner();
        let mut reply = replies.message().await.unwrap().unwrap();
        assert_eq!(reply.0.len(), 1);
        assert_eq!(replies.message().await.unwrap(), None);
        reply.0.remove(0).outcome
    }

    /// The region as it is told first.
    pub(crate) async fn region(&self) -> RegionState {
        let request = RegionRequest::default();
        let mut states = self.grpc.clone().region(request).await.unwrap().into_inner();
        states.message().await.unwrap().unwrap()
    }

    /// Watches a blob until it is sealed and all of it held, or dropped; returns whether it came.
    pub(crate) async fn follow(&self, blob: &OpenedBlob) -> bool {
        // Far above what any test takes.
        let patience = Duration::from_secs(30);
        tokio::time::timeout(patience, self.came(blob)).await.expect("neither sealed nor dropped")
    }

    async fn came(&self, blob: &OpenedBlob) -> bool {
        let news = self.peers.watch(&blob.gateway, &blob.key, blob.geometry.n_pieces(), &blob.ticket).await;
        let mut news = news.unwrap();
        let (mut n_held, mut sealed) = (0, false);
        while let Some(it) = news.next().await.unwrap() {
            if it.dropped {
                return false;
            }
            n_held += it.gained.iter().map(|it| it.end - it.start).sum::<u32>();
            sealed |= it.attestations.iter().any(|it| Statement::decode(&it.statement).unwrap().sealed);
            if n_held == blob.geometry.n_pieces() && sealed {
                return true;
            }
        }
        false
    }

    /// Fetches a whole blob as pieces.
    pub(crate) async fn fetch(&self, blob: &OpenedBlob) -> Result<Vec<u8>, FetchError> {
        let whole = 0..blob.geometry.size();
        let mut body = self.peers.fetch(&blob.gateway, &blob.key, whole, &blob.ticket).await?;
        let mut bytes = Vec::new();
        while let Some(chunk) = body.next().await? {
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }

    /// Has it hold an opened blob for pulls to come; returns the end of that once it is told.
    pub(crate) async fn store(&self, blob: &OpenedBlob) -> impl Future<Output = Result<(), String>> {
        let wanted = StoreBlob {
            key: blob.key.clone(),
            geometry: blob.geometry,
            ticket: blob.ticket.clone(),
            ticket_lives: blob.ticket_lives,
            gateway: blob.gateway.clone(),
        };
        let source = Source { registry: NAME.to_owned(), repository: REPOSITORY.to_owned() };
        let request = StoreRequest { source, blobs: vec![wanted], at_once: 1 };
        let mut progress = self.peers.store(&blob.gateway, request).await.unwrap();
        async move {
            loop {
                let StoreProgress(stored) = progress.next().await.unwrap().expect("it tells the end");
                if let Some(end) = stored.into_iter().find_map(|it| it.end) {
                    return end;
                }
            }
        }
    }

    /// Has a ticket renewed.
    pub(crate) async fn renew(&self, blob: &OpenedBlob, ticket: Ticket) -> Result<RenewReply, Status> {
        let request = RenewRequest { key: blob.key.clone(), ticket };
        self.grpc.clone().renew(request).await.map(tonic::Response::into_inner)
    }

    /// Gets something from the mirror endpoint.
    pub(crate) async fn mirror(&self, path: &str, headers: HeaderMap) -> Response<bytes::Bytes> {
        self.ask_mirror(Method::GET, path, headers).await
    }

    /// Asks the mirror endpoint.
    pub(crate) async fn ask_mirror(
        &self,
        method: Method,
        path: &str,
        headers: HeaderMap,
    ) -> Response<bytes::Bytes> {
        let mut request = Request::new(Empty::<bytes::Bytes>::new());
        *request.method_mut() = method;
        *request.uri_mut() = format!("{}{path}", self.url).parse().unwrap();
        *request.headers_mut() = headers;
        let client = Client::builder(TokioExecutor::new()).build_http();
        let (head, body) = client.request(request).await.unwrap().into_parts();
        Response::from_parts(head, body.collect().await.unwrap().to_bytes())
    }

    /// Calls the management API, with the first token or another.
    pub(crate) async fn manage(
        &self,
        method: Method,
        path: &str,
        token: Option<&str>,
        body: &Value,
    ) -> (StatusCode, Value) {
        let first = || std::fs::read_to_string(self.dir.path().join("management-token")).unwrap();
        let token = token.map_or_else(first, str::to_owned);
        let request = Request::builder()
            .method(method)
            .uri(format!("http://{}/api/v1{path}", self.management))
            .header(AUTHORIZATION, format!("Bearer {}", token.trim()))
            .body(Full::new(bytes::Bytes::from(body.to_string())))
            .unwrap();
        let client = Client::builder(TokioExecutor::new()).build_http();
        let answer = client.request(request).await.unwrap();
        let status = answer.status();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&body).unwrap_or_default())
    }

    /// The sum of all metrics whose line has this text.
    pub(crate) fn metric(&self, text: &str) -> u64 {
        let lines = self.ctx.metrics.encode();
        let matching = lines.lines().filter(|it| !it.starts_with('#') && it.contains(text));
        matching.filter_map(|it| it.rsplit(' ').next()?.parse::<u64>().ok()).sum()
    }
}

fn named(id: &str) -> Node {
    Node { id: NodeId::new(id), address: "127.0.0.1:1".into(), role: Role::Sidecar, place: Place::default() }
}

/// A status that a test expects, told with the body where it is another.
#[track_caller]
pub(crate) fn assert_status(answer: &Response<bytes::Bytes>, expected: StatusCode) {
    assert_eq!(answer.status(), expected, "{}", String::from_utf8_lossy(answer.body()));
}
