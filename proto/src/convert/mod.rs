//! Between this crate's types and the generated ones.
//!
//! Into the wire nothing can fail. From the wire everything is checked: lengths, intervals, counts,
//! geometry. What an older or newer build left out or added is tolerated as protobuf intends.

mod certificates;
mod fleet;
mod gateway;
mod jobs;
mod peer;
mod regional;
mod remove;
mod scheduler;
mod store;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use shoal_model::{BlobKey, Digest, Node, NodeId, Place, Role, TraceParent, TrustGroup};
use shoal_swarm::Geometry;
use shoal_swarm::geometry::MAX_PIECES;

use crate::messages::{
    Attestation, BlobNews, BlobsReply, BlobsRequest, IssueReply, IssueRequest, JobReply, JobRequest,
    JobsNews, JobsRequest, NodeMessage, NodesReply, NodesRequest, OpenReply, OpenRequest, RegionRequest,
    RegionState, RegionalNews, RegionalOrders, RemoveReply, RemoveRequest, RenewReply, RenewRequest,
    SchedulerMessage, Source, Statement, StoreProgress, StoreRequest, SwarmReply, SwarmRequest, TotalReply,
    TotalRequest, WatchRequest,
};
use crate::wire;

/// Why a received message makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// A message lacks a part that it cannot do without.
    #[error("message: {0} is missing")]
    Missing(&'static str),
    /// A field has a value that is not allowed.
    #[error("message: {field} is {seen}, allowed is {allowed}")]
    Field {
        /// The field.
        field: &'static str,
        /// The value or length seen.
        seen: String,
        /// What would have been right.
        allowed: &'static str,
    },
    /// Bytes that are no protobuf of this type.
    #[error("message: {0}")]
    Encoding(String),
}

type Checked<T> = Result<T, Malformed>;

/// A type of this crate with its generated counterpart.
pub(crate) trait Wire: Sized + Send + 'static {
    type Generated: Message + Default;
    fn into_wire(self) -> Self::Generated;
    fn from_wire(it: Self::Generated) -> Checked<Self>;
}

/// Every message as it is outside of streams: attestations and statements are signed and kept on disk that way,
/// and a fuzzer gives any bytes for any of them.
macro_rules! bytes_form {
    ($($own:ty),* $(,)?) => {$(
        impl $own {
            /// The protobuf bytes.
            pub fn encode(self) -> Bytes {
                self.into_wire().encode_to_vec().into()
            }

            /// Reads protobuf bytes and checks them.
            pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
                let wire = Message::decode(bytes).map_err(|it| Malformed::Encoding(it.to_string()))?;
                Self::from_wire(wire)
            }
        }
    )*};
}

bytes_form!(
    Attestation,
    BlobNews,
    BlobsReply,
    BlobsRequest,
    IssueReply,
    IssueRequest,
    JobReply,
    JobRequest,
    JobsNews,
    JobsRequest,
    NodeMessage,
    NodesReply,
    NodesRequest,
    OpenReply,
    OpenRequest,
    RegionRequest,
    RegionState,
    RegionalNews,
    RegionalOrders,
    RemoveReply,
    RemoveRequest,
    RenewReply,
    RenewRequest,
    SchedulerMessage,
    Statement,
    StoreProgress,
    StoreRequest,
    SwarmReply,
    SwarmRequest,
    TotalReply,
    TotalRequest,
    WatchRequest,
);

/// The most nodes, attestations or blobs in one message; what is more is a mistake or an attack.
const MAX_ITEMS: usize = 4096;
/// The most runs of pieces in one message: no more than half the pieces of the largest blob.
const MAX_RUNS: usize = (MAX_PIECES / 2) as usize;

fn millis(it: Duration) -> u64 {
    u64::try_from(it.as_millis()).unwrap_or(u64::MAX)
}

fn wrong(field: &'static str, seen: impl ToString, allowed: &'static str) -> Malformed {
    Malformed::Field { field, seen: seen.to_string(), allowed }
}

fn capped<T>(field: &'static str, items: Vec<T>, cap: usize) -> Checked<Vec<T>> {
    if items.len() > cap { Err(wrong(field, format!("{} items", items.len()), "fewer")) } else { Ok(items) }
}

fn each<W, T>(
    field: &'static str,
    items: Vec<W>,
    cap: usize,
    from: impl FnMut(W) -> Checked<T>,
) -> Checked<Vec<T>> {
    capped(field, items, cap)?.into_iter().map(from).collect()
}

fn need<W, T>(what: &'static str, it: Option<W>, from: impl FnOnce(W) -> Checked<T>) -> Checked<T> {
    it.ok_or(Malformed::Missing(what)).and_then(from)
}

fn array<const N: usize>(field: &'static str, bytes: &[u8]) -> Checked<[u8; N]> {
    bytes.try_into().map_err(|_| wrong(field, format!("{} bytes", bytes.len()), "a fixed length"))
}

fn name(field: &'static str, text: String) -> Checked<String> {
    match text.len() {
        1..=512 => Ok(text),
        length => Err(wrong(field, format!("{length} bytes"), "1 to 512")),
    }
}

/// Bytes of a length up to `most`.
fn document(field: &'static str, bytes: Bytes, most: usize) -> Checked<Bytes> {
    match bytes.len() {
        length if length > most => Err(wrong(field, format!("{length} bytes"), "fewer")),
        _ => Ok(bytes),
    }
}

fn digest(bytes: &[u8]) -> Checked<Digest> {
    array("sha256", bytes).map(Digest::from_sha256)
}

fn geometry(size: u64, piece_length: u64) -> Checked<Geometry> {
    Geometry::stated(size, piece_length).ok_or_else(|| {
        wrong("piece_length", format!("{piece_length} for {size} bytes"), "above 0, at most 1048576 pieces")
    })
}

fn trace_to_wire(trace: Option<TraceParent>) -> String {
    trace.map(|it| it.to_string()).unwrap_or_default()
}

/// What is no place in a trace is nowhere: a message means the same without.
fn trace_from_wire(text: &str) -> Option<TraceParent> {
    text.parse().ok()
}

fn runs_to_wire(runs: Vec<Range<u32>>) -> Vec<wire::PieceRun> {
    runs.into_iter()
        .map(|it| wire::PieceRun { first: it.start, count: it.end.saturating_sub(it.start) })
        .collect()
}

/// Runs must ascend, be apart from each other and lie within the largest blob, so that whoever walks them
/// takes at most as many steps as that has pieces.
fn runs_from_wire(runs: Vec<wire::PieceRun>) -> Checked<Vec<Range<u32>>> {
    let mut next = 0;
    each("runs", runs, MAX_RUNS, |it| {
        let end = it.first.checked_add(it.count).filter(|end| u64::from(*end) <= MAX_PIECES);
        let end = end.filter(|end| it.first >= next && *end > it.first);
        let end = end
            .ok_or_else(|| wrong("run", format!("{}+{}", it.first, it.count), "ascending, within a blob"))?;
        next = end;
        Ok(it.first..end)
    })
}

impl Wire for BlobKey {
    type Generated = wire::Blob;

    fn into_wire(self) -> wire::Blob {
        wire::Blob {
            trust_group: self.group.as_str().to_owned(),
            sha256: Bytes::copy_from_slice(self.digest.as_bytes()),
        }
    }

    fn from_wire(it: wire::Blob) -> Checked<Self> {
        Ok(Self {
            group: TrustGroup::new(&name("trust_group", it.trust_group)?),
            digest: digest(&it.sha256)?,
        })
    }
}

impl Wire for Node {
    type Generated = wire::Node;

    fn into_wire(self) -> wire::Node {
        let role = match self.role {
            Role::Sidecar => wire::Role::Sidecar,
            Role::Gateway => wire::Role::Gateway,
        };
        wire::Node {
            id: self.id.as_str().to_owned(),
            address: self.address.to_string(),
            role: role.into(),
            zone: self.place.zone.to_string(),
            rack: self.place.rack.to_string(),
        }
    }

    fn from_wire(it: wire::Node) -> Checked<Self> {
        let role = match it.role() {
            wire::Role::Sidecar => Role::Sidecar,
            wire::Role::Gateway => Role::Gateway,
            wire::Role::Unspecified => return Err(wrong("role", it.role, "sidecar or gateway")),
        };
        let place = Place { zone: it.zone.as_str().into(), rack: it.rack.as_str().into() };
        Ok(Self {
            id: NodeId::new(&name("node id", it.id)?),
            address: name("node address", it.address)?.as_str().into(),
            role,
            place,
        })
    }
}

fn source(registry: String, repository: String) -> Checked<Source> {
    Ok(Source { registry: name("registry", registry)?, repository: name("repository", repository)? })
}
