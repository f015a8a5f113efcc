//! Manifests: what is read of one is what a registry written in Go reads of it, since a manifest proves that its
//! reader may have the blobs that it names.

use arbitrary::{Result, Unstructured};
use shoal_oci::manifest::{Descriptor, IMAGE_TYPES, INDEX_TYPES, Manifest};

use crate::input::{parts, text, word};
use crate::json::Json;
use crate::oci_path::refused;

const DIGESTS: [&str; 3] =
    ["sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", "sha512:z", "blake3:Zm9v"];
const ODD_KEYS: [&str; 12] = [
    "Config",
    "LAYERS",
    "layer\u{17f}",
    "Manifests",
    "digest",
    "Digest",
    "si\u{17f}e",
    "annotations",
    "a",
    "A",
    "\u{212a}",
    "subject",
];

/// Takes a document.
pub fn check(data: &[u8]) {
    let Some(text) = text(data, document) else { return };
    match Manifest::parse(text.as_bytes()) {
        Ok(manifest) => taken(&text, &manifest),
        Err(error) => refused(&error),
    }
}

fn taken(text: &str, manifest: &Manifest) {
    let json: Json =
        serde_json::from_str(text).unwrap_or_else(|error| panic!("was read, and is none: {error}"));
    let list = |name| json.as_in_go(name).map_or(&[][..], Json::items);
    let (config, others, absent) = match manifest {
        Manifest::Image { .. } => (json.as_in_go("config"), list("layers"), "manifests"),
        Manifest::Index { .. } => (None, list("manifests"), "layers"),
    };
    assert!(json.as_in_go(absent).is_none_or(|it| matches!(it, Json::Other)), "could be read either way");
    let (mut read, mut named): (Vec<_>, Vec<_>) = (Vec::new(), config.into_iter().chain(others).collect());
    match manifest {
        Manifest::Image { config, layers } => {
            read.extend([config].into_iter().chain(layers));
            assert!(manifest.blobs().eq(read.iter().copied()));
        }
        Manifest::Index { manifests } => {
            read.extend(manifests);
            assert_eq!(manifest.blobs().count(), 0);
        }
    }
    assert_eq!(read.len(), named.len());
    read.into_iter().zip(named.drain(..)).for_each(|(read, named)| same(read, named));
}

fn same(read: &Descriptor, named: &Json) {
    assert!(
        matches!(named.as_in_go("digest"), Some(Json::Text(it)) if it == read.digest.as_str()),
        "{named:?}"
    );
    assert!(matches!(named.as_in_go("size"), Some(Json::Number(it)) if *it == read.size), "{named:?}");
    let urls = named.as_in_go("urls").map_or(&[][..], Json::items);
    assert_eq!(read.urls.len(), urls.len());
    assert!(read.urls.is_empty() || read.is_foreign());
}

// === nearly valid documents ===

fn document(u: &mut Unstructured<'_>) -> Result<String> {
    let kind = *u.choose(&[IMAGE_TYPES[0], IMAGE_TYPES[1], INDEX_TYPES[0], "x"])?;
    let mut entries = vec![("schemaVersion", word(u, &["2", "2", "1", "\"2\""])?.to_owned())];
    entries.push(("mediaType", format!("{kind:?}")));
    entries.push(("config", descriptor(u)?));
    let mut layers = Vec::new();
    parts(u, 3, |u| {
        layers.push(descriptor(u)?);
        Ok(())
    })?;
    let is_index = INDEX_TYPES.contains(&kind);
    entries.push((if is_index { "manifests" } else { "layers" }, format!("[{}]", layers.join(","))));
    if is_index {
        entries.retain(|(key, _)| *key != "config");
    }
    object(u, entries)
}

fn descriptor(u: &mut Unstructured<'_>) -> Result<String> {
    let digest = word(u, &DIGESTS)?;
    let mut entries = vec![
        ("mediaType", "\"application/vnd.oci.image.layer.v1.tar+gzip\"".to_owned()),
        ("digest", format!("{digest:?}")),
        ("size", word(u, &["0", "1", "18446744073709551615", "-1", "1.0", "1e3"])?.to_owned()),
    ];
    if u.ratio(1, 4)? {
        entries.push(("urls", word(u, &["[]", "[\"https://a.example\"]", "null", "[1]"])?.to_owned()));
    }
    if u.ratio(1, 4)? {
        let platform = vec![("os", "\"linux\"".to_owned()), ("architecture", "\"amd64\"".to_owned())];
        entries.push(("platform", object(u, platform)?));
    }
    object(u, entries)
}

/// An object that may lack an entry, and may have others.
fn object(u: &mut Unstructured<'_>, mut entries: Vec<(&str, String)>) -> Result<String> {
    if u.ratio(1, 8)? {
        entries.remove(u.choose_index(entries.len())?);
    }
    let mut entries: Vec<_> = entries.iter().map(|(key, value)| format!("{key:?}:{value}")).collect();
    if u.ratio(1, 4)? {
        let at = u.int_in_range(0..=entries.len())?;
        let (key, value) = (word(u, &ODD_KEYS)?, word(u, &["1", "null", "[]", "{}", "\"x\"", "{\"a\":1}"])?);
        entries.insert(at, format!("{key:?}:{value}"));
    }
    Ok(format!("{{{}}}", entries.join(",")))
}
