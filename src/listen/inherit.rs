//! Listening sockets that somebody else has opened: the holdline before this one, or systemd.
//!
//! Here they are kept until an address of the config claims them. How they came is the business of
//! [`crate::handover`] and [`crate::systemd`].

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::AsFd;

use serde::{Deserialize, Serialize};
use socket2::SockRef;

/// What a listener is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Kind {
    /// `listen.https`
    Https,
    /// `listen.http`
    Http,
    /// `admin.listen`
    Admin,
}

/// A listening socket and what is known of it.
#[derive(Debug)]
pub struct InheritedSocket {
    /// Unknown when it comes from somebody who does not know our kinds.
    pub kind: Option<Kind>,
    /// The address that a config asked for when it was opened; with port 0 not the one it has.
    pub configured: Option<SocketAddr>,
    socket: TcpListener,
    address: SocketAddr,
}

/// Every socket that this process was started with, until it is taken.
#[derive(Debug, Default)]
pub struct Inherited {
    sockets: Vec<InheritedSocket>,
}

// === impl Kind ===

impl Kind {
    /// As `FileDescriptorName=` and logs say it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Https => "https",
            Self::Http => "http",
            Self::Admin => "admin",
        }
    }

    /// By that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        [Self::Https, Self::Http, Self::Admin]
            .into_iter()
            .find(|kind| kind.as_str() == name)
    }

    /// Where the config lists its addresses.
    fn key(self) -> &'static str {
        match self {
            Self::Https => "listen.https",
            Self::Http => "listen.http",
            Self::Admin => "admin.listen",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

// === impl InheritedSocket ===

impl InheritedSocket {
    /// # Errors
    /// When it does not listen: with `Accept=yes`, for example, systemd passes connections.
    pub fn new(
        socket: TcpListener,
        kind: Option<Kind>,
        configured: Option<SocketAddr>,
    ) -> io::Result<Self> {
        let address = socket.local_addr()?;
        if !SockRef::from(&socket).is_listener()? {
            let words = format!("the socket of {address} does not listen");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, words));
        }
        Ok(Self {
            kind,
            configured,
            socket,
            address,
        })
    }

    /// Whether it is this one that the config lists.
    fn is(&self, kind: Kind, address: SocketAddr) -> bool {
        self.kind.is_none_or(|known| known == kind)
            && (self.configured == Some(address) || self.address == address)
    }

    /// Whether `[::]` takes IPv4 as well.
    fn takes_both_families(&self) -> bool {
        takes_both_families(&self.socket, self.address)
    }
}

// === impl Inherited ===

impl Inherited {
    /// Of these.
    #[must_use]
    pub fn new(sockets: Vec<InheritedSocket>) -> Self {
        Self { sockets }
    }

    /// How many are left.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sockets.len()
    }

    /// Whether none is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sockets.is_empty()
    }

    /// For each of these addresses of a config its socket, where there is one.
    ///
    /// By address first. What is named alike and was not opened for any address of a config
    /// stands in for the addresses that are left, in their order: a socket unit may say
    /// `ListenStream=443` where the config says `0.0.0.0:443`.
    pub(super) fn claim(
        &mut self,
        kind: Kind,
        addresses: &[SocketAddr],
    ) -> Vec<Option<TcpListener>> {
        let mut claimed: Vec<_> = addresses
            .iter()
            .map(|address| self.take(|socket| socket.is(kind, *address)))
            .collect();
        let taken = claimed.iter().flatten();
        let covered: Vec<u16> = taken
            .filter(|socket| socket.takes_both_families())
            .map(|socket| socket.address.port())
            .collect();
        for (claim, address) in claimed.iter_mut().zip(addresses) {
            let is_covered = is_any_v4(*address) && covered.contains(&address.port());
            if claim.is_none() && !is_covered {
                *claim =
                    self.take(|socket| socket.kind == Some(kind) && socket.configured.is_none());
            }
        }
        claimed
            .into_iter()
            .map(|claim| claim.map(|socket| socket.socket))
            .collect()
    }

    /// Closes what no address of the config has claimed, and says so.
    pub fn close_rest(self) {
        for socket in self.sockets {
            let (kind, address) = (socket.kind, socket.address);
            match kind {
                // It is still open there: who connects to it waits for nobody.
                Some(kind) if socket.configured.is_none() => tracing::warn!(
                    %address,
                    "closed an {kind} socket that the service manager passed: {} has no place for it; \
                     list its address there, or take it out of the socket unit",
                    kind.key()
                ),
                Some(kind) => tracing::info!(
                    %address,
                    "closed an inherited {kind} socket: {} does not list it",
                    kind.key()
                ),
                None => tracing::warn!(
                    %address,
                    "closed a socket that the service manager passed: the config does not list its \
                     address; list it, or name it https, http or admin (FileDescriptorName=)"
                ),
            }
        }
    }

    fn take(&mut self, wanted: impl Fn(&InheritedSocket) -> bool) -> Option<InheritedSocket> {
        let at = self.sockets.iter().position(wanted)?;
        Some(self.sockets.remove(at))
    }
}

/// Whether a listener of `[::]` takes IPv4 as well.
pub(super) fn takes_both_families(socket: &impl AsFd, address: SocketAddr) -> bool {
    address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED)
        && matches!(SockRef::from(socket).only_v6(), Ok(false))
}

pub(super) fn is_any_v4(address: SocketAddr) -> bool {
    address.ip() == IpAddr::V4(Ipv4Addr::UNSPECIFIED)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FREE: &str = "127.0.0.1:0";

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn socket(kind: Option<Kind>, configured: Option<&str>) -> InheritedSocket {
        let listener = TcpListener::bind(FREE).unwrap();
        InheritedSocket::new(listener, kind, configured.map(at)).unwrap()
    }

    fn ports(claimed: &[Option<TcpListener>]) -> Vec<Option<u16>> {
        let port = |socket: &TcpListener| socket.local_addr().unwrap().port();
        claimed
            .iter()
            .map(|claim| claim.as_ref().map(port))
            .collect()
    }

    #[test]
    fn a_predecessors_socket_is_found_by_what_the_config_says() {
        let https = socket(Some(Kind::Https), Some(FREE));
        let admin = socket(Some(Kind::Admin), Some(FREE));
        let (of_https, of_admin) = (https.address.port(), admin.address.port());
        let mut inherited = Inherited::new(vec![admin, https]);
        let elsewhere = inherited.claim(Kind::Https, &[at("127.0.0.1:1")]);
        assert_eq!(ports(&elsewhere), [None]);
        let claimed = inherited.claim(Kind::Https, &[at(FREE), at(FREE)]);
        assert_eq!(ports(&claimed), [Some(of_https), None]);
        let claimed = inherited.claim(Kind::Admin, &[at(FREE)]);
        assert_eq!(ports(&claimed), [Some(of_admin)]);
        assert!(inherited.is_empty());
    }

    #[test]
    fn a_service_managers_socket_is_found_by_address_then_by_name() {
        let (one, two) = (
            socket(Some(Kind::Https), None),
            socket(Some(Kind::Https), None),
        );
        let unnamed = socket(None, None);
        let (first, second) = (one.address, two.address);
        let nameless = unnamed.address;
        let mut inherited = Inherited::new(vec![one, two, unnamed]);
        // The one that is listed goes to its address, the other one to what is left.
        let wanted = [at("0.0.0.0:443"), first, nameless, at("0.0.0.0:444")];
        let claimed = inherited.claim(Kind::Https, &wanted);
        let expected = [Some(second), Some(first), Some(nameless), None];
        assert_eq!(
            ports(&claimed),
            expected.map(|address| address.map(|address| address.port()))
        );
    }

    #[test]
    fn nothing_is_used_for_what_it_is_not() {
        let admin = socket(Some(Kind::Admin), None);
        let address = admin.address;
        let unnamed = socket(None, None);
        let mut inherited = Inherited::new(vec![admin, unnamed]);
        let claimed = inherited.claim(Kind::Https, &[address, at("0.0.0.0:443")]);
        assert_eq!(ports(&claimed), [None, None]);
        assert_eq!(inherited.len(), 2);
    }

    #[test]
    fn what_does_not_listen_is_refused() {
        let bound = socket2::Socket::new(
            socket2::Domain::IPV4,
            socket2::Type::STREAM,
            Some(socket2::Protocol::TCP),
        )
        .unwrap();
        bound.bind(&at(FREE).into()).unwrap();
        let refused = InheritedSocket::new(bound.into(), None, None).unwrap_err();
        assert!(refused.to_string().contains("does not listen"), "{refused}");
    }
}
