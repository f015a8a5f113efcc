//! Images made on the spot: of given layer sizes, incompressible, and the same for the same seed.
//!
//! Each layer is a tar with one file, so that what a runtime unpacked can be compared with what was put in.

use std::collections::BTreeMap;
use std::io::Write;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use shoal_model::{Digest, Rng};

const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX_TYPE: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG_TYPE: &str = "application/vnd.oci.image.config.v1+json";

/// How layers are stored in the registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// A plain tar.
    Tar,
    /// A gzipped tar, as registries mostly hold.
    Gzip,
}

/// What an image is to be.
#[derive(Clone, Debug)]
pub struct ImageSpec {
    /// Its repository, such as `team/app`.
    pub repository: String,
    /// Its tag.
    pub tag: String,
    /// Bytes of the file in each layer.
    pub layers: Vec<usize>,
    /// How layers are stored.
    pub packing: Packing,
    /// Images of different seeds share no layer.
    pub seed: u64,
}

impl ImageSpec {
    /// An image `<repository>:v1` with one gzipped layer.
    pub fn new(repository: &str, layer: usize) -> Self {
        Self {
            repository: repository.into(),
            tag: "v1".into(),
            layers: vec![layer],
            packing: Packing::Gzip,
            seed: 1,
        }
    }
}

/// A blob of an image.
#[derive(Clone, Debug)]
pub struct Blob {
    /// Its digest.
    pub digest: Digest,
    /// Its content.
    pub bytes: Bytes,
}

/// A finished image, in memory.
#[derive(Clone, Debug)]
pub struct Image {
    /// Its repository.
    pub repository: String,
    /// Its tag.
    pub tag: String,
    /// The manifest, which a registry stores under its digest and the tag.
    pub manifest: Blob,
    /// The config.
    pub config: Blob,
    /// The layers, lowest first.
    pub layers: Vec<Blob>,
    /// SHA-256 (hex) of each unpacked file, by its path.
    files: BTreeMap<String, String>,
}

impl Image {
    /// Makes an image.
    pub fn build(spec: &ImageSpec) -> Result<Self> {
        let mut layers = Vec::new();
        let mut diff_ids = Vec::new();
        let mut files = BTreeMap::new();
        for (number, size) in spec.layers.iter().enumerate() {
            let content = random_bytes(Rng::new(spec.seed << 16 | number as u64), *size);
            let path = format!("data/layer{number}.bin");
            let tar = tar_of(&path, &content).context("layer cannot be packed")?;
            files.insert(path, digest_of(&content).hex());
            diff_ids.push(digest_of(&tar).to_string());
            layers.push(Blob::new(match spec.packing {
                Packing::Tar => tar,
                Packing::Gzip => gzip(&tar).context("layer cannot be packed")?,
            }));
        }
        let config = config(&diff_ids);
        let manifest = manifest(&config, &layers, spec.packing);
        Ok(Self {
            repository: spec.repository.clone(),
            tag: spec.tag.clone(),
            manifest,
            config,
            layers,
            files,
        })
    }

    /// The config and all layers.
    pub fn blobs(&self) -> impl Iterator<Item = &Blob> {
        std::iter::once(&self.config).chain(&self.layers)
    }

    /// Bytes of all blobs.
    pub fn n_bytes(&self) -> u64 {
        self.blobs().map(|it| it.bytes.len() as u64).sum()
    }

    /// The manifest's media type.
    pub fn media_type(&self) -> &'static str {
        MANIFEST_TYPE
    }

    /// Fails unless a listing, as `sha256sum` prints it, holds just the image's files, each unchanged.
    pub fn check_files(&self, listing: &str) -> Result<()> {
        let unpacked: BTreeMap<String, String> = listing
            .lines()
            .filter_map(|line| line.split_once("  "))
            .map(|(sum, path)| (path.into(), sum.into()))
            .collect();
        ensure!(
            unpacked == self.files,
            "{}: unpacked {unpacked:?}, expected {:?}",
            self.repository,
            self.files
        );
        Ok(())
    }
}

/// The index of an image for several platforms.
#[derive(Clone, Debug)]
pub struct Index {
    /// Its repository, which has its images as well.
    pub repository: String,
    /// Its tag.
    pub tag: String,
    /// Its bytes, which a registry stores under their digest and the tag.
    pub bytes: Bytes,
}

impl Index {
    /// The media type of an index.
    pub const MEDIA_TYPE: &str = INDEX_TYPE;

    /// An index of images for Linux on these architectures. Beside each stands what builders add: an attestation.
    pub fn of(tag: &str, images: &[(&str, &Image)]) -> Self {
        let descriptor = |image: &Image, os: &str, architecture: &str| {
            let Blob { digest, bytes } = &image.manifest;
            json!({
                "mediaType": MANIFEST_TYPE,
                "digest": digest.to_string(),
                "size": bytes.len(),
                "platform": { "os": os, "architecture": architecture },
            })
        };
        let images_and_attestations = images.iter().flat_map(|(architecture, image)| {
            let mut attestation = descriptor(image, "unknown", "unknown");
            attestation["annotations"] = json!({ "vnd.docker.reference.type": "attestation-manifest" });
            [descriptor(image, "linux", architecture), attestation]
        });
        let manifests: Vec<_> = images_and_attestations.collect();
        let index = json!({ "schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": manifests });
        Self {
            repository: images.first().map(|(_, it)| it.repository.clone()).unwrap_or_default(),
            tag: tag.into(),
            bytes: index.to_string().into_bytes().into(),
        }
    }
}

impl Blob {
    fn new(bytes: Vec<u8>) -> Self {
        Self { digest: digest_of(&bytes), bytes: bytes.into() }
    }
}

fn digest_of(bytes: &[u8]) -> Digest {
    Digest::from_sha256(Sha256::digest(bytes).into())
}

fn random_bytes(mut rng: Rng, size: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        bytes.extend_from_slice(&rng.next_u64().to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}

fn tar_of(path: &str, content: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    let mut builder = tar::Builder::new(Vec::with_capacity(content.len() + 4096));
    builder.append_data(&mut header, path, content)?;
    builder.into_inner()
}

fn gzip(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    // Random bytes do not shrink, so the cheapest level loses nothing.
    let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len()), Compression::none());
    encoder.write_all(bytes)?;
    encoder.finish()
}

fn config(diff_ids: &[String]) -> Blob {
    let config = json!({
        "architecture": "amd64",
        "os": "linux",
        "created": "2020-01-01T00:00:00Z",
        "config": { "Cmd": ["/bin/true"] },
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    Blob::new(config.to_string().into_bytes())
}

fn manifest(config: &Blob, layers: &[Blob], packing: Packing) -> Blob {
    let layer_type = match packing {
        Packing::Tar => "application/vnd.oci.image.layer.v1.tar",
        Packing::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
    };
    let descriptor = |blob: &Blob, media_type| {
        let (digest, size) = (blob.digest.to_string(), blob.bytes.len());
        json!({ "mediaType": media_type, "digest": digest, "size": size })
    };
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": descriptor(config, CONFIG_TYPE),
        "layers": layers.iter().map(|it| descriptor(it, layer_type)).collect::<Vec<_>>(),
    });
    Blob::new(manifest.to_string().into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(seed: u64) -> ImageSpec {
        ImageSpec { layers: vec![1000, 70_000], seed, ..ImageSpec::new("team/app", 0) }
    }

    #[test]
    fn the_same_seed_makes_the_same_image() {
        let [one, same, other] = [1, 1, 2].map(|seed| Image::build(&spec(seed)).expect("builds"));
        assert_eq!(one.manifest.digest, same.manifest.digest);
        for (layer, other) in one.layers.iter().zip(&other.layers) {
            assert_ne!(layer.digest, other.digest);
        }
    }

    #[test]
    fn a_changed_or_missing_file_is_found() {
        let image = Image::build(&spec(1)).expect("builds");
        let listing: Vec<String> = image.files.iter().map(|(path, sum)| format!("{sum}  {path}")).collect();
        assert!(image.check_files(&listing.join("\n")).is_ok());
        assert!(image.check_files(&listing[0]).is_err());
        assert!(image.check_files(&listing.join("\n").replacen(['1', '2'], "3", 1)).is_err());
    }
}
