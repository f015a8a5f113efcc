//! A gateway's signed word about pieces of a blob.
//!
//! Piece digests reach a node by way of other nodes, and none of them need be believed: the digests
//! travel in the very bytes that a gateway signed. A statement counts only for the blob and the geometry
//! that the receiver already knows, since a statement about another blob is as well signed, and a piece
//! number means nothing under another cut.
//!
//! Which epochs still count is the receiver's business: a signature does not grow stale.

use ed25519_dalek::{Signature, Signer as _, SigningKey};
use shoal_model::BlobKey;
use shoal_proto::{Attestation, Malformed, Statement};
use shoal_swarm::Geometry;

use crate::RegionKeys;

/// Signs statements for a gateway.
pub struct Signer(SigningKey);

impl Signer {
    /// Takes the 32 secret bytes of an Ed25519 key.
    pub fn new(seed: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(seed))
    }

    /// The public half, for [`shoal_proto::RegionState`].
    pub fn verifying_key(&self) -> [u8; 32] {
        self.0.verifying_key().to_bytes()
    }

    /// Signs a statement in its encoded form.
    pub fn attest(&self, statement: Statement) -> Attestation {
        let statement = statement.encode();
        let signature = self.0.sign(&signed_bytes(&statement)).to_bytes();
        Attestation { statement, signature }
    }
}

/// Why an attestation is not believed. The peer that sent it is at fault: an honest one checks before
/// it passes on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AttestError {
    /// None of the region's keys made the signature.
    #[error("attestation: not signed by a gateway of this region")]
    Unsigned,
    /// Well signed, but this build cannot read it.
    #[error("attestation: {0}")]
    Malformed(#[from] Malformed),
    /// It speaks of something else than asked.
    #[error("attestation: is about {stated}, not {expected}")]
    OtherBlob {
        /// What was signed.
        stated: BlobKey,
        /// What the receiver fetches.
        expected: BlobKey,
    },
    /// It cuts the blob in another way than the receiver does.
    #[error(
        "attestation: {key} is {} bytes in pieces of {}, not {} in pieces of {}",
        stated.size(), stated.piece_length(), expected.size(), expected.piece_length()
    )]
    OtherGeometry {
        /// The blob.
        key: BlobKey,
        /// What was signed.
        stated: Geometry,
        /// What the receiver was told when it opened the blob.
        expected: Geometry,
    },
}

/// Reads the statement in an attestation about `key`, cut as `geometry`, after its signature has proven
/// good under one of the region's `keys`.
pub fn check(
    attestation: &Attestation,
    keys: &RegionKeys,
    key: &BlobKey,
    geometry: &Geometry,
) -> Result<Statement, AttestError> {
    let signature = Signature::from_bytes(&attestation.signature);
    let signed = signed_bytes(&attestation.statement);
    if !keys.iter().any(|it| it.verify_strict(&signed, &signature).is_ok()) {
        return Err(AttestError::Unsigned);
    }
    let statement = Statement::decode(&attestation.statement)?;
    if statement.key != *key {
        return Err(AttestError::OtherBlob { stated: statement.key, expected: key.clone() });
    }
    if statement.geometry != *geometry {
        return Err(AttestError::OtherGeometry {
            key: statement.key,
            stated: statement.geometry,
            expected: *geometry,
        });
    }
    Ok(statement)
}

fn signed_bytes(statement: &[u8]) -> Vec<u8> {
    [Attestation::CONTEXT, statement].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{key, region_keys};
    use proptest::prelude::*;

    fn statement() -> Statement {
        Statement {
            key: key(1),
            geometry: Geometry::by_rule(1 << 20),
            epoch: 7,
            first: 1,
            digests: vec![[9; 32]; 2],
            sealed: false,
        }
    }

    #[track_caller]
    fn check_against(
        keys: &RegionKeys,
        about: &BlobKey,
        size: u64,
        expected: Result<Statement, AttestError>,
    ) {
        let attestation = Signer::new(&[1; 32]).attest(statement());
        let seen = check(&attestation, keys, about, &Geometry::by_rule(size));
        assert_eq!(seen, expected);
    }

    #[test]
    fn a_statement_counts_for_its_own_blob_under_any_key_of_the_region() {
        check_against(&region_keys(&[1]), &key(1), 1 << 20, Ok(statement()));
        check_against(&region_keys(&[3, 2, 1]), &key(1), 1 << 20, Ok(statement()));
        check_against(&region_keys(&[2, 3]), &key(1), 1 << 20, Err(AttestError::Unsigned));
        check_against(&region_keys(&[]), &key(1), 1 << 20, Err(AttestError::Unsigned));
        check_against(
            &region_keys(&[1]),
            &key(2),
            1 << 20,
            Err(AttestError::OtherBlob { stated: key(1), expected: key(2) }),
        );
        check_against(
            &region_keys(&[1]),
            &key(1),
            2 << 20,
            Err(AttestError::OtherGeometry {
                key: key(1),
                stated: Geometry::by_rule(1 << 20),
                expected: Geometry::by_rule(2 << 20),
            }),
        );
    }

    #[test]
    fn a_signature_made_for_another_purpose_is_no_attestation() {
        let statement = statement().encode();
        let signature = SigningKey::from_bytes(&[1; 32]).sign(&statement).to_bytes();
        let forged = Attestation { statement, signature };
        let seen = check(&forged, &region_keys(&[1]), &key(1), &Geometry::by_rule(1 << 20));
        assert_eq!(seen, Err(AttestError::Unsigned));
    }

    proptest! {
        #[test]
        fn no_altered_attestation_is_believed(at: prop::sample::Index, flip in 1u8..=255) {
            let mut attestation = Signer::new(&[1; 32]).attest(statement());
            let mut bytes = attestation.statement.to_vec();
            let at = at.index(bytes.len() + 64);
            match bytes.get_mut(at) {
                Some(byte) => *byte ^= flip,
                None => attestation.signature[at - bytes.len()] ^= flip,
            }
            attestation.statement = bytes.into();
            let seen = check(&attestation, &region_keys(&[1]), &key(1), &Geometry::by_rule(1 << 20));
            prop_assert_eq!(seen, Err(AttestError::Unsigned));
        }
    }
}
