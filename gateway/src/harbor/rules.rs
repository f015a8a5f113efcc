//! Push, then warm: which of the images that are pushed go where.

use globset::GlobSet;

use super::push::Push;
use crate::preheat::request::Asked;

/// Where an image is to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// Who is to have it, by the name in JSON.
    pub scope: String,
    /// Of an image for several platforms, which; none for all.
    pub platforms: Vec<String>,
    /// Other regions in which the same is to be done.
    pub regions: Vec<String>,
}

/// What is done about some of the images that are pushed.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Globs over repositories.
    pub repositories: GlobSet,
    /// Globs over tags.
    pub tags: GlobSet,
    /// Where such an image goes.
    pub target: Target,
}

impl Target {
    /// What a preheat job is asked for, in nobody's name.
    pub(crate) fn asked(&self, image: String) -> Asked {
        Asked {
            image,
            scope: Some(self.scope.clone()),
            platforms: self.platforms.clone(),
            regions: self.regions.clone(),
            ..Asked::default()
        }
    }
}

/// Where an image goes by the first rule that is about it.
pub(crate) fn target<'a>(rules: &'a [Rule], push: &Push) -> Option<&'a Target> {
    let is_meant = |it: &&Rule| it.repositories.is_match(&push.repository) && it.tags.is_match(&push.tag);
    rules.iter().find(is_meant).map(|it| &it.target)
}

#[cfg(test)]
mod tests {
    use globset::{GlobBuilder, GlobSetBuilder};

    use super::*;

    fn globs(patterns: &[&str]) -> GlobSet {
        let mut set = GlobSetBuilder::new();
        for pattern in patterns {
            set.add(GlobBuilder::new(pattern).literal_separator(true).build().unwrap());
        }
        set.build().unwrap()
    }

    fn rule(repositories: &[&str], tags: &[&str], scope: &str) -> Rule {
        let target = Target {
            scope: scope.to_owned(),
            platforms: vec!["linux/amd64".to_owned()],
            regions: vec!["eu".to_owned()],
        };
        Rule { repositories: globs(repositories), tags: globs(tags), target }
    }

    #[test]
    fn the_first_rule_that_is_about_an_image_counts() {
        let rules = [
            rule(&["production/**"], &["v*"], "all_peers"),
            rule(&["production/*", "base/*"], &["*"], "all_seed_peers"),
        ];
        for (repository, tag, expected) in [
            ("production/app", "v1", Some("all_peers")),
            ("production/team/app", "v1", Some("all_peers")),
            ("production/app", "latest", Some("all_seed_peers")),
            ("production/team/app", "latest", None),
            ("base/os", "12", Some("all_seed_peers")),
            ("dev/app", "v1", None),
        ] {
            let owned = str::to_owned;
            let push =
                Push { host: owned("h"), repository: owned(repository), tag: owned(tag), digest: owned("d") };
            let scope = target(&rules, &push).map(|it| it.scope.as_str());
            assert_eq!(scope, expected, "{push}");
        }
    }

    #[test]
    fn a_target_says_where_for_which_platforms_and_in_which_regions() {
        let asked = rule(&["*"], &["*"], "all_peers").target.asked("h/r@d".to_owned());
        assert_eq!((asked.image.as_str(), asked.scope.as_deref()), ("h/r@d", Some("all_peers")));
        assert_eq!(
            (&asked.platforms[..], &asked.regions[..]),
            (&["linux/amd64".to_owned()][..], &["eu".to_owned()][..])
        );
        assert!(asked.authorization.is_none());
    }
}
