//! What people want to see of the tables: which blobs there are, and how many of them each node has.
//!
//! A look takes a shard's time, which nodes wait for. So each is short, and only one waits at a shard: whoever wants to
//! see more looks again, after what nodes have said meanwhile had its turn.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::future::try_join_all;
use shoal_model::{BlobKey, Node, NodeId};
use shoal_proto::{BlobsRequest, Joined, NodesReply};
use shoal_swarm::table::{CloseUp, Found, Sought, Standing, Table};
use tokio::sync::oneshot;

use super::{Seat, Shard, Shards};

/// The shards work no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the scheduler is stopping")]
pub(crate) struct Stopped;

/// One look at one table. Where nobody waits for the answer any more, it is lost.
pub(super) enum Look {
    Blobs { sought: Sought, at_most: usize, found: oneshot::Sender<Found> },
    Counts { nodes: Vec<NodeId>, counts: oneshot::Sender<Vec<u32>> },
    Members { of: BlobKey, members: oneshot::Sender<Vec<NodeId>> },
    CloseUp { of: BlobKey, at_most: usize, shown: oneshot::Sender<Option<CloseUp<Node>>> },
}

impl Look {
    pub(super) fn at(self, table: &Table, seats: &BTreeMap<NodeId, Arc<Seat>>) {
        match self {
            Self::Blobs { sought, at_most, found } => drop(found.send(table.look(&sought, at_most))),
            Self::Counts { nodes, counts } => {
                let n_blobs = nodes.iter().map(|it| table.n_blobs_of(it).unwrap_or_default());
                drop(counts.send(n_blobs.collect()));
            }
            Self::Members { of, members } => drop(members.send(table.members(&of))),
            Self::CloseUp { of, at_most, shown } => {
                let close_up = table.close_up(&of, at_most);
                // Whoever is in the table has a seat.
                let seated = |it: &NodeId| seats.get(it).map(|it| it.node.clone());
                drop(shown.send(close_up.and_then(|it| it.told(seated))));
            }
        }
    }
}

impl Shards {
    /// How the blobs stand that are asked for, in the order of their keys.
    pub(super) async fn look(&self, asked: BlobsRequest) -> Result<Vec<Standing>, Stopped> {
        let of_each = try_join_all(self.0.iter().map(|it| it.look(asked.clone()))).await?;
        let mut standings = of_each.concat();
        standings.sort_by(|one, other| one.key.cmp(&other.key));
        standings.truncate(asked.at_most);
        Ok(standings)
    }

    /// Those who hold something of a blob or want it.
    pub(super) async fn members(&self, of: BlobKey) -> Result<BTreeSet<NodeId>, Stopped> {
        let (members, answer) = oneshot::channel();
        self.shard(self.index(&of)).ask(Look::Members { of, members }).await?;
        Ok(answer.await.map_err(|_| Stopped)?.into_iter().collect())
    }

    /// One blob closely.
    pub(super) async fn close_up(
        &self,
        of: BlobKey,
        at_most: usize,
    ) -> Result<Option<CloseUp<Node>>, Stopped> {
        let (shown, answer) = oneshot::channel();
        self.shard(self.index(&of)).ask(Look::CloseUp { of, at_most, shown }).await?;
        answer.await.map_err(|_| Stopped)
    }

    /// Of how many blobs each of these nodes holds something or wants it.
    pub(super) async fn count(&self, nodes: Vec<Node>) -> Result<Vec<Joined>, Stopped> {
        let mut joined = Vec::with_capacity(nodes.len());
        for nodes in nodes.chunks(NodesReply::MAX) {
            let of_each = try_join_all(self.0.iter().map(|it| it.count(nodes))).await?;
            let n_blobs = |at: usize| of_each.iter().filter_map(|it| it.get(at)).sum();
            let counted = nodes.iter().enumerate();
            joined
                .extend(counted.map(|(at, node)| Joined { node: node.clone(), n_blobs: Some(n_blobs(at)) }));
        }
        Ok(joined)
    }
}

impl Shard {
    async fn look(
        &self,
        BlobsRequest { mut sought, at_most }: BlobsRequest,
    ) -> Result<Vec<Standing>, Stopped> {
        let mut standings = Vec::new();
        loop {
            let (found, answer) = oneshot::channel();
            let n_left = at_most.saturating_sub(standings.len());
            self.ask(Look::Blobs { sought: sought.clone(), at_most: n_left, found }).await?;
            let Found { standings: more, left_at } = answer.await.map_err(|_| Stopped)?;
            standings.extend(more);
            match left_at {
                Some(_) if standings.len() >= at_most => return Ok(standings),
                Some(key) => sought.after = Some(key),
                None => return Ok(standings),
            }
        }
    }

    async fn count(&self, nodes: &[Node]) -> Result<Vec<u32>, Stopped> {
        let (counts, answer) = oneshot::channel();
        let nodes = nodes.iter().map(|it| it.id.clone()).collect();
        self.ask(Look::Counts { nodes, counts }).await?;
        answer.await.map_err(|_| Stopped)
    }

    async fn ask(&self, look: Look) -> Result<(), Stopped> {
        self.looks.send(look).await.map_err(|_| Stopped)
    }
}
