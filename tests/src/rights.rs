//! Who may read which repositories of a registry, changed while the registry runs.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Rights of users; clones are of the same. The owner may read and write everything, anybody else may read what
/// was granted to them or to everybody.
#[derive(Clone, Debug)]
pub struct Rights {
    owner: String,
    granted: Arc<Mutex<BTreeSet<Grant>>>,
}

/// A user, or everybody, and a repository.
type Grant = (Option<String>, String);

impl Rights {
    /// Rights of nobody but the owner.
    pub(crate) fn of_owner(owner: &str) -> Self {
        Self { owner: owner.into(), granted: Arc::default() }
    }

    /// Lets a user, or everybody, read a repository.
    pub fn grant(&self, user: Option<&str>, repository: &str) {
        self.granted().insert((user.map(Into::into), repository.into()));
    }

    /// Takes back what was granted.
    pub fn withdraw(&self, user: Option<&str>, repository: &str) {
        self.granted().remove(&(user.map(Into::into), repository.into()));
    }

    /// Whether a user, or somebody unknown, may read a repository.
    pub(crate) fn allow(&self, user: Option<&str>, repository: &str) -> bool {
        let grants = [user.map(Into::into), None].map(|it| (it, repository.to_owned()));
        self.is_owner(user) || grants.iter().any(|it| self.granted().contains(it))
    }

    /// Whether this user may write.
    pub(crate) fn is_owner(&self, user: Option<&str>) -> bool {
        user == Some(self.owner.as_str())
    }

    fn granted(&self) -> MutexGuard<'_, BTreeSet<Grant>> {
        self.granted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_right_is_of_one_user_for_one_repository_until_it_is_withdrawn() {
        let rights = Rights::of_owner("robot");
        rights.grant(Some("alice"), "private/a");
        rights.grant(None, "public");
        for (user, repository, expected) in [
            (Some("robot"), "private/b", true),
            (Some("alice"), "private/a", true),
            (Some("alice"), "private/b", false),
            (Some("alice"), "public", true),
            (Some("bob"), "private/a", false),
            (None, "private/a", false),
            (None, "public", true),
        ] {
            assert_eq!(rights.allow(user, repository), expected, "{user:?} {repository}");
        }
        rights.withdraw(Some("alice"), "private/a");
        assert!(!rights.allow(Some("alice"), "private/a"));
    }
}
