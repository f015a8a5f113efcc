//! A request for a token, read from JSON, with everything that is wrong with it.
//!
//! Knows nothing of: HTTP, clocks, which tokens there are.

use std::collections::BTreeSet;

use serde_json::{Map, Value};
use shoal_ops::settings::Setting as _;

use super::scope::Scope;
use super::token::TokenName;
use crate::fields::Mistakes;
use crate::timestamp::Timestamp;

/// What a token shall be.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NewToken {
    pub(super) name: TokenName,
    pub(super) scopes: BTreeSet<Scope>,
    pub(super) expires: Option<Timestamp>,
}

impl NewToken {
    /// Reads `{"name": "harbor", "scopes": ["preheat"], "expires": "2027-01-01T00:00:00Z"}`; without
    /// `expires`, or with null, the token is good for ever.
    pub(super) fn read(body: &[u8], now: Timestamp) -> Result<Self, Mistakes> {
        let Ok(Value::Object(fields)) = serde_json::from_slice(body) else {
            return Err(Mistakes(vec!["the body is not a JSON object".to_owned()]));
        };
        let mut mistakes = Vec::new();
        let known = ["name", "scopes", "expires"];
        let unknown = fields.keys().filter(|it| !known.contains(&it.as_str()));
        mistakes.extend(unknown.map(|it| format!("{it:?} is not a field")));
        let read = (
            noted(name(&fields), &mut mistakes),
            noted(scopes(&fields), &mut mistakes),
            noted(expires(&fields, now), &mut mistakes),
        );
        match read {
            (Some(name), Some(scopes), Some(expires)) if mistakes.is_empty() => {
                Ok(Self { name, scopes, expires })
            }
            _ => Err(Mistakes(mistakes)),
        }
    }
}

fn noted<T>(read: Result<T, String>, mistakes: &mut Vec<String>) -> Option<T> {
    read.map_err(|it| mistakes.push(it)).ok()
}

fn name(fields: &Map<String, Value>) -> Result<TokenName, String> {
    let name = fields.get("name").ok_or("name is missing")?.as_str().ok_or("name is not a text")?;
    TokenName::read(name).map_err(|it| format!("name {name:?} {it}"))
}

fn scopes(fields: &Map<String, Value>) -> Result<BTreeSet<Scope>, String> {
    let scopes = fields.get("scopes").ok_or("scopes is missing")?;
    let scopes =
        scopes.as_array().filter(|it| !it.is_empty()).ok_or("scopes is not a list of at least one")?;
    let read = |it: &Value| match it {
        Value::String(it) => Scope::read(it).map_err(|fault| format!("scope {it:?} {fault}")),
        _ => Err("a scope is not a text".to_owned()),
    };
    scopes.iter().map(read).collect()
}

fn expires(fields: &Map<String, Value>, now: Timestamp) -> Result<Option<Timestamp>, String> {
    let text = match fields.get("expires") {
        None | Some(Value::Null) => return Ok(None),
        Some(it) => it.as_str().ok_or("expires is neither null nor a text")?,
    };
    let expires = Timestamp::read(text).map_err(|it| format!("expires {text:?} {it}"))?;
    if expires <= now {
        return Err(format!("expires {text:?} has passed"));
    }
    Ok(Some(expires))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(scopes: &[Scope], expires: Option<&str>) -> NewToken {
        NewToken {
            name: "ci".to_owned().try_into().unwrap(),
            scopes: scopes.iter().copied().collect(),
            expires: expires.map(|it| it.parse().unwrap()),
        }
    }

    #[track_caller]
    fn check(body: &str, expected: Result<NewToken, &[&str]>) {
        let expected = expected.map_err(|it| Mistakes(it.iter().map(ToString::to_string).collect()));
        assert_eq!(NewToken::read(body.as_bytes(), "2026-06-01T12:00:00Z".parse().unwrap()), expected);
    }

    #[test]
    fn a_token_has_a_name_scopes_and_perhaps_an_end() {
        check(r#"{"name":"ci","scopes":["read"]}"#, Ok(wanted(&[Scope::Read], None)));
        check(
            r#"{"name":"ci","scopes":["read","preheat","read"],"expires":"2027-01-01T00:00:00Z"}"#,
            Ok(wanted(&[Scope::Preheat, Scope::Read], Some("2027-01-01T00:00:00Z"))),
        );
        check(r#"{"name":"ci","scopes":["admin"],"expires":null}"#, Ok(wanted(&[Scope::Admin], None)));
    }

    #[test]
    fn every_mistake_is_named() {
        for body in ["", "[]", "{", "null", "{\"name\":"] {
            check(body, Err(&["the body is not a JSON object"]));
        }
        check("{}", Err(&["name is missing", "scopes is missing"]));
        check(
            r#"{"name":"a b","scopes":["root"],"expires":"tomorrow","scope":1}"#,
            Err(&[
                "\"scope\" is not a field",
                "name \"a b\" is not a name, which has from 1 to 64 of the characters A-Z a-z 0-9 . _ -",
                "scope \"root\" is not one of preheat, read, delete, tokens, admin",
                "expires \"tomorrow\" is not a time in UTC such as 2027-01-01T00:00:00Z",
            ]),
        );
        check(
            r#"{"name":1,"scopes":[],"expires":1}"#,
            Err(&[
                "name is not a text",
                "scopes is not a list of at least one",
                "expires is neither null nor a text",
            ]),
        );
        check(
            r#"{"name":"ci","scopes":[1],"expires":"2026-06-01T12:00:00Z"}"#,
            Err(&["a scope is not a text", "expires \"2026-06-01T12:00:00Z\" has passed"]),
        );
    }
}
