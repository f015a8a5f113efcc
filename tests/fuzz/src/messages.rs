//! gRPC messages: whatever is taken makes sense, and is the same when it is sent on; whatever makes no sense is
//! refused with a bounded text.

use std::fmt::Debug;
use std::ops::Range;

use bytes::Bytes;
use shoal_proto::{
    Attestation, BlobNews, BlobsReply, BlobsRequest, IssueReply, IssueRequest, JobReply, JobRequest,
    JobsNews, JobsRequest, Malformed, NodeMessage, NodesReply, NodesRequest, OpenReply, OpenRequest, Refusal,
    RegionRequest, RegionState, RegionalNews, RegionalOrders, Removal, RemoveReply, RemoveRequest,
    RenewReply, RenewRequest, SchedulerMessage, Statement, StoreProgress, StoreRequest, Stored, SwarmReply,
    SwarmRequest, TotalReply, TotalRequest, WatchRequest,
};
use shoal_swarm::geometry::MAX_PIECES;
use shoal_swarm::{Geometry, PieceIndex};

use crate::input::choices;
use crate::{Check, contract};

/// Every message that is sent, and those that are signed.
const MESSAGES: [(&str, Check); 32] = [
    ("Attestation", |it| round_trip(it, Attestation::decode, Attestation::encode, |_| {})),
    ("BlobNews", |it| round_trip(it, BlobNews::decode, BlobNews::encode, told)),
    ("IssueReply", |it| round_trip(it, IssueReply::decode, IssueReply::encode, |_| {})),
    ("IssueRequest", |it| round_trip(it, IssueRequest::decode, IssueRequest::encode, |_| {})),
    ("NodeMessage", |it| round_trip(it, NodeMessage::decode, NodeMessage::encode, said)),
    ("OpenReply", |it| round_trip(it, OpenReply::decode, OpenReply::encode, opened)),
    ("OpenRequest", |it| round_trip(it, OpenRequest::decode, OpenRequest::encode, |_| {})),
    ("RegionRequest", |it| round_trip(it, RegionRequest::decode, RegionRequest::encode, |_| {})),
    ("RegionState", |it| round_trip(it, RegionState::decode, RegionState::encode, |_| {})),
    ("RenewReply", |it| round_trip(it, RenewReply::decode, RenewReply::encode, |_| {})),
    ("RenewRequest", |it| round_trip(it, RenewRequest::decode, RenewRequest::encode, |_| {})),
    ("SchedulerMessage", |it| round_trip(it, SchedulerMessage::decode, SchedulerMessage::encode, ordered)),
    ("Statement", |it| round_trip(it, Statement::decode, Statement::encode, stated)),
    ("WatchRequest", |it| round_trip(it, WatchRequest::decode, WatchRequest::encode, |_| {})),
    // Behind the others, whose numbers the corpus knows.
    ("NodesReply", |it| round_trip(it, NodesReply::decode, NodesReply::encode, |_| {})),
    ("NodesRequest", |it| round_trip(it, NodesRequest::decode, NodesRequest::encode, |_| {})),
    ("StoreProgress", |it| round_trip(it, StoreProgress::decode, StoreProgress::encode, stored)),
    ("StoreRequest", |it| round_trip(it, StoreRequest::decode, StoreRequest::encode, to_store)),
    ("BlobsReply", |it| round_trip(it, BlobsReply::decode, BlobsReply::encode, listed)),
    ("BlobsRequest", |it| round_trip(it, BlobsRequest::decode, BlobsRequest::encode, sought)),
    ("RemoveReply", |it| round_trip(it, RemoveReply::decode, RemoveReply::encode, removed)),
    ("RemoveRequest", |it| round_trip(it, RemoveRequest::decode, RemoveRequest::encode, to_remove)),
    ("JobReply", |it| round_trip(it, JobReply::decode, JobReply::encode, |_| {})),
    ("JobRequest", |it| round_trip(it, JobRequest::decode, JobRequest::encode, |_| {})),
    ("JobsNews", |it| round_trip(it, JobsNews::decode, JobsNews::encode, |_| {})),
    ("JobsRequest", |it| round_trip(it, JobsRequest::decode, JobsRequest::encode, |_| {})),
    ("RegionalNews", |it| round_trip(it, RegionalNews::decode, RegionalNews::encode, |_| {})),
    ("RegionalOrders", |it| round_trip(it, RegionalOrders::decode, RegionalOrders::encode, |_| {})),
    ("SwarmReply", |it| round_trip(it, SwarmReply::decode, SwarmReply::encode, closely)),
    ("SwarmRequest", |it| round_trip(it, SwarmRequest::decode, SwarmRequest::encode, |_| {})),
    ("TotalReply", |it| round_trip(it, TotalReply::decode, TotalReply::encode, |_| {})),
    ("TotalRequest", |it| round_trip(it, TotalRequest::decode, TotalRequest::encode, |_| {})),
];

/// Takes a byte that says which message, then the message, or choices for one.
pub fn check(data: &[u8]) {
    let Some((kind, bytes)) = data.split_first() else { return };
    let Some((name, check)) = MESSAGES.get(usize::from(*kind)) else { return };
    match choices(bytes) {
        None => check(bytes),
        Some(mut u) => {
            if let Ok(bytes) = contract::message(&mut u, name) {
                check(&bytes);
            }
        }
    }
}

fn round_trip<T: Clone + Debug + PartialEq>(
    bytes: &[u8],
    decode: fn(&[u8]) -> Result<T, Malformed>,
    encode: fn(T) -> Bytes,
    holds: fn(&T),
) {
    match decode(bytes) {
        Ok(message) => {
            holds(&message);
            assert_eq!(decode(&encode(message.clone())), Ok(message));
        }
        Err(error) => assert!(error.to_string().len() < 1024, "{error}"),
    }
}

fn told(news: &BlobNews) {
    runs(&news.lost);
    runs(&news.gained);
}

fn said(message: &NodeMessage) {
    match message {
        NodeMessage::Want(it) => {
            cut(&it.blob.geometry);
            runs(&it.held);
        }
        NodeMessage::Progress(blobs) => blobs.iter().for_each(|it| {
            cut(&it.geometry);
            runs(&it.gained);
        }),
        NodeMessage::Hello(_)
        | NodeMessage::Unwant(_)
        | NodeMessage::Stranded(_)
        | NodeMessage::Leaving
        | NodeMessage::Unknown => {}
    }
}

fn ordered(message: &SchedulerMessage) {
    match message {
        SchedulerMessage::Lease(it) => runs(&it.pieces),
        SchedulerMessage::Seed(it) => cut(&it.blob.geometry),
        SchedulerMessage::Neighbours(_) | SchedulerMessage::GoDirect(_) | SchedulerMessage::Unknown => {}
    }
}

fn opened(reply: &OpenReply) {
    assert!(reply.0.len() <= OpenRequest::MAX_DIGESTS);
    for opened in &reply.0 {
        match &opened.outcome {
            Ok(blob) => cut(&blob.geometry),
            Err(it) => assert!((400..600).contains(&it.status) && it.body.len() <= Refusal::MAX_BODY),
        }
    }
}

fn stored(it: &StoreProgress) {
    for Stored { index, end, .. } in &it.0 {
        assert!(*index < StoreRequest::MAX_BLOBS);
        assert!(!matches!(end, Some(Err(it)) if it.len() > Stored::MAX_CAUSE));
    }
}

fn to_store(it: &StoreRequest) {
    assert!(it.blobs.len() <= StoreRequest::MAX_BLOBS);
    it.blobs.iter().for_each(|it| cut(&it.geometry));
}

fn listed(it: &BlobsReply) {
    assert!(it.0.len() <= BlobsReply::MAX);
    it.0.iter().for_each(|it| cut(&it.geometry));
}

fn closely(it: &SwarmReply) {
    let Some(it) = &it.0 else { return };
    cut(&it.standing.geometry);
    assert!(it.members.len() <= SwarmRequest::MAX);
    let places = it.members.iter().flat_map(|it| &it.neighbours);
    assert!(places.into_iter().all(|place| (*place as usize) < it.members.len()));
}

fn sought(it: &BlobsRequest) {
    assert!((1..=BlobsRequest::MAX).contains(&it.at_most));
    assert!(it.sought.among.len() <= BlobsRequest::MAX);
}

fn removed(it: &RemoveReply) {
    assert!(it.0.len() <= RemoveRequest::MAX);
    let is_long = |it: &Removal| matches!(it, Removal::Failed(why) if why.len() > Removal::MAX_CAUSE);
    assert!(!it.0.iter().any(is_long));
}

fn to_remove(it: &RemoveRequest) {
    assert!(it.0.len() <= RemoveRequest::MAX);
}

fn stated(it: &Statement) {
    cut(&it.geometry);
    let (end, n_pieces) = (u64::from(it.first) + it.digests.len() as u64, it.geometry.n_pieces());
    assert!(end <= u64::from(n_pieces));
    assert!(!it.sealed || (it.first == 0 && it.digests.len() == n_pieces as usize));
}

/// Whoever walks the runs takes no more steps than the largest blob has pieces.
fn runs(runs: &[Range<PieceIndex>]) {
    assert!(runs.iter().all(|it| it.start < it.end && u64::from(it.end) <= MAX_PIECES), "{runs:?}");
    assert!(runs.is_sorted_by(|one, next| one.end <= next.start), "{runs:?}");
}

/// The pieces tile the blob.
pub(crate) fn cut(it: &Geometry) {
    let (size, n_pieces) = (it.size(), it.n_pieces());
    assert!(u64::from(n_pieces) <= MAX_PIECES);
    assert_eq!(it.pieces_covering(0..size), 0..n_pieces, "{it:?}");
    let last = it.range_of(n_pieces.saturating_sub(1));
    assert_eq!((last.end, it.range_of(0).start), (size, 0), "{it:?}");
    for piece in [0, n_pieces / 2, n_pieces.saturating_sub(1)].into_iter().filter(|_| n_pieces > 0) {
        let range = it.range_of(piece);
        assert!(!range.is_empty() && range.end - range.start <= it.piece_length(), "{it:?} {range:?}");
        assert_eq!((it.piece_at(range.start), it.piece_at(range.end - 1)), (piece, piece), "{it:?}");
    }
    for piece in [n_pieces, u32::MAX] {
        assert!(it.range_of(piece).is_empty() && it.len_of(piece) == 0, "{it:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_of_every_call_is_among_them() {
        let named: Vec<_> = MESSAGES.iter().map(|(name, _)| *name).collect();
        let sent = contract::sent();
        assert!(sent.len() > 10);
        assert!(sent.iter().all(|it| named.contains(&it.as_str())), "{sent:?}");
    }
}
