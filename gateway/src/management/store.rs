//! The tokens on disk: `management-tokens.json` in the storage directory.
//!
//! A change counts once the disk has it: a token that could come back after a crash is not withdrawn, and
//! one that could vanish is not given out. Changes are made one after another, each by writing the whole
//! file; there are few tokens. One that has begun is made, also when whoever asked for it has gone away. The last
//! use is noted along with them.
//!
//! A declared token wins over one in the file that has the same name: what the operator has just written down
//! must not keep the gateway from starting. The other one is good no more, and goes with the next change.
//!
//! Where there is no token at all, the first start makes one that may everything and leaves it in
//! `management-token`, for the operator to take. Whoever has lost all tokens removes the file of hashes and
//! starts the gateway again.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use shoal_ops::private_file;

use super::book::{Book, Conflict, Entry};
use super::scope::Scope;
use super::token::{Token, TokenHash, TokenId, TokenName};
use crate::timestamp::Timestamp;

/// The file of hashes.
const TOKENS: &str = "management-tokens.json";
/// The file of the first token's text.
const FIRST: &str = "management-token";
/// The largest file of hashes that is read, in bytes; a thousand tokens take half of it.
const MAX_LEN: u64 = 1 << 20;

/// Why the tokens cannot be read or written.
#[derive(Clone, Debug, thiserror::Error)]
#[error("management tokens {}: {fault}", path.display())]
pub(crate) struct StoreError {
    path: PathBuf,
    fault: String,
}

/// Why a change was not made.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum ChangeError {
    #[error(transparent)]
    Conflict(#[from] Conflict),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// All tokens, kept on disk; clones are of the same.
#[derive(Clone)]
pub(crate) struct TokenStore(Arc<Inner>);

struct Inner {
    path: PathBuf,
    book: Mutex<Book>,
    /// Held from the reading of the tokens to the writing of their successor.
    changing: Arc<tokio::sync::Mutex<()>>,
}

/// The file's content.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    tokens: Vec<Token>,
}

impl TokenStore {
    /// Reads the tokens in `dir` and adds the declared ones; makes the first where there is none.
    pub(crate) fn open(dir: &Path, declared: Vec<Token>, now: Timestamp) -> Result<Self, StoreError> {
        let path = dir.join(TOKENS);
        let fail = |fault: String| StoreError { path: path.clone(), fault };
        let kept = read(&path).map_err(fail)?;
        let mut book = Book::default();
        for token in declared {
            let id = token.hash.id();
            let added = book.add(Entry { token, is_declared: true });
            added.map_err(|it| fail(format!("token {id}: {it}")))?;
        }
        for token in kept {
            let (id, name) = (token.hash.id(), token.name.clone());
            match book.add(Entry { token, is_declared: false }) {
                Ok(()) => {}
                Err(conflict @ (Conflict::NameTaken | Conflict::IdTaken)) => {
                    tracing::warn!(%id, %name, %conflict, "a token in the file is good no more");
                }
                Err(conflict) => return Err(fail(format!("token {id}: {conflict}"))),
            }
        }
        if book.entries().next().is_none() {
            let entry = first(&dir.join(FIRST), now)?;
            book.add(entry).map_err(|it| fail(it.to_string()))?;
            private_file::replace(&path, &encode(&book)).map_err(|it| fail(it.to_string()))?;
        }
        Ok(Self(Arc::new(Inner { path, book: Mutex::new(book), changing: Arc::default() })))
    }

    /// The token whose secret has this hash.
    pub(crate) fn find(&self, hash: &TokenHash) -> Option<Token> {
        self.book().find(hash).cloned()
    }

    /// The token with this id.
    pub(crate) fn get(&self, id: TokenId) -> Result<Entry, Conflict> {
        self.book().get(id).cloned()
    }

    /// All tokens.
    pub(crate) fn all(&self) -> Vec<Entry> {
        self.book().entries().cloned().collect()
    }

    /// Adds a token.
    pub(crate) async fn add(&self, token: Token) -> Result<(), ChangeError> {
        self.change(|book| book.add(Entry { token, is_declared: false })).await
    }

    /// Withdraws a token.
    pub(crate) async fn remove(&self, id: TokenId) -> Result<(), ChangeError> {
        self.change(|book| book.remove(id)).await
    }

    /// Notes that a token let somebody in.
    pub(crate) async fn touch(&self, id: TokenId, now: Timestamp) {
        let is_news = self.book().touch(id, now);
        if is_news && let Err(error) = self.change(|_| Ok(())).await {
            tracing::warn!(%id, %error, "the last use of a token is not written down");
        }
    }

    async fn change(&self, edit: impl FnOnce(&mut Book) -> Result<(), Conflict>) -> Result<(), ChangeError> {
        let changing = self.0.changing.clone().lock_owned().await;
        let mut next = self.book().clone();
        edit(&mut next)?;
        let store = self.clone();
        // Who leaves does not take along what keeps the next change back until this one is made.
        let written = tokio::task::spawn_blocking(move || {
            let _changing = changing;
            store.put(next)
        });
        let written = written.await.map_err(io::Error::other).flatten();
        Ok(written.map_err(|it| StoreError { path: self.0.path.clone(), fault: it.to_string() })?)
    }

    fn put(&self, book: Book) -> io::Result<()> {
        private_file::replace(&self.0.path, &encode(&book))?;
        // A use that was noted meanwhile is lost with the old book; the next use is news again.
        *self.book() = book;
        Ok(())
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        // A book is changed as a whole or in one field, so a panic elsewhere cannot have spoilt it.
        self.0.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes the first token and leaves its text at `path`.
fn first(path: &Path, now: Timestamp) -> Result<Entry, StoreError> {
    let (text, hash) = TokenHash::fresh(rand::random());
    private_file::replace(path, format!("{}\n", text.expose()).as_bytes())
        .map_err(|it| StoreError { path: path.to_owned(), fault: it.to_string() })?;
    tracing::info!(path = %path.display(), "the first management token was made: take it from there");
    let token = Token {
        name: TokenName::first(),
        hash,
        scopes: [Scope::Admin].into(),
        created: Some(now),
        expires: None,
        last_used: None,
    };
    Ok(Entry { token, is_declared: false })
}

fn read(path: &Path) -> Result<Vec<Token>, String> {
    let mut text = String::new();
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error.to_string()),
    };
    file.take(MAX_LEN).read_to_string(&mut text).map_err(|it| it.to_string())?;
    let content: Content = serde_json::from_str(&text)
        .map_err(|it| format!("is damaged in line {}, column {}", it.line(), it.column()))?;
    Ok(content.tokens)
}

#[expect(clippy::expect_used, reason = "input cannot reach it")]
fn encode(book: &Book) -> Vec<u8> {
    let kept = book.entries().filter(|it| !it.is_declared);
    let content = Content { tokens: kept.map(|it| it.token.clone()).collect() };
    serde_json::to_vec_pretty(&content).expect("tokens have string keys, and memory takes all")
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: &str = "2026-06-01T12:00:00Z";

    fn open(dir: &Path, declared: Vec<Token>) -> Result<TokenStore, StoreError> {
        TokenStore::open(dir, declared, NOON.parse().unwrap())
    }

    fn token(seed: u8, name: &str) -> Token {
        Token {
            name: name.to_owned().try_into().unwrap(),
            hash: TokenHash::fresh([seed; 32]).1,
            scopes: [Scope::Read].into(),
            created: None,
            expires: None,
            last_used: None,
        }
    }

    fn names(store: &TokenStore) -> Vec<String> {
        let mut names: Vec<_> = store.all().into_iter().map(|it| it.token.name.to_string()).collect();
        names.sort();
        names
    }

    #[test]
    fn the_first_token_is_made_once_and_left_in_its_file() {
        let dir = tempfile::tempdir().unwrap();
        open(dir.path(), vec![]).unwrap();
        let store = open(dir.path(), vec![]).unwrap();
        let text = std::fs::read_to_string(dir.path().join(FIRST)).unwrap();
        let token = store.find(&TokenHash::of(text.trim_end()).unwrap()).unwrap();
        assert!(token.has(Scope::Admin));
        assert_eq!(names(&store), ["first"]);
        let kept = std::fs::read_to_string(dir.path().join(TOKENS)).unwrap();
        let secret = text.trim_end().splitn(3, '_').nth(2).unwrap();
        assert!(!kept.contains(secret));
    }

    #[test]
    fn a_declared_token_is_enough_and_written_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path(), vec![token(1, "harbor")]).unwrap();
        assert_eq!(names(&store), ["harbor"]);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn changes_outlive_the_process() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path(), vec![token(1, "harbor")]).unwrap();
        let (ann, bob) = (token(2, "ann"), token(3, "bob"));
        store.add(ann.clone()).await.unwrap();
        store.add(bob.clone()).await.unwrap();
        store.remove(bob.hash.id()).await.unwrap();
        store.touch(ann.hash.id(), NOON.parse().unwrap()).await;
        let store = open(dir.path(), vec![]).unwrap();
        assert_eq!(names(&store), ["ann"]);
        assert_eq!(store.find(&ann.hash).unwrap().last_used, Some(NOON.parse().unwrap()));
    }

    #[tokio::test]
    async fn a_change_whose_asker_has_left_is_made_before_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path(), vec![token(1, "harbor")]).unwrap();
        let mut adding = Box::pin(store.add(token(2, "ann")));
        let _begun = futures_util::poll!(&mut adding);
        drop(adding);
        store.add(token(3, "bob")).await.unwrap();
        let expected = ["ann", "bob", "harbor"];
        assert_eq!(names(&store), expected);
        assert_eq!(names(&open(dir.path(), vec![token(1, "harbor")]).unwrap()), expected);
    }

    #[tokio::test]
    async fn a_declared_token_wins_over_one_of_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let (made, declared) = (token(1, "harbor"), token(2, "harbor"));
        let store = open(dir.path(), vec![token(3, "other")]).unwrap();
        store.add(made.clone()).await.unwrap();
        store.add(token(4, "ann")).await.unwrap();
        let store = open(dir.path(), vec![declared.clone()]).unwrap();
        assert!(store.find(&made.hash).is_none() && store.find(&declared.hash).is_some());
        assert_eq!(names(&store), ["ann", "harbor"]);
        // The same token, made here once and declared now.
        let ann = token(4, "ann");
        let store = open(dir.path(), vec![ann.clone()]).unwrap();
        assert!(store.get(ann.hash.id()).unwrap().is_declared);
    }

    #[tokio::test]
    async fn what_the_disk_does_not_take_has_not_happened() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path(), vec![]).unwrap();
        let first = store.all()[0].token.hash;
        std::fs::remove_dir_all(dir.path()).unwrap();
        let error = store.add(token(1, "ann")).await.unwrap_err().to_string();
        assert!(error.starts_with("management tokens /") && error.contains("No such file"), "{error}");
        assert!(store.remove(first.id()).await.is_err());
        store.touch(first.id(), NOON.parse().unwrap()).await;
        assert_eq!(names(&store), ["first"]);
    }

    #[test]
    fn a_damaged_file_is_refused_and_not_repeated() {
        let dir = tempfile::tempdir().unwrap();
        for text in ["", "{\"tokens\": [{\"name\": \"hunter2\"}]}", "{\"tokens\": [], \"hunter2\": 1}"] {
            std::fs::write(dir.path().join(TOKENS), text).unwrap();
            let error = open(dir.path(), vec![]).err().unwrap().to_string();
            assert!(error.contains(TOKENS) && error.contains("line 1"), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
