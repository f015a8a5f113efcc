//! What all checked texts share.
//!
//! A checked text keeps its canonical spelling in an `Arc<str>`, because names are copied into keys,
//! requests and log fields far more often than they are parsed.

/// Gives a one-field tuple struct over `Arc<str>` its reading side. The field is private to the type's
/// own file, so what is held has always been checked there.
macro_rules! reads_as_text {
    ($name:ident) => {
        impl $name {
            /// The canonical text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl ::std::fmt::Display for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl ::std::fmt::Debug for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}
pub(crate) use reads_as_text;

/// How much of a refused text a message repeats.
const SHOWN: usize = 80;

/// Outside text as a message may repeat it: quoted, control characters escaped, cut short.
pub(crate) fn quoted(text: &str) -> String {
    let (shown, dots) = cut(text, SHOWN);
    format!("{shown:?}{dots}")
}

/// The first so many characters, and the dots that stand for what follows.
pub(crate) fn cut(text: &str, most: usize) -> (&str, &'static str) {
    match text.char_indices().nth(most) {
        Some((end, _)) => (text.get(..end).unwrap_or(text), "..."),
        None => (text, ""),
    }
}

/// Whether the text is words of lower-case letters and digits, joined by separators that
/// `is_separator` accepts. A separator is everything between two words, so `a--b` has one, `--`.
pub(crate) fn is_joined_words(text: &str, is_separator: impl Fn(&str) -> bool) -> bool {
    let in_word = |it: char| it.is_ascii_lowercase() || it.is_ascii_digit();
    let mut separators = text.split(in_word).filter(|it| !it.is_empty());
    text.starts_with(in_word) && text.ends_with(in_word) && separators.all(is_separator)
}

/// Whether the text is one or more dashes.
pub(crate) fn is_dashes(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|it| it == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_text_is_repeated_escaped_and_cut() {
        assert_eq!(quoted("a\0b"), r#""a\0b""#);
        assert_eq!(quoted(&"é".repeat(81)), format!("\"{}\"...", "é".repeat(80)));
    }

    #[test]
    fn words_are_joined_by_exactly_one_separator() {
        let joined = |text| is_joined_words(text, |it| it == "." || it == "__");
        for good in ["a", "0", "a.b", "a__b.c9"] {
            assert!(joined(good), "{good}");
        }
        for bad in ["", ".", ".a", "a.", "a..b", "a_b", "a.__b", "A", "aé", "a b", "a\0"] {
            assert!(!joined(bad), "{bad}");
        }
    }
}
