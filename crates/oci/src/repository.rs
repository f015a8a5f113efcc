//! The name of a repository within its registry, for example `prod/app`.
//!
//! The grammar is the specification's: components of lower-case letters and digits, joined by `.`,
//! `_`, `__` or dashes, with `/` between them. It leaves no room for `..`, an empty component, an
//! encoded byte or a control character, so a name that was parsed is safe in a path as it stands.

use std::str::FromStr;
use std::sync::Arc;

use crate::RegistryName;
use crate::error::{ErrorCode, OciError};
use crate::text::{is_dashes, is_joined_words, quoted, reads_as_text};

/// The longest name in bytes; clients of the specification need not support longer ones.
const MAX_LEN: usize = 255;

/// A repository name. Equal names mean the same repository of one registry.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Repository(Arc<str>);

reads_as_text!(Repository);

impl Repository {
    /// The name under which `registry` itself knows the repository.
    ///
    /// Docker Hub keeps its official images below `library/`, and people and clients leave that out:
    /// `alpine` there is `library/alpine`. Without this, one repository would have two names, and a
    /// right proven for one would be asked for again for the other. Fails where the full name would
    /// be too long.
    pub fn within(self, registry: &RegistryName) -> Result<Self, OciError> {
        if registry.is_docker_hub() && !self.0.contains('/') {
            return format!("library/{self}").parse();
        }
        Ok(self)
    }
}

impl FromStr for Repository {
    type Err = OciError;

    fn from_str(text: &str) -> Result<Self, OciError> {
        let refuse = |fault: String| {
            let message = format!("repository {}: {fault}", quoted(text));
            Err(OciError::new(ErrorCode::NameInvalid, message))
        };
        if text.len() > MAX_LEN {
            return refuse(format!("is {} bytes long, at most {MAX_LEN} are allowed", text.len()));
        }
        match text.split('/').find(|it| !is_component(it)) {
            Some(component) => refuse(format!(
                "component {component:?} is not lower-case letters and digits joined by . _ __ or dashes"
            )),
            None => Ok(Self(text.into())),
        }
    }
}

fn is_component(text: &str) -> bool {
    is_joined_words(text, |separator| matches!(separator, "." | "_" | "__") || is_dashes(separator))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(text: &str, expected: Result<(), ErrorCode>) {
        let parsed = text.parse::<Repository>();
        assert_eq!(parsed.map(drop).map_err(|it| it.code), expected, "{text:?}");
    }

    #[test]
    fn the_grammar_of_the_specification_holds() {
        for good in ["a", "prod/app", "a.b/c_d/e__f/g-h/i---j", "0/9"] {
            check(good, Ok(()));
        }
        for bad in [
            "", "/", "/a", "a/", "a//b", ".", "..", "a/../b", "a..b", "a___b", "a._b", "-a", "a-",
            "Prod/app", "a%2Fb", "a%2e", "a:b", "a\0", "a b", "ä",
        ] {
            check(bad, Err(ErrorCode::NameInvalid));
        }
    }

    #[test]
    fn a_name_has_at_most_255_bytes() {
        check(&"a".repeat(255), Ok(()));
        check(&"a".repeat(256), Err(ErrorCode::NameInvalid));
        let error = "a".repeat(300).parse::<Repository>().unwrap_err();
        assert!(error.message.ends_with("is 300 bytes long, at most 255 are allowed"));
    }

    #[test]
    fn only_single_names_on_docker_hub_are_official_images() {
        let within = |repository: &str, registry: &str| {
            let repository = repository.parse::<Repository>().unwrap();
            repository.within(&registry.parse().unwrap()).map(|it| it.to_string())
        };
        assert_eq!(within("alpine", "docker.io"), Ok("library/alpine".into()));
        assert_eq!(within("prod/app", "docker.io"), Ok("prod/app".into()));
        assert_eq!(within("alpine", "harbor.example.com"), Ok("alpine".into()));
        assert!(within(&"a".repeat(255), "docker.io").is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_kept_as_it_is_or_refused(text in "[a-z0-9._/-]{0,20}|.*") {
            if let Ok(repository) = text.parse::<Repository>() {
                prop_assert_eq!(repository.as_str(), text);
            }
        }
    }
}
