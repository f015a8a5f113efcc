//! The file of a registry's token key.
//!
//! Registries change the key now and then, and whoever deploys them replaces the file. A file that is missing
//! or half written for a while changes nothing: the key that was read last goes on counting.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::authority::access_token::{AccessTokens, TokenRules};

/// Where a registry's token key is, and what tokens must say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenKeySettings {
    /// A PEM file of a public key or certificate.
    pub file: PathBuf,
    /// What must be true of a token besides its signature.
    pub rules: TokenRules,
}

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TokenKeyError {
    #[error("token key {}: {error}", file.display())]
    Unreadable { file: PathBuf, error: std::io::Error },
    #[error("token key {}: neither a public key nor a certificate (RSA, P-256, P-384 or Ed25519) in PEM", file.display())]
    NoKey { file: PathBuf },
}

/// A key that can be read again.
pub(crate) struct TokenKey {
    settings: TokenKeySettings,
    state: Mutex<State>,
}

struct State {
    content: Vec<u8>,
    tokens: Arc<AccessTokens>,
}

impl TokenKey {
    /// Reads the file, which must be there at the start.
    pub(crate) fn open(settings: TokenKeySettings) -> Result<Self, TokenKeyError> {
        let content = read(&settings)?;
        let tokens = parse(&settings, &content)?;
        Ok(Self { settings, state: Mutex::new(State { content, tokens }) })
    }

    /// Looks at tokens by the key that was read last.
    pub(crate) fn tokens(&self) -> Arc<AccessTokens> {
        self.state().tokens.clone()
    }

    /// Reads the file again; returns whether it has another content now. Blocks.
    pub(crate) fn reload(&self) -> Result<bool, TokenKeyError> {
        let content = read(&self.settings)?;
        if content == self.state().content {
            return Ok(false);
        }
        let tokens = parse(&self.settings, &content)?;
        *self.state() = State { content, tokens };
        Ok(true)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read(settings: &TokenKeySettings) -> Result<Vec<u8>, TokenKeyError> {
    let file = &settings.file;
    std::fs::read(file).map_err(|error| TokenKeyError::Unreadable { file: file.clone(), error })
}

fn parse(settings: &TokenKeySettings, content: &[u8]) -> Result<Arc<AccessTokens>, TokenKeyError> {
    let tokens = AccessTokens::new(content, &settings.rules);
    tokens.map(Arc::new).ok_or_else(|| TokenKeyError::NoKey { file: settings.file.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: [&str; 2] = [
        "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n",
        "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAPUAXw+hDiVqStwqnTRt+vJyYLM8uxJaMwM1V8Sr0Zgw=\n-----END PUBLIC KEY-----\n",
    ];

    fn settings(file: PathBuf) -> TokenKeySettings {
        TokenKeySettings { file, rules: TokenRules { issuer: None, audience: "a".into() } }
    }

    #[test]
    fn the_key_follows_its_file_and_outlasts_a_file_that_is_no_key() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("key.pem");
        std::fs::write(&file, KEYS[0]).unwrap();
        let key = TokenKey::open(settings(file.clone())).unwrap();
        for (content, expected) in [
            (Some(KEYS[0]), Ok(false)),
            (Some(KEYS[1]), Ok(true)),
            (Some("half a k"), Err("neither a public key")),
            (None, Err("No such file")),
            (Some(KEYS[1]), Ok(false)),
            (Some(KEYS[0]), Ok(true)),
        ] {
            match content {
                Some(text) => std::fs::write(&file, text).unwrap(),
                None => std::fs::remove_file(&file).unwrap(),
            }
            let known = key.tokens();
            match (key.reload(), expected) {
                (Ok(got), Ok(expected)) => assert_eq!(got, expected, "{content:?}"),
                (Err(error), Err(fault)) => assert!(error.to_string().contains(fault), "{error}"),
                (got, expected) => panic!("{content:?}: {got:?}, not {expected:?}"),
            }
            assert_eq!(Arc::ptr_eq(&known, &key.tokens()), expected != Ok(true), "{content:?}");
        }
    }

    #[test]
    fn a_start_without_a_key_names_the_file() {
        let file = tempfile::tempdir().unwrap().path().join("key.pem");
        let error = TokenKey::open(settings(file)).err().unwrap().to_string();
        assert!(error.contains("key.pem: No such file"), "{error}");
    }
}
