//! Simulated nodes: each has a certificate of its own, keeps the connection and the region stream that a
//! sidecar keeps, and asks as a sidecar does.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, anyhow};
use futures_util::future::try_join_all;
use futures_util::stream::{self, TryStreamExt as _};
use shoal_identity::{Ca, Dialer, Grant, Keychain, Role, SpiffeId, TrustDomain};
use shoal_model::{Digest, Node, NodeId, Place};
use shoal_peer::RegionKeys;
use shoal_peer::region::Region;
use shoal_peer::ticket::Verifier;
use shoal_proto::{OpenRequest, Source};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

/// How many connect at the same time: a handshake has a second, and both ends share this machine.
const CONNECTING: usize = 32;
/// How many nodes pull at the same time.
const PULLING: usize = 21;
/// How many layers a node asks for at the same time: as many as containerd fetches if nobody tells it otherwise.
const AT_ONCE: usize = 3;
/// How long a gateway may take to answer a node.
const PATIENCE: Duration = Duration::from_secs(30);

/// Nodes that are connected.
pub(super) struct Nodes {
    nodes: Vec<SimulatedNode>,
    _keepers: JoinSet<()>,
}

struct SimulatedNode {
    region: Region,
    node: Node,
}

impl Nodes {
    /// Connects so many nodes to the gateway, whose certificate authority lies in `ca`.
    pub(super) async fn connect(n_nodes: usize, gateway: &str, ca: &Path) -> Result<Self> {
        let domain: TrustDomain = "shoal.local".parse().context("the trust domain by default")?;
        let ca = Ca::read(domain, &ca.join("ca.pem"), &ca.join("ca.key"))?;
        let verifier = Arc::new(Verifier::new(RegionKeys::default()));
        let mut keepers = JoinSet::new();
        let connecting = (0..n_nodes).map(|number| {
            let node = node(number);
            let dialer = Dialer::new(Some(&certified(&ca, &node.id)?));
            let (region, keeper) = Region::new(vec![gateway.to_owned()], dialer, verifier.clone());
            Ok((SimulatedNode { region, node }, keeper))
        });
        let nodes = stream::iter(connecting)
            .map_ok(|(node, keeper)| {
                keepers.spawn(keeper.run(Default::default()));
                async move {
                    timeout(PATIENCE, node.region.answered()).await?;
                    anyhow::Ok(node)
                }
            })
            .try_buffer_unordered(CONNECTING)
            .try_collect()
            .await
            .context("not all nodes were let in")?;
        Ok(Self { nodes, _keepers: keepers })
    }

    /// Has the nodes, one after the other, open all blobs until the time is over; how many were opened.
    pub(super) async fn open(&self, source: &Source, digests: &[Digest], lasts: Duration) -> Result<u64> {
        let (end, turn, opened) = (Instant::now() + lasts, AtomicUsize::new(0), AtomicU64::new(0));
        let pulling = (0..PULLING).map(async |_| {
            while Instant::now() < end {
                let node = &self.nodes[turn.fetch_add(1, Ordering::Relaxed) % self.nodes.len()];
                for some in digests.chunks(AT_ONCE) {
                    try_join_all(some.iter().map(|it| node.open(source, *it))).await?;
                    opened.fetch_add(some.len() as u64, Ordering::Relaxed);
                }
            }
            anyhow::Ok(())
        });
        try_join_all(pulling).await?;
        Ok(opened.into_inner())
    }
}

impl SimulatedNode {
    async fn open(&self, source: &Source, digest: Digest) -> Result<()> {
        let request = OpenRequest {
            source: source.clone(),
            digests: vec![digest],
            authorization: None,
            node: self.node.clone(),
            traces: Vec::new(),
        };
        let mut gateway = self.region.gateway().context("the gateway is away")?;
        let mut replies = timeout(PATIENCE, gateway.calls.open(request)).await??.into_inner();
        let reply = timeout(PATIENCE, replies.message()).await??;
        let opened = reply.and_then(|mut it| it.0.pop()).context("the gateway answered for no blob")?;
        opened.outcome.map_err(|it| anyhow!("{digest}: refused with {}", it.status))?;
        Ok(())
    }
}

fn node(number: usize) -> Node {
    Node {
        id: NodeId::new(&format!("bench-{number}")),
        address: "127.0.0.1:65002".into(),
        role: shoal_model::Role::Sidecar,
        place: Place::default(),
    }
}

fn certified(ca: &Ca, node: &NodeId) -> Result<Keychain> {
    let grant = Grant {
        id: SpiffeId::new(ca.domain().clone(), Role::Sidecar, node.as_str())?,
        addresses: Vec::new(),
        hosts: Vec::new(),
        lives: Duration::from_secs(24 * 60 * 60),
    };
    let keychain = Keychain::empty();
    keychain.replace(ca.own(SystemTime::now(), &grant)?);
    Ok(keychain)
}
