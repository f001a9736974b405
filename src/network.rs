//! Addresses: whose count a client is in, wherever something is limited per address, and what a
//! host name means now.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::LookupIpStrategy;
use hickory_resolver::net::NetError;

/// The addresses of a host by the hosts file and the system's DNS servers, both read anew.
pub(crate) async fn look_up(
    host: &str,
    strategy: LookupIpStrategy,
) -> Result<Vec<IpAddr>, NetError> {
    let mut builder = TokioResolver::builder_tokio()?;
    let options = builder.options_mut();
    options.cache_size = 0;
    options.ip_strategy = strategy;
    let found = builder.build()?.lookup_ip(host).await?;
    Ok(found.iter().collect())
}

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
