//! Where a blob's files lie: `<root>/<group>/<aa>/<hex>.data` and `.pieces`.
//!
//! A trust group is named by people and can hold any character and length, so its directory is a hash of
//! the name: nothing can climb out of the root, and no two groups meet on a case-blind volume. The name
//! itself stands in the journal's header. The level `<aa>` keeps directories short.

use std::path::{Path, PathBuf};

use shoal_model::BlobKey;

/// The two files of one blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Paths {
    /// The sparse file with the content.
    pub(crate) data: PathBuf,
    /// The append-only record of what is known and held.
    pub(crate) journal: PathBuf,
}

/// The extension of content files.
pub(crate) const DATA: &str = "data";
/// The extension of journals.
pub(crate) const JOURNAL: &str = "pieces";

impl Paths {
    /// The files of `key` below `root`.
    #[expect(clippy::string_slice, reason = "hex digits, of which there are always as many")]
    pub(crate) fn new(root: &Path, key: &BlobKey) -> Self {
        let group = blake3::hash(key.group.as_str().as_bytes()).to_hex();
        let name = key.digest.hex();
        let journal = root.join(&group[..32]).join(&name[..2]).join(name).with_extension(JOURNAL);
        Self { data: journal.with_extension(DATA), journal }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shoal_model::{Digest, TrustGroup};

    fn paths(group: &str) -> Paths {
        let key = BlobKey { group: TrustGroup::new(group), digest: Digest::from_sha256([0xab; 32]) };
        Paths::new(Path::new("/store/v1"), &key)
    }

    #[test]
    fn no_group_name_leaves_the_root() {
        for group in ["", "..", "/etc", "a/../../b", &"x".repeat(4096)] {
            let it = paths(group).journal;
            assert_eq!(it.components().count(), 6, "{}", it.display());
            assert!(it.starts_with("/store/v1") && it.ends_with(format!("ab/{}.pieces", "ab".repeat(32))));
        }
    }

    #[test]
    fn groups_do_not_share_files() {
        assert_ne!(paths("a.example").data, paths("A.example").data);
    }
}
