//! Whose count a client is in, wherever something is limited per address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An IPv4 address, or the /64 that an IPv6 host can choose its address from.
pub(crate) fn network_of(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V4(v4) => v4.into(),
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into(),
    }
}

/// The neighbourhood of one: an IPv4 /24, or the IPv6 /48 that a single customer may be given.
pub(crate) fn wide_network_of(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V4(v4) => Ipv4Addr::from_bits(v4.to_bits() & !0xff).into(),
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !(u128::MAX >> 48)).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn ipv6_counts_by_network() {
        assert_eq!(network_of(ip("2001:db8:1:2:3:4:5:6")), ip("2001:db8:1:2::"));
        assert_eq!(network_of(ip("::ffff:192.0.2.1")), ip("192.0.2.1"));
    }

    #[test]
    fn a_neighbourhood_is_wider() {
        assert_eq!(
            wide_network_of(ip("2001:db8:1:2:3:4:5:6")),
            ip("2001:db8:1::")
        );
        assert_eq!(wide_network_of(ip("::ffff:192.0.2.1")), ip("192.0.2.0"));
        assert_eq!(wide_network_of(ip("192.0.2.255")), ip("192.0.2.0"));
    }
}
