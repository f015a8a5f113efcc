//! Replaces `${NAME}` in an operator's text by the environment variable of that name.
//!
//! A variable that is not set is an error, never an empty text: an empty password or address would show up
//! far from its cause. A doubled dollar (`$${`) stands for a `${` that is meant literally.

/// Why a text cannot be expanded; completes a sentence that begins with the text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ExpandError {
    #[error("names the environment variable {0}, which is not set")]
    Unset(String),
    #[error("has a ${{ without its }}")]
    Unclosed,
}

/// Replaces every `${NAME}` by what `env` says of it.
pub(super) fn expand(text: &str, env: impl Fn(&str) -> Option<String>) -> Result<String, ExpandError> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        if let Some(literal) = before.strip_suffix('$') {
            out.push_str(literal);
            out.push_str("${");
            rest = after;
            continue;
        }
        let (name, after) = after.split_once('}').ok_or(ExpandError::Unclosed)?;
        out.push_str(before);
        out.push_str(&env(name).ok_or_else(|| ExpandError::Unset(name.into()))?);
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Result<&str, ExpandError>) {
        let env = |name: &str| match name {
            "A" => Some("a".to_owned()),
            "NESTED" => Some("${A}".to_owned()),
            _ => None,
        };
        assert_eq!(expand(text, env), expected.map(String::from), "{text}");
    }

    #[test]
    fn variables_are_replaced_once() {
        check("", Ok(""));
        check("plain $A {A} $", Ok("plain $A {A} $"));
        check("${A}", Ok("a"));
        check("x${A}${A}y", Ok("xaay"));
        check("${NESTED}", Ok("${A}"));
        check("$${A}${A}", Ok("${A}a"));
        check("${B}", Err(ExpandError::Unset("B".into())));
        check("${}", Err(ExpandError::Unset(String::new())));
        check("${A", Err(ExpandError::Unclosed));
    }
}
