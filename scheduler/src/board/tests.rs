use std::future::ready;
use std::pin::pin;

use super::*;
use shoal_model::{Digest, NodeId, Place, Role, TrustGroup};
use shoal_proto::{BlobProgress, Source, Ticket};
use shoal_swarm::Geometry;
use shoal_swarm::table::{Sought, Stage};

fn board() -> Board {
    Board::start(&Context::new("test", "0"), Policy::default(), NonZeroUsize::new(2).unwrap())
}

fn node(name: &str, role: Role) -> Node {
    let address = format!("{name}:1").as_str().into();
    Node { id: NodeId::new(name), address, role, place: Place::default() }
}

fn key_of(digest: Digest) -> BlobKey {
    BlobKey { group: TrustGroup::new("g"), digest }
}

/// Blobs with even numbers are of one shard, those with odd ones of the other.
fn key(number: u8) -> BlobKey {
    key_of(Digest::from_sha256([number; 32]))
}

fn want(number: u8) -> NodeMessage {
    want_of(key(number).digest)
}

fn want_of(digest: Digest) -> NodeMessage {
    let blob = WantedBlob {
        key: key_of(digest),
        geometry: Geometry::by_rule(10 << 20),
        source: Source { registry: "r".into(), repository: "a".into() },
        ticket: Ticket("t".into()),
        trace: None,
    };
    NodeMessage::Want(Want { blob, held: vec![], moved: false })
}

/// The first of the orders in which `wanted` finds something.
async fn until<T>(session: &Session, wanted: impl Fn(SchedulerMessage) -> Option<T>) -> T {
    let found = session.orders().filter_map(|it| ready(wanted(it)));
    pin!(found).next().await.expect("the session goes on")
}

/// Whom a node that wants the blob is told to ask, by the first answer.
async fn neighbours(session: &Session, number: u8) -> Vec<NodeId> {
    let told = until(session, |it| match it {
        SchedulerMessage::Neighbours(it) if it.key == key(number) => Some(it.near),
        _ => None,
    });
    told.await.into_iter().map(|it| it.id).collect()
}

#[tokio::test]
async fn a_wish_reaches_the_gateway_and_brings_a_lease_from_it() {
    let board = board();
    let gateway = board.join(node("gw", Role::Gateway)).await;
    let sidecar = board.join(node("a", Role::Sidecar)).await;
    assert!(sidecar.hear(want(1)).await);
    let seeded = until(&gateway, |it| match it {
        SchedulerMessage::Seed(order) => Some(order),
        _ => None,
    });
    assert_eq!(seeded.await.blob.ticket, Ticket("t".into()));
    let leased = until(&sidecar, |it| match it {
        SchedulerMessage::Lease(lease) => Some(lease.from.address),
        _ => None,
    });
    assert_eq!(&*leased.await, "gw:1");
}

#[tokio::test]
async fn a_node_that_joins_again_takes_the_place_of_its_old_stream() {
    let board = board();
    let old = board.join(node("a", Role::Sidecar)).await;
    let new = board.join(node("a", Role::Sidecar)).await;
    old.over().await;
    assert_eq!(pin!(old.orders()).next().await, None);
    drop(old);
    for number in [0, 1] {
        assert!(new.hear(want(number)).await);
        assert_eq!(neighbours(&new, number).await, []);
    }
}

#[tokio::test]
async fn blobs_of_different_shards_have_the_same_nodes() {
    let board = board();
    let one = board.join(node("a", Role::Sidecar)).await;
    let another = board.join(node("b", Role::Sidecar)).await;
    for number in [0, 1] {
        assert!(one.hear(want(number)).await);
        assert_eq!(neighbours(&one, number).await, []);
        assert!(another.hear(want(number)).await);
        assert_eq!(neighbours(&another, number).await, [NodeId::new("a")]);
    }
    assert_eq!(board.nodes.get(), 2);
}

#[tokio::test]
async fn one_report_may_be_about_blobs_of_several_shards() {
    let board = board();
    let holder = board.join(node("a", Role::Sidecar)).await;
    let progress = |number| BlobProgress {
        key: key(number),
        geometry: Geometry::by_rule(10 << 20),
        dropped: false,
        gained: vec![0..1, 2..3],
    };
    assert!(holder.hear(NodeMessage::Progress((0..4).map(progress).collect())).await);
    let asker = board.join(node("b", Role::Sidecar)).await;
    for number in 0..4 {
        assert!(asker.hear(want(number)).await);
        assert_eq!(neighbours(&asker, number).await, [NodeId::new("a")]);
    }
}

#[tokio::test]
async fn a_node_that_does_not_take_its_orders_is_cut_off_everywhere() {
    let board = board();
    let slow = board.join(node("a", Role::Sidecar)).await;
    assert!(slow.hear(want(1)).await);
    assert_eq!(neighbours(&slow, 1).await, []);
    // Each of these wishes is answered, and each answer is about another blob, of the other shard.
    for number in 0..=orders::CAPACITY {
        let mut sum = [0; 32];
        sum[2..10].copy_from_slice(&number.to_le_bytes());
        assert!(slow.hear(want_of(Digest::from_sha256(sum))).await);
    }
    slow.over().await;
    assert_eq!(pin!(slow.orders()).next().await, None);
    drop(slow);
    // The shard of blob 1 loses it as well; it may hear of that after the wish.
    let another = board.join(node("b", Role::Sidecar)).await;
    assert!(another.hear(want(1)).await);
    while !neighbours(&another, 1).await.is_empty() {}
}

#[tokio::test]
async fn who_has_joined_is_known_by_the_newest_stream_until_that_ends() {
    let board = board();
    let older = board.join(node("a", Role::Sidecar)).await;
    let newer = board.join(Node { address: "elsewhere:1".into(), ..node("a", Role::Sidecar) }).await;
    let other = board.join(node("b", Role::Gateway)).await;
    let known = async || {
        let nodes = board.nodes(NodesRequest::default()).await.unwrap();
        nodes.into_iter().map(|it| it.node.address.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(known().await, ["elsewhere:1", "b:1"]);
    drop(older);
    assert_eq!(known().await, ["elsewhere:1", "b:1"]);
    drop(newer);
    drop(other);
    assert!(known().await.is_empty());
}

#[tokio::test]
async fn nodes_are_listed_in_parts_by_zone_and_by_what_they_have() {
    let board = board();
    let place = |zone: &str| Place { zone: zone.into(), rack: "".into() };
    let mut sessions = Vec::new();
    for (name, zone) in [("a", "x"), ("b", "y"), ("c", "x"), ("d", "x")] {
        sessions.push(board.join(Node { place: place(zone), ..node(name, Role::Sidecar) }).await);
    }
    for number in 0..3 {
        assert!(sessions[0].hear(want(number)).await);
        assert_eq!(neighbours(&sessions[0], number).await, [], "it is heard by now");
    }
    let names = async |asked: NodesRequest| {
        let nodes = board.nodes(asked).await.unwrap();
        nodes.into_iter().map(|it| (it.node.id.to_string(), it.n_blobs)).collect::<Vec<_>>()
    };
    let check = async |asked: NodesRequest, expected: &[(&str, Option<u32>)]| {
        let expected: Vec<_> =
            expected.iter().map(|(name, n_blobs)| ((*name).to_owned(), *n_blobs)).collect();
        assert_eq!(names(asked).await, expected);
    };
    let asked = NodesRequest { zone: Some("x".into()), ..NodesRequest::default() };
    check(asked.clone(), &[("a", None), ("c", None), ("d", None)]).await;
    check(NodesRequest { at_most: 2, ..asked.clone() }, &[("a", None), ("c", None)]).await;
    check(NodesRequest { after: Some(NodeId::new("b")), ..asked }, &[("c", None), ("d", None)]).await;
    let counted = NodesRequest { counted: true, ..NodesRequest::default() };
    check(counted.clone(), &[("a", Some(3)), ("b", Some(0)), ("c", Some(0)), ("d", Some(0))]).await;
    check(NodesRequest { having: Some(key(1)), ..counted.clone() }, &[("a", Some(3))]).await;
    check(NodesRequest { having: Some(key(9)), ..counted }, &[]).await;
}

#[tokio::test]
async fn blobs_of_all_shards_are_listed_in_order_and_in_parts() {
    let board = board();
    let a = board.join(node("a", Role::Sidecar)).await;
    for number in 0..6 {
        assert!(a.hear(want(number)).await);
        assert_eq!(neighbours(&a, number).await, [], "it is heard by now");
    }
    let list = async |sought: Sought, at_most| {
        let found = board.blobs(BlobsRequest { sought, at_most }).await.unwrap();
        found.into_iter().map(|it| it.key.digest.as_bytes()[0]).collect::<Vec<_>>()
    };
    assert_eq!(list(Sought::default(), 100).await, [0, 1, 2, 3, 4, 5]);
    assert_eq!(list(Sought::default(), 4).await, [0, 1, 2, 3]);
    assert_eq!(list(Sought { after: Some(key(3)), ..Sought::default() }, 4).await, [4, 5]);
    assert_eq!(list(Sought { stage: Some(Stage::Complete), ..Sought::default() }, 4).await, [0; 0]);
    assert_eq!(list(Sought { among: [key(2), key(5), key(9)].into(), ..Sought::default() }, 4).await, [2, 5]);
}

#[tokio::test]
async fn one_blob_is_shown_with_its_members_as_they_joined_and_what_arrived_is_counted() {
    let board = board();
    let a = board.join(node("a", Role::Sidecar)).await;
    assert!(a.hear(want(1)).await);
    assert_eq!(neighbours(&a, 1).await, [], "it is heard by now");
    let gained =
        |gained| BlobProgress { key: key(1), geometry: Geometry::by_rule(10 << 20), dropped: false, gained };
    assert!(a.hear(NodeMessage::Progress(vec![gained(vec![0..1, 1..2])])).await);
    let shown = loop {
        let shown = board.close_up(key(1), 10).await.unwrap().expect("it is wanted");
        // What is heard and what is looked up take turns.
        if shown.members[0].n_held > 0 {
            break shown;
        }
    };
    assert_eq!((shown.members[0].node.address.as_ref(), shown.n_more), ("a:1", 0));
    assert_eq!(board.arrived().bytes, 512 << 10);
    assert_eq!(board.close_up(key(2), 10).await.unwrap(), None);
}
