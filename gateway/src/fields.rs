//! A JSON object's fields, read as Go reads them, with everything that is wrong with them: what the management API's
//! bodies are read by.

use serde_json::{Map, Value};

/// The most items of a list.
const MAX_ITEMS: usize = 1_000;

/// An object, and what is wrong with it so far. Values are not repeated in mistakes: they may be secret.
pub(crate) struct Fields<'a> {
    /// What its fields' names begin with in mistakes: nothing, or `args.`.
    path: String,
    map: &'a Map<String, Value>,
}

/// What is wrong with a body, one sentence each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mistakes(pub Vec<String>);

impl Mistakes {
    pub(crate) fn one(text: impl Into<String>) -> Self {
        Self(vec![text.into()])
    }

    pub(crate) fn add(&mut self, text: impl Into<String>) {
        self.0.push(text.into());
    }

    /// What was read, if nothing is wrong with it.
    pub(crate) fn or<T>(self, read: T) -> Result<T, Self> {
        if self.0.is_empty() { Ok(read) } else { Err(self) }
    }
}

/// Reads a body that is to be an object.
pub(crate) fn object(body: &[u8]) -> Result<Map<String, Value>, Mistakes> {
    match serde_json::from_slice(body) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err(Mistakes::one("the body is not a JSON object")),
        // What the parser says quotes nothing of the text.
        Err(error) => Err(Mistakes::one(format!("the body is not JSON: {error}"))),
    }
}

impl<'a> Fields<'a> {
    pub(crate) const fn of(map: &'a Map<String, Value>) -> Self {
        Self { path: String::new(), map }
    }

    /// The value of a field; none where it is null as well.
    pub(crate) fn value(&self, name: &str) -> Option<&'a Value> {
        let any_case = || self.map.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, it)| it);
        self.map.get(name).or_else(any_case).filter(|it| !it.is_null())
    }

    pub(crate) fn text(&self, name: &str, mistakes: &mut Mistakes) -> Option<&'a str> {
        self.read(name, "a text", Value::as_str, mistakes)
    }

    /// A text that must be there, and have something in it.
    pub(crate) fn needed_text(&self, name: &str, mistakes: &mut Mistakes) -> Option<&'a str> {
        let n_before = mistakes.0.len();
        let text = self.text(name, mistakes).filter(|it| !it.is_empty());
        if text.is_none() && mistakes.0.len() == n_before {
            mistakes.add(format!("{}{name} is missing", self.path));
        }
        text
    }

    pub(crate) fn number(&self, name: &str, mistakes: &mut Mistakes) -> Option<u64> {
        self.read(name, "a whole number from 0 on", Value::as_u64, mistakes)
    }

    pub(crate) fn list(&self, name: &str, mistakes: &mut Mistakes) -> &'a [Value] {
        let list = self.read(name, "a list", Value::as_array, mistakes).map_or(&[][..], Vec::as_slice);
        if list.len() > MAX_ITEMS {
            mistakes.add(format!(
                "{}{name} has {} items, at most {MAX_ITEMS} are allowed",
                self.path,
                list.len()
            ));
            return &[];
        }
        list
    }

    pub(crate) fn texts(&self, name: &str, mistakes: &mut Mistakes) -> Vec<String> {
        let list = self.list(name, mistakes);
        let texts: Option<_> = list.iter().map(|it| it.as_str().map(str::to_owned)).collect();
        texts.unwrap_or_else(|| {
            mistakes.add(format!("{}{name} is not a list of texts", self.path));
            Vec::new()
        })
    }

    pub(crate) fn group(&self, name: &str, mistakes: &mut Mistakes) -> Option<Self> {
        let map = self.read(name, "an object", Value::as_object, mistakes)?;
        Some(Self { path: format!("{}{name}.", self.path), map })
    }

    /// The objects of a list.
    pub(crate) fn groups(&self, name: &str, mistakes: &mut Mistakes) -> Vec<Self> {
        let mut groups = Vec::new();
        for (at, item) in self.list(name, mistakes).iter().enumerate() {
            let path = format!("{}{name}[{at}]", self.path);
            match item.as_object() {
                Some(map) => groups.push(Self { path: format!("{path}."), map }),
                None => mistakes.add(format!("{path} is not an object")),
            }
        }
        groups
    }

    /// The name of a field as mistakes show it.
    pub(crate) fn full(&self, name: &str) -> String {
        format!("{}{name}", self.path)
    }

    /// Whatever has another name than these is a mistake.
    pub(crate) fn refuse_others(&self, names: &[&str], mistakes: &mut Mistakes) {
        let others = self.map.keys().filter(|it| !names.contains(&it.as_str()));
        others.for_each(|it| mistakes.add(format!("{it:?} is not a field")));
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = (&'a String, &'a Value)> {
        self.map.iter()
    }

    pub(crate) fn read<T>(
        &self,
        name: &str,
        kind: &str,
        read: impl Fn(&'a Value) -> Option<T>,
        mistakes: &mut Mistakes,
    ) -> Option<T> {
        let value = read(self.value(name)?);
        if value.is_none() {
            mistakes.add(format!("{}{name} is not {kind}", self.path));
        }
        value
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_name_is_found_in_any_case_and_null_is_nothing() {
        let Value::Object(map) = json!({ "Tag": "v1", "tag": "v2", "Url": "x", "digest": null }) else {
            panic!()
        };
        let (fields, mut mistakes) = (Fields::of(&map), Mistakes::default());
        assert_eq!(fields.text("tag", &mut mistakes), Some("v2"));
        assert_eq!(fields.text("Tag", &mut mistakes), Some("v1"));
        assert_eq!(fields.text("url", &mut mistakes), Some("x"));
        assert_eq!(fields.text("digest", &mut mistakes), None);
        assert_eq!(mistakes, Mistakes::default());
        assert_eq!(fields.needed_text("digest", &mut mistakes), None);
        assert_eq!(mistakes, Mistakes::one("digest is missing"));
    }

    #[test]
    fn what_has_another_kind_is_named_by_its_path() {
        let Value::Object(map) = json!({ "args": { "ips": ["a", 1], "n": -1, "text": 1 }, "list": [1] })
        else {
            panic!()
        };
        let mut mistakes = Mistakes::default();
        let fields = Fields::of(&map);
        let args = fields.group("args", &mut mistakes).unwrap();
        args.texts("ips", &mut mistakes);
        args.number("n", &mut mistakes);
        args.needed_text("text", &mut mistakes);
        args.group("n", &mut mistakes);
        fields.groups("list", &mut mistakes);
        let expected = [
            "args.ips is not a list of texts",
            "args.n is not a whole number from 0 on",
            "args.text is not a text",
            "args.n is not an object",
            "list[0] is not an object",
        ];
        assert_eq!(mistakes.0, expected);
    }

    #[test]
    fn no_mistake_quotes_the_body() {
        for body in ["", "hunter2", "{\"a\":\"hunter2", "[\"hunter2\"]", "\"hunter2\""] {
            let Mistakes(mistakes) = object(body.as_bytes()).unwrap_err();
            assert!(
                mistakes[0].starts_with("the body is not") && !mistakes[0].contains("hunter2"),
                "{mistakes:?}"
            );
        }
    }
}
