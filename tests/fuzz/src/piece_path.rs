//! The paths of pieces: one that is read names a blob whose path reads back, and goes into a request line.

use arbitrary::{Result, Unstructured};
use http::Uri;
use shoal_model::{BlobKey, Digest, TrustGroup};
use shoal_peer::piece_path::{read, write};

use crate::input::{choices, word};

/// The longest name of a trust group, in bytes.
const MAX_GROUP: usize = 512;

/// Takes a path, or choices for the blob that one is to name.
pub fn check(data: &[u8]) {
    match choices(data) {
        None => {
            let read = std::str::from_utf8(data).ok().and_then(read);
            read.into_iter().for_each(|key| reads_back(&key));
        }
        Some(mut u) => {
            let key = blob(&mut u).ok().filter(|it| (1..=MAX_GROUP).contains(&it.group.as_str().len()));
            key.into_iter().for_each(|key| reads_back(&key));
        }
    }
}

fn blob(u: &mut Unstructured<'_>) -> Result<BlobKey> {
    let group = word(u, &["registry.example:5000", "[fd00::1]:80", "a b", "..", "/", "%", "é"])?;
    Ok(BlobKey { group: TrustGroup::new(group), digest: Digest::from_sha256(u.arbitrary()?) })
}

fn reads_back(key: &BlobKey) {
    let path = write(key);
    assert_eq!(read(&path).as_ref(), Some(key));
    let uri = path.parse::<Uri>();
    assert_eq!(uri.as_ref().map(Uri::path).ok(), Some(path.as_str()));
    assert_eq!(path.matches('/').count(), 3, "{path}");
}
