//! One TCP connection to the gateway, and what its failure means.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::time::Instant;

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

/// What each of several addresses has at least to answer in.
const SMALLEST_SHARE: Duration = Duration::from_millis(250);

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
pub(crate) struct Dialler {
    resolver: Resolver,
    port: u16,
}

impl Dialler {
    /// For a gateway as configured.
    pub(crate) fn new(upstream: &Upstream) -> Self {
        Self {
            resolver: Resolver::new(&upstream.host),
            port: upstream.port,
        }
    }

    /// Resolves and connects, all addresses in order, within the limit for the whole. Each has its
    /// share of what is left, so that one that never answers does not hide the next.
    pub(crate) async fn dial(&self, limit: Duration) -> Result<TcpStream, DialError> {
        tokio::time::timeout(limit, self.try_all(limit))
            .await
            .unwrap_or(Err(DialError::Timeout(limit)))
    }

    async fn try_all(&self, limit: Duration) -> Result<TcpStream, DialError> {
        let deadline = Instant::now() + limit;
        let mut last = DialError::NoAddress;
        let addresses = self.resolver.addresses(limit / 2).await;
        for (left, ip) in (1..=addresses.len() as u32).rev().zip(&addresses) {
            let share = deadline.saturating_duration_since(Instant::now()) / left;
            let share = share.max(SMALLEST_SHARE);
            match tokio::time::timeout(share, connect(*ip, self.port)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => last = error,
                Err(_) => last = DialError::Timeout(share),
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

#[cfg(test)]
mod tests {
    use socket2::{Domain, Socket, Type};

    use super::*;

    #[tokio::test]
    async fn an_address_that_never_answers_does_not_hide_the_next() {
        // A full backlog is a black hole: Linux drops what would not fit.
        let hole = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        hole.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())
            .unwrap();
        hole.listen(0).unwrap();
        let full = hole.local_addr().unwrap().as_socket().unwrap();
        let mut fill = Vec::new();
        let wait = Duration::from_millis(100);
        while let Ok(Ok(stream)) = tokio::time::timeout(wait, TcpStream::connect(full)).await {
            fill.push(stream);
        }
        let behind = SocketAddr::from(([127, 0, 0, 2], full.port()));
        let _listener = tokio::net::TcpListener::bind(behind).await.unwrap();
        let dialler = Dialler {
            resolver: Resolver::Fixed(vec![full.ip(), behind.ip()]),
            port: full.port(),
        };
        let stream = dialler.dial(Duration::from_secs(1)).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), behind);
    }
}
