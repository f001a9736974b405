//! Host name to addresses, asked anew at every dial: a container comes back with a new one.
//!
//! No NSS: a static binary has none. The hosts file and the system's DNS servers are read here,
//! each time, so that a change of either counts from the next dial on.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::LookupIpStrategy;
use hickory_resolver::net::NetError;

/// Resolves one host.
#[derive(Debug)]
pub(super) enum Resolver {
    /// An address literal or `localhost`: nothing to ask.
    Fixed(Vec<IpAddr>),
    /// A name, as configured.
    Name(String),
}

impl Resolver {
    /// For a host name or an address literal.
    pub(super) fn new(host: &str) -> Self {
        if let Ok(ip) = host.parse::<IpAddr>() {
            return Self::Fixed(vec![ip]);
        }
        if host.eq_ignore_ascii_case("localhost") {
            return Self::Fixed(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
        }
        Self::Name(host.to_owned())
    }

    /// The current addresses; empty when there are none or nobody can say.
    pub(super) async fn addresses(&self) -> Vec<IpAddr> {
        match self {
            Self::Fixed(addresses) => addresses.clone(),
            Self::Name(host) => look_up(host).await.unwrap_or_else(|error| {
                tracing::debug!(host, %error, "name look-up failed");
                Vec::new()
            }),
        }
    }
}

async fn look_up(host: &str) -> Result<Vec<IpAddr>, NetError> {
    let mut builder = TokioResolver::builder_tokio()?;
    let options = builder.options_mut();
    options.cache_size = 0;
    options.ip_strategy = LookupIpStrategy::Ipv4thenIpv6;
    let found = builder.build()?.lookup_ip(host).await?;
    Ok(found.iter().collect())
}
