//! What nodes and schedulers say to each other.

use shoal_model::{BlobKey, Node};
use shoal_swarm::{Algorithm, Geometry};

use super::{
    Checked, MAX_ITEMS, Wire, each, geometry, need, runs_from_wire, runs_to_wire, source, trace_from_wire,
    trace_to_wire,
};
use crate::messages::{
    BlobProgress, Hello, Lease, Neighbours, NodeMessage, SchedulerMessage, SeedOrder, Source, Ticket, Want,
    WantedBlob,
};
use crate::wire;

impl Wire for NodeMessage {
    type Generated = wire::NodeMessage;

    fn into_wire(self) -> wire::NodeMessage {
        use wire::node_message::Message;
        let message = match self {
            Self::Unknown => return wire::NodeMessage { message: None },
            Self::Hello(it) => {
                Message::Hello(wire::Hello { node: Some(it.node.into_wire()), protocol: it.protocol })
            }
            Self::Want(it) => Message::Want(it.into_wire()),
            Self::Progress(blobs) => Message::Progress(wire::Progress {
                blobs: blobs.into_iter().map(BlobProgress::into_wire).collect(),
            }),
            Self::Unwant(key) => Message::Unwant(wire::Unwant { blob: Some(key.into_wire()) }),
            Self::Stranded(key) => Message::Stranded(wire::Stranded { blob: Some(key.into_wire()) }),
            Self::Leaving => Message::Leaving(wire::Leaving {}),
        };
        wire::NodeMessage { message: Some(message) }
    }

    fn from_wire(it: wire::NodeMessage) -> Checked<Self> {
        use wire::node_message::Message;
        Ok(match it.message {
            Some(Message::Hello(it)) => {
                Self::Hello(Hello { node: need("node", it.node, Node::from_wire)?, protocol: it.protocol })
            }
            Some(Message::Want(it)) => Self::Want(Want::from_wire(it)?),
            Some(Message::Progress(it)) => {
                Self::Progress(each("progress", it.blobs, MAX_ITEMS, BlobProgress::from_wire)?)
            }
            Some(Message::Unwant(it)) => Self::Unwant(need("blob", it.blob, BlobKey::from_wire)?),
            Some(Message::Stranded(it)) => Self::Stranded(need("blob", it.blob, BlobKey::from_wire)?),
            Some(Message::Leaving(_)) => Self::Leaving,
            None => Self::Unknown,
        })
    }
}

impl Wire for Want {
    type Generated = wire::Want;

    fn into_wire(self) -> wire::Want {
        let WantedBlob { key, geometry, source, ticket, trace } = self.blob;
        wire::Want {
            blob: Some(key.into_wire()),
            ticket: ticket.0,
            size: geometry.size(),
            piece_length: geometry.piece_length(),
            held: runs_to_wire(self.held),
            registry: source.registry,
            repository: source.repository,
            moved: self.moved,
            traceparent: trace_to_wire(trace),
        }
    }

    fn from_wire(it: wire::Want) -> Checked<Self> {
        let cut = geometry(it.size, it.piece_length)?;
        let source = source(it.registry, it.repository)?;
        let blob = wanted(it.blob, cut, source, (it.ticket, &it.traceparent))?;
        Ok(Self { blob, held: runs_from_wire(it.held)?, moved: it.moved })
    }
}

impl Wire for BlobProgress {
    type Generated = wire::BlobProgress;

    fn into_wire(self) -> wire::BlobProgress {
        wire::BlobProgress {
            blob: Some(self.key.into_wire()),
            size: self.geometry.size(),
            piece_length: self.geometry.piece_length(),
            gained: runs_to_wire(self.gained),
            dropped: self.dropped,
        }
    }

    fn from_wire(it: wire::BlobProgress) -> Checked<Self> {
        Ok(Self {
            key: need("blob", it.blob, BlobKey::from_wire)?,
            geometry: geometry(it.size, it.piece_length)?,
            dropped: it.dropped,
            gained: runs_from_wire(it.gained)?,
        })
    }
}

impl Wire for SchedulerMessage {
    type Generated = wire::SchedulerMessage;

    fn into_wire(self) -> wire::SchedulerMessage {
        use wire::scheduler_message::Message;
        let message = match self {
            Self::Unknown => return wire::SchedulerMessage { message: None },
            Self::Neighbours(it) => Message::Neighbours(wire::Neighbours {
                blob: Some(it.key.into_wire()),
                near: it.near.into_iter().map(Node::into_wire).collect(),
                far: it.far.into_iter().map(Node::into_wire).collect(),
                algorithm: algorithm_to_wire(it.algorithm).into(),
                gateway: it.gateway.map(Node::into_wire),
            }),
            Self::Lease(it) => Message::Lease(wire::Lease {
                blob: Some(it.key.into_wire()),
                pieces: runs_to_wire(it.pieces),
                from: Some(it.from.into_wire()),
            }),
            Self::GoDirect(key) => Message::GoDirect(wire::GoDirect { blob: Some(key.into_wire()) }),
            Self::Seed(it) => Message::Seed(it.into_wire()),
        };
        wire::SchedulerMessage { message: Some(message) }
    }

    fn from_wire(it: wire::SchedulerMessage) -> Checked<Self> {
        use wire::scheduler_message::Message;
        Ok(match it.message {
            Some(Message::Neighbours(it)) => Self::Neighbours(Neighbours {
                algorithm: algorithm_from_wire(it.algorithm()),
                gateway: it.gateway.map(Node::from_wire).transpose()?,
                key: need("blob", it.blob, BlobKey::from_wire)?,
                near: each("near", it.near, MAX_ITEMS, Node::from_wire)?,
                far: each("far", it.far, MAX_ITEMS, Node::from_wire)?,
            }),
            Some(Message::Lease(it)) => Self::Lease(Lease {
                key: need("blob", it.blob, BlobKey::from_wire)?,
                pieces: runs_from_wire(it.pieces)?,
                from: need("from", it.from, Node::from_wire)?,
            }),
            Some(Message::GoDirect(it)) => Self::GoDirect(need("blob", it.blob, BlobKey::from_wire)?),
            Some(Message::Seed(it)) => Self::Seed(SeedOrder::from_wire(it)?),
            None => Self::Unknown,
        })
    }
}

impl Wire for SeedOrder {
    type Generated = wire::Seed;

    fn into_wire(self) -> wire::Seed {
        let WantedBlob { key, geometry, source, ticket, trace } = self.blob;
        wire::Seed {
            blob: Some(key.into_wire()),
            ticket: ticket.0,
            size: geometry.size(),
            piece_length: geometry.piece_length(),
            registry: source.registry,
            repository: source.repository,
            holders: self.holders.into_iter().map(Node::into_wire).collect(),
            traceparent: trace_to_wire(trace),
        }
    }

    fn from_wire(it: wire::Seed) -> Checked<Self> {
        let cut = geometry(it.size, it.piece_length)?;
        let source = source(it.registry, it.repository)?;
        let blob = wanted(it.blob, cut, source, (it.ticket, &it.traceparent))?;
        Ok(Self { blob, holders: each("holders", it.holders, MAX_ITEMS, Node::from_wire)? })
    }
}

fn wanted(
    blob: Option<wire::Blob>,
    geometry: Geometry,
    source: Source,
    (ticket, trace): (String, &str),
) -> Checked<WantedBlob> {
    let (key, trace) = (need("blob", blob, BlobKey::from_wire)?, trace_from_wire(trace));
    Ok(WantedBlob { key, geometry, source, ticket: Ticket(ticket), trace })
}

const fn algorithm_to_wire(it: Algorithm) -> wire::Algorithm {
    match it {
        Algorithm::Default => wire::Algorithm::Unspecified,
        Algorithm::Ml => wire::Algorithm::Ml,
    }
}

/// One that this build does not know yet is read as unspecified: a node that cannot follow goes by the default.
const fn algorithm_from_wire(it: wire::Algorithm) -> Algorithm {
    match it {
        wire::Algorithm::Unspecified => Algorithm::Default,
        wire::Algorithm::Ml => Algorithm::Ml,
    }
}
