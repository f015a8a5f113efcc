//! The tokens that there are: those that the settings declare, and those that were made here.
//!
//! Ids and names are unique, so that the audit log is not ambiguous. A declared token belongs to whoever
//! writes the settings: it is neither written down here nor withdrawn through the API.
//!
//! Knows nothing of: HTTP, files, clocks, random sources.

use std::collections::BTreeMap;
use std::time::Duration;

use super::token::{Token, TokenHash, TokenId};
use crate::timestamp::Timestamp;

/// How many tokens there may be.
pub(crate) const MAX_TOKENS: usize = 1000;
/// How exactly the last use is known. Finer would be a write to the disk for every call.
const USED_TO: Duration = Duration::from_secs(60);

/// All tokens, by id.
#[derive(Clone, Debug, Default)]
pub(crate) struct Book(BTreeMap<TokenId, Entry>);

/// A token and where it comes from.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) token: Token,
    /// Whether the settings declare it.
    pub(crate) is_declared: bool,
}

/// Why the tokens could not be changed as asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Conflict {
    #[error("there are {MAX_TOKENS} tokens, and no more are allowed")]
    Full,
    #[error("name: another token has it")]
    NameTaken,
    #[error("id: another token has it")]
    IdTaken,
    #[error("token {0}: does not exist")]
    Unknown(TokenId),
    #[error("token {0}: is declared in the settings, and only they can withdraw it")]
    Declared(TokenId),
}

impl Book {
    /// Adds a token.
    pub(crate) fn add(&mut self, entry: Entry) -> Result<(), Conflict> {
        let id = entry.token.hash.id();
        if self.0.len() >= MAX_TOKENS {
            return Err(Conflict::Full);
        }
        if self.0.contains_key(&id) {
            return Err(Conflict::IdTaken);
        }
        if self.entries().any(|it| it.token.name == entry.token.name) {
            return Err(Conflict::NameTaken);
        }
        self.0.insert(id, entry);
        Ok(())
    }

    /// Withdraws a token.
    pub(crate) fn remove(&mut self, id: TokenId) -> Result<(), Conflict> {
        if self.get(id)?.is_declared {
            return Err(Conflict::Declared(id));
        }
        self.0.remove(&id);
        Ok(())
    }

    /// The token with this id.
    pub(crate) fn get(&self, id: TokenId) -> Result<&Entry, Conflict> {
        self.0.get(&id).ok_or(Conflict::Unknown(id))
    }

    /// The token whose secret has this hash. The time it takes does not tell how near a wrong one is, nor
    /// whether there is one with its id.
    pub(crate) fn find(&self, hash: &TokenHash) -> Option<&Token> {
        let token = self.0.get(&hash.id()).map(|it| &it.token);
        let is_it = token.map_or(&TokenHash::NONE, |it| &it.hash).is(hash);
        token.filter(|_| is_it)
    }

    /// Notes that a token let somebody in. Returns whether that is news worth writing down.
    pub(crate) fn touch(&mut self, id: TokenId, now: Timestamp) -> bool {
        let Some(Entry { token, is_declared }) = self.0.get_mut(&id) else { return false };
        if token.last_used.is_some_and(|it| now.since(it) < USED_TO) {
            return false;
        }
        token.last_used = Some(now);
        !*is_declared
    }

    /// All tokens, by id.
    pub(crate) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.0.values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(seed: u64, name: &str, is_declared: bool) -> Entry {
        let mut random = [0; 32];
        random[..8].copy_from_slice(&seed.to_le_bytes());
        let token = Token {
            name: name.to_owned().try_into().unwrap(),
            hash: TokenHash::fresh(random).1,
            scopes: [].into(),
            created: None,
            expires: None,
            last_used: None,
        };
        Entry { token, is_declared }
    }

    fn book() -> Book {
        let mut book = Book::default();
        book.add(entry(1, "made", false)).unwrap();
        book.add(entry(2, "declared", true)).unwrap();
        book
    }

    #[test]
    fn ids_and_names_are_unique() {
        let mut book = book();
        assert_eq!(book.add(entry(1, "other", false)), Err(Conflict::IdTaken));
        assert_eq!(book.add(entry(3, "made", false)), Err(Conflict::NameTaken));
        assert_eq!(book.add(entry(3, "other", false)), Ok(()));
        assert_eq!(book.entries().count(), 3);
    }

    #[test]
    fn there_are_only_so_many() {
        let mut book = Book::default();
        for seed in 0..MAX_TOKENS as u64 {
            book.add(entry(seed, &format!("t{seed}"), false)).unwrap();
        }
        assert_eq!(book.add(entry(u64::MAX, "other", false)), Err(Conflict::Full));
    }

    #[test]
    fn a_token_is_found_by_its_secret_until_it_is_withdrawn() {
        let mut book = book();
        let [made, declared, never] = [1, 2, 3].map(|seed| entry(seed, "x", false).token.hash);
        assert_eq!(book.find(&made).unwrap().name.to_string(), "made");
        assert!(book.find(&never).is_none() && book.find(&TokenHash::NONE).is_none());
        assert_eq!(book.remove(made.id()), Ok(()));
        assert!(book.find(&made).is_none());
        assert_eq!(book.remove(made.id()), Err(Conflict::Unknown(made.id())));
        assert_eq!(book.remove(declared.id()), Err(Conflict::Declared(declared.id())));
        assert!(book.find(&declared).is_some());
    }

    #[test]
    fn the_last_use_is_news_once_a_minute_for_tokens_that_are_written_down() {
        let mut book = book();
        let at =
            |second: u32| format!("2026-06-01T12:{:02}:{:02}Z", second / 60, second % 60).parse().unwrap();
        let [made, declared, never] = [1, 2, 3].map(|seed| entry(seed, "x", false).token.hash.id());
        for (second, expected) in [(0, true), (59, false), (60, true), (61, false), (0, false)] {
            assert_eq!(book.touch(made, at(second)), expected, "{second}");
        }
        assert_eq!(book.get(made).unwrap().token.last_used, Some(at(60)));
        assert!(!book.touch(declared, at(0)) && !book.touch(never, at(0)));
        assert_eq!(book.get(declared).unwrap().token.last_used, Some(at(0)));
    }
}
