//! Pulls an image from a node's mirror as a runtime does: manifest, then config and layers in parallel.
//!
//! The client is `oci-client`, which owes Shoal nothing. It verifies digests itself, and refuses a manifest
//! that is another than its digest says. For blobs its verdict is only the end of the stream: their digests
//! are computed here too, while the bytes pass and nothing is kept. A blob that does not match is no error,
//! it is counted, because it is what the demo is to show; everything else that goes wrong is.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use futures_util::StreamExt;
use futures_util::future::try_join_all;
use indicatif::ProgressBar;
use oci_client::client::{ClientConfig, ClientProtocol, current_platform_resolver};
use oci_client::errors::DigestError;
use oci_client::manifest::{OciDescriptor, OciManifest};
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, Reference};
use rustls::crypto::ring;
use sha2::{Digest as _, Sha256};
use shoal_model::Digest;
use shoal_oci::manifest::{IMAGE_TYPES, INDEX_TYPES};

use crate::region::source::Source;

/// How long nothing may come before a pull counts as hung.
const PATIENCE: Duration = Duration::from_secs(60);
/// How many indexes may lead to the image: one usually, two where indexes are nested.
const MAX_INDEXES: usize = 2;

/// A client of one mirror, for one image.
pub(super) struct Puller {
    client: Client,
    image: Reference,
}

/// What one node pulled.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pulled {
    /// Bytes of the config and the layers.
    pub(super) n_bytes: u64,
    /// Contents whose digests were compared: manifests, config and layers.
    pub(super) n_digests: usize,
    /// Those that matched.
    pub(super) n_verified: usize,
    /// From the first request to the last byte.
    pub(super) elapsed: Duration,
}

impl Pulled {
    /// Whether every digest matched.
    pub(super) fn is_verified(&self) -> bool {
        self.n_verified == self.n_digests
    }
}

impl Puller {
    /// Will pull the image from the mirror at this address.
    pub(super) fn new(source: &Source, mirror: SocketAddr) -> Result<Self> {
        // The client makes itself ready for TLS, although a mirror on loopback speaks none. The provider can
        // be chosen once in a process, which is what an error here tells.
        let _chosen_before = ring::default_provider().install_default();
        let config = ClientConfig {
            protocol: ClientProtocol::Http,
            connect_timeout: Some(PATIENCE),
            read_timeout: Some(PATIENCE),
            // A proxy that the environment names is not for loopback. It is left aside only where another
            // one is given, and that one is excepted from every host.
            http_proxy: Some(format!("http://{mirror}")),
            no_proxy: Some("*".into()),
            ..ClientConfig::default()
        };
        let client = Client::try_from(config).context("no registry client")?;
        Ok(Self { client, image: source.through(mirror) })
    }

    /// Pulls the image; `bar` gets its size and moves with the bytes.
    pub(super) async fn pull(&self, bar: &ProgressBar) -> Result<Pulled> {
        let start = Instant::now();
        let mut pulled = Pulled::default();
        let blobs = self.resolve(&mut pulled).await.with_context(|| self.image.to_string())?;
        bar.set_length(blobs.iter().map(|it| it.size.unsigned_abs()).sum());
        let matches = try_join_all(blobs.iter().map(async |it| {
            self.blob(it, bar).await.with_context(|| format!("{}: blob {}", self.image, it.digest))
        }));
        let matches = matches.await?;
        pulled.n_bytes = bar.position();
        pulled.n_digests += matches.len();
        pulled.n_verified += matches.into_iter().filter(|it| *it).count();
        pulled.elapsed = start.elapsed();
        Ok(pulled)
    }

    /// The config and layers of the image, of this machine's platform where there are several.
    async fn resolve(&self, pulled: &mut Pulled) -> Result<Vec<OciDescriptor>> {
        let accepted = [IMAGE_TYPES, INDEX_TYPES].concat();
        let mut image = self.image.clone();
        for _ in 0..=MAX_INDEXES {
            let manifest = self.client.pull_manifest_raw(&image, &RegistryAuth::Anonymous, &accepted);
            let (content, digest) = manifest.await?;
            pulled.n_digests += 1;
            pulled.n_verified += usize::from(digest_of(Sha256::new_with_prefix(&content)) == digest);
            match serde_json::from_slice(&content)? {
                OciManifest::Image(it) => return Ok([vec![it.config], it.layers].concat()),
                OciManifest::ImageIndex(it) => {
                    let digest = current_platform_resolver(&it.manifests);
                    image = image.clone_with_digest(digest.context("no image for this machine's platform")?);
                }
            }
        }
        bail!("more than {MAX_INDEXES} indexes lead to the image")
    }

    /// Reads a blob and tells whether it is what its digest says.
    async fn blob(&self, blob: &OciDescriptor, bar: &ProgressBar) -> Result<bool> {
        let mut stream = self.client.pull_blob_stream(&self.image, blob).await?;
        let mut sha = Sha256::new();
        let mut n_bytes = 0;
        while let Some(bytes) = stream.next().await {
            match bytes {
                Ok(bytes) => {
                    sha.update(&bytes);
                    n_bytes += bytes.len() as u64;
                    bar.inc(bytes.len() as u64);
                }
                Err(error) if is_mismatch(&error) => break,
                Err(error) => return Err(error).with_context(|| format!("broken after {n_bytes} bytes")),
            }
        }
        Ok(i64::try_from(n_bytes) == Ok(blob.size) && digest_of(sha) == blob.digest)
    }
}

fn digest_of(content: Sha256) -> String {
    Digest::from_sha256(content.finalize().into()).to_string()
}

/// Whether this is what the client says at the end of a blob that is another than its digest says.
fn is_mismatch(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|it| it.is::<DigestError>())
}

#[cfg(test)]
mod tests {
    use shoal_tests::image::{Image, ImageSpec};

    use super::super::registry::Throwaway;
    use super::*;

    #[tokio::test]
    async fn a_layer_that_is_not_what_its_digest_says_is_counted_and_no_error() {
        let mut image = Image::build(&ImageSpec::new("demo/app", 1 << 20)).unwrap();
        for (is_spoilt, n_verified) in [(false, 3), (true, 2)] {
            if is_spoilt {
                image.layers[0].bytes = vec![0; image.layers[0].bytes.len()].into();
            }
            let registry = Throwaway::start(&image).await.unwrap();
            let source = registry.source(&image).unwrap();
            // A registry is a mirror of itself.
            let mirror = source.registry.as_str().parse().unwrap();
            let pulled = Puller::new(&source, mirror).unwrap().pull(&ProgressBar::hidden()).await.unwrap();
            assert_eq!((pulled.n_verified, pulled.n_digests), (n_verified, 3));
        }
    }
}
