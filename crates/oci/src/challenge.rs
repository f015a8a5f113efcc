//! What a registry asks for when it answers 401: the `WWW-Authenticate` challenges.
//!
//! One header value may hold several challenges and there may be several values, with commas both
//! between challenges and between the parameters of one (RFC 9110 section 11.6.1). A word followed by
//! `=` is a parameter of the challenge before it; any other word begins a new challenge.
//!
//! Registries vary, so reading is lenient where nothing is at stake: unquoted values, stray commas and
//! schemes that Shoal does not speak are passed over. A challenge in which the text breaks off is
//! dropped rather than half understood, and a `Bearer` without a realm says nowhere to go.

use std::fmt;

/// Longer header values are not read; real ones take some hundred bytes.
const MAX_LEN: usize = 8 << 10;
/// How many challenges of one answer are looked at.
const MAX_CHALLENGES: usize = 16;

/// One way to log in, as the registry names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Challenge {
    /// Get a token first.
    Bearer {
        /// The URL of the token service, as sent: not yet checked to be one, nor to be trusted.
        realm: String,
        /// The name of the registry at the token service.
        service: Option<String>,
        /// What the token has to allow, for example `repository:prod/app:pull`.
        scope: Option<String>,
        /// Why the token that was shown was not enough, for example `insufficient_scope`.
        error: Option<String>,
    },
    /// Send user and password.
    Basic {
        /// A text for people; empty where the registry sent none.
        realm: String,
    },
}

/// Reads the values of all `WWW-Authenticate` headers of an answer, in order. An answer without any
/// usable challenge gives none.
///
/// ```
/// use shoal_oci::challenge::{Challenge, parse};
///
/// let challenges = parse([r#"Negotiate, Basic realm="harbor""#]);
/// assert_eq!(challenges, [Challenge::Basic { realm: "harbor".into() }]);
/// ```
pub fn parse<'a>(values: impl IntoIterator<Item = &'a str>) -> Vec<Challenge> {
    values.into_iter().flat_map(scan).filter_map(Raw::understood).take(MAX_CHALLENGES).collect()
}

/// A challenge of any scheme, as written.
struct Raw<'a> {
    scheme: &'a str,
    params: Vec<(&'a str, String)>,
}

impl Raw<'_> {
    fn understood(self) -> Option<Challenge> {
        // A parameter must not occur twice; where it does, the first is taken.
        let param = |name: &str| {
            let found = self.params.iter().find(|(it, _)| it.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.clone())
        };
        if self.scheme.eq_ignore_ascii_case("bearer") {
            Some(Challenge::Bearer {
                realm: param("realm")?,
                service: param("service"),
                scope: param("scope"),
                error: param("error"),
            })
        } else if self.scheme.eq_ignore_ascii_case("basic") {
            Some(Challenge::Basic { realm: param("realm").unwrap_or_default() })
        } else {
            None
        }
    }
}

/// Splits one header value into its challenges, up to where the text breaks off.
fn scan(value: &str) -> Vec<Raw<'_>> {
    let mut found: Vec<Raw<'_>> = Vec::new();
    if value.len() > MAX_LEN || value.contains(|it: char| it.is_control() && it != '\t') {
        return found;
    }
    let mut rest = after_separators(value);
    while !rest.is_empty() {
        let Some((item, after)) = split_item(rest) else {
            found.pop();
            break;
        };
        match (item, found.last_mut()) {
            (Item::Scheme(scheme), _) => found.push(Raw { scheme, params: Vec::new() }),
            (Item::Param(name, value), Some(challenge)) => challenge.params.push((name, value)),
            // Belongs to no challenge.
            (Item::Param(..), None) => {}
        }
        rest = after_separators(after);
    }
    found
}

enum Item<'a> {
    Scheme(&'a str),
    Param(&'a str, String),
}

/// The first item of the text and what follows it. `None` where the text breaks off: a quoted value
/// that does not end, or a quote where a word should begin.
fn split_item(text: &str) -> Option<(Item<'_>, &str)> {
    let end = text.find(|it| is_blank(it) || matches!(it, ',' | '=' | '"'));
    let (word, after) = text.split_at(end.unwrap_or(text.len()));
    match trim_blanks(after).strip_prefix('=') {
        Some(value) => {
            let (value, after) = split_value(trim_blanks(value))?;
            Some((Item::Param(word, value), after))
        }
        None => (!word.is_empty()).then_some((Item::Scheme(word), after)),
    }
}

fn is_blank(it: char) -> bool {
    it == ' ' || it == '\t'
}

fn trim_blanks(text: &str) -> &str {
    text.trim_start_matches(is_blank)
}

fn after_separators(text: &str) -> &str {
    text.trim_start_matches(|it| is_blank(it) || it == ',')
}

/// The value of a parameter, and what follows it. `None` where a quoted text does not end.
fn split_value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(|it| is_blank(it) || it == ',').unwrap_or(text.len());
        let (bare, after) = text.split_at(end);
        return Some((bare.to_owned(), after));
    };
    let mut value = String::new();
    let mut chars = quoted.chars();
    loop {
        match chars.next()? {
            '"' => return Some((value, chars.as_str())),
            '\\' => value.push(chars.next()?),
            it => value.push(it),
        }
    }
}

impl fmt::Display for Challenge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bearer { realm, service, scope, error } => {
                write!(f, "Bearer realm={}", Quoted(realm))?;
                for (name, value) in [("service", service), ("scope", scope), ("error", error)] {
                    if let Some(value) = value {
                        write!(f, ",{name}={}", Quoted(value))?;
                    }
                }
                Ok(())
            }
            Self::Basic { realm } => write!(f, "Basic realm={}", Quoted(realm)),
        }
    }
}

/// Shows a text as HTTP quotes it.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"")?;
        for it in self.0.chars() {
            if it == '"' || it == '\\' {
                f.write_str("\\")?;
            }
            write!(f, "{it}")?;
        }
        f.write_str("\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn basic(realm: &str) -> Challenge {
        Challenge::Basic { realm: realm.into() }
    }

    /// Fields in the order realm, service, scope, error; an empty one is absent.
    fn bearer([realm, service, scope, error]: [&str; 4]) -> Challenge {
        let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Challenge::Bearer {
            realm: realm.into(),
            service: given(service),
            scope: given(scope),
            error: given(error),
        }
    }

    #[track_caller]
    fn check(values: &[&str], expected: &[Challenge]) {
        assert_eq!(parse(values.iter().copied()), expected, "{values:?}");
    }

    #[test]
    fn the_challenges_of_real_registries_are_read() {
        check(
            &[
                r#"Bearer realm="https://harbor.example.com/service/token",service="harbor-registry",scope="repository:prod/app:pull""#,
            ],
            &[bearer([
                "https://harbor.example.com/service/token",
                "harbor-registry",
                "repository:prod/app:pull",
                "",
            ])],
        );
        check(
            &[
                r#"Bearer realm="https://auth.example.com/token",service="r",scope="repository:a:pull,push",error="insufficient_scope""#,
            ],
            &[bearer([
                "https://auth.example.com/token",
                "r",
                "repository:a:pull,push",
                "insufficient_scope",
            ])],
        );
        check(&[r#"Basic realm="harbor""#], &[basic("harbor")]);
        check(
            &[r#"Basic realm="https://registry.example.com/",service="ecr.amazonaws.com""#],
            &[basic("https://registry.example.com/")],
        );
        check(&[""], &[]);
    }

    #[test]
    fn several_challenges_are_read_in_order_from_one_value_or_many() {
        let expected = [bearer(["https://t", "s", "", ""]), basic("b")];
        check(&[r#"Bearer realm="https://t", service="s", Basic realm="b""#], &expected);
        check(&[r#"Bearer realm="https://t",service="s""#, r#"Basic realm="b""#], &expected);
        check(&[r#",, bearer REALM = https://t , service=s ,basic realm=b,"#], &expected);
    }

    #[test]
    fn schemes_that_are_not_spoken_are_skipped() {
        check(&[r#"Negotiate, Basic realm="b""#], &[basic("b")]);
        check(&[r#"Negotiate YIIx/+a==, Basic realm="b""#], &[basic("b")]);
        check(&[r#"Digest realm="d",qop="auth,auth-int", Basic"#], &[basic("")]);
    }

    #[test]
    fn quoted_text_keeps_commas_and_escapes() {
        check(&[r#"Basic realm="a \"b\" \\, c=d""#], &[basic(r#"a "b" \, c=d"#)]);
        check(&[r#"Basic realm="""#], &[basic("")]);
    }

    #[test]
    fn the_first_of_a_repeated_parameter_counts() {
        check(&[r#"Basic realm="a",realm="b""#], &[basic("a")]);
    }

    #[test]
    fn a_challenge_that_breaks_off_is_dropped_with_the_rest() {
        check(&[r#"Basic realm="b", Bearer realm="https://t",service="s"#], &[basic("b")]);
        check(&[r#"Bearer realm="https://t\"#], &[]);
        check(&[r#"Basic realm="b" "stray", Basic realm="c""#], &[]);
        check(&["Basic realm=\"b\n\""], &[]);
        check(&["Bearer service=\"s\""], &[]);
        check(&[r#"realm="https://t""#], &[]);
    }

    #[test]
    fn length_and_number_are_bounded() {
        check(&[&format!("Basic realm=\"{}\"", "a".repeat(MAX_LEN))], &[]);
        assert_eq!(parse([" Basic,".repeat(100).as_str()]).len(), MAX_CHALLENGES);
    }

    proptest! {
        #[test]
        fn what_is_read_from_any_text_parses_back(value in "(Bearer|Basic|[ ,=\"\\\\a-z]|realm=){0,20}|.*") {
            let challenges = parse([value.as_str()]);
            let shown: Vec<_> = challenges.iter().map(ToString::to_string).collect();
            prop_assert_eq!(parse([shown.join(", ").as_str()]), challenges);
        }

        #[test]
        fn what_is_displayed_parses_back(texts in prop::array::uniform4("[ -~]{0,12}")) {
            let challenge = bearer(texts.each_ref().map(String::as_str));
            prop_assert_eq!(parse([challenge.to_string().as_str()]), [challenge]);
        }
    }
}
