//! One TCP connection to the gateway, and what its failure means.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

use super::resolve::Resolver;
use super::state::Reason;
use crate::config::Upstream;

/// Silence after which TCP asks whether the gateway's host is still there.
const PROBE_AFTER: Duration = Duration::from_secs(30);
/// How often it asks.
const PROBE_EVERY: Duration = Duration::from_secs(10);
/// How long sent bytes may stay unacknowledged: a host that vanished says nothing. Longer than
/// any hang that a gateway comes back from.
const UNACKNOWLEDGED: Duration = Duration::from_secs(120);

/// Why no connection came about. Nothing was sent.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The name has no address.
    #[error("the host name has no address")]
    NoAddress,
    /// No connection within the limit.
    #[error("no connection within {0:?}")]
    Timeout(Duration),
    /// The connection was refused or broke.
    #[error("cannot connect to {address}")]
    Connect {
        /// The last address tried.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}

impl DialError {
    /// The word for it in frames and status.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::NoAddress => Reason::Dns,
            Self::Timeout(_) => Reason::Timeout,
            Self::Connect { source, .. } => reason_of(source),
        }
    }
}

/// The word for an I/O error on a connection to the gateway.
#[must_use]
pub fn reason_of(error: &io::Error) -> Reason {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Reason::Refused,
        io::ErrorKind::HostUnreachable
        | io::ErrorKind::NetworkUnreachable
        | io::ErrorKind::NetworkDown
        | io::ErrorKind::AddrNotAvailable => Reason::Unreachable,
        io::ErrorKind::TimedOut => Reason::Timeout,
        io::ErrorKind::UnexpectedEof => Reason::Closed,
        _ => Reason::Reset,
    }
}

/// Makes connections to one gateway.
#[derive(Debug)]
pub(super) struct Dialler {
    resolver: Resolver,
    port: u16,
    limit: Duration,
}

impl Dialler {
    /// For a gateway as configured.
    pub(super) fn new(upstream: &Upstream) -> Self {
        Self {
            resolver: Resolver::new(&upstream.host),
            port: upstream.port,
            limit: upstream.connect_timeout,
        }
    }

    /// Resolves and connects, all addresses in order, within the limit for the whole.
    pub(super) async fn dial(&self) -> Result<TcpStream, DialError> {
        tokio::time::timeout(self.limit, self.try_all())
            .await
            .unwrap_or(Err(DialError::Timeout(self.limit)))
    }

    async fn try_all(&self) -> Result<TcpStream, DialError> {
        let mut last = DialError::NoAddress;
        for ip in self.resolver.addresses().await {
            match connect(ip, self.port).await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

async fn connect(ip: IpAddr, port: u16) -> Result<TcpStream, DialError> {
    let address = SocketAddr::new(ip, port);
    let connected = async {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let socket = SockRef::from(&stream);
        let keepalive = TcpKeepalive::new()
            .with_time(PROBE_AFTER)
            .with_interval(PROBE_EVERY);
        socket.set_tcp_keepalive(&keepalive)?;
        socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED))?;
        Ok(stream)
    };
    connected
        .await
        .map_err(|source| DialError::Connect { address, source })
}
