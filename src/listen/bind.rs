//! Taking the listening sockets, and saying in words why one cannot be had.

use std::io;
use std::net::SocketAddr;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

use super::holder::{self, Holder};
use crate::config;

/// Connections that the kernel keeps for us until we accept them; it caps this at
/// `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// A listening socket and the address it really has (port 0 is filled in).
#[derive(Debug)]
pub struct Listener {
    pub(super) socket: TcpListener,
    address: SocketAddr,
}

/// Every public listener of a config.
#[derive(Debug)]
pub struct Listeners {
    /// Those that speak TLS.
    pub https: Vec<Listener>,
    /// Those that only redirect to https.
    pub http: Vec<Listener>,
}

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody else listens there.
    #[error("cannot listen on {address}: {}; stop it, or choose another address in the config", held_by(.address, .holder.as_ref()))]
    InUse {
        /// The address.
        address: SocketAddr,
        /// Who it is, if we may know.
        holder: Option<Holder>,
    },
    /// A port below 1024 without the right to it.
    #[error(
        "cannot listen on {address}: ports below 1024 need CAP_NET_BIND_SERVICE; run `setcap cap_net_bind_service=+ep` on the holdline binary, set AmbientCapabilities=CAP_NET_BIND_SERVICE in its systemd unit, or choose a higher port in the config"
    )]
    Privileged {
        /// The address.
        address: SocketAddr,
    },
    /// No interface of this machine has the address.
    #[error(
        "cannot listen on {address}: this machine has no such address; `ip addr` lists those it has"
    )]
    NoSuchAddress {
        /// The address.
        address: SocketAddr,
    },
    /// Anything else.
    #[error("cannot listen on {address}: {source}")]
    Other {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}

// === impl Listeners ===

impl Listeners {
    /// Takes every address of the config, or none.
    ///
    /// Must be called within a tokio runtime.
    ///
    /// # Errors
    /// The first address that cannot be had.
    pub fn bind(config: &config::Listen) -> Result<Self, BindError> {
        let all = config
            .https
            .iter()
            .chain(&config.http)
            .copied()
            .collect::<Vec<_>>();
        let bind = |addresses: &[SocketAddr]| {
            addresses
                .iter()
                .map(|address| Listener::bind_beside(*address, &all))
                .collect::<Result<Vec<_>, _>>()
        };
        Ok(Self {
            https: bind(&config.https)?,
            http: bind(&config.http)?,
        })
    }
}

// === impl Listener ===

impl Listener {
    /// Takes one address. `[::]` also takes IPv4.
    ///
    /// Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When the address cannot be had; it says why and what to do.
    pub fn bind(address: SocketAddr) -> Result<Self, BindError> {
        Self::bind_beside(address, &[])
    }

    /// Uses a socket that is listening already, e.g. one inherited from systemd.
    ///
    /// # Errors
    /// When it is no listening TCP socket.
    pub fn from_std(socket: std::net::TcpListener) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let address = socket.local_addr()?;
        Ok(Self {
            socket: TcpListener::from_std(socket)?,
            address,
        })
    }

    /// Whether the address could be taken now, with these others `beside` it. Nobody can connect
    /// meanwhile.
    ///
    /// # Errors
    /// As [`Self::bind`].
    pub fn try_bind(address: SocketAddr, beside: &[SocketAddr]) -> Result<(), BindError> {
        bound(address, v4_is_taken(address, beside))
            .map(drop)
            .map_err(|source| BindError::new(address, source))
    }

    /// The address it really has.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The socket itself, for a room that accepts on its own.
    pub fn into_socket(self) -> TcpListener {
        self.socket
    }

    /// `[::]` leaves IPv4 alone when that is listed `beside` it.
    fn bind_beside(address: SocketAddr, beside: &[SocketAddr]) -> Result<Self, BindError> {
        open(address, v4_is_taken(address, beside))
            .and_then(Self::from_std)
            .map_err(|source| BindError::new(address, source))
    }
}

fn v4_is_taken(address: SocketAddr, beside: &[SocketAddr]) -> bool {
    let same = |other: &SocketAddr| other.is_ipv4() && other.port() == address.port();
    beside.iter().any(same)
}

fn open(address: SocketAddr, only_v6: bool) -> io::Result<std::net::TcpListener> {
    let socket = bound(address, only_v6)?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn bound(address: SocketAddr, only_v6: bool) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        let unspecified = address.ip().is_unspecified();
        socket.set_only_v6(only_v6 || !unspecified)?;
    }
    // A restart must not wait for connections of the last run in TIME_WAIT.
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

// === impl BindError ===

impl BindError {
    fn new(address: SocketAddr, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::AddrInUse => Self::InUse {
                address,
                holder: holder::of(address.port()),
            },
            io::ErrorKind::PermissionDenied if address.port() < 1024 => {
                Self::Privileged { address }
            }
            io::ErrorKind::AddrNotAvailable => Self::NoSuchAddress { address },
            _ => Self::Other { address, source },
        }
    }
}

fn held_by(address: &SocketAddr, holder: Option<&Holder>) -> String {
    let port = address.port();
    holder.map_or_else(
        || format!("port {port} is in use (`ss -ltnp 'sport = :{port}'` as root shows by whom)"),
        |holder| format!("port {port} is held by {holder}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn any() -> SocketAddr {
        "127.0.0.1:0".parse().unwrap()
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn says_who_holds_the_port() {
        let first = Listener::bind(any()).unwrap();
        let text = Listener::bind(first.address()).unwrap_err().to_string();
        let port = first.address().port();
        assert!(text.contains(&first.address().to_string()), "{text}");
        assert!(text.contains(&format!("port {port} is held by ")), "{text}");
        assert!(
            text.contains(&format!("(pid {})", std::process::id())),
            "{text}"
        );
    }

    #[test]
    fn explains_what_to_do() {
        let address = "192.0.2.1:443".parse().unwrap();
        let text = |kind: io::ErrorKind| BindError::new(address, kind.into()).to_string();
        assert!(text(io::ErrorKind::PermissionDenied).contains("CAP_NET_BIND_SERVICE"));
        assert!(text(io::ErrorKind::AddrNotAvailable).contains("no such address"));
        let unknown = BindError::InUse {
            address,
            holder: None,
        }
        .to_string();
        assert!(unknown.contains("ss -ltnp 'sport = :443'"), "{unknown}");
    }

    #[tokio::test]
    async fn both_families_on_one_port() {
        let v4 = Listener::bind("0.0.0.0:0".parse().unwrap()).unwrap();
        let port = v4.address().port();
        let v6 = SocketAddr::new("::".parse().unwrap(), port);
        // A machine without IPv6 has nothing to show here.
        match Listener::bind_beside(v6, &[v4.address()]) {
            Ok(both) => assert_eq!(both.address().port(), port),
            Err(error) => assert!(!matches!(error, BindError::InUse { .. }), "{error}"),
        }
    }
}
