//! What a token is good for.

use serde::{Deserialize, Serialize};
use shoal_ops::settings::Setting;
use utoipa::ToSchema;

/// One right. None implies another, except that [`Scope::Admin`] is all of them, and whoever may do something may see what
/// has come of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// To start and stop jobs, and to see them.
    Preheat,
    /// To see everything that routes answer to GET: jobs, tasks, nodes and regions, and tokens without their texts.
    Read,
    /// To remove blobs from the region.
    Delete,
    /// To see, make and withdraw tokens.
    Tokens,
    /// Everything.
    Admin,
}

impl Scope {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Preheat, Self::Read, Self::Delete, Self::Tokens, Self::Admin];

    /// Its word in settings, requests and answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Preheat => "preheat",
            Self::Read => "read",
            Self::Delete => "delete",
            Self::Tokens => "tokens",
            Self::Admin => "admin",
        }
    }
}

impl Setting for Scope {
    fn read(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|it| it.as_str() == text);
        found.ok_or_else(|| {
            let all = Self::ALL.map(Self::as_str).join(", ");
            format!("is not one of {all}")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_has_one_word_everywhere() {
        for scope in Scope::ALL {
            assert_eq!(Scope::read(scope.as_str()), Ok(scope));
            assert_eq!(serde_json::to_value(scope).unwrap(), scope.as_str());
        }
        assert_eq!(Scope::read("root"), Err("is not one of preheat, read, delete, tokens, admin".into()));
    }
}
