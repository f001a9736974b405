//! As whom a client is presented to the gateway (PROTOCOL: E7).
//!
//! The gateway gives clients it sees as local its full trust, and refuses those whose forwarding
//! headers it cannot believe. So there are exactly two ways: a client on loopback without any sign
//! of a proxy is presented as what it is, by saying nothing; every other one with its address.
//!
//! The invariant: a client is `local` only if its own connection comes from loopback, no trusted
//! proxy is at that address, and nothing in its request hints at somebody in front. No header can ever make it so.
//!
//! Pure: no I/O, no config beyond the arguments.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, header};
use ipnet::IpNet;

use super::names::shows_proxy;
use crate::config::LoopbackClients;
use crate::protocol::rescue::Cause;

/// A client as the gateway will see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Presented {
    /// Its address: what limits per address count, too.
    pub address: IpAddr,
    /// Whether it is on this machine, so that no forwarding header is sent for it.
    pub local: bool,
}

/// Why a client is presented as nobody.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// `[gateway] loopback_clients = "refuse"`.
    #[error("clients on loopback are refused")]
    Loopback,
    /// On loopback, with this header of a proxy that is not in `[listen] trusted_proxies`.
    #[error("`{0}` on a loopback connection, and its sender is not a trusted proxy")]
    TunnelNotTrusted(HeaderName),
    /// From a trusted proxy on this machine, or a client it cannot name: may be anybody's.
    #[error("a trusted proxy on this machine does not say who its client is")]
    ClientUnknown,
    /// A trusted proxy's `X-Forwarded-For` is no list of addresses.
    #[error("a trusted proxy's X-Forwarded-For cannot be read")]
    ForwardedForBroken,
    /// A trusted proxy claims a client on loopback.
    #[error("a trusted proxy names {0} as its client")]
    ForwardedLoopback(IpAddr),
}

impl From<Refused> for Cause {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Loopback => Self::LoopbackRefused,
            Refused::TunnelNotTrusted(header) => Self::TunnelNotTrusted(header),
            Refused::ClientUnknown => Self::ClientUnknown,
            Refused::ForwardedForBroken => Self::ForwardedForBroken,
            Refused::ForwardedLoopback(address) => Self::ForwardedLoopback(address),
        }
    }
}

/// As whom the client behind `peer_remote` is presented.
///
/// `via_proxy` says that `peer_remote` is a trusted proxy itself: then, and only then, does its
/// `X-Forwarded-For` count, and `trusted` says which of the hops it names are proxies as well.
/// `headers` are the request's, untouched: a header that `Connection` names is a sign, too.
///
/// # Errors
///
/// Where presenting it either way could be a lie; the error says which setting to make.
pub fn present(
    peer_remote: IpAddr,
    via_proxy: bool,
    headers: &HeaderMap,
    trusted: &[IpNet],
    loopback_clients: LoopbackClients,
) -> Result<Presented, Refused> {
    let peer = peer_remote.to_canonical();
    if via_proxy && headers.contains_key(FORWARDED_FOR) {
        return forwarded(headers, trusted);
    }
    if !is_here(peer) {
        return Ok(Presented {
            address: peer,
            local: false,
        });
    }
    if let Some(sign) = sign_of_proxy(headers) {
        return Err(Refused::TunnelNotTrusted(sign));
    }
    // A client of this machine, or of a proxy that adds nothing (nginx, unless told to): nobody
    // can tell. Unspecified is whom a PROXY header does not name.
    if via_proxy || peer.is_unspecified() {
        return Err(Refused::ClientUnknown);
    }
    match loopback_clients {
        LoopbackClients::Refuse => Err(Refused::Loopback),
        LoopbackClients::Local => Ok(Presented {
            address: peer,
            local: true,
        }),
    }
}

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The rightmost hop that is not a trusted proxy itself (each proxy appends the peer it saw);
/// where all of them are, the first one.
fn forwarded(headers: &HeaderMap, trusted: &[IpNet]) -> Result<Presented, Refused> {
    let mut hops = Vec::new();
    for line in headers.get_all(FORWARDED_FOR) {
        let line = line.to_str().map_err(|_| Refused::ForwardedForBroken)?;
        for hop in line.split(',') {
            hops.push(parse_hop(hop.trim()).ok_or(Refused::ForwardedForBroken)?);
        }
    }
    let client = hops.iter().rev().find(|hop| !is_trusted(trusted, **hop));
    let address = *client
        .or_else(|| hops.first())
        .ok_or(Refused::ForwardedForBroken)?;
    if is_here(address) {
        return Err(Refused::ForwardedLoopback(address));
    }
    Ok(Presented {
        address,
        local: false,
    })
}

/// An address, with a port or brackets as some proxies write them.
fn parse_hop(hop: &str) -> Option<IpAddr> {
    let address = if let Some(rest) = hop.strip_prefix('[') {
        let (address, port) = rest.split_once(']')?;
        let port = port.strip_prefix(':').unwrap_or("0");
        port.parse::<u16>()
            .ok()
            .and_then(|_| address.parse().ok().map(IpAddr::V6))
    } else {
        let v4_with_port = || {
            hop.parse()
                .ok()
                .map(|socket: std::net::SocketAddrV4| *socket.ip())
        };
        hop.parse().ok().or_else(|| v4_with_port().map(IpAddr::V4))
    };
    address.map(|address| address.to_canonical())
}

fn is_trusted(trusted: &[IpNet], address: IpAddr) -> bool {
    trusted.iter().any(|net| net.contains(&address))
}

/// Loopback, or "this host" (0.0.0.0, ::), which connects to it.
fn is_here(address: IpAddr) -> bool {
    address.is_loopback() || address.is_unspecified()
}

/// The first header that shows a proxy in front, or a `Connection` option that names one (a
/// client's way of having a proxy remove what it added).
fn sign_of_proxy(headers: &HeaderMap) -> Option<HeaderName> {
    if let Some(name) = headers.keys().find(|name| shows_proxy(name)) {
        return Some(name.clone());
    }
    headers
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
        .filter_map(|option| HeaderName::from_bytes(option.trim_ascii()).ok())
        .find(shows_proxy)
}

#[cfg(test)]
mod tests;
