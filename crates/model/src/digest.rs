//! The identity of immutable content: `sha256:<64 lower-case hex digits>`.
//!
//! Shoal swarms SHA-256 content only. Other algorithms that OCI registers (sha512) are valid in a
//! request path, and such requests go straight through to the registry; see `shoal_oci::path`.

use std::fmt;
use std::str::FromStr;

/// A SHA-256 content digest, 32 bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

/// Why a text is not a SHA-256 digest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a digest of the form sha256:<64 lower-case hex digits>")]
pub struct DigestError(pub String);

impl Digest {
    /// Wraps a finished SHA-256 sum.
    pub const fn from_sha256(sum: [u8; 32]) -> Self {
        Self(sum)
    }

    /// The 32 bytes of the sum.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The 64 hex digits without the algorithm.
    pub fn hex(&self) -> String {
        hex::encode(self.0)
    }

    /// Parses the 64 hex digits without the algorithm, as file names and piece paths carry them.
    pub fn from_hex(text: &str) -> Result<Self, DigestError> {
        let refuse = || DigestError(text.chars().take(80).collect());
        if text.bytes().any(|it| it.is_ascii_uppercase()) {
            return Err(refuse());
        }
        let mut sum = [0; 32];
        hex::decode_to_slice(text, &mut sum).map_err(|_| refuse())?;
        Ok(Self(sum))
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        text.strip_prefix("sha256:")
            .and_then(|hex| Self::from_hex(hex).ok())
            .ok_or_else(|| DigestError(text.chars().take(80).collect()))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_canonical_text_is_a_digest() {
        let hex = "ab".repeat(32);
        assert_eq!(
            format!("sha256:{hex}").parse::<Digest>().map(|it| it.to_string()),
            Ok(format!("sha256:{hex}"))
        );
        for bad in [
            "",
            "sha256:",
            &hex,
            &format!("sha256:{}", "AB".repeat(32)),
            &format!("sha256:{hex}0"),
            &format!("sha512:{hex}"),
            "sha256:../../etc/passwd",
        ] {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
    }
}
