//! The public listeners that are open, and how a reload adds and removes them.
//!
//! Connections outlive the listener that they came through: only accepting begins and ends here.

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{BindError, Listener};
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

impl Wanted {
    pub(super) fn all(config: &config::Listen) -> Vec<Self> {
        let addresses = || config.https.iter().chain(&config.http);
        let only_v6 = |address: &SocketAddr| {
            address.is_ipv6()
                && (!address.ip().is_unspecified()
                    || addresses().any(|o| o.is_ipv4() && o.port() == address.port()))
        };
        let wanted = |speaks| {
            move |address: &SocketAddr| Self {
                speaks,
                address: *address,
                only_v6: only_v6(address),
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
    socket: Weak<TcpListener>,
    closed: CancellationToken,
}

/// Accepts until the token is cancelled; then the socket is closed.
pub(super) type Accept = Box<dyn Fn(Listener, CancellationToken) + Send + Sync>;

/// The open listeners.
pub struct Doors {
    open: Mutex<Vec<Door>>,
    /// Sockets that were closed and may not be gone yet.
    closing: Mutex<Vec<Weak<TcpListener>>>,
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

    fn addresses(&self, speaks: Speaks) -> Vec<SocketAddr> {
        self.lock()
            .iter()
            .filter(|door| door.wanted.speaks == speaks)
            .map(|door| door.address)
            .collect()
    }

    /// Takes every address of `config` that is not open yet, or none.
    ///
    /// Must be called within a tokio runtime.
    ///
    /// # Errors
    /// The first address that cannot be had.
    pub fn prepare(&self, config: &config::Listen) -> Result<Changes, BindError> {
        let wanted = Wanted::all(config);
        let open = self.lock();
        let closing = self.closing();
        let leaving: Vec<Arc<TcpListener>> = open
            .iter()
            .filter(|door| !wanted.contains(&door.wanted))
            .map(|door| &door.socket)
            .chain(&*closing)
            .filter_map(Weak::upgrade)
            .collect();
        let bound = wanted
            .iter()
            .filter(|wanted| !open.iter().any(|door| door.wanted == **wanted))
            .map(|wanted| Ok((*wanted, Listener::bind_in_place_of(wanted, &leaving)?)))
            .collect::<Result<_, _>>()?;
        Ok(Changes { wanted, bound })
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
                socket: Arc::downgrade(listener.socket()),
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
        closing.retain(|socket| socket.strong_count() > 0);
        for left in before {
            left.closed.cancel();
            closing.push(left.socket);
        }
    }

    fn closing(&self) -> std::sync::MutexGuard<'_, Vec<Weak<TcpListener>>> {
        self.closing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Door>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Doors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Doors").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
