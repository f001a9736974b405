//! Host name to addresses, asked anew at every dial: a container comes back with a new one.
//!
//! No NSS: a static binary has none. The hosts file and the system's DNS servers are read here,
//! each time, so that a change of either counts from the next dial on. A name server that fails
//! says nothing of the gateway: what was found last holds until one answers again.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hickory_resolver::config::LookupIpStrategy;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;

use crate::network::look_up;

/// Resolves one host.
#[derive(Debug)]
pub(super) enum Resolver {
    /// An address literal or `localhost`: nothing to ask.
    Fixed(Vec<IpAddr>),
    /// A name.
    Name(Name),
}

/// A host name, as configured, and what it meant last.
#[derive(Debug)]
pub(super) struct Name {
    host: String,
    known: Mutex<Vec<IpAddr>>,
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
        Self::Name(Name {
            host: host.to_owned(),
            known: Mutex::default(),
        })
    }

    /// The current addresses; empty when there are none or nobody could ever say.
    ///
    /// Those found last must do where a name server has not answered within `limit`.
    pub(super) async fn addresses(&self, limit: Duration) -> Vec<IpAddr> {
        match self {
            Self::Fixed(addresses) => addresses.clone(),
            Self::Name(name) => {
                let look_up = look_up(&name.host, LookupIpStrategy::Ipv4thenIpv6);
                name.addresses(look_up, limit).await
            }
        }
    }
}

impl Name {
    async fn addresses(
        &self,
        look_up: impl Future<Output = Result<Vec<IpAddr>, NetError>>,
        limit: Duration,
    ) -> Vec<IpAddr> {
        let known = self.known().clone();
        let found = if known.is_empty() {
            look_up.await
        } else {
            let look_up = tokio::time::timeout(limit, look_up).await;
            look_up.unwrap_or(Err(NetError::Timeout))
        };
        let host = &self.host;
        let current = match found {
            Ok(found) => found,
            Err(error) if says_none(&error) => {
                tracing::debug!(host, %error, "the host name has no address");
                Vec::new()
            }
            Err(error) => {
                tracing::debug!(host, %error, ?known, "name look-up failed");
                return known;
            }
        };
        self.known().clone_from(&current);
        current
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Vec<IpAddr>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a name server answered that there is no such address, rather than that it cannot say.
fn says_none(error: &NetError) -> bool {
    let NetError::Dns(DnsError::NoRecordsFound(none)) = error else {
        return false;
    };
    matches!(
        none.response_code,
        ResponseCode::NXDomain | ResponseCode::NoError
    )
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use hickory_resolver::net::NoRecords;
    use hickory_resolver::proto::op::Query;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_name_server_that_fails_leaves_what_was_known() {
        let Resolver::Name(name) = Resolver::new("gateway") else {
            panic!("a name");
        };
        let limit = Duration::from_secs(1);
        let one: Vec<IpAddr> = vec![[10, 0, 0, 1].into()];
        let ask = |answer| name.addresses(ready(answer), limit);
        assert_eq!(ask(Err(NetError::Timeout)).await, [] as [IpAddr; 0]);
        assert_eq!(ask(Ok(one.clone())).await, one);
        assert_eq!(ask(Err(NetError::Timeout)).await, one);
        assert_eq!(name.addresses(pending(), limit).await, one);
        let none = |code| NetError::from(NoRecords::new(Query::default(), code));
        assert_eq!(ask(Err(none(ResponseCode::ServFail))).await, one);
        let nobody = ask(Err(none(ResponseCode::NXDomain))).await;
        assert_eq!(nobody, [] as [IpAddr; 0], "that is an answer");
    }
}
