//! Image manifests and indexes, OCI and Docker schema 2: which blobs a manifest names.
//!
//! What a registry answers to a caller proves that the caller may have the blobs named there, so the
//! reading must not differ from the registry's and the runtime's. A document that is both a manifest and an
//! index could be read either way, and is refused; so is one whose `mediaType` contradicts its shape, and one
//! with keys that some readers take for others (`other_keys`). Docker schema 1 is refused as well: it states no
//! sizes. Refusing costs no pull: the manifest itself passes through untouched, and its
//! blobs are then proven one by one.
//!
//! Unknown fields and media types are fine, so artifacts (charts, signatures, models) are images here.

use std::fmt::Display;
use std::str::FromStr;

use serde::{Deserialize, Deserializer};

use crate::AnyDigest;
use crate::error::{ErrorCode, OciError};
use crate::other_keys::OtherKeys;
use crate::text::cut;

/// The longest manifest in bytes; registries take none that is longer.
pub const MAX_LEN: usize = 4 << 20;
/// The media types of a manifest that names one image's blobs.
pub const IMAGE_TYPES: [&str; 2] =
    ["application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json"];
/// The media types of an index that names other manifests.
pub const INDEX_TYPES: [&str; 2] =
    ["application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json"];
/// How the media types of layers begin that their licence keeps out of registries.
const FOREIGN_TYPES: [&str; 2] =
    ["application/vnd.oci.image.layer.nondistributable.", "application/vnd.docker.image.rootfs.foreign."];
const SCHEMA_VERSION: u32 = 2;
/// How much of what is wrong a message tells, in characters.
const MAX_FAULT: usize = 200;

/// What a manifest names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Manifest {
    /// The blobs of one image or artifact.
    Image {
        /// The configuration; of an artifact usually the empty JSON object.
        config: Descriptor,
        /// The layers, lowest first.
        layers: Vec<Descriptor>,
    },
    /// Other manifests, usually one per platform.
    Index {
        /// The manifests, preferred first.
        manifests: Vec<Descriptor>,
    },
}

/// Names one blob or manifest.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What the content is; empty where not stated.
    #[serde(default)]
    pub media_type: String,
    /// The content's digest.
    #[serde(deserialize_with = "from_text")]
    pub digest: AnyDigest,
    /// The content's length in bytes, as claimed.
    pub size: u64,
    /// What an image of an index runs on.
    pub platform: Option<Platform>,
    /// Other places that have the content, as sent.
    #[serde(default)]
    pub urls: Vec<String>,
    #[serde(flatten)]
    others: OtherKeys,
}

/// What an image runs on, in Go's words, for example `linux`, `arm64` and `v8`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Platform {
    /// The operating system.
    pub os: String,
    /// The processor architecture.
    pub architecture: String,
    /// Which kind of that architecture.
    pub variant: Option<String>,
    #[serde(flatten)]
    others: OtherKeys,
}

impl Descriptor {
    /// Whether the content is kept elsewhere (Windows base layers are), so that the registry cannot be
    /// counted on to have it.
    pub fn is_foreign(&self) -> bool {
        !self.urls.is_empty() || FOREIGN_TYPES.iter().any(|it| self.media_type.starts_with(it))
    }
}

impl Manifest {
    /// Reads a manifest as the registry sent it.
    ///
    /// ```
    /// use shoal_oci::manifest::Manifest;
    ///
    /// let index = Manifest::parse(br#"{"schemaVersion": 2, "manifests": []}"#);
    /// assert_eq!(index, Ok(Manifest::Index { manifests: vec![] }));
    /// ```
    pub fn parse(bytes: &[u8]) -> Result<Self, OciError> {
        if bytes.len() > MAX_LEN {
            return Err(invalid(format!("is {} bytes long, at most {MAX_LEN} are allowed", bytes.len())));
        }
        let document: Document = serde_json::from_slice(bytes).map_err(invalid)?;
        if document.schema_version != SCHEMA_VERSION {
            return Err(invalid(format!(
                "has schema version {}, only {SCHEMA_VERSION} is read",
                document.schema_version
            )));
        }
        document.into_manifest()
    }

    /// The blobs that an image names, configuration first; none of an index. A blob that is named
    /// twice comes twice.
    pub fn blobs(&self) -> impl Iterator<Item = &Descriptor> {
        let (config, layers) = match self {
            Self::Image { config, layers } => (Some(config), layers.as_slice()),
            Self::Index { .. } => (None, [].as_slice()),
        };
        config.into_iter().chain(layers)
    }
}

/// All fields that tell the kinds of manifest apart. A field given twice is an error of the reader.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    schema_version: u32,
    media_type: Option<String>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
    #[serde(flatten)]
    _others: OtherKeys,
}

impl Document {
    fn into_manifest(self) -> Result<Manifest, OciError> {
        let (manifest, contradicting) = match (self.config, self.layers, self.manifests) {
            (Some(config), layers, None) => {
                // Written by Go, an empty list may be `null`.
                let layers = layers.unwrap_or_default();
                (Manifest::Image { config, layers }, INDEX_TYPES)
            }
            (None, None, Some(manifests)) => (Manifest::Index { manifests }, IMAGE_TYPES),
            _ => return Err(invalid("is neither an image manifest nor an index")),
        };
        match self.media_type {
            Some(it) if contradicting.contains(&it.as_str()) => {
                Err(invalid(format!("states media type {it}, which it is not")))
            }
            _ => Ok(manifest),
        }
    }
}

fn invalid(fault: impl Display) -> OciError {
    // The reader's own words may repeat a whole string of the document.
    let fault = fault.to_string();
    let (shown, dots) = cut(&fault, MAX_FAULT);
    OciError::new(ErrorCode::ManifestInvalid, format!("manifest: {shown}{dots}"))
}

fn from_text<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: Display>,
{
    String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn descriptor(byte: u8) -> Value {
        json!({
            "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
            "digest": digest(byte).as_str(),
            "size": u64::from(byte),
        })
    }

    fn digest(byte: u8) -> AnyDigest {
        shoal_model::Digest::from_sha256([byte; 32]).into()
    }

    fn parse(document: &Value) -> Result<Manifest, OciError> {
        Manifest::parse(document.to_string().as_bytes())
    }

    #[track_caller]
    fn check_refused(document: Value, fault: &str) {
        let error = parse(&document).unwrap_err();
        assert_eq!(error.code, ErrorCode::ManifestInvalid);
        assert!(error.message.contains(fault), "{}", error.message);
    }

    #[test]
    fn an_image_names_its_config_and_layers() {
        for media_type in IMAGE_TYPES {
            let image = parse(&json!({
                "schemaVersion": 2,
                "mediaType": media_type,
                "config": descriptor(1),
                "layers": [descriptor(2), descriptor(3)],
                "annotations": { "unknown": "fields are fine" },
            }))
            .unwrap();
            let named: Vec<_> = image.blobs().map(|it| (it.digest.clone(), it.size)).collect();
            assert_eq!(named, [(digest(1), 1), (digest(2), 2), (digest(3), 3)]);
        }
    }

    #[test]
    fn an_index_names_manifests_and_no_blobs() {
        for media_type in INDEX_TYPES {
            let mut arm = descriptor(1);
            arm["platform"] = json!({ "os": "linux", "architecture": "arm64", "variant": "v8" });
            let index = parse(&json!({
                "schemaVersion": 2,
                "mediaType": media_type,
                "manifests": [arm, descriptor(2)],
            }))
            .unwrap();
            assert_eq!(index.blobs().count(), 0);
            let Manifest::Index { manifests } = index else {
                panic!("{media_type} is an index");
            };
            let platforms: Vec<_> = manifests.into_iter().map(|it| it.platform).collect();
            let arm64 = Platform {
                os: "linux".into(),
                architecture: "arm64".into(),
                variant: Some("v8".into()),
                others: OtherKeys,
            };
            assert_eq!(platforms, [Some(arm64), None]);
        }
    }

    #[test]
    fn an_artifact_is_an_image_of_any_media_type() {
        let artifact = parse(&json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.example.custom+json",
            "artifactType": "application/vnd.example.model",
            "config": descriptor(1),
            "layers": null,
        }));
        assert_eq!(artifact.unwrap().blobs().count(), 1);
    }

    #[test]
    fn foreign_layers_are_told_apart() {
        let is_foreign = |change: Value| {
            let mut layer = descriptor(1);
            for (key, value) in change.as_object().unwrap() {
                layer[key] = value.clone();
            }
            serde_json::from_value::<Descriptor>(layer).unwrap().is_foreign()
        };
        assert!(!is_foreign(json!({})));
        assert!(!is_foreign(json!({ "urls": [] })));
        assert!(is_foreign(json!({ "urls": ["https://example.com/layer"] })));
        for media_type in [
            "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
            "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        ] {
            assert!(is_foreign(json!({ "mediaType": media_type })));
        }
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        let both = json!({
            "schemaVersion": 2, "config": descriptor(1), "layers": [], "manifests": [descriptor(2)],
        });
        check_refused(both, "neither an image manifest nor an index");
        let index_called_image = json!({
            "schemaVersion": 2, "mediaType": IMAGE_TYPES[0], "manifests": [],
        });
        check_refused(index_called_image, "states media type");
        let image_called_index = json!({
            "schemaVersion": 2, "mediaType": INDEX_TYPES[1], "config": descriptor(1), "layers": [],
        });
        check_refused(image_called_index, "states media type");
        let twice = br#"{"schemaVersion": 2, "manifests": [], "manifests": []}"#;
        assert!(Manifest::parse(twice).is_err());
    }

    #[test]
    fn what_is_no_manifest_is_refused() {
        check_refused(json!([]), "manifest: ");
        check_refused(json!({ "schemaVersion": 2 }), "neither");
        check_refused(json!({ "schemaVersion": 2, "layers": [] }), "neither");
        check_refused(json!({ "schemaVersion": 1, "fsLayers": [] }), "schema version 1");
        for (key, value) in [
            ("digest", json!("sha256:abc")),
            ("size", json!(-1)),
            ("size", json!(1.0)),
            ("size", json!("1")),
            ("urls", json!(null)),
            ("platform", json!(["linux", "arm64", null])),
        ] {
            let mut layer = descriptor(1);
            layer[key] = value;
            check_refused(json!({ "schemaVersion": 2, "config": layer }), "manifest: ");
        }
        check_refused(json!([2, null, descriptor(1), [], null]), "manifest: ");
        let long = vec![b' '; MAX_LEN + 1];
        let error = Manifest::parse(&long).unwrap_err();
        assert_eq!(error.message, "manifest: is 4194305 bytes long, at most 4194304 are allowed");
    }

    #[test]
    fn of_a_long_text_in_the_wrong_place_a_message_repeats_the_beginning() {
        let error = parse(&json!("\n".repeat(5000))).unwrap_err();
        assert!(error.message.starts_with("manifest: invalid type: string \"\\n"), "{}", error.message);
        assert!(error.message.len() < 2 * MAX_FAULT);
    }

    #[test]
    fn a_size_is_written_as_a_whole_number() {
        for (size, expected) in [
            ("1", true),
            ("18446744073709551615", true),
            ("18446744073709551616", false),
            ("1e3", false),
            ("1.0", false),
            ("-0", false),
            ("01", false),
        ] {
            let text = json!({ "schemaVersion": 2, "config": descriptor(1) }).to_string();
            let text = text.replace(r#""size":1"#, &format!(r#""size":{size}"#));
            assert_eq!(Manifest::parse(text.as_bytes()).is_ok(), expected, "{text}");
        }
    }

    /// Where the objects of a document are, and their fields.
    type Objects = &'static [(&'static str, &'static [&'static str])];

    /// An image and an index with an object of each kind in them.
    fn documents() -> [(Value, Objects); 2] {
        const DESCRIPTOR: &[&str] = &["mediaType", "digest", "size"];
        let image = json!({
            "schemaVersion": 2,
            "mediaType": IMAGE_TYPES[0],
            "config": descriptor(1),
            "layers": [descriptor(2), descriptor(3)],
        });
        let mut arm = descriptor(1);
        arm["platform"] = json!({ "os": "linux", "architecture": "arm64", "variant": "v8" });
        let index = json!({ "schemaVersion": 2, "mediaType": INDEX_TYPES[0], "manifests": [arm] });
        let of_image: Objects = &[
            ("", &["schemaVersion", "mediaType", "config", "layers"]),
            ("/config", DESCRIPTOR),
            ("/layers/1", DESCRIPTOR),
        ];
        let of_index: Objects = &[
            ("", &["schemaVersion", "mediaType", "manifests"]),
            ("/manifests/0", &["mediaType", "digest", "size", "platform"]),
            ("/manifests/0/platform", &["os", "architecture", "variant"]),
        ];
        [(image, of_image), (index, of_index)]
    }

    /// Other spellings of a key that Go takes for it, chosen by the bits of `flips`, or the key itself.
    fn respelled(key: &str, flips: u32, is_unicode: bool) -> String {
        let respell = |(n, it): (usize, char)| match it.to_ascii_lowercase() {
            _ if flips >> n & 1 == 0 => it,
            's' if is_unicode => '\u{17f}',
            'k' if is_unicode => '\u{212a}',
            _ if it.is_ascii_uppercase() => it.to_ascii_lowercase(),
            _ => it.to_ascii_uppercase(),
        };
        key.chars().enumerate().map(respell).collect()
    }

    proptest! {
        #[test]
        fn a_second_spelling_of_a_key_is_refused_wherever_it_stands(
            is_index: bool, object: prop::sample::Index, key: prop::sample::Index,
            flips: u32, is_unicode: bool, is_first: bool,
        ) {
            let (document, objects) = &documents()[usize::from(is_index)];
            prop_assert!(parse(document).is_ok());
            let (path, fields) = object.get(objects);
            let field = key.get(fields);
            let object = document.pointer(path).unwrap();
            let forged = format!("{}:{}", json!(respelled(field, flips, is_unicode)), object[field]);
            // Written by hand, since an object in memory has each key once.
            let (text, object) = (document.to_string(), object.to_string());
            let inner = &object[1..object.len() - 1];
            let doubled = if is_first { format!("{{{forged},{inner}}}") } else { format!("{{{inner},{forged}}}") };
            let text = text.replacen(&object, &doubled, 1);
            prop_assert!(serde_json::from_str::<Value>(&text).is_ok(), "{}", text);
            prop_assert!(Manifest::parse(text.as_bytes()).is_err(), "{}", text);
        }

        #[test]
        fn any_bytes_are_a_manifest_or_refused(bytes: Vec<u8>) {
            if let Err(error) = Manifest::parse(&bytes) {
                prop_assert_eq!(error.code, ErrorCode::ManifestInvalid);
            }
        }
    }
}
