//! Reads a service's settings out of two documents: its own defaults and the operator's changes.
//!
//! A default that stands in two places drifts, and a misspelt key that is ignored costs an outage. So the
//! defaults are one commented YAML document that ships in the binary, and every key that it does not have is
//! a mistake. Reading goes on after a mistake, with the default in its place, so that one start shows all of
//! them; [`Reader::finish`] then refuses.
//!
//! Rules at the edges: a key without a value (`pieceSize:`) keeps its default, except for
//! [`Reader::optional`], where it switches the setting off; a group without children keeps all of its
//! defaults; `${NAME}` in an operator's text is replaced from the environment. A mistake shows the text as it
//! was written, never what an expansion put there, and never a nested value: either could be a secret.
//!
//! Problems of the default document itself are bugs of the service, so they panic, and its tests find them.

mod document;
mod expand;
mod secret;
mod setting;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::RangeInclusive;
use std::rc::Rc;

use serde_json::Value;

pub use secret::{Secret, SecretSource};
pub use setting::{Ranged, Setting};

/// Everything that is wrong with a settings document, one line each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistakes(Vec<String>);

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let n = self.0.len();
        write!(f, "{n} mistake{}:", if n == 1 { "" } else { "s" })?;
        self.0.iter().try_for_each(|it| write!(f, "\n  {it}"))
    }
}

impl std::error::Error for Mistakes {}

/// One group of settings: a whole document, or one item of a list of groups.
///
/// Keys are paths such as `download.pieceSize`, relative to the group.
pub struct Reader {
    path: String,
    user: Value,
    default: Value,
    shared: Rc<Shared>,
}

/// Looks an environment variable up.
type Env = Box<dyn Fn(&str) -> Option<String>>;

/// What a document's reader and those of its list items have in common.
struct Shared {
    env: Env,
    notes: RefCell<Notes>,
}

#[derive(Default)]
struct Notes {
    mistakes: Vec<String>,
    known: BTreeSet<String>,
    read: BTreeSet<String>,
    in_force: BTreeMap<String, InForce>,
}

/// A setting as it counts, for people to see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InForce {
    /// Its key's full path.
    pub key: String,
    /// The text that was written for it, without what an expansion put there, and without secrets.
    pub text: String,
    /// Whether nobody has said otherwise.
    pub is_default: bool,
}

impl Reader {
    /// Starts reading `user_yaml` over `default_yaml`; `env` looks a variable up.
    ///
    /// A document that is no YAML or names unknown keys is a mistake like any other.
    pub fn new(user_yaml: &str, default_yaml: &str, env: impl Fn(&str) -> Option<String> + 'static) -> Self {
        let shared = Rc::new(Shared { env: Box::new(env), notes: RefCell::default() });
        let user = document::parse(user_yaml).unwrap_or_else(|mistake| {
            shared.mistake(mistake);
            Value::Null
        });
        Self::group(String::new(), user, default_yaml, shared)
    }

    #[expect(clippy::panic, reason = "a bug of the service, which its tests find")]
    fn group(path: String, user: Value, default_yaml: &str, shared: Rc<Shared>) -> Self {
        let default = document::parse(default_yaml)
            .unwrap_or_else(|mistake| panic!("the default settings of {path:?} are broken: {mistake}"));
        let reader = Self { path, user, default, shared };
        for mistake in document::unknown_keys(&reader.user, &reader.default) {
            reader.shared.mistake(reader.full(&mistake));
        }
        let known = document::leaves(&reader.default);
        let known = known.iter().map(|key| reader.full(key));
        reader.shared.notes.borrow_mut().known.extend(known);
        reader
    }

    /// The setting at `key`.
    pub fn get<T: Setting>(&self, key: &str) -> T {
        self.read(key, T::shown, T::read)
    }

    /// The setting at `key`, which must lie in `allowed`.
    pub fn get_in<T: Ranged>(&self, key: &str, allowed: RangeInclusive<T>) -> T {
        self.parse(key, |text| {
            let value = T::read(text)?;
            if allowed.contains(&value) {
                return Ok(value);
            }
            let (low, high) = (allowed.start().show(), allowed.end().show());
            Err(format!("is not from {low} to {high}"))
        })
    }

    /// The setting at `key`, made by `read`, whose error completes the sentence: `is not a URL`.
    pub fn parse<T>(&self, key: &str, read: impl Fn(&str) -> Result<T, String>) -> T {
        self.read(key, str::to_owned, read)
    }

    /// The setting at `key`, which the operator must give: the default is only an example of it.
    pub fn required<T: Setting>(&self, key: &str) -> T {
        if self.given(key).is_some_and(|it| it != "") {
            return self.get(key);
        }
        self.mark(key);
        self.shared.mistake(format!("{} is missing", self.full(key)));
        self.fall_back(key, T::read)
    }

    /// The setting at `key`; none when it is empty or without a value.
    pub fn optional<T: Setting>(&self, key: &str) -> Option<T> {
        self.mark(key);
        let read = |text: &str| match text {
            "" => Ok(None),
            text => T::read(text).map(Some),
        };
        self.take(key, self.value(key), T::shown, read).flatten()
    }

    /// The settings of the list at `key`, without those that are mistakes.
    pub fn values<T: Setting>(&self, key: &str) -> Vec<T> {
        self.items(key)
            .iter()
            .enumerate()
            .filter_map(|(at, item)| self.take(&format!("{key}[{at}]"), item, T::shown, T::read))
            .collect()
    }

    /// A reader for each group of the list at `key`; `item_yaml` is the commented template of one.
    pub fn list(&self, key: &str, item_yaml: &str) -> Vec<Self> {
        self.items(key)
            .iter()
            .enumerate()
            .filter_map(|(at, item)| {
                let path = self.full(&format!("{key}[{at}]"));
                if !item.is_object() {
                    self.shared.mistake(format!("{path} is not a group of settings"));
                    return None;
                }
                Some(Self::group(path, item.clone(), item_yaml, Rc::clone(&self.shared)))
            })
            .collect()
    }

    /// The group at `key`, as a reader of its own.
    pub fn within(&self, key: &str) -> Self {
        Self {
            path: self.full(key),
            user: document::lookup(&self.user, key).cloned().unwrap_or_default(),
            default: self.default_of(key).clone(),
            shared: Rc::clone(&self.shared),
        }
    }

    /// Notes a mistake that shows only where several settings are seen together; `reason` completes the
    /// sentence that begins with `key`.
    pub fn reject(&self, key: &str, reason: &str) {
        self.shared.mistake(format!("{} {reason}", self.full(key)));
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// All mistakes that were met, in the order of meeting.
    pub fn finish(&self) -> Result<(), Mistakes> {
        let mistakes = &self.shared.notes.borrow().mistakes;
        if mistakes.is_empty() {
            return Ok(());
        }
        Err(Mistakes(mistakes.clone()))
    }

    /// What has been read by now, in the order of the keys.
    pub fn in_force(&self) -> Vec<InForce> {
        self.shared.notes.borrow().in_force.values().cloned().collect()
    }

    /// The keys of the default document, and of the list items met, that nobody has read.
    ///
    /// A service's test holds this empty, so that no key is without effect.
    pub fn unread_keys(&self) -> Vec<String> {
        let notes = self.shared.notes.borrow();
        notes.known.difference(&notes.read).cloned().collect()
    }

    fn items(&self, key: &str) -> &[Value] {
        self.mark(key);
        match self.value(key) {
            Value::Array(items) => items,
            Value::Null => &[],
            _ => {
                self.shared.mistake(format!("{} is not a list", self.full(key)));
                &[]
            }
        }
    }

    fn read<T>(&self, key: &str, shown: fn(&str) -> String, read: impl Fn(&str) -> Result<T, String>) -> T {
        self.mark(key);
        let taken = self.given(key).and_then(|value| self.take(key, value, shown, &read));
        taken.unwrap_or_else(|| {
            let value = self.fall_back(key, read);
            self.counts(
                key,
                document::text(self.default_of(key))
                    .map(|it| shown_unless_empty(&it, shown))
                    .unwrap_or_default(),
            );
            value
        })
    }

    /// Notes what stands for a setting.
    fn counts(&self, key: &str, text: String) {
        // Items of a list are given where the list is.
        let given = key.split_once('[').map_or(key, |(list, _)| list);
        let (key, is_default) = (self.full(key), self.given(given).is_none());
        let setting = InForce { key: key.clone(), text, is_default };
        self.shared.notes.borrow_mut().in_force.insert(key, setting);
    }

    /// Reads one value that stands in a document; a bad one is noted as a mistake.
    fn take<T>(
        &self,
        key: &str,
        value: &Value,
        shown: fn(&str) -> String,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        let written = match document::text(value) {
            Ok(written) => written,
            Err(kind) => {
                let mistake = format!("{} is {kind}, which it cannot be", self.full(key));
                self.shared.mistake(mistake);
                return None;
            }
        };
        let res = expand::expand(&written, &self.shared.env)
            .map_err(|err| err.to_string())
            .and_then(|text| read(&text));
        let shown = shown_unless_empty(&written, shown);
        match res {
            Ok(value) => {
                self.counts(key, shown);
                Some(value)
            }
            Err(reason) => {
                self.shared.mistake(format!("{} = {shown:?} {reason}", self.full(key)));
                None
            }
        }
    }

    #[expect(clippy::panic, reason = "a bug of the service, which its tests find")]
    fn fall_back<T>(&self, key: &str, read: impl Fn(&str) -> Result<T, String>) -> T {
        let text = document::text(self.default_of(key)).map_err(String::from);
        text.and_then(|text| read(&text))
            .unwrap_or_else(|reason| panic!("the default of {} {reason}", self.full(key)))
    }

    /// The operator's value at `key`, if there is one.
    fn given(&self, key: &str) -> Option<&Value> {
        document::lookup(&self.user, key).filter(|it| !it.is_null())
    }

    fn value(&self, key: &str) -> &Value {
        document::lookup(&self.user, key).unwrap_or_else(|| self.default_of(key))
    }

    #[expect(clippy::panic, reason = "a bug of the service, which its tests find")]
    fn default_of(&self, key: &str) -> &Value {
        document::lookup(&self.default, key)
            .unwrap_or_else(|| panic!("the default settings lack {}", self.full(key)))
    }

    fn mark(&self, key: &str) {
        self.shared.notes.borrow_mut().read.insert(self.full(key));
    }

    fn full(&self, key: &str) -> String {
        if self.path.is_empty() {
            return key.to_owned();
        }
        format!("{}.{key}", self.path)
    }
}

/// Nothing is no secret.
fn shown_unless_empty(text: &str, shown: fn(&str) -> String) -> String {
    if text.is_empty() { String::new() } else { shown(text) }
}

impl Shared {
    fn mistake(&self, text: String) {
        self.notes.borrow_mut().mistakes.push(text);
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::Duration;

    use shoal_model::ByteSize;

    use super::*;

    const DEFAULT: &str = "
download:
  # How long a piece is.
  pieceSize: 4Mi
  attempts: 3
  timeout: 30s
listen: 127.0.0.1:65001
token: ''
peers: []
registries: []
";
    const ITEM: &str = "
url: registry.example.com
insecure: false
";

    fn env(name: &str) -> Option<String> {
        (name == "PORT").then(|| "7000".to_owned())
    }

    /// Reads everything that the default document has, as a service would.
    fn read_all(user: &str) -> (Reader, String) {
        let reader = Reader::new(user, DEFAULT, env);
        let mut seen = format!(
            "{} {} {:?} {} {:?} {:?}",
            reader.get::<ByteSize>("download.pieceSize"),
            reader.get_in::<u32>("download.attempts", 1..=10),
            reader.get::<Duration>("download.timeout"),
            reader.get::<SocketAddr>("listen"),
            reader.optional::<Secret>("token").is_some(),
            reader.values::<String>("peers"),
        );
        for item in reader.list("registries", ITEM) {
            let url: String = item.required("url");
            seen += &format!(" {url}/{}", item.get::<bool>("insecure"));
        }
        (reader, seen)
    }

    #[track_caller]
    fn check(user: &str, expected: &str) {
        let (reader, seen) = read_all(user);
        assert_eq!(reader.finish(), Ok(()), "{user}");
        assert_eq!(seen, expected, "{user}");
    }

    #[track_caller]
    fn check_mistakes(user: &str, expected: &[&str]) {
        let (reader, _) = read_all(user);
        let mistakes = reader.finish().map_err(|it| it.0).unwrap_err();
        assert_eq!(mistakes, expected, "{user}");
    }

    #[test]
    fn an_operators_value_replaces_the_default_one() {
        const UNCHANGED: &str = "4Mi 3 30s 127.0.0.1:65001 false []";
        check("", UNCHANGED);
        check("download:", UNCHANGED);
        check("download: {pieceSize: }", UNCHANGED);
        check("download: {pieceSize: 1Mi}", "1Mi 3 30s 127.0.0.1:65001 false []");
        check("listen: '127.0.0.1:${PORT}'", "4Mi 3 30s 127.0.0.1:7000 false []");
        check("token: x", "4Mi 3 30s 127.0.0.1:65001 true []");
        check("peers: [a, b]", "4Mi 3 30s 127.0.0.1:65001 false [\"a\", \"b\"]");
        check(
            "registries: [{url: a, insecure: true}, {url: b}]",
            "4Mi 3 30s 127.0.0.1:65001 false [] a/true b/false",
        );
    }

    #[test]
    fn all_mistakes_are_told_at_once() {
        check_mistakes(
            "download: {pieceSze: 1Mi, pieceSize: 4Xi, attempts: 11, timeout: [1]}\nlisten: '${NONE}'",
            &[
                "download.pieceSze is not a setting; did you mean download.pieceSize?",
                "download.pieceSize = \"4Xi\" is not a size such as 4Mi, 2Gi or 500M",
                "download.attempts = \"11\" is not from 1 to 10",
                "download.timeout is a list, which it cannot be",
                "listen = \"${NONE}\" names the environment variable NONE, which is not set",
            ],
        );
    }

    #[test]
    fn mistakes_in_lists_name_the_item() {
        check_mistakes(
            "registries: [{url: a}, {insecure: 7, ulr: b}, c]\npeers: [[a], 1.5]",
            &[
                "peers[0] is a list, which it cannot be",
                "peers[1] is a fraction, which it cannot be",
                "registries[1].ulr is not a setting; did you mean url?",
                "registries[2] is not a group of settings",
                "registries[1].url is missing",
                "registries[1].insecure = \"7\" is not true or false",
            ],
        );
        check_mistakes("peers: a", &["peers is not a list"]);
    }

    #[test]
    fn a_broken_document_is_a_mistake() {
        for bad in ["a: [", "listen: a\nlisten: b", "- a", "7"] {
            assert!(read_all(bad).0.finish().is_err(), "{bad}");
        }
        let large = format!("token: {}", "x".repeat(2 << 20));
        check_mistakes(&large, &["the settings document has 2097159 bytes; 1048576 are allowed"]);
    }

    #[test]
    fn no_mistake_shows_a_secret() {
        for user in [
            "token: [hunter2]",
            "token: {a: hunter2}",
            "token: hunter2\ntoken: hunter2",
            "token: 'hunter2",
            "token: 'hunter2${'",
            "token: 'hunter2${NONE}'",
        ] {
            let (reader, _) = read_all(user);
            let mistakes = reader.finish().map_err(|it| it.to_string()).unwrap_err();
            assert!(!mistakes.contains("hunter2"), "{mistakes}");
        }
    }

    #[test]
    fn what_counts_is_shown_as_it_was_written_and_without_secrets() {
        let (reader, _) =
            read_all("{listen: '127.0.0.1:${PORT}', token: hunter2, peers: [a, b], registries: [{url: c}]}");
        let shown: Vec<_> =
            reader.in_force().into_iter().map(|it| (it.key, it.text, it.is_default)).collect();
        let expected = [
            ("download.attempts", "3", true),
            ("download.pieceSize", "4Mi", true),
            ("download.timeout", "30s", true),
            ("listen", "127.0.0.1:${PORT}", false),
            ("peers[0]", "a", false),
            ("peers[1]", "b", false),
            ("registries[0].insecure", "false", true),
            ("registries[0].url", "c", false),
            ("token", "…", false),
        ];
        assert_eq!(shown, expected.map(|(key, text, is)| (key.to_owned(), text.to_owned(), is)));
        assert_eq!(read_all("").0.in_force().last().unwrap().text, "", "no secret is none that is hidden");
    }

    #[test]
    fn a_key_that_nobody_reads_is_found() {
        let (reader, _) = read_all("registries: [{url: a}]");
        assert_eq!(reader.unread_keys(), [""; 0]);
        let reader = Reader::new("", DEFAULT, env);
        let _: SocketAddr = reader.get("listen");
        assert_eq!(
            reader.unread_keys(),
            ["download.attempts", "download.pieceSize", "download.timeout", "peers", "registries", "token",]
        );
    }
}
