//! Whether anybody listens where the gateway should be, and who.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use tokio::net::TcpStream;

use super::{each, is_openclaw};
use crate::config::Upstream;
use crate::doctor::Finding;
use crate::doctor::case::{ANSWER, Case};
use crate::gateway::{DialError, Dialler, Reason};
use crate::listen::{Holder, holder_of};
use crate::observe::log::with_causes;

/// Where OpenClaw's gateway listens unless it is told otherwise.
const ITS_DEFAULT: u16 = 18789;

/// What a connection came to.
#[derive(Debug)]
pub(in crate::doctor) struct Reached {
    pub(in crate::doctor) result: Result<SocketAddr, DialError>,
    /// Who listens, if it is on this machine and we may know.
    pub(in crate::doctor) holder: Option<Holder>,
    /// Whether somebody listens on [`ITS_DEFAULT`] of this machine instead.
    elsewhere: bool,
}

impl Reached {
    pub(in crate::doctor) async fn gather(upstream: &Upstream) -> Self {
        let dialled = tokio::time::timeout(
            ANSWER,
            Dialler::new(upstream).dial(upstream.connect_timeout),
        )
        .await;
        let result = match dialled {
            Ok(Ok(stream)) => stream.peer_addr().map_err(|source| DialError::Connect {
                address: SocketAddr::from(([0, 0, 0, 0], upstream.port)),
                source,
            }),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(DialError::Timeout(ANSWER)),
        };
        let port = upstream.port;
        let holder = match &result {
            Ok(address) if is_here(address.ip()) => {
                crate::doctor::blocking(move || holder_of(port))
                    .await
                    .flatten()
            }
            _ => None,
        };
        let elsewhere = match &result {
            Err(DialError::Connect { address, .. })
                if is_here(address.ip()) && port != ITS_DEFAULT =>
            {
                let there = TcpStream::connect((address.ip(), ITS_DEFAULT));
                matches!(tokio::time::timeout(ANSWER, there).await, Ok(Ok(_)))
            }
            _ => false,
        };
        Self {
            result,
            holder,
            elsewhere,
        }
    }
}

fn is_here(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}

pub(in crate::doctor) async fn look(case: Arc<Case>) -> Vec<Finding> {
    each(&case, |case, index| async move {
        let Some(gateway) = case.gateways.get(index) else {
            return Vec::new();
        };
        let openclaw = is_openclaw(gateway);
        let (name, port) = (&gateway.name, gateway.upstream.port);
        vec![judge(name, port, openclaw, gateway.reached().await)]
    })
    .await
}

fn judge(name: &str, port: u16, openclaw: bool, reached: &Reached) -> Finding {
    let error = match &reached.result {
        Ok(address) => {
            let who = match &reached.holder {
                Some(holder) => holder.to_string(),
                None => "somebody".to_owned(),
            };
            return Finding::ok(name, format!("{who} listens on {address}"));
        }
        Err(error) => error,
    };
    let start = match openclaw {
        true => format!(
            "start it: openclaw gateway run --port {port} (a service: openclaw gateway start)"
        ),
        false => "start the application".to_owned(),
    };
    let (seen, remedy) = match error.reason() {
        Reason::Refused if reached.elsewhere => (
            format!("nothing listens there; something does on port {ITS_DEFAULT}, OpenClaw's own default"),
            format!("if that is the gateway: set [gateway] url = \"http://127.0.0.1:{ITS_DEFAULT}\", or start it with --port {port}"),
        ),
        Reason::Refused => ("nothing listens there".to_owned(), start),
        Reason::Dns => (
            error.to_string(),
            "correct the host of [gateway] url (or of the route), or what resolves it: see /etc/resolv.conf".to_owned(),
        ),
        Reason::Timeout => (
            error.to_string(),
            "see whether its machine runs and no firewall drops the connection".to_owned(),
        ),
        _ => (with_causes(error), start),
    };
    Finding::failure(name, seen, remedy)
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::doctor::Verdict;

    fn judged(result: Result<SocketAddr, DialError>, elsewhere: bool) -> Finding {
        let reached = Reached {
            result,
            holder: None,
            elsewhere,
        };
        judge("gw:1", 1, true, &reached)
    }

    fn refused() -> Result<SocketAddr, DialError> {
        Err(DialError::Connect {
            address: "127.0.0.1:1".parse().unwrap(),
            source: io::ErrorKind::ConnectionRefused.into(),
        })
    }

    #[test]
    fn a_gateway_that_is_not_there_is_started_or_found() {
        let there = judged(Ok("127.0.0.1:1".parse().unwrap()), false);
        assert_eq!(there.verdict, Verdict::Ok);
        let gone = judged(refused(), false);
        assert_eq!(gone.verdict, Verdict::Failure);
        assert!(
            gone.remedy.contains("openclaw gateway run --port 1"),
            "{gone:?}"
        );
        let elsewhere = judged(refused(), true);
        assert!(
            elsewhere.remedy.contains("http://127.0.0.1:18789"),
            "{elsewhere:?}"
        );
        let nameless = judged(Err(DialError::NoAddress), false);
        assert!(nameless.remedy.contains("resolv.conf"), "{nameless:?}");
        let far = judged(Err(DialError::Timeout(ANSWER)), false);
        assert!(far.remedy.contains("firewall"), "{far:?}");
    }
}
