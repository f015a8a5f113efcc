//! What is particular about the registries that an operator is likely to have.
//!
//! All of them speak the distribution protocol, but they differ where it is silent: whether a manifest that
//! names a foreign blob can be pushed, how a credential shows that it has ended, where the credential comes
//! from. Those differences are stated here, once, as answers to questions; nobody else asks for a kind by
//! name. A registry of unknown kind gets the careful answer.
//!
//! Knows nothing of: HTTP clients, credentials, settings, clocks.

use std::fmt;

use http::StatusCode;
use shoal_oci::RegistryName;

/// The product or service behind a registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Any registry that speaks the distribution protocol.
    Oci,
    /// CNCF Distribution, which Docker's image `registry` runs.
    Distribution,
    /// Harbor.
    Harbor,
    /// Zot.
    Zot,
    /// A private registry of Amazon's ECR.
    Ecr,
    /// The public gallery of Amazon's ECR.
    EcrPublic,
    /// Docker Hub.
    DockerHub,
    /// GitHub's container registry.
    Ghcr,
}

impl Kind {
    /// Every kind with the name that settings know it by.
    pub const NAMED: [(&'static str, Self); 8] = [
        ("oci", Self::Oci),
        ("distribution", Self::Distribution),
        ("harbor", Self::Harbor),
        ("zot", Self::Zot),
        ("ecr", Self::Ecr),
        ("ecr-public", Self::EcrPublic),
        ("docker-hub", Self::DockerHub),
        ("ghcr", Self::Ghcr),
    ];

    /// The kind that a registry's name gives away; a registry of one's own may have any name.
    pub fn of(name: &RegistryName) -> Self {
        match name.as_str() {
            _ if name.is_docker_hub() => Self::DockerHub,
            "ghcr.io" => Self::Ghcr,
            "public.ecr.aws" => Self::EcrPublic,
            host if ecr_region(host).is_some() => Self::Ecr,
            _ => Self::Oci,
        }
    }

    /// Whether a manifest can be pushed only where its blobs already are in the repository. If so, a manifest
    /// that the registry gives out proves that its blobs belong there. Otherwise whoever may push could name
    /// any digest in one, and learn its content from whoever trusts the manifest. Zot looks for the blobs only
    /// where it knows the type of the config (`pkg/storage/common`, "validate blobs only for known media types").
    pub(crate) const fn verifies_manifests(self) -> bool {
        match self {
            Self::Oci | Self::Zot => false,
            Self::Distribution
            | Self::Harbor
            | Self::Ecr
            | Self::EcrPublic
            | Self::DockerHub
            | Self::Ghcr => true,
        }
    }

    /// For whom the tokens of the registry's own token service are, where that is always the same.
    pub(crate) const fn token_audience(self) -> Option<&'static str> {
        match self {
            Self::Harbor => Some("harbor-registry"),
            Self::Oci
            | Self::Distribution
            | Self::Zot
            | Self::Ecr
            | Self::EcrPublic
            | Self::DockerHub
            | Self::Ghcr => None,
        }
    }

    /// Whether an answer with `status` may mean that the credential which was shown has ended. Amazon's public
    /// gallery says 400 to an ended token; that its text says so too cannot be seen in the answer to a HEAD.
    pub(crate) const fn may_mean_ended(self, status: StatusCode) -> bool {
        matches!((self, status), (_, StatusCode::UNAUTHORIZED) | (Self::EcrPublic, StatusCode::BAD_REQUEST))
    }

    /// Whether the registry gives out short-lived passwords to those whom Amazon knows.
    pub(crate) const fn is_amazon(self) -> bool {
        matches!(self, Self::Ecr | Self::EcrPublic)
    }

    /// What an operator can check where the registry refuses the gateway.
    pub(crate) const fn advice(self) -> &'static str {
        match self {
            // It answers 401 alike to a wrong password, to a missing right and for a missing project.
            Self::Harbor => "check that the project exists and that the robot account may pull from it",
            Self::Ecr => "check that the gateway's AWS identity may ecr:BatchGetImage in this repository",
            Self::EcrPublic => "check the gateway's AWS identity, or use none",
            Self::Ghcr => "check that the token has the scope read:packages",
            Self::Oci | Self::Distribution | Self::Zot | Self::DockerHub => {
                "check the credentials of this registry"
            }
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = Self::NAMED.iter().find(|(_, it)| it == self);
        f.write_str(named.map_or("", |(name, _)| name))
    }
}

/// The region of a private ECR registry, which its host name states:
/// `<account>.dkr.ecr[-fips].<region>.<domain>`. `None` for any other host.
pub(crate) fn ecr_region(host: &str) -> Option<&str> {
    const DOMAINS: [&str; 5] =
        ["amazonaws.com", "amazonaws.com.cn", "amazonaws.eu", "sc2s.sgov.gov", "c2s.ic.gov"];
    let mut parts = host.splitn(5, '.');
    let (account, dkr, ecr) = (parts.next()?, parts.next()?, parts.next()?);
    let (region, domain) = (parts.next()?, parts.next()?);
    let is_account = !account.is_empty() && account.bytes().all(|it| it.is_ascii_digit());
    let is_ecr = dkr == "dkr" && matches!(ecr, "ecr" | "ecr-fips") && DOMAINS.contains(&domain);
    (is_account && is_ecr && !region.is_empty()).then_some(region)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(name: &str, expected: Kind) {
        assert_eq!(Kind::of(&name.parse().unwrap()), expected, "{name}");
    }

    #[test]
    fn well_known_names_give_their_kind_away() {
        check("docker.io", Kind::DockerHub);
        check("registry-1.docker.io", Kind::DockerHub);
        check("ghcr.io", Kind::Ghcr);
        check("public.ecr.aws", Kind::EcrPublic);
        check("123456789012.dkr.ecr.eu-west-1.amazonaws.com", Kind::Ecr);
        check("123456789012.dkr.ecr-fips.us-gov-west-1.amazonaws.com", Kind::Ecr);
        check("123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn", Kind::Ecr);
    }

    #[test]
    fn a_name_that_only_resembles_one_gives_nothing_away() {
        for name in [
            "harbor.example.com",
            "ghcr.io.example.com",
            "ghcr.io:5000",
            "mirror.docker.io",
            "example.dkr.ecr.eu-west-1.amazonaws.com",
            "123456789012.dkr.ecr.eu-west-1.amazonaws.com.evil.example",
            "123456789012.dkr.ecr.eu-west-1.evil.example",
            "dkr.ecr.eu-west-1.amazonaws.com",
            "api.ecr.eu-west-1.amazonaws.com",
        ] {
            check(name, Kind::Oci);
        }
    }

    #[test]
    fn the_region_stands_in_the_host_name() {
        let host = "123456789012.dkr.ecr.eu-west-1.amazonaws.com";
        assert_eq!(ecr_region(host), Some("eu-west-1"));
        assert_eq!(ecr_region("public.ecr.aws"), None);
    }

    #[test]
    fn only_the_public_gallery_says_400_to_an_ended_token() {
        for (_, kind) in Kind::NAMED {
            assert!(kind.may_mean_ended(StatusCode::UNAUTHORIZED), "{kind}");
            assert!(!kind.may_mean_ended(StatusCode::FORBIDDEN), "{kind}");
            let is_public = kind == Kind::EcrPublic;
            assert_eq!(kind.may_mean_ended(StatusCode::BAD_REQUEST), is_public, "{kind}");
        }
    }

    #[test]
    fn an_unknown_registry_and_zot_may_hold_manifests_of_foreign_blobs() {
        let careful = Kind::NAMED.iter().filter(|(_, it)| !it.verifies_manifests());
        let careful: Vec<_> = careful.map(|(name, _)| *name).collect();
        assert_eq!(careful, ["oci", "zot"]);
    }
}
