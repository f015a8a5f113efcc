//! The name of a registry: `host`, `host:port` or `[v6]:port`.
//!
//! The name selects credentials, limits and the trust group, so two spellings of one registry must
//! not be two names: case is folded, IPv6 is written the short way, and the three names under which
//! Docker Hub is known become `docker.io`. What cannot be folded safely is refused: a trailing dot,
//! an IPv6 zone, a port with leading zeros, what a URL would take for an IPv4 address (`127.1`). `host` and
//! `host:443` stay two names, because whether 443 is the default depends on a scheme that the name does not carry.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU16;
use std::str::FromStr;
use std::sync::Arc;

use crate::error::{ErrorCode, OciError};
use crate::text::{is_dashes, is_joined_words, quoted, reads_as_text};

const DOCKER_HUB: &str = "docker.io";
const DOCKER_HUB_ALIASES: [&str; 2] = ["index.docker.io", "registry-1.docker.io"];
/// The limits of DNS.
const MAX_HOST: usize = 253;
const MAX_LABEL: usize = 63;

/// The canonical name of a registry, for example `harbor.example.com:5000`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RegistryName(Arc<str>);

reads_as_text!(RegistryName);

impl RegistryName {
    /// The registry that is meant where an image name states none.
    pub fn docker_hub() -> Self {
        Self(DOCKER_HUB.into())
    }

    /// Whether this is Docker Hub, under whichever of its names it was parsed.
    pub fn is_docker_hub(&self) -> bool {
        &*self.0 == DOCKER_HUB
    }
}

impl FromStr for RegistryName {
    type Err = OciError;

    fn from_str(text: &str) -> Result<Self, OciError> {
        let name = canonical(text).ok_or_else(|| {
            OciError::new(
                ErrorCode::NameInvalid,
                format!("registry {}: not of the form host, host:port or [v6]:port", quoted(text)),
            )
        })?;
        if DOCKER_HUB_ALIASES.contains(&name.as_str()) {
            return Ok(Self::docker_hub());
        }
        Ok(Self(name.into()))
    }
}

fn canonical(text: &str) -> Option<String> {
    let (host, port) = split_port(text)?;
    let host = match host.strip_prefix('[') {
        Some(rest) => format!("[{}]", rest.strip_suffix(']')?.parse::<Ipv6Addr>().ok()?),
        None => dns_name(host)?,
    };
    match port {
        Some(port) => Some(format!("{host}:{}", port_number(port)?)),
        None => Some(host),
    }
}

/// Cuts at the last colon, unless that colon belongs to a bracketed address without a port.
fn split_port(text: &str) -> Option<(&str, Option<&str>)> {
    match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => Some((host, Some(port))),
        _ => Some((text, None)),
    }
}

fn dns_name(host: &str) -> Option<String> {
    let host = host.to_ascii_lowercase();
    let is_label = |label: &str| label.len() <= MAX_LABEL && is_joined_words(label, is_dashes);
    let is_name = host.len() <= MAX_HOST && host.split('.').all(is_label);
    (is_name && (!ends_in_number(&host) || host.parse::<Ipv4Addr>().is_ok())).then_some(host)
}

/// Whether URLs take the host for an IPv4 address, and can only be one in that case (URL standard, section 3.6).
fn ends_in_number(host: &str) -> bool {
    let last = host.rsplit('.').next().unwrap_or(host);
    let is_hex = |it: &str| it.bytes().all(|it| it.is_ascii_hexdigit());
    last.bytes().all(|it| it.is_ascii_digit()) || last.strip_prefix("0x").is_some_and(is_hex)
}

/// A parsed port whose text is its only spelling: `parse` alone takes `+80` and `080` as well.
fn port_number(text: &str) -> Option<NonZeroU16> {
    text.parse::<NonZeroU16>().ok().filter(|it| it.to_string() == text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(text: &str, expected: Option<&str>) {
        let parsed = text.parse::<RegistryName>();
        assert_eq!(parsed.as_ref().ok().map(RegistryName::as_str), expected, "{text:?}");
        if let Err(error) = parsed {
            assert_eq!(error.code, ErrorCode::NameInvalid);
        }
    }

    #[test]
    fn a_registry_has_one_spelling() {
        check("harbor.example.com", Some("harbor.example.com"));
        check("Harbor.Example.COM:5000", Some("harbor.example.com:5000"));
        check("localhost", Some("localhost"));
        check("10.0.0.1:5000", Some("10.0.0.1:5000"));
        check("xn--bcher-kva.example", Some("xn--bcher-kva.example"));
        check("1password.example:80", Some("1password.example:80"));
        check("[FD00:0:0::1]:5000", Some("[fd00::1]:5000"));
        check("[::1]", Some("[::1]"));
    }

    #[test]
    fn docker_hub_has_one_name() {
        for alias in ["docker.io", "index.docker.io", "Registry-1.Docker.io"] {
            check(alias, Some("docker.io"));
        }
        check("mirror.docker.io", Some("mirror.docker.io"));
        assert!(RegistryName::docker_hub().is_docker_hub());
    }

    #[test]
    fn what_is_no_host_and_port_is_refused() {
        for bad in [
            "",
            ":",
            ":5000",
            "host:",
            "host:0",
            "host:080",
            "host:+80",
            "host:65536",
            "host:80:80",
            "host.",
            ".host",
            "a..b",
            "-host",
            "host-",
            "ho_st",
            "ho st",
            "höst",
            "host/path",
            "user@host",
            "host%3A5000",
            "host\0",
            "127.1",
            "010.0.0.1",
            "10.0.0.256",
            "1.2.3.4.5",
            "host.5",
            "0x7f.1",
            "host.0x7f",
            "2130706433",
            "::1",
            "[::1",
            "[]",
            "[fe80::1%eth0]:80",
            "[::1]80",
            "[host]:80",
        ] {
            check(bad, None);
        }
        check(&"a".repeat(MAX_LABEL + 1), None);
        check(&["a"; 128].join("."), None);
    }

    proptest! {
        #[test]
        fn any_text_is_a_name_that_parses_back_or_refused(text in "[a-zA-Z0-9.:\\[\\]-]{0,20}|.*") {
            if let Ok(name) = text.parse::<RegistryName>() {
                prop_assert_eq!(name.as_str().parse(), Ok(name.clone()));
            }
        }
    }
}
