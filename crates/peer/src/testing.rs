//! What the tests of this crate have in common.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::Extensions;
use shoal_blobstore::{Blob, PieceDigest, Store, StoreSettings};
use shoal_identity::{Caller, Dialer, Identity};
use shoal_model::{BlobKey, ByteSize, Digest, Node, NodeId, Place, Role, TrustGroup};
use shoal_proto::{NodeMessage, Source, Statement, Ticket, Want, WantedBlob};
use shoal_swarm::{Geometry, PieceIndex};
use tempfile::TempDir;

use crate::RegionKeys;
use crate::attest::Signer;
use crate::client::PeerClient;
use crate::ticket::{Issuer, TicketClaims, Verifier};

/// The secret of the one gateway of the tests' region.
pub(crate) const SEED: [u8; 32] = [1; 32];

/// A blob of which nothing but the name matters.
pub(crate) fn key(byte: u8) -> BlobKey {
    BlobKey { group: TrustGroup::new("registry.example:5000"), digest: Digest::from_sha256([byte; 32]) }
}

/// The keys of a region, each made from one repeated secret byte.
pub(crate) fn region_keys(seeds: &[u8]) -> RegionKeys {
    let public: Vec<_> = seeds.iter().map(|it| Signer::new(&[*it; 32]).verifying_key()).collect();
    RegionKeys::parse(&public).unwrap()
}

/// A node at an address.
pub(crate) fn node(address: &str) -> Node {
    Node { id: NodeId::new("node-1"), address: address.into(), role: Role::Sidecar, place: Place::default() }
}

/// A wish for a blob of which this piece is held.
pub(crate) fn wish(byte: u8, held: Option<PieceIndex>) -> NodeMessage {
    let source = Source { registry: "registry.example:5000".into(), repository: "team/app".into() };
    let blob = WantedBlob {
        key: key(byte),
        geometry: geometry(),
        source,
        ticket: Ticket("ticket".to_owned()),
        trace: None,
    };
    NodeMessage::Want(Want { blob, held: held.map(|it| it..it + 1).into_iter().collect(), moved: false })
}

/// What a ticket for `key` says.
pub(crate) fn claims(key: BlobKey, expires: SystemTime) -> TicketClaims {
    TicketClaims {
        source: Source { registry: "registry.example:5000".into(), repository: "team/app".into() },
        key,
        geometry: Some(geometry()),
        node: NodeId::new("node-1"),
        granted: SystemTime::UNIX_EPOCH,
        expires,
    }
}

/// Ends a test that would otherwise wait for ever. Far above what any of them takes.
pub(crate) async fn soon<T>(it: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), it).await.expect("nothing happened for 30 s")
}

/// A ticket for `key` that lasts through any test.
pub(crate) fn ticket(key: &BlobKey) -> Ticket {
    ticket_until(key, SystemTime::now() + Duration::from_secs(300))
}

/// A ticket for `key`.
pub(crate) fn ticket_until(key: &BlobKey, expires: SystemTime) -> Ticket {
    Issuer::new(&SEED).issue(&claims(key.clone(), expires))
}

/// What comes with the requests of somebody who proves nothing, where nothing has to be proven.
pub(crate) fn anybody() -> Extensions {
    let caller = Caller { address: [127, 0, 0, 1].into(), identity: None, is_secured: false };
    let mut from = Extensions::new();
    from.insert(Arc::new(caller));
    from
}

/// Asks nodes that prove nothing.
pub(crate) fn client() -> PeerClient {
    PeerClient::new(Dialer::new(None))
}

/// Believes the region's gateway.
pub(crate) fn verifier() -> Arc<Verifier> {
    Arc::new(Verifier::new(region_keys(&[1])))
}

/// A store in a directory of its own.
pub(crate) fn store() -> (TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let settings = StoreSettings {
        dir: dir.path().to_owned(),
        capacity: ByteSize(1 << 30),
        low_percent: 90,
        free_floor: ByteSize(0),
        expire_after: Duration::from_secs(3600),
    };
    let store = Store::open(settings).unwrap();
    (dir, store)
}

/// How the blobs of these tests are cut: four pieces, each of more than one frame.
pub(crate) fn geometry() -> Geometry {
    Geometry::stated(1_000_000, 300_000).unwrap()
}

/// The content of these blobs.
pub(crate) fn content() -> Bytes {
    (0..1_000_000u32).map(|it| (it / 7) as u8).collect::<Vec<_>>().into()
}

/// One piece of that content.
pub(crate) fn piece(index: u32) -> Bytes {
    let range = geometry().range_of(index);
    content().slice(range.start as usize..range.end as usize)
}

/// A blob of which `pieces` are held and attested, one by one.
pub(crate) async fn blob(store: &Store, key: &BlobKey, pieces: &[u32]) -> Blob {
    let blob = store.create(key, geometry()).unwrap();
    for index in pieces {
        hold(&blob, *index).await;
    }
    blob
}

/// Attests and writes one piece.
pub(crate) async fn hold(blob: &Blob, index: u32) {
    let digest = PieceDigest::of(&[piece(index)]);
    let attestation = Signer::new(&SEED).attest(Statement {
        key: blob.key().clone(),
        geometry: geometry(),
        epoch: 1,
        first: index,
        digests: vec![digest.0],
        sealed: false,
    });
    blob.learn(index, &[digest], attestation.encode()).unwrap();
    blob.write(index, vec![piece(index)]).await.unwrap();
}

/// The extensions of a request by somebody with this role.
pub(crate) fn extensions_of(role: shoal_identity::Role) -> Extensions {
    let until = SystemTime::now() + Duration::from_secs(60);
    let identity = Identity { role, node: NodeId::new("n"), addresses: Vec::new(), until };
    let caller = Caller { address: [10, 0, 0, 1].into(), identity: Some(identity), is_secured: true };
    let mut extensions = Extensions::new();
    extensions.insert(Arc::new(caller));
    extensions
}
