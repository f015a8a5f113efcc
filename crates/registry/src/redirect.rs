//! Where a redirect may lead, and what may go along.
//!
//! Registries redirect blobs to object stores with presigned URLs. Three things can go wrong there:
//! the caller's credential reaches a stranger (and an object store refuses a request that carries
//! both a signature and a credential); content that was asked for over TLS comes in the clear; or a
//! hostile registry points at an address that only this machine can reach, such as a cloud's metadata
//! service. Hosts that the operator named are exempt from the last rule. Private networks are not
//! refused, since object stores often stand there.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use http::HeaderMap;
use http::header::{AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION};
use url::{Host, Url};

/// The most redirects that one request follows.
pub(crate) const MAX_HOPS: usize = 5;

/// Why a redirect is not followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    #[error("redirect without a usable location")]
    Location,
    #[error("redirect from https to a plain address")]
    Downgrade,
    #[error("redirect to an address inside this machine or its metadata service")]
    InnerAddress,
    #[error("more than {MAX_HOPS} redirects")]
    TooMany,
}

/// The hosts that the operator named: they may stand on any address.
#[derive(Clone, Debug)]
pub(crate) struct NamedHosts(pub(crate) BTreeSet<String>);

impl NamedHosts {
    /// Whether a connection to `host` may go to `address`.
    pub(crate) fn may_connect(&self, host: &str, address: IpAddr) -> bool {
        self.0.contains(host) || !is_inner(address)
    }
}

/// The address that `location` means for a request that was sent to `from`.
///
/// A host name is only judged once it is resolved, see [`NamedHosts::may_connect`].
pub(crate) fn next_hop(named: &NamedHosts, from: &Url, location: &str) -> Result<Url, Refused> {
    let to = from.join(location).map_err(|_| Refused::Location)?;
    match (from.scheme(), to.scheme()) {
        (_, "https") | ("http", "http") => {}
        ("https", "http") => return Err(Refused::Downgrade),
        _ => return Err(Refused::Location),
    }
    reachable(named, to)
}

/// An absolute address from outside, unless it means this machine or its metadata service.
pub(crate) fn reachable(named: &NamedHosts, to: Url) -> Result<Url, Refused> {
    let address = match to.host() {
        Some(Host::Ipv4(it)) => Some(IpAddr::V4(it)),
        Some(Host::Ipv6(it)) => Some(IpAddr::V6(it)),
        _ => None,
    };
    match (to.host_str(), address) {
        (None, _) => Err(Refused::Location),
        (Some(host), Some(address)) if !named.may_connect(host, address) => Err(Refused::InnerAddress),
        _ => Ok(to),
    }
}

/// Takes off what only the first host may see, where the next one differs in scheme, host or port.
pub(crate) fn shed_credentials(headers: &mut HeaderMap, from: &Url, to: &Url) {
    if from.origin() != to.origin() {
        for name in [AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION] {
            headers.remove(name);
        }
    }
}

/// Addresses that mean this machine, this link, or the cloud's services for this machine.
fn is_inner(address: IpAddr) -> bool {
    /// Metadata services outside the link-local ranges: Alibaba Cloud's, Azure's and Amazon's.
    const METADATA_V4: [Ipv4Addr; 2] = [Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(168, 63, 129, 16)];
    const METADATA_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);
    match address {
        IpAddr::V4(it) => {
            it.is_loopback()
                || it.is_link_local()
                || it.octets()[0] == 0
                || it.is_broadcast()
                || it.is_multicast()
                || METADATA_V4.contains(&it)
        }
        IpAddr::V6(it) => match embedded_v4(it) {
            Some(v4) => is_inner(IpAddr::V4(v4)),
            None => {
                it.is_loopback()
                    || it.is_unspecified()
                    || it.is_unicast_link_local()
                    || it.is_multicast()
                    || it == METADATA_V6
            }
        },
    }
}

/// The IPv4 address that an IPv6 one stands for: mapped (`::ffff:a.b.c.d`) or translated
/// (`64:ff9b::a.b.c.d`).
fn embedded_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    if let Some(mapped) = address.to_ipv4_mapped() {
        return Some(mapped);
    }
    let [prefix @ .., a, b, c, d] = address.octets();
    (prefix == [0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0]).then(|| Ipv4Addr::new(a, b, c, d))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named() -> NamedHosts {
        NamedHosts(["reg.example".to_owned(), "127.0.0.1".to_owned(), "[::1]".to_owned()].into())
    }

    #[track_caller]
    fn check(from: &str, location: &str, expected: Result<&str, Refused>) {
        let got = next_hop(&named(), &from.parse().unwrap(), location);
        assert_eq!(got.as_ref().map(Url::as_str).map_err(|it| *it), expected);
    }

    #[test]
    fn a_redirect_leads_to_any_outer_host_over_no_weaker_a_scheme() {
        check("https://reg.example/v2/a", "https://s3.example/x?sig=1", Ok("https://s3.example/x?sig=1"));
        check("https://reg.example/v2/a", "/v2/b", Ok("https://reg.example/v2/b"));
        check("http://reg.example/v2/a", "https://s3.example/x", Ok("https://s3.example/x"));
        check("http://reg.example/v2/a", "http://s3.example/x", Ok("http://s3.example/x"));
        check("https://reg.example/v2/a", "http://s3.example/x", Err(Refused::Downgrade));
        check("https://reg.example/v2/a", "file:///etc/passwd", Err(Refused::Location));
        check("https://reg.example/v2/a", "https://", Err(Refused::Location));
    }

    #[test]
    fn inner_addresses_are_refused_unless_the_operator_named_them() {
        for refused in [
            "http://127.0.0.2/",
            "http://127.2/",
            "http://2130706690/",
            "http://169.254.169.254/latest/meta-data/",
            "http://100.100.100.200/",
            "http://168.63.129.16/",
            "http://0.0.0.0/",
            "http://[::]/",
            "http://[fe80::1]/",
            "http://[fd00:ec2::254]/",
            "http://[::ffff:169.254.169.254]/",
            "http://[64:ff9b::a9fe:a9fe]/",
        ] {
            check("http://reg.example/", refused, Err(Refused::InnerAddress));
        }
        for allowed in ["http://127.0.0.1:9000/", "http://[::1]/", "http://10.0.0.7/", "http://[fd00::7]/"] {
            check("http://reg.example/", allowed, Ok(allowed));
        }
        assert!(named().may_connect("reg.example", Ipv4Addr::LOCALHOST.into()));
        assert!(!named().may_connect("evil.example", Ipv4Addr::LOCALHOST.into()));
    }

    #[test]
    fn credentials_stay_with_scheme_host_and_port() {
        for (to, kept) in [
            ("https://reg.example:443/b", true),
            ("https://reg.example:444/b", false),
            ("http://reg.example/b", false),
            ("https://reg.example.evil/b", false),
        ] {
            let mut headers = HeaderMap::new();
            for name in [AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION, http::header::RANGE] {
                headers.insert(name, "x".parse().unwrap());
            }
            shed_credentials(&mut headers, &"https://reg.example/a".parse().unwrap(), &to.parse().unwrap());
            assert_eq!(headers.len(), if kept { 4 } else { 1 }, "{to}");
            assert!(headers.contains_key(http::header::RANGE));
        }
    }
}
