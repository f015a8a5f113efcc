//! With whose right a registry is asked: the caller's own, or the gateway's for all nodes.

use globset::GlobSet;
use shoal_oci::Repository;

/// Whose right decides what may be pulled.
#[derive(Clone, Debug)]
pub enum Mode {
    /// The caller's own credential.
    Client,
    /// The gateway's, for all nodes, within these repositories.
    Gateway {
        /// Globs over repository names.
        repositories: GlobSet,
    },
}

impl Mode {
    /// With whose right a node's requests are passed on.
    pub(crate) const fn asker(&self) -> Asker {
        match self {
            Self::Client => Asker::Caller,
            Self::Gateway { .. } => Asker::Gateway,
        }
    }

    /// Whether pulls of `repository` may be tried at all.
    pub(crate) fn admits(&self, repository: &Repository) -> bool {
        match self {
            Self::Client => true,
            Self::Gateway { repositories } => repositories.is_match(repository.as_str()),
        }
    }
}

/// With whose right the registry is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asker {
    Caller,
    Gateway,
}
