use super::*;
use shoal_model::{Digest, NodeId, Place, Role, TrustGroup};
use shoal_proto::{BlobProgress, Source, Ticket};
use shoal_swarm::Geometry;

fn board() -> Board {
    Board::start(&Context::new("test", "0"), Policy::default(), NonZeroUsize::new(2).unwrap())
}

fn node(name: &str, role: Role) -> Node {
    let address = format!("{name}:1").as_str().into();
    Node { id: NodeId::new(name), address, role, place: Place::default() }
}

/// Blobs with even numbers are of one shard, those with odd ones of the other.
fn key(number: u8) -> BlobKey {
    BlobKey { group: TrustGroup::new("g"), digest: Digest::from_sha256([number; 32]) }
}

fn want(number: u8) -> NodeMessage {
    let blob = WantedBlob {
        key: key(number),
        geometry: Geometry::by_rule(10 << 20),
        source: Source { registry: "r".into(), repository: "a".into() },
        ticket: Ticket("t".into()),
    };
    NodeMessage::Want(Want { blob, held: vec![] })
}

/// Whom a node that wants the blob is told to ask, by the first answer.
async fn neighbours(orders: &mut mpsc::Receiver<SchedulerMessage>, number: u8) -> Vec<NodeId> {
    let told = until(orders, |it| match it {
        SchedulerMessage::Neighbours(it) if it.key == key(number) => Some(it.near),
        _ => None,
    });
    told.await.into_iter().map(|it| it.id).collect()
}

async fn until<T>(
    orders: &mut mpsc::Receiver<SchedulerMessage>,
    wanted: impl Fn(SchedulerMessage) -> Option<T>,
) -> T {
    loop {
        let order = orders.recv().await.expect("the stream goes on");
        if let Some(found) = wanted(order) {
            return found;
        }
    }
}

#[tokio::test]
async fn a_wish_reaches_the_gateway_and_brings_a_lease_from_it() {
    let board = board();
    let (_gateway, mut seeds) = board.join(node("gw", Role::Gateway)).await;
    let (sidecar, mut orders) = board.join(node("a", Role::Sidecar)).await;
    assert!(sidecar.hear(want(1)).await);
    let seeded = until(&mut seeds, |it| match it {
        SchedulerMessage::Seed(blob) => Some(blob),
        _ => None,
    });
    assert_eq!(seeded.await.ticket, Ticket("t".into()));
    let leased = until(&mut orders, |it| match it {
        SchedulerMessage::Lease(lease) => Some(lease.from.address),
        _ => None,
    });
    assert_eq!(&*leased.await, "gw:1");
}

#[tokio::test]
async fn a_node_that_joins_again_takes_the_place_of_its_old_stream() {
    let board = board();
    let (old, mut old_orders) = board.join(node("a", Role::Sidecar)).await;
    let (new, mut orders) = board.join(node("a", Role::Sidecar)).await;
    old.over().await;
    drop(old);
    assert_eq!(old_orders.recv().await, None);
    for number in [0, 1] {
        assert!(new.hear(want(number)).await);
        assert_eq!(neighbours(&mut orders, number).await, []);
    }
}

#[tokio::test]
async fn blobs_of_different_shards_have_the_same_nodes() {
    let board = board();
    let (one, mut orders_of_one) = board.join(node("a", Role::Sidecar)).await;
    let (another, mut orders_of_another) = board.join(node("b", Role::Sidecar)).await;
    for number in [0, 1] {
        assert!(one.hear(want(number)).await);
        assert_eq!(neighbours(&mut orders_of_one, number).await, []);
        assert!(another.hear(want(number)).await);
        assert_eq!(neighbours(&mut orders_of_another, number).await, [NodeId::new("a")]);
    }
    assert_eq!(board.nodes.get(), 2);
}

#[tokio::test]
async fn one_report_may_be_about_blobs_of_several_shards() {
    let board = board();
    let (holder, _orders) = board.join(node("a", Role::Sidecar)).await;
    let progress = |number| BlobProgress {
        key: key(number),
        geometry: Geometry::by_rule(10 << 20),
        dropped: false,
        gained: vec![0..1],
    };
    assert!(holder.hear(NodeMessage::Progress((0..4).map(progress).collect())).await);
    let (asker, mut orders) = board.join(node("b", Role::Sidecar)).await;
    for number in 0..4 {
        assert!(asker.hear(want(number)).await);
        assert_eq!(neighbours(&mut orders, number).await, [NodeId::new("a")]);
    }
}

#[tokio::test]
async fn a_node_that_does_not_take_its_orders_is_cut_off_everywhere() {
    let board = board();
    let (session, mut orders) = board.join(node("a", Role::Sidecar)).await;
    assert!(session.hear(want(1)).await);
    for _ in 0..ORDERS {
        // Each of these wishes is a new one, and is answered.
        assert!(session.hear(want(0)).await);
        assert!(session.hear(NodeMessage::Unwant(key(0))).await);
    }
    session.over().await;
    drop(session);
    let mut n_orders = 0;
    while orders.recv().await.is_some() {
        n_orders += 1;
    }
    assert_eq!(n_orders, ORDERS);
    // Its stream has ended, so that no shard knows it any more.
    let (another, mut orders) = board.join(node("b", Role::Sidecar)).await;
    for number in [0, 1] {
        assert!(another.hear(want(number)).await);
        assert_eq!(neighbours(&mut orders, number).await, []);
    }
}
