//! Objects of which every reader sees the same fields.
//!
//! JSON leaves open which of two equal keys counts, and readers differ in what they take for equal. Those
//! written in Go, as most registries are, take a key for a field if they agree but for case, by Unicode's rules
//! (`Layers`, `layerſ`), and the last one counts. A document with both `layers` and `Layers` therefore names one
//! list to such a registry, which makes sure that it has those blobs, and another to a reader that goes by the
//! letter. What such a document names proves nothing, so it is not read at all.
//!
//! A struct that has [`OtherKeys`] flattened into it is read from an object only, never from a list of its
//! fields' values, and only where no key could be taken for one of its fields, or for another key. A field of its
//! own that comes twice is an error of the derived reader.

use std::collections::BTreeSet;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, Visitor};

use crate::text::quoted;

/// The names of all fields that are read of manifests, whichever object they stand in.
const FIELDS: [&str; 12] = [
    "schemaVersion",
    "mediaType",
    "config",
    "layers",
    "manifests",
    "digest",
    "size",
    "platform",
    "urls",
    "os",
    "architecture",
    "variant",
];

/// The keys of an object that are not read, of which none is ambiguous.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OtherKeys;

impl<'de> Deserialize<'de> for OtherKeys {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Check)
    }
}

struct Check;

impl<'de> Visitor<'de> for Check {
    type Value = OtherKeys;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<OtherKeys, A::Error> {
        let mut seen = BTreeSet::new();
        while let Some((key, IgnoredAny)) = entries.next_entry::<String, _>()? {
            let is_field = FIELDS.iter().any(|it| it.eq_ignore_ascii_case(&key));
            // Among ASCII letters, case is all that readers fold.
            if is_field || !key.is_ascii() || !seen.insert(key.to_ascii_lowercase()) {
                return Err(Error::custom(format!("key {}: could be taken for another", quoted(&key))));
            }
        }
        Ok(OtherKeys)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Deserialize)]
    struct Object {
        size: u64,
        #[serde(flatten)]
        _others: OtherKeys,
    }

    #[track_caller]
    fn check(text: &str, expected: Option<u64>) {
        let read = serde_json::from_str::<Object>(text);
        assert_eq!(read.ok().map(|it| it.size), expected, "{text}");
    }

    #[test]
    fn keys_that_nobody_could_confuse_are_fine() {
        check(r#"{"size": 1}"#, Some(1));
        check(r#"{"a": {"Size": 2}, "\u0073ize": 1, "b": [], "os.version": "1"}"#, Some(1));
    }

    #[test]
    fn a_key_that_could_be_taken_for_another_is_refused() {
        for key in ["Size", "SIZE", "si\u{17f}e", "\u{17f}ize", "\\u017fize", "Digest", "layer\u{17f}", "ä"]
        {
            check(&format!(r#"{{"size": 1, "{key}": 2}}"#), None);
            check(&format!(r#"{{"{key}": 2, "size": 1}}"#), None);
        }
        for twice in [r#""size": 2"#, r#""a": 1, "a": 1"#, r#""a": 1, "A": 1"#, r#""\ud800": 1"#] {
            check(&format!(r#"{{"size": 1, {twice}}}"#), None);
        }
    }

    #[test]
    fn a_list_is_no_object() {
        check("[1]", None);
        check("[1, {}]", None);
    }
}
