//! Attestations: nothing is believed but what somebody with a key of the region has signed, about the very blob
//! and cut that the receiver asked for.

use std::sync::LazyLock;

use arbitrary::{Result, Unstructured};
use bytes::Bytes;
use ed25519_dalek::Signer as _;
use shoal_model::{BlobKey, Digest, TrustGroup};
use shoal_peer::RegionKeys;
use shoal_peer::attest::{AttestError, Signer, check as believe};
use shoal_proto::{Attestation, Statement};
use shoal_swarm::Geometry;

use crate::contract;
use crate::input::choices;
use crate::jwt::{KEY, SEED};

static KEYS: LazyLock<RegionKeys> = LazyLock::new(|| {
    let keys = RegionKeys::parse(&[[1; 32], SEED].map(|it| Signer::new(&it).verifying_key()));
    keys.expect("keys that were made from secrets")
});

/// Takes a signature and a statement, or choices for a statement that is then signed.
pub fn check(data: &[u8]) {
    match choices(data) {
        None => raw(data),
        Some(mut u) => {
            // Where the choices have come to an end, so has the test.
            let _ = signed(&mut u);
        }
    }
}

/// Nobody comes by a signature by chance; one that was kept among the examples is of a statement that reads back.
fn raw(data: &[u8]) {
    let Some((signature, statement)) = data.split_first_chunk() else { return };
    let it = Attestation { signature: *signature, statement: Bytes::copy_from_slice(statement) };
    let (key, geometry) = match Statement::decode(statement) {
        Ok(statement) => (statement.key, statement.geometry),
        Err(_) => (
            BlobKey { group: TrustGroup::new("g"), digest: Digest::from_sha256([0; 32]) },
            Geometry::by_rule(0),
        ),
    };
    if let Ok(stated) = believe(&it, &KEYS, &key, &geometry) {
        assert_eq!(Signer::new(&SEED).attest(stated), it);
    }
}

fn signed(u: &mut Unstructured<'_>) -> Result<()> {
    let statement = Bytes::from(contract::message(u, "Statement")?);
    let message = [Attestation::CONTEXT, &statement].concat();
    let it = Attestation { signature: KEY.sign(&message).to_bytes(), statement: statement.clone() };
    let key = BlobKey { group: TrustGroup::new("g"), digest: Digest::from_sha256([u.arbitrary()?; 32]) };
    let believed = match Statement::decode(&statement) {
        Err(error) => {
            let refused = believe(&it, &KEYS, &key, &Geometry::by_rule(0));
            assert_eq!(refused, Err(AttestError::Malformed(error)));
            return Ok(());
        }
        Ok(statement) => statement,
    };
    let Statement { key: about, geometry, .. } = &believed;
    assert_eq!(believe(&it, &KEYS, about, geometry).as_ref(), Ok(&believed));
    let other = Geometry::stated(geometry.size(), geometry.piece_length().wrapping_add(1));
    let as_other = other.map(|it_is| believe(&it, &KEYS, about, &it_is));
    assert!(as_other.is_none_or(|it| matches!(it, Err(AttestError::OtherGeometry { .. }))));
    assert!(
        *about == key || matches!(believe(&it, &KEYS, &key, geometry), Err(AttestError::OtherBlob { .. }))
    );

    let mut tampered = it.clone();
    let at = u.choose_index(it.signature.len() + statement.len())?;
    let flip = u.int_in_range(1..=u8::MAX)?;
    match tampered.signature.get_mut(at) {
        Some(byte) => *byte ^= flip,
        None => {
            let mut bytes = statement.to_vec();
            bytes.get_mut(at - it.signature.len()).into_iter().for_each(|byte| *byte ^= flip);
            tampered.statement = bytes.into();
        }
    }
    assert_eq!(believe(&tampered, &KEYS, about, geometry), Err(AttestError::Unsigned));
    Ok(())
}
