//! How a request for pieces names what it wants: `/pieces/<trust group>/<sha256 in hex>`, the bytes in
//! `Range`, the ticket in a header of its own. Client and server share this one reading.
//!
//! The trust group is percent-encoded, since a configured name may hold any character; decoding has to
//! give valid UTF-8 of a bounded length.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use shoal_model::{BlobKey, Digest, TrustGroup};

/// What the path of every request for pieces begins with.
pub(crate) const PREFIX: &str = "/pieces/";
/// The header that carries the ticket.
pub(crate) const TICKET: &str = "shoal-ticket";
/// The header that tells a node without a free upload slot from one that is out of order.
pub(crate) const BUSY: &str = "shoal-busy";
/// The header of a request that comes before others.
pub(crate) const URGENT: &str = "shoal-urgent";

/// The longest name of a trust group, in bytes; the wire contracts have the same bound.
const MAX_GROUP: usize = 512;
/// Left readable: what registry names are usually made of.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'.').remove(b'-').remove(b'_');

/// The path under which a node offers a blob's pieces.
pub fn write(key: &BlobKey) -> String {
    let group = utf8_percent_encode(key.group.as_str(), ENCODED);
    format!("{PREFIX}{group}/{}", key.digest.hex())
}

/// The blob that a request's path names.
pub fn read(path: &str) -> Option<BlobKey> {
    let (group, digest) = path.strip_prefix(PREFIX)?.split_once('/')?;
    let group = percent_decode_str(group).decode_utf8().ok()?;
    let digest = Digest::from_hex(digest).ok()?;
    (1..=MAX_GROUP).contains(&group.len()).then(|| BlobKey { group: TrustGroup::new(&group), digest })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_path_is_readable_and_safe_in_a_request_line() {
        let key = BlobKey {
            group: TrustGroup::new("registry.example:5000/a b"),
            digest: Digest::from_sha256([0xab; 32]),
        };
        let hex = "ab".repeat(32);
        assert_eq!(write(&key), format!("/pieces/registry.example%3A5000%2Fa%20b/{hex}"));
        for bad in [
            "/pieces/".to_owned(),
            format!("/pieces//{hex}"),
            format!("/pieces/{hex}"),
            format!("/pieces/%ff/{hex}"),
            format!("/pieces/a/{hex}/"),
            format!("/pieces/a/sha256:{hex}"),
            format!("/pieces/{}/{hex}", "a".repeat(MAX_GROUP + 1)),
            format!("/v2/a/{hex}"),
        ] {
            assert_eq!(read(&bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(group in "\\PC{1,100}", digest: [u8; 32]) {
            let key = BlobKey { group: TrustGroup::new(&group), digest: Digest::from_sha256(digest) };
            prop_assert_eq!(read(&write(&key)), Some(key));
        }

        #[test]
        fn no_path_makes_it_panic(path: String) {
            prop_assert_eq!(read(&format!("/pieces/{path}/z")), None);
        }
    }
}
