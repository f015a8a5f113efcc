//! What the two processes have in common without telling each other: names, keys, the blob.

use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use bytes::Bytes;
use shoal_blobstore::{Blob, PieceDigest, Store, StoreSettings};
use shoal_identity::{Ca, Grant, Keychain, SpiffeId};
use shoal_model::{BlobKey, ByteSize, Digest, Node, NodeId, Place, Role, TrustGroup};
use shoal_peer::RegionKeys;
use shoal_peer::attest::Signer;
use shoal_peer::ticket::{Issuer, TicketClaims, Verifier};
use shoal_proto::{Source, Ticket};
use shoal_swarm::Geometry;

/// The length of a piece, in bytes; what the rule chooses for a blob of 500 MiB.
pub(crate) const PIECE: u32 = 1 << 20;
/// The node that serves.
pub(crate) const SERVER: &str = "server";
/// The node that asks.
pub(crate) const CLIENT: &str = "client";

/// The secret of the region's gateway.
const SEED: [u8; 32] = [1; 32];
/// Longer than any run takes.
const LIVES: Duration = Duration::from_secs(24 * 3600);

/// A certificate for `name` by the authority that is kept in `dir`, which whoever comes first makes.
pub(crate) fn keychain(dir: &Path, name: &str) -> Result<Keychain> {
    let ca = Ca::read_or_create("bench.example".parse()?, dir)?;
    let id = SpiffeId::new(ca.domain().clone(), shoal_identity::Role::Sidecar, name)?;
    let grant = Grant { id, addresses: Vec::new(), hosts: Vec::new(), lives: LIVES };
    let keychain = Keychain::empty();
    keychain.replace(ca.own(SystemTime::now(), &grant)?);
    Ok(keychain)
}

/// The blob that is served.
pub(crate) fn key() -> BlobKey {
    BlobKey { group: TrustGroup::new("registry.example"), digest: Digest::from_sha256([1; 32]) }
}

/// The content of a piece.
pub(crate) fn piece(index: u32) -> Vec<Bytes> {
    vec![Bytes::from(vec![index as u8; PIECE as usize])]
}

/// A store in `dir` whose blob of `n_pieces` lacks nothing but the pieces.
pub(crate) fn blob(dir: &Path, n_pieces: u32) -> Result<(Store, Blob)> {
    let store = Store::open(StoreSettings {
        dir: dir.to_owned(),
        capacity: ByteSize(1 << 40),
        low_percent: 90,
        free_floor: ByteSize(0),
        expire_after: LIVES,
    })?;
    let n_bytes = u64::from(n_pieces) * u64::from(PIECE);
    let geometry = Geometry::stated(n_bytes, PIECE.into()).context("too many pieces")?;
    let blob = store.create(&key(), geometry)?;
    blob.learn(0, &digests(n_pieces), Bytes::new())?;
    Ok((store, blob))
}

/// The pieces' digests.
pub(crate) fn digests(n_pieces: u32) -> Vec<PieceDigest> {
    (0..n_pieces).map(|it| PieceDigest::of(&piece(it))).collect()
}

/// The serving node.
pub(crate) fn server(address: &str) -> Node {
    Node { id: NodeId::new(SERVER), address: address.into(), role: Role::Sidecar, place: Place::default() }
}

/// Opens the blob to the asking node.
pub(crate) fn ticket() -> Ticket {
    let now = SystemTime::now();
    Issuer::new(&SEED).issue(&TicketClaims {
        source: Source { registry: "registry.example".into(), repository: "team/app".into() },
        key: key(),
        geometry: None,
        node: NodeId::new(CLIENT),
        granted: now,
        expires: now + LIVES,
    })
}

/// Believes that ticket.
pub(crate) fn verifier() -> Result<Verifier> {
    Ok(Verifier::new(RegionKeys::parse(&[Signer::new(&SEED).verifying_key()])?))
}
