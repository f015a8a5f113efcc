//! Where a redirect or a challenge may lead, and what may go along.
//!
//! Registries redirect blobs to object stores with presigned URLs. Three things can go wrong there:
//! the caller's credential reaches a stranger (and an object store refuses a request that carries
//! both a signature and a credential); content that was asked for over TLS comes in the clear; or a
//! hostile registry has us ask a server that it cannot reach itself.
//!
//! Against the last, one rule holds for redirects and for the realms of challenges:
//!
//! - A host that the operator named may stand anywhere: a registry's own, and those in `redirectHosts` and
//!   `tokenHosts`.
//! - Nobody leads to the [inner network](Network::Inner): loopback, this link, a cloud's metadata service.
//! - Who is at a public address does not lead into the private network. Who is in it may: a registry of one's
//!   own has its storage next door.
//!
//! Names say nothing about where somebody is; addresses do. Who leads is judged by the address that gave the
//! answer, and where it leads by the address that is then connected to, see [`resolve`](crate::resolve).

use std::collections::BTreeSet;
use std::net::IpAddr;

use http::HeaderMap;
use http::header::{AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION};
use url::{Host, Url};

use crate::network::Network;

/// The most redirects that one request follows.
pub(crate) const MAX_HOPS: usize = 5;

/// Why somewhere is not gone to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    #[error("redirect without a usable location")]
    Location,
    #[error("redirect from https to a plain address")]
    Downgrade,
    #[error("led to an address inside this machine or its metadata service")]
    InnerAddress,
    #[error(
        "led from a public address into the private network; name the host in redirectHosts or tokenHosts"
    )]
    PrivateAddress,
    #[error("more than {MAX_HOPS} redirects")]
    TooMany,
}

/// The hosts that the operator named: they may stand on any address.
#[derive(Clone, Debug)]
pub(crate) struct NamedHosts(pub(crate) BTreeSet<String>);

impl NamedHosts {
    /// Whether a connection to `host` may go to `address` because somebody in the network `from` said so.
    pub(crate) fn judge(&self, from: Network, host: &str, address: IpAddr) -> Result<(), Refused> {
        if self.0.contains(host) {
            return Ok(());
        }
        match (from, Network::of(address)) {
            (_, Network::Inner) => Err(Refused::InnerAddress),
            (Network::Public, Network::Private) => Err(Refused::PrivateAddress),
            (_, Network::Private | Network::Public) => Ok(()),
        }
    }
}

/// The address that `location` means for a request that was sent to `asked` and answered from the network
/// `from`.
///
/// A host name is only judged once it is resolved, see [`NamedHosts::judge`].
pub(crate) fn next_hop(
    named: &NamedHosts,
    from: Network,
    asked: &Url,
    location: &str,
) -> Result<Url, Refused> {
    let to = asked.join(location).map_err(|_| Refused::Location)?;
    match (asked.scheme(), to.scheme()) {
        (_, "https") | ("http", "http") => {}
        ("https", "http") => return Err(Refused::Downgrade),
        _ => return Err(Refused::Location),
    }
    reachable(named, from, to)
}

/// An absolute address that somebody in the network `from` gave, unless it is written out and leads where it
/// may not.
pub(crate) fn reachable(named: &NamedHosts, from: Network, to: Url) -> Result<Url, Refused> {
    let host = to.host_str().ok_or(Refused::Location)?;
    let address = match to.host() {
        Some(Host::Ipv4(it)) => Some(IpAddr::V4(it)),
        Some(Host::Ipv6(it)) => Some(IpAddr::V6(it)),
        Some(Host::Domain(_)) | None => None,
    };
    address.map_or(Ok(()), |it| named.judge(from, host, it))?;
    Ok(to)
}

/// Takes off what only the first host may see, where the next one differs in scheme, host or port.
pub(crate) fn shed_credentials(headers: &mut HeaderMap, from: &Url, to: &Url) {
    if from.origin() != to.origin() {
        for name in [AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION] {
            headers.remove(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named() -> NamedHosts {
        NamedHosts(["reg.example", "127.0.0.1", "[::1]", "10.0.0.9"].map(str::to_owned).into())
    }

    #[track_caller]
    fn check(asked: &str, location: &str, expected: Result<&str, Refused>) {
        let got = next_hop(&named(), Network::Public, &asked.parse().unwrap(), location);
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

    /// From each network, by an address that is written out and by a name that was resolved to it.
    #[track_caller]
    fn check_networks(to: &str, expected: [(Network, Result<(), Refused>); 3]) {
        let asked = "http://reg.example/".parse().unwrap();
        for (from, expected) in expected {
            let written = next_hop(&named(), from, &asked, to).map(|it| assert_eq!(it.as_str(), to));
            assert_eq!(written, expected, "{from:?} to {to}");
            let url: Url = to.parse().unwrap();
            let address = url.host_str().unwrap().trim_matches(['[', ']']).parse().unwrap();
            let resolved = named().judge(from, "store.example", address);
            assert_eq!(resolved, expected, "{from:?} to a name of {to}");
        }
    }

    #[test]
    fn nobody_leads_to_the_inner_network() {
        for to in [
            "http://127.0.0.2/",
            "http://169.254.169.254/latest/meta-data/",
            "http://100.100.100.200/",
            "http://[fd00:ec2::254]/",
            "http://[::ffff:a9fe:a9fe]/",
        ] {
            let refused = Err(Refused::InnerAddress);
            check_networks(
                to,
                [(Network::Public, refused), (Network::Private, refused), (Network::Inner, refused)],
            );
        }
        for disguised in ["http://127.2/", "http://2130706690/", "http://0x7f.2/"] {
            check("http://reg.example/", disguised, Err(Refused::InnerAddress));
        }
    }

    #[test]
    fn only_who_is_in_the_private_network_leads_into_it() {
        for to in ["http://10.0.0.7/", "http://100.64.0.1/", "http://[fd00::7]/", "http://[::ffff:c0a8:101]/"]
        {
            let refused = Err(Refused::PrivateAddress);
            check_networks(
                to,
                [(Network::Public, refused), (Network::Private, Ok(())), (Network::Inner, Ok(()))],
            );
        }
        let allowed = Ok(());
        check_networks(
            "http://8.8.8.8/",
            [Network::Public, Network::Private, Network::Inner].map(|it| (it, allowed)),
        );
    }

    #[test]
    fn hosts_that_the_operator_named_may_stand_anywhere() {
        for named in ["http://127.0.0.1:9000/", "http://[::1]/", "http://10.0.0.9/"] {
            check("http://reg.example/", named, Ok(named));
        }
        for address in [[127, 0, 0, 1], [169, 254, 169, 254], [10, 0, 0, 7]] {
            assert_eq!(named().judge(Network::Public, "reg.example", address.into()), Ok(()));
        }
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
