//! The public listeners that are open, and how a reload adds and removes them.
//!
//! Connections outlive the listener that they came through: only accepting begins and ends here.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio_util::sync::CancellationToken;

use super::bind::only_v6;
use super::inherit::{is_any_v4, takes_both_families};
use super::socket::{KnownSocket, ListeningSocket};
use super::{BindError, Inherited, Kind, Listener, Share};
use crate::config;

/// What is spoken at a door.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Speaks {
    /// TLS.
    Tls,
    /// Plain HTTP.
    Plain,
}

/// A listener as the config wants it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) speaks: Speaks,
    /// Port 0 is one that the system gives out.
    pub(super) address: SocketAddr,
    /// Whether `[::]` leaves IPv4 alone, because that is listed beside it.
    pub(super) only_v6: bool,
}

impl Speaks {
    fn kind(self) -> Kind {
        match self {
            Self::Tls => Kind::Https,
            Self::Plain => Kind::Http,
        }
    }
}

impl Wanted {
    pub(super) fn all(config: &config::Listen) -> Vec<Self> {
        let beside: Vec<SocketAddr> = config.https.iter().chain(&config.http).copied().collect();
        let wanted = |speaks| {
            let beside = &beside;
            move |address: &SocketAddr| Self {
                speaks,
                address: *address,
                only_v6: only_v6(*address, beside),
            }
        };
        let tls = config.https.iter().map(wanted(Speaks::Tls));
        let plain = config.http.iter().map(wanted(Speaks::Plain));
        tls.chain(plain).collect()
    }
}

/// One listener, and the end of its accepting. The socket belongs to who accepts.
struct Door {
    wanted: Wanted,
    address: SocketAddr,
    socket: KnownSocket,
    closed: CancellationToken,
}

impl Door {
    /// Its port, if it is `[::]` and takes IPv4 as well.
    fn of_both(&self) -> Option<u16> {
        let socket = self.socket.socket()?;
        takes_both_families(&**socket, self.address).then(|| self.address.port())
    }
}

/// Accepts until the token is cancelled; then the socket is closed.
pub(super) type Accept = Box<dyn Fn(Listener, CancellationToken) + Send + Sync>;

/// The open listeners.
pub struct Doors {
    open: Mutex<Vec<Door>>,
    /// Sockets that were closed and may not be gone yet.
    closing: Mutex<Vec<KnownSocket>>,
    tls: Accept,
    plain: Accept,
    /// Where plain requests are sent; 0: nowhere.
    https_port: Arc<AtomicU16>,
}

/// Listeners that a new config asks for, bound and not accepting yet. Dropped, nothing has changed.
#[derive(Debug)]
pub struct Changes {
    wanted: Vec<Wanted>,
    bound: Vec<(Wanted, Listener)>,
}

impl Doors {
    /// `https_port` is kept up to date; the closures begin to accept at one listener each.
    pub(super) fn new(tls: Accept, plain: Accept, https_port: Arc<AtomicU16>) -> Self {
        Self {
            open: Mutex::default(),
            closing: Mutex::default(),
            tls,
            plain,
            https_port,
        }
    }

    /// Where TLS is spoken, in the order of the config, with the ports that were given out.
    #[must_use]
    pub fn https(&self) -> Vec<SocketAddr> {
        self.addresses(Speaks::Tls)
    }

    /// Where plain HTTP is spoken.
    #[must_use]
    pub fn http(&self) -> Vec<SocketAddr> {
        self.addresses(Speaks::Plain)
    }

    /// Where others reach a listener that the config has for this machine only: a socket that was
    /// inherited stands in for it.
    pub(crate) fn wider_than_configured(&self) -> Vec<SocketAddr> {
        let wider = |door: &&Door| {
            let (wanted, is) = (door.wanted.address.ip(), door.address.ip());
            door.wanted.speaks == Speaks::Tls && wanted.is_loopback() && !is.is_loopback()
        };
        self.lock()
            .iter()
            .filter(wider)
            .map(|door| door.address)
            .collect()
    }

    fn addresses(&self, speaks: Speaks) -> Vec<SocketAddr> {
        self.lock()
            .iter()
            .filter(|door| door.wanted.speaks == speaks)
            .map(|door| door.address)
            .collect()
    }

    /// Takes every address of `config` that is not open yet, or none; where a socket was inherited
    /// for one, that. What is `leaving`, here or elsewhere, is not in the way.
    ///
    /// Must be called within a tokio runtime.
    ///
    /// # Errors
    /// The first address that cannot be had.
    pub fn prepare(
        &self,
        config: &config::Listen,
        leaving: &[Arc<ListeningSocket>],
        inherited: &mut Inherited,
    ) -> Result<Changes, BindError> {
        let wanted = Wanted::all(config);
        let open = self.lock();
        // As when it was inherited: what stays at `[::]` may be enough for IPv4.
        let stays = |door: &&Door| wanted.contains(&door.wanted);
        let both: Vec<u16> = open
            .iter()
            .filter(stays)
            .filter_map(Door::of_both)
            .collect();
        let mut bound = Vec::new();
        for speaks in [Speaks::Tls, Speaks::Plain] {
            let missing = |wanted: &&Wanted| {
                wanted.speaks == speaks
                    && !open.iter().any(|door| door.wanted == **wanted)
                    && !is_covered(wanted.address, &both)
            };
            let missing: Vec<Wanted> = wanted.iter().filter(missing).copied().collect();
            bound.extend(take(speaks, &missing, leaving, inherited)?);
        }
        Ok(Changes { wanted, bound })
    }

    /// The sockets that are of no more use with `config`, and those that are closing already.
    #[must_use]
    pub fn leaving(&self, config: &config::Listen) -> Vec<Arc<ListeningSocket>> {
        let wanted = Wanted::all(config);
        let (open, closing) = (self.lock(), self.closing());
        open.iter()
            .filter(|door| !wanted.contains(&door.wanted))
            .map(|door| &door.socket)
            .chain(&*closing)
            .filter_map(KnownSocket::socket)
            .collect()
    }

    /// The sockets again, for the process that takes our place.
    ///
    /// # Errors
    /// When there is no descriptor left for one.
    pub fn shares(&self) -> io::Result<Vec<Share>> {
        let share = |door: &Door| {
            let socket = door.socket.socket()?;
            let (kind, configured) = (door.wanted.speaks.kind(), door.wanted.address);
            Some(Listener::share(kind, configured, &socket))
        };
        self.lock().iter().filter_map(share).collect()
    }

    /// Opens what was prepared and closes what is not wanted any more. Open connections stay.
    pub fn apply(&self, changes: Changes) {
        let Changes { wanted, bound } = changes;
        let mut doors = self.lock();
        let mut before = std::mem::take(&mut *doors);
        for (wanted, listener) in bound {
            let closed = CancellationToken::new();
            let accept = match wanted.speaks {
                Speaks::Tls => &self.tls,
                Speaks::Plain => &self.plain,
            };
            before.push(Door {
                wanted,
                address: listener.address(),
                socket: listener.socket().known(),
                closed: closed.clone(),
            });
            accept(listener, closed);
        }
        for wanted in wanted {
            let at = before.iter().position(|door| door.wanted == wanted);
            doors.extend(at.map(|at| before.remove(at)));
        }
        let first = doors.iter().find(|door| door.wanted.speaks == Speaks::Tls);
        let port = first.map_or(0, |door| door.address.port());
        self.https_port.store(port, Ordering::Relaxed);
        let mut closing = self.closing();
        closing.retain(|socket| !socket.is_closed());
        for left in before {
            left.closed.cancel();
            closing.push(left.socket);
        }
    }

    /// Waits until nobody can connect any more where a door was closed.
    pub async fn closed(&self) {
        let closing = self.closing().clone();
        for socket in closing {
            socket.closed().await;
        }
    }

    fn closing(&self) -> std::sync::MutexGuard<'_, Vec<KnownSocket>> {
        self.closing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Door>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What was inherited for these, and the rest bound. A socket of `[::]` that takes IPv4 as well is
/// enough for `0.0.0.0`, too.
fn take(
    speaks: Speaks,
    wanted: &[Wanted],
    leaving: &[Arc<ListeningSocket>],
    inherited: &mut Inherited,
) -> Result<Vec<(Wanted, Listener)>, BindError> {
    let addresses: Vec<SocketAddr> = wanted.iter().map(|wanted| wanted.address).collect();
    let claimed = inherited.claim(speaks.kind(), &addresses);
    let of_both = |socket: &std::net::TcpListener| {
        let address = socket.local_addr().ok()?;
        takes_both_families(socket, address).then(|| address.port())
    };
    let both: Vec<u16> = claimed.iter().flatten().filter_map(of_both).collect();
    let mut taken = Vec::new();
    for (wanted, claim) in wanted.iter().zip(claimed) {
        let listener = match claim {
            Some(socket) => Listener::inherit(socket, wanted.address)?,
            None if is_covered(wanted.address, &both) => {
                let address = wanted.address;
                tracing::info!(%address, "an inherited socket of [::] takes IPv4 as well");
                continue;
            }
            None => Listener::bind_in_place_of(wanted.address, wanted.only_v6, leaving)?,
        };
        taken.push((*wanted, listener));
    }
    Ok(taken)
}

/// Whether IPv4 comes in by `[::]`, of which there are listeners on these ports.
fn is_covered(address: SocketAddr, both: &[u16]) -> bool {
    is_any_v4(address) && both.contains(&address.port())
}

impl fmt::Debug for Doors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Doors").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listen::InheritedSocket;

    fn wanted(https: &[&str]) -> Vec<(String, bool)> {
        let listen = config::Listen {
            https: https.iter().map(|text| text.parse().unwrap()).collect(),
            http: Vec::new(),
            proxy_protocol: false,
            trusted_proxies: Vec::new(),
        };
        let all = Wanted::all(&listen);
        all.iter()
            .map(|one| (one.address.to_string(), one.only_v6))
            .collect()
    }

    #[test]
    fn both_families_share_a_port_only_where_both_are_named() {
        assert_eq!(wanted(&["[::]:443"]), [("[::]:443".to_owned(), false)]);
        assert!(wanted(&["[::]:443", "0.0.0.0:443"])[0].1);
        assert!(!wanted(&["[::]:443", "0.0.0.0:80"])[0].1);
        assert!(wanted(&["[::1]:443"])[0].1);
    }

    fn any() -> SocketAddr {
        "127.0.0.1:0".parse().unwrap()
    }

    fn tls(address: SocketAddr) -> Wanted {
        Wanted {
            speaks: Speaks::Tls,
            address,
            only_v6: false,
        }
    }

    fn inherited(socket: std::net::TcpListener, configured: Option<SocketAddr>) -> Inherited {
        let socket = InheritedSocket::new(socket, Some(Kind::Https), configured);
        Inherited::new(vec![socket.unwrap()])
    }

    #[tokio::test]
    async fn an_inherited_socket_is_taken_and_the_rest_is_bound() {
        let old = Listener::bind(any()).unwrap();
        let address = old.address();
        let share = Listener::share(Kind::Https, any(), old.socket()).unwrap();
        let mut sockets = inherited(share.socket.into(), Some(any()));
        let wanted = [tls("127.0.0.2:0".parse().unwrap()), tls(any())];
        let new = take(Speaks::Tls, &wanted, &[], &mut sockets).unwrap();
        assert!(sockets.is_empty());
        assert_eq!(new[1].1.address(), address);
        assert_ne!(new[0].1.address(), address);
        // The socket lives as long as anybody has it.
        drop(old);
        let connect = tokio::net::TcpStream::connect(address);
        let (accepted, connected) = tokio::join!(new[1].1.socket().accept(), connect);
        assert!(accepted.is_ok() && connected.is_ok());
    }

    #[tokio::test]
    async fn one_inherited_socket_of_both_families_is_enough_for_two_addresses() {
        // A machine without IPv6 has nothing to show here.
        let Ok(socket) = std::net::TcpListener::bind("[::]:0") else {
            return;
        };
        let port = socket.local_addr().unwrap().port();
        let mut sockets = inherited(socket, None);
        let wanted = ["0.0.0.0", "::"].map(|ip| tls(SocketAddr::new(ip.parse().unwrap(), port)));
        let taken = take(Speaks::Tls, &wanted, &[], &mut sockets).unwrap();
        assert_eq!(taken.len(), 1);
        assert!(taken[0].1.address().is_ipv6());
    }
}
