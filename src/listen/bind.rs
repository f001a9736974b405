//! Taking the listening sockets, inherited or new, and saying in words why one cannot be had.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, OwnedFd};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

use super::holder::{self, Holder};
use super::inherit::{Inherited, Kind, is_any_v4, takes_both_families};
use crate::config;

/// Connections that the kernel keeps for us until we accept them; it caps this at
/// `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// A listening socket and the address it really has (port 0 is filled in).
#[derive(Debug)]
pub struct Listener {
    pub(super) socket: TcpListener,
    configured: SocketAddr,
    address: SocketAddr,
}

/// A listening socket's double, to be handed to another process.
#[derive(Debug)]
pub struct Share {
    /// What it is for.
    pub kind: Kind,
    /// As the config has it.
    pub configured: SocketAddr,
    /// The same socket: closing it does not close the other.
    pub socket: OwnedFd,
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
    /// Takes every address of the config, or none; where a socket was inherited for one, that.
    ///
    /// Must be called within a tokio runtime.
    ///
    /// # Errors
    /// The first address that cannot be had.
    pub fn bind(config: &config::Listen, inherited: &mut Inherited) -> Result<Self, BindError> {
        let all = config
            .https
            .iter()
            .chain(&config.http)
            .copied()
            .collect::<Vec<_>>();
        Ok(Self {
            https: Listener::take_all(Kind::Https, &config.https, &all, inherited)?,
            http: Listener::take_all(Kind::Http, &config.http, &all, inherited)?,
        })
    }
}

// === impl Share ===

impl Share {
    /// Another one of the same socket.
    ///
    /// # Errors
    /// When there is no descriptor left for it.
    pub fn again(&self) -> io::Result<Self> {
        Ok(Self {
            socket: self.socket.try_clone()?,
            ..*self
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

    /// The same for the admin listener, unless its socket was inherited.
    ///
    /// # Errors
    /// As [`Self::bind`].
    pub fn bind_admin(address: SocketAddr, inherited: &mut Inherited) -> Result<Self, BindError> {
        match inherited.claim(Kind::Admin, &[address]).pop().flatten() {
            Some(socket) => Self::inherit(socket, address),
            None => Self::bind(address),
        }
    }

    /// The socket again, for the process that takes our place.
    ///
    /// # Errors
    /// When there is no descriptor left for it.
    pub fn share(&self, kind: Kind) -> io::Result<Share> {
        Ok(Share {
            kind,
            configured: self.configured,
            socket: self.socket.as_fd().try_clone_to_owned()?,
        })
    }

    /// The address it really has.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The socket itself, for a room that accepts on its own.
    pub fn into_socket(self) -> TcpListener {
        self.socket
    }

    fn take_all(
        kind: Kind,
        addresses: &[SocketAddr],
        beside: &[SocketAddr],
        inherited: &mut Inherited,
    ) -> Result<Vec<Self>, BindError> {
        let claimed = inherited.claim(kind, addresses);
        let both: Vec<u16> = claimed
            .iter()
            .flatten()
            .filter_map(|socket| socket.local_addr().ok().map(|address| (socket, address)))
            .filter(|(socket, address)| takes_both_families(socket, *address))
            .map(|(_, address)| address.port())
            .collect();
        addresses
            .iter()
            .zip(claimed)
            .filter_map(|(address, claim)| match claim {
                Some(socket) => Some(Self::inherit(socket, *address)),
                None if is_any_v4(*address) && both.contains(&address.port()) => {
                    tracing::info!(%address, "an inherited socket of [::] takes IPv4 as well");
                    None
                }
                None => Some(Self::bind_beside(*address, beside)),
            })
            .collect()
    }

    /// `[::]` leaves IPv4 alone when that is listed `beside` it.
    fn bind_beside(address: SocketAddr, beside: &[SocketAddr]) -> Result<Self, BindError> {
        let v4_is_taken = beside
            .iter()
            .any(|other| other.is_ipv4() && other.port() == address.port());
        open(address, v4_is_taken)
            .and_then(|socket| Self::new(socket, address))
            .map_err(|source| BindError::new(address, source))
    }

    fn inherit(socket: std::net::TcpListener, configured: SocketAddr) -> Result<Self, BindError> {
        Self::new(socket, configured).map_err(|source| BindError::new(configured, source))
    }

    fn new(socket: std::net::TcpListener, configured: SocketAddr) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let address = socket.local_addr()?;
        Ok(Self {
            socket: TcpListener::from_std(socket)?,
            configured,
            address,
        })
    }
}

fn open(address: SocketAddr, only_v6: bool) -> io::Result<std::net::TcpListener> {
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
    socket.listen(BACKLOG)?;
    Ok(socket.into())
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
    use super::super::inherit::InheritedSocket;
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
    async fn an_inherited_socket_is_taken_and_the_rest_is_bound() {
        let config = config::Listen {
            https: vec![any(), any()],
            http: Vec::new(),
            proxy_protocol: false,
            trusted_proxies: Vec::new(),
        };
        let old = Listeners::bind(&config, &mut Inherited::default()).unwrap();
        let share = old.https[1].share(Kind::Https).unwrap();
        let socket = share.socket.into();
        let socket = InheritedSocket::new(socket, Some(share.kind), Some(share.configured));
        let mut inherited = Inherited::new(vec![socket.unwrap()]);
        let new = Listeners::bind(&config, &mut inherited).unwrap();
        assert!(inherited.is_empty());
        assert_eq!(new.https[0].address(), old.https[1].address());
        assert_ne!(new.https[1].address(), old.https[0].address());
        // The socket lives as long as anybody has it.
        drop(old);
        let connect = tokio::net::TcpStream::connect(new.https[0].address());
        let (accepted, connected) = tokio::join!(new.https[0].socket.accept(), connect);
        assert!(accepted.is_ok() && connected.is_ok());
    }

    #[tokio::test]
    async fn one_inherited_socket_of_both_families_is_enough_for_two_addresses() {
        let any_v6 = SocketAddr::new("::".parse().unwrap(), 0);
        // A machine without IPv6 has nothing to show here.
        let Ok(socket) = open(any_v6, false) else {
            return;
        };
        let port = socket.local_addr().unwrap().port();
        let socket = InheritedSocket::new(socket, Some(Kind::Https), None).unwrap();
        let mut inherited = Inherited::new(vec![socket]);
        let config = config::Listen {
            https: vec![
                SocketAddr::new("0.0.0.0".parse().unwrap(), port),
                SocketAddr::new("::".parse().unwrap(), port),
            ],
            http: Vec::new(),
            proxy_protocol: false,
            trusted_proxies: Vec::new(),
        };
        let listeners = Listeners::bind(&config, &mut inherited).unwrap();
        assert_eq!(listeners.https.len(), 1);
        assert!(listeners.https[0].address().is_ipv6());
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
