//! All nodes of the bench, and what they do together.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use anyhow::{Result, ensure};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use shoal_model::{BlobKey, Digest, Node as Named, NodeId, Place, Rng, Role, TrustGroup};
use shoal_proto::{BlobProgress, NodeMessage, Ticket, Want, WantedBlob};
use shoal_swarm::{Bitmap, Geometry, PieceIndex};

use crate::gateway;
use crate::node::{Node, Told};
use crate::scheduler::{Scheduler, until};

/// Connections that are made at the same time.
const AT_ONCE: usize = 64;
/// Nodes of a rack, and zones that racks are spread over.
const RACK: usize = 40;
const ZONES: usize = 3;
/// Pieces of 1 MiB that a link of 1 Gbit/s brings in between two reports, which are 50 ms apart.
const PER_REPORT: usize = 6;

/// Blobs in one message of a node that tells all it holds.
pub(crate) const PER_MESSAGE: usize = 8;

/// A gateway and its nodes.
pub(crate) struct Fleet {
    gateway: Node,
    nodes: Vec<Node>,
    told: Arc<Told>,
}

/// A blob of 500 MiB, so of 500 pieces.
pub(crate) fn geometry() -> Geometry {
    Geometry::by_rule(500 << 20)
}

/// The key of a blob; their digests are as random as real ones.
pub(crate) fn key(number: u64) -> BlobKey {
    let mut rng = Rng::new(number);
    let words = [(); 4].map(|()| rng.next_u64().to_le_bytes());
    let mut sum = [0; 32];
    sum.iter_mut().zip(words.as_flattened()).for_each(|(to, from)| *to = *from);
    BlobKey { group: TrustGroup::new(&gateway::source().registry), digest: Digest::from_sha256(sum) }
}

/// A node that stands somewhere.
pub(crate) fn named(role: Role, number: usize) -> Named {
    let rack = number / RACK;
    Named {
        id: NodeId::new(&format!("{role:?}-{number:05}").to_lowercase()),
        address: format!("127.0.0.1:{}", 20_000 + number).as_str().into(),
        role,
        place: Place {
            zone: format!("zone-{}", rack % ZONES).as_str().into(),
            rack: format!("rack-{rack:03}").as_str().into(),
        },
    }
}

impl Fleet {
    /// Has so many nodes join.
    pub(crate) async fn join(scheduler: SocketAddr, n_nodes: usize) -> Result<Self> {
        let told = Arc::new(Told::default());
        let join = |role, number: usize| Node::join(scheduler, named(role, number), told.clone());
        let gateway = join(Role::Gateway, 0).await?;
        let nodes = stream::iter(0..n_nodes).map(|it| join(Role::Sidecar, it)).buffered(AT_ONCE);
        Ok(Self { gateway, nodes: nodes.try_collect().await?, told })
    }

    /// The tickets of each node for blobs, as gateways would have given them out.
    pub(crate) fn tickets(&self, keys: &[BlobKey]) -> Vec<Vec<Ticket>> {
        self.nodes.iter().map(|it| gateway::tickets(&it.id, keys)).collect()
    }

    /// Each node wishes each of the blobs, one after the other; waits until all wishes are answered.
    pub(crate) async fn register(&self, keys: &[BlobKey], tickets: Vec<Vec<Ticket>>) -> Result<()> {
        let n_answers = self.told.answers.load(Ordering::Relaxed) + (keys.len() * self.nodes.len()) as u64;
        let mut tickets: Vec<_> = tickets.into_iter().map(Vec::into_iter).collect();
        for key in keys {
            for (node, ticket) in self.nodes.iter().zip(&mut tickets) {
                let Some(ticket) = ticket.next() else { continue };
                let blob = WantedBlob {
                    key: key.clone(),
                    geometry: geometry(),
                    source: gateway::source(),
                    ticket,
                    trace: None,
                };
                node.say(NodeMessage::Want(Want { blob, held: Vec::new(), moved: false })).await?;
            }
        }
        let told = &self.told;
        until("all wishes are answered", async || told.answers.load(Ordering::Relaxed) >= n_answers).await
    }

    /// Every node brings in the whole blob and reports it as nodes do; returns the number of reports. A report
    /// follows when all but the last of each node are taken in, so that none travels with another.
    pub(crate) async fn pull(&self, scheduler: &Scheduler, key: &BlobKey) -> Result<u64> {
        self.gateway.say(progress(key, Bitmap::full(geometry().n_pieces()).runs())).await?;
        let orders: Vec<_> = (0..self.nodes.len() as u64).map(shuffled_pieces).collect();
        let n_before = scheduler.n_heard().await?;
        let mut n_reports = 0;
        for wave in (0..geometry().n_pieces() as usize).step_by(PER_REPORT) {
            scheduler
                .wait_until_heard(n_before + (n_reports as u64).saturating_sub(self.nodes.len() as u64))
                .await?;
            for (node, pieces) in self.nodes.iter().zip(&orders) {
                let gained = &pieces[wave..pieces.len().min(wave + PER_REPORT)];
                node.say(progress(key, runs(gained))).await?;
                n_reports += 1;
            }
        }
        scheduler.wait_until_heard(n_before + n_reports as u64).await?;
        Ok(n_reports as u64)
    }

    /// Every node tells that it holds all of these blobs, as it does when it has joined.
    pub(crate) async fn announce(&self, scheduler: &Scheduler, keys: &[BlobKey]) -> Result<()> {
        let n_heard = scheduler.n_heard().await? + (keys.len() * self.nodes.len()) as u64;
        let whole = |key| blob_progress(key, Bitmap::full(geometry().n_pieces()).runs());
        for node in &self.nodes {
            for keys in keys.chunks(PER_MESSAGE) {
                node.say(NodeMessage::Progress(keys.iter().map(whole).collect())).await?;
            }
        }
        scheduler.wait_until_heard(n_heard).await
    }

    /// Fails where a node was cut off; returns how many orders there were.
    pub(crate) fn n_orders(&self) -> Result<u64> {
        let n_ended = self.told.ended.load(Ordering::Relaxed);
        ensure!(n_ended == 0, "{n_ended} streams have ended");
        Ok(self.told.orders.load(Ordering::Relaxed))
    }
}

fn progress(key: &BlobKey, gained: Vec<Range<PieceIndex>>) -> NodeMessage {
    NodeMessage::Progress(vec![blob_progress(key, gained)])
}

/// What a node newly holds of a blob.
pub(crate) fn blob_progress(key: &BlobKey, gained: Vec<Range<PieceIndex>>) -> BlobProgress {
    BlobProgress { key: key.clone(), geometry: geometry(), dropped: false, gained }
}

/// All pieces in the order in which a node gets them, which is another one for each node.
fn shuffled_pieces(node: u64) -> Vec<PieceIndex> {
    let mut pieces: Vec<_> = (0..geometry().n_pieces()).collect();
    Rng::new(node).shuffle(&mut pieces);
    pieces
}

fn runs(pieces: &[PieceIndex]) -> Vec<Range<PieceIndex>> {
    let mut gained = Bitmap::new(geometry().n_pieces());
    for piece in pieces {
        gained.insert(*piece);
    }
    gained.runs()
}
