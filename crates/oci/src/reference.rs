//! What a manifest is asked for by: a tag or a digest.
//!
//! A text with a colon can only be meant as a digest, since tags have none. A text that is neither is
//! told apart by that: a malformed digest is the caller's mistake (400), a malformed tag names a
//! manifest that cannot exist (404, which the protocol's conformance suite asks for).

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use shoal_model::Digest;

use crate::error::{ErrorCode, OciError};
use crate::text::{is_joined_words, quoted, reads_as_text};

const MAX_TAG: usize = 128;
/// The longest digest text in bytes. The longest registered one, SHA-512, takes 135.
const MAX_DIGEST: usize = 255;

/// A tag, for example `v1.2`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(Arc<str>);

reads_as_text!(Tag);

impl FromStr for Tag {
    type Err = OciError;

    fn from_str(text: &str) -> Result<Self, OciError> {
        let in_word = |it: char| it.is_ascii_alphanumeric() || it == '_';
        let allowed = |it: char| in_word(it) || it == '.' || it == '-';
        if text.len() <= MAX_TAG && text.starts_with(in_word) && text.chars().all(allowed) {
            return Ok(Self(text.into()));
        }
        Err(OciError::new(
            ErrorCode::ManifestUnknown,
            format!(
                "tag {}: not up to {MAX_TAG} letters, digits, _ . and -, the first neither . nor -",
                quoted(text)
            ),
        ))
    }
}

/// A digest by any algorithm, for example `sha256:9f86..`.
///
/// Shoal shares SHA-256 content only; requests for other digests are valid and go to the registry.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AnyDigest(Arc<str>);

reads_as_text!(AnyDigest);

impl AnyDigest {
    /// The digest as one that the swarm can use, or `None` for any other algorithm.
    pub fn sha256(&self) -> Option<Digest> {
        self.0.parse().ok()
    }
}

impl From<Digest> for AnyDigest {
    fn from(digest: Digest) -> Self {
        Self(digest.to_string().into())
    }
}

impl FromStr for AnyDigest {
    type Err = OciError;

    fn from_str(text: &str) -> Result<Self, OciError> {
        if is_digest(text) {
            return Ok(Self(text.into()));
        }
        Err(OciError::new(
            ErrorCode::DigestInvalid,
            format!(
                "digest {}: not of the form algorithm:encoded in at most {MAX_DIGEST} bytes",
                quoted(text)
            ),
        ))
    }
}

/// SHA-256 and SHA-512 fix the encoding; for others only the general grammar is known.
fn is_digest(text: &str) -> bool {
    let Some((algorithm, encoded)) = text.split_once(':') else {
        return false;
    };
    text.len() <= MAX_DIGEST
        && match algorithm {
            "sha256" => is_lower_hex(encoded, 64),
            "sha512" => is_lower_hex(encoded, 128),
            _ => {
                is_joined_words(algorithm, |it| matches!(it, "+" | "." | "_" | "-"))
                    && !encoded.is_empty()
                    && encoded.bytes().all(|it| it.is_ascii_alphanumeric() || b"=_-".contains(&it))
            }
        }
}

fn is_lower_hex(text: &str, len: usize) -> bool {
    text.len() == len && text.bytes().all(|it| matches!(it, b'0'..=b'9' | b'a'..=b'f'))
}

/// A tag or a digest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reference {
    /// Whatever the repository gives this name at present.
    Tag(Tag),
    /// This content and no other.
    Digest(AnyDigest),
}

impl FromStr for Reference {
    type Err = OciError;

    fn from_str(text: &str) -> Result<Self, OciError> {
        if text.contains(':') { text.parse().map(Self::Digest) } else { text.parse().map(Self::Tag) }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => tag.fmt(f),
            Self::Digest(digest) => digest.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(text: &str, expected: Result<(), ErrorCode>) {
        let parsed = text.parse::<Reference>();
        assert_eq!(parsed.map(drop).map_err(|it| it.code), expected, "{text:?}");
    }

    #[test]
    fn a_tag_is_a_word_of_bounded_length() {
        for good in ["latest", "V1.2-rc_3", "_", "0", &"a".repeat(128)] {
            check(good, Ok(()));
        }
        for bad in ["", ".hidden", "-dash", "a b", "a/b", "a%41", "ä", "a\0", &"a".repeat(129)] {
            check(bad, Err(ErrorCode::ManifestUnknown));
        }
    }

    #[test]
    fn a_known_algorithm_fixes_the_length_and_case_of_a_digest() {
        check(&format!("sha256:{}", "0a".repeat(32)), Ok(()));
        check(&format!("sha512:{}", "0a".repeat(64)), Ok(()));
        check("blake3:Zm9v", Ok(()));
        check("multihash+base58:QmRZxt2b1FVZPNqd8hsiykDL3TdBDeTSPX9Kv46HmX4Gx8", Ok(()));
        for bad in [
            ":",
            ":abc",
            "sha256:",
            "blake3:",
            "SHA256:abc",
            "a..b:c",
            "a:b:c",
            "blake3:a/b",
            "blake3:a%b",
            "sha256:../../etc/passwd",
            &format!("sha256:{}", "0A".repeat(32)),
            &format!("sha256:{}", "0a".repeat(64)),
            &format!("sha512:{}", "0a".repeat(32)),
            &format!("blake3:{}", "0a".repeat(128)),
        ] {
            check(bad, Err(ErrorCode::DigestInvalid));
        }
    }

    #[test]
    fn only_a_sha256_digest_can_enter_the_swarm() {
        let digest = Digest::from_sha256([7; 32]);
        assert_eq!(AnyDigest::from(digest).sha256(), Some(digest));
        let other = format!("sha512:{}", "07".repeat(64)).parse::<AnyDigest>().unwrap();
        assert_eq!(other.sha256(), None);
    }

    proptest! {
        #[test]
        fn any_text_is_kept_as_it_is_or_refused(
            text in "[a-z0-9.:_-]{0,20}|sha256:[0-9a-f]{62,66}|.*",
        ) {
            if let Ok(reference) = text.parse::<Reference>() {
                prop_assert_eq!(reference.to_string(), text);
            }
        }

        #[test]
        fn every_sha256_sum_is_a_digest_that_parses_back(sum: [u8; 32]) {
            let digest = AnyDigest::from(Digest::from_sha256(sum));
            prop_assert_eq!(digest.as_str().parse(), Ok(digest.clone()));
        }
    }
}
