//! A registry that does what a test tells it, and a real gateway before it.

pub(crate) mod gateway;
pub(crate) mod managed;
pub(crate) mod registry;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU16, Ordering};

use sha2::{Digest as _, Sha256};
use shoal_model::Digest;

/// Content that no compression or repetition hides mistakes in.
pub(crate) fn content(seed: u64, len: usize) -> Vec<u8> {
    let mut rng = shoal_model::Rng::new(seed);
    let words = std::iter::repeat_with(|| rng.next_u64().to_le_bytes());
    words.flatten().take(len).collect()
}

/// An address of this process's own: nobody else has the port between its being chosen and its being used.
pub(crate) fn own_address() -> SocketAddr {
    static N_GIVEN: AtomicU16 = AtomicU16::new(0);
    let [.., high, low] = std::process::id().to_be_bytes();
    SocketAddr::from(([127, 77, high, low], 20_000 + N_GIVEN.fetch_add(1, Ordering::Relaxed)))
}

/// The digest of content.
pub(crate) fn digest(content: &[u8]) -> Digest {
    Digest::from_sha256(Sha256::digest(content).into())
}

/// An image manifest of one configuration and layers.
pub(crate) fn manifest(config: &[u8], layers: &[&[u8]]) -> Vec<u8> {
    let descriptor = |media_type: &str, content: &[u8]| {
        serde_json::json!({
            "mediaType": media_type,
            "digest": digest(content).to_string(),
            "size": content.len(),
        })
    };
    let layers: Vec<_> =
        layers.iter().map(|it| descriptor("application/vnd.oci.image.layer.v1.tar", it)).collect();
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("application/vnd.oci.image.config.v1+json", config),
        "layers": layers,
    });
    manifest.to_string().into_bytes()
}
