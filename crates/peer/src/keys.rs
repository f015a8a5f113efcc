//! The region's verifying keys.
//!
//! Gateways sign tickets and attestations with Ed25519; every node checks both against the keys that its
//! gateway told it. There are several while a key is being rotated, and one per gateway where gateways
//! do not share a key. A signature does not always say which key made it, and then each is tried, so
//! their number has a cap.

use ed25519_dalek::VerifyingKey;

/// The most keys that a region may have.
pub const MAX_KEYS: usize = 16;

/// Why a list of keys is refused as a whole.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Trying them all would cost too much.
    #[error("region keys: {0} seen, {MAX_KEYS} allowed")]
    TooMany(usize),
    /// Not a point of the curve, or one that anybody can sign for.
    #[error("region keys: {0} is not a usable Ed25519 public key")]
    Unusable(String),
}

/// Public keys whose signatures this node believes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegionKeys(Vec<VerifyingKey>);

impl RegionKeys {
    /// Takes keys of 32 bytes each, as [`shoal_proto::RegionState`] carries them.
    pub fn parse(keys: &[[u8; 32]]) -> Result<Self, KeyError> {
        if keys.len() > MAX_KEYS {
            return Err(KeyError::TooMany(keys.len()));
        }
        keys.iter().map(usable).collect::<Result<_, _>>().map(Self)
    }

    /// What [`RegionKeys::parse`] takes.
    pub fn to_bytes(&self) -> Vec<[u8; 32]> {
        self.0.iter().map(VerifyingKey::to_bytes).collect()
    }

    /// The keys, in the order in which they were told.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &VerifyingKey> {
        self.0.iter()
    }
}

fn usable(key: &[u8; 32]) -> Result<VerifyingKey, KeyError> {
    VerifyingKey::from_bytes(key)
        .ok()
        .filter(|it| !it.is_weak())
        .ok_or_else(|| KeyError::Unusable(key_id(key)))
}

/// How a key is named in a ticket's header and in errors: its first 8 bytes in hex.
pub(crate) fn key_id(key: &[u8; 32]) -> String {
    key.iter().take(8).map(|it| format!("{it:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ed25519_dalek::SigningKey;

    #[test]
    fn only_a_short_list_of_usable_keys_is_taken() {
        let good = SigningKey::from_bytes(&[1; 32]).verifying_key().to_bytes();
        assert_eq!(RegionKeys::parse(&[good; 3]).map(|it| it.iter().count()), Ok(3));
        assert_eq!(RegionKeys::parse(&[good; 17]).map(|_| ()), Err(KeyError::TooMany(17)));
        // The neutral element: any signature with a matching R verifies under it.
        let mut weak = [0; 32];
        weak[0] = 1;
        assert_eq!(
            RegionKeys::parse(&[good, weak]).map(|_| ()),
            Err(KeyError::Unusable("0100000000000000".into()))
        );
    }
}
