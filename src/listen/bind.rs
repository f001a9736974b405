//! Taking the listening sockets, and saying in words why one cannot be had.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::TcpListener;

use super::holder::{self, Holder};
use super::inherit::{Inherited, Kind};
use super::socket::ListeningSocket;

/// Connections that the kernel keeps for us until we accept them; it caps this at
/// `net.core.somaxconn`.
pub(super) const BACKLOG: i32 = 4096;

/// A listening socket and the address it really has (port 0 is filled in).
#[derive(Debug)]
pub struct Listener {
    pub(super) socket: Arc<ListeningSocket>,
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

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody else listens there.
    #[error("cannot listen on {address}: {}", held_by(.address, .holder.as_ref()))]
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

// === impl Listener ===

impl Listener {
    /// Takes one address. `[::]` also takes IPv4.
    ///
    /// Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When the address cannot be had; it says why and what to do.
    pub fn bind(address: SocketAddr) -> Result<Self, BindError> {
        Self::bind_in_place_of(address, only_v6(address, &[]), &[])
    }

    /// The same for the admin listener, unless its socket was inherited; listeners of ours that
    /// are `leaving` are not in its way.
    ///
    /// # Errors
    /// As [`Self::bind`].
    pub fn bind_admin(
        address: SocketAddr,
        leaving: &[Arc<ListeningSocket>],
        inherited: &mut Inherited,
    ) -> Result<Self, BindError> {
        match inherited.claim(Kind::Admin, &[address]).pop().flatten() {
            Some(socket) => Self::inherit(socket, address),
            None => Self::bind_in_place_of(address, only_v6(address, &[]), leaving),
        }
    }

    /// The socket again, for the process that takes our place.
    ///
    /// # Errors
    /// When there is no descriptor left for it.
    pub fn share(kind: Kind, configured: SocketAddr, socket: &TcpListener) -> io::Result<Share> {
        Ok(Share {
            kind,
            configured,
            socket: socket.as_fd().try_clone_to_owned()?,
        })
    }

    /// A socket that is listening already.
    pub(super) fn inherit(
        socket: std::net::TcpListener,
        configured: SocketAddr,
    ) -> Result<Self, BindError> {
        Self::new(socket).map_err(|source| BindError::new(configured, source))
    }

    fn new(socket: std::net::TcpListener) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let address = socket.local_addr()?;
        Ok(Self {
            socket: ListeningSocket::new(TcpListener::from_std(socket)?),
            address,
        })
    }

    /// Whether the address could be taken now, with these others `beside` it. Nobody can connect
    /// meanwhile.
    ///
    /// # Errors
    /// As [`Self::bind`].
    pub fn try_bind(address: SocketAddr, beside: &[SocketAddr]) -> Result<(), BindError> {
        bound(address, only_v6(address, beside), false)
            .map(drop)
            .map_err(|source| BindError::new(address, source))
    }

    /// The address it really has.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The socket itself, for a room that accepts on its own.
    pub fn socket(&self) -> &Arc<ListeningSocket> {
        &self.socket
    }

    /// Takes an address while listeners of ours that are `leaving` may still be in its way, as
    /// `127.0.0.1:443` is in that of `0.0.0.0:443`: for a moment both are there, so that nobody is
    /// refused in between.
    pub(super) fn bind_in_place_of(
        address: SocketAddr,
        only_v6: bool,
        leaving: &[Arc<ListeningSocket>],
    ) -> Result<Self, BindError> {
        let in_the_way: Vec<SockRef<'_>> = leaving
            .iter()
            .filter(|other| {
                other
                    .local_addr()
                    .is_ok_and(|at| at.port() == address.port())
            })
            .map(|other| SockRef::from(&***other))
            .collect();
        let share = |shared: bool| {
            in_the_way
                .iter()
                .try_for_each(|other| other.set_reuse_port(shared))
        };
        let taken = match open(address, only_v6, false) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && !in_the_way.is_empty() => {
                let taken = share(true).and_then(|()| open(address, only_v6, true));
                // No other process is to be let in later.
                let alone = share(false);
                taken.and_then(|taken| {
                    SockRef::from(&taken).set_reuse_port(false)?;
                    alone.map(|()| taken)
                })
            }
            taken => taken,
        };
        taken
            .and_then(Self::new)
            .map_err(|source| BindError::new(address, source))
    }
}

/// Whether a listener leaves IPv4 alone: every one of IPv6 but `[::]`, and that one where IPv4 is
/// listed `beside` it.
pub(super) fn only_v6(address: SocketAddr, beside: &[SocketAddr]) -> bool {
    let v4_is_taken = || {
        let same = |other: &SocketAddr| other.is_ipv4() && other.port() == address.port();
        beside.iter().any(same)
    };
    address.is_ipv6() && (!address.ip().is_unspecified() || v4_is_taken())
}

fn open(address: SocketAddr, only_v6: bool, shared: bool) -> io::Result<std::net::TcpListener> {
    let socket = bound(address, only_v6, shared)?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn bound(address: SocketAddr, only_v6: bool, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(only_v6)?;
    }
    // A restart must not wait for connections of the last run in TIME_WAIT.
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
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
    let another = "choose another address in the config";
    match holder {
        Some(own) if own.pid == std::process::id() => {
            format!("port {port} is held by {own}, which is this very process; {another}")
        }
        Some(holder) if holder.name == "holdline" => format!(
            "port {port} is held by a {holder} that runs already (`ps -o args= -p {}` shows with which \
             config and flags): with the same ones `holdline reload` gives it what its config says \
             now, and `holdline upgrade` a new binary; for a second one {another}",
            holder.pid
        ),
        Some(holder) => format!("port {port} is held by {holder}; stop it, or {another}"),
        None => format!(
            "port {port} is in use (`ss -ltnp 'sport = :{port}'` as root shows by whom); stop it, \
             or {another}"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn any() -> SocketAddr {
        "127.0.0.1:0".parse().unwrap()
    }

    /// A port that is free at every address: what the system gives out is so at one.
    fn free_everywhere(offset: usize) -> u16 {
        let first = offset + usize::try_from(std::process::id() % 8000).unwrap();
        let free = |port: &u16| {
            let there = |ip: &str| std::net::TcpListener::bind((ip, *port));
            there("0.0.0.0").is_ok()
                && there("::").map_or_else(|e| e.kind() != io::ErrorKind::AddrInUse, |_| true)
        };
        (10_000..32_000).skip(first).find(free).unwrap()
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
        assert!(!text.contains("stop it"), "it is us: {text}");
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
        let port = free_everywhere(0);
        let v4 = SocketAddr::from(([0, 0, 0, 0], port));
        let _v4 = Listener::bind(v4).unwrap();
        let v6 = SocketAddr::new("::".parse().unwrap(), port);
        // A machine without IPv6 has nothing to show here.
        match Listener::bind_in_place_of(v6, true, &[]) {
            Ok(both) => assert_eq!(both.address().port(), port),
            Err(error) => assert!(!matches!(error, BindError::InUse { .. }), "{error}"),
        }
    }

    /// Widening an address, as from this machine to everybody, refuses nobody in between.
    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn an_address_is_taken_over_from_a_listener_that_leaves() {
        let port = free_everywhere(8000);
        let narrow = Listener::bind(SocketAddr::from(([127, 0, 0, 1], port))).unwrap();
        let everywhere = SocketAddr::from(([0, 0, 0, 0], port));
        assert!(matches!(
            Listener::bind_in_place_of(everywhere, false, &[]),
            Err(BindError::InUse { .. })
        ));
        let wide = Listener::bind_in_place_of(everywhere, false, &[narrow.socket]).unwrap();
        let connecting = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        let (_, from) = wide.socket().accept().await.unwrap();
        assert_eq!(from, connecting.local_addr().unwrap());
        // And a second holdline is refused afterwards, as ever.
        assert!(matches!(
            Listener::bind(wide.address()),
            Err(BindError::InUse { .. })
        ));
    }
}
