//! Whom an address stands for, where failures are counted.

use std::net::{IpAddr, Ipv6Addr};

/// The party that an address stands for: an IPv6 host has a whole /64 to itself.
pub(crate) fn party(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(it) => Ipv6Addr::from_bits(it.to_bits() & !u128::from(u64::MAX)).into(),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_one_party_under_all_its_addresses() {
        #[track_caller]
        fn check(address: &str, expected: &str) {
            assert_eq!(party(address.parse().unwrap()), expected.parse::<IpAddr>().unwrap());
        }
        check("10.0.0.1", "10.0.0.1");
        check("::ffff:10.0.0.1", "10.0.0.1");
        check("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::");
        check("::1", "::");
    }
}
