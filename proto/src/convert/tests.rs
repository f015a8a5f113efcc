//! What is sent is what is received, and what makes no sense is refused.

// One run of pieces is what the messages carry here.
#![allow(clippy::single_range_in_vec_init)]

use super::*;
use crate::messages::*;
use bytes::Bytes;
use proptest::prelude::*;
use shoal_model::Authorization;
use shoal_swarm::table::{CloseUp, Member, Sought, Stage, Standing};
use std::time::Duration;

fn key() -> BlobKey {
    BlobKey { group: TrustGroup::new("registry.example"), digest: Digest::from_sha256([7; 32]) }
}

fn node() -> Node {
    Node {
        id: NodeId::new("n1"),
        address: "10.0.0.1:65002".into(),
        role: Role::Sidecar,
        place: Place { zone: "z".into(), rack: "r".into() },
    }
}

fn wanted() -> WantedBlob {
    WantedBlob {
        key: key(),
        geometry: Geometry::by_rule(1 << 20),
        source: Source { registry: "registry.example".into(), repository: "a/b".into() },
        ticket: Ticket("t".into()),
        trace: TraceParent::new(7, 8, true),
    }
}

fn order() -> PreheatOrder {
    let blob = OrderedBlob {
        digest: key().digest,
        size: 7,
        ticket: Ticket("t".into()),
        ticket_lives: Duration::from_secs(300),
    };
    let wish = PreheatWish {
        image: "registry.example/a/b:v1".into(),
        scope: "all_peers".into(),
        zone: Some("z".into()),
        ips: vec!["10.0.0.1".into()],
        count: Some(0),
        percentage: None,
        blobs_at_once: 8,
        nodes_at_once: 500,
    };
    let left = Duration::from_secs(60);
    PreheatOrder { job: 3, wish, blobs: vec![blob; 2], left, carry_out: true, max_rows: 100 }
}

fn progress(succeeded: Option<bool>) -> OrderProgress {
    let row = |failed: Option<&str>| BlobAtNode {
        blob: 1,
        node: "n1".into(),
        ip: "10.0.0.1".into(),
        failed: failed.map(str::to_owned),
    };
    OrderProgress {
        job: 3,
        anew: true,
        doing: "storing".into(),
        bytes: 14,
        bytes_held: 7,
        nodes: 4,
        nodes_done: 2,
        nodes_failed: 1,
        blobs: vec![[1, 2], [3, 4]],
        rows: vec![row(None), row(Some("the disk is full"))],
        rows_left_out: 5,
        errors: vec!["1 of 2 nodes".into()],
        succeeded,
    }
}

/// A blob of four pieces, of which one of two neighbours holds one.
fn close_up() -> CloseUp<Node> {
    let standing =
        Standing { key: key(), geometry: Geometry::by_rule(1 << 20), n_whole: 0, n_part: 1, n_wanting: 2 };
    let member = |fill: [u8; 4], other| Member {
        node: node(),
        wants: true,
        n_held: fill.iter().filter(|it| **it > 0).count() as u32,
        fill: fill.into(),
        neighbours: vec![other],
    };
    let members = vec![member([0, 255, 0, 0], 1), member([0; 4], 0)];
    CloseUp { standing, seeder: Some(NodeId::new("gw")), members, n_more: 3 }
}

#[track_caller]
fn survives<T: Wire + Clone + PartialEq + std::fmt::Debug>(it: T) {
    let bytes = it.clone().into_wire().encode_to_vec();
    assert_eq!(T::from_wire(Message::decode(bytes.as_slice()).unwrap()), Ok(it));
}

#[test]
fn what_is_sent_is_what_is_received() {
    for traces in [vec![], vec![None], vec![None, TraceParent::new(7, 8, false), None]] {
        survives(OpenRequest {
            source: wanted().source,
            digests: vec![key().digest; 3],
            authorization: Some(Authorization::new("Bearer x".into())),
            node: node(),
            traces,
        });
    }
    let refusal = Refusal {
        status: 401,
        challenges: vec!["Basic realm=\"r\"".into()],
        content_type: "application/json".into(),
        body: "{}".into(),
        retry_after: Some(Duration::from_secs(3)),
    };
    let opened = OpenedBlob {
        ticket_lives: Duration::from_secs(300),
        key: key(),
        geometry: Geometry::by_rule(0),
        ticket: Ticket("t".into()),
        content: Some(Bytes::new()),
        holders: vec![node()],
        gateway: node(),
    };
    let answers = [Err(refusal), Ok(opened)].into_iter().zip([7, 0]);
    survives(OpenReply(answers.map(|(outcome, index)| Opened { index, outcome }).collect()));
    survives(NodeMessage::Hello(Hello { node: node(), protocol: 1 }));
    survives(NodeMessage::Want(Want { blob: wanted(), held: vec![0..2], moved: false }));
    survives(NodeMessage::Want(Want { blob: wanted(), held: vec![0..2], moved: true }));
    survives(NodeMessage::Leaving);
    survives(SchedulerMessage::Seed(SeedOrder { blob: wanted(), holders: vec![node(); 2] }));
    survives(RegionState {
        schedulers: vec!["https://10.0.0.2:65005".into()],
        verifying_keys: vec![[1; 32], [2; 32]],
        trust_groups: [("registry.example".to_owned(), TrustGroup::new("g"))].into(),
        gateway: Some(node()),
        own_keys: vec![[1; 32]],
        borrows: true,
    });
    survives(SchedulerMessage::Neighbours(Neighbours {
        key: key(),
        near: vec![node()],
        far: Vec::new(),
        algorithm: shoal_swarm::Algorithm::Ml,
        gateway: Some(node()),
    }));
    survives(NodesRequest::default());
    let after = Some(NodeId::new("n"));
    survives(NodesRequest { after, at_most: 7, zone: Some("z".into()), having: Some(key()), counted: true });
    for n_blobs in [None, Some(0), Some(7)] {
        survives(NodesReply(vec![Joined { node: node(), n_blobs }; 2]));
    }
    survives(BlobsRequest { sought: Sought::default(), at_most: BlobsRequest::MAX });
    for stage in [Stage::Fetching, Stage::Complete, Stage::Partial] {
        let among = [1, 2].map(|it| BlobKey { digest: Digest::from_sha256([it; 32]), ..key() }).into();
        let (after, group, digest) = (Some(key()), Some(key().group), Some(key().digest));
        let sought = Sought { after, group, digest, stage: Some(stage), among };
        survives(BlobsRequest { sought, at_most: 1 });
    }
    let geometry = Geometry::by_rule(1 << 20);
    survives(BlobsReply(vec![Standing { key: key(), geometry, n_whole: 3, n_part: 2, n_wanting: 1 }; 2]));
    survives(SwarmRequest { key: key(), at_most: SwarmRequest::MAX });
    survives(SwarmReply(None));
    survives(SwarmReply(Some(close_up())));
    survives(TotalRequest);
    survives(TotalReply { bytes: 7, counted_for: Duration::from_secs(9) });
    let WantedBlob { key: stored, geometry, ticket, source, .. } = wanted();
    let ticket_lives = Duration::from_secs(300);
    let blob = StoreBlob { key: stored, geometry, ticket, ticket_lives, gateway: node() };
    survives(StoreRequest { source, blobs: vec![blob; 2], at_once: 8 });
    let ends = [None, Some(Ok(())), Some(Err("the disk is full".to_owned()))];
    let stored = ends.into_iter().enumerate().map(|(index, end)| Stored { index, held: 7, end });
    survives(StoreProgress(stored.collect()));
    survives(RemoveRequest(vec![key(); 2]));
    survives(RemoveReply(vec![Removal::Removed, Removal::Nothing, Removal::Failed("no".to_owned())]));
    survives(JobsRequest);
    survives(JobsNews { jobs: vec![Bytes::from_static(b"{}"); 2], gone: vec![7, 8] });
    for cancelled_by in [None, Some("ann".to_owned())] {
        survives(JobRequest { id: 7, cancelled_by });
    }
    survives(JobReply(None));
    survives(JobReply(Some(Bytes::from_static(b"{}"))));
    let lease = Lease { key: key(), pieces: vec![1..3], from: node() };
    survives(SchedulerMessage::Lease(lease));
    survives(RegionalOrders(vec![order()]));
    survives(RegionalNews {
        regional: Some(Regional { region: "eu".into(), address: "10.0.0.1:65003".into() }),
        orders: vec![progress(None), progress(Some(false)), progress(Some(true))],
    });
    survives(Statement {
        key: key(),
        geometry: Geometry::by_rule(1 << 20),
        epoch: 3,
        first: 2,
        digests: vec![[1; 32]; 2],
        sealed: false,
    });
}

#[test]
fn what_makes_no_sense_is_refused() {
    let good = Statement {
        key: key(),
        geometry: Geometry::by_rule(1 << 20),
        epoch: 3,
        first: 0,
        digests: vec![[1; 32]; 4],
        sealed: true,
    };
    survives(good.clone());
    let refused = |edit: &dyn Fn(&mut wire::Statement)| {
        let mut it = good.clone().into_wire();
        edit(&mut it);
        assert!(Statement::from_wire(it).is_err());
    };
    refused(&|it| it.first = 1);
    refused(&|it| it.piece_length = 0);
    refused(&|it| it.size = u64::MAX);
    refused(&|it| it.digests.truncate(31));
    refused(&|it| it.digests.truncate(96));
    refused(&|it| it.blob = None);
}

#[test]
fn an_answer_counts_the_blobs_of_all_its_nodes_or_of_none() {
    let reply = |n_nodes, blobs| wire::NodesReply { nodes: vec![node().into_wire(); n_nodes], blobs };
    let counts = |reply| NodesReply::from_wire(reply).map(|it| it.0.iter().map(|it| it.n_blobs).collect());
    assert_eq!(counts(reply(2, vec![])), Ok(vec![None, None]));
    assert_eq!(counts(reply(2, vec![1, 0])), Ok(vec![Some(1), Some(0)]));
    for n_counts in [1, 3] {
        assert!(counts(reply(2, vec![1; n_counts])).is_err(), "{n_counts}");
    }
}

#[test]
fn a_question_about_blobs_has_bounds() {
    let asked = |at_most| wire::BlobsRequest { at_most, ..wire::BlobsRequest::default() };
    let most = BlobsRequest::MAX as u32;
    for (at_most, is_good) in [(0, false), (1, true), (most, true), (most + 1, false)] {
        assert_eq!(BlobsRequest::from_wire(asked(at_most)).is_ok(), is_good, "{at_most}");
    }
    let many = wire::BlobsRequest { among: vec![key().into_wire(); BlobsRequest::MAX + 1], ..asked(1) };
    assert!(BlobsRequest::from_wire(many).is_err());
    // Anything may be meant by a stage that this build does not know.
    assert!(BlobsRequest::from_wire(wire::BlobsRequest { stage: 100, ..asked(1) }).is_err());
}

#[test]
fn what_gateways_tell_of_jobs_has_bounds() {
    let long = |length| Bytes::from(vec![b' '; length]);
    let news = |jobs| JobsNews::from_wire(wire::JobsNews { jobs, gone: Vec::new() });
    assert!(news(vec![long(JobsNews::MAX_JOB); JobsNews::MAX]).is_ok());
    assert!(news(vec![long(JobsNews::MAX_JOB + 1)]).is_err());
    assert!(news(vec![Bytes::new(); JobsNews::MAX + 1]).is_err());
    assert!(JobsNews::from_wire(wire::JobsNews { jobs: Vec::new(), gone: vec![1; MAX_ITEMS + 1] }).is_err());
    assert!(JobReply::from_wire(wire::JobReply { job: long(JobReply::MAX_JOB + 1) }).is_err());
    let by = |length| JobRequest::from_wire(wire::JobRequest { id: 1, cancelled_by: "x".repeat(length) });
    assert!(by(512).is_ok() && by(513).is_err());
}

#[test]
fn an_order_and_what_is_said_of_it_have_bounds() {
    let orders = |n| RegionalOrders(vec![order(); n]).into_wire();
    assert!(RegionalOrders::from_wire(orders(RegionalOrders::MAX)).is_ok());
    assert!(RegionalOrders::from_wire(orders(RegionalOrders::MAX + 1)).is_err());
    let news = |edit: &dyn Fn(&mut OrderProgress)| {
        let mut it = progress(None);
        edit(&mut it);
        OrderProgress::from_wire(it.into_wire()).is_ok()
    };
    assert!(news(&|it| it.blobs = vec![[0; 2]; 512]));
    assert!(!news(&|it| it.blobs = vec![[0; 2]; 513]));
    assert!(!news(&|it| it.rows[0].blob = 512));
    assert!(!news(&|it| it.rows[0].node = String::new()));
    assert!(!news(&|it| it.rows[1].failed = Some("x".repeat(1025))));
    assert!(!news(&|it| it.errors = vec!["x".repeat(4097)]));
    assert!(!news(&|it| it.errors = vec![String::new(); 17]));
    assert!(!news(&|it| it.rows = vec![it.rows[0].clone(); 2001]));
}

/// A build from before these fields says less, and is understood.
#[test]
fn what_is_left_out_is_not_missed() {
    assert_eq!(NodesRequest::decode(&[]), Ok(NodesRequest::default()));
    let state = RegionState { gateway: Some(node()), own_keys: vec![[1; 32]], ..RegionState::default() };
    let older = wire::RegionState { gateway: None, own_keys: Vec::new(), ..state.into_wire() };
    assert_eq!(RegionState::from_wire(older), Ok(RegionState::default()));
    let order = SeedOrder { blob: wanted(), holders: vec![node()] };
    let older = wire::Seed { holders: Vec::new(), ..order.into_wire() };
    assert_eq!(SeedOrder::from_wire(older), Ok(SeedOrder { blob: wanted(), holders: Vec::new() }));
}

/// Messages as builds of protocol 1 send them, one on each line: a name, and the bytes in hexadecimal. A line is never
/// changed. Where a message has gained fields since, its value here has what a build without them means.
const PROTOCOL_1: &str = include_str!("../../recorded/protocol-1.txt");

#[track_caller]
fn understood<T: Wire + PartialEq + std::fmt::Debug>(name: &str, meant: T) -> String {
    let line = PROTOCOL_1.lines().find_map(|it| it.strip_prefix(name)?.strip_prefix(' '));
    let bytes = hex::decode(line.expect(name)).expect(name);
    assert_eq!(T::from_wire(Message::decode(bytes.as_slice()).expect(name)), Ok(meant), "{name}");
    name.to_owned()
}

#[test]
fn what_builds_of_protocol_1_send_is_understood() {
    let lease = Lease { key: key(), pieces: vec![1..3], from: node() };
    let neighbours = Neighbours {
        key: key(),
        near: vec![node()],
        far: vec![node()],
        algorithm: shoal_swarm::Algorithm::Ml,
        gateway: None,
    };
    let progress =
        BlobProgress { key: key(), geometry: wanted().geometry, dropped: true, gained: vec![0..1] };
    let opened = OpenedBlob {
        ticket_lives: Duration::from_secs(300),
        key: key(),
        geometry: Geometry::by_rule(1 << 20),
        ticket: Ticket("t".into()),
        content: Some(Bytes::from_static(b"c")),
        holders: vec![node()],
        gateway: node(),
    };
    let state = RegionState {
        schedulers: vec!["https://10.0.0.2:65005".into()],
        verifying_keys: vec![[1; 32], [2; 32]],
        trust_groups: [("registry.example".to_owned(), TrustGroup::new("g"))].into(),
        ..RegionState::default()
    };
    let statement = Statement {
        key: key(),
        geometry: Geometry::by_rule(1 << 20),
        epoch: 3,
        first: 0,
        digests: vec![[1; 32]],
        sealed: false,
    };
    let untraced = WantedBlob { trace: None, ..wanted() };
    let known = [
        understood("hello", NodeMessage::Hello(Hello { node: node(), protocol: 1 })),
        understood(
            "want",
            NodeMessage::Want(Want { blob: untraced.clone(), held: vec![0..1], moved: false }),
        ),
        understood("unwant", NodeMessage::Unwant(key())),
        understood("progress", NodeMessage::Progress(vec![progress])),
        understood("stranded", NodeMessage::Stranded(key())),
        understood("leaving", NodeMessage::Leaving),
        understood("neighbours", SchedulerMessage::Neighbours(neighbours)),
        understood("lease", SchedulerMessage::Lease(lease)),
        understood("go_direct", SchedulerMessage::GoDirect(key())),
        understood("seed", SchedulerMessage::Seed(SeedOrder { blob: untraced, holders: Vec::new() })),
        understood("region", state),
        understood("opened", OpenReply(vec![Opened { index: 0, outcome: Ok(opened) }])),
        understood("statement", statement),
    ];
    let recorded: Vec<_> = PROTOCOL_1.lines().filter_map(|it| it.split(' ').next()).collect();
    assert_eq!(recorded, known);
}

#[test]
fn what_only_a_newer_build_says_is_no_error() {
    // Field 100 of a oneof that ends far below, with three bytes in it.
    let newer = [0xa2, 0x06, 0x03, 1, 2, 3].as_slice();
    let heard = NodeMessage::from_wire(Message::decode(newer).unwrap());
    assert_eq!(heard, Ok(NodeMessage::Unknown));
    let said = SchedulerMessage::from_wire(Message::decode(newer).unwrap());
    assert_eq!(said, Ok(SchedulerMessage::Unknown));
    let mut more = NodeMessage::Unwant(key()).into_wire().encode_to_vec();
    more.extend(newer);
    let known = NodeMessage::from_wire(Message::decode(more.as_slice()).unwrap());
    assert_eq!(known, Ok(NodeMessage::Unwant(key())));
}

#[test]
fn runs_ascend_within_the_largest_blob() {
    let check = |runs: &[(u32, u32)], good: bool| {
        let runs =
            runs.iter().map(|(first, count)| wire::PieceRun { first: *first, count: *count }).collect();
        assert_eq!(runs_from_wire(runs).is_ok(), good);
    };
    check(&[(0, 2), (2, 1), (7, 3)], true);
    check(&[(0, 2), (1, 1)], false);
    check(&[(3, 1), (0, 1)], false);
    check(&[(3, 0)], false);
    check(&[(u32::MAX, 2)], false);
    check(&[(0, u32::MAX)], false);
}

#[test]
fn a_close_up_that_cannot_be_is_refused() {
    let check = |change: fn(&mut wire::Member), field: &str| {
        let mut wire = SwarmReply(Some(close_up())).into_wire();
        change(&mut wire.members[0]);
        let Err(Malformed::Field { field: found, .. }) = SwarmReply::from_wire(wire) else {
            panic!("{field} is taken")
        };
        assert_eq!(found, field);
    };
    check(|it| it.pieces = 5, "pieces");
    check(|it| it.fill = Bytes::from_static(&[0; 5]), "fill");
    check(|it| it.neighbours = vec![2], "neighbours");
}

#[test]
fn a_credential_does_not_show_in_debug_output() {
    let request = OpenRequest {
        source: wanted().source,
        digests: vec![],
        authorization: Some(Authorization::new("Bearer hush".into())),
        node: node(),
        traces: Vec::new(),
    };
    assert!(!format!("{request:?}").contains("hush"));
}

proptest! {
    #[test]
    fn no_bytes_make_a_decoder_panic(bytes: Vec<u8>) {
        let _ = Statement::decode(&bytes);
        let _ = Attestation::decode(&bytes);
        if let Ok(wire) = wire::NodeMessage::decode(bytes.as_slice()) {
            let _ = NodeMessage::from_wire(wire);
        }
        if let Ok(wire) = wire::OpenReply::decode(bytes.as_slice()) {
            let _ = OpenReply::from_wire(wire);
        }
    }
}
