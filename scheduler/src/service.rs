//! The gRPC edge: one stream for each node, who may be on it, and who may know who is.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::{Stream, StreamExt, stream};
use http::Extensions;
use prometheus_client::metrics::counter::Counter;
use shoal_identity::{Caller, Dialer, Expected, Role};
use shoal_model::{Node, NodeId};
use shoal_ops::Context;
use shoal_ops::tasks::Tasks;
use shoal_peer::ticket::Verifier;
use shoal_proto::scheduler_server::Scheduler;
use shoal_proto::{
    BlobsReply, BlobsRequest, Hello, NodeMessage, NodesReply, NodesRequest, SchedulerMessage, SwarmReply,
    SwarmRequest, TotalReply, TotalRequest, Want,
};
use tokio::time::timeout;
use tonic::{Request, Response, Status, Streaming};

use crate::board::{Board, Session};

/// After so many wishes without a good ticket a node's stream is ended: each costs the check of a signature.
const MAX_REFUSED: u32 = 1000;
/// How long a node may take to say who it is.
const HELLO: Duration = Duration::from_secs(5);

/// Answers nodes and gateways.
pub(crate) struct Service {
    board: Board,
    door: Door,
    tasks: Tasks,
}

impl Service {
    /// Serves the board until the tasks are stopped.
    pub(crate) const fn new(board: Board, door: Door, tasks: Tasks) -> Self {
        Self { board, door, tasks }
    }
}

/// Knows who is who, and which wishes are granted.
#[derive(Clone)]
pub(crate) struct Door {
    verifier: Arc<Verifier>,
    dialer: Dialer,
    impostors: Counter,
    refused: Counter,
}

impl Door {
    pub(crate) fn new(ctx: &Context, verifier: Arc<Verifier>, dialer: Dialer) -> Self {
        let it = Self { verifier, dialer, impostors: Counter::default(), refused: Counter::default() };
        ctx.metrics.register(|registry| {
            let help = "Streams of nodes that are not who they said";
            registry.register("scheduler_impostors", help, it.impostors.clone());
            let help = "Wishes for a blob without a good ticket for it";
            registry.register("scheduler_refused_wants", help, it.refused.clone());
        });
        it
    }

    /// Whether the sender of a request with these extensions is the node that it says it is, where it says.
    async fn recognise(&self, from: &Extensions, node: &Node) -> Result<(), Status> {
        let recognised = match Caller::of(from).and_then(|it| it.must_be_node(node).map(|()| it)) {
            Ok(caller) if caller.stands_at(&node.address) => Ok(()),
            // Others will be sent there, so it has to be this node that answers.
            Ok(_) => {
                let dialled = self.dialer.dial(&node.address, &Expected::node(node)).await;
                dialled.map(drop).map_err(|it| format!("it does not answer where it says: {it}"))
            }
            Err(impostor) => Err(impostor.to_string()),
        };
        recognised.map_err(|error| {
            self.impostors.inc();
            tracing::warn!(node = %node.id, address = %node.address, error, "not the node that it says");
            Status::permission_denied(format!("join: {error}"))
        })
    }

    /// Whether a message may be heard: a wish for a blob takes a ticket that this node was given.
    fn is_granted(&self, node: &NodeId, message: &NodeMessage) -> bool {
        let NodeMessage::Want(Want { blob, .. }) = message else { return true };
        let checked = self.verifier.check(SystemTime::now(), &blob.ticket, &blob.key);
        let why = match checked {
            Ok(claims) if claims.node == *node => return true,
            Ok(claims) => format!("ticket: was given to {}", claims.node),
            Err(error) => error.to_string(),
        };
        self.refused.inc();
        tracing::debug!(%node, blob = %blob.key, why, "wish without a good ticket");
        false
    }
}

/// Whether the sender of a request with these extensions may know who has joined, and what there is.
fn may_list(what: &str, from: &Extensions) -> Result<(), Status> {
    let asker = Caller::of(from).and_then(|it| it.must_be_one_of(&[Role::Gateway]));
    asker.map_err(|it| Status::permission_denied(format!("{what}: {it}")))
}

#[tonic::async_trait]
impl Scheduler for Service {
    type JoinStream = Pin<Box<dyn Stream<Item = Result<SchedulerMessage, Status>> + Send>>;
    type NodesStream = Pin<Box<dyn Stream<Item = Result<NodesReply, Status>> + Send>>;
    type BlobsStream = Pin<Box<dyn Stream<Item = Result<BlobsReply, Status>> + Send>>;

    async fn nodes(&self, req: Request<NodesRequest>) -> Result<Response<Self::NodesStream>, Status> {
        may_list("nodes", req.extensions())?;
        let nodes = self.board.nodes(req.into_inner()).await;
        let nodes = nodes.map_err(|it| Status::unavailable(it.to_string()))?;
        let replies: Vec<_> = nodes.chunks(NodesReply::MAX).map(|it| Ok(NodesReply(it.to_vec()))).collect();
        Ok(Response::new(Box::pin(stream::iter(replies))))
    }

    async fn blobs(&self, req: Request<BlobsRequest>) -> Result<Response<Self::BlobsStream>, Status> {
        may_list("blobs", req.extensions())?;
        let blobs = self.board.blobs(req.into_inner()).await;
        let blobs = blobs.map_err(|it| Status::unavailable(it.to_string()))?;
        let replies: Vec<_> = blobs.chunks(BlobsReply::MAX).map(|it| Ok(BlobsReply(it.to_vec()))).collect();
        Ok(Response::new(Box::pin(stream::iter(replies))))
    }

    async fn swarm(&self, req: Request<SwarmRequest>) -> Result<Response<SwarmReply>, Status> {
        may_list("swarm", req.extensions())?;
        let SwarmRequest { key, at_most } = req.into_inner();
        let shown = self.board.close_up(key, at_most).await;
        let shown = shown.map_err(|it| Status::unavailable(it.to_string()))?;
        Ok(Response::new(SwarmReply(shown)))
    }

    async fn total(&self, req: Request<TotalRequest>) -> Result<Response<TotalReply>, Status> {
        may_list("total", req.extensions())?;
        Ok(Response::new(self.board.arrived()))
    }

    async fn join(&self, req: Request<Streaming<NodeMessage>>) -> Result<Response<Self::JoinStream>, Status> {
        let (_, from, mut messages) = req.into_parts();
        let first = timeout(HELLO, messages.message()).await;
        let first = first.map_err(|_| Status::deadline_exceeded("join: no Hello came"))??;
        let Some(NodeMessage::Hello(Hello { node, protocol })) = first else {
            return Err(Status::failed_precondition("join: the first message must be Hello"));
        };
        self.door.recognise(&from, &node).await?;
        let listening = Listening { node: node.id.clone(), door: self.door.clone(), messages };
        tracing::info!(node = %node.id, address = %node.address, role = ?node.role, protocol, "node joined");
        let session = self.board.join(node).await;
        let orders = session.orders();
        // Boxed, since each layer around it would keep room for another one, for every node of a fleet.
        let (stopping, listening) = (self.tasks.stopping(), Box::pin(listening.run(session)));
        self.tasks.spawn_infallible("node", async move {
            stopping.run_until_cancelled(listening).await;
        });
        Ok(Response::new(Box::pin(orders.map(Ok))))
    }
}

/// One node's stream.
struct Listening {
    node: NodeId,
    door: Door,
    messages: Streaming<NodeMessage>,
}

impl Listening {
    /// Hands on what the node says, until its stream ends or the board ends the session. The board learns of
    /// the end when `session` is dropped.
    async fn run(mut self, session: Session) {
        let node = self.node.clone();
        let why = tokio::select! {
            why = self.listen(&session) => why,
            () = session.over() => "session over",
        };
        tracing::info!(%node, why, "node left");
    }

    async fn listen(&mut self, session: &Session) -> &'static str {
        let mut n_refused = 0;
        while let Ok(Some(message)) = self.messages.message().await {
            if !self.door.is_granted(&self.node, &message) {
                n_refused += 1;
                if n_refused == 1 {
                    tracing::warn!(node = %self.node, "wishes without a good ticket are not heard");
                }
                if n_refused == MAX_REFUSED {
                    return "too many wishes without a good ticket";
                }
            } else if !session.hear(message).await {
                return "leaving, or the scheduler stops";
            }
        }
        "stream ended"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shoal_identity::{Ca, Clients, Grant, Identity, Keychain, Reception, SpiffeId};
    use shoal_model::{BlobKey, Digest, Place, Role, TrustGroup};
    use shoal_ops::serve::{Limits, Listener};
    use shoal_peer::RegionKeys;
    use shoal_peer::attest::Signer;
    use shoal_peer::ticket::{Issuer, TicketClaims};
    use shoal_proto::{Source, Ticket, WantedBlob};
    use shoal_swarm::Geometry;
    use tonic::service::Routes;

    fn door() -> Door {
        let keys = RegionKeys::parse(&[Signer::new(&[1; 32]).verifying_key()]).unwrap();
        Door::new(&Context::new("test", "0"), Arc::new(Verifier::new(keys)), Dialer::new(None))
    }

    fn key(byte: u8) -> BlobKey {
        BlobKey { group: TrustGroup::new("g"), digest: Digest::from_sha256([byte; 32]) }
    }

    fn source() -> Source {
        Source { registry: "r".into(), repository: "a".into() }
    }

    fn want(key: BlobKey, ticket: Ticket) -> NodeMessage {
        let blob =
            WantedBlob { key, geometry: Geometry::by_rule(1 << 20), source: source(), ticket, trace: None };
        NodeMessage::Want(Want { blob, held: Vec::new(), moved: false })
    }

    fn ticket(key: BlobKey, node: &str, lives: Duration) -> Ticket {
        let now = SystemTime::now();
        let node = NodeId::new(node);
        Issuer::new(&[1; 32]).issue(&TicketClaims {
            source: source(),
            key,
            geometry: None,
            node,
            granted: now,
            expires: now + lives,
        })
    }

    #[test]
    fn a_wish_takes_a_ticket_of_this_node_for_this_blob() {
        let door = door();
        let minute = Duration::from_secs(60);
        let check = |ticket: Ticket, expected| {
            assert_eq!(door.is_granted(&NodeId::new("n"), &want(key(1), ticket)), expected);
        };
        check(ticket(key(1), "n", minute), true);
        check(ticket(key(1), "another", minute), false);
        check(ticket(key(2), "n", minute), false);
        check(ticket(key(1), "n", Duration::ZERO), false);
        check(Ticket("x".into()), false);
        assert_eq!(door.refused.get(), 4);
        assert!(door.is_granted(&NodeId::new("n"), &NodeMessage::Unwant(key(1))));
    }

    #[test]
    fn only_gateways_are_told_who_has_joined_and_what_there_is() {
        for role in shoal_identity::Role::ALL {
            let (node, until) = (NodeId::new("n"), SystemTime::now());
            let identity = Some(Identity { role, node, addresses: Vec::new(), until });
            let caller = Caller { address: [10, 0, 0, 1].into(), identity, is_secured: true };
            let mut from = Extensions::new();
            from.insert(Arc::new(caller));
            assert_eq!(may_list("nodes", &from).is_ok(), role == shoal_identity::Role::Gateway, "{role}");
        }
        assert!(may_list("nodes", &Extensions::new()).is_err());
    }

    #[tokio::test]
    async fn a_node_that_is_another_is_not_let_on() {
        let door = door();
        let caller = Caller {
            address: [10, 0, 0, 1].into(),
            identity: Some(Identity {
                role: shoal_identity::Role::Sidecar,
                node: NodeId::new("n"),
                addresses: Vec::new(),
                until: SystemTime::now(),
            }),
            is_secured: true,
        };
        let mut from = Extensions::new();
        from.insert(Arc::new(caller));
        let node = |id: &str, role| Node {
            id: NodeId::new(id),
            address: "10.0.0.1:1".into(),
            role,
            place: Place::default(),
        };
        assert!(door.recognise(&from, &node("n", Role::Sidecar)).await.is_ok());
        assert!(door.recognise(&from, &node("m", Role::Sidecar)).await.is_err());
        assert!(door.recognise(&from, &node("n", Role::Gateway)).await.is_err());
        assert!(door.recognise(&Extensions::new(), &node("n", Role::Sidecar)).await.is_err());
        assert_eq!(door.impostors.get(), 3);
    }

    #[tokio::test]
    async fn an_address_that_no_certificate_proves_is_dialled() {
        let ca = Ca::create("a".parse().unwrap()).unwrap().0;
        let keychain = |role, node: &str| {
            let id = SpiffeId::new(ca.domain().clone(), role, node).unwrap();
            let lives = Duration::from_secs(3600);
            let grant = Grant { id, addresses: vec![[10, 0, 0, 1].into()], hosts: Vec::new(), lives };
            let keychain = Keychain::empty();
            keychain.replace(ca.own(SystemTime::now(), &grant).unwrap());
            keychain
        };
        let listener = Listener::bind("test", ([127, 0, 0, 1], 0).into()).await.unwrap();
        let address = listener.addr().to_string();
        let reception =
            Reception::new(Some(&keychain(shoal_identity::Role::Sidecar, "n")), Clients::WithCertificate);
        Context::new("test", "0").serve(
            listener.with(reception),
            Routes::default().prepare(),
            Limits::new(4),
        );

        let scheduler = keychain(shoal_identity::Role::Scheduler, "s");
        let door = Door { dialer: Dialer::new(Some(&scheduler)), ..door() };
        let mut from = Extensions::new();
        let caller = |node: &str| Caller {
            address: [10, 0, 0, 1].into(),
            identity: Some(Identity {
                role: shoal_identity::Role::Sidecar,
                node: NodeId::new(node),
                addresses: vec![[10, 0, 0, 1].into()],
                until: SystemTime::now(),
            }),
            is_secured: true,
        };
        for (name, is_there) in [("n", true), ("m", false)] {
            from.insert(Arc::new(caller(name)));
            let node = Node {
                id: NodeId::new(name),
                address: address.as_str().into(),
                role: Role::Sidecar,
                place: Place::default(),
            };
            assert_eq!(door.recognise(&from, &node).await.is_ok(), is_there, "{name}");
        }
    }
}
