//! A management token: what its holder shows, what is kept of it, and what it is good for.
//!
//! The text is `shoal_<id>_<secret>`. Of the secret only its SHA-256 is kept: it has 256 random bits, so
//! there is nothing to guess that a slow hash would protect. The id is the beginning of that hash. It names
//! the token in lists and logs, lets a scanner recognise a leaked one, and is a check of the text: one that
//! was cut or mistyped is refused without a look at any token.
//!
//! Knows nothing of: HTTP, files, clocks, random sources.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest as _, Sha256};
use shoal_ops::settings::{Secret, Setting};
use subtle::ConstantTimeEq as _;

use super::scope::Scope;
use crate::timestamp::Timestamp;

/// What every token begins with.
const PREFIX: &str = "shoal_";
/// How long a secret is, in characters: from 256 bits in base64 up to what fits into any header.
const SECRET_LEN: std::ops::RangeInclusive<usize> = 43..=128;
/// The longest name, in characters.
const MAX_NAME: usize = 64;

/// A token's public name: eight hex digits, made from its hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenId(u32);

/// The SHA-256 of a token's secret. It cannot be compared but in constant time.
#[derive(Clone, Copy)]
pub struct TokenHash([u8; 32]);

/// A name that an operator gave to a token.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TokenName(String);

/// All that is kept of a token.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Token {
    /// Whose it is.
    pub name: TokenName,
    /// What its secret is compared with.
    pub hash: TokenHash,
    /// What it is good for.
    pub scopes: BTreeSet<Scope>,
    /// When it was made; none where the settings declare it.
    pub created: Option<Timestamp>,
    /// From when on it is good for nothing.
    pub expires: Option<Timestamp>,
    /// When it last let somebody in, to the minute.
    pub last_used: Option<Timestamp>,
}

/// Why a token is not good enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Its time is over.
    Expired,
    /// It was not given this right.
    Lacks(Scope),
    /// It ends then, before what it shall give.
    Ends(Timestamp),
}

impl Token {
    /// Whether it is good for `scope` at this time.
    pub(crate) fn check(&self, now: Timestamp, scope: Scope) -> Result<(), Refusal> {
        if self.expires.is_some_and(|it| it <= now) {
            return Err(Refusal::Expired);
        }
        if !self.has(scope) {
            return Err(Refusal::Lacks(scope));
        }
        Ok(())
    }

    /// Whether it was given `scope`.
    pub(crate) fn has(&self, scope: Scope) -> bool {
        self.scopes.contains(&scope) || self.scopes.contains(&Scope::Admin)
    }
}

impl TokenHash {
    /// No token's hash, for comparing where there is none.
    pub(crate) const NONE: Self = Self([0; 32]);

    /// Makes a token of random bits: its text, to be shown once, and what is kept.
    pub(crate) fn fresh(random: [u8; 32]) -> (Secret, Self) {
        let secret = Secret::new(URL_SAFE_NO_PAD.encode(random));
        let hash = Self::of_secret(secret.expose());
        (Secret::new(format!("{PREFIX}{}_{}", hash.id(), secret.expose())), hash)
    }

    /// The hash of a token's text; none where it is no token at all.
    pub(crate) fn of(text: &str) -> Option<Self> {
        let (id, secret) = text.strip_prefix(PREFIX)?.split_once('_')?;
        let is_fit = |it: u8| it.is_ascii_alphanumeric() || it == b'-' || it == b'_';
        if !SECRET_LEN.contains(&secret.len()) || !secret.bytes().all(is_fit) {
            return None;
        }
        let hash = Self::of_secret(secret);
        (id.parse() == Ok(hash.id())).then_some(hash)
    }

    fn of_secret(secret: &str) -> Self {
        Self(Sha256::digest(secret).into())
    }

    /// The id that belongs to it.
    pub(crate) const fn id(&self) -> TokenId {
        let [a, b, c, d, ..] = self.0;
        TokenId(u32::from_be_bytes([a, b, c, d]))
    }

    /// Whether both are the same, in a time that does not tell where they differ.
    pub(crate) fn is(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

/// A text that is no id, hash or name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not {0}")]
pub struct TokenTextError(&'static str);

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

impl FromStr for TokenId {
    type Err = TokenTextError;

    fn from_str(text: &str) -> Result<Self, TokenTextError> {
        let mut bytes = [0; 4];
        let is_lower = !text.bytes().any(|it| it.is_ascii_uppercase());
        match hex::decode_to_slice(text, &mut bytes) {
            Ok(()) if is_lower => Ok(Self(u32::from_be_bytes(bytes))),
            _ => Err(TokenTextError("a token's id, which is eight hex digits")),
        }
    }
}

impl fmt::Display for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", hex::encode(self.0))
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenHash({}…)", self.id())
    }
}

impl FromStr for TokenHash {
    type Err = TokenTextError;

    fn from_str(text: &str) -> Result<Self, TokenTextError> {
        let mut bytes = [0; 32];
        let digits = text.strip_prefix("sha256:").unwrap_or_default();
        hex::decode_to_slice(digits, &mut bytes)
            .map(|()| Self(bytes))
            .map_err(|_| TokenTextError("sha256: and the 64 hex digits of a secret's SHA-256"))
    }
}

impl TokenName {
    /// The name of the token that the first start makes.
    pub(crate) fn first() -> Self {
        Self("first".to_owned())
    }
}

impl fmt::Display for TokenName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for TokenName {
    type Error = TokenTextError;

    fn try_from(name: String) -> Result<Self, TokenTextError> {
        let is_fit = |it: u8| it.is_ascii_alphanumeric() || b"._-".contains(&it);
        if (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(is_fit) {
            return Ok(Self(name));
        }
        Err(TokenTextError("a name, which has from 1 to 64 of the characters A-Z a-z 0-9 . _ -"))
    }
}

impl From<TokenName> for String {
    fn from(name: TokenName) -> Self {
        name.0
    }
}

impl Setting for TokenName {
    fn read(text: &str) -> Result<Self, String> {
        Self::try_from(text.to_owned()).map_err(|it| it.to_string())
    }
}

impl Setting for TokenHash {
    fn read(text: &str) -> Result<Self, String> {
        text.parse().map_err(|it: TokenTextError| it.to_string())
    }

    /// Somebody may have put the token itself there.
    fn shown(_: &str) -> String {
        "…".to_owned()
    }
}

impl Serialize for TokenHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TokenHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn token(scopes: &[Scope], expires: Option<&str>) -> Token {
        Token {
            name: TokenName::try_from("ci".to_owned()).unwrap(),
            hash: TokenHash::NONE,
            scopes: scopes.iter().copied().collect(),
            created: None,
            expires: expires.map(|it| it.parse().unwrap()),
            last_used: None,
        }
    }

    #[test]
    fn a_token_is_good_for_its_scopes_until_it_expires() {
        let (now, before, after) =
            ("2026-06-01T12:00:00Z", "2026-06-01T11:59:59Z", "2026-06-01T12:00:00.001Z");
        #[track_caller]
        fn check(scopes: &[Scope], expires: Option<&str>, now: &str, expected: [Result<(), Refusal>; 5]) {
            let seen = Scope::ALL.map(|it| token(scopes, expires).check(now.parse().unwrap(), it));
            assert_eq!(seen, expected, "{scopes:?} {expires:?}");
        }
        let lacks = |scope| Err(Refusal::Lacks(scope));
        let [no_preheat, no_read, no_delete, no_tokens, no_admin] = Scope::ALL.map(lacks);
        check(&[], None, now, [no_preheat, no_read, no_delete, no_tokens, no_admin]);
        check(&[Scope::Preheat], Some(after), now, [Ok(()), no_read, no_delete, no_tokens, no_admin]);
        check(&[Scope::Read, Scope::Tokens], None, now, [no_preheat, Ok(()), no_delete, Ok(()), no_admin]);
        check(&[Scope::Delete], None, now, [no_preheat, no_read, Ok(()), no_tokens, no_admin]);
        check(&[Scope::Admin], None, now, [Ok(()); 5]);
        for expired in [now, before] {
            check(&[Scope::Admin], Some(expired), now, [Err(Refusal::Expired); 5]);
        }
    }

    #[test]
    fn a_text_is_a_token_only_as_a_whole() {
        let (text, hash) = TokenHash::fresh([7; 32]);
        let text = text.expose();
        assert_eq!(text.len(), PREFIX.len() + 8 + 1 + 43);
        assert!(TokenHash::of(text).unwrap().is(&hash));
        let (cut, upper) = (&text[..text.len() - 1], text.to_uppercase());
        let (swapped, longer) = (text.replacen(&hash.id().to_string(), "00000000", 1), format!("{text}A"));
        for other in ["", "shoal_", "shoal__", cut, &longer, &upper, &swapped, &text[PREFIX.len()..]] {
            assert!(TokenHash::of(other).is_none(), "{other}");
        }
        let (_, other) = TokenHash::fresh([8; 32]);
        assert!(!other.is(&hash) && !TokenHash::NONE.is(&hash));
    }

    #[test]
    fn a_secret_that_an_operator_made_works_as_well() {
        let secret = hex::encode([0xcd; 32]);
        let hash = TokenHash::of_secret(&secret);
        assert!(TokenHash::of(&format!("shoal_{}_{secret}", hash.id())).unwrap().is(&hash));
        assert!(hash.to_string().parse::<TokenHash>().unwrap().is(&hash));
    }

    #[test]
    fn neither_hash_nor_token_is_shown_by_accident() {
        let (text, hash) = TokenHash::fresh([7; 32]);
        let shown = format!("{text:?} {text} {hash:?}");
        assert_eq!(shown, format!("… … TokenHash({}…)", hash.id()));
        assert_eq!(TokenHash::shown(text.expose()), "…");
    }

    proptest! {
        #[test]
        fn no_text_is_too_strange(text: String) {
            for text in [text.clone(), PREFIX.to_owned() + &text] {
                prop_assert!(TokenHash::of(&text).is_none());
            }
            let _ = (text.parse::<TokenId>(), text.parse::<TokenHash>(), TokenName::try_from(text));
        }

        #[test]
        fn an_id_reads_back(id: u32) {
            prop_assert_eq!(TokenId(id).to_string().parse(), Ok(TokenId(id)));
        }
    }
}
