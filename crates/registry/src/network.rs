//! Which part of the network an address belongs to.
//!
//! What an address means does not depend on how it is written: an IPv6 address that stands for an IPv4 one is
//! what that one is.
//!
//! Knows nothing of: host names, settings, connections.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use http::Response;
use hyper_util::client::legacy::connect::HttpInfo;

/// Where somebody is, as seen from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// On the internet.
    Public,
    /// In the operator's own network: RFC 1918, unique local (RFC 4193), and shared (RFC 6598) addresses.
    Private,
    /// This machine, its link, or what a cloud has for its machines.
    Inner,
}

impl Network {
    /// Where the server is that gave this answer: by the address that was connected to, not by its name. Who
    /// left no trace is a stranger.
    pub fn behind<B>(answer: &Response<B>) -> Self {
        let connection = answer.extensions().get::<HttpInfo>();
        connection.map_or(Self::Public, |it| Self::of(it.remote_addr().ip()))
    }

    pub(crate) fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(it) => of_v4(it),
            IpAddr::V6(it) => embedded_v4(it).map_or_else(|| of_v6(it), of_v4),
        }
    }
}

fn of_v4(address: Ipv4Addr) -> Network {
    /// Metadata services outside the link-local range: Alibaba Cloud's and Azure's.
    const METADATA: [Ipv4Addr; 2] = [Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(168, 63, 129, 16)];
    let [first, second, ..] = address.octets();
    let is_inner =
        address.is_loopback() || address.is_link_local() || first == 0 || METADATA.contains(&address);
    if is_inner || address.is_broadcast() || address.is_multicast() {
        Network::Inner
    } else if address.is_private() || (first == 100 && second & 0xc0 == 64) {
        Network::Private
    } else {
        Network::Public
    }
}

fn of_v6(address: Ipv6Addr) -> Network {
    /// Amazon's metadata service and its credentials for pods, and Google's metadata service.
    const METADATA: [Ipv6Addr; 3] = [
        Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
        Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23),
        Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
    ];
    let is_inner = address.is_loopback() || address.is_unspecified() || address.is_unicast_link_local();
    if is_inner || address.is_multicast() || METADATA.contains(&address) {
        Network::Inner
    } else if address.is_unique_local() {
        Network::Private
    } else {
        Network::Public
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

    #[track_caller]
    fn check(expected: Network, addresses: &[&str]) {
        for address in addresses {
            assert_eq!(Network::of(address.parse().unwrap()), expected, "{address}");
        }
    }

    #[test]
    fn this_machine_its_link_and_its_cloud_are_the_inner_network() {
        check(
            Network::Inner,
            &["127.0.0.1", "127.255.0.1", "0.0.0.0", "0.1.2.3", "255.255.255.255", "224.0.0.1"],
        );
        check(
            Network::Inner,
            &[
                "169.254.169.254",
                "100.100.100.200",
                "168.63.129.16",
                "fd00:ec2::254",
                "fd00:ec2::23",
                "fd20:ce::254",
            ],
        );
        check(Network::Inner, &["::", "::1", "fe80::1", "febf::1", "ff02::1"]);
        check(Network::Inner, &["::ffff:127.0.0.1", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe"]);
    }

    #[test]
    fn the_operators_network_is_the_private_network() {
        check(Network::Private, &["10.0.0.7", "172.16.0.1", "172.31.255.255", "192.168.1.1"]);
        check(Network::Private, &["100.64.0.1", "100.100.100.201", "100.127.255.255"]);
        check(Network::Private, &["fc00::1", "fdff::1", "fd00:ec2::253"]);
        check(Network::Private, &["::ffff:10.0.0.7", "64:ff9b::a00:7"]);
    }

    #[test]
    fn all_others_are_the_public_network() {
        check(Network::Public, &["9.255.255.255", "11.0.0.0", "172.15.0.1", "172.32.0.1", "192.167.0.1"]);
        check(Network::Public, &["100.63.255.255", "100.128.0.0", "168.63.129.17", "8.8.8.8"]);
        check(Network::Public, &["2001:db8::1", "fbff::1", "fec0::1", "::ffff:8.8.8.8", "64:ff9b::808:808"]);
        assert_eq!(Network::behind(&Response::new(())), Network::Public);
    }
}
