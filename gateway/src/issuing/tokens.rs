//! The join tokens of the region, by the role that each proves.
//!
//! They are the operator's, or made at the first start and kept in a file from which the operator carries them
//! to where nodes find them. Several of a role are good at a time, so that one can be replaced by another
//! node by node.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use sha2::{Digest as _, Sha256};
use shoal_identity::{Ca, JoinToken};
use shoal_ops::private_file;
use zeroize::Zeroizing;

use super::proven::Newcomer;

/// All tokens that are good.
pub(super) struct JoinTokens(Vec<(Newcomer, JoinToken)>);

/// A token that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("join token of a {role}: {place}: {fault}")]
pub(super) struct TokenError {
    role: Newcomer,
    place: String,
    fault: String,
}

impl JoinTokens {
    /// Takes the operator's tokens, and those kept in `dir` for roles that have none.
    pub(super) fn open(
        given: BTreeMap<Newcomer, Vec<JoinToken>>,
        dir: &Path,
        ca: &Ca,
    ) -> Result<Self, TokenError> {
        let mut tokens = Vec::new();
        for (role, mut good) in given {
            let mut place = format!("security.joinTokens.{role}");
            if good.is_empty() {
                let path = dir.join(format!("{role}.token"));
                place = path.display().to_string();
                good = kept(&path, ca).map_err(|fault| TokenError { role, place: place.clone(), fault })?;
                tracing::info!(%role, path = place, "join token");
            }
            // Nodes know the gateway by the root that their token names.
            let root: [u8; 32] = Sha256::digest(ca.root()).into();
            if good.iter().any(|it| it.pin().is_some_and(|pin| *pin != root)) {
                let fault = "names the root of another region; take a token of this one".to_owned();
                return Err(TokenError { role, place, fault });
            }
            tokens.extend(good.into_iter().map(|it| (role, it)));
        }
        Ok(Self(tokens))
    }

    /// What a token that was shown proves.
    pub(super) fn role_of(&self, shown: &str) -> Option<Newcomer> {
        // All are compared, whichever matches, so that time tells nothing.
        let compare =
            |found, (role, token): &(_, JoinToken)| if token.is(shown) { Some(*role) } else { found };
        self.0.iter().fold(None, compare)
    }
}

/// The tokens in a text, separated by white space.
///
/// # Errors
/// The end of a sentence that begins with where the text is from; it does not repeat a secret.
pub(crate) fn tokens_in(text: &str) -> Result<Vec<JoinToken>, String> {
    let tokens: Vec<_> = text.split_whitespace().map(JoinToken::parse).collect::<Result<_, _>>()?;
    if tokens.is_empty() { Err("holds no token".to_owned()) } else { Ok(tokens) }
}

/// Reads the tokens in a file, or makes one where there is no file.
fn kept(path: &Path, ca: &Ca) -> Result<Vec<JoinToken>, String> {
    match fs::read_to_string(path).map(Zeroizing::new) {
        Ok(text) => tokens_in(&text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let token = JoinToken::random(ca.root());
            let made = path.parent().map_or(Ok(()), private_file::create_dir);
            let kept = made.and_then(|()| private_file::replace(path, token.expose().as_bytes()));
            kept.map_err(|it| it.to_string())?;
            Ok(vec![token])
        }
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn ca() -> Ca {
        Ca::create("shoal.local".parse().unwrap()).unwrap().0
    }

    fn none_given() -> BTreeMap<Newcomer, Vec<JoinToken>> {
        Newcomer::ALL.map(|it| (it, Vec::new())).into()
    }

    #[test]
    fn a_token_of_each_role_is_made_once_and_for_this_user_only() {
        let (dir, ca) = (tempfile::tempdir().unwrap(), ca());
        let join = dir.path().join("join");
        JoinTokens::open(none_given(), &join, &ca).unwrap();
        let again = JoinTokens::open(none_given(), &join, &ca).unwrap();
        for role in Newcomer::ALL {
            let path = join.join(format!("{role}.token"));
            assert_eq!(again.role_of(&fs::read_to_string(&path).unwrap()), Some(role));
            assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        }
        assert_eq!(fs::read_dir(join).unwrap().count(), Newcomer::ALL.len());
    }

    #[test]
    fn the_operators_tokens_take_the_place_of_kept_ones() {
        let (dir, ca) = (tempfile::tempdir().unwrap(), ca());
        let parse = |it| JoinToken::parse(it).unwrap();
        let mut given = none_given();
        given.insert(Newcomer::Sidecar, ["an old secret of ours", "a new secret of ours"].map(parse).into());
        let tokens = JoinTokens::open(given, dir.path(), &ca).unwrap();
        for good in ["an old secret of ours", "a new secret of ours\n"] {
            assert_eq!(tokens.role_of(good), Some(Newcomer::Sidecar));
        }
        for bad in ["", "an old secret of our", JoinToken::random(ca.root()).expose()] {
            assert_eq!(tokens.role_of(bad), None);
        }
        assert!(!dir.path().join("sidecar.token").exists());
    }

    #[test]
    fn a_token_that_nodes_could_not_use_is_told_and_not_repeated() {
        let (dir, ca, other) = (tempfile::tempdir().unwrap(), ca(), JoinToken::random(ca().root()));
        let path = dir.path().join("sidecar.token");
        let told = || JoinTokens::open(none_given(), dir.path(), &ca).err().unwrap().to_string();
        fs::write(&path, other.expose()).unwrap();
        assert!(told().contains("sidecar.token: names the root of another region"), "{}", told());
        assert!(!told().contains(other.expose()));
        fs::write(&path, "hunter2").unwrap();
        assert!(told().contains("7 bytes") && !told().contains("hunter2"));
        fs::write(&path, "\n").unwrap();
        assert!(told().contains("holds no token"));
    }
}
