//! Whole downloads, over real sockets and files.

use shoal_model::Node;
use shoal_proto::Neighbours;
use shoal_swarm::Algorithm;
use tokio::sync::Notify;

use super::testing::{self, Me, N_PIECES, content, geometry, grant, key, neighbour, source};
use super::*;
use crate::pull::reader::Ended;

/// A grant that names these nodes as holders.
fn held_by(holders: &[Node]) -> Grant {
    let mut grant = grant();
    grant.blob.holders = holders.to_vec();
    grant
}

fn read(me: &Me, grant: &Grant, bytes: Range<u64>) -> Result<Reader, NoStream> {
    me.pulls.read(grant, &source(), None, bytes)
}

/// Reads until the stream stands at `until`.
async fn read_to(reader: &mut Reader, until: u64) -> Result<(), Ended> {
    while reader.left().start < until {
        let start = reader.left().start as usize;
        let bytes = testing::soon(reader.next()).await?.expect("bytes are left");
        assert!(bytes == content().slice(start..start + bytes.len()), "other content from {start} on");
    }
    Ok(())
}

async fn read_all(reader: &mut Reader) -> Result<(), Ended> {
    read_to(reader, geometry().size()).await
}

#[tokio::test]
async fn a_blob_is_fetched_from_a_neighbour() {
    let (me, (node, _dir)) = (Me::new(), neighbour().await);
    let mut reader = read(&me, &held_by(&[node]), 0..1_000_000).unwrap();
    read_all(&mut reader).await.unwrap();
    assert_eq!(testing::soon(reader.next()).await, Ok(None));
    assert!(testing::blob(&me.store).is_complete());
}

#[tokio::test]
async fn a_neighbour_that_dawdles_is_overtaken_by_another() {
    let (me, asked) = (Me::new(), Arc::new(Notify::new()));
    // Most of the blob is nowhere, so that this is no end game.
    let ((slow, _slow_dir), (fast, _fast_dir)) = (testing::holder(0..1).await, testing::holder(0..1).await);
    let slow = testing::online(testing::dawdling(slow, asked.clone())).await;
    let mut reader = read(&me, &held_by(std::slice::from_ref(&slow)), 0..1_000_000).unwrap();
    testing::soon(asked.notified()).await;

    let near = vec![slow, testing::online(fast).await];
    me.pulls.hear(SchedulerMessage::Neighbours(Neighbours {
        gateway: None,
        key: key(),
        near,
        far: Vec::new(),
        algorithm: Algorithm::Default,
    }));
    read_to(&mut reader, geometry().range_of(0).end).await.unwrap();
}

#[tokio::test]
async fn what_the_disk_does_not_take_passes_to_its_readers_through_memory() {
    let (me, (node, _dir)) = (Me::new(), neighbour().await);
    me.break_disk(true);
    let grant = held_by(&[node]);
    let mut readers = [0, 500_000].map(|start| read(&me, &grant, start..1_000_000).unwrap());
    for reader in &mut readers {
        read_all(reader).await.unwrap();
    }
    let blob = testing::blob(&me.store);
    assert!(!blob.is_stored() && blob.held().is_empty(), "others are not told of what is not kept");
    drop((readers, blob));

    me.break_disk(false);
    let mut reader = read(&me, &grant, 0..1_000_000).unwrap();
    read_all(&mut reader).await.unwrap();
    let blob = testing::blob(&me.store);
    testing::soon(blob.version().wait_for(|_| blob.is_complete())).await.unwrap();
}

#[tokio::test]
async fn what_a_broken_disk_has_lost_passes_to_its_readers_through_memory() {
    for held in [0..N_PIECES, 0..2] {
        let (me, (node, _dir)) = (Me::with_broken_disk(held).await, neighbour().await);
        let mut reader = read(&me, &held_by(&[node]), 0..1_000_000).unwrap();
        read_all(&mut reader).await.unwrap();
    }
}

#[tokio::test]
async fn a_stream_that_nobody_serves_is_cut_and_the_next_sent_elsewhere() {
    let me = Me::new();
    let mut reader = read(&me, &grant(), 0..1_000_000).unwrap();
    let ended = read_all(&mut reader).await.unwrap_err();
    assert!(matches!(ended, Ended::NoSource(_)), "{ended}");
    me.pulls.was_cut(&reader);
    let next = read(&me, &grant(), 0..1_000_000);
    assert!(matches!(next, Err(NoStream::Cut(Cut::Unserved))));
}

#[tokio::test]
async fn a_piece_that_rots_under_its_reader_is_fetched_again() {
    let (me, (node, _dir)) = (Me::new(), neighbour().await);
    let mut reader = read(&me, &held_by(std::slice::from_ref(&node)), 0..1_000_000).unwrap();
    read_to(&mut reader, 300_000).await.unwrap();
    let blob = testing::blob(&me.store);
    testing::soon(blob.version().wait_for(|_| blob.is_complete())).await.unwrap();
    // The download that the reader came with is over by the time that it finds out.
    me.damage(950_000);
    read_all(&mut reader).await.unwrap();

    me.damage(10);
    let mut reader = read(&me, &held_by(&[node]), 0..1_000_000).unwrap();
    assert!(reader.is_cached());
    read_all(&mut reader).await.unwrap();
}

#[tokio::test]
async fn a_blob_is_not_cut_anew_under_its_readers() {
    let (me, (node, _dir)) = (Me::new(), neighbour().await);
    let mut reader = read(&me, &grant(), 0..1_000_000).unwrap();
    let mut other = grant();
    for geometry in [Geometry::stated(1_000_000, 100_000), Geometry::stated(999_999, 300_000)] {
        other.blob.geometry = geometry.unwrap();
        let refused = read(&me, &other, 0..10);
        assert!(matches!(refused, Err(NoStream::OtherCut { .. })), "{:?}", other.blob.geometry);
        me.pulls.keep(&other.blob, content());
    }
    // What the next request brings serves both.
    let mut second = read(&me, &held_by(&[node]), 0..1_000_000).unwrap();
    read_all(&mut second).await.unwrap();
    read_all(&mut reader).await.unwrap();
}
