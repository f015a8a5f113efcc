//! An image that was pushed, as a registry tells it.

use std::fmt;

use shoal_oci::Repository;

use crate::fields::{Fields, Mistakes};

/// An image that somebody has just pushed with a tag. Nothing of it is checked yet but the repository, which ends at a
/// colon in [`image`](Self::image).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Push {
    /// The registry's host, with its port if it has one.
    pub host: String,
    /// The repository.
    pub repository: String,
    /// The tag that it was pushed with.
    pub tag: String,
    /// The manifest that the tag was given to.
    pub digest: String,
}

impl Push {
    /// The image by its digest: its tag may mean another by the time that it is asked for.
    pub fn image(&self) -> String {
        let Self { host, repository, digest, .. } = self;
        format!("{host}/{repository}@{digest}")
    }
}

/// As people write it, for logs.
impl fmt::Display for Push {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, repository, tag, digest } = self;
        write!(f, "{host}/{repository}:{tag}@{digest}")
    }
}

/// The text of this name, which must be there and name a repository.
pub(super) fn repository<'a>(name: &str, fields: &Fields<'a>, mistakes: &mut Mistakes) -> Option<&'a str> {
    let text = fields.needed_text(name, mistakes)?;
    if text.parse::<Repository>().is_err() {
        mistakes.add(format!("{} is no name of a repository", fields.full(name)));
        return None;
    }
    Some(text)
}
