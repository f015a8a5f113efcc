//! A settings document as a tree: parsing it, finding a key in it, comparing two.
//!
//! The document is an operator's, so it is bounded (1 MiB), may name no key twice, and parse errors quote
//! nothing of it: a quoted line could hold a password. A key is quoted, with what is not to be printed escaped.

use std::borrow::Cow;

use serde_json::{Map, Value};

/// The largest document that is read, in bytes.
pub(super) const MAX_BYTES: usize = 1 << 20;

/// How alike (0 to 1) two names must be for one to be suggested for the other: two letters swapped out of three.
const ALIKE: f64 = 0.6;

/// Reads a document into its groups; an empty one is no group.
pub(super) fn parse(yaml: &str) -> Result<Value, String> {
    if yaml.len() > MAX_BYTES {
        let len = yaml.len();
        return Err(format!("the settings document has {len} bytes; {MAX_BYTES} are allowed"));
    }
    let options = serde_saphyr::options! {
        with_snippet: false,
        strict_booleans: true,
        // `0123` stays the text that was written, also where a password is meant.
        leading_zero_numbers_as_strings: true,
    };
    match serde_saphyr::from_str_with_options(yaml, options) {
        Ok(tree @ (Value::Object(_) | Value::Null)) => Ok(tree),
        Ok(_) => Err("the settings document is not a group of settings".into()),
        Err(err) => Err(format!("the settings document is not valid YAML: {err}")),
    }
}

/// The value at a key path such as `download.pieceSize`.
pub(super) fn lookup<'a>(tree: &'a Value, key: &str) -> Option<&'a Value> {
    key.split('.').try_fold(tree, |at, name| at.get(name))
}

/// The text of a single value; otherwise what stands there instead.
pub(super) fn text(value: &Value) -> Result<Cow<'_, str>, &'static str> {
    match value {
        Value::Null => Ok(Cow::Borrowed("")),
        Value::Bool(it) => Ok(Cow::Owned(it.to_string())),
        Value::String(it) => Ok(Cow::Borrowed(it)),
        // A fraction has lost the form it was written in (1.10), and no setting is one.
        Value::Number(it) if it.is_f64() => Err("a fraction"),
        Value::Number(it) => Ok(Cow::Owned(it.to_string())),
        Value::Array(_) => Err("a list"),
        Value::Object(_) => Err("a group"),
    }
}

/// The paths of all values that are not groups.
pub(super) fn leaves(tree: &Value) -> Vec<String> {
    let is_leaf = |(path, value): (String, &Value)| (!value.is_object()).then_some(path);
    paths(tree).into_iter().filter_map(is_leaf).collect()
}

/// What is wrong with the keys of `user`, each mistake beginning with the key's path.
pub(super) fn unknown_keys(user: &Value, default: &Value) -> Vec<String> {
    let known: Vec<String> = paths(default).into_iter().map(|(path, _)| path).collect();
    let mut mistakes = Vec::new();
    compare("", user, default, &mut |path, fault| {
        mistakes.push(match (fault, nearest(path, &known)) {
            (Fault::NotAGroup, _) => format!("{path} is not a group of settings"),
            (Fault::Unknown, Some(near)) => format!("{path} is not a setting; did you mean {near}?"),
            (Fault::Unknown, None) => format!("{path} is not a setting"),
        });
    });
    mistakes
}

enum Fault {
    Unknown,
    NotAGroup,
}

/// Reports every path of `user` that `default` does not have or has as a group.
fn compare(prefix: &str, user: &Value, default: &Value, report: &mut impl FnMut(&str, Fault)) {
    for (name, value) in user.as_object().into_iter().flatten() {
        let path = join(prefix, name);
        match default.get(name) {
            None => report(&path, Fault::Unknown),
            Some(Value::Object(_)) if value.is_null() => {}
            Some(Value::Object(_)) if !value.is_object() => report(&path, Fault::NotAGroup),
            Some(group @ Value::Object(_)) => compare(&path, value, group, report),
            // Lists have templates of their own, and a leaf is checked when it is read.
            Some(_) => {}
        }
    }
}

/// The known key that was probably meant: one of a like name, rather in the same group than in another.
fn nearest<'a>(path: &str, known: &'a [String]) -> Option<&'a str> {
    let alike = strsim::normalized_damerau_levenshtein;
    known
        .iter()
        .map(|it| (alike(last(path), last(it)), alike(path, it), it.as_str()))
        .filter(|(name, _, _)| *name >= ALIKE)
        .max_by(|left, right| left.0.total_cmp(&right.0).then(left.1.total_cmp(&right.1)))
        .map(|(_, _, it)| it)
}

fn last(path: &str) -> &str {
    path.rsplit('.').next().unwrap_or(path)
}

/// Every path of the tree, groups before their children.
fn paths(tree: &Value) -> Vec<(String, &Value)> {
    fn walk<'a>(prefix: &str, group: &'a Map<String, Value>, out: &mut Vec<(String, &'a Value)>) {
        for (name, value) in group {
            let path = join(prefix, name);
            out.push((path.clone(), value));
            if let Value::Object(group) = value {
                walk(&path, group, out);
            }
        }
    }
    let mut out = Vec::new();
    if let Value::Object(group) = tree {
        walk("", group, &mut out);
    }
    out
}

fn join(prefix: &str, name: &str) -> String {
    let name = name.escape_debug();
    if prefix.is_empty() {
        return name.to_string();
    }
    format!("{prefix}.{name}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DEFAULT: &str = "download: {pieceSize: 4Mi, retry: {attempts: 3}}\nlisten: ''\nlist: []";

    #[track_caller]
    fn check(user: &str, expected: &[&str]) {
        let (user, default) = (parse(user).unwrap(), parse(DEFAULT).unwrap());
        assert_eq!(unknown_keys(&user, &default), expected);
    }

    #[test]
    fn unknown_keys_are_found_and_the_nearest_suggested() {
        check("download: {pieceSize: 1, retry: }", &[]);
        check("list: [{a: b}]", &[]);
        check("downlod: {}", &["downlod is not a setting; did you mean download?"]);
        check("pieceSize: 1", &["pieceSize is not a setting; did you mean download.pieceSize?"]);
        check(
            "download: {retry: {attempt: 1}}",
            &["download.retry.attempt is not a setting; did you mean download.retry.attempts?"],
        );
        check("download: {lsten: 1}", &["download.lsten is not a setting; did you mean listen?"]);
        check("download: {quux: 1}", &["download.quux is not a setting"]);
        check("{\"a\\nb\": {\"\\e\": 1}}", &["a\\nb is not a setting"]);
        check("download: {\"\\e[2J\": 1}", &["download.\\u{1b}[2J is not a setting"]);
        check("quux: 1", &["quux is not a setting"]);
        check("download: 7", &["download is not a group of settings"]);
        check("download: [a]", &["download is not a group of settings"]);
    }

    #[test]
    fn values_keep_the_text_that_was_written() {
        let tree = parse("{a: 0123, b: yes, c: true, d: 17, e: 4Mi, f: 6h, g: , h: 1.10, i: '7'}").unwrap();
        let seen: Vec<_> = tree.as_object().unwrap().values().map(text).collect();
        let expected = ["0123", "yes", "true", "17", "4Mi", "6h", ""].map(|it| Ok(Cow::Borrowed(it)));
        assert_eq!(seen[..7], expected);
        assert_eq!(seen[7..], [Err("a fraction"), Ok(Cow::Borrowed("7"))]);
    }

    proptest! {
        #[test]
        fn no_document_makes_it_panic(yaml in "[a-z:{}\\[\\],'&*!|> \n-]{0,64}") {
            if let Ok(tree) = parse(&yaml) {
                unknown_keys(&tree, &parse(DEFAULT).unwrap());
            }
        }
    }
}
